"""The compiled passes over windows against what they are meant to say, window by window."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.detection.window_stats import counts, root_mean_square, winsorised

VALUES = st.one_of(st.just(math.nan), st.just(0.0), st.floats(-1e6, 1e6).map(lambda value: round(value, 3)))
WINDOWS = st.lists(VALUES, min_size=1, max_size=30)


def pulled_in(values: list[float], count: int) -> list[float]:
    ordered = sorted(values)
    lowest, highest = ordered[count], ordered[len(ordered) - 1 - count]
    return [min(max(value, lowest), highest) for value in ordered]


@given(window=WINDOWS)
def test_counts_say_what_is_known_active_and_positive(window: list[float]):
    known = [value for value in window if not math.isnan(value)]
    weekdays = [value for value in window[-7::-7] if not math.isnan(value)] if len(window) >= 7 else []
    assert [int(each) for each in counts(np.array(window))] == [
        len(known),
        sum(value != 0 for value in known),
        sum(value > 0 for value in known),
        len(weekdays),
        sum(value > 0 for value in weekdays),
    ]


@given(window=WINDOWS)
def test_a_winsorised_mean_and_spread_are_those_of_the_values_pulled_in(window: list[float]):
    known = [value for value in window if not math.isnan(value)]
    found = winsorised(np.array(window), 0.05, 1e100)
    n = len(known)
    assert found.n == n
    if n:
        count = min(math.ceil(0.05 * n), (n - 1) // 2)
        kept = pulled_in(known, count)
        spread = np.std(kept, ddof=min(n - 1, 1)) / (1 - 2 * count / n) * math.sqrt(1 + 1 / n)
        assert float(found.mean) == pytest.approx(np.mean(kept), rel=1e-9, abs=1e-6)
        assert float(found.spread) == pytest.approx(spread, rel=1e-9, abs=1e-6)
    else:
        assert math.isnan(found.mean)
        assert found.spread == 0


@given(window=WINDOWS)
def test_the_root_mean_square_is_of_what_is_not_zero_its_top_pulled_in(window: list[float]):
    sizes = sorted(abs(value) for value in window if value and not math.isnan(value))
    above = math.ceil(0.05 * len(sizes))
    kept = [min(size, sizes[len(sizes) - 1 - above]) for size in sizes] if len(sizes) > above else []
    wanted = math.sqrt(sum(size**2 for size in kept) / len(kept)) if kept else 0.0
    assert float(root_mean_square(np.array(window), 0.05, 1e100)) == pytest.approx(wanted, rel=1e-9)


def test_windows_of_any_shape_give_results_of_that_shape():
    history = np.random.default_rng(0).random((2, 3, 4, 9))[..., :-1]
    assert counts(history).known.shape == winsorised(history, 0.05, 1e100).mean.shape == (2, 3, 4)
    assert root_mean_square(history, 0.05, 1e100).shape == (2, 3, 4)
