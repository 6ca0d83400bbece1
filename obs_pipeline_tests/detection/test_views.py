"""The scores of any panel: causal, in no unit, quiet on the ordinary, loudest at an onset."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.config import DetectionConfigError
from obs_pipeline.detection.panel_config import INCIDENT_RATE, PanelConfig, load_panel_config
from obs_pipeline.detection.panel_score import score_panel, score_series
from obs_pipeline.detection.ragged import Ragged, calendar_of
from obs_pipeline.detection.surprise import ECHO_SHARE, keep_onsets, tail_surprises
from obs_pipeline.detection.views import NO_SLOT, cycle_of

HOUR, DAY = 3600.0, 86_400.0
SHAPES = ("noise", "walk", "season", "flat", "sparse", "counter", "holes", "huge", "tiny")


def shaped(shape: str, length: int, seed: int) -> np.ndarray:
    """One series of a kind."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=length)
    return {
        "noise": 10 + noise,
        "walk": np.cumsum(noise),
        "season": 50 + 20 * np.sin(np.arange(length) * np.pi / 12) + noise,
        "flat": np.full(length, 7.0),
        "sparse": np.where(rng.random(length) < 0.05, rng.exponential(9.0, length), 0.0),
        "counter": np.cumsum(rng.gamma(2.0, size=length)),
        "holes": np.where(rng.random(length) < 0.2, np.nan, noise),
        "huge": 1e18 * (1 + 0.1 * noise),
        "tiny": 1e-18 * (1 + 0.1 * noise),
    }[shape]


def quiet_but(value: float, at: int, length: int = 700, seed: int = 1) -> np.ndarray:
    series = shaped("noise", length, seed)
    series[at] = value
    return series


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 10_000),
    cut=st.integers(1, 699),
    step=st.sampled_from([60.0, 300.0, HOUR, DAY]),
    future=st.sampled_from([0.0, 1e6, -3.0, np.nan]),
)
def test_another_future_changes_no_past_score(shape: str, seed: int, cut: int, step: float, future: float):
    series = shaped(shape, 700, seed)
    other = series.copy()
    other[cut:] = future
    one, two = score_panel([series], step=step), score_panel([other], step=step)
    prefix = score_panel([series[:cut]], step=step)
    for name, column in one._asdict().items():
        same = column[:, :cut]
        np.testing.assert_array_equal(same, getattr(two, name)[:, :cut], err_msg=name)
        np.testing.assert_array_equal(same, getattr(prefix, name), err_msg=name)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    cut=st.integers(1, 599),
    steps=st.lists(st.sampled_from([0.0, 1.0, 60.0, HOUR, 7 * HOUR, DAY, 40 * DAY]), min_size=1, max_size=4),
)
def test_what_irregular_times_will_be_like_changes_no_past_score(seed: int, cut: int, steps: list[float]):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=600)
    which = np.minimum(np.arange(600) * len(steps) // 600, len(steps) - 1)
    times = np.cumsum(np.array(steps)[which] * rng.choice([0.5, 1.0, 1.0, 3.0], 600))
    whole = score_series(values, np.array([0, 600]), times=times)
    prefix = score_series(values[:cut], np.array([0, cut]), times=times[:cut])
    for name, column in whole._asdict().items():
        np.testing.assert_array_equal(column[:cut], getattr(prefix, name), err_msg=name)


@settings(max_examples=30)
@given(
    shape=st.sampled_from([one for one in SHAPES if one not in ("huge", "tiny")]),
    seed=st.integers(0, 10_000),
    power=st.integers(-50, 50),
)
def test_the_unit_of_the_values_changes_no_score(shape: str, seed: int, power: int):
    series = shaped(shape, 500, seed)
    one, two = score_panel([series], step=HOUR), score_panel([series * 2.0**power], step=HOUR)
    np.testing.assert_allclose(one.score, two.score, atol=1e-9)
    np.testing.assert_allclose(one.expected * 2.0**power, two.expected, rtol=1e-9)


@settings(max_examples=20)
@given(seeds=st.lists(st.integers(0, 1000), min_size=2, max_size=5))
def test_a_series_is_scored_alike_alone_and_among_others(seeds: list[int]):
    lengths = [50 + 37 * (seed % 9) for seed in seeds]
    series = [shaped(SHAPES[seed % len(SHAPES)], length, seed) for seed, length in zip(seeds, lengths, strict=True)]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    times = np.concatenate([HOUR * np.arange(length) for length in lengths])
    together = score_series(np.concatenate(series), starts, times=times)
    for index, one in enumerate(series):
        alone = score_panel([one], step=HOUR)
        np.testing.assert_array_equal(together.score[starts[index] : starts[index + 1]], alone.score[0])


def test_portions_of_the_work_do_not_show(monkeypatch: pytest.MonkeyPatch):
    panel = np.stack([shaped(SHAPES[index % 9], 100, index) for index in range(20)])
    whole = score_panel(panel, step=HOUR)
    monkeypatch.setattr("obs_pipeline.detection.panel_score._PORTION", 250)
    told: list[int] = []
    parts = score_series(
        panel.reshape(-1), np.arange(21) * 100, times=np.tile(HOUR * np.arange(100), 20), progress=told.append
    )
    np.testing.assert_array_equal(whole.score.reshape(-1), parts.score)
    assert sum(told) == panel.size
    assert len(told) > 5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [1, 2, 3, 10, 600])
