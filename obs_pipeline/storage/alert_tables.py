"""The alerting tables of the ledger, a row class each, and how one becomes the other.

Knows rows, not alerts: contents are JSON text, ids and keys are given. Times are UTC without a zone. What is asked of the
tables is in ``alert_pass`` (while deciding) and ``alert_store`` (everything else).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from obs_pipeline.storage.ledger import metadata

alert_incidents: Final = sa.Table(
    "alert_incidents",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("severity", sa.String(20), nullable=False),
    sa.Column("status", sa.String(20), nullable=False, index=True),
    sa.Column("org", sa.Text, nullable=False),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("opened_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False, index=True),
    sa.Column("content", sa.Text, nullable=False, comment="JSON object: the whole incident"),
)

alert_signals: Final = sa.Table(
    "alert_signals",
    metadata,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("incident_id", sa.ForeignKey("alert_incidents.id"), nullable=False, index=True),
    sa.Column("content", sa.Text, nullable=False, comment="JSON object: what was found"),
)

alert_memory: Final = sa.Table(
    "alert_memory",
    metadata,
    sa.Column("route", sa.String(200), primary_key=True),
    sa.Column("incident_id", sa.ForeignKey("alert_incidents.id"), primary_key=True),
    sa.Column("content", sa.Text, nullable=False, comment="JSON object: what this route has told of it, or holds back"),
)

alert_traces: Final = sa.Table(
    "alert_traces",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("incident_id", sa.ForeignKey("alert_incidents.id"), nullable=False, index=True),
    sa.Column("route", sa.String(200), nullable=False),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False, index=True, comment="since when this is so"),
    sa.Column("content", sa.Text, nullable=False, comment="JSON object: stage, reason and what decided"),
    sqlite_autoincrement=True,
)

alert_outbox: Final = sa.Table(
    "alert_outbox",
    metadata,
    sa.Column("key", sa.String(40), primary_key=True, comment="idempotency key"),
    sa.Column("route", sa.String(200), nullable=False),
    sa.Column("receiver", sa.String(200), nullable=False),
    sa.Column("channel", sa.String(40), nullable=False),
    sa.Column("message_state", sa.String(20), nullable=False, comment="firing, resolved or digest"),
    sa.Column("severity", sa.String(20), nullable=False),
    sa.Column("thread", sa.String(40), nullable=False, index=True),
    sa.Column("decided_at", sa.DateTime, nullable=False, index=True),
    sa.Column("content", sa.Text, nullable=False, comment="JSON object: the whole notification"),
    sa.Column("state", sa.String(20), nullable=False, comment="due, sent or parked"),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", sa.DateTime, nullable=False),
    sa.Column("claimed_by", sa.String(80), nullable=False),
    sa.Column("claimed_until", sa.DateTime),
    sa.Column("sent_at", sa.DateTime),
    sa.Column("remote_id", sa.Text),
    sa.Column("detail", sa.Text, nullable=False, comment="what the last attempt said; no secrets"),
    sa.Index("ix_alert_outbox_due", "state", "next_attempt_at"),
)

alert_deliveries: Final = sa.Table(
    "alert_deliveries",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.ForeignKey("alert_outbox.key"), nullable=False, index=True),
    sa.Column("channel", sa.String(40), nullable=False),
    sa.Column("worker", sa.String(80), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(20), nullable=False, comment="sent, retry, refused, postponed, released"),
    sa.Column("at", sa.DateTime, nullable=False, index=True),
    sa.Column("milliseconds", sa.BigInteger, nullable=False, comment="how long the channel took"),
    sa.Column("detail", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

alert_silences: Final = sa.Table(
    "alert_silences",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("matchers", sa.Text, nullable=False, comment="JSON object: label to what it must be"),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("starts_at", sa.DateTime, nullable=False),
    sa.Column("ends_at", sa.DateTime, nullable=False, index=True),
)

alert_tasks: Final = sa.Table(
    "alert_tasks",
    metadata,
    sa.Column("incident_id", sa.ForeignKey("alert_incidents.id"), primary_key=True),
    sa.Column("tracker", sa.String(40), primary_key=True),
    sa.Column("task_id", sa.String(200), nullable=False, comment="its name in the tracker"),
    sa.Column("url", sa.Text),
    sa.Column("state", sa.String(20), nullable=False, comment="open or closed"),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("priority", sa.String(20), nullable=False),
    sa.Column("assignee", sa.String(200), nullable=False),
    sa.Column("labels", sa.Text, nullable=False, comment="JSON array"),
    sa.Column("opened_at", sa.DateTime, nullable=False),
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("closed_at", sa.DateTime),
)

alert_feedback: Final = sa.Table(
    "alert_feedback",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("incident_id", sa.ForeignKey("alert_incidents.id"), nullable=False, index=True),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("verdict", sa.String(20), nullable=False, comment="real, false_positive or planned"),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sqlite_autoincrement=True,
)

alert_heartbeats: Final = sa.Table(
    "alert_heartbeats",
    metadata,
    sa.Column("name", sa.String(80), primary_key=True, comment="who beats"),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)

route_revisions: Final = sa.Table(
    "route_revisions",
    metadata,
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("digest", sa.String(64), nullable=False, comment="of the file's text"),
    sa.Column("content", sa.Text, nullable=False, comment="the file, as it came into force"),
    sa.Column("in_force_since", sa.DateTime, nullable=False),
    sqlite_autoincrement=True,
)

_IN_ONE_QUERY: Final = 500


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """One incident; the columns beside ``content`` are what lists are filtered and ordered by."""

    id: str
    kind: str
    severity: str
    status: str
    org: str
    project: str
    agent: str
    opened_at: datetime
    updated_at: datetime
    content: str


@dataclass(frozen=True, slots=True)
class SignalRow:
    id: str
    incident_id: str
    content: str


@dataclass(frozen=True, slots=True)
class MemoryRow:
    route: str
    incident_id: str
    content: str


@dataclass(frozen=True, slots=True)
class TraceRow:
    incident_id: str
    route: str
    outcome: str
    at: datetime
    content: str


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One message for one receiver and where it stands. ``state`` is ``due``, ``sent`` or ``parked``."""

    key: str
    route: str
    receiver: str
    channel: str
    message_state: str
    severity: str
    thread: str
    decided_at: datetime
    content: str
    state: str
    attempts: int
    next_attempt_at: datetime
    claimed_by: str = ""
    claimed_until: datetime | None = None
    sent_at: datetime | None = None
    remote_id: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One attempt, whose ``outcome`` is ``sent``, ``retry`` or ``refused``; or a message that was ``postponed`` by the worker
    or ``released`` by the person that ``worker`` names."""

    key: str
    channel: str
    worker: str
    attempt: int
    outcome: str
    at: datetime
    milliseconds: int
    detail: str


@dataclass(frozen=True, slots=True)
class SilenceRow:
    id: str
    matchers: str
    author: str
    reason: str
    created_at: datetime
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One incident's task in one tracker; of the ledger's own tracker this row is the task."""

    incident_id: str
    tracker: str
    task_id: str
    url: str | None
    state: str
    title: str
    body: str
    priority: str
    assignee: str
    labels: str
    opened_at: datetime
    updated_at: datetime
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FeedbackRow:
    incident_id: str
    author: str
    verdict: str
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RouteRevision:
    revision: int
    digest: str
    content: str
    in_force_since: datetime


AnyRow = (
    IncidentRow
    | SignalRow
    | MemoryRow
    | TraceRow
    | OutboxRow
    | DeliveryRow
    | SilenceRow
    | TaskRow
    | FeedbackRow
    | RouteRevision
)
Kept = TypeVar("Kept", bound=AnyRow)


def selected(table: sa.Table, kind: type[Any]) -> sa.Select[Any]:
    return sa.select(*(table.c[one.name] for one in fields(kind)))


def rows_of(connection: Connection, kind: type[Kept], query: sa.Select[Any]) -> list[Kept]:
    return [kind(*row) for row in connection.execute(query)]


def values_of(row: AnyRow) -> dict[str, Any]:
    return {one.name: getattr(row, one.name) for one in fields(row)}


def batches(values: Iterable[str]) -> Iterator[list[str]]:
    """Few enough at a time for any database's limit on parameters."""
    left = iter(values)
    while some := list(islice(left, _IN_ONE_QUERY)):
        yield some
