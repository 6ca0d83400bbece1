"""Hours of the daily batch judged by the usage model: windows → model → calibrated surprise → the batch's own terms.

Holds the way between the panel's windows and the model's, and between surprises and sigmas. The model, its
calibration, severities and wording are not here.

Each tested day is judged by a model that has seen its look-back and nothing else, so a day alone and a day in a
range come out the same. Fleets of :data:`~obs_pipeline.detection.calibration.SMALL_FLEET` agents and more are
calibrated on their own look-back, smaller ones by the shipped tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_pipeline.detection import calibration, usage_model
from obs_pipeline.detection.config import AlarmBudget, Metric, Thresholds
from obs_pipeline.detection.panel import Panel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

KINDS: Final[dict[Metric, usage_model.Kind]] = {
    "cost": "amount",
    "tokens": "amount",
    "errors": "failures",
    "latency": "ratio",
}
SERIES_AT_ONCE: Final = 500
TEACHERS: Final = 600
"""Series a fleet is calibrated on, some 30,000 half days: more tell nothing new."""

_LATEST: Final = 24 + calibration.BLOCK  # an onset is told by the half day before it
_AT_ONCE: Final = 2
_LARGEST_SIGMAS: Final = 12.0  # what the largest surprise is reported as

_MONDAY: Final = 3  # the weekday, counted from Monday, of the first of January 1970


class HourVerdict(NamedTuple):
    """Arrays of (series, 24, tested day), in the unit of the values; ``deviation`` in sigmas, signed."""

    expected: Floats
    lower: Floats
    upper: Floats
    deviation: Floats
    confidence: Floats


class Marks(NamedTuple):
    """The surprises of one metric from which an hour is worth an info, a warning, a critical alarm."""

    info: float
    warning: float
    critical: float


def marks(budget: AlarmBudget, metrics: int) -> Marks:
    """The marks that keep the budget of an agent of which so many metrics are looked at.

    Each metric gets an equal share: alarms of all of them together are then at most the budget, whatever they have in
    common (Bonferroni).
    """
    shares = (budget.info, budget.warning, budget.critical)
    return Marks(*(calibration.mark_for(share / metrics) for share in shares))


def sigmas(surprises: Floats, reached: Marks) -> Floats:
    """Surprises on the scale of sigmas, on which the marks are two, three and five; it rises strictly up to its end."""
    thresholds = Thresholds()
    end = max(calibration.LARGEST, reached.critical + 1)
    scale = (0.0, thresholds.info, thresholds.warning, thresholds.critical, _LARGEST_SIGMAS)
    return np.interp(surprises, (0.0, *reached, end), scale)


def judge_hours(
    panel: Panel, metrics: Sequence[Metric], lookback: int, width: float, budget: AlarmBudget
) -> dict[Metric, HourVerdict]:
    """Judge the hours of the days after the look-back, all metrics of an agent together. Errors are shares of calls.

    The metric that shows an hour best is given the joint surprise of them all, held against the whole budget; the others
    keep their own, held against their share of it. ``width`` is the half-width of the band in spreads. Unknown hours are
    NaN, and so are those of a metric that has been known for less than a day.
    """
    judging = _Judging(tuple(metrics), width, marks(budget, 1), marks(budget, len(metrics)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        days = [_judge_day(pool, panel, judging, lookback, day) for day in range(panel.days - lookback)]
    return {
        metric: HourVerdict(*(np.stack(arrays, axis=-1) for arrays in zip(*of_metric, strict=True)))
        for metric, *of_metric in zip(metrics, *days, strict=True)
    }


class _Judging(NamedTuple):
    """What is judged, and how: the marks are for an agent's joint surprise, and for that of one metric."""

    metrics: tuple[Metric, ...]
    width: float
    of_agent: Marks
    of_metric: Marks


def _judge_day(pool: Executor, panel: Panel, judging: _Judging, lookback: int, day: int) -> list[HourVerdict]:
    near, present = _around(panel, lookback, day)
    tails = list(pool.map(partial(_tails, near), judging.metrics))
    found = [HourVerdict(*(np.full(panel.shape[:2], np.nan) for _ in HourVerdict._fields)) for _ in judging.metrics]
    pieces = [slice(start, start + SERIES_AT_ONCE) for start in range(0, present.size, SERIES_AT_ONCE)]
    for series, parts in zip(pieces, pool.map(partial(_judge_series, near, judging, tails), pieces), strict=True):
        for whole, part in zip(found, parts, strict=True):
            for into, values in zip(whole, part, strict=True):
                into[present[series]] = values
    return found


