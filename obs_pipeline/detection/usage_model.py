"""The usage model: what an agent's hour should look like, learned from its own past, and how far an hour is from it.

Holds the recursions over hours for amounts (calls, cost, tokens), failures out of trials, and ratios (latency, cost
per call), each as one compiled pass. What a distance is worth across a fleet is calibration's; severities, wording
and settings are not here.

Shapes: a panel is (series, hours), one metric, NaN where unknown. A state holds one row per series and is all that
is kept between two calls: scoring a panel in two parts gives the same as in one. A value is always compared with a
model that has not seen it. Times are hours since a Monday midnight UTC.

Amounts
-------
``mu = level × profile(hour of the week)``. The level is an exponentially weighted sum of values over such a sum of
profiles; the profile is a ratio of sums shrunk from hour of week to hour of day to one, so zeros and new series are
no special cases. The variance ``a·mu + b·mu²`` is learned, and the residual is the difference of
``(2/√b)·asinh √(b(x + 3a/8)/a)`` (the stabilising transform of the negative binomial: Anscombe, Biometrika 35, 1948)
at the value and at mu, for sums over 1, 6 and 24 hours. Learning sees values pulled in to four deviations. A day that
has been off for two days becomes the new level.

Everything scales with the values: money may be in dollars or cents.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Kind = Literal["amount", "failures", "ratio"]

SCALES: Final[dict[Kind, tuple[int, ...]]] = {"amount": (1, 6, 24), "failures": (1, 6, 24), "ratio": (1, 3, 12)}
"""Over how many hours the residuals of each kind are taken."""
WEEK: Final = 168
RING: Final = 24
LARGEST: Final = 1e100
_NOTHING: Final = 1e-100  # a level that has faded below it is zero, lest its square underflow

_LEVEL_MEMORY: Final = 0.5 ** (1 / 72)
_RECENT_MEMORY: Final = 0.5 ** (1 / 24)
_RATE_MEMORY: Final = 0.5 ** (1 / 336)
_WEEK_VISIT: Final = 0.85  # what an hour of the week keeps from one visit to the next
_DAY_VISIT: Final = 0.96
_LAW_MEMORY: Final = 0.5 ** (1 / 336)
_RELEARN_AFTER: Final = 48
_RELEARN_AT: Final = 4.0
_WINSOR: Final = 4.0
_SHRINK: Final = 1.5
_LAW_AFTER_VISITS: Final = 2.5
"""Visits to an hour of the day before its residuals teach the variance: earlier ones are errors of the profile."""

# Columns of an amount's state, before the profile sums and the rings.
_LX, _LF, _RX, _RF, _S11, _S12, _S22, _T1, _T2, _OFF, _AGE, _TICK = range(12)
_HEAD: Final = 12
# An amount's ring: its hours, their sums up to the end of the ring (past its end: nothing), the sums of today.
_TODAY: Final = 4 * RING + 4 * (RING + 1)
_AMOUNT_WIDTH: Final = _HEAD + 2 * WEEK + 2 * 24 + _TODAY + 4
_RATIO_HEAD: Final = 8
_RATIO_WIDTH: Final = _RATIO_HEAD + 2 * 24 + 2 * 12
_FAILURE_WIDTH: Final = 4 + 4 * RING
_WIDTHS: Final[dict[Kind, int]] = {"amount": _AMOUNT_WIDTH, "failures": _FAILURE_WIDTH, "ratio": _RATIO_WIDTH}


class Scored(NamedTuple):
    """What was expected and how far each hour is from it.

    ``expected`` and ``spread`` are (series, hours): in the metric's own unit, for ratios the spread is of the
    logarithm. ``residuals`` is (scale, series, hours): signed, near normal for amounts and ratios; for failures the
    surprise −log10 of the upper tail. ``volume`` is the recent size of the series (calls, trials, or the number of
    typical standard deviations in its mean), ``age`` its known hours before this one. NaN while nothing is learned or
    known. ``state`` continues the panel.
    """

    expected: Floats
    spread: Floats
    residuals: Floats
    volume: Floats
    age: Floats
    state: Floats


def fresh(kind: Kind, series: int) -> Floats:
    """The state of series of which nothing is known."""
    return np.zeros((series, _WIDTHS[kind]))


def score(
    kind: Kind, values: Floats, trials: Floats | None = None, *, first_hour: int = 0, state: Floats | None = None
) -> Scored:
    """Compare every hour with its past.

    ``trials`` are the calls behind failures and ratios, shaped like ``values``; a ratio without trials counts as
    well supported. ``first_hour`` is the first column's hour since a Monday midnight. Infinities count as enormous,
    negative values as zero. Raises ``ValueError`` for shapes that do not fit or failures without trials.
    """
    if values.ndim != 2 or (trials is not None and trials.shape != values.shape):
        tried = "none" if trials is None else trials.shape
        raise ValueError(f"a panel is (series, hours) and its trials alike, not {values.shape} with {tried}")
    if kind == "failures" and trials is None:
        raise ValueError("failures need the trials they are counted among")
    kept = fresh(kind, len(values)) if state is None else state.copy()
    given = np.array(values, dtype=np.float64)
    np.clip(given, 0.0, LARGEST, out=given)
    behind = given if kind == "amount" else _behind(trials, values.shape)
    residuals = np.full((3, *values.shape), np.nan)
    expected, spread, volume, age = (np.full(values.shape, np.nan) for _ in range(4))
    passes = {"amount": _amounts, "failures": _failures, "ratio": _ratios}
    passes[kind](given, behind, first_hour, kept, residuals, expected, spread, volume, age)
    return Scored(expected, spread, residuals, volume, age, kept)


def _behind(trials: Floats | None, shape: tuple[int, ...]) -> Floats:
    return np.full(shape, 1e6) if trials is None else np.clip(np.nan_to_num(trials), 0.0, 1e15)


def band(kind: Kind, scored: Scored, width: float) -> tuple[Floats, Floats]:
    """``width`` spreads below and above what was expected, in the metric's own unit."""
    if kind == "ratio":
        factor = np.exp(np.minimum(width * scored.spread, 200.0))
        return scored.expected / factor, scored.expected * factor
    reach = width * scored.spread
    return np.maximum(scored.expected - reach, 0.0), scored.expected + reach


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _stabilised_step(before: float, after: float, a: float, b: float) -> float:
    """g(after) − g(before); the difference of two asinh as one logarithm, as they are the larger part of all the work."""
    q, p = b * (after / a + 0.375), b * (before / a + 0.375)
    risen = (math.sqrt(q) + math.sqrt(q + 1.0)) / (math.sqrt(p) + math.sqrt(p + 1.0))
    return 2.0 / math.sqrt(b) * math.log(risen)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _law(row: Floats, level: float) -> tuple[float, float]:
    """a and b of the variance law, by weighted least squares of residual²/mu on (1, mu), drawn to a weak prior."""
    prior = 24.0
    s11, s12, s22 = row[_S11] + prior, row[_S12] + prior * 1.0, row[_S22] + prior * 1.25
    # The prior: as much scatter from each term, together a third of the level squared.
    t1, t2 = row[_T1] + prior * 0.3, row[_T2] + prior * 0.33
    det = s11 * s22 - s12 * s12
    a, b = (t1 * s22 - t2 * s12) / det, (t2 * s11 - t1 * s12) / det
    if b < 0.003:
        b = 0.003
        a = (t1 - b * s12) / s11
    if a < 0.003:
        a = 0.003
        b = max((t2 - a * s12) / s22, 0.003)
    return a * level, b


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _begin_day(row: Floats, ring: int) -> None:
    """Sum the last 24 hours from each of them on: what is left of them is then one sum, and never a difference."""
    sums, today = ring + 4 * RING, ring + _TODAY
    for one in range(4):
        total = 0.0
        for at in range(RING - 1, -1, -1):
            total += row[ring + 4 * at + one]
            row[sums + 4 * at + one] = total
        row[today + one] = 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _last_hours(row: Floats, ring: int, slot: int, scale: int) -> tuple[float, float, float, float]:
    """The sums of the last 1, 6 or 24 hours, this one included: of the values, their means, these squared, and what the hours
    of the week alone have shown."""
    here = ring + 4 * slot
    if scale == 0:
        return row[here], row[here + 1], row[here + 2], row[here + 3]
    if scale == 2:
        today, left = ring + _TODAY, ring + 4 * RING + 4 * (slot + 1)
        return (
            row[today] + row[left],
            row[today + 1] + row[left + 1],
            row[today + 2] + row[left + 2],
            row[today + 3] + row[left + 3],
        )
    a = b = c = d = 0.0
    for back in range(6):
        at = slot - back if slot >= back else slot - back + RING
        a += row[ring + 4 * at]
        b += row[ring + 4 * at + 1]
        c += row[ring + 4 * at + 2]
        d += row[ring + 4 * at + 3]
    return a, b, c, d


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _amounts(
    values: Floats,
    behind: Floats,
    first_hour: int,
    state: Floats,
    residuals: Floats,
    expected: Floats,
    spread: Floats,
    volume: Floats,
    age: Floats,
) -> None:
    how, day = _HEAD, _HEAD + 2 * WEEK
    ring = day + 48
    today = ring + _TODAY
    for s in range(values.shape[0]):
        row = state[s]
        for t in range(values.shape[1]):
            x = values[s, t]
            slot = int(row[_TICK]) % RING
            row[_TICK] += 1.0
            here = ring + 4 * slot
            if slot == 0:
                _begin_day(row, ring)
            row[here], row[here + 1], row[here + 2], row[here + 3] = 0.0, 0.0, 0.0, 0.0
            if math.isnan(x):
                continue
            age[s, t] = row[_AGE]
            row[_AGE] += 1.0
            h = (first_hour + t) % WEEK
            d = h % 24
            level = row[_LX] / row[_LF] if row[_LF] > 0 else 0.0
            if level <= _NOTHING:
                # Nothing but zeros, so far or for years: remember them, and take the first amount for the level.
                row[_LX] = x + _LEVEL_MEMORY * row[_LX]
                row[_LF] = 1.0 + _LEVEL_MEMORY * row[_LF]
                row[_RX] = x + _RECENT_MEMORY * row[_RX]
                row[_RF] = 1.0 + _RECENT_MEMORY * row[_RF]
                continue
            f_day = (row[day + d] + _SHRINK * level) / (row[day + 24 + d] + _SHRINK * level)
            f = (row[how + h] + _SHRINK * level * f_day) / (row[how + WEEK + h] + _SHRINK * level)
            f = max(f, 1e-4)
            mu = level * f
            # What this hour of the week alone has shown: between it and mu lies what was only borrowed from the day.
            alone = level * row[how + h] / row[how + WEEK + h] if row[how + WEEK + h] > 0 else mu
            a, b = _law(row, level)
            sd = math.sqrt(a * mu + b * mu * mu)
            expected[s, t], spread[s, t] = mu, sd
            volume[s, t] = level / a
            row[here], row[here + 1], row[here + 2], row[here + 3] = x, mu, mu * mu, alone
            for one in range(4):
                row[today + one] += row[here + one]
            for scale in range(3):
                total, means, squares, shown = _last_hours(row, ring, slot, scale)
                if means > 0.0:
                    wide = max(b * squares / (means * means), 1e-6)
                    nearest = min(max(total, min(means, shown)), max(means, shown))
                    residuals[scale, s, t] = _stabilised_step(nearest, total, a, wide)
            row[_OFF] = row[_OFF] + 1.0 if abs(residuals[2, s, t]) > _RELEARN_AT else 0.0
            young = row[_AGE] < 48.0
            reach = (2.0 if young else 1.0) * _WINSOR * sd
            pulled = min(max(x, mu - reach), mu + reach)
            row[_RX] = x + _RECENT_MEMORY * row[_RX]
            row[_RF] = f + _RECENT_MEMORY * row[_RF]
            row[_LX] = pulled + _LEVEL_MEMORY * row[_LX]
            row[_LF] = f + _LEVEL_MEMORY * row[_LF]
            if row[_OFF] >= _RELEARN_AFTER:
                row[_OFF] = 0.0
                row[_LX], row[_LF] = row[_RX], row[_RF]
            row[day + d] = pulled + _DAY_VISIT * row[day + d]
            row[day + 24 + d] = level + _DAY_VISIT * row[day + 24 + d]
            row[how + h] = pulled + _WEEK_VISIT * row[how + h]
            row[how + WEEK + h] = level + _WEEK_VISIT * row[how + WEEK + h]
            taught = 1.0 if row[day + 24 + d] >= _LAW_AFTER_VISITS * level else 0.0
            # In units of the level, so that the law means the same for dollars and for cents.
            m, r2 = mu / level, ((pulled - mu) / level) ** 2
            w = taught / (m + 0.1) ** 2
            y = r2 / max(m, 0.02)
            row[_S11] = w + _LAW_MEMORY * row[_S11]
            row[_S12] = w * m + _LAW_MEMORY * row[_S12]
            row[_S22] = w * m * m + _LAW_MEMORY * row[_S22]
            row[_T1] = w * y + _LAW_MEMORY * row[_T1]
            row[_T2] = w * y * m + _LAW_MEMORY * row[_T2]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _upper_tail(failed: float, n: float, alpha: float, beta: float) -> float:
    """−log10 P(at least ``failed`` of ``n``) of a beta-binomial; zero up to a deviation above its mean."""
    weight = alpha + beta
    mean = n * alpha / weight
    if failed < 2.0 or failed <= mean + math.sqrt(mean * beta / weight * (weight + n) / (weight + 1.0)):
        return 0.0
    k = failed
    log_first = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        + math.lgamma(k + alpha) + math.lgamma(n - k + beta) - math.lgamma(n + alpha + beta)
        + math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
    )  # fmt: skip
    term, total = 1.0, 1.0
    while k < n and term > 1e-5 * total:
        term *= (n - k) / (k + 1.0) * (k + alpha) / max(n - k - 1.0 + beta, 1e-12)
        total += term
        k += 1.0
    return max(0.0, -(log_first + math.log(total)) / math.log(10.0))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _failures(
    values: Floats,
    behind: Floats,
    first_hour: int,
    state: Floats,
    residuals: Floats,
    expected: Floats,
    spread: Floats,
    volume: Floats,
    age: Floats,
) -> None:
    ring = 4
    for s in range(values.shape[0]):
        row = state[s]
        for t in range(values.shape[1]):
            n = behind[s, t]
            x = values[s, t]
            slot = int(row[3]) % RING
            row[3] += 1.0
            row[ring + slot], row[ring + RING + slot] = 0.0, 0.0
            if math.isnan(x):
                continue
            x = min(x, n)
            age[s, t] = row[2]
            row[2] += 1.0
            # The rate of 0.01 counts like 60 trials; rates wander, so nobody's is known better than 400 tell.
            alpha, weight = row[0] + 0.6, row[1] + 60.0
            rate = alpha / weight
            weight = min(weight, 400.0)
            alpha, beta = rate * weight, (1.0 - rate) * weight
            expected[s, t] = rate * n
            spread[s, t] = math.sqrt(n * rate * (1 - rate) * (weight + n) / (weight + 1.0))
            row[ring + slot], row[ring + RING + slot] = x, n
            failed, tried = 0.0, 0.0
            for back in range(RING):
                at = (slot - back) % RING
                failed += row[ring + at]
                tried += row[ring + RING + at]
                if back == 0 or back == 5 or back == 23:
                    scale = 0 if back == 0 else (1 if back == 5 else 2)
                    residuals[scale, s, t] = _upper_tail(failed, tried, alpha, beta)
            volume[s, t] = tried
            reach = rate * n + _WINSOR * spread[s, t] + 1.0
            row[0] = min(x, reach) + _RATE_MEMORY * row[0]
            row[1] = n + _RATE_MEMORY * row[1]


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _ratios(
    values: Floats,
    behind: Floats,
    first_hour: int,
    state: Floats,
    residuals: Floats,
    expected: Floats,
    spread: Floats,
    volume: Floats,
    age: Floats,
) -> None:
    day, ring = _RATIO_HEAD, _RATIO_HEAD + 48
    for s in range(values.shape[0]):
        row = state[s]
        for t in range(values.shape[1]):
            x = values[s, t]
            slot = int(row[6]) % 12
            row[6] += 1.0
            row[ring + slot], row[ring + 12 + slot] = 0.0, 0.0
            if math.isnan(x) or x <= 0.0 or behind[s, t] <= 0.0:
                continue
            age[s, t] = row[5]
            row[5] += 1.0
            w = behind[s, t] / (behind[s, t] + 10.0)
            d = (first_hour + t) % 24
            y = math.log(x)
            if row[1] <= 0.0:
                row[0], row[1] = w * y, w
                continue
            variance = (row[2] + 6.0 * 0.09) / (row[3] + 6.0)
            mean = row[0] / row[1]
            offset = row[day + d] / (row[day + 24 + d] + 3.0)
            r = y - mean - offset
            sd = math.sqrt(variance / w)
            expected[s, t], spread[s, t] = math.exp(mean + offset), sd
            volume[s, t] = row[7]
            row[7] += (behind[s, t] - row[7]) * 0.02
            row[ring + slot], row[ring + 12 + slot] = w * r, w
            total, weight = 0.0, 0.0
            for back in range(12):
                at = (slot - back) % 12
                total += row[ring + at]
                weight += row[ring + 12 + at]
                if back == 0 or back == 2 or back == 11:
                    scale = 0 if back == 0 else (1 if back == 2 else 2)
                    residuals[scale, s, t] = total / math.sqrt(weight * variance)
            row[4] = row[4] + 1.0 if abs(residuals[2, s, t]) > _RELEARN_AT else 0.0
            pulled = min(max(r, -_WINSOR * sd), _WINSOR * sd)
            if row[4] >= _RELEARN_AFTER:
                # The mean jumps to where the last hours were.
                row[4] = 0.0
                row[0], row[1] = 12.0 * (mean + total / weight), 12.0
            else:
                row[0] = w * (mean + pulled) + _LEVEL_MEMORY * row[0]
                row[1] = w + _LEVEL_MEMORY * row[1]
            row[2] = w * pulled * pulled + _LAW_MEMORY * row[2]
            row[3] = 1.0 + _LAW_MEMORY * row[3]
            row[day + d] = w * (pulled + offset) + _DAY_VISIT * row[day + d]
            row[day + 24 + d] = w + _DAY_VISIT * row[day + 24 + d]
