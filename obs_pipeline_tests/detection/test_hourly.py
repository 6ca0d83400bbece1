"""Hours of a table judged by the usage model: who is, by what, and that nothing later shows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from obs_pipeline.detection.panel_config import PanelConfig
from obs_pipeline.detection.panel_score import PanelScores, score_series
from obs_pipeline.detection.views import VIEWS

HOUR = 3600.0
MONDAY = 1767571200.0  # 2026-01-05
BY_THE_MODEL = len(VIEWS)
WEEK = 168


def office(hours: int, seed: int = 0, size: float = 60.0) -> np.ndarray:
    """Calls of an agent in hours 8 to 18 of each day, none else."""
    clock = np.arange(hours)
    busy = (clock % 24 >= 8) & (clock % 24 < 18)
    return np.random.default_rng(seed).poisson(np.where(busy, size, 0.0)).astype(float)


def scored(*series: np.ndarray, step: float = HOUR, begins: float = MONDAY, **more) -> list[PanelScores]:
    starts = np.cumsum([0, *(one.size for one in series)])
    times = np.concatenate([begins + step * np.arange(one.size) for one in series])
    whole = score_series(np.concatenate(series), starts, times=times, **more)
    return [PanelScores(*(column[a:b] for column in whole)) for a, b in pairwise(starts)]


def test_a_quiet_hour_gone_busy_outranks_what_the_views_see():
    series = office(6 * WEEK)
    series[5 * WEEK + 3] = 45.0  # three in the morning, within what a working hour brings
    (found,) = scored(series)
    assert found.score[WEEK:].argmax() == 4 * WEEK + 3
    assert found.view[5 * WEEK + 3] == BY_THE_MODEL
    assert found.severity[5 * WEEK + 3] >= 2


@pytest.mark.parametrize(
    ("series", "step"),
    [
        (office(600), 300.0),
        (office(600) - 1.0, HOUR),
        (np.cumsum(office(600) + 1.0), HOUR),
        (np.full(600, 7.0), HOUR),
    ],
    ids=["five minutes", "once negative", "a counter", "a flat line"],
)
def test_what_is_no_usage_by_the_hour_is_left_to_the_views(series: np.ndarray, step: float):
    (found,) = scored(series, step=step)
    assert (found.view[100:] != BY_THE_MODEL).all()


def test_the_model_can_be_left_out():
    (found,) = scored(office(400), config=PanelConfig(usage_model=False))
    assert (found.view < BY_THE_MODEL).all()


def test_errors_out_of_calls_are_judged_as_such():
    calls = office(5 * WEEK)
    errors = np.random.default_rng(3).binomial(calls.astype(int), 0.01).astype(float)
    at = 4 * WEEK + 34
    errors[at] = calls[at] // 2
    (found,) = scored(errors, exposure=calls)
    assert found.score.argmax() == at
    assert found.view[at] == BY_THE_MODEL


@pytest.mark.parametrize("cut", [WEEK + 1, 3 * WEEK, 4 * WEEK + 77])
def test_what_comes_later_changes_nothing_of_what_was_said(cut: int):
    fleet = [office(5 * WEEK, seed, 20.0 + seed) for seed in range(34)]
    fleet[3][4 * WEEK + 100] = 900.0
    whole, part = scored(*fleet), scored(*(one[:cut] for one in fleet))
    for one, other in zip(whole, part, strict=True):
        for name in ("score", "confidence", "expected", "lower", "upper"):
            np.testing.assert_array_equal(getattr(one, name)[:cut], getattr(other, name), err_msg=name)


def test_a_series_that_qualifies_late_and_began_early_changes_nothing_of_the_others():
    mine = office(3 * WEEK)
    early = np.concatenate([np.full(200, 5.0), office(3 * WEEK, 1)])
    alone = scored(mine)[0]
    starts = np.array([0, early.size, early.size + mine.size])
    times = np.concatenate([MONDAY + HOUR * (np.arange(early.size) - 200), MONDAY + HOUR * np.arange(mine.size)])
    both = score_series(np.concatenate([early, mine]), starts, times=times)
    np.testing.assert_array_equal(both.score[early.size :], alone.score)


def sensor(hours: int, seed: int) -> np.ndarray:
    """A temperature that drifts around its day."""
    rng = np.random.default_rng(seed)
    drift = np.zeros(hours)
    for hour in range(1, hours):
        drift[hour] = 0.9 * drift[hour - 1] + rng.normal(0.0, 0.4)
    return 20.0 + 5.0 * np.sin(np.arange(hours) * np.pi / 12) + drift


def test_sensors_are_left_to_the_views_however_many_stand_in_one_table():
    sensors = [sensor(5 * WEEK, seed) for seed in range(34)]
    views = scored(*sensors, config=PanelConfig(usage_model=False))
    for one, alone in zip(scored(*sensors), views, strict=True):
        late = slice(3 * WEEK, None)
        assert (one.view[late] != BY_THE_MODEL).mean() > 0.9
        assert np.abs(one.surprise[late] - alone.surprise[late]).mean() < 0.1


def test_sensors_beside_a_fleet_hardly_change_what_is_said_of_it():
    fleet = [office(6 * WEEK, seed, 20.0 + seed) for seed in range(34)]
    alone = scored(*fleet)
    beside = scored(*fleet, *(sensor(6 * WEEK, seed) for seed in range(60)))
    for one, other in zip(alone, beside, strict=False):
        late = slice(5 * WEEK, None)
        assert (other.view[late] == BY_THE_MODEL).all()
        assert np.abs(one.surprise[late] - other.surprise[late]).max() < 0.3
