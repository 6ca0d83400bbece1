"""The commands as a person types them: help, exit codes, and errors that are one message and never a traceback."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from obs_pipeline.cli import main
from obs_pipeline.cli.main import app
from obs_pipeline.settings import Settings, get_settings
from obs_pipeline_tests.command_line import SAMPLE, CommandLine
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl

COMMANDS = (
    "ingest",
    "batch",
    "anomalies",
    "explain",
    "forecasts",
    "label",
    "backtest",
    "simulate",
    "detect",
    "reconcile",
    "doctor",
    "serve",
    "mcp",
    "ui",
)


def test_every_command_is_known():
    assert {command.name for command in app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_options(command: str):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5
    (registered,) = [one for one in app.registered_commands if one.name == command]
    assert registered.callback is not None
    assert registered.callback.__doc__


def test_the_installed_program_starts_and_tells_its_exit_codes(obs: CommandLine):
    assert "Exit codes" in obs("--help").stdout


def test_without_a_command_the_list_of_commands_is_shown():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert all(command in result.output for command in COMMANDS)


class Said(NamedTuple):
    """How a command ended and what it said, without line breaks."""

    code: object
    out: str
    err: str

    @property
    def flat(self) -> str:
        return " ".join((self.out + self.err).split())


Run = Callable[..., Said]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The entry point in this process, which spares every case the start of an interpreter."""
    monkeypatch.setenv("COLUMNS", "200")

    def run_here(*words: object, **variables: str) -> Said:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        monkeypatch.setattr(sys, "argv", ["obs-pipeline", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main.run()
        return Said(ended.value.code or 0, *capsys.readouterr())

    return run_here


def assert_one_message(said: Said, names: str, exits_with: int = 2) -> None:
    assert said.code == exits_with, said
    assert names in said.flat
    assert "Traceback" not in said.flat
    assert "fault of obs-pipeline" not in said.flat


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["ingest", "/no/such/file.csv"], "/no/such/file.csv: no such file or folder"),
        (["ingest", "-m", "aidr", SAMPLE], "did you mean aider?"),
        (["anomalies", "--from", "2025-02-01", "--to", "2025-01-01"], "--from 2025-02-01 is after --to 2025-01-01"),
        (["anomalies", "--severity", "grave"], "info, warning, critical"),
        (["anomalies", "--metric", "money"], "cost, tokens, errors, latency"),
        (["anomalies", "--from", "May"], "May"),
        (["batch", "--from", "2025-01-01"], "Name both days"),
        (["batch", "--from", "2025-01-02", "--to", "2025-01-01"], "the earlier first"),
        (["batch", "--from", "2019-01-01", "--to", "2025-01-01"], "OBS_FIRST_DAY"),
        (["batch", "--from", "2025-01-01", "--to", "2999-01-01"], "nothing to compute"),
        (["explain", "an-nothing"], "There is no anomaly an-nothing"),
        (["simulate", "--start", "tomorrow", "-o", "/tmp/never"], "'tomorrow' is not a day"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_wrong_use_is_told_in_one_message(run: Run, words: list[object], names: str):
    assert_one_message(run(*words), names)


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("OBS_DAILY_BATCH_HOUR", "25", "OBS_DAILY_BATCH_HOUR"),
        ("OBS_FIRST_DAY", "soon", "OBS_FIRST_DAY"),
        ("OBS_LEDGER_URL", "nonsense", "ledger URL"),
        ("OBS_LEDGER_URL", "sqlite:////proc/nope/ledger.db", "/proc/nope"),
    ],
)
def test_a_bad_variable_is_named(run: Run, variable: str, value: str, names: str):
    assert_one_message(run("batch", **{variable: value}), names)


def test_a_home_that_cannot_be_written_is_named(run: Run, tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    assert_one_message(run("anomalies", OBS_HOME=str(tmp_path / "file")), "OBS_HOME")


def test_a_broken_ledger_is_told_once_and_no_file_is_blamed(run: Run, settings: Settings, tmp_path: Path):
    settings.home.mkdir()
    (settings.home / "ledger.db").write_bytes(b"no ledger" * 1000)
    files = [write_jsonl(tmp_path / f"{n}.jsonl", usage_rows(1)) for n in range(2)]
    said = run("ingest", *files)
    assert_one_message(said, "The ledger at sqlite")
    assert "refused" not in said.flat
    assert_one_message(run("batch"), "The ledger at sqlite")
    found = {one["what"]: one for one in json.loads(run("doctor", "--json").out)}
    assert found["ledger"]["state"] == "broken"


def test_a_broken_table_is_named_by_the_doctor(run: Run, settings: Settings):
    log = settings.home / "lake" / "usage_daily" / "_delta_log"
    log.mkdir(parents=True)
    (log / "00000000000000000000.json").write_text("{broken")
    said = run("doctor", "--json")
    assert said.code == 3
    assert {one["what"]: one["state"] for one in json.loads(said.out)}["table usage_daily"] == "broken"


def test_a_lake_that_cannot_be_made_is_one_message(run: Run, tmp_path: Path):
    rows = write_jsonl(tmp_path / "a.jsonl", usage_rows(1))
    assert_one_message(run("ingest", rows, OBS_LAKE_URI="/proc/nope"), "/proc/nope")


def test_an_empty_home_answers_politely(run: Run):
    assert json.loads(run("anomalies", "--json").out) == []
    assert "No anomalies" in run("anomalies").flat
    assert json.loads(run("batch", "--all", "--json").out) == []
    assert "ingest" in run("batch").flat


def test_a_fault_of_the_program_is_told_as_such(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def broken() -> None:
        raise RuntimeError("the unforeseen")

    monkeypatch.setattr(main, "app", broken)
    monkeypatch.setattr(main.tempfile, "tempdir", str(tmp_path))
    said = run("doctor")
    assert said.code == 70
    assert "the unforeseen" in said.err
    (kept,) = tmp_path.glob("obs-pipeline-error-*.txt")
    assert "RuntimeError" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_simulated_usage_lands_whole(run: Run, tmp_path: Path):
    out = tmp_path / "fleet"
    told = json.loads(run("simulate", "--agents", 3, "--days", 2, "--seed", 1, "--out", out, "--json").out)
    landed = json.loads(run("ingest", out / "usage", "--json").out)["landed"]
    assert sum(report["rows"] for report in landed) == told["events"]
    assert all(report["rejected"] == {} for report in landed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_says_so_with_the_usual_exit_code(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    before = signal.getsignal(signal.SIGTERM)
    # A shell starts what runs in the background deaf to Ctrl-C, and the tests may be among it.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(sys, "argv", ["obs-pipeline", "doctor"])
    monkeypatch.setattr(main.doctor, "open_workspace", lambda: signal.raise_signal(number))
    stopped = typer.Typer()
    stopped.command()(main.doctor.doctor)
    stopped.callback()(lambda: None)
    monkeypatch.setattr(main, "app", stopped)
    try:
        with pytest.raises(SystemExit) as ended:
            main.run()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, heard)
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err.startswith("Stopped before its end.")


def test_where_only_ascii_can_be_written_a_command_ends_well_and_json_stays_exact(tmp_path: Path):
    obs = CommandLine(tmp_path / "hüß", {"PYTHONIOENCODING": "ascii"})
    told = obs("doctor", exits_with=3)
    assert "obs-pipeline ingest FILE" in told.stdout
    found = json.loads(obs("doctor", "--json", exits_with=3).stdout)
    assert str(obs.home) in [one["found"] for one in found]
