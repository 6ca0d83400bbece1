"""The detection settings and their file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

import obs_pipeline
from obs_pipeline.detection.config import (
    GRAINS,
    AnomalyDetectionConfig,
    DetectionConfigError,
    GrainMethods,
    load_detection_config,
)
from obs_pipeline.usage.due_days import LOOKBACK_DAYS

SHIPPED = Path(obs_pipeline.__file__).parent.parent / "policies" / "detection.yaml"


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "detection.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_shipped_file_says_what_the_defaults_are():
    assert load_detection_config(SHIPPED) == AnomalyDetectionConfig()


def test_an_empty_file_means_the_defaults(file):
    assert load_detection_config(file("# nothing yet\n")) == AnomalyDetectionConfig()


def test_a_setting_replaces_its_default_and_only_that(file):
    config = load_detection_config(file("materiality: {cost: {day: 50, hour: 5}}\nmethod: {hour: iqr}\n"))
    assert (config.materiality.floor("cost", "day"), config.materiality.floor("cost", "hour")) == (50, 5)
    assert config.materiality.tokens == AnomalyDetectionConfig().materiality.tokens
    assert (config.method.day, config.method.hour) == ("ensemble", "iqr")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lookback_day: 28", "lookback_day: there is no such setting"),
        ("thresholds: {info: 4}", "thresholds: info, warning and critical must rise"),
        ("thresholds: {info: -1}", "thresholds.info: Input should be greater than 0 (found -1)"),
        ("thresholds: {critical: .inf}", "thresholds.critical"),
        (
            "false_alarms_per_agent_week: {info: 0.1}",
            "false_alarms_per_agent_week: info, warning and critical must fall",
        ),
        ("false_alarms_per_agent_week: {info: 0}", "false_alarms_per_agent_week.info: Input should be greater than 0"),
        ("false_alarms_per_agent_week: {info: 99}", "false_alarms_per_agent_week.info: Input should be less than or"),
        ("false_alarms_per_agent_week: {page: 1}", "false_alarms_per_agent_week.page: there is no such setting"),
        ("metrics: [cost, money]", "metrics.1"),
        ("metrics: [cost, cost]", "metrics: each may be listed once"),
        ("lookback_days: soon", "lookback_days: Input should be a valid integer"),
        ("minimum_data_points: 40", "minimum_data_points (40) can never be reached within lookback_days (28)"),
        ("price_contradiction: {warning: 20}", "price_contradiction: warning must not be above critical"),
        ("new_agent_ceiling: {warning: 2000}", "new_agent_ceiling: warning must not be above critical"),
        ("- cost\n- tokens", "must be a mapping"),
        ("enabled: true\nmetrics: [cost", "line 2: not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_field(file, text, words):
    path = file(text)
    with pytest.raises(DetectionConfigError) as caught:
        load_detection_config(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DetectionConfigError, match=r"absent\.yaml: cannot be read"):
        load_detection_config(tmp_path / "absent.yaml")


def test_a_file_that_is_not_text_is_named(tmp_path: Path):
    path = tmp_path / "detection.yaml"
    path.write_bytes(b"\xff\xfe\x00enabled")
    with pytest.raises(DetectionConfigError, match=r"cannot be read|not valid YAML"):
        load_detection_config(path)


def test_settings_cannot_be_changed_once_made():
    with pytest.raises(ValidationError):
        AnomalyDetectionConfig().enabled = False


@pytest.mark.parametrize(("silence", "days"), [(0, 35), (6, 36), (24, 36), (25, 37)])
def test_the_history_needed_covers_the_look_back_of_the_day_before_and_the_silence_before_it(silence, days):
    assert AnomalyDetectionConfig(source_silence_hours=silence).history_days == days


def test_days_whose_baseline_late_usage_belongs_to_are_those_that_look_back_so_far():
    assert max(AnomalyDetectionConfig().lookback_of(grain) for grain in GRAINS) + 1 == LOOKBACK_DAYS


def test_only_the_usage_model_looks_back_to_the_mondays_four_weeks():
    config = AnomalyDetectionConfig(lookback_days=20, method=GrainMethods(hour="usage_model"))
    assert (config.lookback_of("day"), config.lookback_of("hour")) == (20, 26)
    plain = AnomalyDetectionConfig(lookback_days=20, method=GrainMethods(hour="zscore"), source_silence_hours=6)
    assert (plain.lookback_of("hour"), plain.history_days) == (20, 22)
