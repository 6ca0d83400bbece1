"""From a decided notification to the words of its message and of its task.

Holds which facts are told, in which order and units. How they look is in ``rendering``; whether anything is told at all
is decided in ``pipeline``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from urllib.parse import quote

from obs_pipeline.alerting.models import Incident, Notification, TaskTemplate
from obs_pipeline.alerting.rendering import Fact, Item, Link, Message, Picture, places, plain, tally, text_of
from obs_pipeline.alerting.trackers import Task

_NAMED_AGENTS: Final = 5
_REASONS: Final = 3


@dataclass(frozen=True)
class Chart:
    """What is known of an incident's series: the latest values, and a picture of them against their band."""

    series: tuple[float, ...] = ()
    picture: Picture | None = None


def message_of(notification: Notification, dashboard_url: str = "", chart: Chart | None = None) -> Message:
    """The message of a notification. ``dashboard_url`` is where links lead; there are none without it."""
    incidents = notification.incidents
    one = len(incidents) == 1 and notification.state != "digest"
    drawn = chart or Chart()
    return Message(
        key=notification.key,
        thread=notification.thread,
        severity="info" if notification.state == "resolved" else notification.severity,
        subject=_subject_of_one(notification) if one else _subject_of_many(notification),
        lead=_lead_of_one(notification) if one else _lead_of_many(notification),
        facts=tuple(_facts(incidents[0])) if one else (),
        items=() if one else tuple(_item(incident) for incident in incidents),
        links=tuple(_links(notification, dashboard_url, one=one)),
        series=drawn.series if one else (),
        picture=drawn.picture if one else None,
    )


def task_of(notification: Notification, message: Message, template: TaskTemplate) -> Task:
    """The task of the one incident that the notification is about."""
    [incident] = notification.incidents
    return Task(
        key=incident.id,
        title=plain(incident.headline),
        body=text_of(message),
        priority=template.priority,
        labels=template.labels,
        assignee=template.assignee or None,
    )


def _subject_of_one(notification: Notification) -> str:
    [incident] = notification.incidents
    if notification.state == "resolved":
        return f"Resolved: {incident.headline}"
    if incident.correction:
        return f"Corrected: {incident.headline}"
    if incident.episode:
        return f"Again: {incident.headline}"
    return incident.headline


def _subject_of_many(notification: Notification) -> str:
    count = len(notification.incidents)
    what = f"{count:,} incident" + ("" if count == 1 else "s")
    if notification.state == "digest":
        return f"Digest: {what} held back"
    group = ", ".join(f"{name} {value}" for name, value in notification.group.items() if value)
    about = f" of {group}" if group else ""
    return f"Resolved: {what}{about}" if notification.state == "resolved" else f"{what}{about}"


def _lead_of_one(notification: Notification) -> str:
    [incident] = notification.incidents
    said = incident.resolution if notification.state == "resolved" else incident.correction
    return " ".join(sentence for sentence in (_sentence(said), _sentence(notification.reason)) if sentence)


def _lead_of_many(notification: Notification) -> str:
    items = [_item(incident) for incident in notification.incidents]
    where = places(items)
    parts = [_sentence(notification.reason), _sentence(tally(items)), _sentence(f"In {where}" if where else "")]
    return " ".join(part for part in parts if part)


def _sentence(text: str) -> str:
    stripped = text.strip()
    if not stripped:
        return ""
    begun = stripped[0].upper() + stripped[1:]
    return begun if begun[-1] in ".!?" else begun + "."


def _item(incident: Incident) -> Item:
    remark = "" if incident.active else f"over since {_time(incident.resolved_at)}" if incident.resolved_at else "over"
    project = "/".join(part for part in (incident.org, incident.project) if part)
    return Item(incident.headline, incident.severity, project or incident.source, remark)


def _facts(incident: Incident) -> Iterator[Fact]:
    if incident.scope:
        yield Fact("Where", incident.scope)
    if len(incident.agents) > 1:
        yield Fact("Agents", _listed(incident.agents))
    metrics = incident.metrics or ((incident.metric,) if incident.metric else ())
    if metrics:
        yield Fact("What", ", ".join(metrics))
    if incident.observed is not None:
        yield Fact("Observed", amount(incident.observed, incident.metric))
    if incident.expected is not None:
        yield Fact("Expected", amount(incident.expected, incident.metric))
    if incident.cost_effect is not None:
        yield Fact("Cost effect", money(incident.cost_effect))
    yield Fact("Began", _time(incident.began_at))
    if incident.resolved_at is not None:
        yield Fact("Ended", f"{_time(incident.last_seen_at)}, after {span(incident.last_seen_at - incident.began_at)}")
    elif incident.last_seen_at > incident.began_at:
        yield Fact("Last seen", _time(incident.last_seen_at))
    if incident.kind == "anomaly":
        yield Fact("Confidence", f"{incident.confidence:.0%}")
    for reason in incident.explanation[:_REASONS]:
        yield Fact("Why", reason)
    if incident.acknowledged_by:
        yield Fact("Acknowledged by", incident.acknowledged_by)


def _links(notification: Notification, dashboard_url: str, *, one: bool) -> Iterator[Link]:
    root = dashboard_url.rstrip("/")
    if not root:
        return
    if one:
        yield Link("Open the incident", f"{root}/incidents/{quote(notification.incidents[0].id, safe='')}")
    else:
        yield Link("All open incidents", f"{root}/incidents")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AGENTS
    return ", ".join(names[:_NAMED_AGENTS]) + (f" and {more:,} more" if more > 0 else "")


def amount(value: float, metric: str) -> str:
    """A value in its metric's unit: USD, a share of calls, milliseconds or seconds, a count."""
    if metric == "cost":
        return f"${value:,.2f}"
    if metric == "errors":
        return f"{value:.1%}"
    if metric == "latency":
        return f"{value / 1000:,.1f} s" if value >= 1000 else f"{value:,.0f} ms"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def money(value: Decimal) -> str:
    """Exact USD to the cent, with its sign."""
    return f"{'-' if value < 0 else '+'}${abs(value):,.2f}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def span(length: timedelta) -> str:
    """``3 d 4 h``, ``2 h 5 min``, ``12 min``, in whole minutes."""
    minutes = int(length.total_seconds() // 60)
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "less than a minute"
