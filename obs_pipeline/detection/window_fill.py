"""The windows of a panel, written out in one compiled pass: the known values, and zeros where a series was idle.

Holds the rule of :mod:`~obs_pipeline.detection.panel` that tells a zero from an unknown, as loops. No metrics, no statistics.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@numba.njit(cache=True, nogil=True)
def fill_windows(
    grid: Floats,
    present: Bools,
    alive: Bools,
    sources: Ints,
    seen: Bools,
    masked: Bools,
    idle_is_zero: bool,
    history: Floats,
    observed: Floats,
) -> None:
    """Fill ``history`` (series, point, tested day, look-back) and ``observed`` with the windows of ``grid``.

    ``present`` says where the series have rows; ``alive``, ``sources`` and ``seen`` are a panel's. ``masked`` is unknown
    in every history; it may be empty, for nothing.
    """
    count, points, _ = grid.shape
    lookback = history.shape[3]
    sent = np.zeros(sources.shape[1], dtype=np.bool_)
    for s in range(count):
        for tested in range(history.shape[2]):
            start = _first_row(present, s, tested)
            for rank in range(sent.size):
                sent[rank] = seen[s, rank, tested : tested + lookback].any()
            for point in range(points):
                for back in range(lookback + 1):
                    day = tested + back
                    value = grid[s, point, day]
                    if idle_is_zero and not present[s, point, day] and day * points + point >= start:
                        for rank in range(sent.size):
                            if sent[rank] and alive[sources[s, rank], point, day]:
                                value = 0.0
                    if back == lookback:
                        observed[s, point, tested] = value
                    elif masked.size and masked[s, point, day]:
                        history[s, point, tested, back] = math.nan
                    else:
                        history[s, point, tested, back] = value


@numba.njit(cache=True, nogil=True)
def _first_row(present: Bools, series: int, first: int) -> int:
    """The first time from this day on at which the series has a row; past the end without any."""
    _, points, days = present.shape
    for day in range(first, days):
        for point in range(points):
            if present[series, point, day]:
                return int(day * points + point)
    return int(days * points)
