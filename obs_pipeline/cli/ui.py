"""``obs-pipeline ui``: Dagster's page and daemon and the dashboard, side by side on the project's data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from obs_pipeline.cli.console import out
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.errors import ObsError

_LOOK_EVERY: Final = 0.2
_PATIENCE: Final = 15.0
"""Seconds a server gets to end by itself."""

_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServerEnded(ObsError):
    """One of the servers ended although nobody asked it to."""


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Dagster's page.")] = 3000,
    dashboard_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = 8770,
    host: Annotated[str, typer.Option(help="Address both listen on.")] = "127.0.0.1",
) -> None:
    """Open **Dagster** (the asset graph, every day's story, schedules and sensors) and the **dashboard**.

    Ctrl-C stops both.
    """
    from obs_pipeline.defs.instance import environment

    settings = open_workspace().settings
    settings.landing.mkdir(parents=True, exist_ok=True)
    out.print(f"Dagster opens at    [bold]http://{host}:{port}[/]")
    out.print(f"The dashboard is at [bold]http://{host}:{dashboard_port}[/]")
    out.print(f"[dim]Files dropped into {settings.landing} are taken in. Ctrl-C stops both.[/]")
    program = Path(sys.executable)
    commands = {
        "Dagster": [
            *(str(program.with_name("dagster")), "dev", "-m", "obs_pipeline.definitions"),
            *("-h", host, "-p", str(port)),
        ],
        "the dashboard": [
            *(str(program.with_name("obs-pipeline")), "serve"),
            *("--host", host, "--port", str(dashboard_port)),
        ],
    }
    run_together(commands, {**os.environ, **environment(settings)})


def run_together(commands: Mapping[str, Sequence[str]], variables: Mapping[str, str]) -> None:
    """Run servers until Ctrl-C, a SIGTERM or the end of the terminal; all of them end together.

    Raises:
        ServerEnded: one ended by itself; the others were stopped.
    """
    running: dict[str, subprocess.Popen[bytes]] = {}
    with _interruptible():
        try:
            for name, command in commands.items():
                running[name] = _start(command, variables)
            while all(one.poll() is None for one in running.values()):
                time.sleep(_LOOK_EVERY)
        except KeyboardInterrupt:
            return
        finally:
            ended = {name: one.returncode for name, one in running.items() if one.returncode is not None}
            _stop(list(running.values()))
    name, code = next(iter(ended.items()))
    raise ServerEnded(f"{name[0].upper()}{name[1:]} ended with {code}, so the other was stopped; its words are above.")


def _start(command: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # In a group of its own it does not hear the terminal's Ctrl-C, which would reach it beside ours and cut its ending short.
    return subprocess.Popen(command, env=dict(variables), stdin=subprocess.DEVNULL, process_group=0)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Every signal to end is like Ctrl-C."""

    def interrupt(*_: object) -> None:
        _hear_no_more()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hear_no_more() -> None:
    # Told once more, this would leave before the servers have ended.
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)


def _stop(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    _hear_no_more()
    told = [one for one in servers if one.poll() is None]
    for one in told:
        one.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE
    for one in told:
        try:
            one.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(one.pid, signal.SIGKILL)
            one.wait()
