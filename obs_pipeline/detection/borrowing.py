"""What a new agent borrows: the level and the scatter of the agents around it, until it has a past of its own.

Holds the rule, over values on a metric's own scale. Who is new, and what a deviation from a borrowed baseline may amount
to, is decided elsewhere.

The rule is that of the normal model with partial pooling: agents' levels scatter about the mean of their group by
``between``, an agent's values about its level by ``within`` (the group's mean spread). Of ``n`` own values with mean ``x``

    expected = (n x / within² + group / between²) / (n / within² + 1 / between²)
    spread²  = within² + 1 / (n / within² + 1 / between²)

so that without any past it is the group that speaks, and every day of its own counts more.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_PEERS: Final = 5
"""Agents with a baseline of their own that a group must have to be borrowed from."""


class Borrowed(NamedTuple):
    """What was borrowed, NaN where nothing could be; arrays of (series, point, tested day)."""

    expected: Floats
    spread: Floats


def borrow(groups: Ints, expected: Floats, spread: Floats, own: Floats, n: Floats) -> Borrowed:
    """Baselines for the values whose ``expected`` is NaN, from those of the same group and time that have one.

    ``groups`` (series,) numbers the groups from zero. ``own`` is the mean of a series' ``n`` own values before this time,
    anything where there are none. All values are on the metric's scale.
    """
    has = ~np.isnan(expected)
    count = _sums(groups, has.astype(np.float64))
    level = _sums(groups, np.where(has, expected, 0.0)) / np.maximum(count, 1)
    scatter = _sums(groups, np.where(has, (expected - level[groups]) ** 2, 0.0)) / np.maximum(count - 1, 1)
    within = np.maximum(_sums(groups, np.where(has, spread**2, 0.0)) / np.maximum(count, 1), 1e-12)
    enough = count >= LEAST_PEERS
    level, within, between = (
        np.where(enough, some, np.nan)[groups] for some in (level, within, np.maximum(scatter, 1e-12))
    )
    known = n / within + 1 / between
    mean = (np.where(n > 0, n * own, 0.0) / within + level / between) / known
    wanted = ~has
    return Borrowed(np.where(wanted, mean, np.nan), np.where(wanted, np.sqrt(within + 1 / known), np.nan))


def _sums(groups: Ints, values: Floats) -> Floats:
    """(group, point, tested day): the sum over the series of each group, added up one after another: sums of pairs would change
    their last digit with every series that has nothing to add, and a day would not come out alone as in a range."""
    shape = (int(groups.max(initial=-1)) + 1, *values.shape[1:])
    size = math.prod(values.shape[1:])
    places = groups[:, None] * size + np.arange(size)
    return np.bincount(places.reshape(-1), weights=values.reshape(-1), minlength=math.prod(shape)).reshape(shape)
