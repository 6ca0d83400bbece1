"""The detectors as functions over arrays."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from obs_pipeline.detection.detectors import (
    DETECTORS,
    LARGEST_DEVIATION,
    active_share,
    burst_spread,
    forecast_residual,
    iqr,
    never_idle,
    robust_zscore,
    seasonal_profile,
    trailing,
    zscore,
)

METHODS = pytest.mark.parametrize("detect", list(DETECTORS.values()), ids=list(DETECTORS))
ORDINARY = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))
ANYTHING = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 1.0]),
)


def series(values=ORDINARY):
    return hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=values)


def judge(detect, values, window=10, min_points=3, **settings):
    return detect(trailing(values, window), values, min_points, **settings)


@METHODS
@given(values=series(), place=st.integers(0, 39), later=ORDINARY)
def test_changing_values_from_a_time_on_changes_no_earlier_result_and_no_baseline_at_that_time(
    detect, values, place, later
):
    place = place % values.shape[1]
    changed = values.copy()
    changed[:, place:] = later
    before, after = judge(detect, values), judge(detect, changed)
    for name in ("expected", "spread", "lower", "upper", "n"):
        np.testing.assert_array_equal(getattr(before, name)[:, : place + 1], getattr(after, name)[:, : place + 1])
    np.testing.assert_array_equal(before.deviation[:, :place], after.deviation[:, :place])


@METHODS
@given(values=series(), power=st.integers(-20, 20))
def test_a_change_of_unit_changes_no_deviation(detect, values, power):
    unit = 2.0**power
    before = judge(detect, values, floor=0.25, relative=0.05)
    after = judge(detect, values * unit, floor=0.25 * unit, relative=0.05)
    np.testing.assert_allclose(after.deviation, before.deviation, rtol=1e-9)
    np.testing.assert_allclose(after.upper, before.upper * unit, rtol=1e-9)


@METHODS
@given(values=series(), seed=st.integers(0, 99))
def test_the_order_of_series_changes_nothing(detect, values, seed):
    order = np.random.default_rng(seed).permutation(values.shape[0])
    straight, shuffled = judge(detect, values), judge(detect, values[order])
    for name in straight._fields:
        np.testing.assert_array_equal(getattr(straight, name)[order], getattr(shuffled, name))


@pytest.mark.parametrize("detect", [zscore, iqr, robust_zscore])
@given(history=hnp.arrays(np.float64, (3, 12), elements=ORDINARY), seed=st.integers(0, 99))
def test_the_order_of_the_history_changes_nothing(detect, history, seed):
    shuffled = np.random.default_rng(seed).permuted(history, axis=1)
    observed = np.full(3, 7.0)
    for one, other in zip(detect(history, observed, 3), detect(shuffled, observed, 3), strict=True):
        np.testing.assert_array_equal(one, other)


@METHODS
@given(values=series(ANYTHING), floor=st.sampled_from([0.0, 1e-300, 1.0, 1e300]))
def test_no_input_makes_a_warning_or_an_infinite_deviation(detect, values, floor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline = judge(detect, values, floor=floor)
    assert np.all(np.isnan(baseline.deviation) | (np.abs(baseline.deviation) <= LARGEST_DEVIATION))
    assert np.all(np.isnan(baseline.spread) | (baseline.spread >= 0))


@METHODS
def test_a_constant_series_does_not_ring_and_a_step_away_from_it_does(detect):
    values = np.full((1, 30), 0.1)
    assert judge(detect, values).deviation[0, 5:].tolist() == [0.0] * 25
    values[0, -1] = 0.2
    assert judge(detect, values).deviation[0, -1] == LARGEST_DEVIATION


@METHODS
def test_the_floors_bound_the_spread_from_below(detect):
    history, observed = np.full((2, 20), 100.0), np.array([104.0, 104.0])
    assert detect(history, observed, 3, floor=2.0).deviation == pytest.approx([2.0, 2.0])
    assert detect(history, observed, 3, relative=0.01).deviation == pytest.approx([4.0, 4.0])
    assert detect(history, observed, 3, floor=np.array([1.0, 4.0])).deviation == pytest.approx([4.0, 1.0])


@METHODS
def test_one_outlier_in_the_history_does_not_blind_the_days_after_it(detect):
    ordinary = np.random.default_rng(1).normal(100, 10, (1, 60))
    spoiled = ordinary.copy()
    spoiled[0, 40] = 1e6
    clean, after = judge(detect, ordinary, 28), judge(detect, spoiled, 28)
    assert after.deviation[0, 40] > 1000
    assert np.all(after.spread[0, 41:] < 1.6 * clean.spread[0, 41:])
    moved = 15 if detect is seasonal_profile else 10  # the outlier's weekday has four values alone
    assert np.all(np.abs(after.expected[0, 41:] - clean.expected[0, 41:]) < moved)


@METHODS
def test_fewer_known_values_than_the_minimum_is_learning(detect):
    history = np.array([[np.nan] * 7 + [1.0, 2.0, 3.0], [np.nan] * 6 + [1.0, 2.0, 3.0, 4.0]])
    baseline = detect(history, np.array([9.0, 9.0]), 4)
    assert baseline.n.tolist() == [3, 4]
    assert np.isnan(baseline.deviation).tolist() == [True, False]
    assert np.isnan(baseline.expected).tolist() == [True, False]


@METHODS
def test_an_unknown_value_has_a_baseline_but_no_deviation(detect):
    baseline = detect(np.arange(20.0)[None], np.array([np.nan]), 3)
    assert np.isnan(baseline.deviation[0])
    assert np.isfinite(baseline.expected[0])


@METHODS
def test_sigmas_are_sigmas_on_normal_data(detect):
    values = np.random.default_rng(7).normal(50, 5, (400, 80))
    deviation = judge(detect, values, 28).deviation[:, 28:]
    assert 0.9 < np.std(deviation) < 1.25
    assert 0.03 < np.mean(np.abs(deviation) > 2) < 0.11


def test_the_band_is_as_wide_as_asked():
    baseline = zscore(np.arange(20.0)[None], np.array([0.0]), 3, width=3.0)
    assert baseline.upper - baseline.expected == pytest.approx(3 * baseline.spread)
    assert baseline.expected - baseline.lower == pytest.approx(3 * baseline.spread)


def test_the_zscore_follows_its_formula():
    history = np.array([[1.0, 2, 3, 4, 5, 6, 7, 8, 9, 100]])
    pulled = np.array([2.0, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    spread = np.std(pulled, ddof=1) / 0.8 * np.sqrt(1.1)
    baseline = zscore(history, np.array([20.0]), 3)
    assert baseline.expected == pytest.approx([np.mean(pulled)])
    assert baseline.deviation == pytest.approx([(20 - np.mean(pulled)) / spread])


def test_the_iqr_follows_its_formula():
    baseline = iqr(np.arange(1.0, 10.0)[None], np.array([20.0]), 3)
    assert baseline.expected == pytest.approx([5.0])
    assert baseline.spread == pytest.approx([4 / 1.3489795 * np.sqrt(1 + 1 / 9)])


def test_trailing_windows_never_hold_the_value_itself():
    windows = trailing(np.arange(5.0)[None], 3)[0]
    assert np.isnan(windows[0]).all()
    assert windows[4].tolist() == [1.0, 2.0, 3.0]


def test_the_active_share_counts_known_values_only():
    history = np.array([[0.0, 5.0, np.nan, np.nan], [np.nan] * 4])
    share = active_share(history)
    assert share[0] == 0.5
    assert np.isnan(share[1])


def test_bursts_are_measured_without_idle_times_and_without_their_single_largest():
    assert burst_spread(np.array([[0.0, 0.0, 3.0, 3.0, 900.0]])) == pytest.approx([3.0])
    assert burst_spread(np.array([[0.0, 900.0], [np.nan, np.nan]])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("history", "never"),
    [
        ([1.0] * 28, True),
        ([1.0] * 14, True),
        ([1.0] * 13, False),
        ([1.0] * 27 + [0.0], True),
        ([1.0] * 21 + [0.0] + [1.0] * 6, False),
        ([np.nan] * 14 + [1.0] * 14, True),
        ([1, 0, 0, 0, 0, 0, 0] * 4, True),
        ([1, 0, 0, 0, 0, 0, 0] * 3, False),
        ([0.0] * 28, False),
    ],
    ids=[
        "daily",
        "two weeks",
        "too short",
        "once otherwise",
        "a weekday off",
        "young",
        "weekly",
        "three weeks",
        "idle",
    ],
)
def test_an_agent_never_rests_if_it_was_active_daily_or_on_each_same_weekday(history, never):
    assert never_idle(np.array(history, dtype=float)) == never


def test_a_history_that_is_mostly_alike_does_not_ring_for_ever():
    """Nine days of ten at nothing: the median absolute deviation is zero, and the tenth day is no news."""
    values = np.array([[0.0] * 9 + [5.0]] * 8).reshape(1, -1)
    deviation = robust_zscore(trailing(values, 28), values, 7).deviation[0, 28:]
    assert deviation[values[0, 28:] > 0].max() < 4
    assert np.abs(deviation[values[0, 28:] == 0]).max() == 0


WEEKS = np.tile([10.0, 10, 10, 10, 10, 2, 2], 5)[None, :]


@pytest.mark.parametrize("detect", [seasonal_profile, forecast_residual])
def test_a_weekday_is_compared_with_its_like_and_a_weekend_is_no_drop(detect):
    wobble = np.random.default_rng(3).normal(0, 0.3, WEEKS.shape)
    baseline = detect(trailing(WEEKS + wobble, 28), WEEKS + wobble, 7)
    assert np.abs(baseline.expected[0, 28:] - WEEKS[0, 28:]).max() < 3
    assert np.abs(baseline.deviation[0, 28:]).max() < 3
    # A weekend as busy as a working day is news, though the z-score of all days sees nothing in it.
    busy = np.full(1, 10.0)
    history = (WEEKS + wobble)[:, 5:33]
    assert detect(history, busy, 7).deviation[0] > 4 > 2 > zscore(history, busy, 7).deviation[0]


def test_the_profile_follows_a_trend_and_the_z_score_does_not():
    days = np.arange(29.0)[None, :] * 2 + np.random.default_rng(5).normal(0, 1, (1, 29))
    assert abs(seasonal_profile(days[:, :-1], days[:, -1], 7).deviation[0]) < 2
    assert seasonal_profile(days[:, :-1], days[:, -1], 7).expected[0] == pytest.approx(56, abs=8)
    assert zscore(days[:, :-1], days[:, -1], 7).expected[0] < 30


def test_the_forecast_is_that_of_the_textbook_recursion():
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    from obs_pipeline.detection.detectors import _smoothed

    values = np.random.default_rng(9).normal(20, 3, 28) + np.tile([3.0, 0, 0, 0, 0, -2, -1], 4)
    start = float(np.median(values))
    fitted = ExponentialSmoothing(
        values, seasonal="add", seasonal_periods=7, initialization_method="known",
        initial_level=start, initial_seasonal=np.zeros(7),
    ).fit(smoothing_level=0.35, smoothing_seasonal=0.15 * (1 - 0.35), optimized=False)  # fmt: skip
    ours, _ = _smoothed(values[None], np.array([start]), np.array([1e9]), 0.35, 0.15)
    assert ours[0] == pytest.approx(fitted.forecast(1)[0], rel=1e-6)
