"""From residuals to surprise: how rarely a normal series of this metric and volume goes as far within half a day.

Holds the tails learned from a fleet's trailing weeks, their file, the surprise ``S`` and what is derived from it alone
(onset, joint test, mark of a young series, confidence). How residuals arise is the usage model's; severities are not here.

``S = −log10 P(the largest value of a normal 12-hour block reaches this)``: at a mark of 2, a normal series rings in
one block of a hundred. Every metric × scale × sign × class of volume has its own tail: quantiles of block maxima and,
past the last of them, a Pareto tail (Hill, Annals of Statistics 3, 1975). The mean surprise of the scales goes
through a second table of the same sort, because a mean of surprises is none.

A fleet's own weeks contain incidents, and calibrating on their rarest blocks would teach that incidents are normal.
So a fleet teaches its ordinary range, and the far tail keeps the shape of the shipped tables, learned without any.

``python -m obs_pipeline_tests.performance.detection_bench --write-default`` makes the shipped tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.usage_model import Scored

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BLOCK: Final = 12
BLOCKS_A_WEEK: Final = 14
LARGEST: Final = 8.0
VOLUME_EDGES: Final = (0.5, 3.0, 15.0, 60.0)
"""Between the classes of volume; the class after the last one is all volumes together."""
SETTLED_HOURS: Final = 168.0
"""Hours a series must have lived to tell what is normal."""
LEAST_BLOCKS: Final = 300
"""With fewer blocks a class of volume is judged like all volumes together."""
SMALL_FLEET: Final = 30
"""Fleets of fewer agents use the shipped tables."""
ECHO_SHARE: Final = 0.5
COMPANION_WEIGHT: Final = 0.7
COMPANION_MOST: Final = 1.5
"""How much of the second metric's surprise the joint test counts, and up to where: past that it says nothing new."""
LASTING_HOURS: Final = 4
LASTING_WEIGHT: Final = 0.3
LASTING_MOST: Final = 3.0
"""Over how many hours before the joint test looks back, how much of their mean it counts, and up to where each."""
TRUSTED_RARITY: Final = 1.7
"""Rarer values of unlabelled weeks are more often incidents than not."""
SERIES_WEEKS_AN_INCIDENT: Final = 46.0
FOUND_SHARE: Final = 0.9
CONFIDENT_HOURS: Final = 72.0

SHIPPED_FILE: Final = Path(__file__).with_name("usage_calibration.npz")
BORROWED: Final = "borrowed:"
_JOINT: Final = "joint:"
_KNOTS: Final = 28
_TAIL_BLOCKS: Final = 12
_SCALES: Final = 3
_SIGNS: Final = (1.0, -1.0)
_CLASSES: Final = len(VOLUME_EDGES) + 2
_ALL: Final = _CLASSES - 1


@dataclass(frozen=True)
class Tails:
    """How rarely a metric's blocks reach a value.

    ``views`` (scale, sign, class, knot) and ``combined`` (class, knot) are values in rising order; the ``…_rarity``
    arrays the −log10 of the share of blocks that reach them; the ``…_power`` arrays the Pareto index past the last.
    """

    views: Floats
    views_rarity: Floats
    views_power: Floats
    combined: Floats
    combined_rarity: Floats
    combined_power: Floats


Calibration = Mapping[str, Tails]
"""Tails by metric."""


@dataclass(frozen=True)
class JointTails:
    """How rarely an agent's blocks reach a joint statistic: ``knots`` in rising order, their ``rarity`` as −log10 of the
    share of blocks, and the Pareto ``power`` past the last."""

    knots: Floats
    rarity: Floats
    power: Floats


class Joint(NamedTuple):
    """An agent's metrics judged together, both (series, hours): ``surprise`` is an S like that of one metric, NaN where no
    metric is known; ``leading`` the number of the metric that shows it best, −1 where none is known."""

    surprise: Floats
    leading: Ints


Shape = tuple[Floats, Floats, float]
"""One tail: its knots, their rarity, its power."""