def test_every_answer_is_finite_and_within_its_bounds(shape: str, length: int):
    series = shaped(shape, length, 3)
    scores = score_panel([series], step=HOUR)
    for column in (scores.score, scores.confidence, scores.surprise):
        assert np.isfinite(column).all()
        assert (column >= 0).all()
    assert scores.score.max() <= 100
    assert scores.confidence.max() <= 1
    baseline = ~np.isnan(scores.expected)
    assert (scores.lower[baseline] <= scores.expected[baseline]).all()
    assert (scores.expected[baseline] <= scores.upper[baseline]).all()
    assert (scores.score[0, np.isnan(series)] == 0).all()


@pytest.mark.parametrize(
    ("name", "before", "odd"),
    [
        ("a spike", shaped("noise", 700, 1), 40.0),
        ("a dip", shaped("noise", 700, 2), -30.0),
        ("a blip of a flat line", np.full(700, 7.0), 7.5),
        ("a blip of nothing", np.zeros(700), 1e-9),
        ("a spike of huge values", shaped("huge", 700, 1), 9e18),
        ("a spike of tiny values", shaped("tiny", 700, 1), 9e-18),
        ("an hour without its season", shaped("season", 700, 1), 50.0 - 20.0),
    ],
)
def test_what_a_person_would_see_is_the_highest_score(name: str, before: np.ndarray, odd: float):
    at = 606  # a quarter past midnight of the sine: its top
    series = before.copy()
    series[at] = odd
    scores = score_panel([series], step=HOUR)
    assert scores.score[0, 100:].argmax() == at - 100, name
    assert scores.severity[0, at] >= 1, name


def test_a_series_without_incidents_is_seldom_alarmed_about():
    panel = np.random.default_rng(5).normal(size=(100, 1000))
    scores = score_panel(panel, step=HOUR)
    half_days = scores.surprise.reshape(100, -1, 8)[:, 20:].max(axis=-1)
    assert (half_days >= 2.0).mean() < 0.01
    assert (half_days >= 1.0).mean() < 0.2


def test_a_stalled_counter_and_a_racing_one_are_found():
    steps = np.random.default_rng(2).gamma(4.0, 5.0, 2000)
    steps[1500:1520] *= 10
    scores = score_panel([np.cumsum(steps)], step=60.0)
    assert 1500 <= scores.score[0].argmax() < 1520
    plain = score_panel([np.cumsum(steps)], step=60.0, config=PanelConfig(counters=False))
    assert scores.surprise[0, 1500:1520].max() > plain.surprise[0, 1500:1520].max()


def test_the_echo_of_an_incident_scores_less_than_its_onset():
    series = shaped("noise", 700, 4)
    series[600:610] = 25.0
    scores = score_panel([series], step=HOUR).score[0, 600:610]
    assert scores.argmax() <= 2  # what goes on is odder for the means, too
    assert (scores[3:] < scores.max() - 2).all()


