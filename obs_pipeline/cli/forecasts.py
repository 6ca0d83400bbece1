"""``obs-pipeline forecasts``: what will be spent by the end of the day, week and month, and which budgets that breaks."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from datetime import date

_SCOPES: Final = ("org", "project", "agent")
_PERIODS: Final = ("day", "week", "month")
_SAID: Final = {
    "no spend": "nothing was spent in the last months: no forecast",
    "credits only": "only credits were booked in the last months: no forecast",
    "not enough history": "not enough history: day {days} since the first spend, fourteen are needed",
}


def forecasts(
    scope: Annotated[str | None, typer.Option("--scope", help="org, project or agent.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Only the organisation, project or agent of this name.")
    ] = None,
    period: Annotated[str | None, typer.Option("--period", help="day, week or month.")] = None,
    day: Annotated[
        datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="As foreseen at the end of this UTC day.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many lines.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print all as JSON.")] = False,
) -> None:
    """Show what each organisation, project and agent **will have spent** by the end of its day, week and month.

    With an 80 % interval, and the time a budget is used up at that pace. Where there is too little history, that is said.
    """
    _check("--scope", scope, _SCOPES)
    _check("--period", period, _PERIODS)
    workspace = open_workspace()
    asked = _last_day(workspace) if day is None else day.date()
    chosen = {"scope": scope, "period": period, "coalesce(agent, project, org)": name}
    rows = [] if asked is None else _rows(workspace, asked, chosen)
    if as_json:
        print_json([{name: _plain(value) for name, value in row.items()} for row in rows])
    elif asked is None:
        out.print("There are no forecasts yet. [dim]obs-pipeline batch makes them.[/]")
    elif rows:
        out.print(_table(rows[:limit]))
        if len(rows) > limit:
            out.print(f"[dim]{len(rows) - limit} more; --limit, --scope, --period and --name choose.[/]")
    else:
        out.print(f"No forecasts for {asked} there. [dim]obs-pipeline batch --from {asked} --to {asked} makes them.[/]")


def _check(option: str, given: str | None, known: tuple[str, ...]) -> None:
    if given is not None and given not in known:
        raise ObsError(f"{option} {given}: there is no such choice; it is one of {', '.join(known)}.")


def _last_day(workspace: Workspace) -> date | None:
    from obs_pipeline.detection.tables import FORECASTS

    days = workspace.lake.rows_per_day(FORECASTS)
    return max((day for day, rows in days.items() if rows), default=None)


def _rows(workspace: Workspace, day: date, equal: dict[str, str | None]) -> list[dict[str, Any]]:
    from obs_pipeline.detection.tables import FORECASTS
    from obs_pipeline.storage.lake import DayRange

    asked = {column: value for column, value in equal.items() if value is not None}
    where = " AND ".join(["dt = ?", *(f"{column} = ?" for column in asked)])
    order = "scope DESC, org, project, agent, window_end, period"
    with workspace.engine() as connection:
        workspace.lake.view(connection, FORECASTS, DayRange(day, day))
        query = f"SELECT * FROM forecasts WHERE {where} ORDER BY {order}"
        found: list[dict[str, Any]] = connection.sql(query, params=[day, *asked.values()]).to_arrow_table().to_pylist()
    return found


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("", "by the end of", title=f"Spend foreseen at {rows[0]['as_of']:%Y-%m-%d %H:%M} UTC")
    table.title_justify = "left"
    for column in ("spent", "forecast", "80 % interval", "budget"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        known = row["state"] == "ok"
        table.add_row(
            text(row["agent"] or row["project"] or row["org"]),
            f"{row['period']} {row['window_end']:%m-%d %H:%M}",
            money(row["spent"]),
            money(row["forecast"]) if known else "—",
            f"{money(row['lower'])} … {money(row['upper'])}" if known else "—",
            money(row["limit_amount"]),
            _remark(row),
        )
    return table


def _plain(value: object) -> object:
    return f"{value:f}" if isinstance(value, Decimal) else value


def _remark(row: dict[str, Any]) -> str:
    said = [] if row["state"] == "ok" else [_SAID[row["state"]].format(days=row["history_days"])]
    if row["budget"] == "used up":
        said.append("[bold red]the budget is used up[/]")
    elif row["exhausted_at"] is not None:
        said.append(f"[yellow]used up on {row['exhausted_at']:%Y-%m-%d %H:%M}[/]")
    elif row["exhausted_earliest"] is not None:
        said.append(f"may be used up from {row['exhausted_earliest']:%Y-%m-%d %H:%M} on")
    if row["unpriced_calls"]:
        calls = "1 call" if row["unpriced_calls"] == 1 else f"{row['unpriced_calls']:,} calls"
        said.append(f"without {calls} of unknown price")
    return "; ".join(said)
