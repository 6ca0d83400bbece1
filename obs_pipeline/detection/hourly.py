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

How far it is believed
----------------------
Sensors are no usage: their residuals resemble those of the hour before, or scatter far less than the law of amounts can
say. Each series is believed as far as its own past bears the model out (``fit``), and one that does not is no teacher.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numba
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
_FIT_PRIOR: Final = 24.0  # hours of an imagined past that the model described well
_FIT_MEMORY: Final = 0.5 ** (1 / 336)
_FIT_WINSOR: Final = 3.0
_ALIKE: Final = (
    0.6,
    0.85,
)  # the autocorrelation of its residuals from which a series is described worse, and not at all
_SCATTER: Final = (0.1, 0.2)  # their variance from which it is described at all, and well
_TEACHES: Final = 0.5  # the least fit of a series that tells what is normal for others
_MONDAY: Final = 3 * 24  # hours since a Monday midnight of the first moment of 1970


class HourlyScores(NamedTuple):
    """One entry per point, or one per cell of a panel. ``surprise`` is ``S``, NaN where the usage model has no say; a young
    series is ``asked`` for that much more. ``fit`` is how well the model has described its series so far, 0 … 1.
    ``expected``, ``lower`` and ``upper`` are in the unit of the values; ``fleet`` is how many series of the table have
    been judged by then, each as far as the model describes it."""

    surprise: Floats
    asked: Floats
    fit: Floats
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
    return scores


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
    fit = np.ones(said.shape)
    surprise = _calibrated(scored, np.zeros(said.shape, dtype=bool), said, fit, "errors")
    return _scores(surprise, scored, said, fit, *usage_model.band("failures", scored, width))


def _amounts(values: Floats, said: Bools, first_hour: int, width: float) -> HourlyScores:
    zero = np.maximum.accumulate(values == 0, axis=1)
    amounts = usage_model.score("amount", values, first_hour=first_hour)
    fit = np.empty(said.shape)
    _fit_so_far(amounts.residuals[0], values, fit)
    surprise = _calibrated(amounts, zero, said, fit, "calls")
    if not zero.all():
        ratios = usage_model.score("ratio", np.where(zero, np.nan, values), first_hour=first_hour)
        other = _calibrated(ratios, zero, said & ~zero, fit, "unit_cost")
        surprise = np.where(np.isnan(other), surprise, (surprise + other) / 2)
    return _scores(surprise, amounts, said, fit, *usage_model.band("amount", amounts, width))


def _scores(
    surprise: Floats, scored: usage_model.Scored, said: Bools, fit: Floats, lower: Floats, upper: Floats
) -> HourlyScores:
    surprise = np.minimum(surprise, _TOLD_APART + (surprise - _TOLD_APART) / 10)
    asked = np.minimum(calibration.raised_mark(scored.age), calibration.LARGEST)
    begun = np.logical_or.accumulate(said, axis=1)
    fleet = np.broadcast_to((fit * begun).sum(axis=0), said.shape)
    return HourlyScores(surprise, asked, fit, scored.expected, lower, upper, fleet)


@numba.njit(cache=True, nogil=True)
def _fit_so_far(residuals: Floats, values: Floats, fit: Floats) -> None:
    """Fill ``fit`` (series, hours) with how well the model has described each series before each hour, 0 … 1.

    Each residual is compared with the one before: where the model fits they have nothing in common but what an incident
    or a busy day gives them. Hours idle twice tell nothing. A series that is never idle must also scatter as the law has it.
    Residuals are pulled in to three times their usual size, so that one incident does not decide.
    """
    for s in range(values.shape[0]):
        squares = weights = powers = _FIT_PRIOR
        products = 0.0
        before, was_idle, ever_idle = math.nan, False, False
        for t in range(values.shape[1]):
            white = _falling(products / powers, _ALIKE)
            fit[s, t] = white if ever_idle else white * (1.0 - _falling(squares / weights, _SCATTER))
            x, residual = values[s, t], residuals[s, t]
            if math.isnan(x):
                continue
            idle = x == 0.0
            ever_idle = ever_idle or idle
            if not math.isnan(residual):
                reach = _FIT_WINSOR * math.sqrt(squares / weights)
                residual = min(max(residual, -reach), reach)
                squares = residual * residual + _FIT_MEMORY * squares
                weights = 1.0 + _FIT_MEMORY * weights
                if not math.isnan(before) and not (idle and was_idle):
                    powers = 0.5 * (residual * residual + before * before) + _FIT_MEMORY * powers
                    products = residual * before + _FIT_MEMORY * products
            before, was_idle = residual, idle


@numba.njit(cache=True, nogil=True)
def _falling(value: float, between: tuple[float, float]) -> float:
    """1 up to the first mark, 0 from the second on."""
    low, high = between
    return float(min(max((high - value) / (high - low), 0.0), 1.0))


def _calibrated(scored: usage_model.Scored, sort: Bools, said: Bools, fit: Floats, far: str) -> Floats:
    """The surprise of every hour that may be judged, week by week from what its sort was like before; NaN elsewhere."""
    scored = scored._replace(residuals=np.where(said, scored.residuals, np.nan))
    shipped = calibration.shipped()[far]
    surprise = np.full(said.shape, np.nan)
    for start in range(0, said.shape[1], usage_model.WEEK):
        week = slice(start, start + usage_model.WEEK)
        past = slice(max(0, start - TEACHING_HOURS), start)
        before = sort[:, max(0, start - 1)]
        for rows in (before, ~before):
            teachers = rows & said[:, past].any(axis=1) & (fit[:, max(0, start - 1)] > _TEACHES)
            tails = None
            if teachers.sum() >= calibration.SMALL_FLEET:
                tails = calibration.fit(_part(scored, teachers, past), shipped)
            surprise[rows, week] = calibration.surprise(tails or shipped, _part(scored, rows, week))[0]
    return surprise


def _part(scored: usage_model.Scored, rows: Bools, hours: slice) -> usage_model.Scored:
    cut = {name: getattr(scored, name)[rows, hours] for name in ("expected", "spread", "volume", "age")}
    return scored._replace(residuals=scored.residuals[:, rows, hours], **cut)
