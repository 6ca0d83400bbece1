"""``obs-pipeline detect`` as a person runs it."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from obs_pipeline_tests.command_line import CommandLine


@pytest.fixture
def obs(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / ".obs")


@pytest.fixture
def measurements(tmp_path: Path) -> Path:
    rng = random.Random(1)
    path = tmp_path / "cpu.csv"
    rows = [f"2026-01-{1 + i // 24:02d} {i % 24:02d}:00:00,{rng.gauss(10, 1) + 40 * (i == 500)}" for i in range(600)]
    path.write_text("timestamp,value\n" + "\n".join(rows) + "\n")
    return path


def test_a_table_goes_in_and_comes_out_with_its_scores(obs: CommandLine, measurements: Path, tmp_path: Path):
    result = tmp_path / "scored.csv"
    done = obs("detect", measurements, "-o", result)
    assert "600 rows of 1 series" in done.stdout
    assert "2026-01-21 20:00:00" in done.stdout
    assert done.stderr == ""
    with result.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 600
    worst = max(rows, key=lambda row: float(row["score"]))
    assert worst["timestamp"] == "2026-01-21 20:00:00"
    assert float(worst["confidence"]) > 0.1
    assert worst["severity"] in ("warning", "critical")


def test_the_summary_is_one_json_document(obs: CommandLine, measurements: Path, tmp_path: Path):
    done = obs("detect", measurements, "--output", tmp_path / "scored.csv", "--json")
    summary = json.loads(done.stdout)
    assert summary["rows"] == 600
    assert summary["series"] == 1
    assert summary["unknown"] == 0
    assert sum(summary["severities"].values()) == 600
    assert summary["worst"][0]["timestamp"] == "2026-01-21 20:00:00"


def test_settings_come_from_a_file(obs: CommandLine, measurements: Path, tmp_path: Path):
    settings = tmp_path / "views.yaml"
    settings.write_text("marks: {info: 9, warning: 9, critical: 9}\n")
    done = obs("detect", measurements, "-o", tmp_path / "scored.csv", "--config", settings, "--json")
    assert json.loads(done.stdout)["severities"] == {"critical": 0, "warning": 0, "info": 0, "none": 600}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.csv", "-o", "out.csv"], "there is no such file"),
        (["cpu.csv", "-o", "cpu.csv"], "is the file to read"),
        (["cpu.csv", "-o", "nowhere/out.csv"], "there is no directory"),
        (["cpu.csv", "-o", "."], "is a directory"),
        (["cpu.csv", "-o", "out.csv", "--config", "cpu.csv"], "cpu.csv"),
        (["bad.csv", "-o", "out.csv"], "bad.csv:2: value 'x' must be a number"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    obs: CommandLine, measurements: Path, tmp_path: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("timestamp,value\n2026-01-01,x\n")
    before = measurements.read_text()
    done = obs("detect", *words, exits_with=2)
    assert said in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.csv").exists()
    assert measurements.read_text() == before
