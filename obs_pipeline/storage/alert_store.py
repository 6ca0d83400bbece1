"""The alerting tables of the ledger: incidents, what was decided about them, the outbox and what became of it.

Knows rows, not alerts: contents are JSON text, ids and keys are given. What belongs together, what is told and how a
message is sent is the alerting room's business. Times are UTC without a zone.

The outbox is claimed with a lease: a row belongs to one worker until ``claimed_until``, and to anybody after that, so a
worker that was killed loses nothing. A delivery is recorded after the send.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from obs_pipeline.storage.ledger import Ledger, metadata

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
    sa.Column("outcome", sa.String(20), nullable=False, comment="sent, retry or refused"),
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
    sa.Column("verdict", sa.String(20), nullable=False, comment="real or false_positive"),
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

_PASS: Final = "pass"
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
    """One attempt; ``outcome`` is ``sent``, ``retry`` or ``refused``."""

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


class AlertPass:
    """One transaction in which decisions are taken and kept; one at a time over all processes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def incidents(self, resolved_since: datetime) -> list[IncidentRow]:
        """Those that are not resolved, and those that changed at or after ``resolved_since``."""
        wanted = sa.or_(alert_incidents.c.status != "resolved", alert_incidents.c.updated_at >= resolved_since)
        return _rows(self._connection, IncidentRow, _select(alert_incidents, IncidentRow).where(wanted))

    def signals(self, incident_ids: Iterable[str]) -> list[SignalRow]:
        return self._of_incidents(alert_signals, SignalRow, incident_ids)

    def memory(self, incident_ids: Iterable[str]) -> list[MemoryRow]:
        return self._of_incidents(alert_memory, MemoryRow, incident_ids)

    def last_traces(self, incident_ids: Iterable[str]) -> list[TraceRow]:
        """The newest trace of every incident and route."""
        found: list[TraceRow] = []
        for some in _batches(incident_ids):
            newest = (
                sa.select(sa.func.max(alert_traces.c.number))
                .where(alert_traces.c.incident_id.in_(some))
                .group_by(alert_traces.c.incident_id, alert_traces.c.route)
            )
            query = _select(alert_traces, TraceRow).where(alert_traces.c.number.in_(newest))
            found += _rows(self._connection, TraceRow, query)
        return found

    def decided_since(self, since: datetime) -> list[tuple[str, str, datetime]]:
        """(route, message state, decided at) of the messages decided later than ``since``, one a decision."""
        columns = (alert_outbox.c.route, alert_outbox.c.message_state, alert_outbox.c.decided_at, alert_outbox.c.thread)
        query = sa.select(*columns).where(alert_outbox.c.decided_at > since).distinct()
        return [(route, state, at) for route, state, at, _ in self._connection.execute(query)]

    def silences(self, now: datetime) -> list[SilenceRow]:
        """Those in force at ``now``."""
        in_force = sa.and_(alert_silences.c.starts_at <= now, alert_silences.c.ends_at > now)
        return _rows(self._connection, SilenceRow, _select(alert_silences, SilenceRow).where(in_force))

    def keep_incidents(self, rows: Iterable[IncidentRow]) -> None:
        self._replace(alert_incidents, rows)

    def keep_signals(self, rows: Iterable[SignalRow]) -> None:
        self._replace(alert_signals, rows)

    def drop_signals(self, signal_ids: Iterable[str]) -> None:
        for some in _batches(signal_ids):
            self._connection.execute(sa.delete(alert_signals).where(alert_signals.c.id.in_(some)))

    def keep_memory(self, rows: Iterable[MemoryRow]) -> None:
        self._replace(alert_memory, rows)

    def add_traces(self, rows: Iterable[TraceRow]) -> None:
        self._insert(alert_traces, rows)

    def enqueue(self, rows: Iterable[OutboxRow]) -> int:
        """Put messages into the outbox; those whose key is in it already are left as they are. How many were new."""
        listed = {row.key: row for row in rows}
        known: set[str] = set()
        for some in _batches(listed):
            query = sa.select(alert_outbox.c.key).where(alert_outbox.c.key.in_(some))
            known.update(self._connection.scalars(query))
        return self._insert(alert_outbox, [row for key, row in listed.items() if key not in known])

    def _of_incidents(self, table: sa.Table, kind: type[Kept], incident_ids: Iterable[str]) -> list[Kept]:
        found: list[Kept] = []
        for some in _batches(incident_ids):
            query = _select(table, kind).where(table.c.incident_id.in_(some))
            found += _rows(self._connection, kind, query)
        return found

    def _insert(self, table: sa.Table, rows: Iterable[AnyRow]) -> int:
        listed = [_values(row) for row in rows]
        if listed:
            self._connection.execute(sa.insert(table), listed)
        return len(listed)

    def _replace(self, table: sa.Table, rows: Iterable[AnyRow]) -> None:
        """Update those whose primary key is there, insert the others."""
        names = [column.name for column in table.primary_key]
        values = {tuple(getattr(row, name) for name in names): _values(row) for row in rows}
        there = self._present(table, names, values)
        others = [column.name for column in table.columns if column.name not in names]
        change = sa.update(table).where(*(table.c[name] == sa.bindparam(f"its_{name}") for name in names))
        change = change.values({name: sa.bindparam(name) for name in others})
        updates = [
            {**{f"its_{name}": value[name] for name in names}, **{name: value[name] for name in others}}
            for key, value in values.items()
            if key in there
        ]
        new = [value for key, value in values.items() if key not in there]
        if updates:
            self._connection.execute(change, updates)
        if new:
            self._connection.execute(sa.insert(table), new)

    def _present(self, table: sa.Table, names: Sequence[str], keys: Iterable[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
        # Asked by the last column of the key alone: pairs in a list are not portable.
        last = table.c[names[-1]]
        columns = [table.c[name] for name in names]
        found: set[tuple[Any, ...]] = set()
        for some in _batches(dict.fromkeys(key[-1] for key in keys)):
            found.update(tuple(row) for row in self._connection.execute(sa.select(*columns).where(last.in_(some))))
        return found


class AlertStore:
    """The alerting tables of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @contextmanager
    def deciding(self, now: datetime) -> Iterator[AlertPass]:
        """A transaction for one pass: everything decided in the block is kept, or nothing. Leaves a heartbeat."""
        self._make_sure_of_heartbeat(_PASS, now)
        with self._ledger.begin() as connection:
            # SQLite has one writer anyway; elsewhere this row is what makes passes take turns.
            row = sa.select(alert_heartbeats.c.at).where(alert_heartbeats.c.name == _PASS).with_for_update()
            connection.execute(row).all()
            yield AlertPass(connection)
            connection.execute(sa.update(alert_heartbeats).where(alert_heartbeats.c.name == _PASS).values(at=now))

    @contextmanager
    def looking(self) -> Iterator[AlertPass]:
        """A snapshot to decide by without keeping anything."""
        with self._ledger.read() as connection:
            yield AlertPass(connection)

    # -- outbox -------------------------------------------------------------------------------------------------------

    def has_due(self, now: datetime) -> bool:
        """Whether a message waits that nobody is sending."""
        with self._ledger.read() as connection:
            return connection.scalar(sa.select(alert_outbox.c.key).where(_due(now)).limit(1)) is not None

    def claim(self, worker: str, now: datetime, until: datetime, limit: int = 50) -> list[OutboxRow]:
        """Take up to ``limit`` due messages, oldest first; they are this worker's alone until ``until``.

        ``attempts`` is counted up by the claim, so an attempt that killed its worker counts too.
        """
        with self._ledger.begin() as connection:
            oldest = (
                sa.select(alert_outbox.c.key)
                .where(_due(now))
                .order_by(alert_outbox.c.next_attempt_at, alert_outbox.c.decided_at, alert_outbox.c.key)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            keys = list(connection.scalars(oldest))
            mine = alert_outbox.c.key.in_(keys)
            connection.execute(
                sa.update(alert_outbox)
                .where(mine)
                .values(claimed_by=worker, claimed_until=until, attempts=alert_outbox.c.attempts + 1)
            )
            order = {key: place for place, key in enumerate(keys)}
            rows = _rows(connection, OutboxRow, _select(alert_outbox, OutboxRow).where(mine))
        return sorted(rows, key=lambda row: order[row.key])

    def record_sent(self, delivery: DeliveryRow, remote_id: str | None) -> bool:
        """The channel took it. False when another worker had recorded that before: this send was a repeat."""
        values = {"state": "sent", "sent_at": delivery.at, "remote_id": remote_id, "claimed_until": None}
        return self._record(delivery, {**values, "detail": delivery.detail})

    def record_retry(self, delivery: DeliveryRow, next_attempt_at: datetime) -> bool:
        """It shall be tried again at ``next_attempt_at``."""
        values = {"state": "due", "next_attempt_at": next_attempt_at, "claimed_until": None}
        return self._record(delivery, {**values, "detail": delivery.detail})

    def park(self, delivery: DeliveryRow) -> bool:
        """It will not be tried again by itself; ``detail`` says why."""
        return self._record(delivery, {"state": "parked", "claimed_until": None, "detail": delivery.detail})

    def unpark(self, key: str, now: datetime) -> bool:
        """Try a parked message again from the start. False when it is not parked."""
        change = (
            sa.update(alert_outbox)
            .where(alert_outbox.c.key == key, alert_outbox.c.state == "parked")
            .values(state="due", attempts=0, next_attempt_at=now)
        )
        with self._ledger.begin() as connection:
            return connection.execute(change).rowcount == 1

    def release(self, key: str) -> None:
        """Give a claimed message back untried."""
        change = (
            sa.update(alert_outbox)
            .where(alert_outbox.c.key == key, alert_outbox.c.state == "due")
            .values(claimed_until=None, attempts=alert_outbox.c.attempts - 1)
        )
        with self._ledger.begin() as connection:
            connection.execute(change)

    def outbox(self, state: str | None = None, limit: int | None = None) -> list[OutboxRow]:
        """The newest first."""
        query = _select(alert_outbox, OutboxRow).order_by(alert_outbox.c.decided_at.desc(), alert_outbox.c.key)
        if state is not None:
            query = query.where(alert_outbox.c.state == state)
        return self._all(OutboxRow, query.limit(limit))

    def messages(self, keys: Iterable[str]) -> list[OutboxRow]:
        """The messages of these keys, in no order."""
        with self._ledger.read() as connection:
            return [
                row
                for some in _batches(keys)
                for row in _rows(connection, OutboxRow, _select(alert_outbox, OutboxRow).where(_key_in(some)))
            ]

    def first_of_thread(self, thread: str, receiver: str) -> OutboxRow | None:
        """The first message of a thread that a receiver got, for replies and updates."""
        query = (
            _select(alert_outbox, OutboxRow)
            .where(alert_outbox.c.thread == thread, alert_outbox.c.receiver == receiver, alert_outbox.c.state == "sent")
            .order_by(alert_outbox.c.sent_at)
            .limit(1)
        )
        return next(iter(self._all(OutboxRow, query)), None)

    def deliveries(self, since: datetime, key: str | None = None) -> list[DeliveryRow]:
        """Attempts at or after ``since``, in order."""
        query = _select(alert_deliveries, DeliveryRow).where(alert_deliveries.c.at >= since)
        if key is not None:
            query = query.where(alert_deliveries.c.key == key)
        return self._all(DeliveryRow, query.order_by(alert_deliveries.c.number))

    def _record(self, delivery: DeliveryRow, values: Mapping[str, object]) -> bool:
        # A message that was sent stays sent, whatever a slower worker says of its own attempt.
        change = sa.update(alert_outbox).where(alert_outbox.c.key == delivery.key, alert_outbox.c.state != "sent")
        with self._ledger.begin() as connection:
            changed = connection.execute(change.values(**values)).rowcount == 1
            connection.execute(sa.insert(alert_deliveries), _values(delivery))
        return changed

    # -- incidents ----------------------------------------------------------------------------------------------------

    def incidents(self, statuses: Sequence[str] = (), limit: int | None = None) -> list[IncidentRow]:
        """The most recently changed first."""
        query = _select(alert_incidents, IncidentRow)
        if statuses:
            query = query.where(alert_incidents.c.status.in_(statuses))
        newest = query.order_by(alert_incidents.c.updated_at.desc(), alert_incidents.c.id)
        return self._all(IncidentRow, newest.limit(limit))

    def incident(self, incident_id: str) -> IncidentRow | None:
        query = _select(alert_incidents, IncidentRow).where(alert_incidents.c.id == incident_id)
        return next(iter(self._all(IncidentRow, query)), None)

    def incident_of_signal(self, signal_id: str) -> str | None:
        """The incident that an anomaly belongs to."""
        with self._ledger.read() as connection:
            return connection.scalar(sa.select(alert_signals.c.incident_id).where(alert_signals.c.id == signal_id))

    def traces(self, incident_id: str) -> list[TraceRow]:
        """Everything that was decided about an incident, in order."""
        own = _select(alert_traces, TraceRow).where(alert_traces.c.incident_id == incident_id)
        return self._all(TraceRow, own.order_by(alert_traces.c.number))

    # -- silences, tasks, feedback ------------------------------------------------------------------------------------

    def add_silence(self, silence: SilenceRow) -> None:
        self._add(alert_silences, silence)

    def end_silence(self, silence_id: str, now: datetime) -> bool:
        """Let a silence end now. False when there is none in force or to come by that id."""
        change = (
            sa.update(alert_silences)
            .where(alert_silences.c.id == silence_id, alert_silences.c.ends_at > now)
            .values(ends_at=now)
        )
        with self._ledger.begin() as connection:
            return connection.execute(change).rowcount == 1

    def silences(self, not_over_at: datetime | None = None) -> list[SilenceRow]:
        """Those that end last first; with ``not_over_at`` only those in force then or to come."""
        query = _select(alert_silences, SilenceRow).order_by(alert_silences.c.ends_at.desc(), alert_silences.c.id)
        if not_over_at is not None:
            query = query.where(alert_silences.c.ends_at > not_over_at)
        return self._all(SilenceRow, query)

    def keep_task(self, task: TaskRow) -> None:
        """Note a task or what became of it."""
        with self._ledger.begin() as connection:
            AlertPass(connection)._replace(alert_tasks, [task])

    def tasks(self, incident_id: str | None = None) -> list[TaskRow]:
        query = _select(alert_tasks, TaskRow).order_by(alert_tasks.c.opened_at.desc(), alert_tasks.c.incident_id)
        return self._all(TaskRow, query if incident_id is None else query.where(_of(alert_tasks, incident_id)))

    def tasks_of_signals(self, signal_ids: Iterable[str]) -> dict[str, TaskRow]:
        """The task of each anomaly whose incident has one: its resolution task."""
        found: dict[str, TaskRow] = {}
        with self._ledger.read() as connection:
            for some in _batches(signal_ids):
                query = (
                    _select(alert_tasks, TaskRow)
                    .add_columns(alert_signals.c.id)
                    .join(alert_signals, alert_signals.c.incident_id == alert_tasks.c.incident_id)
                    .where(alert_signals.c.id.in_(some))
                    .order_by(alert_tasks.c.opened_at.desc(), alert_tasks.c.tracker)
                )
                found |= {row[-1]: TaskRow(*row[:-1]) for row in connection.execute(query)}
        return found

    def add_feedback(self, feedback: FeedbackRow) -> None:
        self._add(alert_feedback, feedback)

    def feedback(self, since: datetime | None = None) -> list[FeedbackRow]:
        """What people said of incidents, in order."""
        query = _select(alert_feedback, FeedbackRow).order_by(alert_feedback.c.number)
        return self._all(FeedbackRow, query if since is None else query.where(alert_feedback.c.at >= since))

    # -- heartbeat, routes --------------------------------------------------------------------------------------------

    def beat(self, name: str, now: datetime, detail: str = "") -> None:
        """Note that ``name`` is alive."""
        self._make_sure_of_heartbeat(name, now)
        change = sa.update(alert_heartbeats).where(alert_heartbeats.c.name == name).values(at=now, detail=detail)
        with self._ledger.begin() as connection:
            connection.execute(change)

    def heartbeats(self) -> dict[str, datetime]:
        """When each was last alive."""
        with self._ledger.read() as connection:
            rows = connection.execute(sa.select(alert_heartbeats.c.name, alert_heartbeats.c.at))
            return dict(rows.tuples().all())

    def routes(self) -> RouteRevision | None:
        """The routes last put in force."""
        query = _select(route_revisions, RouteRevision).order_by(route_revisions.c.revision.desc()).limit(1)
        return next(iter(self._all(RouteRevision, query)), None)

    def keep_routes(self, digest: str, content: str, now: datetime) -> bool:
        """Put routes in force. False when they are in force already."""
        with self._ledger.begin() as connection:
            newest = sa.select(route_revisions.c.digest).order_by(route_revisions.c.revision.desc()).limit(1)
            if connection.scalar(newest) == digest:
                return False
            values = {"digest": digest, "content": content, "in_force_since": now}
            connection.execute(sa.insert(route_revisions), values)
        return True

    def _make_sure_of_heartbeat(self, name: str, now: datetime) -> None:
        with self._ledger.read() as connection:
            if connection.scalar(sa.select(alert_heartbeats.c.name).where(alert_heartbeats.c.name == name)):
                return
        try:
            with self._ledger.begin() as connection:
                connection.execute(sa.insert(alert_heartbeats), {"name": name, "at": now, "detail": ""})
        except sa.exc.IntegrityError:
            return  # Another process was first, which is as good.

    def _add(self, table: sa.Table, row: AnyRow) -> None:
        with self._ledger.begin() as connection:
            connection.execute(sa.insert(table), _values(row))

    def _all(self, kind: type[Kept], query: sa.Select[Any]) -> list[Kept]:
        with self._ledger.read() as connection:
            return _rows(connection, kind, query)


def _due(now: datetime) -> sa.ColumnElement[bool]:
    free = sa.or_(alert_outbox.c.claimed_until.is_(None), alert_outbox.c.claimed_until <= now)
    return sa.and_(alert_outbox.c.state == "due", alert_outbox.c.next_attempt_at <= now, free)


def _key_in(keys: Sequence[str]) -> sa.ColumnElement[bool]:
    return alert_outbox.c.key.in_(keys)


def _of(table: sa.Table, incident_id: str) -> sa.ColumnElement[bool]:
    return table.c.incident_id == incident_id


def _select(table: sa.Table, kind: type[Any]) -> sa.Select[Any]:
    return sa.select(*(table.c[one.name] for one in fields(kind)))


def _rows(connection: Connection, kind: type[Kept], query: sa.Select[Any]) -> list[Kept]:
    return [kind(*row) for row in connection.execute(query)]


def _values(row: AnyRow) -> dict[str, Any]:
    return {one.name: getattr(row, one.name) for one in fields(row)}


def _batches(values: Iterable[str]) -> Iterator[list[str]]:
    """Few enough at a time for any database's limit on parameters."""
    left = iter(values)
    while some := list(islice(left, _IN_ONE_QUERY)):
        yield some
