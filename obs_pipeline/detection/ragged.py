"""Series of unequal length in one flat array, and where their points lie in the day and the week.

Holds the shape of the data, the clock, and the rule that tells a counter from a measurement. No statistics beyond
that, no scores, no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.views import NO_SLOT, PACE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAY: Final = 86_400.0
COUNTER_AFTER: Final = 64
"""How many values a series must have risen through to be a counter."""

_NO_CLOCK_DAY: Final = 100
_MOST_PER_DAY: Final = 1440
_FINEST_SLOT: Final = 300.0
_SHORTEST_HALF_DAY: Final = 8
_OTHER_STEP: Final = 1.25  # a step is another one from this ratio on


@dataclass(frozen=True)
class Ragged:
    """``values`` of all series in a row; series ``i`` from ``starts[i]`` up to ``starts[i + 1]``.

    ``times`` are seconds since 1970 UTC, not falling within a series, or None when only the order is known; NaN is an
    unknown value. ``exposure`` is what lies behind a count.
    """

    values: Floats
    starts: Ints
    times: Floats | None
    exposure: Floats | None

    def portions(self, size: int) -> list[Ragged]:
        """Whole series together, some ``size`` values each, to bound memory and to share the work."""
        portion = (self.starts[1:] - 1) // size
        edges = np.flatnonzero(np.diff(portion, prepend=-2) != 0).tolist()
        return [self._part(a, b) for a, b in zip(edges, [*edges[1:], self.starts.size - 1], strict=True)]

    def select(self, chosen: npt.NDArray[np.bool_]) -> Ragged:
        """Some of the points, each still in its series; a series without any of them is left out."""
        lengths = np.bincount(self.owner[chosen])
        return Ragged(
            self.values[chosen],
            np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int64),
            None if self.times is None else self.times[chosen],
            None if self.exposure is None else self.exposure[chosen],
        )

    def _part(self, a: int, b: int) -> Ragged:
        inside = slice(self.starts[a], self.starts[b])
        return Ragged(
            self.values[inside],
            self.starts[a : b + 1] - self.starts[a],
            None if self.times is None else self.times[inside],
            None if self.exposure is None else self.exposure[inside],
        )

    @cached_property
    def lengths(self) -> Ints:
        """How many values each series has."""
        return np.diff(self.starts)

    @cached_property
    def owner(self) -> Ints:
        """The series of every value."""
        return np.repeat(np.arange(self.starts.size - 1), self.lengths)

    @cached_property
    def place(self) -> Ints:
        """The position of every value in its series."""
        return np.arange(self.values.size) - np.repeat(self.starts[:-1], self.lengths)


@dataclass(frozen=True)
class Calendar:
    """Where each point lies in its day and week, and how many points make a day, as known by then.

    ``step`` in seconds, 0 while it is unknown.
    """

    day: Ints
    week: Ints
    fine: Ints
    per_day: Ints
    step: Floats

    @property
    def half_day(self) -> Ints:
        """The window of onsets and of sums, in points."""
        points: Ints = np.maximum(_SHORTEST_HALF_DAY, np.minimum(self.per_day, int(PACE)) // 2)
        return points


def known_before(values: Floats, starts: Ints) -> Floats:
    """How many values of its own series are known before each."""
    running = np.concatenate([[0], np.cumsum(~np.isnan(values))])
    before: Floats = (running[:-1] - np.repeat(running[starts[:-1]], np.diff(starts))).astype(np.float64)
    return before


def lowest_so_far(values: Floats, starts: Ints) -> Floats:
    """The smallest known value of its own series up to and with each; infinite before the first."""
    lowest = np.empty(values.size)
    _lowest_so_far(values, starts, lowest)
    return lowest


@numba.njit(cache=True, nogil=True)
def _lowest_so_far(values: Floats, starts: Ints, lowest: Floats) -> None:
    for series in range(starts.size - 1):
        least = np.inf
        for i in range(starts[series], starts[series + 1]):
            if values[i] < least:
                least = values[i]
            lowest[i] = least


def window_sums(column: Floats, first: Ints) -> Floats:
    """The sum from position ``first[i]`` up to and with ``i``, unknown ones left out."""
    running = np.concatenate([[0.0], np.cumsum(np.nan_to_num(column))])
    sums: Floats = np.maximum(running[1:] - running[first], 0.0)
    return sums


def calendar_of(series: Ragged) -> Calendar:
    """Days and weeks of the clock, where the step is short enough for them to mean something."""
    size = series.values.size
    nowhere = np.full(size, NO_SLOT)
    step = running_steps(series)
    if series.times is None:
        return Calendar(nowhere, nowhere, nowhere, np.full(size, _NO_CLOCK_DAY), step)
    timed = step > 0
    per_day = np.where(timed, np.clip(np.rint(DAY / np.where(timed, step, DAY)), 1, _MOST_PER_DAY), _NO_CLOCK_DAY)
    day_time, week_time = np.mod(series.times, DAY), np.mod(series.times, 7 * DAY)
    daily = step <= DAY / 2
    usable = timed & (step <= 3 * DAY)
    slot = np.maximum(np.minimum(step, DAY), DAY / 24)
    day = np.where(daily, day_time // slot, 0.0)
    week = week_time // slot
    fine = np.where(daily, day_time // np.maximum(step, _FINEST_SLOT), week)
    slots = [np.where(usable, place, NO_SLOT).astype(np.int64) for place in (day, week, fine)]
    return Calendar(slots[0], slots[1], slots[2], per_day.astype(np.int64), step)


def running_steps(series: Ragged) -> Floats:
    """The step of its series as known at each point: the median distance in seconds of its different times so far.

    Looked at again whenever the distances have doubled, and then only changed by a quarter or more, so that irregular
    times do not unsettle it. Zero before the second time, or without a clock.
    """
    steps = np.zeros(series.values.size)
    if series.times is not None:
        _running_steps(series.times, series.starts, steps)
    return steps


@numba.njit(cache=True, nogil=True)
def _running_steps(times: Floats, starts: Ints, steps: Floats) -> None:
    for series in range(starts.size - 1):
        gaps = np.empty(starts[series + 1] - starts[series])
        count, due, current = 0, 1, 0.0
        for i in range(starts[series], starts[series + 1]):
            if i > starts[series] and times[i] > times[i - 1]:
                gaps[count] = times[i] - times[i - 1]
                count += 1
            if count == due:
                middle = np.sort(gaps[:count])[count // 2]
                if current == 0.0 or middle > _OTHER_STEP * current or current > _OTHER_STEP * middle:
                    current = middle
                due *= 2
            steps[i] = current


def counters_of(series: Ragged) -> npt.NDArray[np.bool_]:
    """Which series only rose in their first 64 values, by half of the steps at least, and go on after that."""
    young = (series.place > 0) & (series.place < COUNTER_AFTER)
    moves = np.diff(series.values, prepend=np.nan)
    count = series.starts.size - 1
    rises = np.bincount(series.owner[young], moves[young] > 0, minlength=count)
    others = np.bincount(series.owner[young], ~(moves[young] >= 0), minlength=count)
    counters: npt.NDArray[np.bool_] = (others == 0) & (rises >= COUNTER_AFTER / 2)
    return counters & (series.lengths > COUNTER_AFTER)


def counter_points(series: Ragged, counters: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which values belong to one of the ``counters`` after it has shown to be one."""
    points: npt.NDArray[np.bool_] = counters[series.owner] & (series.place >= COUNTER_AFTER)
    return points


def increments_of(series: Ragged) -> tuple[Floats, Floats]:
    """The last known value before each, and the rise since then; after a restart, the value itself."""
    place = np.where(np.isnan(series.values), 0, np.arange(series.values.size))
    last = np.concatenate([[0], np.maximum.accumulate(place)[:-1]])
    base = series.values[last]
    rise = series.values - base
    restarted = rise < 0
    return np.where(restarted, 0.0, base), np.where(restarted, series.values, rise)
