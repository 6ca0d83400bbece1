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
from obs_pipeline.settings import misspelt_variables
from obs_pipeline.storage.lake import LakeTable

_PACKAGES: Final = ("dagster", "duckdb", "deltalake", "pyarrow", "genai-prices", "sqlalchemy")
_IDS_LOOKED_AT: Final = 20_000_000
"""The doctor looks through so many events at most: some seconds."""
State = Literal["ok", "look", "broken"]
_PULL_MENDS: Final = {
    "failed": "Mend what it names, try it: obs-pipeline sources test {name}. It is pulled again from {next} on.",
    "late": "Start the daemon (make ui, or dagster-daemon run), or obs-pipeline sources pull {name}",
    "silent": "Check that calls still go through it. It answers, but has none.",
    "never pulled": "Start the daemon (make ui, or dagster-daemon run), or obs-pipeline sources pull {name}",
}
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
        table = Table("", "what")
        for column in ("found", "what to do"):
            table.add_column(column, overflow="fold")
        for one in found:
            table.add_row(f"[{_STYLE[one.state]}]{one.state}[/]", one.what, text(one.found), text(one.mend))
        out.print(table)
    if any(one.state != "ok" for one in found):
        raise typer.Exit(3)


def _examine(workspace: Workspace) -> Iterator[Examination]:
    yield _versions()
    yield from _misspelt()
    yield _home(workspace)
    yield from _policies(workspace)
    ledger = _ledger(workspace)
    yield ledger
    lake = list(_lake(workspace))
    yield from lake
    if ledger.state == "ok" and all(one.state != "broken" for one in lake):
        yield from _sources(workspace)
        yield from _pulls(workspace)
        yield from _bills(workspace)
        yield _pending(workspace)
        yield from _ids(workspace)
        yield from _lost(workspace)
        yield from _messages(workspace)
        yield _refused(workspace)
        yield _incidents(workspace)
    if ledger.state == "ok":
        yield from _targets(workspace)


def _versions() -> Examination:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return Examination("versions", "ok", f"Python {platform.python_version()}, {versions}")


def _misspelt() -> Iterator[Examination]:
    for name, meant in misspelt_variables().items():
        yield Examination("settings", "look", f"{name} sets nothing", f"Is {meant} meant? Rename it, or take it away.")


def _home(workspace: Workspace) -> Examination:
    home = workspace.settings.home
    if not home.exists():
        return Examination("home", "look", f"{home} does not exist yet", "obs-pipeline ingest FILE creates it.")
    if not os.access(home, os.W_OK):
        return Examination("home", "broken", f"{home} is not writable", "Give this user the right to write there.")
    return Examination("home", "ok", str(home))


