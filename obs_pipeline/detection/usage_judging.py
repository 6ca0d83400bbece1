"""Hours of the daily batch judged by the usage model: windows → model → calibrated surprise → the batch's own terms.

Holds the way between the panel's windows and the model's, and between surprises and sigmas. The model, its
calibration, severities and wording are not here.

Each tested day is judged by a model that has seen its look-back and nothing else, so a day alone and a day in a
range come out the same. Fleets of :data:`~obs_pipeline.detection.calibration.SMALL_FLEET` agents and more are
calibrated on their own look-back, smaller ones by the shipped tables.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_pipeline.detection import calibration, usage_model
from obs_pipeline.detection.config import AlarmBudget, Metric, Thresholds
from obs_pipeline.detection.panel import Panel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KINDS: Final[dict[Metric, usage_model.Kind]] = {
    "cost": "amount",
    "tokens": "amount",
    "errors": "failures",
    "latency": "ratio",
}
SERIES_AT_ONCE: Final = 1_000
TEACHERS: Final = 600
"""Series a fleet is calibrated on, some 30,000 half days: more tell nothing new."""

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


def judge_hours(panel: Panel, metric: Metric, lookback: int, width: float, reached: Marks) -> HourVerdict:
    """Judge the hours of the days after the look-back. Errors are judged as shares of calls.

    ``width`` is the half-width of the band in spreads, ``reached`` are the marks. Unknown hours are NaN, and so are those
    of a series that has lived less than a day.
    """
    judging = _Judging(metric, width, reached)
    days = [_judge_day(panel, judging, lookback, day) for day in range(panel.days - lookback)]
    return HourVerdict(*(np.stack(arrays, axis=-1) for arrays in zip(*days, strict=True)))


class _Judging(NamedTuple):
    """What is judged, and how."""

    metric: Metric
    width: float
    reached: Marks


def _judge_day(panel: Panel, judging: _Judging, lookback: int, day: int) -> HourVerdict:
    near, present = _around(panel, lookback, day)
    found = HourVerdict(*(np.full(panel.shape[:2], np.nan) for _ in HourVerdict._fields))
    tails = _tails(near, judging.metric)
    for start in range(0, present.size, SERIES_AT_ONCE):
        series = slice(start, start + SERIES_AT_ONCE)
        for whole, part in zip(found, _judge_series(near, judging, series, tails), strict=True):
            whole[present[series]] = part
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


def _judge_series(panel: Panel, judging: _Judging, series: slice, tails: calibration.Tails) -> HourVerdict:
    metric = judging.metric
    whole, trials = _scored(panel, metric, series)
    scored = _part(whole, slice(-24 - calibration.BLOCK, None))  # an onset is told by the half day before it
    surprise, more = calibration.surprise(tails, scored)
    onset = calibration.onsets(surprise)
    lower, upper = usage_model.band(KINDS[metric], scored, judging.width)
    age = np.nan_to_num(scored.age)
    raised = calibration.raised_mark(age)
    learning = np.isinf(raised) | np.isnan(onset)
    settled = np.where(learning, 0.0, np.maximum(onset - np.where(learning, 0.0, raised), 0.0))
    share = np.ones(age.shape)
    if metric == "errors" and trials is not None:
        calls = trials[:, -age.shape[1] :]
        share = np.where(calls > 0, calls, np.nan)
    found = HourVerdict(
        expected=scored.expected / share,
        lower=lower / share,
        upper=upper / share,
        deviation=np.where(more, 1.0, -1.0) * sigmas(settled, judging.reached),
        confidence=calibration.confidence(settled, age),
    )
    return HourVerdict(*(np.where(learning, np.nan, array)[:, -24:] for array in found))
