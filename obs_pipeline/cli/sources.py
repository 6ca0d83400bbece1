"""``obs-pipeline sources``: the sources that are pulled, how they are, and pulling them by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from obs_pipeline.cli.bills import BillStatus, bill_statuses, configured_bills, currency_rates, pull_bills, try_bill
from obs_pipeline.cli.bills import backfill as backfill_bill
from obs_pipeline.cli.console import errors, out, print_json, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.usage.billing.lines import BillLine
    from obs_pipeline.usage.pulling.configured import PulledSource

app = typer.Typer(name="sources", help="The sources that are pulled.", no_args_is_help=True)
_STYLE = {"alive": "green", "late": "yellow", "silent": "yellow", "failed": "bold red", "never pulled": "dim"}
_ROWS_TRIED = 10
_NONE = "No source is pulled. Name some in policies/sources.yaml; files can be taken in without."

Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Name = Annotated[str, typer.Argument(help="A name in policies/sources.yaml or bills.yaml.")]


class NoSuchSource(ObsError):
    """A source that ``sources.yaml`` does not name."""


@app.command("list")
def list_sources(as_json: Json = False) -> None:
    """Every source that is pulled: **alive, late, silent or failed**, and how far it was read."""
    from obs_pipeline.storage.source_positions import SourcePositions
    from obs_pipeline.usage.pulling.status import statuses

    workspace = open_workspace()
    rows = statuses(_configured(workspace), SourcePositions(workspace.ledger), utc_now())
    bills = bill_statuses(workspace)
    if as_json:
        print_json([*rows, *bills])
        return
    _show_bills(bills)
    if not rows:
        out.print(_NONE)
        return
    table = Table("source", "kind", "health", "read up to (UTC)", "newest call", "rows", "next pull", "failure")
    for row in rows:
        times = [when and f"{when:%Y-%m-%d %H:%M}" for when in (row.position, row.newest_event, row.next_pull)]
        shown = (*times[:2], f"{row.rows_pulled:,}", times[2], row.failure)
        table.add_row(text(row.source), row.kind, f"[{_STYLE[row.health]}]{row.health}[/]", *map(text, shown))
    out.print(table)


@app.command("test")
def try_source(name: Name, as_json: Json = False) -> None:
    """Connect, read ten rows of the last week, show **how each field maps and what is missing**. Takes nothing in."""
    workspace = open_workspace()
    if name in configured_bills(workspace).bills:
        _show_lines(name, try_bill(workspace, name), as_json)
        return
    source = _source(workspace, name)
    fields, refused, rows = _tried(workspace, source)
    if as_json:
        print_json({"source": name, "rows": rows, "fields": fields, "refused": refused})
        return
    table = Table("field", "from", "rows with it", "for example", title=f"{name}: {rows} rows", title_justify="left")
    for field in fields:
        style = "" if field["rows"] else "dim"
        table.add_row(*(text(field[key]) for key in ("field", "from", "rows", "example")), style=style)
    out.print(table)
    for reason in refused:
        out.print(f"[bold red]refused[/] {text(reason)}")
    if not rows:
        out.print("The source answers, but has no rows of the last week.")


@app.command("pull")
def pull_sources(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which sources or bills; all of them without a name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch what is new **into the landing folder**, and bills into the lake.

    One source that fails does not stop the others; then exits with 3.
    """
    from obs_pipeline.storage.locks import exclusive
    from obs_pipeline.storage.source_positions import SourcePositions
    from obs_pipeline.usage.pulling.pages import PullFailed
    from obs_pipeline.usage.pulling.pull import fetch_of, pull

    workspace = open_workspace()
    settings = workspace.settings
    known_bills = configured_bills(workspace).bills
    bills = [name for name in names or known_bills if name in known_bills]
    asked = [name for name in names or () if name not in known_bills]
    chosen = {name: _source(workspace, name) for name in asked} if names else _configured(workspace)
    pulled, failed = [], []
    positions = SourcePositions(workspace.ledger)
    for name, source in chosen.items():
        try:
            with exclusive(settings.scratch, f"pulling-{name}"):
                pulled.append(pull(name, source, fetch_of(source), positions, settings.landing, utc_now()))
        except PullFailed as error:
            failed.append({"source": name, "failure": str(error)})
    billed, unbilled = pull_bills(workspace, bills) if bills else ([], [])
    failed += unbilled
    if as_json:
        print_json({"pulled": pulled, "bills": billed, "failed": failed})
    else:
        if not (chosen or bills):
            out.print(_NONE)
        for days in billed:
            out.print(f"{text(days.bill)}: {days.lines:,} lines of bills, {days.first} until {days.until}")
        for done in pulled:
            out.print(
                f"{text(done.source)}: {done.rows:,} rows in {len(done.files)} files, up to {done.end:%Y-%m-%d %H:%M} UTC"
            )
        for one in failed:
            errors.print(f"[bold red]{text(one['source'])} failed:[/] {text(one['failure'])}", highlight=False)
    if failed:
        raise typer.Exit(3)


