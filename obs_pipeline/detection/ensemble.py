"""Several detectors asked at once, and what they say turned into one calibrated probability.

Holds which detectors speak and how loudly, the tables by which their deviations become surprises, and the file of these. No
windows, no metrics, no severities: those are around it as around any single detector.

How the probability arises
--------------------------
1. **Views.** Each detector of :data:`VOICES` compares the value with the same history, in sigmas of its own.
2. **Surprise.** A sigma means something else for each detector and metric, and none means what a normal distribution says.
   So each is read, to either side, in a table of how rarely ordinary days go as far: ``s = −log10 P(an ordinary value
   reaches this)``; past the rarest of them by a Pareto tail (Hill, Annals of Statistics 3, 1975).
3. **Mean.** The surprises of one side are averaged, as :data:`VOICES` weigh them; the side with the larger mean speaks.
4. **Once more.** A mean of surprises is none, as detectors agree more often than chance; so it is read in a table of how rarely
   ordinary days reach that: ``S = −log10 P``, for days of a day, for hours of the largest within half a day.
5. **Mark.** A budget of ``b`` false alarms per agent-week, shared by ``m`` metrics, is the mark ``S = −log10(b / (m × blocks))``
   with 7 blocks a week for days, 14 for hours.
6. **Confidence.** By Bayes, of ``10^−S`` and how often incidents happen, and then by what was right in labelled fleets
   (``scoring``).

The shipped tables were learned on weeks without incidents of the fleets that ``ensemble_bench --write-tables`` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.config import AlarmBudget, Grain, Metric
from obs_pipeline.detection.detectors import DETECTORS, Baseline, Detector, change_of_level

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

VOICES: Final[Mapping[str, float]] = {
    "zscore": 1.0,
    "seasonal_profile": 1.0,
    "forecast_residual": 1.0,
    "robust_zscore": 0.5,
    "iqr": 0.5,
    "change_of_level": 0.5,
}
"""Who speaks, and with what weight: the two that go by the median see the same and share a voice; a change of level alone is the
weakest witness, as most incidents are over before the level has changed."""

LARGEST: Final = 8.0
BLOCK_POINTS: Final[Mapping[Grain, int]] = {"day": 1, "hour": 12}
BLOCKS_A_WEEK: Final[Mapping[Grain, int]] = {"day": 7, "hour": 14}
LEAST_BLOCKS: Final = 1_000

SHIPPED_FILE: Final = Path(__file__).with_name("ensemble_calibration.npz")

_LEVELS: Final = ("zscore", "seasonal_profile", "forecast_residual")  # whose mean is expected
_KNOTS: Final = 40
_TAIL_BLOCKS: Final = 20
_LEAST_SIGMAS: Final = 0.01
_SIDES: Final = (1.0, -1.0)


class Tails(NamedTuple):
    """How rarely ordinary blocks of one metric and grain get as far.

    ``views`` (voice, side, knot) are logarithms (base 10) of sigmas in rising order, ``combined`` (knot,) mean surprises; the
    ``…_rarity`` arrays are −log10 of the share of blocks that reach them, the ``…_slope`` arrays what is added per unit past the
    last knot.
    """

    views: Floats
    views_rarity: Floats
    views_slope: Floats
    combined: Floats
    combined_rarity: Floats
    combined_slope: Floats


def detector(metric: Metric, grain: Grain) -> Detector:
    """The ensemble as a detector of one metric, by the shipped tables. Its deviations are no sigmas: they are ``S``, negative
    where there is less than expected."""
    return partial(heard, shipped()[f"{metric}:{grain}"])


def heard(
    tails: Tails,
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> Baseline:
    """What all voices say of ``observed`` (...) after ``history`` (..., window): the deviation is ``S`` with a sign.

    The expected value is the mean of those that follow a level; the spread, and with it the band, is that of the z-score.
    """
    said = baselines(history, observed, min_points, floor=floor, relative=relative, width=width)
    surprise, more = surprises(tails, deviations(said))
    expected = np.mean([said[name].expected for name in _LEVELS], axis=0)
    spread = said["zscore"].spread
    return Baseline(
        expected=expected,
        spread=spread,
        lower=expected - width * spread,
        upper=expected + width * spread,
        deviation=np.where(more, surprise, -surprise),
        n=said["zscore"].n,
    )


def baselines(
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> dict[str, Baseline]:
    """What each voice says; arguments as for any detector."""
    detectors = {**DETECTORS, "change_of_level": change_of_level}
    return {
        name: detectors[name](history, observed, min_points, floor=floor, relative=relative, width=width)
        for name in VOICES
    }


def deviations(said: Mapping[str, Baseline]) -> Floats:
    """(voice, ...): the sigmas of all voices, in the order of :data:`VOICES`."""
    return np.stack([said[name].deviation for name in VOICES])


def surprises(tails: Tails, sigmas: Floats) -> tuple[Floats, Bools]:
    """``S`` of deviations (voice, ...), 0 … :data:`LARGEST`, and whether it is more rather than less; NaN where none is known."""
    mean, more = _mean(tails, sigmas)
    return _rarity(mean, tails.combined, tails.combined_rarity, float(tails.combined_slope)), more


def fit(sigmas: Floats, ordinary: Bools, grain: Grain) -> Tails:
    """Learn the tables of one metric from its deviations (voice, series, point, day) in a fleet, where it is ``ordinary``
    (series, day): no incident, and enough of a past.

    Raises :class:`ValueError` for less than :data:`LEAST_BLOCKS` blocks.
    """
    tails = [[_tail(_logarithms(_blocks(side * one, ordinary, grain))) for side in _SIDES] for one in sigmas]
    views, rarity, slope = (np.array([[sides[k] for sides in voice] for voice in tails]) for k in range(3))
    partly = Tails(views, rarity, slope, np.zeros(_KNOTS), np.zeros(_KNOTS), np.array(1.0))
    mean, _ = _mean(partly, sigmas)
    combined, combined_rarity, combined_slope = _tail(_blocks(mean, ordinary, grain))
    return partly._replace(combined=combined, combined_rarity=combined_rarity, combined_slope=np.array(combined_slope))


def marks(budget: AlarmBudget, metrics: int, grain: Grain) -> tuple[float, float, float]:
    """The surprises from which a value is worth an info, a warning, a critical alarm: each of so many metrics has an equal
    share of the budget (Bonferroni)."""
    info, warning, critical = (
        float(-np.log10(np.clip(share / (metrics * BLOCKS_A_WEEK[grain]), 1e-8, 0.99)))
        for share in (budget.info, budget.warning, budget.critical)
    )
    return info, warning, critical


def save(tables: Mapping[str, Tails], path: Path) -> None:
    """Write tables, by ``metric:grain``, as a compressed npz, in single precision."""
    arrays = {
        f"{key}.{name}": np.asarray(value, dtype=np.float32)
        for key, tails in sorted(tables.items())
        for name, value in tails._asdict().items()
    }
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: Path) -> dict[str, Tails]:
    """Read what :func:`save` wrote. Raises ``OSError`` or ``ValueError`` for anything else."""
    parts: dict[str, dict[str, Floats]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for place in arrays.files:
            key, name = place.split(".")
            parts.setdefault(key, {})[name] = arrays[place].astype(np.float64)
    return {key: Tails(**some) for key, some in parts.items()}


@lru_cache(maxsize=1)
def shipped() -> Mapping[str, Tails]:
    """The tables that come with the program."""
    return load(SHIPPED_FILE)


def _mean(tails: Tails, sigmas: Floats) -> tuple[Floats, Bools]:
    """The mean surprise of the side that surprises more, and whether that is the upper one."""
    both = [_mean_of_side(tails, sigmas, side) for side in range(len(_SIDES))]
    more: Bools = both[0] >= both[1]
    return np.where(more, both[0], both[1]), more


def _mean_of_side(tails: Tails, sigmas: Floats, side: int) -> Floats:
    total, weights = np.zeros(sigmas.shape[1:]), np.zeros(sigmas.shape[1:])
    for voice, weight in enumerate(VOICES.values()):
        at = (voice, side)
        sizes = _logarithms(_SIDES[side] * sigmas[voice])
        one = _rarity(sizes, tails.views[at], tails.views_rarity[at], float(tails.views_slope[at]))
        known = ~np.isnan(one)
        total += np.where(known, weight * one, 0.0)
        weights += weight * known
    return np.where(weights > 0, total / np.maximum(weights, 0.5), np.nan)


def _logarithms(sigmas: Floats) -> Floats:
    """On which a Pareto tail is a straight line; whatever is on the other side is as small as can be."""
    return np.log10(np.maximum(sigmas, _LEAST_SIGMAS))


def _rarity(values: Floats, knots: Floats, rarity: Floats, slope: float) -> Floats:
    beyond = slope * np.maximum(values - knots[-1], 0.0)
    found: Floats = np.interp(values, knots, rarity) + np.nan_to_num(beyond)
    return np.where(np.isnan(values), np.nan, np.clip(found, 0.0, LARGEST))


def _blocks(values: Floats, ordinary: Bools, grain: Grain) -> Floats:
    """The largest known values of ordinary blocks of (series, point, day), in a row."""
    series, points, days = values.shape
    blocked = values.reshape(series, points // BLOCK_POINTS[grain], BLOCK_POINTS[grain], days)
    highest = np.max(np.where(np.isnan(blocked), -np.inf, blocked), axis=2)
    chosen: Floats = highest[np.broadcast_to(ordinary[:, None, :], highest.shape) & np.isfinite(highest)]
    return chosen


def _tail(values: Floats) -> tuple[Floats, Floats, float]:
    """Knots, their rarity, and the slope past the last: what exceeds it does so, on average, by 1/slope of a power of ten."""
    if values.size < LEAST_BLOCKS:
        raise ValueError(f"{values.size} ordinary blocks are too few to learn from; {LEAST_BLOCKS} are needed")
    ordered = np.sort(values)
    ranks = np.unique(np.geomspace(_TAIL_BLOCKS, ordered.size, 4 * _KNOTS).astype(np.int64))
    places = ordered.size - ranks[np.linspace(0, ranks.size - 1, _KNOTS).round().astype(np.int64)][::-1]
    knots = ordered[places]
    reached = ordered.size - np.searchsorted(ordered, knots, side="left")
    excess = float(np.mean(ordered[-_TAIL_BLOCKS:] - knots[-1]))
    slope = 1.0 / (np.log(10.0) * max(excess, 1e-3))
    return knots, -np.log10(reached / (ordered.size + 1)), slope
