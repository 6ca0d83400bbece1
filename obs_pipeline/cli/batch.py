"""``obs-pipeline batch``: compute days, then say what they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.panel import Panel
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from obs_pipeline.cli.anomalies import anomaly_table
from obs_pipeline.cli.console import money, out, print_json, progress, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.lake import DayRange

if TYPE_CHECKING:
    from obs_pipeline.dashboard.queries import RowCounts
    from obs_pipeline.defs.batch import BatchRun
    from obs_pipeline.detection.models import Anomaly, BatchResult

_WORST = 10
_LOOKED_AT = 500
_BUDGETS = 8
_BUDGET_STYLE = {"exceeded": "bold red", "warning": "yellow", "incomparable": "yellow"}


def batch(
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every day that has events, as one backfill.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 when any asset check did not pass.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Compute whole days in Dagster: settle events, aggregate, detect, build the marts, check everything.

    Without days: those with landed rows that were not computed yet, and the days whose baselines they belong to.
    """
    workspace = open_workspace()
    ranges = _ranges(workspace, first, last, everything)
    if not ranges:
        _nothing_to_do(as_json)
        return
    runs = [_run(workspace, days, show=not as_json) for days in ranges]
    if as_json:
        print_json([{"run_id": run.run_id, **asdict(run.result), "failed_checks": run.failed_checks} for run in runs])
    else:
        for run in runs:
            _show(workspace, run)
    if strict and any(run.failed_checks for run in runs):
        raise typer.Exit(3)


def _ranges(
    workspace: Workspace, first: datetime | None, last: datetime | None, everything: bool
) -> Sequence[DayRange]:
    if first or last:
        if first is None or last is None or last < first:
            raise ObsError("Name both days, --from and --to, the earlier first.")
        earliest, latest = workspace.settings.first_day, utc_now().date() + timedelta(days=1)
        if first.date() < earliest or last.date() > latest:
            raise ObsError(f"There is nothing to compute before {earliest} (OBS_FIRST_DAY) or after {latest}.")
        return [DayRange(first.date(), last.date())]
    if everything:
        from obs_pipeline.dashboard.queries import known_days

        known = known_days(workspace.lake)
        return [known] if known else []
    from obs_pipeline.usage.due_days import due_days

    return due_days(workspace.ledger, workspace.settings.identity_days).ranges()


def _nothing_to_do(as_json: bool) -> None:
    if as_json:
        print_json([])
    else:
        out.print("Every landed event has been computed. [bold]obs-pipeline ingest FILE[/] takes more in.")


def _run(workspace: Workspace, days: DayRange, *, show: bool) -> BatchRun:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with progress(*columns, show=show) as bar:
        task = bar.add_task("starting Dagster", total=None)

        def listen(step: str, chunk: DayRange, _days: DayRange) -> None:
            bar.update(task, advance=len(chunk), description=f"{step} {chunk}")

        from obs_pipeline.defs.batch import run_daily_batch, steps

        bar.update(task, total=len(steps()) * len(days))
        return run_daily_batch(workspace.settings, days, listen)


def _show(workspace: Workspace, run: BatchRun) -> None:
    from obs_pipeline.dashboard import queries
    from obs_pipeline.detection.models import worst_anomalies

    with workspace.engine() as connection:
        counts = queries.row_counts(connection, workspace.lake, run.days)
        found = queries.anomalies(connection, workspace.lake, run.days, limit=_LOOKED_AT)
    worst = worst_anomalies(found, _WORST)
    out.print(_totals(run, counts))
    _show_worst(worst, run.result)
    _show_budgets(workspace, run)
    _show_checks(run)
    _show_next(worst)


