"""What will be spent by the end of a period: a level, a profile of the weekday, and an interval learned by replay.

Pure arithmetic over arrays of daily spend, all scopes at once: (scope, day) in, (scope,) out. No reading, no windows of
calendars, no budgets.

Method
------
``expected = level x weekday``. The weekday profile is a ratio of sums (half-life 42 days), shrunk to even by two
pseudo-weeks. The level is an exponentially weighted sum of spend over the like sum of the profile: a short one (half-life
4 days) that gives way to a long one (28 days) by a factor of 0.9 a day ahead, because a busy week says more of tomorrow
than of the end of the month. Learning sees spend
pulled in to six deviations, its expected value and three times its mean of all days: one mispriced call does not become
next month's forecast, and a new level is learned in days. A day without rows is a day on which nothing was spent: money
that nobody reported is not foreseen.

The interval is conformal (Vovk, Gammerman, Shafer, 2005; split conformal with a normalised score): for each of the
trailing 112 days the same forecast over as many days is made from what was known then, and its miss, in units of
``sqrt(days x daily variance) + forecast / 20``, kept. The 10 % and 90 % points of the misses of all scopes of a kind,
times the scope's own unit, are the bounds of an 80 % interval; scopes that spent something in the week before and those
that did not are apart, because who is idle and who is at work miss differently. A kind with fewer than 200 misses
borrows all kinds'; a horizon with fewer than ten those of a shorter one, widened by the root of the ratio.

Units are those of the spend given (USD, as floats: a forecast is no account).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

WEEK: Final = 7
COVERAGE: Final = 0.8
"""The share of intervals that should hold what comes."""

LEAST_DAYS: Final = 14
"""Days since the first spend below which there is no forecast."""

REPLAYED_DAYS: Final = 112
LONGEST: Final = 32
"""Days ahead that can be asked for: the rest of a day under way and a month."""

HISTORY_DAYS: Final = LEAST_DAYS + REPLAYED_DAYS + LONGEST + 24
"""Days of spend from which everything here is known; more change little."""

_SHORT: Final = 0.5 ** (1 / 4)
_LONG: Final = 0.5 ** (1 / 28)
_PROFILE: Final = 0.5 ** (1 / 42)
_DAMPING: Final = 0.9
_PSEUDO_WEEKS: Final = 2.0
_PULLED_IN: Final = 6.0
_LIFETIME_MEANS: Final = 3.0
_ENOUGH_MISSES: Final = 200
_FEWEST_MISSES: Final = 10
_NOTHING: Final = 1e-9
_SHORTER: Final = (21, 14, 10, 7, 5, 3, 2, 1)


@dataclass(frozen=True)
class Learned:
    """What was known of every scope at the beginning of every day, (scope, day + 1); the last is the end.

    ``profile`` has a third axis, the weekday (Monday first), mean 1 over the week. ``age`` counts days since the first
    spend, 0 before it. ``lately``: something was spent in the week before. ``seen`` is the spend of each day (scope, day)
    with outliers pulled in.
    """

    seen: Floats
    short: Floats
    long: Floats
    profile: npt.NDArray[np.float32]
    variance: Floats
    age: Ints
    lately: Flags
    first_weekday: int


def learn(spend: Floats, first_weekday: int) -> Learned:
    """Go through the days once. ``spend`` is (scope, day), without gaps; the first day is of ``first_weekday``."""
    scopes, days = spend.shape
    # Day by day in memory, because it is filled day by day.
    short, long, variance = (np.zeros((days + 1, scopes)).T for _ in range(3))
    profile = np.ones((days + 1, scopes, WEEK), dtype=np.float32).transpose(1, 0, 2)
    started = np.cumsum(spend != 0, axis=1) > 0
    sums = {kept: (np.zeros(scopes), np.zeros(scopes)) for kept in (_SHORT, _LONG)}
    by_weekday, visits = np.zeros((scopes, WEEK)), np.zeros((scopes, WEEK))
    squares, weights = np.zeros(scopes), np.zeros(scopes)
    seen = np.zeros_like(spend)
    lifetime, days_on = np.zeros(scopes), np.zeros(scopes)
    for day in range(days):
        weekday = (first_weekday + day) % WEEK
        usual = profile[:, day, weekday]
        expected = short[:, day] * usual
        deviation = np.sqrt(variance[:, day])
        known = weights > LEAST_DAYS / 2
        # A flat or long idle scope has no spread to speak of: what it spends, or ever spent, leaves room to change.
        room = np.abs(expected) + _LIFETIME_MEANS * np.abs(_ratio(lifetime, days_on))
        reach = np.where(known, _PULLED_IN * deviation + room, np.inf)
        amount_seen = seen[:, day] = np.clip(spend[:, day], expected - reach, expected + reach)
        on = started[:, day]
        for kept, (amount, weight) in sums.items():
            amount[:] = np.where(on, kept * amount + amount_seen, amount)
            weight[:] = np.where(on, kept * weight + usual, weight)
        lifetime += np.where(on, amount_seen, 0.0)
        days_on += on
        by_weekday = np.where(on[:, None], _PROFILE * by_weekday, by_weekday)
        visits = np.where(on[:, None], _PROFILE * visits, visits)
        by_weekday[:, weekday] += np.where(on, amount_seen, 0.0)
        visits[:, weekday] += on
        # The very first day has no forecast to miss.
        squares = np.where(on, _LONG * squares + (weights > 0) * (amount_seen - expected) ** 2, squares)
        weights = np.where(on, _LONG * weights + 1, weights)
        short[:, day + 1] = _ratio(*sums[_SHORT])
        long[:, day + 1] = _ratio(*sums[_LONG])
        variance[:, day + 1] = _ratio(squares, np.maximum(weights - 1, 1.0))
        profile[:, day + 1] = _profile(by_weekday, visits)
    age = np.concatenate([np.zeros((scopes, 1), np.int64), np.cumsum(started, axis=1)], axis=1)
    spent_on = np.pad(np.cumsum(spend != 0, axis=1), ((0, 0), (WEEK + 1, 0)))
    lately = spent_on[:, WEEK:] > spent_on[:, :-WEEK]
    return Learned(seen, short, long, profile, variance, age, lately, first_weekday)


def _profile(by_weekday: Floats, visits: Floats) -> Floats:
    mean = _ratio(by_weekday.sum(axis=1), visits.sum(axis=1))[:, None]
    shares = _ratio(by_weekday + _PSEUDO_WEEKS * mean, (visits + _PSEUDO_WEEKS) * mean)
    shares = np.where((mean > 0) & (shares > 0), shares, 1.0)
    normal: Floats = shares * WEEK / shares.sum(axis=1, keepdims=True)
    return normal


def ahead(learned: Learned, origins: Ints, days: int, scopes: Ints | slice = slice(None)) -> Floats:
    """(scope, origin, days): the spend expected on each of the days that begin with the day numbered ``origin``."""
    short, long = learned.short[:, origins][scopes], learned.long[:, origins][scopes]
    profile = learned.profile[:, origins][scopes]
    expected = np.empty((*short.shape, days))
    for step in range(days):
        weekdays = (learned.first_weekday + origins + step) % WEEK
        level = long + _DAMPING**step * (short - long)
        expected[..., step] = level * np.take_along_axis(profile, weekdays[None, :, None], axis=2)[..., 0]
    return expected


def total_ahead(learned: Learned, origins: Ints, days: int) -> Floats:
    """(scope, origin): the sum of ``ahead`` over its days, at a cost that does not grow with them."""
    steps = np.arange(days)
    on = (learned.first_weekday + origins[:, None] + steps) % WEEK == np.arange(WEEK)[:, None, None]
    profile = learned.profile[:, origins]
    visits = np.einsum("sok,ko->so", profile, on.sum(axis=2))
    damped = np.einsum("sok,ko->so", profile, (on * _DAMPING**steps).sum(axis=2))
    short, long = learned.short[:, origins], learned.long[:, origins]
    total: Floats = long * visits + (short - long) * damped
    return total


def units(learned: Learned, origins: Ints, days: float, expected: Floats, scopes: Ints | slice = slice(None)) -> Floats:
    """(scope, origin): what a miss over so many days is measured in."""
    own: Floats = np.sqrt(learned.variance[:, origins][scopes] * days) + np.abs(expected) / 20
    return own


class Missed(NamedTuple):
    """(scope, origin): what forecasts missed, in their units, NaN where none was made; whether the scope had spent
    anything in the week before; and what was expected, in the same units."""

    by: Floats
    lately: Flags
    expected: Floats

    def between(self, first: int, last: int) -> Missed:
        """Those of the origins ``first`` … ``last - 1``."""
        span = slice(max(0, first), max(0, last))
        return Missed(self.by[:, span], self.lately[:, span], self.expected[:, span])

    @property
    def made(self) -> int:
        return int(np.count_nonzero(~np.isnan(self.by)))


def misses(learned: Learned, days: int, until: int, replayed: int = REPLAYED_DAYS) -> Missed:
    """What forecasts over ``days`` days missed.

    The origins are the last ``replayed`` days from which so many days are over before the day numbered ``until``.
    """
    origins = np.arange(max(0, until - days - replayed + 1), until - days + 1)
    if origins.size == 0:
        nothing = np.empty((learned.seen.shape[0], 0))
        return Missed(nothing, nothing > 0, nothing)
    expected = total_ahead(learned, origins, days)
    # An outlier pulled in here too, or one day would widen all intervals of a month around it.
    total = np.pad(np.cumsum(learned.seen, axis=1), ((0, 0), (1, 0)))
    actual = total[:, origins + days] - total[:, origins]
    unit = units(learned, origins, days, expected)
    made = (learned.age[:, origins] >= LEAST_DAYS) & (unit > 0)
    by = np.where(made, _ratio(actual - expected, unit), np.nan)
    return Missed(by, learned.lately[:, origins], _ratio(expected, unit))


@dataclass(frozen=True)
class Replay:
    """How many intervals were made, and how many held what came."""

    made: int
    held: int

    @property
    def coverage(self) -> float:
        return self.held / self.made if self.made else float("nan")


def replay(learned: Learned, days: int, until: int, kinds: Ints, replayed: int = 30) -> Replay:
    """Forecasts over so many days from the last origins that are over, each with the interval it had at the time."""
    missed = misses(learned, days, until, REPLAYED_DAYS + days + replayed)
    made = held = 0
    for origin in range(max(0, missed.by.shape[1] - replayed), missed.by.shape[1]):
        known_then = missed.between(origin - days - REPLAYED_DAYS + 1, origin - days + 1)
        ends = bounds(known_then, kinds, missed.lately[:, origin])
        middle, by = missed.expected[:, origin], missed.by[:, origin]
        # As in what is published, no end is below zero: an idle scope that stays idle is no miss.
        low, high = (np.maximum(middle + end, 0.0) for end in ends.T)
        came = middle + by
        told = ~np.isnan(by) & ~np.isnan(low)
        made += int(np.count_nonzero(told))
        held += int(np.count_nonzero(told & (came >= low - _NOTHING) & (came <= high + _NOTHING)))
    return Replay(made, held)


def bounds(missed: Missed, kinds: Ints, lately: Flags) -> Floats:
    """(scope, 2): the lower and upper point, in units, of the misses of scopes of its kind that had spent something in
    the week before, or had not, as it has or has not (``lately``); NaN without any miss."""
    points = np.full((len(kinds), 2), np.nan)
    for state in (True, False):
        alike = np.where(missed.lately == state, missed.by, np.nan)
        everything = _points(alike, _FEWEST_MISSES)
        everything = _points(missed.by, 1) if np.isnan(everything).any() else everything
        for kind in np.unique(kinds[lately == state]):
            own = _points(alike[kinds == kind], _ENOUGH_MISSES)
            points[(kinds == kind) & (lately == state)] = everything if np.isnan(own).any() else own
    return points


def bounds_ahead(learned: Learned, days: int, until: int, kinds: Ints) -> Floats:
    """``bounds`` of forecasts over so many days, as known at the day numbered ``until``.

    While the history is too short to have replayed that many days, those of the longest shorter horizon that was, wider
    by the root of how much longer this one is. NaN while not even a day ahead was.
    """
    for shorter in (days, *(step for step in _SHORTER if step < days)):
        missed = misses(learned, shorter, until)
        if missed.made >= _FEWEST_MISSES:
            wider: Floats = bounds(missed, kinds, learned.lately[:, until]) * np.sqrt(days / shorter)
            return wider
    return np.full((len(kinds), 2), np.nan)


def _points(missed: Floats, fewest: int) -> Floats:
    known = missed[~np.isnan(missed)]
    edge = (1 - COVERAGE) / 2
    return np.quantile(known, [edge, 1 - edge]) if known.size >= fewest else np.full(2, np.nan)


def _ratio(high: Floats, low: Floats) -> Floats:
    return np.divide(high, low, out=np.zeros(np.broadcast_shapes(high.shape, low.shape)), where=low != 0)
