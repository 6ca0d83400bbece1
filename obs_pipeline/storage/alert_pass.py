"""What one pass of alerting reads and keeps, in one transaction. The tables are in ``alert_tables``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from obs_pipeline.storage.alert_tables import (
    AnyRow,
    IncidentRow,
    Kept,
    MemoryRow,
    OutboxRow,
    SignalRow,
    SilenceRow,
    TraceRow,
    alert_incidents,
    alert_memory,
    alert_outbox,
    alert_signals,
    alert_silences,
    alert_traces,
    batches,
    rows_of,
    selected,
    values_of,
)


class AlertPass:
    """One transaction in which decisions are taken and kept; one at a time over all processes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def incidents(self, resolved_since: datetime) -> list[IncidentRow]:
        """Those that are not resolved, and those that changed at or after ``resolved_since``."""
        wanted = sa.or_(alert_incidents.c.status != "resolved", alert_incidents.c.updated_at >= resolved_since)
        return rows_of(self._connection, IncidentRow, selected(alert_incidents, IncidentRow).where(wanted))

    def signals(self, incident_ids: Iterable[str]) -> list[SignalRow]:
        return self._of_incidents(alert_signals, SignalRow, incident_ids)

    def memory(self, incident_ids: Iterable[str]) -> list[MemoryRow]:
        return self._of_incidents(alert_memory, MemoryRow, incident_ids)

    def last_traces(self, incident_ids: Iterable[str]) -> list[TraceRow]:
        """The newest trace of every incident and route."""
        found: list[TraceRow] = []
        for some in batches(incident_ids):
            newest = (
                sa.select(sa.func.max(alert_traces.c.number))
                .where(alert_traces.c.incident_id.in_(some))
                .group_by(alert_traces.c.incident_id, alert_traces.c.route)
            )
            query = selected(alert_traces, TraceRow).where(alert_traces.c.number.in_(newest))
            found += rows_of(self._connection, TraceRow, query)
        return found

    def decided_since(self, since: datetime) -> list[tuple[str, str, datetime]]:
        """(route, message state, decided at) of the messages decided later than ``since``, one a decision."""
        columns = (alert_outbox.c.route, alert_outbox.c.message_state, alert_outbox.c.decided_at, alert_outbox.c.thread)
        query = sa.select(*columns).where(alert_outbox.c.decided_at > since).distinct()
        return [(route, state, at) for route, state, at, _ in self._connection.execute(query)]

    def silences(self, now: datetime) -> list[SilenceRow]:
        """Those in force at ``now``."""
        in_force = sa.and_(alert_silences.c.starts_at <= now, alert_silences.c.ends_at > now)
        return rows_of(self._connection, SilenceRow, selected(alert_silences, SilenceRow).where(in_force))

    def keep_incidents(self, rows: Iterable[IncidentRow]) -> None:
        self._replace(alert_incidents, rows)

    def keep_signals(self, rows: Iterable[SignalRow]) -> None:
        self._replace(alert_signals, rows)

    def drop_signals(self, signal_ids: Iterable[str]) -> None:
        for some in batches(signal_ids):
            self._connection.execute(sa.delete(alert_signals).where(alert_signals.c.id.in_(some)))

    def keep_memory(self, rows: Iterable[MemoryRow]) -> None:
        self._replace(alert_memory, rows)

    def add_traces(self, rows: Iterable[TraceRow]) -> None:
        self._insert(alert_traces, rows)

    def enqueue(self, rows: Iterable[OutboxRow]) -> int:
        """Put messages into the outbox; those whose key is in it already are left as they are. How many were new."""
        listed = {row.key: row for row in rows}
        known: set[str] = set()
        for some in batches(listed):
            query = sa.select(alert_outbox.c.key).where(alert_outbox.c.key.in_(some))
            known.update(self._connection.scalars(query))
        return self._insert(alert_outbox, [row for key, row in listed.items() if key not in known])

    def _of_incidents(self, table: sa.Table, kind: type[Kept], incident_ids: Iterable[str]) -> list[Kept]:
        found: list[Kept] = []
        for some in batches(incident_ids):
            query = selected(table, kind).where(table.c.incident_id.in_(some))
            found += rows_of(self._connection, kind, query)
        return found

    def _insert(self, table: sa.Table, rows: Iterable[AnyRow]) -> int:
        listed = [values_of(row) for row in rows]
        if listed:
            self._connection.execute(sa.insert(table), listed)
        return len(listed)

    def _replace(self, table: sa.Table, rows: Iterable[AnyRow]) -> None:
        """Update those whose primary key is there, insert the others."""
        names = [column.name for column in table.primary_key]
        values = {tuple(getattr(row, name) for name in names): values_of(row) for row in rows}
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
        for some in batches(dict.fromkeys(key[-1] for key in keys)):
            found.update(tuple(row) for row in self._connection.execute(sa.select(*columns).where(last.in_(some))))
        return found