def _around(panel: Panel, lookback: int, day: int) -> tuple[Panel, Ints]:
    """The panel of one tested day and its look-back, of the series with usage then, and where these were."""
    last = day + lookback
    of_day = panel.cells % panel.days
    kept = (of_day >= day) & (of_day <= last)
    owner, point = np.divmod(panel.cells[kept] // panel.days, panel.points)
    present = np.unique(owner)
    narrow = replace(
        panel,
        series=panel.series.take(pa.array(present)),
        first_day=panel.first_day + day,
        days=lookback + 1,
        cells=(np.searchsorted(present, owner) * panel.points + point) * (lookback + 1) + of_day[kept] - day,
        sums={name: values[kept] for name, values in panel.sums.items()},
        alive=panel.alive[..., day : last + 1],
        sources=panel.sources[present],
        seen=panel.seen[present, :, day : last + 1],
        masked=None if panel.masked is None else panel.masked[present, :, day : last + 1],
    )
    return narrow, present


def _tails(panel: Panel, metric: Metric) -> calibration.Tails:
    shipped = calibration.shipped()[metric]
    count = panel.shape[0]
    if count < calibration.SMALL_FLEET:
        return shipped
    scored, _ = _scored(panel, metric, slice(0, None, max(1, -(-count // TEACHERS))))
    return calibration.fit(_part(scored, slice(-24)), shipped) or shipped


def _part(scored: usage_model.Scored, hours: slice) -> usage_model.Scored:
    return scored._replace(**{name: getattr(scored, name)[..., hours] for name in scored._fields if name != "state"})


def _scored(panel: Panel, metric: Metric, series: slice) -> tuple[usage_model.Scored, Floats | None]:
    kind = KINDS[metric]
    values = _hours(panel, metric, series, idle_is_zero=kind == "amount")
    exposure = {"errors": "calls", "latency": "latency_calls"}.get(metric)
    trials = None if exposure is None else _hours(panel, exposure, series, idle_is_zero=False)
    first_hour = (panel.first_day + _MONDAY) % 7 * 24
    return usage_model.score(kind, values, trials, first_hour=first_hour), trials


def _hours(panel: Panel, name: str, series: slice, *, idle_is_zero: bool) -> Floats:
    """Look-back and tested day of some series, (series, hours)."""
    grid = panel.spread(panel.sums[name])
    history, observed = panel.windows(grid, panel.days - 1, series, idle_is_zero=idle_is_zero)
    whole = np.concatenate([history[:, :, 0], observed], axis=-1)
    return whole.transpose(0, 2, 1).reshape(len(whole), -1)


class _Seen(NamedTuple):
    """One metric of some series over the tested day and the half day before it."""

    scored: usage_model.Scored
    surprise: Floats
    more: Bools
    share: Floats


def _judge_series(
    panel: Panel, judging: _Judging, tails: Sequence[calibration.Tails], series: slice
) -> list[HourVerdict]:
    seen = [_seen(panel, metric, series, some) for metric, some in zip(judging.metrics, tails, strict=True)]
    joint = calibration.joint_surprise(
        np.stack([one.surprise for one in seen]), calibration.shipped_joint(judging.metrics)
    )
    age = np.max([np.nan_to_num(one.scored.age) for one in seen], axis=0)
    together = _settled(joint.surprise, age)
    return [_verdict(judging, place, one, joint.leading == place, together) for place, one in enumerate(seen)]


def _seen(panel: Panel, metric: Metric, series: slice, tails: calibration.Tails) -> _Seen:
    whole, trials = _scored(panel, metric, series)
    scored = _part(whole, slice(-_LATEST, None))
    share: Floats = np.ones_like(scored.age)
    if metric == "errors" and trials is not None:
        calls = trials[:, -_LATEST:]
        share = np.where(calls > 0, calls, np.nan)
    return _Seen(scored, *calibration.surprise(tails, scored), share)


def _settled(surprises: Floats, age: Floats) -> Floats:
    """What a surprise is worth: echoes and young series count for less."""
    raised = calibration.raised_mark(age)
    onset = np.nan_to_num(calibration.onsets(surprises))
    return np.where(np.isinf(raised), 0.0, np.maximum(onset - np.where(np.isinf(raised), 0.0, raised), 0.0))


def _verdict(judging: _Judging, place: int, seen: _Seen, leads: Bools, together: Floats) -> HourVerdict:
    lower, upper = usage_model.band(KINDS[judging.metrics[place]], seen.scored, judging.width)
    age = np.nan_to_num(seen.scored.age)
    alone = _settled(seen.surprise, age)
    reached = np.where(leads, sigmas(together, judging.of_agent), sigmas(alone, judging.of_metric))
    found = HourVerdict(
        expected=seen.scored.expected / seen.share,
        lower=lower / seen.share,
        upper=upper / seen.share,
        deviation=np.where(seen.more, 1.0, -1.0) * reached,
        confidence=calibration.confidence(np.where(leads, together, alone), age),
    )
    learning = np.isinf(calibration.raised_mark(age)) | np.isnan(seen.surprise)
    told = HourVerdict(*(np.where(learning, np.nan, array) for array in found))
    return HourVerdict(*(array[:, -24:] for array in told))
