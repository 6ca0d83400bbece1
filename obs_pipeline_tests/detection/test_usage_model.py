"""The usage model: causal, free of units, indifferent to odd input, and better than a z-score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.detection import calibration, usage_model
from obs_pipeline_tests.performance import detection_bench
from obs_pipeline_tests.performance.fleets import FLEETS, WEEK

KINDS = ("amount", "failures", "ratio")
HOURS = 2 * WEEK


def panel(seed: int, series: int = 4, hours: int = HOURS) -> tuple[np.ndarray, np.ndarray]:
    """Values with a day's rhythm and gaps, and the trials behind them."""
    chance = np.random.default_rng(seed)
    rhythm = 20 + 10 * np.sin(2 * np.pi * np.arange(hours) / 24)
    trials = chance.poisson(rhythm * 5, (series, hours)).astype(float)
    values = chance.poisson(rhythm, (series, hours)).astype(float)
    values[chance.random(values.shape) < 0.05] = np.nan
    return values, trials


def arrays(scored: usage_model.Scored) -> list[np.ndarray]:
    return [scored.expected, scored.spread, scored.residuals, scored.volume, scored.age]


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), cut=st.integers(1, HOURS - 1))
@settings(max_examples=15)
def test_no_hour_is_judged_by_what_comes_after_it(kind: usage_model.Kind, seed: int, cut: int):
    values, trials = panel(seed)
    changed = values.copy()
    changed[:, cut:] = changed[:, cut:] * 7 + 3
    for before, after in zip(
        arrays(usage_model.score(kind, values, trials)), arrays(usage_model.score(kind, changed, trials)), strict=True
    ):
        np.testing.assert_array_equal(before[..., :cut], after[..., :cut])


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), cut=st.integers(0, HOURS))
@settings(max_examples=15)
def test_a_panel_in_two_parts_scores_like_the_whole(kind: usage_model.Kind, seed: int, cut: int):
    values, trials = panel(seed)
    whole = usage_model.score(kind, values, trials, first_hour=5)
    first = usage_model.score(kind, values[:, :cut], trials[:, :cut], first_hour=5)
    second = usage_model.score(kind, values[:, cut:], trials[:, cut:], first_hour=5 + cut, state=first.state)
    for expected, left, right in zip(arrays(whole), arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(expected, np.concatenate([left, right], axis=-1))
    np.testing.assert_array_equal(whole.state, second.state)


@pytest.mark.parametrize("enormous", [1e3, 1e15])
def test_an_enormous_hour_leaves_nothing_in_the_sums_of_the_hours_after_it(enormous: float):
    hours = np.random.default_rng(3).uniform(1, 2, 60)
    hours[7] = enormous
    row, ring = np.zeros(usage_model._TODAY + 4), 0
    for hour, value in enumerate(hours):
        slot = hour % usage_model.RING
        if slot == 0:
            usage_model._begin_day(row, ring)
        row[4 * slot : 4 * slot + 4] = value, 2 * value, 0, 1
        row[usage_model._TODAY :] += row[4 * slot : 4 * slot + 4]
        for scale, length in enumerate(usage_model.SCALES["amount"]):
            last = hours[max(0, hour + 1 - length) : hour + 1]
            wanted = [last.sum(), 2 * last.sum(), 0, last.size]
            np.testing.assert_allclose(usage_model._last_hours(row, ring, slot, scale), wanted, rtol=1e-12)


@pytest.mark.parametrize("kind", ["amount", "ratio"])
@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e6, 1e12])
def test_the_unit_of_money_changes_no_residual(kind: usage_model.Kind, factor: float):
    values, trials = panel(1)
    plain = usage_model.score(kind, values, trials)
    scaled = usage_model.score(kind, values * factor, trials)
    np.testing.assert_allclose(scaled.residuals, plain.residuals, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scaled.expected, plain.expected * factor, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_does_not_depend_on_its_neighbours(kind: usage_model.Kind):
    values, trials = panel(2)
    together = usage_model.score(kind, values, trials)
    alone = usage_model.score(kind, values[2:3], trials[2:3])
    np.testing.assert_array_equal(alone.residuals[:, 0], together.residuals[:, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_series_is_never_surprising(kind: usage_model.Kind):
    values = np.full((1, HOURS), 7.0)
    scored = usage_model.score(kind, values, np.full((1, HOURS), 700.0))
    assert np.nanmax(np.abs(scored.residuals)) < (1.5 if kind == "failures" else 0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -5.0, 1e18, 1e-18, 1e300])
def test_odd_values_give_numbers_or_unknown_and_no_warning(kind: usage_model.Kind, value: float):
    values, trials = panel(3)
    values[1] = value
    values[2, ::7] = value
    scored = usage_model.score(kind, values, trials)
    assert not any(np.isinf(array).any() for array in arrays(scored))
    if np.isnan(value):
        assert np.isnan(scored.residuals[:, 1]).all()


def test_an_agent_idle_for_years_is_as_one_that_never_was():
    values = np.zeros((1, 60_000))
    values[0, 10] = 5.0
    values[0, -1] = 5.0
    scored = usage_model.score("amount", values)
    assert np.isnan(scored.expected[0, -2:]).all()
    assert np.isfinite(scored.expected[0, 11:1000]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 24), (3, 0), (0, 0), (1, 1)])