@app.command("backfill")
def backfill_source(
    name: Name,
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day (UTC).")],
    until: Annotated[
        datetime, typer.Option("--until", formats=["%Y-%m-%d"], help="First day no longer fetched (UTC).")
    ],
    as_json: Json = False,
) -> None:
    """Fetch days again into the landing folder. What was taken in before is counted once; the position stays."""
    from obs_pipeline.storage.locks import exclusive
    from obs_pipeline.usage.pulling.pull import backfill, fetch_of

    if first >= until:
        raise ObsError(f"--from {first:%Y-%m-%d} must be before --until {until:%Y-%m-%d}.")
    workspace = open_workspace()
    if name in configured_bills(workspace).bills:
        days = backfill_bill(workspace, name, first.date(), until.date())
        print_json(days) if as_json else out.print(f"{text(name)}: {days.lines:,} lines of bills")
        return
    source = _source(workspace, name)
    with exclusive(workspace.settings.scratch, f"pulling-{name}"):
        done = backfill(name, source, fetch_of(source), workspace.settings.landing, first, until)
    if as_json:
        print_json(done)
        return
    out.print(f"{text(name)}: {done.rows:,} rows in {len(done.files)} files")


def _show_lines(name: str, lines: Sequence[BillLine], as_json: bool) -> None:
    if as_json:
        print_json({"bill": name, "lines": lines})
        return
    columns = ("dt", "kind", "project", "model", "item", "input_tokens", "output_tokens", "cost")
    table = Table("day", *columns[1:], title=f"{name}: {len(lines)} lines of the last two days", title_justify="left")
    for line in lines:
        table.add_row(*(text(getattr(line, column)) for column in columns))
    out.print(table)


def _show_bills(bills: Sequence[BillStatus]) -> None:
    if not bills:
        return
    table = Table("bill", "kind", "read until (UTC)", "pulled at", "lines", "failure")
    for one in bills:
        pulled = one.pulled_at and f"{one.pulled_at:%Y-%m-%d %H:%M}"
        table.add_row(
            text(one.bill), one.kind, *map(text, (one.read_until, pulled, f"{one.lines_pulled:,}", one.failure))
        )
    out.print(table)


def _configured(workspace: Workspace) -> dict[str, PulledSource]:
    from obs_pipeline.usage.pulling.configured import pulled_sources

    return pulled_sources(workspace.settings.policies / "sources.yaml")


def _source(workspace: Workspace, name: str) -> PulledSource:
    known = _configured(workspace)
    if name not in known:
        named = ", ".join([*known, *configured_bills(workspace).bills])
        told = f"they name: {named}" if named else "they name none yet. Add it to one of them"
        raise NoSuchSource(f"Neither policies/sources.yaml nor bills.yaml names {name!r}; {told}.")
    return known[name]


def _tried(workspace: Workspace, source: PulledSource) -> tuple[list[dict[str, Any]], list[str], int]:
    """How the first rows of the last week are read: the fields, the reasons of rows refused, how many rows."""
    import pyarrow as pa

    from obs_pipeline.usage.inbox import resolve_mapping
    from obs_pipeline.usage.pulling.pull import fetch_of
    from obs_pipeline.usage.sources.landed import LANDED_SCHEMA
    from obs_pipeline.usage.sources.translate import read_usage

    now, rates = utc_now(), currency_rates(workspace)
    mapping = resolve_mapping(source.mapping_name, workspace.settings.policies / "sources")
    few = source.model_copy(update={"batch_rows": _ROWS_TRIED})
    page = next((page for page in fetch_of(few)(now - timedelta(days=7), now) if page), ())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(f"{record}\n" for record in page), encoding="utf-8")
        landed = pa.Table.from_batches(read_usage(path, mapping, now=now, rates=rates), LANDED_SCHEMA)
    fields = []
    for name, column in mapping.columns.items():
        values = [value for value in landed.column(name).to_pylist() if value is not None]
        origin = ", ".join(column.all_paths()) or f"always {column.const}"
        fields.append({"field": name, "from": origin, "rows": len(values), "example": values[0] if values else None})
    refused = [
        f"{row['reason']}: {row['detail']}" for row in landed.select(["reason", "detail"]).to_pylist() if row["reason"]
    ]
    return fields, refused, landed.num_rows
