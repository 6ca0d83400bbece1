"""``obs-pipeline explain``: one anomaly, taken apart. Prints; what is split and how is decided in ``detection``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.panel import Panel
from rich.table import Table

from obs_pipeline.cli.anomalies import measure
from obs_pipeline.cli.console import money, out, print_json, severity, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from decimal import Decimal

    from obs_pipeline.detection.explanations import Explanation
    from obs_pipeline.detection.models import Anomaly
    from obs_pipeline.detection.spikes import Amount, AnomalyReport, Contribution

_COMPARED: Final = timedelta(days=7)
_ROWS: Final = 6
_USERS: Final = 4
_REFERENCE: Final = "[dim]mean of the reference minus the expected value[/]"


def explain(
    anomaly_id: Annotated[str, typer.Argument(help="The anomaly's id, or the beginning of it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Take an anomaly apart: its **likely cause**, the deviation split into volume, model mix, tokens per call, cache,
    price and errors, and which models, users and operations it consists of.

    The terms add up to observed minus expected exactly. They compare with the days the detector learned from, the
    tables below them with the seven days before.
    """
    workspace = open_workspace()
    anomaly = _find(workspace, anomaly_id)
    explanation = explanation_of(workspace, anomaly)
    report = _report(workspace, anomaly)
    if as_json:
        print_json({"anomaly": asdict(anomaly), "explanation": _plain(explanation), "report": asdict(report)})
        return
    out.print(_headline(anomaly, report))
    out.print(f"likely cause: [bold]{text(explanation.cause.name)}[/] — {text(explanation.cause.because)}")
    out.print(_terms(explanation))
    for title, contributions in (("model", report.models), ("user", report.users), ("operation", report.operations)):
        out.print(_contributions(title, report, contributions))
    out.print(_largest(report))


def _find(workspace: Workspace, anomaly_id: str) -> Anomaly:
    from obs_pipeline.dashboard import queries

    with workspace.engine() as connection:
        found = queries.anomaly_by_id(connection, workspace.lake, anomaly_id)
    if len(found) > 1:
        raise ObsError(f"{anomaly_id} is the beginning of several ids: {', '.join(one.id for one in found)} …")
    if not found:
        raise ObsError(f"There is no anomaly {anomaly_id}. 'obs-pipeline anomalies' lists them with their ids.")
    return found[0]


def _report(workspace: Workspace, anomaly: Anomaly) -> AnomalyReport:
    from obs_pipeline.dashboard import queries
    from obs_pipeline.detection.config import GRAIN_LENGTH
    from obs_pipeline.detection.spikes import BaselineWindow, analyze_spikes

    start = anomaly.timestamp
    end = start + GRAIN_LENGTH[anomaly.grain]
    series = (anomaly.org, anomaly.project, anomaly.agent)
    with workspace.engine() as connection:
        events = queries.events_between(connection, workspace.lake, series, start, end)
        before = queries.events_between(connection, workspace.lake, series, start - _COMPARED, start)
    baseline = BaselineWindow(before, start - _COMPARED, start) if before.num_rows else None
    return analyze_spikes(events, anomaly.agent, anomaly.metric, start, end, baseline)


def explanation_of(workspace: Workspace, anomaly: Anomaly) -> Explanation:
    """An anomaly taken apart by the events that are in the lake now, at the prices of now."""
    from obs_pipeline.detection.batch import settings_in
    from obs_pipeline.detection.explanations import explain_anomalies, list_rates

    lookback_days = settings_in(workspace.settings.policies).lookback_days
    rates = partial(list_rates, workspace.prices())
    with workspace.engine() as connection:
        (found,) = explain_anomalies(connection, workspace.lake, [anomaly], lookback_days, rates)
    return found


def _plain(explanation: Explanation) -> dict[str, object]:
    split = explanation.split
    return {
        "cause": explanation.cause.name,
        "because": explanation.cause.because,
        "unit": split.unit,
        "observed": f"{split.observed:f}",
        "expected": f"{split.expected:f}",
        "deviation": f"{split.deviation:f}",
        "terms": [
            {
                "name": term.name,
                "amount": f"{term.amount:f}",
                "by_model": [_pair("model", one) for one in term.by_model],
            }
            for term in split.terms
        ],
        "by_user": [_pair("user", one) for one in split.by_user],
        "unpriced_calls": split.unpriced_calls,
        "reference_start": explanation.reference_start,
        "reference_end": explanation.anomaly.timestamp,
    }


