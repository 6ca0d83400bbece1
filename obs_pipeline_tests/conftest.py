"""Fixtures every room may use: a home of its own for a test, and the command line in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import hypothesis
import pytest

from obs_pipeline.settings import Settings, get_settings
from obs_pipeline.storage import engine
from obs_pipeline_tests.command_line import CommandLine

# What is printed must not depend on the terminal that the tests happen to run in.
os.environ["COLUMNS"] = "200"

# Whether a rule holds does not depend on how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings whose home is the test's own; the process environment says the same and is restored."""
    home = tmp_path / "home"
    monkeypatch.setenv("OBS_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture
def obs(tmp_path: Path) -> CommandLine:
    """``obs-pipeline`` on a home of its own."""
    return CommandLine(tmp_path / "home")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with engine.connect() as opened:
        yield opened
