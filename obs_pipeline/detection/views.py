"""What a point looks like from eight sides: signed, standardised, causal residuals of a series against its own past.

Holds the compiled recursions that forecast, and the names of the views. No tail probabilities, no marks, no files, no
calendar: the place of every point in its day and its week is passed in.

Series are ragged: one flat array of values, and ``starts`` with one more entry than there are series. Every result at
a position depends on that position and on earlier positions of its own series alone. Multiplying a series by a
positive number changes nothing but for rounding.

The views
---------
``level``    against a slow level: an exponentially weighted mean of winsorised values, half-life three days
``week``     against that level and what this hour of the day and of the week usually adds to it, shrunk while few
             visits tell (``n / (n + 1.5)``)
``local``    against a fast level of the values less their daily course (a causal seasonal-trend decomposition)
``lag``      against the same time of the day before, less what the last hours already differed from it
``half``     the running mean of the seasonal residual over half a day
``day``      the same over a day
``step``     against the mean of the two values before
``motion``   how much the series moves now against how much it usually does: flat lines, stuck or wild sensors

A series without a clock, or whose strongest cycle is clearly not its day, is read by the cycle that its own first
512 (and again 2,048) values show, from there on. A level that has been off for two days is the new normal. Memories are
told in days; a day counts for no more than :data:`PACE` points, and ``half`` and ``day`` for no more than the cycle.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

VIEWS: Final = ("level", "week", "local", "lag", "half", "day", "step", "motion")
LARGEST_RESIDUAL: Final = 1e4
NO_SLOT: Final = -1
"""The slot of a point whose place in the day or week is not known."""

PACE: Final = 288.0
"""The points after which even what is measured every second has had its day, as far as memories go."""

CYCLE_AT: Final = (512, 2048)
LONGEST_CYCLE: Final = 683  # a third of the later checkpoint

_SIGMA: Final = 1.2533141373155001  # standard deviation of a normal distribution in mean absolute deviations
_WINSOR: Final = 4.0  # spreads at which a value is pulled in before anything is learnt from it
_SHRINK: Final = 1.5  # pseudo-visits of "no seasonal effect"
_DAY_VISITS: Final = 10.0  # visits after which a slot of the day forgets as fast as it learns
_WEEK_VISITS: Final = 6.0
_LAGS: Final = 5  # comparisons with the day before until there is a spread to judge them by
_CYCLE_SLOTS: Final = 24
_PREFERENCE: Final = 0.8  # a cleverer forecast must err this much less than a plainer one to be shown


@numba.njit(cache=True, nogil=True)
def _rate(half_life: float, least: float, most: float) -> float:
    return float(1.0 - 0.5 ** (1.0 / min(max(half_life, least), most)))


@numba.njit(cache=True, nogil=True)
def _clear(state: Floats) -> None:
    for i in range(state.size):
        state[i] = 0.0


@numba.njit(cache=True, nogil=True)
def _within(value: float, bound: float) -> float:
    return max(-bound, min(bound, value))


@numba.njit(cache=True, nogil=True)
def _learn(spread: float, size: float, n: int, rate: float) -> float:
    """A mean absolute deviation that one outlier cannot blow up, and that zero does not hold for ever."""
    if spread > 0.0:
        size = min(size, _WINSOR * spread)
    return spread + max(rate, 1.0 / (n + 1.0)) * (size - spread)


@numba.njit(cache=True, nogil=True)
def _standard(residual: float, spread: float, floor: float) -> float:
    """In standard deviations. The floor and the bound keep a flat past from making everything infinitely odd."""
    unit = spread * _SIGMA + floor
    if unit <= 0.0:
        return 0.0 if residual == 0.0 else math.copysign(LARGEST_RESIDUAL, residual)
    return _within(residual / unit, LARGEST_RESIDUAL)


@numba.njit(cache=True, nogil=True)
def _likeness(x: Floats, lag: int) -> float:
    total = 0.0
    for i in range(lag, x.size):
        total += x[i] * x[i - lag]
    return total / (x.size - lag)


@numba.njit(cache=True, nogil=True)
def cycle_of(values: Floats, day: int) -> int:
    """The length in points of the clearest cycle, 0 for none or when the ``day`` (0: unknown) explains it as well.

    The lag of the highest autocorrelation that stands well above the valley before it and returns at twice the lag.
    """
    x = np.empty(values.size)
    known, mean, power = 0, 0.0, 0.0
    for value in values:
        if not math.isnan(value):
            x[known] = value
            known += 1
            mean += (value - mean) / known
    if known < 64:
        return 0
    x = x[:known]
    for value in x:
        power += abs(value - mean) / known
    if power <= 0.0:
        return 0
    for i in range(known):
        x[i] = _within((x[i] - mean) / power, _WINSOR)
    whole = _likeness(x, 0)
    best, highest, lowest = 0, 0.35 * whole, whole
    for lag in range(1, x.size // 3):
        alike = _likeness(x, lag)
        lowest = min(lowest, alike)
        ahead = 0.0 if lag < best + 3 else 0.05 * whole
        if lag >= 6 and alike > highest + ahead and alike - lowest > 0.4 * whole:
            best, highest = lag, alike
    if best == 0 or _likeness(x, 2 * best) < 0.6 * highest:
        return 0
    if 0 < day < x.size // 2 and _likeness(x, day) > highest - 0.1 * whole:
        return 0
    return best


@numba.njit(cache=True, nogil=True)
def view_residuals(
    values: Floats,
    starts: Ints,
    day_slots: Ints,
    week_slots: Ints,
    fine_slots: Ints,
    per_day: Ints,
    find_cycles: bool,
    residuals: Floats,
    expected: Floats,
    spread: Floats,
) -> None:
    """Fill ``residuals`` (view, position) in standard deviations, and ``expected`` and ``spread`` (position).

    ``values`` may be NaN: every state stays as it was, and the residuals are NaN. The slots say where in its day
    (coarsely, and finely for ``lag``) and in its week a point lies, or :data:`NO_SLOT`; ``per_day`` is the number of
    points in a day, as known at each point. A view that has nothing to compare with yet is NaN. ``expected`` is the forecast
    of whichever of level with season, local level and last value has erred least so far, in the unit of the values,
    and ``spread`` its standard error; NaN before the first value.
    """
    day_mean = np.zeros(max(_CYCLE_SLOTS, day_slots.max() + 1 if day_slots.size else 0))
    week_mean = np.zeros(max(_CYCLE_SLOTS, week_slots.max() + 1 if week_slots.size else 0))
    fine_last = np.zeros(max(LONGEST_CYCLE, fine_slots.max() + 1 if fine_slots.size else 0))
    day_visits, week_visits, fine_visits = np.zeros_like(day_mean), np.zeros_like(week_mean), np.zeros_like(fine_last)
    spreads, errors, forecasts = np.zeros(len(VIEWS)), np.zeros(3), np.zeros(3)
    for series in range(starts.size - 1):
        first, end = starts[series], starts[series + 1]
        if first == end:
            continue
        for state in (day_mean, day_visits, week_mean, week_visits, fine_visits, spreads, errors):
            _clear(state)
        points = pace = slow = fast = wide = half = full = patience = visit = 0.0
        level = local = half_mean = day_mean_now = drift = motion = usual_motion = 0.0
        previous = before = recent = size = off = 0.0
        n = lags = cycle = 0
        for i in range(first, end):
            x = values[i]
            place = i - first
            clocked = day_slots[i] != NO_SLOT
            if per_day[i] != points:
                points = float(per_day[i])
                pace = min(points, PACE)
                slow, fast = _rate(3.0 * pace, 30.0, 3000.0), _rate(pace / 24.0, 2.0, 60.0)
                wide = _rate(14.0 * pace, 200.0, 20000.0)
                span = min(pace, float(cycle)) if cycle > 0 else pace
                half, full = _rate(span / 4.0, 3.0, 360.0), _rate(span / 2.0, 6.0, 720.0)
                patience = min(max(2.0 * pace, 24.0), 3000.0)
                if cycle == 0:
                    # Another step has other slots.
                    visit = min(1.0, 24.0 / points)
                    for state in (day_mean, day_visits, week_mean, week_visits, fine_visits):
                        _clear(state)
            if find_cycles and (place == CYCLE_AT[0] or place == CYCLE_AT[1]):
                found = cycle_of(values[first:i], per_day[i] if clocked else 0)
                if found > 0 and found != cycle:
                    cycle = found
                    span = min(pace, float(cycle))
                    half, full = _rate(span / 4.0, 3.0, 360.0), _rate(span / 2.0, 6.0, 720.0)
                    visit = min(1.0, _CYCLE_SLOTS / cycle)
                    for state in (day_mean, day_visits, week_visits, fine_visits):
                        _clear(state)
            d, w, f = day_slots[i], week_slots[i], fine_slots[i]
            if cycle > 0:
                f = place % cycle
                d = f * min(_CYCLE_SLOTS, cycle) // cycle
            seasonal = clocked or cycle > 0
            weekly = clocked and cycle == 0
            if n == 0 and not math.isnan(x):
                level = local = previous = before = recent = x
            daily = day_mean[d] * day_visits[d] / (day_visits[d] + _SHRINK) if seasonal else 0.0
            season = daily + (week_mean[w] * week_visits[w] / (week_visits[w] + _SHRINK) if weekly else 0.0)
            forecasts[0], forecasts[1], forecasts[2] = level + season, local + daily, previous
            best = 0
            for k in range(1, 3):
                if errors[k] < _PREFERENCE * errors[best]:
                    best = k
            expected[i] = forecasts[best] if n > 0 else math.nan
            spread[i] = _SIGMA * errors[best] if n > 0 else math.nan
            if math.isnan(x):
                for v in range(len(VIEWS)):
                    residuals[v, i] = math.nan
                continue

            known_season = not seasonal or day_visits[d] > 0.0
            known_lag = seasonal and fine_visits[f] > 0.0
            young = 1.0 / (n + 1.0)
            floor = 1e-3 * size + 1e-9 * abs(recent)
            to_level = x - level
            to_season = to_level - season
            to_local = x - local - daily
            since_lag = x - fine_last[f] if known_lag else 0.0
            to_lag = since_lag - drift
            to_last = x - 0.5 * (previous + before)
            moved = abs(x - previous)
            half_mean += max(half, young) * (to_season - half_mean)
            day_mean_now += max(full, young) * (to_season - day_mean_now)
            motion += max(half, young) * (min(moved, 8.0 * usual_motion + floor) - motion)
            unit = usual_motion + floor

            residuals[0, i] = _standard(to_level, spreads[0], floor) if n > 0 else 0.0
            residuals[1, i] = _standard(to_season, spreads[1], floor) if known_season else math.nan
            residuals[2, i] = _standard(to_local, spreads[2], floor) if known_season else math.nan
            residuals[3, i] = _standard(to_lag, spreads[3], floor) if known_lag and lags >= _LAGS else math.nan
            residuals[4, i] = _standard(half_mean, spreads[4], floor) if known_season else math.nan
            residuals[5, i] = _standard(day_mean_now, spreads[5], floor) if known_season else math.nan
            residuals[6, i] = _standard(to_last, spreads[6], floor) if n > 0 else 0.0
            residuals[7, i] = 4.0 * math.log((motion + 0.05 * unit) / (1.05 * unit)) if unit > 0.0 else 0.0

            bound = 0.0
            if n > 0:
                bound = _WINSOR * _SIGMA * spreads[1] if spreads[1] > 0.0 else abs(to_season)
                local_bound = _WINSOR * _SIGMA * spreads[2]
                lag_bound = _WINSOR * spreads[3]
                spreads[0] = _learn(spreads[0], abs(to_level), n, wide)
                spreads[1] = _learn(spreads[1], abs(to_season), n, wide)
                spreads[2] = _learn(spreads[2], abs(to_local), n, wide)
                spreads[4] = _learn(spreads[4], abs(half_mean), n, wide)
                spreads[5] = _learn(spreads[5], abs(day_mean_now), n, wide)
                spreads[6] = _learn(spreads[6], abs(to_last), n, wide)
                for k in range(3):
                    errors[k] = _learn(errors[k], abs(x - forecasts[k]), n, wide)
                if known_lag:
                    drift += fast * (_within(since_lag, lag_bound) - drift)
                    spreads[3] = _learn(spreads[3], abs(to_lag), lags, wide)
                    lags += 1
                usual_motion = _learn(usual_motion, moved, n, wide)
                level += max(slow, young) * _within(to_season, bound)
                local += fast * _within(to_local, local_bound)
                if seasonal:
                    around = _within(x - level, bound)
                    day_visits[d] = min(day_visits[d] + visit, _DAY_VISITS)
                    day_mean[d] += visit / day_visits[d] * (around - day_mean[d])
                    if weekly:
                        week_visits[w] = min(week_visits[w] + visit, _WEEK_VISITS)
                        week_mean[w] += visit / week_visits[w] * (around - daily - week_mean[w])
                recent += full * (x - season - recent)
                is_off = abs(day_mean_now) > _SIGMA * spreads[1]
                off = off + 1.0 if is_off else max(0.0, off - 2.0)
                if off > patience:
                    level, half_mean, day_mean_now, off = recent, 0.0, 0.0, 0.0
            if seasonal:
                # Half the way at least: yesterday's incident is no pattern, a pattern that repeats is one by then.
                gap = x - fine_last[f] if fine_visits[f] > 0.0 else x - forecasts[0]
                fine_last[f] = x - gap + _within(gap, max(bound, 0.5 * abs(gap))) if n > 0 else x
                fine_visits[f] = 1.0
            before, previous = previous, x
            size += max(wide, young) * (abs(x - recent) - size)
            n += 1