def test_a_lasting_new_level_is_announced_once_and_becomes_the_baseline():
    series = shaped("noise", 1200, 4)
    series[600:] += 12.0
    scores = score_panel([series], step=HOUR)
    assert 600 <= scores.score[0].argmax() <= 612
    assert scores.severity[0, 600:612].max() >= 2
    assert scores.severity[0, 800:].max() <= 1
    assert scores.expected[0, 900:].mean() == pytest.approx(22.0, abs=1.0)


def test_a_flat_line_where_there_never_was_one_is_odd():
    series = shaped("noise", 1200, 4)
    series[1000:1040] = series[999]
    scores = score_panel([series], step=HOUR)
    flat = scores.surprise[0, 1000:1040].max()
    assert flat > np.quantile(scores.surprise[0, 200:1000], 0.99)


def test_nothing_known_is_answered_with_nothing():
    scores = score_panel(np.full((2, 30), np.nan), step=HOUR)
    assert (scores.score == 0).all()
    assert np.isnan(scores.expected).all()
    assert score_panel(np.zeros((3, 0)), step=HOUR).score.shape == (3, 0)


def test_an_onset_beats_the_half_day_before_and_its_echo_keeps_its_share():
    values = np.array([1.0, 2.0, 2.0, 1.0, 0.5, 0.5, 1.0, 0.0, 3.0, 1.0])
    kept = np.empty_like(values)
    keep_onsets(values, np.array([0, 8, 10]), np.full(10, 3), ECHO_SHARE, kept)
    echo = ECHO_SHARE
    expected = [1.0, 2.0, 2.0 * echo, echo, 0.5 * echo, 0.5 * echo, 1.0 * echo, 0.0, 3.0, echo]
    np.testing.assert_allclose(kept, expected)


@settings(max_examples=30)
@given(values=st.lists(st.floats(0, 8), min_size=1, max_size=60), window=st.integers(1, 20))
def test_onsets_are_those_of_a_plain_search_of_the_window(values: list[float], window: int):
    array, kept = np.array(values), np.empty(len(values))
    keep_onsets(array, np.array([0, len(values)]), np.full(len(values), window), ECHO_SHARE, kept)
    for index, value in enumerate(values):
        onset = value > max(values[max(0, index - window) : index], default=-1.0)
        assert kept[index] == (value if onset else ECHO_SHARE * value)


def test_a_tail_probability_is_as_often_reached_as_it_says():
    residuals = np.random.default_rng(0).standard_t(3, size=(1, 40_000))
    surprises = np.empty_like(residuals)
    tail_surprises(residuals, np.array([0, 40_000]), surprises)
    for mark in (1.0, 2.0, 3.0):
        share = (surprises[0, 5000:] >= mark).mean()
        # What is odd teaches three tenths, so that beyond 2 it is reached three to five times as often.
        assert 0.5 * 10**-mark < share < (1.5 if mark < 2 else 5.0) * 10**-mark, mark


def test_confidence_is_the_stated_formula():
    scores = score_panel([quiet_but(40.0, 600)], step=HOUR)
    surprise = scores.surprise[0, 600]
    expected = INCIDENT_RATE / (INCIDENT_RATE + 10**-surprise) * 600 / (600 + 72)
    assert scores.confidence[0, 600] == pytest.approx(expected)
    often = score_panel([quiet_but(40.0, 600)], step=HOUR, config=PanelConfig(incident_rate=0.1))
    assert often.confidence[0, 600] == pytest.approx(0.1 / (0.1 + 10**-surprise) * 600 / 672)


def test_marks_decide_the_severity():
    series = quiet_but(40.0, 600)
    strict = PanelConfig.model_validate({"marks": {"info": 4.9, "warning": 4.95, "critical": 5.5}})
    assert score_panel([series], step=HOUR).severity[0, 600] == 3
    assert score_panel([series], step=HOUR, config=strict).severity[0, 600] < 3


# ---- counts ---------------------------------------------------------------------------------------------------