def test_an_empty_panel_gives_an_empty_answer(kind: usage_model.Kind, shape: tuple[int, int]):
    scored = usage_model.score(kind, np.zeros(shape), np.zeros(shape))
    assert scored.residuals.shape == (3, *shape)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="panel"):
        usage_model.score("amount", np.zeros(24))
    with pytest.raises(ValueError, match="panel"):
        usage_model.score("ratio", np.zeros((2, 24)), np.zeros((2, 23)))
    with pytest.raises(ValueError, match="trials"):
        usage_model.score("failures", np.zeros((2, 24)))


def test_a_first_jump_is_far_off_and_a_lasting_level_is_learned():
    values, _ = panel(4, series=1, hours=4 * WEEK)
    values[:, 2 * WEEK :] *= 5
    residuals = usage_model.score("amount", values).residuals[2, 0]
    assert np.nanmax(np.abs(residuals[WEEK : 2 * WEEK])) < 4
    assert np.nanmax(residuals[2 * WEEK : 2 * WEEK + 24]) > 8
    assert np.nanmax(np.abs(residuals[3 * WEEK :])) < 4


def test_the_rhythm_of_a_week_is_learned():
    office = np.tile(np.where((np.arange(WEEK) % 24 > 8) & (np.arange(WEEK) < 120), 50.0, 0.0), 4)[None]
    scored = usage_model.score("amount", office)
    last = slice(3 * WEEK, 4 * WEEK)
    busy = office[0, last] > 0
    assert scored.expected[0, last][busy].min() > 25
    assert np.median(scored.expected[0, last][~busy]) < 1


def test_one_failure_alone_is_no_news_and_many_are():
    failures, trials = np.zeros((1, HOURS)), np.full((1, HOURS), 20.0)
    failures[0, 300], failures[0, 320] = 1.0, 8.0
    surprise = usage_model.score("failures", failures, trials).residuals[0, 0]
    assert surprise[300] == 0.0
    assert surprise[320] > 5


def test_a_ratio_of_few_calls_weighs_less_than_one_of_many():
    values, trials = np.full((2, HOURS), 100.0), np.full((2, HOURS), 200.0)
    values[:, 300] = 250.0
    trials[0, 300] = 1.0
    residuals = usage_model.score("ratio", values, trials).residuals[0, :, 300]
    assert 0 < residuals[0] < residuals[1] / 2


def test_the_band_encloses_what_was_expected():
    for kind in KINDS:
        values, trials = panel(5)
        scored = usage_model.score(kind, values, trials)
        lower, upper = usage_model.band(kind, scored, 3.0)
        known = ~np.isnan(scored.expected)
        assert (lower[known] <= scored.expected[known]).all()
        assert (scored.expected[known] <= upper[known]).all()
        assert (lower[known] >= 0).all()


@pytest.mark.parametrize("fleet", sorted(FLEETS))
def test_it_finds_more_incidents_than_a_zscore_at_the_same_false_alarms(fleet: str):
    measured = {
        name: detection_bench.measure(FLEETS[fleet], 1, 60, detection_bench.DETECTORS[name])
        for name in ("z-score, 28 days", "usage model")
    }
    for rate in ("0.1", "0.02"):
        assert measured["usage model"]["recall"][rate] > measured["z-score, 28 days"]["recall"][rate]
    assert measured["usage model"]["auprc"] > 2 * measured["z-score, 28 days"]["auprc"]


@pytest.mark.parametrize("size", [10.0, 60.0, 1000.0])
def test_weekends_without_work_are_no_drop_once_one_was_seen_and_mondays_no_spike(size: float):
    clock = np.arange(6 * WEEK)
    busy = (clock % 24 >= 8) & (clock % 24 < 18) & (clock // 24 % 7 < 5)
    calls = np.random.default_rng(1).poisson(np.where(busy, size, 0.0), (20, clock.size)).astype(float)
    surprise, _ = calibration.surprise(calibration.shipped()["calls"], usage_model.score("amount", calls))
    days = surprise[:, 2 * WEEK :].reshape(20, -1, 7, 24).max(axis=(1, 3))
    assert days.max() < 2.75
    assert (days >= 2.0).mean() < 0.05
