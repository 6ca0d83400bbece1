"""The command line: the list of commands, and how errors end.

Exit codes: 0 done · 1 the batch failed · 2 wrong use or bad input · 3 done, but something needs attention
(``doctor``; ``ingest --strict``; ``batch --strict``) · 4 another process is at the same work ·
70 a fault of this program · 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final

import typer

from obs_pipeline.cli import (
    alerts,
    anomalies,
    backtest,
    batch,
    detect,
    doctor,
    explain,
    export,
    forecasts,
    ingest,
    label,
    policies,
    reconcile,
    report,
    serve,
    simulate,
    sources,
    ui,
)
from obs_pipeline.cli.console import errors, text
from obs_pipeline.errors import ObsError
from obs_pipeline.settings import misspelt_variables

app = typer.Typer(
    name="obs-pipeline",
    help="Cost, anomalies and budgets of AI agents: usage files in, explained anomalies out.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done · 1 the batch failed · 2 wrong use or bad input · 3 needs attention · 4 busy · "
    "70 a fault of the program · 130 or 143 stopped. State lives under OBS_HOME (default: .obs in the project).",
)
app.command("ingest")(ingest.ingest)
app.command("batch")(batch.batch)
app.command("anomalies")(anomalies.anomalies)
app.command("explain")(explain.explain)
app.command("forecasts")(forecasts.forecasts)
app.command("label")(label.label)
app.command("backtest")(backtest.backtest)
app.command("detect")(detect.detect)
app.command("simulate")(simulate.simulate_fleet)
app.command("reconcile")(reconcile.reconcile)
app.command("doctor")(doctor.doctor)
app.command("ui")(ui.ui)
app.command("serve")(serve.serve)
app.command("mcp")(serve.mcp)
app.add_typer(serve.tokens)
app.add_typer(policies.app)
app.add_typer(policies.app, name="policy", hidden=True)
app.add_typer(export.app)
app.add_typer(report.app)
app.add_typer(sources.app)
app.add_typer(alerts.app)


_STOPPED: Final = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def run() -> None:
    """The entry point: an error the user can mend is a message, never a traceback."""
    for name, meant in misspelt_variables().items():
        errors.print(f"[yellow]warning:[/] {name} sets nothing. Is {meant} meant?", highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _end)
    for stream in (sys.stdout, sys.stderr):
        # Where a terminal or file takes ASCII only, a sign it has not must not end the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # A Ctrl-C that meets a connection being closed would be logged with its traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    try:
        app()
    except SystemExit as ended:
        if ended.code in _STOPPED:
            errors.print("Stopped before its end. Run the same command again to go on.", soft_wrap=True)
        raise
    except ObsError as error:
        errors.print(f"[bold red]error:[/] {text(error)}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except OSError as error:
        where = error.filename or "The system"
        said = f"{where}: {error.strerror or error}. Check the path, its permissions and the free space."
        errors.print(f"[bold red]error:[/] {text(said)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - the last resort: no traceback reaches a user
        errors.print(
            f"[bold red]unexpected error:[/] {type(error).__name__}: {text(error)}", highlight=False, soft_wrap=True
        )
        story = f"This is a fault of obs-pipeline. The whole story is in {_keep_traceback()}."
        errors.print(story, highlight=False, soft_wrap=True)
        sys.exit(70)


def _end(number: int, _frame: object) -> None:
    # By an exception, so that locks are released and scratch files removed on the way out.
    raise SystemExit(128 + number)


def _keep_traceback() -> Path:
    # A file of its own, readable by its owner alone: a traceback may quote what was being read.
    handle, name = tempfile.mkstemp(prefix="obs-pipeline-error-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(traceback.format_exc())
    return Path(name)
