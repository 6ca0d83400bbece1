"""Lasting changes of level: found once, learned from then on."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.config import AnomalyDetectionConfig
from obs_pipeline.detection.detect import detect_anomalies
from obs_pipeline.detection.detectors import zscore
from obs_pipeline.detection.level_shift import Shift, find_shift, forgotten
from obs_pipeline.detection.models import Anomaly, anomalies_from_table
from obs_pipeline_tests.detection.series_rows import daily, hourly, row

FIRST = date(2025, 3, 1)
CONFIG = AnomalyDetectionConfig(grains=("day",), metrics=("cost",))
WAVE = [10 + day * 7 % 5 * 0.3 for day in range(28)]


def shift_of(history: list[float], after: int = 7, min_points: int = 7) -> Shift:
    values = np.array([history])
    return find_shift(values, zscore, after=after, min_points=min_points, floor=np.zeros(1), relative=0.05, width=2.0)


@pytest.mark.parametrize(
    ("newest", "days"),
    [
        ([], 0),
        ([30] * 6, 0),
        ([30] * 7, 7),
        ([30] * 12, 12),
        ([30] * 21, 21),
        ([30] * 22, 21),
        ([30] * 25, 0),
        ([1] * 7, 7),
        ([30, 30, 30, 10, 30, 30, 30], 0),
        ([30, 30, 30, np.nan, 30, 30, 30], 0),
        ([30] * 6 + [1], 0),
    ],
)
def test_a_level_has_shifted_when_so_many_days_are_on_one_side_outside_the_band(newest: list[float], days: int):
    found = shift_of(WAVE[: 28 - len(newest)] + newest)
    assert found.days[0] == days
    assert np.isnan(found.before[0]) == (days == 0)
    if days:
        assert found.since[0] == newest[0]
        assert found.before[0] == pytest.approx(10.6, abs=0.3)
        assert np.sign(found.deviation[0]) == np.sign(newest[0] - 10)


def test_nothing_is_found_when_it_is_switched_off_or_the_window_is_too_short():
    assert shift_of(WAVE[:14] + [30] * 14, after=0).days[0] == 0
    assert shift_of([10.0] * 6 + [30] * 7).days[0] == 0


def test_what_lies_before_a_shift_is_forgotten():
    assert forgotten(np.array([0, 2]), 4).tolist() == [[False] * 4, [True, True, False, False]]


@settings(max_examples=50)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 10.0, 11.0, 30.0, np.nan]), min_size=28, max_size=28), max_size=5))
def test_many_series_at_once_are_judged_as_each_of_them_alone(histories: list[list[float]]):
    values = np.array(histories).reshape(len(histories), 28)
    whole = find_shift(values, zscore, after=7, min_points=7, floor=np.zeros(len(values)), relative=0.05, width=2.0)
    for number, history in enumerate(histories):
        alone = shift_of(history)
        for one, all_ in zip(alone, whole, strict=True):
            assert np.array_equal(one[0], all_[number], equal_nan=True)


def found(costs: list[float], first: int, last: int) -> list[Anomaly]:
    rows = [
        row(datetime.combine(FIRST, datetime.min.time()) + timedelta(days=day, hours=12), calls=40, cost=cost)
        for day, cost in enumerate(costs)
    ]
    hours = hourly(rows)
    days = (FIRST + timedelta(days=first), FIRST + timedelta(days=last))
    return anomalies_from_table(detect_anomalies(hours, daily(hours), days, CONFIG).anomalies)


def test_a_new_level_rings_at_first_is_announced_once_and_is_then_the_normal_one():
    costs = [10 + day * 7 % 5 * 0.3 for day in range(40)] + [30 + day * 7 % 5 * 0.3 for day in range(40)]
    told = found(costs, 30, 75)
    announced = [one for one in told if one.method == "level_shift"]
    assert [(one.timestamp.date(), one.severity) for one in announced] == [(FIRST + timedelta(days=47), "info")]
    assert "has spent about $30.60 a day since 2025-04-10, where $10.61 was usual" in announced[0].reason
    assert announced[0].context["since"] == "2025-04-10"
    assert (announced[0].deviation or 0) > 3
    alarms = [(one.timestamp.date() - FIRST).days for one in told if one.method != "level_shift"]
    assert alarms
    assert set(alarms) <= set(range(40, 47))
    # A rise over the new level is seen against its narrow band at once.
    costs[48] = 80
    assert [one.severity for one in found(costs, 48, 48)] == ["critical"]


def test_a_small_step_is_learned_without_a_word():
    costs = [1 + day % 5 * 0.02 for day in range(40)] + [1.5 + day % 5 * 0.02 for day in range(20)]
    assert not found(costs, 30, 59)
