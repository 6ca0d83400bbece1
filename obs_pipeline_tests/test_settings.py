"""What operators set: values that cannot be used are named, and a misspelt name is not passed over in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from obs_pipeline.settings import Settings, SettingsError, get_settings, misspelt_variables


@pytest.fixture(autouse=True)
def _read_anew(settings: Settings) -> None:
    get_settings.cache_clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OBS_ENGINE_MEMORY", "lots"),
        ("OBS_ENGINE_MEMORY", "1'; DROP"),
        ("OBS_STALE_AFTER_HOURS", "inf"),
        ("OBS_FRESHNESS_HOURS", "99999999999"),
        ("OBS_PRICE_TOLERANCE", "inf"),
        ("OBS_JWT_ROLES", "no json"),
        ("OBS_DAILY_BATCH_HOUR", "25"),
        *(("OBS_HOME", f"/tmp/home{character}x") for character in "?*[]%\\"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_the_name_of_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        get_settings()


@pytest.mark.parametrize("memory", ["700MB", "2GiB", "1.5 gb"])
def test_a_size_may_be_written_in_any_usual_way(memory: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OBS_ENGINE_MEMORY", memory)
    assert get_settings().engine_memory == memory


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OBS_HOME", "")
    assert get_settings().home != Path.cwd()


def test_a_misspelt_variable_is_told_with_what_was_meant_and_a_secret_of_a_policy_is_left_in_peace():
    variables = {
        "OBS_HOMES": "x",
        "OBS_DAILY_BATCH_HOURS": "3",
        "OBS_HOME": "x",
        "OBS_SLACK_WEBHOOK": "x",
        "HOMES": "x",
    }
    assert misspelt_variables(variables) == {"OBS_DAILY_BATCH_HOURS": "OBS_DAILY_BATCH_HOUR", "OBS_HOMES": "OBS_HOME"}
