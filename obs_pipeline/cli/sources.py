"""``obs-pipeline sources``: the sources that are pulled, how they are, and pulling them by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from obs_pipeline.cli.console import errors, out, print_json, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.usage.pulling.configured import PulledSource

app = typer.Typer(name="sources", help="The sources that are pulled.", no_args_is_help=True)
_STYLE = {"alive": "green", "late": "yellow", "failed": "bold red", "never pulled": "dim"}
_ROWS_TRIED = 10

Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Name = Annotated[str, typer.Argument(help="A name in policies/sources.yaml.")]


class NoSuchSource(ObsError):
    """A source that ``sources.yaml`` does not name."""


@app.command("list")
def list_sources(as_json: Json = False) -> None:
    """Every source that is pulled: how far it was read, how the last pull went."""
    from obs_pipeline.storage.source_positions import SourcePositions
    from obs_pipeline.usage.pulling.pull import health

    workspace = open_workspace()
    positions, now = SourcePositions(workspace.ledger), utc_now()
    rows: list[dict[str, Any]] = []
    for name, source in _configured(workspace).items():
        position = positions.get(name)
        told = {"kind": source.kind, "mapping": source.mapping_name, "health": health(source, position, now)}
        rows.append({**vars(position), **told})
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("No source is pulled. Name some in policies/sources.yaml; files can be taken in without.")
        return
    table = Table("source", "kind", "health", "read up to (UTC)", "last good pull", "rows", "failure")
    for row in rows:
        shown = (row["position"], row["pulled_at"], f"{row['rows_pulled']:,}", row["failure"])
        state = f"[{_STYLE[row['health']]}]{row['health']}[/]"
        table.add_row(text(row["source"]), row["kind"], state, *(text(one) for one in shown))
    out.print(table)


@app.command("test")
def try_source(name: Name, as_json: Json = False) -> None:
    """Connect, read ten rows of the last week, show **how each field maps and what is missing**. Takes nothing in."""
    workspace = open_workspace()
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
    names: Annotated[list[str] | None, typer.Argument(help="Which sources; all of them without a name.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch what is new **into the landing folder**. One source that fails does not stop the others; then exits with 3."""
    from obs_pipeline.storage.locks import exclusive
    from obs_pipeline.storage.source_positions import SourcePositions
    from obs_pipeline.usage.pulling.pages import PullFailed
    from obs_pipeline.usage.pulling.pull import fetch_of, pull

    workspace = open_workspace()
    settings = workspace.settings
    chosen = {name: _source(workspace, name) for name in names} if names else _configured(workspace)
    pulled, failed = [], []
    with exclusive(settings.scratch, "pulling"):
        for name, source in chosen.items():
            now = utc_now()
            positions = SourcePositions(workspace.ledger)
            try:
                pulled.append(pull(name, source, fetch_of(source), positions, settings.landing, now))
            except PullFailed as error:
                failed.append({"source": name, "failure": str(error)})
    if as_json:
        print_json({"pulled": pulled, "failed": failed})
    else:
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
    source = _source(workspace, name)
    with exclusive(workspace.settings.scratch, "pulling"):
        done = backfill(name, source, fetch_of(source), workspace.settings.landing, first, until)
    if as_json:
        print_json(done)
        return
    out.print(f"{text(name)}: {done.rows:,} rows in {len(done.files)} files")


def _configured(workspace: Workspace) -> dict[str, PulledSource]:
    from obs_pipeline.usage.pulling.configured import pulled_sources

    return pulled_sources(workspace.settings.policies / "sources.yaml")


def _source(workspace: Workspace, name: str) -> PulledSource:
    known = _configured(workspace)
    if name not in known:
        named = ", ".join(known) or "none"
        raise NoSuchSource(f"policies/sources.yaml has no source {name!r}; it names: {named}.")
    return known[name]


def _tried(workspace: Workspace, source: PulledSource) -> tuple[list[dict[str, Any]], list[str], int]:
    """How the first rows of the last week are read: the fields, the reasons of rows refused, how many rows."""
    import pyarrow as pa

    from obs_pipeline.usage.inbox import resolve_mapping
    from obs_pipeline.usage.pulling.pull import fetch_of
    from obs_pipeline.usage.sources.landed import LANDED_SCHEMA
    from obs_pipeline.usage.sources.translate import read_usage

    now = utc_now()
    mapping = resolve_mapping(source.mapping_name, workspace.settings.policies / "sources")
    few = source.model_copy(update={"batch_rows": _ROWS_TRIED})
    page = next((page for page in fetch_of(few)(now - timedelta(days=7), now) if page), ())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(f"{record}\n" for record in page), encoding="utf-8")
        landed = pa.Table.from_batches(read_usage(path, mapping, now=now), LANDED_SCHEMA)
    fields = []
    for name, column in mapping.columns.items():
        values = [value for value in landed.column(name).to_pylist() if value is not None]
        origin = ", ".join(column.all_paths()) or f"always {column.const}"
        fields.append({"field": name, "from": origin, "rows": len(values), "example": values[0] if values else None})
    refused = [
        f"{row['reason']}: {row['detail']}" for row in landed.select(["reason", "detail"]).to_pylist() if row["reason"]
    ]
    return fields, refused, landed.num_rows
