"""``obs-pipeline ingest``: usage files into the lake, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from obs_pipeline.cli.console import out, print_json, progress, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.lake import DayRange

if TYPE_CHECKING:
    from obs_pipeline.usage.inbox import Refusal
    from obs_pipeline.usage.landing import LandingReport


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders whose files are all taken in.")],
    mapping: Annotated[
        str,
        typer.Option(
            "--mapping",
            "-m",
            help="How columns map: a built-in name (canonical, aider, litellm, otlp, langfuse, helicone, claude_code, "
            "claude_code_otel), a name under policies/sources, or a YAML file.",
        ),
    ] = "canonical",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 when any row or file was refused.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Take usage files in: Parquet, CSV or JSON lines, plain, gzip or zstd.

    Good rows land, bad rows are quarantined with their reason, a file that was landed before is left alone.
    Then compute the days with **obs-pipeline batch**.
    """
    workspace = open_workspace()
    files = _files(paths)
    reports, refusals = _land(workspace, files, mapping, show=not as_json)
    if as_json:
        print_json({"landed": reports, "refused": refusals})
    else:
        _show(reports, refusals)
    if strict and (refusals or any(report.rejected for report in reports)):
        raise typer.Exit(3)
    if refusals and not reports:
        raise typer.Exit(2)


def _files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
        elif path.exists():
            found.append(path)
        else:
            raise ObsError(f"{path}: no such file or folder. Name the usage files to take in.")
    if not found:
        raise ObsError(f"{', '.join(map(str, paths))}: no files there to take in.")
    return found


def _land(
    workspace: Workspace, files: list[Path], mapping: str, *, show: bool
) -> tuple[list[LandingReport], list[Refusal]]:
    from obs_pipeline.storage.lake import LakeError
    from obs_pipeline.storage.ledger import LedgerError
    from obs_pipeline.storage.locks import exclusive
    from obs_pipeline.usage.currencies import RateBook
    from obs_pipeline.usage.inbox import Refusal, resolve_mapping
    from obs_pipeline.usage.landing import Landing

    settings = workspace.settings
    source = resolve_mapping(mapping, settings.policies / "sources")
    reports: list[LandingReport] = []
    refusals: list[Refusal] = []
    bar = progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
        show=show,
    )
    with exclusive(settings.scratch, "landing"), workspace.engine() as connection, bar:
        landing = Landing(
            workspace.lake,
            workspace.ledger,
            workspace.prices(),
            connection,
            settings.scratch,
            settings.first_day,
            settings.price_tolerance,
            RateBook.load(settings.policies / "currencies.yaml"),
        )
        task = bar.add_task("landing", total=None)
        for number, path in enumerate(files, 1):
            bar.update(task, description=f"{number}/{len(files)} {text(path.name)}")
            try:
                reports.append(landing.land(path, source, now=utc_now(), on_rows=lambda rows: bar.advance(task, rows)))
            except (LakeError, LedgerError):
                raise
            except ObsError as error:
                refusals.append(Refusal(str(path), str(error)))
    return reports, refusals


def _show(reports: list[LandingReport], refusals: list[Refusal]) -> None:
    table = Table(title="Landed", title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("days", overflow="fold")
    for column in ("rows", "accepted", "rejected", "unpriced", "mispriced"):
        table.add_column(column, justify="right")
    for report in reports:
        if report.already_landed:
            table.add_row(text(report.name), "[dim]landed before; left alone[/]")
            continue
        days = (
            "—"
            if report.first_day is None or report.last_day is None
            else str(DayRange(report.first_day, report.last_day))
        )
        counts = (report.rows, report.accepted, sum(report.rejected.values()), report.unpriced, report.mispriced)
        table.add_row(text(report.name), days, *(f"{count:,}" for count in counts))
    out.print(table)
    _show_rejections(reports)
    for refusal in refusals:
        out.print(f"[bold red]refused[/] {text(refusal.reason)}")
    if any(not report.already_landed for report in reports):
        out.print("Next: [bold]obs-pipeline batch[/] computes the days these rows belong to.")


def _show_rejections(reports: list[LandingReport]) -> None:
    if not any(report.rejected for report in reports):
        return
    table = Table(
        "file", "row", "reason", "detail", title="Quarantined (first rows of each file)", title_justify="left"
    )
    for report in reports:
        for example in report.examples:
            table.add_row(
                text(report.name), str(example["row_number"]), text(example["reason"]), text(example["detail"])
            )
    out.print(table)
