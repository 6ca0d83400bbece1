"""``obs-pipeline ui``: Dagster's page and daemon on the project's data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from obs_pipeline.cli.console import out
from obs_pipeline.cli.workspace import open_workspace


def ui(
    port: Annotated[int, typer.Option(help="Port of the page.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open Dagster: the asset graph, every day's story, schedules and sensors. Stop it with Ctrl-C."""
    from obs_pipeline.defs.instance import environment

    settings = open_workspace().settings
    settings.landing.mkdir(parents=True, exist_ok=True)
    out.print(f"Dagster opens at [bold]http://{host}:{port}[/]; files dropped into {settings.landing} are taken in.")
    dagster = Path(sys.executable).with_name("dagster")
    command = [str(dagster), "dev", "-m", "obs_pipeline.definitions", "-h", host, "-p", str(port)]
    os.execve(dagster, command, {**os.environ, **environment(settings)})
