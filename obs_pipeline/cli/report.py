"""``obs-pipeline report``: what people who pay want to read."""

from __future__ import annotations

import csv
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.dashboard.chargeback import Line

KINDS = ("same call", "near twin")
app = typer.Typer(name="report", help="Reports for those who pay.", no_args_is_help=True)


@app.callback()
def report() -> None:
    """Reports for those who pay."""


@app.command("chargeback")
def chargeback(
    month: Annotated[str, typer.Option("--month", help="The month, as YYYY-MM (UTC).")],
    org: Annotated[str | None, typer.Option("--org", help="Only this organisation.")] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="Shared-cost and margin rules (default: policies/chargeback.yaml).")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the lines as CSV.")] = None,
    teams: Annotated[bool, typer.Option("--teams", help="One line a team.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Charge a month's cost to **teams and projects**: own cost, part of what is shared, margin.

    The lines come to the cost of the month to the nano-dollar.
    """
    from obs_pipeline.dashboard.chargeback import as_rows, by_team, charge, read_rules
    from obs_pipeline.dashboard.focus import month_of
    from obs_pipeline.dashboard.monthly_spend import spend_by_team_and_project

    asked = month_of(month)
    workspace = open_workspace()
    ruled = read_rules(rules or workspace.settings.policies / "chargeback.yaml")
    with workspace.engine() as connection:
        charged = charge(spend_by_team_and_project(connection, workspace.lake, asked, org=org), ruled)
    lines = by_team(charged.lines) if teams else charged.lines
    if output is not None:
        _write(lines, output)
    if as_json:
        totals = {"cost": charged.cost, "margin": charged.margin, "total": charged.total}
        print_json({"month": str(asked), "org": org, "lines": as_rows(lines), **totals})
        return
    if not lines:
        out.print(f"No usage{f' of {text(org)}' if org else ''} is known in {asked}.")
        return
    _show(lines, f"Chargeback {asked}" + (f" of {org}" if org else ""))
    out.print(f"cost {money(charged.cost)} + margin {money(charged.margin)} = [bold]{money(charged.total)}[/]")


@app.command("twins")
def twins(
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day (UTC); default: all.")
    ] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day (UTC).")] = None,
    org: Annotated[str | None, typer.Option("--org", help="Only this organisation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Calls that **two sources** reported, and what that does to the cost.

    A *same call* carries the provider's response id in both: it is counted once. A *near twin* is only alike: it is counted
    twice.
    """
    from obs_pipeline.storage.lake import DayRange
    from obs_pipeline.usage.twins import twin_lines

    if (first is None) != (last is None) or (first and last and first > last):
        raise ObsError("Name both --from and --to, the earlier day first, or neither.")
    days = DayRange(first.date(), last.date()) if first and last else None
    workspace = open_workspace()
    with workspace.engine() as connection:
        lines = twin_lines(connection, workspace.lake, days, org)
    costs = {kind: sum((line.cost or Decimal(0) for line in lines if line.kind == kind), Decimal(0)) for kind in KINDS}
    if as_json:
        named = {"counted_once": costs["same call"], "perhaps_counted_twice": costs["near twin"]}
        print_json({"lines": lines, **named})
        return
    if not lines:
        out.print("No call was reported by two sources, in the days that were computed.")
        return
    table = Table("day", "kind", "organisation", "reported by", "counted from", "calls", "cost")
    for line in lines:
        sources = (text(line.source), text(line.counted_source))
        cost = "—" if line.cost is None else money(line.cost)
        table.add_row(str(line.dt), line.kind, text(line.org), *sources, f"{line.calls:,}", cost)
    out.print(table)
    out.print(f"Counted once: {money(costs['same call'])} less. Perhaps counted twice: {money(costs['near twin'])}.")


def _show(lines: tuple[Line, ...], title: str) -> None:
    table = Table("team", "project", title=title, title_justify="left")
    for column in ("calls", "own", "shared", "margin", "total"):
        table.add_column(column, justify="right")
    for line in lines:
        amounts = (money(amount) for amount in (line.own, line.shared, line.margin, line.total))
        table.add_row(text(line.team or "unattributed"), text(line.project), f"{line.calls:,}", *amounts)
    out.print(table)


def _write(lines: tuple[Line, ...], output: Path) -> None:
    from obs_pipeline.dashboard.chargeback import as_rows

    rows = as_rows(lines)
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["team", "project", "calls", "own", "shared", "margin", "total"])
        writer.writerows(
            [f"{value:f}" if hasattr(value, "as_tuple") else value for value in row.values()] for row in rows
        )
