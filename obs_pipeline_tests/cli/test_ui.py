"""Two servers side by side: they end together, whoever ends first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from obs_pipeline.cli import batch, ui
from obs_pipeline_tests.command_line import CommandLine

WAITS = """
    import pathlib, sys, time
    try:
        pathlib.Path({mark!r}).write_text("up")
        time.sleep(60)
    except KeyboardInterrupt:
        pathlib.Path({mark!r}).write_text("down")
"""
DEAF = """
    import pathlib, signal, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pathlib.Path({mark!r}).write_text(str(__import__("os").getpid()))
    time.sleep(60)
"""


def python(source: str, mark: Path) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(source).format(mark=str(mark))]


def wait_for(mark: Path, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < deadline, f"{mark.name} did not come up"
        time.sleep(0.02)


def test_one_that_ends_by_itself_takes_the_other_along_and_is_named(tmp_path: Path):
    lives = tmp_path / "lives"
    ends = (
        f"import pathlib, time\nwhile not pathlib.Path({str(lives)!r}).exists(): time.sleep(0.02)\nraise SystemExit(7)"
    )
    with pytest.raises(ui.ServerEnded, match=r"The dashboard ended with 7"):
        ui.run_together({"Dagster": python(WAITS, lives), "the dashboard": [sys.executable, "-c", ends]}, os.environ)
    assert lives.read_text() == "down"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_both_and_is_no_fault(tmp_path: Path, number: signal.Signals):
    marks = [tmp_path / "one", tmp_path / "two"]
    runs = textwrap.dedent(f"""
        import os
        from obs_pipeline.cli.ui import run_together
        run_together({{"one": {python(WAITS, marks[0])!r}, "two": {python(WAITS, marks[1])!r}}}, os.environ)
    """)
    parent = subprocess.Popen([sys.executable, "-c", runs])
    for mark in marks:
        wait_for(mark)
    parent.send_signal(number)
    parent.send_signal(number)
    assert parent.wait(10) == 0
    assert [mark.read_text() for mark in marks] == ["down", "down"]


def test_one_that_does_not_hear_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ui, "_PATIENCE", 0.3)
    deaf = tmp_path / "deaf"
    ends = f"import pathlib, time\nwhile not pathlib.Path({str(deaf)!r}).exists(): time.sleep(0.02)"
    with pytest.raises(ui.ServerEnded, match="Two ended with 0"):
        ui.run_together({"one": python(DEAF, deaf), "two": [sys.executable, "-c", ends]}, os.environ)
    with pytest.raises(ProcessLookupError):
        os.kill(int(deaf.read_text()), 0)


def test_both_addresses_are_printed_and_both_ports_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OBS_HOME", str(tmp_path))
    started: dict[str, list[str]] = {}
    monkeypatch.setattr(ui, "run_together", lambda commands, _variables: started.update(commands))
    ui.ui(port=3111, dashboard_port=8111, host="127.0.0.1")
    said = capsys.readouterr().out
    assert "http://127.0.0.1:3111" in said
    assert "http://127.0.0.1:8111" in said
    assert started["Dagster"][-2:] == ["-p", "3111"]
    assert started["the dashboard"][-2:] == ["--port", "8111"]


def test_a_port_that_is_no_port_is_refused(obs: CommandLine):
    assert "--port" in obs("ui", "--port", "99999", exits_with=2).stderr


def test_a_batch_ends_by_saying_how_to_open_the_dashboard(capsys: pytest.CaptureFixture[str]):
    batch._show_next([])
    said = capsys.readouterr().out
    assert "obs-pipeline serve" in said
    assert "make ui" in said
    assert "dashboard" in said
