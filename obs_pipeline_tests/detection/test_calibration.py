"""Calibration: a surprise means what it says, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.detection import calibration
from obs_pipeline.detection.usage_model import Scored, score


def normal_scored(seed: int, series: int = 60, hours: int = 672, factor: float = 1.0) -> Scored:
    residuals = factor * np.random.default_rng(seed).standard_t(5, (3, series, hours))
    flat = np.full((series, hours), 10.0)
    return Scored(flat, flat, residuals, flat, np.full((series, hours), 1000.0), np.zeros((series, 1)))


def fitted(scored: Scored) -> calibration.Tails:
    tails = calibration.fit(scored)
    assert tails is not None
    return tails


@pytest.mark.parametrize("factor", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("mark", [1.0, 1.5, 2.0])
def test_a_surprise_is_the_rarity_of_normal_half_days_whatever_the_unit_of_the_residual(factor: float, mark: float):
    tails = fitted(normal_scored(1, factor=factor))
    surprises, _ = calibration.surprise(tails, normal_scored(2, series=300, factor=factor))
    blocks = surprises.reshape(300, -1, calibration.BLOCK).max(axis=-1)
    assert (blocks >= mark).mean() == pytest.approx(10**-mark, rel=0.35)


def test_surprise_rises_with_the_residual_and_stays_finite():
    tails = fitted(normal_scored(1))
    sizes = np.array([0.0, 1.0, 3.0, 6.0, 12.0, 100.0, 1e9])
    for direction in (1.0, -1.0):
        scored = normal_scored(1, series=1, hours=len(sizes))._replace(
            residuals=np.tile(direction * sizes, (3, 1, 1)), age=np.full((1, len(sizes)), 1000.0)
        )
        surprises, more = calibration.surprise(tails, scored)
        assert (np.diff(surprises[0]) >= 0).all()
        assert surprises[0, -1] <= calibration.LARGEST
        assert more[0, 1:].all() == (direction > 0)


def test_what_is_unknown_is_not_surprising_but_unknown():
    scored = normal_scored(3)
    scored.residuals[:, 0, 5] = np.nan
    surprises, _ = calibration.surprise(fitted(scored), scored)
    assert np.isnan(surprises[0, 5])
    assert np.isnan(surprises).sum() == 1


def test_too_little_to_learn_from_is_said():
    assert calibration.fit(normal_scored(1, series=1)) is None
    young = normal_scored(1)._replace(age=np.full((60, 672), 10.0))
    assert calibration.fit(young) is None


def test_a_few_incidents_hardly_move_the_marks():
    clean, dirty = normal_scored(4), normal_scored(4)
    dirty.residuals[:, :3, 100:112] = 50.0
    at = normal_scored(5)
    before, after = (calibration.surprise(fitted(scored), at)[0] for scored in (clean, dirty))
    ordinary = before < 1.5
    assert np.abs(before - after)[ordinary].max() < 0.3


def test_incidents_do_not_become_normal_where_the_far_tail_is_borrowed():
    far = fitted(normal_scored(9))
    clean, dirty = normal_scored(4), normal_scored(4)
    dirty.residuals[:, :8, 100:112] = 15.0
    incident = normal_scored(5, series=1)
    incident.residuals[:, 0, 300] = 15.0

    def seen(tails: calibration.Tails | None) -> float:
        assert tails is not None
        return float(calibration.surprise(tails, incident)[0][0, 300])

    taught = seen(calibration.fit(dirty))
    assert seen(calibration.fit(dirty, far)) > taught + 0.5
    assert seen(calibration.fit(dirty, far)) == pytest.approx(seen(calibration.fit(clean, far)), abs=0.4)


def test_a_borrowed_tail_is_stretched_to_the_fleets_own_size():
    far = fitted(normal_scored(9))
    tails = calibration.fit(normal_scored(4, factor=40.0), far)
    assert tails is not None
    surprises, _ = calibration.surprise(tails, normal_scored(2, series=300, factor=40.0))
    blocks = surprises.reshape(300, -1, calibration.BLOCK).max(axis=-1)
    for mark in (1.0, 2.0):
        assert (blocks >= mark).mean() == pytest.approx(10**-mark, rel=0.4)


@given(st.lists(st.floats(0, 8), min_size=1, max_size=60))
@settings(max_examples=60)
def test_an_echo_keeps_half_and_an_onset_everything(surprises: list[float]):
    kept = calibration.onsets(np.array([surprises]))[0]
    for hour, value in enumerate(surprises):
        before = max(surprises[max(0, hour - calibration.BLOCK) : hour], default=0.0)
        assert kept[hour] == (value if value > before else calibration.ECHO_SHARE * value)


def test_onsets_look_at_the_past_alone_and_keep_the_unknown():
    kept = calibration.onsets(np.array([[1.0, np.nan, 3.0, 2.0, 5.0]]))
    np.testing.assert_array_equal(kept, [[1.0, np.nan, 3.0, 1.0, 5.0]])


def metrics_of_agents(seed: int, agents: int = 300, hours: int = 672) -> np.ndarray:
    """Surprises of three metrics of normal agents, the first two moving together."""
    tails = fitted(normal_scored(1))
    shared, own, third = (normal_scored(seed + part, series=agents, hours=hours) for part in (0, 1000, 2000))
    second = own._replace(residuals=(shared.residuals * 3 + own.residuals) / np.sqrt(10))
    return np.stack([calibration.surprise(tails, scored)[0] for scored in (shared, second, third)])


@pytest.mark.parametrize("mark", [1.0, 1.5, 2.0])
def test_a_joint_surprise_is_the_rarity_of_normal_half_days_of_an_agent(mark: float):
    age = np.full((300, 672), 1000.0)
    tails = calibration.fit_joint(metrics_of_agents(10), age)
    assert tails is not None
    borrowed = calibration.fit_joint(metrics_of_agents(30), age, tails)
    assert borrowed is not None
    for learned in (tails, borrowed):
        joint = calibration.joint_surprise(metrics_of_agents(20), learned)
        blocks = joint.surprise.reshape(300, -1, calibration.BLOCK).max(axis=-1)
        assert (blocks >= mark).mean() == pytest.approx(10**-mark, rel=0.35)


def test_the_joint_test_names_the_leading_metric_and_gains_from_its_companion():
    alone = np.array([[[3.0, 3.0, np.nan, np.nan]], [[2.0, 0.0, 1.0, np.nan]], [[0.5, 0.0, np.nan, np.nan]]])
    joint = calibration.joint_surprise(alone, calibration.shipped_joint(("cost", "tokens", "errors")))
    np.testing.assert_array_equal(joint.leading, [[0, 0, 1, -1]])
    assert joint.surprise[0, 0] > joint.surprise[0, 1] > joint.surprise[0, 2]
    assert np.isnan(joint.surprise[0, 3])


def test_a_second_metric_never_makes_an_hour_less_surprising_and_one_alone_is_judged_too():
    alone = metrics_of_agents(40, agents=5)
    tails = calibration.shipped_joint(("cost", "tokens", "errors", "latency"))
    one = calibration.joint_surprise(alone[:1], tails).surprise
    assert (calibration.joint_surprise(alone, tails).surprise >= one).all()


def test_what_lasts_is_more_surprising_than_what_does_not_for_some_hours():
    tails = calibration.shipped_joint(("cost", "tokens", "errors", "latency"))
    course = np.zeros((1, 1, 12))
    course[..., 2:4] = 2.0
    joint = calibration.joint_surprise(course, tails).surprise[0]
    assert joint[3] > joint[2] > joint[4] == joint[6] > joint[7] > joint[8] == joint[0]


def test_the_joint_table_of_borrowed_tables_is_the_more_sceptical():
    for metrics in (("cost", "tokens", "errors", "latency"), ("cost",)):
        own, borrowed = (calibration.shipped_joint(metrics, borrowed=one) for one in (False, True))
        assert (borrowed.knots >= own.knots - 0.02).all()
        assert borrowed.knots[-1] > own.knots[-1]


def test_too_few_agents_teach_no_joint_test():
    assert calibration.fit_joint(np.ones((2, 1, 48)), np.full((1, 48), 1000.0)) is None


@pytest.mark.parametrize(("age", "raised"), [(0, np.inf), (23, np.inf), (24, 0.5), (71, 0.5), (72, 0.25), (168, 0.0)])
def test_a_young_series_must_show_more(age: float, raised: float):
    assert calibration.raised_mark(np.array([float(age)]))[0] == raised


def test_confidence_is_modest_rises_with_surprise_and_with_age():
    surprises = np.array([0.0, 1.5, 2.0, 2.5, 3.0, 8.0])
    old = calibration.confidence(surprises, np.full(6, 1e6))
    assert (np.diff(old) > 0).all()
    assert old[0] < 0.01
    assert old[-1] < 1
    assert old[2] == pytest.approx(0.12, abs=0.03)
    assert old[4] == pytest.approx(0.58, abs=0.05)
    young = calibration.confidence(surprises, np.full(6, 72.0))
    assert young / (1 - young) == pytest.approx(0.5 * old / (1 - old), rel=1e-3)


def test_confidence_where_more_is_asked_is_that_of_less_surprise():
    surprises, old = np.array([0.5, 1.5, 3.0]), np.full(3, 1e9)
    plain = calibration.confidence(surprises, old)
    for times in (0.9, 1.0, 1.25, 2.5):
        asked = calibration.confidence_when_asked(plain, np.full(3, times))
        assert asked == pytest.approx(calibration.confidence(surprises / times, old), rel=1e-6)
    assert calibration.confidence_when_asked(np.array([0.0, 1.0]), np.ones(2)) == pytest.approx([0, 1])


@pytest.mark.parametrize(("weekly", "mark"), [(14.0, 0.0), (0.14, 2.0), (0.014, 3.0), (0.0, 8.0), (1000.0, 0.0)])
def test_alarms_a_week_say_where_the_mark_lies(weekly: float, mark: float):
    assert calibration.mark_for(weekly) == pytest.approx(mark)


def test_tables_survive_their_file(tmp_path: Path):
    tails = fitted(normal_scored(6))
    calibration.save({"cost": tails}, tmp_path / "tables.npz")
    kept = calibration.load(tmp_path / "tables.npz")
    at = normal_scored(7)
    np.testing.assert_allclose(calibration.surprise(kept["cost"], at)[0], calibration.surprise(tails, at)[0], atol=1e-3)


def test_joint_tables_stand_beside_the_others_in_their_file(tmp_path: Path):
    tails = calibration.JointTails(np.arange(3.0), np.arange(3.0), np.array(2.0))
    calibration.save({"cost": fitted(normal_scored(6))}, tmp_path / "tables.npz", {"cost+errors": tails})
    assert set(calibration.load(tmp_path / "tables.npz")) == {"cost"}
    np.testing.assert_array_equal(calibration.load_joint(tmp_path / "tables.npz")["cost+errors"].knots, tails.knots)


def test_a_set_of_metrics_without_a_joint_table_takes_the_one_of_the_most():
    known = calibration.shipped_joint(("latency", "errors", "tokens", "cost"))
    assert known is calibration.shipped_joint(("cost", "tokens", "errors", "latency"))
    every = calibration.shipped_joint(("calls", "cost", "unit_cost", "errors", "latency"))
    assert calibration.shipped_joint(("cost",)) is every is not known


def test_the_shipped_tables_are_small_know_every_metric_and_are_calm_on_ordinary_usage():
    assert calibration.SHIPPED_FILE.stat().st_size < 50_000
    assert {"calls", "cost", "tokens", "unit_cost", "errors", "latency"} <= set(calibration.shipped())
    steady = np.random.default_rng(8).poisson(40, (20, 1344)).astype(float)
    surprises, _ = calibration.surprise(calibration.shipped()["calls"], score("amount", steady))
    later = surprises[:, 336:].reshape(20, -1, calibration.BLOCK).max(axis=-1)
    assert (later >= 2.0).mean() < 0.03
