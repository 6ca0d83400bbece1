"""What the doctor sees in a broken home."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from obs_pipeline.cli import doctor
from obs_pipeline.cli.workspace import Workspace
from obs_pipeline.settings import Settings
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl


def test_a_table_of_events_that_was_deleted_is_missed(obs: CommandLine, tmp_path: Path):
    obs("ingest", write_jsonl(tmp_path / "one.jsonl", usage_rows(1)))
    shutil.rmtree(Path(obs.lake.root) / "usage_events")
    found = json.loads(obs("doctor", "--json", exits_with=3).stdout)
    [missed] = [one for one in found if one["what"] == "table usage_events"]
    assert missed["state"] == "broken"
    assert "24 events were landed" in missed["found"]
    assert "ingest the files again" in missed["mend"]


def test_files_that_are_gone_from_a_table_are_missed(obs: CommandLine, tmp_path: Path):
    obs("ingest", write_jsonl(tmp_path / "one.jsonl", usage_rows(1)))
    (folder,) = (Path(obs.lake.root) / "usage_events").glob("dt=*")
    shutil.rmtree(folder)
    found = json.loads(obs("doctor", "--json", exits_with=3).stdout)
    [missed] = [one for one in found if one["what"] == "table usage_events"]
    assert missed["state"] == "broken"
    assert missed["found"].startswith("1 of its files are gone")
    assert "from a copy" in missed["mend"]


def test_days_that_were_computed_and_are_not_in_a_table_any_more_are_missed(obs: CommandLine, tmp_path: Path):
    obs("ingest", write_jsonl(tmp_path / "one.jsonl", usage_rows(2)))
    seen = obs.ledger.newest_landing_per_day()
    obs.ledger.note_seen(seen)
    obs.ledger.mark_settled((min(seen), max(seen)), datetime(2026, 3, 20))
    found = json.loads(obs("doctor", "--json", exits_with=3).stdout)
    missed = {one["what"]: one["mend"] for one in found if one["state"] == "broken"}
    assert set(missed) == {"table usage_hourly", "table usage_daily", "table mart_spend"}
    assert missed["table usage_hourly"] == f"obs-pipeline batch --from {min(seen)} --to {max(seen)}"


@pytest.mark.parametrize(
    "name", ["prices", "detection", "calendar", "routes", "sources", "bills", "currencies", "chargeback"]
)
def test_every_policy_file_that_cannot_be_read_is_named(settings: Settings, tmp_path: Path, name: str):
    (tmp_path / f"{name}.yaml").write_text("a: [1, 2\nb: {")
    workspace = Workspace(
        settings.model_copy(update={"policies": tmp_path}), Lake(settings.lake), Ledger(settings.ledger)
    )
    (broken,) = [one for one in doctor._policies(workspace) if one.state == "broken"]
    assert broken.what == f"{name}.yaml"