def fit(scored: Scored, far: Tails | None = None) -> Tails | None:
    """Learn what is normal from one metric of a fleet; None when there is too little of it.

    Uses the blocks whose series have lived a week; panels start at a block's start. Unlabelled weeks hold incidents,
    which make up most of their rarest blocks: with ``far`` (tables learned without incidents) only what one block in
    fifty reaches is learned here, and rarer values follow the shape of ``far``.
    """
    classes, usable = _blocks(scored)
    if usable.sum() < LEAST_BLOCKS:
        return None
    views = np.zeros((_SCALES, 2, _CLASSES, _KNOTS))
    rarity, power = np.zeros_like(views), np.ones(views.shape[:-1])
    for scale in range(_SCALES):
        for sign, direction in enumerate(_SIGNS):
            highest = _highest(direction * scored.residuals[scale])
            for group in range(_CLASSES):
                chosen = _members(highest, classes, usable, group)
                at = (scale, sign, group)
                shape = None if far is None else (far.views[at], far.views_rarity[at], float(far.views_power[at]))
                views[at], rarity[at], power[at] = _tail(chosen, shape)
    partial = Tails(views, rarity, power, *_no_combination())
    unknown = np.isnan(scored.residuals).all(axis=0)
    highest = _highest(np.where(unknown, np.nan, np.max(_mean_surprise(partial, scored), axis=0)))
    shapes: list[Shape | None] = [None] * _CLASSES
    if far is not None:
        shapes = list(zip(far.combined, far.combined_rarity, far.combined_power.tolist(), strict=True))
    tails = [_tail(_members(highest, classes, usable, group), shapes[group]) for group in range(_CLASSES)]
    combined, combined_rarity, combined_power = (np.array(part) for part in zip(*tails, strict=True))
    return Tails(views, rarity, power, combined, combined_rarity, combined_power)


def surprise(tails: Tails, scored: Scored) -> tuple[Floats, Bools]:
    """``S`` of every hour, shape (series, hours), 0 … 8, and whether it is more rather than less than expected.

    NaN where the hour is unknown or nothing is learned.
    """
    both = _mean_surprise(tails, scored)
    result = np.empty(scored.volume.shape)
    _rarities(np.max(both, axis=0), scored.volume, tails.combined, tails.combined_rarity, tails.combined_power, result)
    known = ~np.isnan(scored.residuals).all(axis=0)
    return np.where(known, result, np.nan), both[0] >= both[1]


def onsets(surprises: Floats) -> Floats:
    """Surprises with their echoes lowered: what does not beat all of the half day before keeps half its size."""
    filled = np.nan_to_num(surprises, nan=0.0)
    before = np.zeros_like(filled)
    for back in range(1, BLOCK + 1):
        np.maximum(before[:, back:], filled[:, :-back], out=before[:, back:])
    return np.where(surprises > before, surprises, ECHO_SHARE * surprises)


def joint_surprise(surprises: Floats, tails: JointTails) -> Joint:
    """One agent's metrics judged together: what shows in two of them is the rarer for it, and one incident rings once.

    ``surprises`` is (metric, series, hours), each metric's :func:`surprise` before :func:`onsets`, NaN where unknown, for
    the same agents in the same order. The result means the same as for one metric: S = −log10 P(the largest joint value
    of a normal 12-hour block of the agent reaches this); a false alarm is now one of the agent, not of a series.
    Onsets and the raised marks of young series come after it. The direction is that of the leading metric. What lasts is rarer
    than what does not: an hour depends on the :data:`LASTING_HOURS` before it.
    """
    known = ~np.isnan(surprises).all(axis=0)
    statistic = _joint_statistic(surprises)
    result = _rarity(statistic, tails.knots, tails.rarity, float(tails.power))
    leading = np.argmax(np.nan_to_num(surprises, nan=-1.0), axis=0)
    return Joint(np.where(known, result, np.nan), np.where(known, leading, -1))


