"""What the doctor sees in a broken home."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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
