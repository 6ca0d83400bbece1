"""``obs-pipeline report``: what people who pay want to read."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.workspace import open_workspace

if TYPE_CHECKING:
    from obs_pipeline.dashboard.chargeback import Line

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
    _show(lines, f"Chargeback {asked}" + (f" of {org}" if org else ""))
    out.print(f"cost {money(charged.cost)} + margin {money(charged.margin)} = [bold]{money(charged.total)}[/]")


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
