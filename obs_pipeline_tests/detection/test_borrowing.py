"""What a new agent borrows from those around it."""

from __future__ import annotations

import numpy as np
import pytest

from obs_pipeline.detection.borrowing import LEAST_PEERS, borrow

LEVELS = np.array([4.0, 5.0, 6.0, 5.0, 5.0, np.nan])[:, None, None]
SPREADS = np.where(np.isnan(LEVELS), np.nan, 0.5)
GROUP = np.zeros(6, dtype=np.int64)


def of_new(n: float, own: float = 0.0, group=GROUP) -> tuple[float, float]:
    """What the last one of six borrows that has ``n`` values of its own."""
    result = borrow(group, LEVELS, SPREADS, np.full(LEVELS.shape, own), np.full(LEVELS.shape, n))
    return result.expected[-1, 0, 0], result.spread[-1, 0, 0]


def test_without_a_past_the_group_speaks_and_its_levels_scatter_too():
    expected, spread = of_new(0)
    assert expected == pytest.approx(5.0)
    assert spread == pytest.approx(np.sqrt(0.5**2 + 0.5))


def test_every_value_of_its_own_counts_more():
    expected = [of_new(n, own=9.0)[0] for n in (0, 1, 2, 6, 1000)]
    spreads = [of_new(n, own=9.0)[1] for n in (0, 1, 2, 6, 1000)]
    assert expected == sorted(expected)
    assert spreads == sorted(spreads, reverse=True)
    assert (expected[-1], spreads[-1]) == pytest.approx((9.0, 0.5), abs=0.01)


def test_who_has_a_baseline_borrows_nothing_and_small_groups_lend_nothing():
    result = borrow(GROUP, LEVELS, SPREADS, np.zeros(LEVELS.shape), np.zeros(LEVELS.shape))
    assert np.isnan(result.expected[:-1]).all()
    split = np.array([0, 1, 1, 1, 1, 1], dtype=np.int64)
    assert LEAST_PEERS == 5
    assert np.isnan(of_new(0, group=split)[0])


def test_no_series_at_all_is_no_trouble():
    nothing = np.zeros((0, 1, 1))
    assert borrow(np.zeros(0, dtype=np.int64), nothing, nothing, nothing, nothing).expected.shape == (0, 1, 1)
