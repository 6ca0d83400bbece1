"""What answers need to know of the ledger as a whole: whether it changed, and how far the sources have reported.

Only reads, by snapshots that wait for no writer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import sqlalchemy as sa

from obs_pipeline.storage import alert_tables, anomaly_labels, policy_store, source_positions
from obs_pipeline.storage.ledger import Ledger, landed_days, landed_files, settled_days

_NEWEST: Final = (
    landed_days.c.landing,
    settled_days.c.settled_at,
    alert_tables.alert_incidents.c.updated_at,
    alert_tables.alert_traces.c.number,
    alert_tables.alert_deliveries.c.number,
    alert_tables.alert_silences.c.ends_at,
    alert_tables.alert_feedback.c.number,
    anomaly_labels.anomaly_labels.c.number,
    policy_store.policy_revisions.c.revision,
)


@dataclass(frozen=True, slots=True)
class SourceDays:
    """The days a source has rows in, and its newest event (UTC)."""

    days: tuple[date, ...]
    newest_event: datetime | None


@dataclass(frozen=True, slots=True)
class BatchState:
    """When a batch last came to its end, and the newest event of each source that has one (UTC)."""

    settled_at: datetime | None
    newest_events: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Pull:
    """How a pulled source stands: when it was last pulled in full, and whether the last attempt failed."""

    source: str
    pulled_at: datetime | None
    failed: bool


def batch_state(ledger: Ledger) -> BatchState:
    """How far the batches have come."""
    with ledger.read() as connection:
        settled: datetime | None = connection.scalar(sa.select(sa.func.max(settled_days.c.settled_at)))
    newest = {source: of.newest_event for source, of in sources(ledger).items() if of.newest_event is not None}
    return BatchState(settled, newest)


def pulls(ledger: Ledger) -> list[Pull]:
    """Every source that was ever pulled, by name."""
    columns = source_positions.source_positions.c
    query = sa.select(columns.source, columns.pulled_at, columns.failed_at.is_not(None)).order_by(columns.source)
    with ledger.read() as connection:
        return [Pull(source, pulled_at, bool(failed)) for source, pulled_at, failed in connection.execute(query)]


def ledger_mark(ledger: Ledger) -> str:
    """A text that changes with every change that answers can show."""
    query = sa.select(*(sa.select(sa.func.max(column)).scalar_subquery() for column in _NEWEST))
    with ledger.read() as connection:
        return "|".join(map(str, connection.execute(query).one()))


def sources(ledger: Ledger) -> Mapping[str, SourceDays]:
    """How far each source has reported."""
    query = (
        sa.select(landed_files.c.source, landed_days.c.dt, sa.func.max(landed_days.c.last_event))
        .join(landed_files, landed_files.c.file_id == landed_days.c.file_id)
        .where(landed_files.c.state == "landed", landed_days.c.rows_read > 0)
        .group_by(landed_files.c.source, landed_days.c.dt)
        .order_by(landed_files.c.source, landed_days.c.dt)
    )
    found: dict[str, list[tuple[date, datetime | None]]] = {}
    with ledger.read() as connection:
        for source, day, newest in connection.execute(query):
            found.setdefault(source, []).append((day, newest))
    return {
        source: SourceDays(
            tuple(day for day, _ in rows), max((newest for _, newest in rows if newest is not None), default=None)
        )
        for source, rows in found.items()
    }
