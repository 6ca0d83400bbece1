"""Alerting values as the ledger keeps them: to rows and back.

Holds the translation alone, both ways without loss. Decisions and queries are elsewhere.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from obs_pipeline.alerting.models import Incident, Notification, Signal, Trace
from obs_pipeline.alerting.news import Memory
from obs_pipeline.alerting.silences import Silence
from obs_pipeline.storage.alert_tables import IncidentRow, MemoryRow, OutboxRow, SignalRow, SilenceRow, TraceRow

Kept = TypeVar("Kept")


def incident_row(incident: Incident) -> IncidentRow:
    return IncidentRow(
        id=incident.id,
        kind=incident.kind,
        severity=incident.severity,
        status=incident.status,
        org=incident.org,
        project=incident.project,
        agent=incident.agent,
        opened_at=incident.opened_at,
        updated_at=incident.updated_at,
        content=_text(Incident, incident),
    )


def incident_of(row: IncidentRow) -> Incident:
    return _value(Incident, row.content)


def signal_row(signal: Signal, incident_id: str) -> SignalRow:
    return SignalRow(signal.id, incident_id, _text(Signal, signal))


def signal_of(row: SignalRow) -> Signal:
    return _value(Signal, row.content)


def memory_row(memory: Memory) -> MemoryRow:
    return MemoryRow(memory.route, memory.incident_id, _text(Memory, memory))


def memory_of(row: MemoryRow) -> Memory:
    return _value(Memory, row.content)


def trace_row(trace: Trace) -> TraceRow:
    return TraceRow(trace.incident_id, trace.route, trace.outcome, trace.at, _text(Trace, trace))


def trace_of(row: TraceRow) -> Trace:
    return _value(Trace, row.content)


def outbox_row(notification: Notification) -> OutboxRow:
    """A message that is due from the moment it was decided."""
    return OutboxRow(
        key=notification.key,
        route=notification.route,
        receiver=notification.receiver.name,
        channel=notification.receiver.channel,
        message_state=notification.state,
        severity=notification.severity,
        thread=notification.thread,
        decided_at=notification.decided_at,
        content=_text(Notification, notification),
        state="due",
        attempts=0,
        next_attempt_at=notification.decided_at,
    )


def notification_of(row: OutboxRow) -> Notification:
    return _value(Notification, row.content)


def silence_row(silence: Silence, created_at: datetime) -> SilenceRow:
    return SilenceRow(
        id=silence.id,
        matchers=json.dumps(dict(silence.matchers), ensure_ascii=False, sort_keys=True),
        author=silence.author,
        reason=silence.reason,
        created_at=created_at,
        starts_at=silence.starts_at,
        ends_at=silence.ends_at,
    )


def silence_of(row: SilenceRow) -> Silence:
    matchers = {label: tuple(values) for label, values in json.loads(row.matchers).items()}
    return Silence(row.id, matchers, row.author, row.reason, row.starts_at, row.ends_at)


_ADAPTERS: Final[dict[type[Any], TypeAdapter[Any]]] = {
    kind: TypeAdapter(kind) for kind in (Incident, Signal, Memory, Trace, Notification)
}


def _text(kind: type[Any], value: object) -> str:
    return _ADAPTERS[kind].dump_json(value).decode("utf-8")


def _value(kind: type[Kept], text: str) -> Kept:
    value: Kept = _ADAPTERS[kind].validate_json(text)
    return value
