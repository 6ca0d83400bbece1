"""``obs-pipeline anomalies``: what was found, worst first."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.table import Table

from obs_pipeline.cli.console import money, out, print_json, severity, text
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.detection.models import Anomaly


def anomalies(
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day.")] = None,
    severities: Annotated[
        list[str] | None, typer.Option("--severity", help="info, warning or critical; may be repeated.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    metric: Annotated[str | None, typer.Option(help="cost, tokens, errors or latency.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List anomalies, worst first. **obs-pipeline explain ID** takes one apart."""
    from obs_pipeline.dashboard import queries
    from obs_pipeline.detection.config import Metric
    from obs_pipeline.detection.models import Severity
    from obs_pipeline.storage.lake import DayRange

    _check_choices("--severity", severities or [], get_args(Severity))
    _check_choices("--metric", [metric] if metric else [], get_args(Metric))
    workspace = open_workspace()
    days = None
    if first or last:
        begin, end = first.date() if first else date(1970, 1, 1), last.date() if last else date(9999, 1, 1)
        if end < begin:
            raise ObsError(f"--from {begin} is after --to {end}; name the earlier day first.")
        days = DayRange(begin, end)
    with workspace.engine() as connection:
        found = queries.anomalies(
            connection, workspace.lake, days, severities=severities or (), agent=agent, metric=metric, limit=limit
        )
    if as_json:
        print_json([_plain(anomaly) for anomaly in found])
        return
    if not found:
        out.print("No anomalies there. [dim]obs-pipeline doctor tells whether the days were computed.[/]")
        return
    out.print(anomaly_table(found))


def _check_choices(option: str, given: list[str], known: tuple[str, ...]) -> None:
    unknown = [one for one in given if one not in known]
    if unknown:
        raise ObsError(f"{option} {unknown[0]}: there is no such choice; it is one of {', '.join(known)}.")


def anomaly_table(found: list[Anomaly], title: str | None = None) -> Table:
    """Anomalies for a terminal of any width: what and when, the reason below it, the id to ask further with."""
    table = Table("", "score", "what", title=title, title_justify="left", show_lines=True)
    for anomaly in found:
        when = anomaly.timestamp.strftime("%Y-%m-%d" if anomaly.grain == "day" else "%Y-%m-%d %H:00")
        usual = "" if anomaly.baseline is None else f", usual {measure(anomaly.metric, anomaly.baseline)}"
        headline = f"{when}  {text(anomaly.agent)}  {anomaly.metric} {measure(anomaly.metric, anomaly.observed)}{usual}"
        table.add_row(
            severity(anomaly.severity),
            f"{anomaly.score:.0f}",
            f"[bold]{headline}[/]\n{text(anomaly.reason)}\n[dim]{anomaly.id}[/]",
        )
    return table


def measure(metric: str, value: float | None) -> str:
    """A value in the unit of its metric."""
    if value is None:
        return "—"
    if metric == "cost":
        return money(value)
    if metric == "errors":
        return f"{value:.1%}"
    return f"{value:,.0f} ms" if metric == "latency" else f"{value:,.0f}"


def _plain(anomaly: Anomaly) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(anomaly)
