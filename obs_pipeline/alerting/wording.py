"""From a decided notification to the words of its message and of its task.

Holds which facts are told, in which order and units. How they look is in ``rendering``; whether anything is told at all
is decided in ``pipeline``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from urllib.parse import quote, urlencode

from obs_pipeline.alerting.models import Incident, Kind, Notification, TaskTemplate
from obs_pipeline.alerting.rendering import Fact, Item, Link, Message, Picture, places, plain, tally, text_of
from obs_pipeline.alerting.trackers import Task

_NAMED_AGENTS: Final = 5
_PLAIN_REASONS: Final = frozenset({"", "new"})
_FIRST_STEPS: Final[Mapping[Kind, Fact]] = {
    "anomaly": Fact("See what it is made of", "obs-pipeline explain {anomaly}"),
    "budget": Fact("Slow the spender down, or raise the budget in its policy file", ""),
    "run_failure": Fact("Mend the cause and run it again; Dagster's page has the whole story", ""),
    "failed_check": Fact("Look at the examples on the check's page; the numbers are computed all the same", ""),
    "refused_file": Fact("Read the reason beside it in the folder refused; mend it and drop it again", ""),
    "stale_source": Fact("Check that it runs and its files arrive; until then its usage is unknown, not zero", ""),
    "sync_conflict": Fact("See what to mend; what was in force stays in force", "obs-pipeline policies lint"),
}
_REASONS: Final = 3
_KEPT_DECIMALS: Final = 9
_DIGITS: Final = re.compile(r"[\d,.]+")


@dataclass(frozen=True)
class Chart:
    """What is known of an incident's series: the latest values, and a picture of them against their band."""

    series: tuple[float, ...] = ()
    picture: Picture | None = None


@dataclass(frozen=True)
class Pages:
    """Where links lead: the dashboard and Dagster's page, as far as they are known."""

    dashboard: str = ""
    dagster: str = ""


def message_of(notification: Notification, pages: Pages | None = None, chart: Chart | None = None) -> Message:
    """The message of a notification."""
    incidents = notification.incidents
    one = len(incidents) == 1 and notification.state != "digest"
    drawn = chart or Chart()
    return Message(
        key=notification.key,
        thread=notification.thread,
        severity="info" if notification.state == "resolved" else notification.severity,
        subject=_subject_of_one(notification) if one else _subject_of_many(notification),
        lead=_lead_of_one(notification) if one else _lead_of_many(notification),
        steps=tuple(_steps(notification)),
        is_over=notification.state == "resolved",
        facts=tuple(_facts(incidents[0])) if one else (),
        items=() if one else tuple(_item(incident) for incident in incidents),
        links=tuple(_links(notification, pages or Pages(), one=one)),
        series=drawn.series if one else (),
        picture=drawn.picture if one else None,
    )


def task_of(notification: Notification, message: Message, template: TaskTemplate) -> Task:
    """The task of the one incident that the notification is about."""
    [incident] = notification.incidents
    return Task(
        key=incident.id,
        title=title_of(incident),
        body=text_of(message),
        priority=template.priority,
        labels=template.labels,
        assignee=template.assignee or None,
    )


def title_of(incident: Incident) -> str:
    """Who, what and how much, short enough for a subject line. The whole sentence is the headline."""
    if incident.kind == "stale_source":
        return plain(f"{incident.source}: silent for {span(incident.last_seen_at - incident.began_at)}")
    if incident.kind != "anomaly" or incident.observed is None or incident.expected is None:
        return plain(incident.headline)
    who = incident.agent or incident.project or incident.org or "no organisation"
    if len(incident.agents) > 1 and not incident.agent:
        who = f"{len(incident.agents):,} agents of {who}"
    numbers = f"{amount(incident.observed, incident.metric)}, usually {amount(incident.expected, incident.metric)}"
    return plain(f"{who}: {incident.metric} {numbers}")


def _subject_of_one(notification: Notification) -> str:
    [incident] = notification.incidents
    title = title_of(incident)
    if notification.state == "resolved":
        return f"Resolved: {title}"
    if incident.correction:
        return f"Corrected: {title}"
    if incident.episode:
        return f"Again: {title}"
    return title


def _subject_of_many(notification: Notification) -> str:
    count = len(notification.incidents)
    what = f"{count:,} incident" + ("" if count == 1 else "s")
    if notification.state == "digest":
        return f"Digest: {what} held back"
    group = ", ".join(f"{name} {value}" for name, value in notification.group.items() if value)
    about = f" of {group}" if group else ""
    return f"Resolved: {what}{about}" if notification.state == "resolved" else f"{what}{about}"


def _lead_of_one(notification: Notification) -> str:
    """Why it is told, since when it lasts, what it cost."""
    [incident] = notification.incidents
    said = incident.resolution if notification.state == "resolved" else incident.correction
    reason = "" if notification.reason in {*_PLAIN_REASONS, said} else notification.reason
    parts = (said, reason, _since(incident), _cost(incident))
    return " ".join(_sentence(part) for part in parts if part)


