"""The measures of the benchmark on made series: what is perfect, what is nothing, and what lies between."""

from __future__ import annotations

import numpy as np
import pytest

from obs_pipeline_tests.performance.made_series import FAMILIES, HELD_OUT, Family, Series, made
from obs_pipeline_tests.performance.series_bench import best_threshold, nab_score, point_measures, reward, window_gains

SIZE = 1000
WINDOWS = np.array([[400, 450], [700, 750]])


def series() -> Series:
    odd = np.zeros(SIZE, dtype=bool)
    odd[[425, 426, 725, 726]] = True
    return Series("made", np.arange(0.0, 60.0 * SIZE, 60.0), np.zeros(SIZE), odd, WINDOWS, 60.0)


def nab(*detected: int) -> float:
    scores = np.zeros(SIZE)
    scores[list(detected)] = 1.0
    return nab_score([window_gains(series(), scores)], 0.5)


def test_a_detection_at_the_beginning_of_every_window_is_perfect_and_none_at_all_is_nothing():
    assert nab(400, 700) == pytest.approx(100)
    assert nab() == 0


def test_a_late_detection_is_worth_less_than_an_early_one_and_more_than_none():
    assert 50 < nab(449, 749) < nab(425, 725) < nab(400, 700)
    assert nab(425, 725) == pytest.approx(93, abs=0.2)
    assert nab(400) == pytest.approx(50)


def test_only_the_earliest_detection_of_a_window_counts():
    assert nab(410, 430, 440, 700) == nab(410, 700)
    assert nab(430, 410, 700) == nab(410, 700)


def test_a_false_alarm_costs_eleven_hundredths_of_a_window_and_little_just_after_one():
    alarm = 100 * 0.11 / 4
    assert nab(400, 700, 300) == pytest.approx(100 - alarm)
    assert nab(400, 700, 650) == pytest.approx(100 - alarm)
    assert 100 - alarm < nab(400, 700, 455) < 100


def test_alarms_in_the_probation_cost_nothing():
    assert nab(400, 700, 10, 149) == pytest.approx(100)
    assert nab(400, 700, 150) < 100


def test_the_reward_falls_from_one_through_zero_to_minus_one():
    steps = reward(np.linspace(-1, 4, 50))
    assert (np.diff(steps) <= 0).all()
    assert reward(np.array([-1.0, 0.0, 3.1])) == pytest.approx([0.987, 0.0, -1.0], abs=1e-3)


def test_the_best_threshold_is_one_for_all_series_and_that_of_a_plain_search():
    random = np.random.default_rng(0)
    gains = []
    for _ in range(3):
        scores = np.round(random.exponential(1.0, SIZE), 1)
        scores[[430, 705]] += random.uniform(0, 8, 2)
        gains.append(window_gains(series(), scores))
    threshold, best = best_threshold(gains)
    every = np.unique(np.concatenate([one.scores for one in gains]))
    assert best == pytest.approx(max(0.0, *(nab_score(gains, one) for one in every)))
    assert best == pytest.approx(nab_score(gains, threshold))


def test_a_detector_that_is_always_wrong_had_better_be_silent():
    scores = np.zeros(SIZE)
    scores[[500, 600]] = 1.0
    assert best_threshold([window_gains(series(), scores)]) == (float("inf"), 0.0)


def test_points_are_perfect_when_the_odd_ones_lead_and_chance_when_all_are_the_same():
    one = series()
    assert point_measures(one, one.anomalous.astype(float)) == pytest.approx((1.0, 1.0))
    share = 4 / 850
    assert point_measures(one, np.zeros(SIZE)) == pytest.approx((share, 2 * share / (1 + share)))


@pytest.mark.parametrize("families", [FAMILIES, HELD_OUT], ids=["chosen by", "held out"])
def test_every_family_has_its_anomalies_after_probation_and_inside_their_windows(families: dict[str, Family]):
    found = list(made(seed=1, each=2, families=families))
    assert {one.family for one in found} == set(families)
    for one in found:
        inside = np.zeros(one.values.size, dtype=bool)
        for first, end in one.windows:
            assert one.anomalous[first:end].any()
            inside[first:end] = True
        assert not (one.anomalous & ~inside).any()
        assert one.windows.min() > 0.15 * one.values.size
        assert (np.diff(one.times) > 0).all()
        assert 2000 <= one.values.size <= 4000
