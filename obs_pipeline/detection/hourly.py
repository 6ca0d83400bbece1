"""The hourly series of a table, judged as usage and held against each other.

Holds which points of a table the usage model may judge, the panel they make, and the calibration across its series. The
model and its tails are elsewhere; views, marks, files and severities are not here.

Who is judged
-------------
A point, if its series has a clock with a step of an hour by then, was never negative, is no counter and was no flat line
so far, and if it is the first of its hour. A count beside its exposure is judged as failures out of trials; anything else
as an amount and, while its series was never zero, also as a ratio, by the mean of the two: what is never zero scatters
around its logarithm.

Who is compared with whom
-------------------------
Failures with failures, series that were zero before with such, those that never were with such. Each week of the table is
calibrated on the four weeks before it if :data:`~obs_pipeline.detection.calibration.SMALL_FLEET` series of the sort were
there, else by the shipped tables. A week is never calibrated on itself, so what comes later changes nothing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection import calibration, usage_model
from obs_pipeline.detection.ragged import Ragged, counter_points, counters_of, lowest_so_far, running_steps

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

HOUR: Final = 3600.0
TEACHING_HOURS: Final = 4 * usage_model.WEEK
MOST_CELLS: Final = 16_000_000
"""Series times hours of the largest panel that is judged; beyond it there is no say."""

_STEP_WITHIN: Final = 0.02
_TOLD_APART: Final = 5.0  # surprises beyond it hardly differ, so that an incident is not ever more of an onset
_MONDAY: Final = 3 * 24  # hours since a Monday midnight of the first moment of 1970


class HourlyScores(NamedTuple):
    """One entry per point, or one per cell of a panel. ``surprise`` is ``S``, NaN where the usage model has no say; a young
    series is ``asked`` for that much more. ``expected``, ``lower`` and ``upper`` are in the unit of the values; ``fleet``
    is how many series have been judged by then."""

    surprise: Floats
    asked: Floats
    expected: Floats
    lower: Floats
    upper: Floats
    fleet: Floats


def judge(series: Ragged, width: float) -> HourlyScores | None:
    """Judge the hourly points of all series together; None when there are none.

    All are counts out of their exposure, or there is none. Values are finite or NaN. ``width`` is the half width of the
    band in spreads.
    """
    if series.times is None:
        return None
    known = np.isfinite(series.values)
    hours = np.floor(series.times / HOUR)
    fresh = known & _first_of_its_hour(hours, series)
    said = fresh & (lowest_so_far(series.values, series.starts) >= 0) & ~counter_points(series, counters_of(series))
    said &= ~_flat_before(series) & (np.abs(running_steps(series) / HOUR - 1) < _STEP_WITHIN)
    chosen = np.zeros(series.lengths.size, dtype=bool)
    chosen[series.owner[said]] = True
    taken = np.flatnonzero(fresh & chosen[series.owner])
    if taken.size == 0:
        return None
    # Weeks are those of the calendar, or an earlier series that qualifies late would move those of the others.
    first = (hours[taken].min() + _MONDAY) // usage_model.WEEK * usage_model.WEEK - _MONDAY
    shape = int(chosen.sum()), int(hours[taken].max() - first) + 1
    if shape[0] * shape[1] > MOST_CELLS:
        return None
    at = (np.cumsum(chosen) - 1)[series.owner[taken]], (hours[taken] - first).astype(np.int64)
    values, may = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    values[at], may[at] = series.values[taken], said[taken]
    if series.exposure is None:
        judged = _amounts(values, may, int(first) + _MONDAY, width)
    else:
        trials = np.full(shape, np.nan)
        trials[at] = series.exposure[taken]
        judged = _failures(values, trials, may, int(first) + _MONDAY, width)
    scores = HourlyScores(*(np.full(series.values.size, np.nan) for _ in HourlyScores._fields))
    for flat, grid in zip(scores, judged, strict=True):
        flat[taken] = grid[at]
    begun = np.sort(np.where(may, np.arange(shape[1]), shape[1]).min(axis=1))
    known_series = np.full(series.values.size, np.nan)
    known_series[taken] = np.searchsorted(begun, at[1], side="right")
    return scores._replace(fleet=known_series)


def _first_of_its_hour(hours: Floats, series: Ragged) -> Bools:
    another = np.diff(hours, prepend=-np.inf) != 0
    first: Bools = another | (series.place == 0)
    return first


def _flat_before(series: Ragged) -> Bools:
    """Where all known values before are the same: of such a line the law of the variance knows nothing."""
    span = lowest_so_far(series.values, series.starts) + lowest_so_far(-series.values, series.starts)
    flat = np.concatenate([[True], ~(span[:-1] < 0)])
    before: Bools = flat | (series.place == 0)
    return before


def _failures(values: Floats, trials: Floats, said: Bools, first_hour: int, width: float) -> HourlyScores:
    scored = usage_model.score("failures", values, trials, first_hour=first_hour)
    surprise = _calibrated(scored, np.zeros(said.shape, dtype=bool), said, "errors")
    return _scores(surprise, scored, *usage_model.band("failures", scored, width))


def _amounts(values: Floats, said: Bools, first_hour: int, width: float) -> HourlyScores:
    zero = np.maximum.accumulate(values == 0, axis=1)
    amounts = usage_model.score("amount", values, first_hour=first_hour)
    surprise = _calibrated(amounts, zero, said, "calls")
    if not zero.all():
        ratios = usage_model.score("ratio", np.where(zero, np.nan, values), first_hour=first_hour)
        other = _calibrated(ratios, zero, said & ~zero, "unit_cost")
        surprise = np.where(np.isnan(other), surprise, (surprise + other) / 2)
    return _scores(surprise, amounts, *usage_model.band("amount", amounts, width))


def _scores(surprise: Floats, scored: usage_model.Scored, lower: Floats, upper: Floats) -> HourlyScores:
    surprise = np.minimum(surprise, _TOLD_APART + (surprise - _TOLD_APART) / 10)
    asked = np.minimum(calibration.raised_mark(scored.age), calibration.LARGEST)
    return HourlyScores(surprise, asked, scored.expected, lower, upper, np.zeros_like(surprise))


def _calibrated(scored: usage_model.Scored, sort: Bools, said: Bools, far: str) -> Floats:
    """The surprise of every hour that may be judged, week by week from what its sort was like before; NaN elsewhere."""
    scored = scored._replace(residuals=np.where(said, scored.residuals, np.nan))
    shipped = calibration.shipped()[far]
    surprise = np.full(said.shape, np.nan)
    for start in range(0, said.shape[1], usage_model.WEEK):
        week = slice(start, start + usage_model.WEEK)
        past = slice(max(0, start - TEACHING_HOURS), start)
        before = sort[:, max(0, start - 1)]
        for rows in (before, ~before):
            teachers = rows & said[:, past].any(axis=1)
            tails = None
            if teachers.sum() >= calibration.SMALL_FLEET:
                tails = calibration.fit(_part(scored, teachers, past), shipped)
            surprise[rows, week] = calibration.surprise(tails or shipped, _part(scored, rows, week))[0]
    return surprise


def _part(scored: usage_model.Scored, rows: Bools, hours: slice) -> usage_model.Scored:
    cut = {name: getattr(scored, name)[rows, hours] for name in ("expected", "spread", "volume", "age")}
    return scored._replace(residuals=scored.residuals[:, rows, hours], **cut)
