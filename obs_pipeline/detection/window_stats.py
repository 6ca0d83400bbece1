"""What a window of a series' past comes to: counts, winsorised mean and spread, the size of its bursts.

Holds the compiled passes over many windows at once; what is made of their results is the detectors'. No shapes of panels,
no metrics, no settings.

Shapes: ``history`` is (..., window), every result (...). NaN means unknown.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_WEEK: Final = 7


class Counts(NamedTuple):
    """How many values of a window are known, how many of these are not zero and how many are above it; and of each seventh
    value, counted back from the last but six, how many are known and how many are above zero."""

    known: Ints
    active: Ints
    positive: Ints
    weekdays_known: Ints
    weekdays_positive: Ints


class Winsorised(NamedTuple):
    """Mean, spread and number of the known values; the mean is NaN and the spread zero without any."""

    mean: Floats
    spread: Floats
    n: Ints


def counts(history: Floats) -> Counts:
    """Count the values of each window."""
    rows, shape = _rows(history)
    found = np.zeros((len(Counts._fields), len(rows)), dtype=np.int64)
    _count(rows, found)
    return Counts(*(each.reshape(shape) for each in found))


def winsorised(history: Floats, share: float, largest: float) -> Winsorised:
    """Mean and standard deviation of each window, its top and bottom ``share`` of values, rounded up to whole ones, pulled in
    to their inner neighbour.

    The deviation is divided by the share left untouched (Yuen, Biometrika 61, 1974), times ``sqrt(1 + 1/n)`` for the
    uncertainty of the mean. Nothing counts as more than ``largest``, to either side.
    """
    rows, shape = _rows(history)
    mean, spread = np.empty(len(rows)), np.empty(len(rows))
    n = np.empty(len(rows), dtype=np.int64)
    _winsorise(rows, share, largest, mean, spread, n)
    return Winsorised(mean.reshape(shape), spread.reshape(shape), n.reshape(shape))


def root_mean_square(history: Floats, share: float, largest: float) -> Floats:
    """Of the values of each window that are not zero, the top ``share`` pulled in; zero without any."""
    rows, shape = _rows(history)
    found = np.empty(len(rows))
    _mean_squares(rows, share, largest, found)
    return found.reshape(shape)


def _rows(history: Floats) -> tuple[Floats, tuple[int, ...]]:
    shape = history.shape[:-1]
    return np.ascontiguousarray(history, dtype=np.float64).reshape(math.prod(shape), history.shape[-1]), shape


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _count(rows: Floats, found: Ints) -> None:
    window = rows.shape[1]
    for r in range(rows.shape[0]):
        known = active = positive = 0
        for i in range(window):
            value = rows[r, i]
            known += value == value
            active += value == value and value != 0.0
            positive += value > 0.0
        found[0, r], found[1, r], found[2, r] = known, active, positive
        for i in range(window - _WEEK, -1, -_WEEK):
            found[3, r] += rows[r, i] == rows[r, i]
            found[4, r] += rows[r, i] > 0.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _winsorise(rows: Floats, share: float, largest: float, mean: Floats, spread: Floats, n: Ints) -> None:
    ordered = np.empty(rows.shape[1])
    for r in range(rows.shape[0]):
        known = _in_order(rows[r], ordered)
        n[r] = known
        if known == 0:
            mean[r], spread[r] = math.nan, 0.0
            continue
        pulled = min(math.ceil(share * known), (known - 1) // 2)
        lowest = min(max(ordered[pulled], -largest), largest)
        highest = min(max(ordered[known - 1 - pulled], -largest), largest)
        # What lies between them is added up in its order, so that the order of the history changes nothing.
        inner = ordered[pulled : known - pulled]
        total = pulled * (lowest + highest)
        for value in inner:
            total += min(max(value, lowest), highest)
        # A constant history must give its own value back, not its mean give or take one rounding.
        middle = min(max(total / known, lowest), highest)
        squares = pulled * ((lowest - middle) ** 2 + (highest - middle) ** 2)
        for value in inner:
            squares += (min(max(value, lowest), highest) - middle) ** 2
        deviation = math.sqrt(squares / max(known - 1, 1))
        mean[r] = middle
        spread[r] = deviation / (1 - 2 * pulled / known) * math.sqrt(1 + 1 / known)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _in_order(row: Floats, ordered: Floats) -> int:
    """Put the known values into ``ordered``, rising, and say how many they are: by insertion, as windows are short."""
    known = 0
    for value in row:
        if value == value:
            at = known
            while at > 0 and ordered[at - 1] > value:
                ordered[at] = ordered[at - 1]
                at -= 1
            ordered[at] = value
            known += 1
    return known


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mean_squares(rows: Floats, share: float, largest: float, found: Floats) -> None:
    sizes, largest_sizes = np.empty(rows.shape[1]), np.empty(rows.shape[1] + 1)
    for r in range(rows.shape[0]):
        active = 0
        for value in rows[r]:
            if value != 0.0 and value == value:
                sizes[active] = abs(value)
                active += 1
        pulled = math.ceil(share * active)
        found[r] = 0.0
        if active <= pulled:
            continue
        highest = min(_largest_but(pulled, sizes[:active], largest_sizes), largest)
        squares = 0.0
        for i in range(active):
            squares += min(sizes[i], highest) ** 2
        found[r] = math.sqrt(squares / active)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _largest_but(count: int, sizes: Floats, scratch: Floats) -> float:
    """The largest value but so many, which are few."""
    for i in range(count + 1):
        scratch[i] = -math.inf
    for size in sizes:
        if size > scratch[0]:
            at = 0
            while at < count and scratch[at + 1] < size:
                scratch[at] = scratch[at + 1]
                at += 1
            scratch[at] = size
    return float(scratch[0])
