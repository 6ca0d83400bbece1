"""A lake in an object store: the same tables as in a folder, from the command line alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obs_pipeline.storage.lake import Lake
from obs_pipeline_tests.command_line import SAMPLE, CommandLine, assert_same_content, lake_content
from obs_pipeline_tests.object_store import ObjectStore, object_store  # noqa: F401

DAYS = ("--from", "2025-05-07", "--to", "2025-05-07")


@pytest.fixture
def in_folder(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "folder")


@pytest.fixture
def in_store(tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> CommandLine:  # noqa: F811
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return CommandLine(tmp_path / "home", {"OBS_LAKE_URI": object_store.uri("lake")})


def test_a_lake_in_an_object_store_holds_what_one_in_a_folder_holds(in_folder: CommandLine, in_store: CommandLine):
    for obs in (in_folder, in_store):
        obs("ingest", "--mapping", "aider", SAMPLE)
        obs("batch", *DAYS)
    stored = Lake(in_store.variables["OBS_LAKE_URI"])
    assert_same_content(lake_content(in_folder.lake), lake_content(stored))
    assert not (in_store.home / "lake").exists(), "nothing of the lake is on this machine"
    worst = json.loads(in_store("anomalies", "--severity", "critical", "--json").stdout)
    assert worst[0]["agent"] == "diff-fenced"


def test_a_store_that_is_not_known_is_refused_with_what_to_set(tmp_path: Path):
    obs = CommandLine(tmp_path / "home", {"OBS_LAKE_URI": "ftp://example.org/lake"})
    said = obs("batch", *DAYS, exits_with=2).stderr
    assert "ftp:// is not known" in said
    assert "s3://BUCKET/PATH" in said
