"""``obs-pipeline backtest``: replay detection settings over the history in the lake. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args

import typer
from rich.table import Table

from obs_pipeline.cli.anomalies import measure
from obs_pipeline.cli.console import out, print_json, progress, severity, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.lake import DayRange

if TYPE_CHECKING:
    from obs_pipeline.detection.backtest import Alarm, Backtest, Incident
    from obs_pipeline.detection.config import AnomalyDetectionConfig
    from obs_pipeline.detection.known import Known
    from obs_pipeline.detection.models import Anomaly

_SHOWN: Final = 15


def backtest(
    config: Annotated[
        Path | None, typer.Option(help="Other settings (a detection.yaml) to hold against those in force.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="What was real: a CSV with agent,start,end (the simulator's labels.csv). Without it: verdicts."
        ),
    ] = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First UTC day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day.")] = None,
    least: Annotated[str, typer.Option("--severity", help="Alarms from this severity on.")] = "warning",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Replay the detection settings: **alarms a week, precision, recall, delay**, and what a change adds or removes.

    An alarm is one agent's anomalies that belong together, whatever their metric. Right and wrong are told by a labels file
    or by what people said (**obs-pipeline label**). Nothing is written.
    """
    from obs_pipeline.detection import backtest as replayed
    from obs_pipeline.detection.batch import known_in, settings_in
    from obs_pipeline.detection.config import load_detection_config
    from obs_pipeline.detection.models import Severity

    if least not in get_args(Severity):
        raise ObsError(f"--severity {least}: it is one of {', '.join(get_args(Severity))}.")
    loud = cast("Severity", least)
    workspace = open_workspace()
    known = known_in(workspace.settings.policies, workspace.ledger)
    incidents = replayed.judged_incidents(known.labels) if labels is None else replayed.read_incidents(labels)
    days = _days(workspace, first, last)
    tried = {"in force": settings_in(workspace.settings.policies)}
    if config is not None:
        tried[str(config)] = load_detection_config(config)
    found = {name: _replay(workspace, days, settings, known, name, as_json) for name, settings in tried.items()}
    held = _within(incidents, days)
    reports = {
        name: replayed.evaluate(some, loud, held, len(days), complete=labels is not None)
        for name, some in found.items()
    }
    before, *others = (replayed.alarms_of(some, loud) for some in found.values())
    added, removed = replayed.changes(before, others[0] if others else before)
    if as_json:
        settings = {name: asdict(report) for name, report in reports.items()}
        print_json({"settings": settings, "added": _plain(added), "removed": _plain(removed)})
        return
    out.print(_comparison(reports, days, least, judged=bool(incidents)))
    if others:
        out.print(_alarms("added", added))
        out.print(_alarms("removed", removed))


def _days(workspace: Workspace, first: datetime | None, last: datetime | None) -> DayRange:
    from obs_pipeline.usage.tables import USAGE_HOURLY

    computed = workspace.lake.rows_per_day(USAGE_HOURLY)
    if not computed:
        raise ObsError("There is no history to replay. 'obs-pipeline ingest' and 'batch' make it.")
    known = DayRange(min(computed), max(computed))
    begin = max(first.date(), known.first) if first else known.first
    end = min(last.date(), known.last) if last else known.last
    if end < begin:
        raise ObsError(f"There is no usage in those days; the lake has {known}.")
    return DayRange(begin, end)


def _replay(
    workspace: Workspace, days: DayRange, settings: AnomalyDetectionConfig, known: Known, name: str, quiet: bool
) -> list[Anomaly]:
    from obs_pipeline.detection.batch import detection_of
    from obs_pipeline.detection.models import anomalies_from_table
    from obs_pipeline.storage.lake import chunk_days
    from obs_pipeline.usage.tables import USAGE_HOURLY

    rows = workspace.lake.rows_per_day(USAGE_HOURLY, days)
    found: list[Anomaly] = []
    with progress(show=not quiet) as bar, workspace.engine() as connection:
        task = bar.add_task(f"replaying {name}", total=len(days))
        for chunk in chunk_days(days, rows, workspace.settings.events_per_chunk // 2):
            found += anomalies_from_table(detection_of(connection, workspace.lake, chunk, settings, known).anomalies)
            bar.advance(task, len(chunk))
    return found


def _within(incidents: Sequence[Incident], days: DayRange) -> list[Incident]:
    return [one for one in incidents if one.ends.date() >= days.first and one.begins.date() <= days.last]


def _comparison(reports: dict[str, Backtest], days: DayRange, least: str, *, judged: bool) -> Table:
    title = f"{days}, alarms from {least} on"
    table = Table("", *(text(name) for name in reports), title=title, title_justify="left")
    each = list(reports.values())

    def row(name: str, *cells: str) -> None:
        table.add_row(name, *cells)

    row("anomalies", *(_counts(one.anomalies) for one in each))
    row("alarms", *(_counts(one.alarms) for one in each))
    row("alarms a week", *(f"{one.alarms_per_week:.2f}" for one in each))
    if judged:
        row("right / false / unjudged", *(f"{one.right} / {one.false} / {one.unjudged}" for one in each))
        row("precision", *(_share(one.precision) for one in each))
        row("incidents found", *(f"{one.found} of {one.incidents}" for one in each))
        row("recall", *(_share(one.recall) for one in each))
        for kind in each[0].recall_by_kind:
            found = [one.recall_by_kind[kind] for one in each]
            row(f"  {text(kind)}", *(f"{some} of {count}" for some, count in found))
        row("median delay", *(_hours(one.median_delay_hours) for one in each))
    else:
        table.caption = "Nothing was judged yet: 'obs-pipeline label ID real' says so, or --labels names a file."
    return table


def _counts(counts: Any) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in reversed(list(counts.items())))


def _share(share: float | None) -> str:
    return "—" if share is None else f"{share:.0%}"


def _hours(hours: float | None) -> str:
    return "—" if hours is None else f"{hours:.1f} h"


def _alarms(title: str, alarms: Sequence[Alarm]) -> Table | str:
    if not alarms:
        return f"No alarm {title}."
    worst = sorted(alarms, key=lambda alarm: -alarm.worst.score)[:_SHOWN]
    listed = f"{len(alarms)} alarms {title}" + (f", the worst {_SHOWN}" if len(alarms) > _SHOWN else "")
    table = Table("", "when", "agent", "worst", title=listed, title_justify="left")
    for alarm in worst:
        one = alarm.worst
        said = f"{one.metric} {measure(one.metric, one.observed)}, usual {measure(one.metric, one.baseline)}"
        table.add_row(severity(one.severity), f"{alarm.begins:%Y-%m-%d %H:%M}", text(one.agent), said)
    return table


def _plain(alarms: Sequence[Alarm]) -> list[dict[str, object]]:
    return [
        {
            "series": alarm.series,
            "begins": alarm.begins,
            "ends": alarm.ends,
            "severity": alarm.worst.severity,
            "worst": alarm.worst.id,
            "anomalies": [one.id for one in alarm.anomalies],
        }
        for alarm in alarms
    ]