def _pair(name: str, one: tuple[str | None, Decimal]) -> dict[str, object]:
    return {name: one[0], "amount": f"{one[1]:f}"}


def _terms(explanation: Explanation) -> Table:
    from obs_pipeline.detection.pictures.waterfall import amount_text

    split = explanation.split
    since = f"{explanation.reference_start:%Y-%m-%d}"
    table = Table("", "amount", "most of it by", title=f"{split.unit}, compared with the mean since {since}")
    table.title_justify = "left"
    table.columns[1].justify = "right"
    table.add_row("expected", amount_text(split, split.expected), "")
    for term in split.terms:
        if term.amount:
            leading = ", ".join(f"{text(model)} {amount_text(split, part)}" for model, part in term.by_model[:2])
            sign = "+" if term.amount > 0 else ""
            table.add_row(term.name, f"{sign}{amount_text(split, term.amount)}", leading or _REFERENCE)
    table.add_row("[bold]observed[/]", f"[bold]{amount_text(split, split.observed)}[/]", "")
    notes = []
    if len(split.by_user) > 1:
        users = (f"{text(user)} {amount_text(split, part)}" for user, part in split.by_user[:_USERS])
        notes.append(f"by user: {', '.join(users)}{' …' if len(split.by_user) > _USERS else ''}")
    if split.unpriced_calls:
        notes.append(f"{split.unpriced_calls:,} of the calls have no known price and are in no term")
    table.caption, table.caption_justify = "\n".join(notes) or None, "left"
    return table


def _headline(anomaly: Anomaly, report: AnomalyReport) -> Panel:
    span = "no calls" if report.began is None else f"{report.began:%Y-%m-%d %H:%M:%S} … {report.peaked:%H:%M:%S} UTC"
    lines = [
        f"{severity(anomaly.severity)} · score {anomaly.score:.0f} · confidence {anomaly.confidence:.0%} · "
        f"{text(anomaly.method)}",
        "",
        text(anomaly.reason),
        "",
        f"observed [bold]{measure(anomaly.metric, anomaly.observed)}[/]  expected "
        f"{measure(anomaly.metric, anomaly.baseline)}  band {measure(anomaly.metric, anomaly.lower)} … "
        f"{measure(anomaly.metric, anomaly.upper)}",
        f"{report.calls:,} calls, worst stretch {span}",
    ]
    if report.unknown_calls:
        lines.append(f"{report.unknown_calls:,} of the calls have no known amount and count as nothing here")
    where = " / ".join(text(part) for part in (anomaly.org, anomaly.project, anomaly.agent))
    title = f"{where}: {anomaly.metric} of the {anomaly.grain} {anomaly.timestamp:%Y-%m-%d %H:%M}"
    return Panel("\n".join(lines), title=title, title_align="left", expand=False)


def _contributions(title: str, report: AnomalyReport, contributions: tuple[Contribution, ...]) -> Table:
    table = Table(title, "calls", "observed", "week before", "difference", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for one in contributions[:_ROWS]:
        table.add_row(
            text(one.key),
            f"{one.calls:,}",
            _amount(report, one.observed),
            "—" if one.baseline is None else _amount(report, one.baseline),
            _amount(report, one.difference),
            f"{one.share:.1%}",
        )
    rest = contributions[_ROWS:]
    if rest:
        observed = sum((one.observed for one in rest), start=type(rest[0].observed)(0))
        calls = sum(one.calls for one in rest)
        table.add_row(f"{len(rest)} more", f"{calls:,}", _amount(report, observed), "", "", "")
    return table


def _largest(report: AnomalyReport) -> Table:
    table = Table("largest calls (UTC)", "event", "model", "user", "observed", "share")
    for call in report.largest_calls:
        table.add_row(
            f"{call.time:%Y-%m-%d %H:%M:%S}",
            text(call.event_id),
            text(call.model),
            text(call.user_id),
            _amount(report, call.observed),
            f"{call.share:.1%}",
        )
    return table


def _amount(report: AnomalyReport, value: Amount) -> str:
    if report.metric == "cost":
        return money(value)
    return f"{value:,.0f} ms" if report.metric == "latency" else f"{value:,.0f}"
