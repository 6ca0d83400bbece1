"""The ensemble as a function over arrays, its tables, and what the batch makes of it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.detection import ensemble
from obs_pipeline.detection.config import GRAINS, METRICS, AlarmBudget
from obs_pipeline.detection.detectors import DETECTORS, change_of_level, trailing
from obs_pipeline_tests.detection.test_detectors import ANYTHING, ORDINARY, judge, series

TOGETHER = ensemble.detector("cost", "day")
BOTH = pytest.mark.parametrize("detect", [TOGETHER, change_of_level], ids=["ensemble", "change_of_level"])


@BOTH
@given(values=series(), power=st.integers(-20, 20))
def test_a_change_of_unit_changes_no_deviation(detect, values, power):
    unit = 2.0**power
    before, after = judge(detect, values, floor=0.5), judge(detect, values * unit, floor=0.5 * unit)
    np.testing.assert_allclose(after.deviation, before.deviation, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(after.expected, before.expected * unit, rtol=1e-12)


@BOTH
@given(values=series(), place=st.integers(0, 39), later=ORDINARY)
def test_nothing_depends_on_later_values(detect, values, place, later):
    place = place % values.shape[1]
    changed = values.copy()
    changed[:, place:] = later
    before, after = judge(detect, values), judge(detect, changed)
    np.testing.assert_array_equal(before.expected[:, : place + 1], after.expected[:, : place + 1])
    np.testing.assert_array_equal(before.deviation[:, :place], after.deviation[:, :place])


@BOTH
@given(values=series(), seed=st.integers(0, 99))
def test_the_order_of_series_and_what_is_judged_beside_them_changes_nothing(detect, values, seed):
    order = np.random.default_rng(seed).permutation(len(values))
    whole, shuffled = judge(detect, values), judge(detect, values[order])
    for name in ("expected", "spread", "deviation"):
        np.testing.assert_array_equal(getattr(whole, name)[order], getattr(shuffled, name))
    np.testing.assert_array_equal(judge(detect, values[:1]).deviation, whole.deviation[:1])


@BOTH
@given(values=series(ANYTHING), floor=st.sampled_from([0.0, 1e-300, 1.0, 1e300]))
def test_no_input_makes_a_warning_or_an_infinite_deviation(detect, values, floor):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline = judge(detect, values, floor=floor)
    assert not np.isinf(baseline.deviation).any()


@given(values=series(ANYTHING))
def test_the_ensemble_knows_a_surprise_wherever_the_z_score_knows_a_deviation(values):
    surprise, sigmas = judge(TOGETHER, values).deviation, judge(DETECTORS["zscore"], values).deviation
    np.testing.assert_array_equal(np.isnan(surprise), np.isnan(sigmas))
    assert np.all(np.isnan(surprise) | (np.abs(surprise) <= ensemble.LARGEST))


@BOTH
def test_a_constant_series_does_not_ring_a_step_away_does_and_one_point_is_learning(detect):
    values = np.full((1, 30), 0.1)
    assert judge(detect, values).deviation[0, 12:] == pytest.approx(0.0, abs=1e-3)
    values[0, -1] = 0.2
    assert judge(detect, values).deviation[0, -1] > 5
    values[0, -1] = 0.0
    assert judge(detect, values).deviation[0, -1] < -5
    assert np.isnan(judge(detect, np.ones((1, 1))).deviation).all()


def test_too_short_a_window_for_a_level_leaves_the_others_to_speak():
    values = np.array([[1.0, 2.0, 9.0]])
    history = trailing(values, 2)
    assert np.isnan(change_of_level(history, values, 2).deviation).all()
    assert TOGETHER(history, values, 2).deviation[0, 2] > 0


def test_a_small_change_that_lasts_is_seen_in_the_level_before_any_day_shows_it():
    values = np.random.default_rng(3).normal(100, 10, (400, 28))
    history = np.concatenate([values[:, :-3], values[:, -3:-1] + 15], axis=1)
    observed = values[:, -1] + 15
    level, day = (detect(history, observed, 7).deviation for detect in (change_of_level, DETECTORS["zscore"]))
    assert np.mean(level > 2) > np.mean(day > 2) + 0.2


@given(st.floats(0, 50), st.floats(0, 50))
def test_further_away_is_never_less_surprising(one, other):
    tails = ensemble.shipped()["cost:day"]
    near, far = sorted((one, other))
    (low, high), more = ensemble.surprises(tails, np.array([[near, far]] * len(ensemble.VOICES)))
    assert low <= high
    assert more.all()


def test_voices_that_agree_surprise_more_than_one_of_them_alone():
    tails = ensemble.shipped()["cost:day"]
    sigmas = np.zeros((len(ensemble.VOICES), 2))
    sigmas[:, 0] = 4.0
    sigmas[0, 1] = 4.0
    (agreed, alone), _ = ensemble.surprises(tails, sigmas)
    assert agreed > alone + 0.5


def test_a_voice_that_knows_nothing_is_left_out():
    tails = ensemble.shipped()["cost:day"]
    sigmas = np.full((len(ensemble.VOICES), 2), 3.0)
    sigmas[-1, 0] = np.nan
    (without, whole), _ = ensemble.surprises(tails, sigmas)
    assert abs(without - whole) < 0.3
    assert np.isnan(ensemble.surprises(tails, np.full((len(ensemble.VOICES), 1), np.nan))[0]).all()


@pytest.mark.parametrize(("grain", "points", "days"), [("day", 1, 200), ("hour", 24, 40)])
def test_ten_to_the_minus_s_is_the_share_of_ordinary_blocks_that_reach_s(grain, points, days):
    random = np.random.default_rng(5)

    def drawn():
        common = random.standard_t(3, (100, points, days))
        return np.stack([common + random.standard_t(4, common.shape) for _ in ensemble.VOICES])

    ordinary = np.ones((100, days), dtype=bool)
    tails = ensemble.fit(drawn(), ordinary, grain)
    surprise, _ = ensemble.surprises(tails, drawn())
    block = ensemble.BLOCK_POINTS[grain]
    highest = surprise.reshape(100, points // block, block, days).max(axis=2)
    for mark in (1.0, 1.5, 2.0, 2.5):
        assert np.mean(highest >= mark) == pytest.approx(10**-mark, rel=0.45)


def test_days_that_are_not_ordinary_teach_nothing():
    random = np.random.default_rng(6)
    sigmas = random.normal(size=(len(ensemble.VOICES), 50, 1, 100))
    ordinary = np.ones((50, 100), dtype=bool)
    spoiled = sigmas.copy()
    spoiled[:, 7, :, 30:40], ordinary[7, 30:40] = 1e5, False
    for one, other in zip(ensemble.fit(sigmas, ordinary, "day"), ensemble.fit(spoiled, ordinary, "day"), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="500 ordinary blocks are too few"):
        ensemble.fit(sigmas[:, :5], ordinary[:5], "day")


def test_the_marks_spend_the_budget():
    budget = AlarmBudget(info=1.0, warning=0.2, critical=0.05)
    info, warning, critical = ensemble.marks(budget, 4, "day")
    assert 4 * 7 * 10.0 ** -np.array([info, warning, critical]) == pytest.approx([1.0, 0.2, 0.05])
    assert ensemble.marks(budget, 4, "hour")[0] == pytest.approx(info + np.log10(2))


def test_the_shipped_tables_are_there_for_each_metric_and_grain_and_rise():
    shipped = ensemble.shipped()
    assert set(shipped) == {f"{metric}:{grain}" for metric in METRICS for grain in GRAINS}
    for tails in shipped.values():
        assert tails.views.shape[:2] == (len(ensemble.VOICES), 2)
        for array in (tails.views, tails.views_rarity, tails.combined, tails.combined_rarity):
            assert np.all(np.diff(array, axis=-1) >= 0)


def test_tables_come_back_from_their_file(tmp_path):
    tables = dict(ensemble.shipped())
    ensemble.save(tables, tmp_path / "tables.npz")
    back = ensemble.load(tmp_path / "tables.npz")
    for key, tails in tables.items():
        for one, other in zip(tails, back[key], strict=True):
            np.testing.assert_array_equal(one, other)
