"""The forecast of daily spend: what it expects, and that its intervals hold as often as they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from obs_pipeline.detection import forecasts as f

END = 200
ONE = np.array([END])


def missed(by: f.Floats, lately: f.Flags | None = None) -> f.Missed:
    return f.Missed(by, np.ones(by.shape, dtype=bool) if lately is None else lately, np.zeros(by.shape))


def gamma_days(scopes: int = 40, days: int = END, seed: int = 1) -> f.Floats:
    chance = np.random.default_rng(seed)
    weekday = np.where(np.arange(days) % 7 < 5, 1.3, 0.25)
    level = np.exp(np.cumsum(chance.normal(0, 0.02, (scopes, days)), axis=1) + chance.normal(0, 1, (scopes, 1)))
    return level * weekday * chance.gamma(4, 0.25, (scopes, days))


def test_a_constant_spend_is_forecast_as_it_is():
    learned = f.learn(np.full((1, END), 5.0), 0)
    assert f.total_ahead(learned, ONE, 30)[0, 0] == pytest.approx(150)


def test_weekdays_differ_as_they_did():
    spend = np.where(np.arange(END) % 7 < 5, 10.0, 0.0)[None, :]
    expected = f.ahead(f.learn(spend, 0), ONE, 7)[0, 0]
    weekdays = (END + np.arange(7)) % 7
    assert expected[weekdays < 5].min() > 8
    assert expected[weekdays >= 5].max() < 2


def test_a_busy_week_fades_from_the_days_far_ahead():
    spend = np.full((1, END), 1.0)
    spend[0, -7:] = 3.0
    expected = f.ahead(f.learn(spend, 0), ONE, 30)[0, 0]
    assert 1.8 < expected[0] < 3
    assert (np.diff(expected[:28].reshape(4, 7).mean(axis=1)) < 0).all()


def test_who_spends_again_after_months_is_believed_within_days():
    spend = np.full((1, END), 1.0)
    spend[0, 60:-5] = 0.0
    assert 0.3 < f.ahead(f.learn(spend, 0), ONE, 1)[0, 0, 0] <= 1


def test_one_mispriced_call_is_not_next_months_forecast():
    spend = gamma_days(1)
    quiet = f.total_ahead(f.learn(spend, 0), ONE, 30)[0, 0]
    spend[0, -3] = 9990.0
    assert f.total_ahead(f.learn(spend, 0), ONE, 30)[0, 0] < 3 * quiet


def test_what_is_learned_of_a_day_rests_on_the_days_before_alone():
    spend = gamma_days(5)
    whole, part = f.learn(spend, 3), f.learn(spend[:, :150], 3)
    for name in ("short", "long", "variance", "profile", "age", "lately"):
        assert np.array_equal(getattr(whole, name)[:, :151], getattr(part, name))


def test_misses_never_look_beyond_the_day_they_are_asked_for():
    spend = gamma_days(5)
    changed = spend.copy()
    changed[:, 150:] = 99
    for days in (1, 7, 30):
        one, other = (f.misses(f.learn(x, 0), days, 150) for x in (spend, changed))
        for before, after in zip(one, other, strict=True):
            assert np.array_equal(before, after, equal_nan=True)


@settings(max_examples=60)
@given(arrays.arrays(float, (3, 40), elements=st.floats(0, 1e6)), st.integers(0, 6), st.integers(1, 32))
def test_the_sum_ahead_is_the_sum_of_the_days_ahead(spend, weekday, days):
    learned = f.learn(spend, weekday)
    at = np.array([14, 40])
    assert np.allclose(f.ahead(learned, at, days).sum(axis=-1), f.total_ahead(learned, at, days))


@settings(max_examples=60)
@given(arrays.arrays(float, (3, 60), elements=st.one_of(st.just(0.0), st.floats(-1e18, 1e18), st.just(1e-18))))
def test_any_spend_gives_finite_numbers(spend):
    learned = f.learn(spend, 0)
    for name in ("short", "long", "variance", "profile"):
        assert np.isfinite(getattr(learned, name)).all()


@pytest.mark.parametrize("days", [1, 7, 30])
def test_eighty_of_a_hundred_intervals_hold(days):
    spend = gamma_days(80)
    replay = f.replay(f.learn(spend, 0), days, END, np.full(80, 2))
    assert replay.made > 500
    assert 0.7 < replay.coverage < 0.9


def test_a_scope_is_forecast_from_its_fourteenth_day_on():
    spend = np.zeros((1, END))
    spend[0, 150:] = 1.0
    learned = f.learn(spend, 0)
    assert learned.age[0, [150, 164, END]].tolist() == [0, 14, 50]
    assert f.misses(learned, 1, END, 60).made == END - 150 - f.LEAST_DAYS


def test_a_kind_with_few_misses_borrows_those_of_all():
    by = np.concatenate([np.full((5, 100), 1.0), np.full((1, 100), 9.0)])
    points = f.bounds(missed(by), np.array([2, 2, 2, 2, 2, 0]), np.ones(6, dtype=bool))
    assert points[0].tolist() == [1.0, 1.0]
    assert points[5].tolist() == [1.0, 9.0]


def test_who_is_idle_and_who_is_at_work_have_bounds_of_their_own():
    by = np.repeat([[1.0, 5.0]], 300, axis=1)
    busy = by > 2
    told = f.bounds(missed(np.tile(by, (2, 1)), np.tile(busy, (2, 1))), np.array([2, 2]), np.array([True, False]))
    assert told.tolist() == [[5.0, 5.0], [1.0, 1.0]]


def test_an_idle_scope_that_stays_idle_is_no_miss():
    spend = gamma_days(20)
    spend[:, 100:] = 0.0
    assert f.replay(f.learn(spend, 0), 1, END, np.full(20, 2)).coverage > 0.9


def test_a_month_is_forecast_before_a_month_was_replayed_with_a_wider_interval():
    learned, kinds = f.learn(gamma_days(80), 0), np.full(80, 2)
    assert f.misses(learned, 30, 30).made == 0
    short, long = (f.bounds_ahead(learned, days, 30, kinds)[0] for days in (14, 28))
    assert np.allclose(long, short * np.sqrt(2))
    own = f.bounds(f.misses(learned, 7, 100), kinds, learned.lately[:, 100])
    assert np.array_equal(f.bounds_ahead(learned, 7, 100, kinds), own)
    assert np.isnan(f.bounds_ahead(learned, 30, 14, kinds)).all()


def test_nothing_to_replay_is_no_bound_and_no_error():
    learned = f.learn(np.zeros((2, 3)), 0)
    assert np.isnan(f.bounds_ahead(learned, 30, 3, np.array([0, 2]))).all()
    assert np.isnan(f.replay(learned, 1, 3, np.array([0, 2])).coverage)
