"""The alerting tables of the ledger as everybody but a pass asks them: the outbox and its deliveries, incidents, silences.

What belongs together, what is told and how a message is sent is the alerting room's business. Times are UTC without a zone.

The outbox is claimed with a lease: a row belongs to one worker until ``claimed_until``, and to anybody after that, so a
worker that was killed loses nothing. A delivery is recorded after the send.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from obs_pipeline.storage.alert_pass import AlertPass
from obs_pipeline.storage.alert_tables import (
    AnyRow,
    DeliveryRow,
    FeedbackRow,
    IncidentRow,
    Kept,
    OutboxRow,
    RouteRevision,
    SilenceRow,
    TaskRow,
    TraceRow,
    alert_deliveries,
    alert_feedback,
    alert_heartbeats,
    alert_incidents,
    alert_outbox,
    alert_signals,
    alert_silences,
    alert_tasks,
    alert_traces,
    batches,
    route_revisions,
    rows_of,
    selected,
    values_of,
)
from obs_pipeline.storage.ledger import Ledger

_PASS: Final = "pass"

_GRAVITY: Final = sa.case({"critical": 0, "warning": 1}, value=alert_incidents.c.severity, else_=2)


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
            rows = rows_of(connection, OutboxRow, selected(alert_outbox, OutboxRow).where(mine))
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

    def release_parked(self, key: str, who: str, now: datetime) -> bool:
        """Try a parked message again from the start, and note who wanted that. False when it is not parked."""
        parked = sa.and_(alert_outbox.c.key == key, alert_outbox.c.state == "parked")
        with self._ledger.begin() as connection:
            found = connection.execute(
                sa.select(alert_outbox.c.channel, alert_outbox.c.detail).where(parked)
            ).one_or_none()
            if found is None:
                return False
            again = {"state": "due", "attempts": 0, "next_attempt_at": now, "claimed_until": None}
            connection.execute(sa.update(alert_outbox).where(parked).values(again))
            note = DeliveryRow(key, found.channel, who, 0, "released", now, 0, found.detail)
            connection.execute(sa.insert(alert_deliveries), values_of(note))
        return True

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
        query = selected(alert_outbox, OutboxRow).order_by(alert_outbox.c.decided_at.desc(), alert_outbox.c.key)
        if state is not None:
            query = query.where(alert_outbox.c.state == state)
        return self._all(OutboxRow, query.limit(limit))

    def messages(self, keys: Iterable[str]) -> list[OutboxRow]:
        """The messages of these keys, in no order."""
        with self._ledger.read() as connection:
            return [
                row
                for some in batches(keys)
                for row in rows_of(connection, OutboxRow, selected(alert_outbox, OutboxRow).where(_key_in(some)))
            ]

    def deliveries(self, since: datetime, key: str | None = None) -> list[DeliveryRow]:
        """Attempts at or after ``since``, in order."""
        query = selected(alert_deliveries, DeliveryRow).where(alert_deliveries.c.at >= since)
        if key is not None:
            query = query.where(alert_deliveries.c.key == key)
        return self._all(DeliveryRow, query.order_by(alert_deliveries.c.number))

    def _record(self, delivery: DeliveryRow, values: Mapping[str, object]) -> bool:
        # A message that was sent stays sent, whatever a slower worker says of its own attempt.
        change = sa.update(alert_outbox).where(alert_outbox.c.key == delivery.key, alert_outbox.c.state != "sent")
        with self._ledger.begin() as connection:
            changed = connection.execute(change.values(**values)).rowcount == 1
            connection.execute(sa.insert(alert_deliveries), values_of(delivery))
        return changed

    # -- incidents ----------------------------------------------------------------------------------------------------

    def incidents(self, statuses: Sequence[str] = (), limit: int | None = None) -> list[IncidentRow]:
        """The most recently changed first."""
        query = selected(alert_incidents, IncidentRow)
        if statuses:
            query = query.where(alert_incidents.c.status.in_(statuses))
        newest = query.order_by(alert_incidents.c.updated_at.desc(), alert_incidents.c.id)
        return self._all(IncidentRow, newest.limit(limit))

    def incident_counts(
        self,
        statuses: Sequence[str] = (),
        org: str | None = None,
        projects: Sequence[str] = (),
        place: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, int], datetime | None]:
        """How many there are of each severity, of an organisation (None: of all) and of projects (none: of all), and when one
        last changed.

        ``place`` narrows them further by ``org``, ``project`` or ``agent``; an empty name is that of none.
        """
        column = alert_incidents.c
        counted = sa.select(column.severity, sa.func.count(), sa.func.max(column.updated_at)).group_by(column.severity)
        with self._ledger.read() as connection:
            rows = connection.execute(counted.where(_own(statuses, org, projects, place or {}))).all()
        return {severity: count for severity, count, _ in rows}, max((newest for *_, newest in rows), default=None)

    def incident_page(
        self,
        statuses: Sequence[str],
        org: str | None,
        projects: Sequence[str],
        place: Mapping[str, str],
        limit: int,
        offset: int,
        *,
        worst_first: bool = False,
    ) -> list[IncidentRow]:
        """Some of those that :meth:`incident_counts` counts, the most recently changed first, or those within each severity."""
        order = (*((_GRAVITY,) if worst_first else ()), alert_incidents.c.updated_at.desc(), alert_incidents.c.id)
        own = selected(alert_incidents, IncidentRow).where(_own(statuses, org, projects, place)).order_by(*order)
        return self._all(IncidentRow, own.limit(limit).offset(offset))

    def incident(self, incident_id: str) -> IncidentRow | None:
        query = selected(alert_incidents, IncidentRow).where(alert_incidents.c.id == incident_id)
        return next(iter(self._all(IncidentRow, query)), None)

    def incident_of_signal(self, signal_id: str) -> str | None:
        """The incident that an anomaly belongs to."""
        with self._ledger.read() as connection:
            return connection.scalar(sa.select(alert_signals.c.incident_id).where(alert_signals.c.id == signal_id))

    def traces(self, incident_id: str) -> list[TraceRow]:
        """Everything that was decided about an incident, in order."""
        own = selected(alert_traces, TraceRow).where(alert_traces.c.incident_id == incident_id)
        return self._all(TraceRow, own.order_by(alert_traces.c.number))

    def traces_of_active(self) -> list[TraceRow]:
        """Everything that was decided about the incidents that are not resolved, in no order."""
        query = (
            selected(alert_traces, TraceRow)
            .join(alert_incidents, alert_incidents.c.id == alert_traces.c.incident_id)
            .where(alert_incidents.c.status != "resolved")
        )
        return self._all(TraceRow, query)

    def forget_traces(self, before: datetime) -> int:
        """Delete what was decided before then about incidents that are resolved; how many rows."""
        over = sa.select(alert_incidents.c.id).where(alert_incidents.c.status == "resolved")
        old = sa.and_(alert_traces.c.at < before, alert_traces.c.incident_id.in_(over))
        with self._ledger.begin() as connection:
            return connection.execute(sa.delete(alert_traces).where(old)).rowcount

    def forget_messages(self, before: datetime, but: Collection[str] = ()) -> int:
        """Delete the messages that were decided before then and sent, with their deliveries; how many messages."""
        old = sa.and_(alert_outbox.c.state == "sent", alert_outbox.c.decided_at < before)
        with self._ledger.begin() as connection:
            keys = sorted(set(connection.scalars(sa.select(alert_outbox.c.key).where(old))) - set(but))
            for some in batches(keys):
                connection.execute(sa.delete(alert_deliveries).where(alert_deliveries.c.key.in_(some)))
                connection.execute(sa.delete(alert_outbox).where(_key_in(some)))
        return len(keys)

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
        query = selected(alert_silences, SilenceRow).order_by(alert_silences.c.ends_at.desc(), alert_silences.c.id)
        if not_over_at is not None:
            query = query.where(alert_silences.c.ends_at > not_over_at)
        return self._all(SilenceRow, query)

    def keep_task(self, task: TaskRow) -> None:
        """Note a task or what became of it."""
        with self._ledger.begin() as connection:
            AlertPass(connection)._replace(alert_tasks, [task])

    def tasks(self, incident_id: str | None = None) -> list[TaskRow]:
        query = selected(alert_tasks, TaskRow).order_by(alert_tasks.c.opened_at.desc(), alert_tasks.c.incident_id)
        return self._all(TaskRow, query if incident_id is None else query.where(_of(alert_tasks, incident_id)))

    def add_feedback(self, feedback: FeedbackRow) -> None:
        self._add(alert_feedback, feedback)

    def feedback(self, since: datetime | None = None) -> list[FeedbackRow]:
        """What people said of incidents, in order."""
        query = selected(alert_feedback, FeedbackRow).order_by(alert_feedback.c.number)
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
        query = selected(route_revisions, RouteRevision).order_by(route_revisions.c.revision.desc()).limit(1)
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
            connection.execute(sa.insert(table), values_of(row))

    def _all(self, kind: type[Kept], query: sa.Select[Any]) -> list[Kept]:
        with self._ledger.read() as connection:
            return rows_of(connection, kind, query)


def _own(
    statuses: Sequence[str], org: str | None, projects: Sequence[str], place: Mapping[str, str]
) -> sa.ColumnElement[bool]:
    wanted = {"status": statuses, "org": () if org is None else (org,), "project": projects}
    own = (alert_incidents.c[name].in_(values) for name, values in wanted.items() if values)
    there = (alert_incidents.c[name] == value for name, value in place.items())
    return sa.and_(sa.true(), *own, *there)


def _due(now: datetime) -> sa.ColumnElement[bool]:
    free = sa.or_(alert_outbox.c.claimed_until.is_(None), alert_outbox.c.claimed_until <= now)
    return sa.and_(alert_outbox.c.state == "due", alert_outbox.c.next_attempt_at <= now, free)


def _key_in(keys: Sequence[str]) -> sa.ColumnElement[bool]:
    return alert_outbox.c.key.in_(keys)


def _of(table: sa.Table, incident_id: str) -> sa.ColumnElement[bool]:
    return table.c.incident_id == incident_id
