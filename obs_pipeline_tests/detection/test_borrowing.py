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


def test_agents_that_have_nothing_to_lend_change_no_digit():
    random = np.random.default_rng(1)
    levels, spreads = random.gamma(0.3, size=(40, 1, 3)), random.gamma(2.0, size=(40, 1, 3))
    levels[0] = spreads[0] = np.nan
    between = np.repeat(np.arange(40), 3)[2:]  # each agent but the first among two without a baseline
    idle = np.full((len(between), 1, 3), np.nan)
    first = np.concatenate([[0], np.flatnonzero(np.diff(between)) + 1])
    many_levels, many_spreads = idle.copy(), idle.copy()
    many_levels[first], many_spreads[first] = levels, spreads
    few = borrow(np.zeros(40, np.int64), levels, spreads, np.zeros_like(levels), np.zeros_like(levels))
    many = borrow(np.zeros(len(between), np.int64), many_levels, many_spreads, np.zeros_like(idle), np.zeros_like(idle))
    for one, other in zip(few, many, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