def _totals(run: BatchRun, counts: RowCounts) -> Panel:
    result = run.result
    table = Table.grid(padding=(0, 2))
    provisional = len(result.provisional_days)
    rows = [
        ("days", f"{len(result.days):,}", f"{run.days}" + (f", {provisional} provisional" if provisional else "")),
        ("events", f"{result.events:,}", f"cost {money(counts.cost)}"),
        ("quarantined", f"{result.quarantined:,}", f"and {result.duplicates:,} duplicates dropped"),
        (
            "unpriced",
            f"{result.unpriced:,}",
            f"at most {money(counts.unpriced_bound)} on top" if result.unpriced else "",
        ),
        (
            "mispriced",
            f"{counts.mispriced:,}",
            f"reported {money(counts.reported_cost_of_mispriced)}, list {money(counts.list_cost_of_mispriced)}"
            if counts.mispriced
            else "",
        ),
        ("took", f"{result.duration.total_seconds():.1f} s", f"Dagster run {run.run_id[:8]}"),
    ]
    for name, value, remark in rows:
        table.add_row(f"[dim]{name}[/]", f"[bold]{value}[/]", text(remark))
    return Panel(table, title="Batch", title_align="left", expand=False)


def _show_worst(worst: list[Anomaly], result: BatchResult) -> None:
    counts = ", ".join(f"{count} {severity}" for severity, count in reversed(list(result.anomalies.items())))
    if not worst:
        out.print("No anomalies.")
        return
    out.print(anomaly_table(worst, title=f"Worst anomalies ({counts})"))


def _show_budgets(workspace: Workspace, run: BatchRun) -> None:
    from obs_pipeline.dashboard import queries
    from obs_pipeline.policy.in_force import PoliciesOverTime
    from obs_pipeline.storage.policy_store import PolicyStore

    known = PoliciesOverTime(workspace.settings.policies, PolicyStore(workspace.ledger))
    for problem in known.files.problems:
        out.print(f"[yellow]policy[/] {text(problem)}")
    at = datetime.combine(run.days.last, time.max)
    held = known.at(at).policies
    with workspace.engine() as connection:
        stated = [one for one in queries.budgets(connection, workspace.lake, held, at) if one.set_at == one.scope]
    if not stated:
        out.print("No budget is set for what was used. [dim]Budgets are files under policies/.[/]")
        return
    shown = sorted(stated, key=lambda one: -(one.ratio or 0))[:_BUDGETS]
    title = f"Budgets at the end of {run.days.last} ({len(shown)} of {len(stated)}, fullest first)"
    table = Table("budget of", "limit", "spent", "used", "", title=title, title_justify="left")
    for one in shown:
        amount = money if one.kind == "cost" else "{:,.0f}".format
        table.add_row(
            text(" / ".join(part for part in one.place if part)),
            f"{amount(one.limit)} {one.kind if one.kind != 'cost' else ''} {one.period}".replace("  ", " "),
            "—" if one.spent is None else amount(one.spent),
            "—" if one.ratio is None else f"{one.ratio:.0%}",
            f"[{_BUDGET_STYLE.get(one.state, 'green')}]{one.state}[/]",
        )
    out.print(table)


def _show_checks(run: BatchRun) -> None:
    if not run.failed_checks:
        out.print("[green]All asset checks passed.[/]")
        return
    for check in run.failed_checks:
        out.print(f"[yellow]check[/] {check.asset}: {check.name} — {check.offences:,} to look at")


def _show_next(worst: list[Anomaly]) -> None:
    lines = ["", "[bold]Next[/]"]
    if worst:
        lines.append(f"  obs-pipeline explain {worst[0].id}   [dim]take the worst one apart[/]")
    lines += [
        "  obs-pipeline anomalies --severity critical   [dim]all of them, filtered[/]",
        "  obs-pipeline alerts list   [dim]what is open, and who was told[/]",
        "  obs-pipeline serve   [dim]the dashboard at http://127.0.0.1:8770, over HTTP and MCP too[/]",
        "  make ui   [dim]the dashboard and Dagster together: the graph, every day's story and its checks[/]",
    ]
    out.print("\n".join(lines))
