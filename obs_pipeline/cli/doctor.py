"""``obs-pipeline doctor``: is everything as it should be, and what to do where it is not."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.table import Table

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

_PACKAGES: Final = ("dagster", "duckdb", "deltalake", "pyarrow", "genai-prices", "sqlalchemy")
State = Literal["ok", "look", "broken"]
_STYLE: Final = {"ok": "green", "look": "yellow", "broken": "bold red"}


@dataclass(frozen=True)
class Examination:
    """One thing looked at."""

    what: str
    state: State
    found: str
    mend: str = ""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Check settings, versions, lake, ledger and the freshness of each source; exit with 3 if anything needs a look."""
    workspace = open_workspace()
    found = list(_examine(workspace))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        table = Table("", "what", "found", "what to do")
        for one in found:
            table.add_row(f"[{_STYLE[one.state]}]{one.state}[/]", one.what, text(one.found), text(one.mend))
        out.print(table)
    if any(one.state != "ok" for one in found):
        raise typer.Exit(3)


def _examine(workspace: Workspace) -> Iterator[Examination]:
    yield _versions()
    yield _home(workspace)
    yield from _policies(workspace)
    ledger = _ledger(workspace)
    yield ledger
    lake = list(_lake(workspace))
    yield from lake
    if ledger.state == "ok" and all(one.state != "broken" for one in lake):
        yield from _sources(workspace)
        yield _pending(workspace)
        yield from _messages(workspace)
        yield _refused(workspace)
        yield _alerts(workspace)


def _versions() -> Examination:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return Examination("versions", "ok", f"Python {platform.python_version()}, {versions}")


def _home(workspace: Workspace) -> Examination:
    home = workspace.settings.home
    if not home.exists():
        return Examination("home", "look", f"{home} does not exist yet", "obs-pipeline ingest FILE creates it.")
    if not os.access(home, os.W_OK):
        return Examination("home", "broken", f"{home} is not writable", "Give this user the right to write there.")
    return Examination("home", "ok", str(home))


def _policies(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.alerting.routes import load_routes
    from obs_pipeline.detection.config import load_detection_config
    from obs_pipeline.usage.pricing import PriceBook

    readers: dict[str, Callable[[Path], object]] = {
        "prices.yaml": PriceBook.load,
        "detection.yaml": load_detection_config,
        "routes.yaml": load_routes,
    }
    for name, load in readers.items():
        path = workspace.settings.policies / name
        if not path.exists():
            yield Examination(name, "look", f"{path} is missing", "The built-in defaults are used.")
            continue
        try:
            load(path)
        except ObsError as error:
            yield Examination(name, "broken", str(error), "Mend the file; until then nothing new is computed.")
        else:
            yield Examination(name, "ok", str(path))


def _ledger(workspace: Workspace) -> Examination:
    try:
        return Examination("ledger", "ok", f"schema revision {workspace.ledger.revision()}")
    except ObsError as error:
        return Examination("ledger", "broken", str(error), "The lake is untouched; restore or move the ledger file.")


def _lake(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.storage.proofs import schema_is_declared
    from obs_pipeline.tables import ALL_TABLES

    rows = 0
    for table in ALL_TABLES:
        try:
            days = workspace.lake.rows_per_day(table)
            wrong = schema_is_declared(workspace.lake, table)
        except ObsError as error:
            yield Examination(
                f"table {table.name}", "broken", str(error), "Restore it, or delete it and run the batch."
            )
            continue
        rows += sum(days.values())
        if not wrong.holds:
            mend = "It was written by another version; delete the table's folder and run obs-pipeline batch --all."
            yield Examination(f"table {table.name}", "broken", f"columns differ: {wrong.examples}", mend)
    yield Examination("lake", "ok", f"{rows:,} rows in {len(ALL_TABLES)} tables at {workspace.settings.lake}")


def _sources(workspace: Workspace) -> Iterator[Examination]:
    limit = timedelta(hours=workspace.settings.freshness_hours)
    sources = workspace.ledger.freshness()
    if not sources:
        yield Examination("sources", "look", "nothing was landed yet", "obs-pipeline ingest FILE")
    for source in sources:
        age = None if source.last_event is None else utc_now() - source.last_event
        found = f"{source.files} files, {source.rows:,} rows, newest event {source.last_event or 'none'} UTC"
        if age is None or age > limit:
            mend = f"Silent for more than {limit.total_seconds() / 3600:.0f} h: check that its files still arrive."
            yield Examination(f"source {source.source}", "look", found, mend)
        else:
            yield Examination(f"source {source.source}", "ok", found)


def _messages(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.alerting.health import QUICK, WINDOW, health
    from obs_pipeline.storage.alert_store import AlertStore

    store, now = AlertStore(workspace.ledger), utc_now()
    found = health(
        store.outbox(), store.deliveries(now - WINDOW), store.heartbeats(), store.feedback(now - WINDOW), now
    )
    for row in found.parked[:5]:
        mend = "Mend the receiver in policies/routes.yaml, or what it points to."
        yield Examination(f"message to {row.receiver}", "look", f"given up: {row.detail}", mend)
    if found.oldest_waiting > QUICK and found.silent:
        waits = (
            f"{found.waiting} wait, the oldest for {found.oldest_waiting.total_seconds() / 60:.0f} min; nobody sends"
        )
        yield Examination("messages", "look", waits, "Start the daemon: make ui, or dagster-daemon run.")
    else:
        yield Examination("messages", "ok", f"{found.waiting} wait, {len(found.parked)} given up")


def _pending(workspace: Workspace) -> Examination:
    from obs_pipeline.usage.due_days import due_days

    due = due_days(workspace.ledger)
    if due.pending:
        found = f"{len(due.pending)} days wait, {due.pending[0]} … {due.pending[-1]}"
        return Examination("days", "look", found, "obs-pipeline batch, or leave it to the running daemon.")
    return Examination("days", "ok", f"{len(due.settled)} days computed, none waits")


def _refused(workspace: Workspace) -> Examination:
    refused = workspace.settings.home / "refused"
    files = [path for path in refused.rglob("*") if path.is_file() and not path.name.endswith(".reason.txt")]
    if files:
        return Examination(
            "refused files",
            "look",
            f"{len(files)} in {refused}",
            "Each has its reason beside it; mend and drop it again.",
        )
    return Examination("refused files", "ok", "none")


def _alerts(workspace: Workspace) -> Examination:
    week = utc_now() - timedelta(days=7)
    recent = [alert for alert in workspace.ledger.alerts() if alert.raised_at >= week]
    if recent:
        newest = recent[0]
        found = f"{len(recent)} in the last week; newest: {newest.subject} at {newest.raised_at:%Y-%m-%d %H:%M} UTC"
        return Examination(
            "alerts", "look", found, str(newest.detail.get("error") or newest.detail.get("reason") or "")
        )
    return Examination("alerts", "ok", "none in the last week")