def test_many_errors_are_odd_by_their_trials_and_not_by_their_number():
    rng = np.random.default_rng(3)
    trials = rng.integers(50, 150, 800).astype(float)
    busy, failing = trials.copy(), trials.copy()
    busy[700] = 5000.0
    errors = rng.binomial(trials.astype(int), 0.02).astype(float)
    many = errors.copy()
    many[700] = 100.0  # two in a hundred of a busy hour, all of an ordinary one
    harmless = score_panel([many], step=HOUR, exposure=[busy])
    failed = score_panel([many], step=HOUR, exposure=[failing])
    assert harmless.severity[0, 700] == 0
    assert failed.severity[0, 700] == 3
    assert failed.expected[0, 700] == pytest.approx(0.02 * failing[700], rel=0.3)
    assert (failed.lower >= 0).all()


def test_one_error_is_never_many():
    errors = np.zeros(500)
    errors[400] = 1.0
    scores = score_panel([errors], step=HOUR, exposure=[np.full(500, 10.0)])
    assert scores.severity.max() == 0


def test_a_count_without_trials_is_unknown():
    scores = score_panel([[1.0, 2.0, 90.0, 1.0]], step=HOUR, exposure=[[10.0, np.nan, 0.0, 10.0]])
    np.testing.assert_array_equal(scores.view[0] == -1, [False, True, True, False])


# ---- clocks and cycles ----------------------------------------------------------------------------------------


def test_slots_follow_the_clock():
    start = datetime(1970, 1, 1)
    moments = [start + timedelta(hours=hour) for hour in (0, 1, 25, 7 * 24, 7 * 24 + 1)]
    times = np.array([(moment - start).total_seconds() for moment in moments])
    calendar = calendar_of(Ragged(np.zeros(5), np.array([0, 5]), times, None))
    assert calendar.step.tolist() == [0.0, HOUR, DAY, DAY, DAY]  # the median distance of the times so far
    assert calendar.per_day.tolist() == [100, 24, 1, 1, 1]
    regular = HOUR * np.arange(200.0)
    calendar = calendar_of(Ragged(np.zeros(200), np.array([0, 200]), regular, None))
    assert calendar.per_day[1:].tolist() == [24] * 199
    assert calendar.day[:50].tolist() == [NO_SLOT, *(hour % 24 for hour in range(1, 50))]
    assert calendar.week[167:170].tolist() == [167, 0, 1]


@pytest.mark.parametrize("length", [9, 24, 137])
def test_a_cycle_of_its_own_is_found(length: int):
    phase = np.arange(512) % length
    noise = np.random.default_rng(1).normal(0, 0.3, 512)
    assert abs(cycle_of(10.0 * phase / length + noise, 0) - length) <= 1


@pytest.mark.parametrize("shape", ["noise", "flat", "sparse"])
def test_no_cycle_is_seen_where_there_is_none(shape: str):
    assert cycle_of(shaped(shape, 512, 1), 0) == 0


def test_a_broken_cycle_that_is_no_day_is_found_without_a_clock():
    rng = np.random.default_rng(6)
    series = (np.arange(2000) % 37) / 37 * 10 + rng.normal(0, 0.3, 2000)
    series[1500:1537] = series[1500:1537][::-1]
    scores = score_series(series, np.array([0, 2000]), times=None)
    assert 1500 <= scores.score.argmax() <= 1540


# ---- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bandwidth: 3", "there is no such setting"),
        ("band: -1", "band: Input should be greater than 0"),
        ("marks: {info: 3, warning: 2}", "must rise"),
        ("band: [", ":1: not valid YAML"),
        ("- 1", "the file"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path, text: str, said: str):
    path = tmp_path / "views.yaml"
    path.write_text(text)
    with pytest.raises(DetectionConfigError) as failure:
        load_panel_config(path)
    assert said in str(failure.value)
    assert str(path) in str(failure.value)


def test_an_empty_settings_file_means_the_defaults(tmp_path):
    path = tmp_path / "views.yaml"
    path.write_text("")
    assert load_panel_config(path) == PanelConfig()