def _since(incident: Incident) -> str:
    length = _end(incident) - incident.began_at
    if incident.kind == "budget":
        return f"In the period from {_time(incident.began_at)} to {_time(incident.last_seen_at)}"
    if not incident.active:
        return f"It lasted {span(length)}" if length else ""
    lasting = f", for {span(length)}" if length >= timedelta(minutes=1) else ""
    return f"Since {_time(incident.began_at)}{lasting}"


def _end(incident: Incident) -> datetime:
    """Of usage when it was last abnormal; of what lasts until it is reported over, when that was."""
    if incident.kind in ("anomaly", "budget") or incident.resolved_at is None:
        return incident.last_seen_at
    return incident.resolved_at


def _cost(incident: Incident) -> str:
    if not incident.cost_effect:
        return ""
    beside = "over the limit" if incident.kind == "budget" else "so far" if incident.active else "in all"
    return f"{money(incident.cost_effect)} {beside}"


def _steps(notification: Notification) -> Iterator[Fact]:
    """What whoever reads this may do now."""
    if notification.state == "resolved":
        return
    if len(notification.incidents) != 1 or notification.state == "digest":
        yield Fact("See them all", "obs-pipeline alerts list")
        return
    [incident] = notification.incidents
    if incident.active:
        first = _FIRST_STEPS[incident.kind]
        worst = incident.signal_ids[-1] if incident.signal_ids else "ID"
        yield Fact(first.label, first.value.format(anomaly=worst))
        yield Fact("Say that you are on it", f"obs-pipeline alerts ack {incident.id}")


def _lead_of_many(notification: Notification) -> str:
    items = [_item(incident) for incident in notification.incidents]
    reason = "" if notification.reason in _PLAIN_REASONS else notification.reason
    where = places(items)
    parts = [_sentence(reason), _sentence(tally(items)), _sentence(f"In {where}" if where else "")]
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
    return Item(title_of(incident), incident.severity, project or incident.source, remark)


def _facts(incident: Incident) -> Iterator[Fact]:
    if incident.active and incident.headline != title_of(incident):
        yield Fact("What", incident.headline)
    if incident.scope:
        yield Fact("Where", incident.scope)
    if len(incident.agents) > 1:
        yield Fact("Agents", _listed(incident.agents))
    if incident.kind == "budget" and incident.observed is not None and incident.expected is not None:
        yield Fact("Spent", amount(incident.observed, incident.metric))
        yield Fact("Limit", amount(incident.expected, incident.metric))
    if not incident.active:
        yield Fact("Began", _time(incident.began_at))
        yield Fact("Ended", _time(_end(incident)))
        return
    if incident.kind == "anomaly":
        yield Fact("Confidence", f"{incident.confidence:.0%}")
    for reason in _reasons(incident):
        yield Fact("Also", reason)
    if incident.acknowledged_by:
        yield Fact("On it", incident.acknowledged_by)


def _reasons(incident: Incident) -> list[str]:
    """What else was found; of findings that differ in nothing but numbers only the worst, which comes first."""
    kinds = {_DIGITS.sub("", reason): reason for reason in reversed(incident.explanation)}
    own = _DIGITS.sub("", incident.headline)
    others = [reason for kind, reason in reversed(kinds.items()) if kind not in own]
    return others[:_REASONS]


def _links(notification: Notification, pages: Pages, *, one: bool) -> Iterator[Link]:
    dashboard, dagster = pages.dashboard.rstrip("/"), pages.dagster.rstrip("/")
    first = notification.incidents[0]
    if dashboard and one:
        places = {"orgId": first.org, "projectId": first.project, "agentId": first.agent, "incidentId": first.id}
        filters = urlencode({name: value for name, value in places.items() if value}, quote_via=quote)
        yield Link("Open the incident", f"{dashboard}/?{filters}")
    elif dashboard:
        yield Link("Open the dashboard", f"{dashboard}/")
    if dagster and one and first.page:
        yield Link("See it in Dagster", f"{dagster}/{quote(first.page, safe='/?=&')}")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED_AGENTS
    return ", ".join(names[:_NAMED_AGENTS]) + (f" and {more:,} more" if more > 0 else "")


def amount(value: float, metric: str) -> str:
    """A value in its metric's unit: USD, a share of calls, milliseconds or seconds, a count."""
    if metric == "cost":
        return f"{'-' if value < 0 else ''}{_dollars(Decimal(value))}"
    if metric == "errors":
        return f"{value:.1%}"
    if metric == "latency":
        return f"{value / 1000:,.1f} s" if value >= 1000 else f"{value:,.0f} ms"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def money(value: Decimal) -> str:
    """USD to the cent, or below a dime to its first two digits, with its sign."""
    return f"{'-' if value < 0 else '+'}{_dollars(value)}"


def _dollars(value: Decimal) -> str:
    """Without a sign. What is there is never told as nothing, down to the billionth of a dollar that money is kept to."""
    size = abs(value)
    decimals = min(max(2, 1 - size.adjusted()), _KEPT_DECIMALS) if size else 2
    whole, _, cents = f"{size:,.{decimals}f}".partition(".")
    return f"${whole}.{cents.rstrip('0'):0<2}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def span(length: timedelta) -> str:
    """``3 d 4 h``, ``2 h 5 min``, ``12 min``, in whole minutes."""
    minutes = int(length.total_seconds() // 60)
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "less than a minute"