def fit_joint(surprises: Floats, age: Floats, far: JointTails | None = None) -> JointTails | None:
    """Learn how rarely normal agents reach a joint statistic; None when there is too little to learn from.

    ``surprises`` as for :func:`joint_surprise`, from a block's start on; ``age`` (series, hours) in known hours. With
    ``far`` only the ordinary range is learned, as in :func:`fit`.
    """
    usable = np.max(np.nan_to_num(_blocked(age)), axis=-1) >= SETTLED_HOURS
    known = ~np.isnan(surprises).all(axis=0)
    highest = _highest(np.where(known, _joint_statistic(surprises), np.nan))
    chosen = highest[usable & np.isfinite(highest)]
    if chosen.size < LEAST_BLOCKS:
        return None
    shape = None if far is None else (far.knots, far.rarity, float(far.power))
    knots, rarity, power = _tail(chosen, shape)
    return JointTails(knots, rarity, np.array(power))


def raised_mark(age: Floats) -> Floats:
    """What a young series must show on top of a mark: it rings most between its first and third day.

    Infinite on the first day, 0.5 to the third, 0.25 to the seventh. ``age`` in known hours.
    """
    return np.select([age < 24, age < 72, age < SETTLED_HOURS], [np.inf, 0.5, 0.25], default=0.0)


def confidence(surprises: Floats, age: Floats) -> Floats:
    """What Bayes says of the share of alarms at this surprise that are real, 0 … 1.

    From two stated rates: an incident in :data:`SERIES_WEEKS_AN_INCIDENT` series-weeks of which
    :data:`FOUND_SHARE` get this far, and the 10^−S of normal blocks that do; the odds times n/(n+72) for n known hours.
    """
    real = FOUND_SHARE / (SERIES_WEEKS_AN_INCIDENT * BLOCKS_A_WEEK)
    odds = real * 10.0**surprises * age / (age + CONFIDENT_HOURS)
    return odds / (1 + odds)


def confidence_when_asked(shares: Floats, times: Floats) -> Floats:
    """What Bayes says where ``times`` as much surprise is asked for, of what it says (:func:`confidence`) where one is."""
    real = FOUND_SHARE / (SERIES_WEEKS_AN_INCIDENT * BLOCKS_A_WEEK)
    odds = np.clip(shares, 0.0, 1 - 1e-9) / (1 - np.clip(shares, 0.0, 1 - 1e-9))
    surprise = np.log10(np.maximum(odds / real, 1.0))
    odds = odds * 10.0 ** (surprise / times - surprise)
    asked: Floats = odds / (1 + odds)
    return asked


def mark_for(false_alarms_a_week: float) -> float:
    """The surprise at which one normal series rings this often; blocks are 12 hours."""
    return float(-np.log10(np.clip(false_alarms_a_week / BLOCKS_A_WEEK, 1e-8, 1.0)))


def save(calibration: Calibration, path: Path, joint: Mapping[str, JointTails] | None = None) -> None:
    """Write tables as a compressed npz; the same tables give the same numbers, rounded to single precision.

    ``joint`` has its tables by the names of their metrics, sorted and joined by ``+``.
    """
    tables = {**calibration, **{f"{_JOINT}{metrics}": tails for metrics, tails in (joint or {}).items()}}
    arrays = {
        f"{metric}.{name}": value.astype(np.float32)
        for metric, tails in sorted(tables.items())
        for name, value in vars(tails).items()
    }
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: Path) -> dict[str, Tails]:
    """Read the tables of single metrics that :func:`save` wrote. Raises ``OSError`` or ``ValueError`` for anything else."""
    return {metric: Tails(**parts) for metric, parts in _parts(path).items() if not metric.startswith(_JOINT)}


def load_joint(path: Path) -> dict[str, JointTails]:
    """Read the joint tables that :func:`save` wrote, by the names of their metrics. Raises as :func:`load`."""
    return {
        metrics.removeprefix(_JOINT): JointTails(**parts)
        for metrics, parts in _parts(path).items()
        if metrics.startswith(_JOINT)
    }


@lru_cache(maxsize=1)
def shipped() -> Calibration:
    """The tables that come with the program, for fleets too small to learn from."""
    return load(SHIPPED_FILE)


