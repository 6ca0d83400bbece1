"""Lasting changes of level: when a series has moved for good, and since when.

Holds the rule, as a function over windows of daily values. What is learned from then on, and how the change is told, is
decided by its callers.

The level of a day has shifted when all of the last ``after`` days, and of the days before these as far back as that
holds, lie on the same side outside the band of the older days of the window. It depends on the window alone, so a day
is judged alike whenever and with whatever others it is computed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.detectors import Detector

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Shift(NamedTuple):
    """What was found, shape (...), for histories of shape (..., window).

    ``days`` is how long the new level has lasted, zero for none; ``before`` and ``since`` are the old level and the
    median of the new one; ``deviation`` says how many spreads they are apart. These are NaN without a shift.
    """

    days: Ints
    before: Floats
    since: Floats
    deviation: Floats


def find_shift(
    history: Floats,
    detector: Detector,
    *,
    after: int,
    min_points: int,
    floor: Floats,
    relative: float,
    width: float,
) -> Shift:
    """The longest lasting level in each history, oldest value first. ``after`` of zero finds none.

    ``floor``, ``relative`` and ``width`` give the band of the older days, as for the detector.
    """
    shape, window = history.shape[:-1], history.shape[-1]
    values = history.reshape(-1, window)
    found = Shift(np.zeros(len(values), np.int64), *(np.full(len(values), np.nan) for _ in range(3)))
    if 0 < after <= window - min_points:
        at = np.flatnonzero(_may_have_shifted(values, after))
        floors = np.broadcast_to(floor, shape).reshape(-1)[at]
        for days in range(after, window - min_points + 1):
            older, newer = values[at, : window - days], values[at, window - days :]
            level = np.median(newer, axis=-1)  # NaN, and no shift, where a day is unknown
            band = detector(older, level, min_points, floor=floors, relative=relative, width=width)
            outside = (newer.min(axis=-1) > band.upper) | (newer.max(axis=-1) < band.lower)
            there = at[outside]
            found.days[there] = days
            found.before[there], found.since[there] = band.expected[outside], level[outside]
            found.deviation[there] = band.deviation[outside]
    return found._replace(**{name: array.reshape(shape) for name, array in found._asdict().items()})


def forgotten(days: Ints, window: int) -> Bools:
    """(..., window): the days of a window before its shift, from which nothing is learned any more."""
    return (days[..., None] > 0) & (np.arange(window) < window - days[..., None])


def _may_have_shifted(values: Floats, after: int) -> Bools:
    """Whether the newest days are all on one side of the mean of the others: a cheap test before the real one."""
    newer, older = values[:, -after:], values[:, :-after]
    known = ~np.isnan(older)
    mean = np.where(known, older, 0.0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    # Rounding must not decide: a history that is all alike is compared with itself.
    one_sided: Bools = (newer.min(axis=-1) >= mean) | (newer.max(axis=-1) <= mean)
    return one_sided