def _policies(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.alerting.routes import load_routes
    from obs_pipeline.dashboard.chargeback import read_rules
    from obs_pipeline.detection.calendar import load_calendar
    from obs_pipeline.detection.config import load_detection_config
    from obs_pipeline.usage.billing.configured import read_bills
    from obs_pipeline.usage.currencies import RateBook
    from obs_pipeline.usage.pricing import PriceBook
    from obs_pipeline.usage.pulling.configured import pulled_sources

    readers: dict[str, Callable[[Path], object]] = {
        "prices.yaml": PriceBook.load,
        "detection.yaml": load_detection_config,
        "calendar.yaml": load_calendar,
        "routes.yaml": load_routes,
    }
    # Who has no sources, bills or other currencies needs no file that says so.
    optional: dict[str, Callable[[Path], object]] = {
        "sources.yaml": pulled_sources,
        "bills.yaml": read_bills,
        "currencies.yaml": RateBook.load,
        "chargeback.yaml": read_rules,
    }
    for name, load in {**readers, **optional}.items():
        path = workspace.settings.policies / name
        if not path.exists() and name in optional:
            continue
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
        if missing := workspace.lake.missing_files(table):
            found = f"{len(missing):,} of its files are gone, among them {missing[0]}"
            yield Examination(f"table {table.name}", "broken", found, _mend_of(table))
    yield Examination("lake", "ok", f"{rows:,} rows in {len(ALL_TABLES)} tables at {workspace.settings.lake}")


def _mend_of(table: LakeTable) -> str:
    """What to do when rows of a table are gone."""
    from obs_pipeline.usage.tables import USAGE_DUPLICATES, USAGE_EVENTS, USAGE_REJECTED

    if table in (USAGE_EVENTS, USAGE_REJECTED, USAGE_DUPLICATES):
        return (
            f"Restore the folder {table.name} from a copy, or start a new OBS_HOME and ingest the files again; those of the "
            "landing folder are in landed/."
        )
    return f"Delete the folder {table.name} and run obs-pipeline batch --all."


def _sources(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.usage.source_silences import source_silences

    settings, now = workspace.settings, utc_now()
    least, unknown = timedelta(hours=settings.stale_after_hours), timedelta(hours=settings.freshness_hours)
    found = source_silences(workspace.ledger, settings.policies, least, unknown, now)
    if not found:
        yield Examination("sources", "look", "nothing was landed yet", "obs-pipeline ingest FILE")
    for one in found:
        heard = f"heard of {_hours(now - one.since)} ago, {_hours(one.allowed)} are allowed"
        newest = f"; newest event {one.last_event:%Y-%m-%d %H:%M} UTC" if one.last_event else ""
        if one.is_stale(now):
            mend = "Check that it runs and that its files arrive; until then its usage is unknown, not zero."
            yield Examination(f"source {one.source}", "look", heard + newest, mend)
        else:
            yield Examination(f"source {one.source}", "ok", heard + newest)


def _pulls(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.storage.source_positions import SourcePositions
    from obs_pipeline.usage.pulling.configured import SourcesInvalid, pulled_sources
    from obs_pipeline.usage.pulling.status import statuses

    try:
        sources = pulled_sources(workspace.settings.policies / "sources.yaml")
    except SourcesInvalid:
        # Said above, with the other files.
        return
    for one in statuses(sources, SourcePositions(workspace.ledger), utc_now()):
        read = f"read up to {one.position:%Y-%m-%d %H:%M} UTC" if one.position else "not read yet"
        newest = f", newest call {one.newest_event:%Y-%m-%d %H:%M} UTC" if one.newest_event else ""
        found = f"{one.health}: {one.failure} ({read})" if one.failure else f"{one.health}, {read}{newest}"
        yield Examination(
            f"pull {one.source}",
            "ok" if one.health == "alive" else "look",
            found,
            _PULL_MENDS.get(one.health, "").format(name=one.source, next=f"{one.next_pull:%H:%M} UTC"),
        )


def _bills(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.cli.bills import bill_statuses
    from obs_pipeline.usage.billing.configured import BillsInvalid

    try:
        found = bill_statuses(workspace)
    except BillsInvalid:
        return
    for one in found:
        read = f"read until {one.read_until}"
        mend = f"obs-pipeline sources pull {one.bill}"
        if one.failure:
            mend = f"Mend what it names, then {mend}; until then its days are not compared."
            yield Examination(f"bill {one.bill}", "look", f"failed: {one.failure} ({read})", mend)
        elif one.pulled_at is None:
            yield Examination(f"bill {one.bill}", "look", "never pulled", mend)
        else:
            yield Examination(f"bill {one.bill}", "ok", read)


def _hours(length: timedelta) -> str:
    return f"{length.total_seconds() / 3600:,.1f} h"


def _messages(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.alerting.health import QUICK, WINDOW, health
    from obs_pipeline.storage.alert_store import AlertStore

    store, now = AlertStore(workspace.ledger), utc_now()
    found = health(
        store.outbox(), store.deliveries(now - WINDOW), store.heartbeats(), store.feedback(now - WINDOW), now
    )
    for row in found.parked[:5]:
        mend = f"Mend what it names, then obs-pipeline alerts retry {row.key}"
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

    due = due_days(workspace.ledger, workspace.settings.identity_days)
    if due.pending:
        found = f"{len(due.pending)} days wait, {due.pending[0]} … {due.pending[-1]}"
        return Examination("days", "look", found, "obs-pipeline batch, or leave it to the running daemon.")
    return Examination("days", "ok", f"{len(due.settled)} days computed, none waits")


def _lost(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.dashboard.tables import MART_SPEND
    from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY

    lake, ledger = workspace.lake, workspace.ledger
    good = sum(day.rows_read - day.rows_rejected for day in ledger.landed())
    if good and lake.version(USAGE_EVENTS) is None:
        found = f"{good:,} events were landed, but the lake at {workspace.settings.lake} has no table of them"
        yield Examination("table usage_events", "broken", found, _mend_of(USAGE_EVENTS))
    computed = {day for day, rows in lake.rows_per_day(USAGE_EVENTS).items() if rows} & ledger.settled_through().keys()
    for table in (USAGE_HOURLY, USAGE_DAILY, MART_SPEND):
        held = lake.rows_per_day(table)
        if gone := sorted(day for day in computed if not held.get(day)):
            found = f"{len(gone):,} days that were computed are not in it, from {gone[0]} to {gone[-1]}"
            mend = f"obs-pipeline batch --from {gone[0]} --to {gone[-1]}"
            yield Examination(f"table {table.name}", "broken", found, mend)


def _ids(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.usage.repeated_ids import repeated_ids, window_before

    settings = workspace.settings
    window = window_before(workspace.lake, settings.identity_window_days, _IDS_LOOKED_AT)
    if window is None:
        return
    with workspace.engine() as connection:
        proof = repeated_ids(connection, workspace.lake, window, settings.identity_days)
    if proof.holds:
        yield Examination("event ids", "ok", f"none repeats over more than {settings.identity_days} d, {window}")
        return
    first = proof.examples[0]
    found = (
        f"{proof.offences:,} events of {window} have the id of one more than {settings.identity_days} days before, and are "
        f"counted too; {first['source']} {first['event_id']}: {first['first_day']} and {first['last_day']}"
    )
    days = (first["last_day"] - first["first_day"]).days
    mend = f"If they are the same calls: set OBS_IDENTITY_DAYS (up to 28; this one needs {days}), then obs-pipeline batch --all."
    yield Examination("event ids", "look", found, mend)


def _targets(workspace: Workspace) -> Iterator[Examination]:
    from obs_pipeline.cli.policies.targets import late_targets

    if workspace.settings.litellm_url is None:
        return
    late = late_targets(workspace)
    for one in late:
        yield Examination(
            f"target {one.target}", "look", str(one), "obs-pipeline policies sync goes on where it ended."
        )
    if not late:
        yield Examination("target litellm", "ok", "holds what is in force")


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


def _incidents(workspace: Workspace) -> Examination:
    from obs_pipeline.alerting.models import rank
    from obs_pipeline.alerting.records import incident_of
    from obs_pipeline.storage.alert_store import AlertStore

    active = map(incident_of, AlertStore(workspace.ledger).incidents(("open", "acknowledged")))
    # What the pipeline itself needs mended; what agents spend is for 'alerts list'.
    broken = [one for one in active if one.kind not in ("anomaly", "budget")]
    if not broken:
        return Examination("incidents", "ok", "the pipeline itself has none open")
    gravest = max(broken, key=lambda one: (rank(one.severity), one.updated_at))
    found = f"{len(broken)} open; gravest, since {gravest.began_at:%Y-%m-%d %H:%M} UTC: {gravest.headline}"
    return Examination("incidents", "look", found, f"obs-pipeline alerts show {gravest.id}")