def shipped_joint(metrics: Iterable[str], *, borrowed: bool = False) -> JointTails:
    """The joint table that comes with the program for these metrics, in any order.

    ``borrowed`` is for metrics judged by the shipped tables, which fit no fleet quite: it is learned on fleets of both kinds.
    For a set without a table, that of the most metrics: more of them reach further by chance, so it errs to the quiet.
    """
    tables = {names: tails for names, tails in _shipped_joint().items() if names.startswith(BORROWED) == borrowed}
    wanted = (BORROWED if borrowed else "") + "+".join(sorted(metrics))
    return tables.get(wanted) or tables[max(tables, key=lambda names: names.count("+"))]


@lru_cache(maxsize=1)
def _shipped_joint() -> Mapping[str, JointTails]:
    return load_joint(SHIPPED_FILE)


def _parts(path: Path) -> dict[str, dict[str, Floats]]:
    found: dict[str, dict[str, Floats]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            metric, name = key.split(".")
            found.setdefault(metric, {})[name] = arrays[key].astype(np.float64)
    return found


def _joint_statistic(surprises: Floats) -> Floats:
    """The largest surprise of an hour, a share of the second, and one of what these were in the hours before, (series, hours)."""
    filled = np.nan_to_num(surprises, nan=0.0)
    statistic: Floats = filled[0].copy()
    if len(filled) > 1:
        second, first = np.partition(filled, -2, axis=0)[-2:]
        statistic = first + COMPANION_WEIGHT * np.minimum(second, COMPANION_MOST)
    shown = LASTING_WEIGHT / LASTING_HOURS * np.minimum(statistic, LASTING_MOST)
    for back in range(1, LASTING_HOURS + 1):
        statistic[:, back:] += shown[:, :-back]
    return statistic


def _no_combination() -> tuple[Floats, Floats, Floats]:
    empty = np.zeros((_CLASSES, _KNOTS))
    return empty, empty, np.ones(_CLASSES)


def _classes(volume: Floats) -> Ints:
    return np.searchsorted(VOLUME_EDGES, np.nan_to_num(volume), side="right").astype(np.int64)


def _blocked(values: Floats) -> Floats:
    """(series, hours) as (series, blocks, 12); the hours after the last whole block are left out."""
    blocks = values.shape[1] // BLOCK
    return values[:, : blocks * BLOCK].reshape(len(values), blocks, BLOCK)


def _highest(values: Floats) -> Floats:
    """The largest known value of each block; −inf without any."""
    highest: Floats = np.max(np.nan_to_num(_blocked(values), nan=-np.inf), axis=-1)
    return highest


def _blocks(scored: Scored) -> tuple[Ints, Bools]:
    """The class of volume of each block and whether it may teach."""
    volume = np.max(np.nan_to_num(_blocked(scored.volume)), axis=-1)
    age = np.max(np.nan_to_num(_blocked(scored.age)), axis=-1)
    return _classes(volume), age >= SETTLED_HOURS


def _members(highest: Floats, classes: Ints, usable: Bools, group: int) -> Floats:
    everyone = highest[usable & np.isfinite(highest)]
    chosen = highest[usable & np.isfinite(highest) & (classes == group)]
    return everyone if group == _ALL or chosen.size < LEAST_BLOCKS else chosen


def _tail(maxima: Floats, shape: Shape | None = None) -> Shape:
    """Knots in rising order, their rarity, and the Pareto index past the last of them."""
    ordered = np.sort(maxima)
    if ordered.size == 0:
        return shape or (np.zeros(_KNOTS), np.zeros(_KNOTS), 1.0)
    if shape is not None:
        return _borrowed_tail(ordered, *shape)
    last = min(_TAIL_BLOCKS, ordered.size)
    shares = np.geomspace(1.0, last / ordered.size, _KNOTS)
    wide = ordered[-min(3 * last, ordered.size) :]
    start = max(float(wide[0]), 1e-6)
    spacing = float(np.mean(np.log(np.maximum(wide, start) / start)))
    return _reached(ordered, shares), -np.log10(shares), float(np.clip(1.0 / max(spacing, 1e-3), 1.5, 20.0))


def _borrowed_tail(ordered: Floats, knots: Floats, rarity: Floats, power: float) -> Shape:
    """Own quantiles as far as they can be trusted, then the other tail, stretched to meet them."""
    shares = np.geomspace(1.0, 10.0**-TRUSTED_RARITY, _KNOTS // 2)
    own = _reached(ordered, shares)
    beyond = np.linspace(TRUSTED_RARITY, max(float(rarity[-1]), TRUSTED_RARITY + 0.1), _KNOTS - own.size + 1)[1:]
    there = float(np.interp(TRUSTED_RARITY, rarity, knots))
    stretch = own[-1] / there if there > 1e-6 and own[-1] > 1e-6 else 1.0
    stretched = np.maximum(np.interp(beyond, rarity, knots) * stretch, own[-1])
    return _rising(np.concatenate([own, stretched])), np.concatenate([-np.log10(shares), beyond]), power


def _reached(ordered: Floats, shares: Floats) -> Floats:
    """The values that these shares of blocks reach."""
    at = np.clip(ordered.size - np.round(shares * ordered.size).astype(np.int64), 0, ordered.size - 1)
    return _rising(np.maximum(ordered[at], 0.0))


def _rising(knots: Floats) -> Floats:
    return np.maximum.accumulate(knots + np.arange(knots.size) * 1e-9)


def _rarity(values: Floats, knots: Floats, rarity: Floats, power: float) -> Floats:
    inside = np.interp(values, knots, rarity)
    past = np.log10(np.maximum(values / max(knots[-1], 1e-6), 1.0)) * power
    rarity_of: Floats = np.minimum(inside + past, LARGEST)
    return rarity_of


def _mean_surprise(tails: Tails, scored: Scored) -> Floats:
    """(sign, series, hours): the mean over the scales; an unknown scale is not surprised."""
    both = np.empty((2, *scored.volume.shape))
    _mean_rarities(scored.residuals, scored.volume, tails.views, tails.views_rarity, tails.views_power, both)
    return both


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _class_of(volume: float) -> int:
    group = 0
    for edge in VOLUME_EDGES:
        if volume >= edge:  # false of an unknown volume, which is none
            group += 1
    return group


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _rarity_of(value: float, knots: Floats, rarity: Floats, power: float) -> float:
    """:func:`_rarity` of one value."""
    last = knots.size - 1
    if value <= knots[0]:
        return float(min(rarity[0], LARGEST))
    if value >= knots[last]:
        past = math.log10(max(value / max(knots[last], 1e-6), 1.0)) * power
        return float(min(rarity[last] + past, LARGEST))
    below, above = 0, last
    while above - below > 1:
        middle = (below + above) // 2
        if knots[middle] <= value:
            below = middle
        else:
            above = middle
    slope = (rarity[below + 1] - rarity[below]) / (knots[below + 1] - knots[below])
    return float(min(rarity[below] + slope * (value - knots[below]), LARGEST))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _rarities(values: Floats, volume: Floats, knots: Floats, rarity: Floats, power: Floats, out: Floats) -> None:
    """Fill ``out`` (series, hours) with the rarity of each value in its class of volume."""
    for s in range(out.shape[0]):
        for t in range(out.shape[1]):
            group = _class_of(volume[s, t])
            out[s, t] = _rarity_of(values[s, t], knots[group], rarity[group], power[group])


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mean_rarities(
    residuals: Floats, volume: Floats, knots: Floats, rarity: Floats, power: Floats, out: Floats
) -> None:
    """Fill ``out`` (sign, series, hours) with the mean rarity of the residuals of all scales to that side."""
    for s in range(out.shape[1]):
        for t in range(out.shape[2]):
            group = _class_of(volume[s, t])
            above, below = 0.0, 0.0
            for scale in range(_SCALES):
                residual = residuals[scale, s, t]
                if math.isnan(residual):
                    residual = 0.0
                up, down = knots[scale, 0, group], knots[scale, 1, group]
                above += _rarity_of(max(residual, 0.0), up, rarity[scale, 0, group], power[scale, 0, group])
                below += _rarity_of(max(-residual, 0.0), down, rarity[scale, 1, group], power[scale, 1, group])
            out[0, s, t], out[1, s, t] = above / _SCALES, below / _SCALES
