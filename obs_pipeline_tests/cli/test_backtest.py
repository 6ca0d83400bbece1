"""``backtest`` and ``label`` as a person runs them, on forty days of one steady agent with two bursts."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.usage_files import write_jsonl

FIRST = datetime(2026, 1, 5, 12)
BURSTS = (33, 38)
# Calls dearer than their list price would be anomalies of their own.
SETTINGS = "grains: [day]\nmetrics: [cost]\nprice_contradiction: {warning: 1000, critical: 1000}\n"


def spent(day: int) -> str:
    return "60" if day in BURSTS else f"{10 + day * 7 % 5 * 0.2:.1f}"


def call(day: int) -> dict[str, object]:
    time = (FIRST + timedelta(days=day)).isoformat()
    known = {"source": "gateway", "org": "acme", "agent": "bot", "model": "gpt-4o", "reported_cost": spent(day)}
    return {"event_id": f"e{day}", "event_time": time, "input_tokens": 1000, "output_tokens": 10, **known}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    folder = tmp_path_factory.mktemp("backtest")
    (folder / "policies").mkdir()
    (folder / "policies" / "detection.yaml").write_text(SETTINGS)
    obs = CommandLine(folder / "home", {"OBS_POLICIES": str(folder / "policies")})
    obs("ingest", write_jsonl(folder / "usage.jsonl", [call(day) for day in range(40)]))
    obs("batch", "--all")
    return obs


def replayed(obs: CommandLine, *words: object) -> dict[str, object]:
    report: dict[str, object] = json.loads(obs("backtest", "--json", *words).stdout)["settings"]["in force"]
    return report


def test_a_replay_says_how_often_the_settings_ring_and_writes_nothing(computed: CommandLine):
    before = computed.lake.version(ANOMALIES)
    report = replayed(computed)
    assert report["alarms"] == {"info": 0, "warning": 0, "critical": 2}
    assert report["precision"] is None
    assert computed.lake.version(ANOMALIES) == before
    assert "Nothing was judged yet" in computed("backtest").stdout


def test_a_labels_file_gives_precision_recall_and_delay(computed: CommandLine, tmp_path: Path):
    labels = tmp_path / "labels.csv"
    labels.write_text("kind,agent,start,end\nspike,bot,2026-02-07T10:00:00Z,2026-02-07T14:00:00Z\n", encoding="utf-8")
    report = replayed(computed, "--labels", labels)
    assert (report["right"], report["false"], report["recall"], report["median_delay_hours"]) == (1, 1, 1.0, 14.0)


def test_a_change_of_settings_shows_what_it_takes_away(computed: CommandLine, tmp_path: Path):
    quiet = tmp_path / "quiet.yaml"
    quiet.write_text(SETTINGS + "materiality: {cost: {day: 1000, hour: 1000}}\n", encoding="utf-8")
    said = computed("backtest", "--config", quiet).stdout
    assert "2 alarms removed" in said
    assert "No alarm added." in said


def test_what_a_person_says_is_known_to_the_next_replay(computed: CommandLine):
    first, second = sorted(json.loads(computed("anomalies", "--json").stdout), key=lambda one: one["timestamp"])
    computed("label", first["id"], "false_positive", "--by", "ada", "--note", "a demo")
    computed("label", second["id"][:10], "real")
    report = replayed(computed)
    assert (report["right"], report["false"], report["precision"]) == (1, 1, 0.5)
    computed("label", first["id"], "real")
    assert replayed(computed)["precision"] == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["label", "an-", "real"], "the beginning of several ids"),
        (["label", "nothing", "real"], "is no anomaly's id"),
        (["label", "an-", "perhaps"], "real, false_positive, planned"),
        (["backtest", "--severity", "loud"], "info, warning, critical"),
        (["backtest", "--from", "2027-01-01"], "There is no usage in those days"),
        (["backtest", "--labels", "/nowhere.csv"], "cannot be read"),
        (["backtest", "--config", "/nowhere.yaml"], "cannot be read"),
    ],
)
def test_wrong_use_is_told_in_one_message(computed: CommandLine, words: list[str], said: str):
    done = computed(*words, exits_with=2)
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
