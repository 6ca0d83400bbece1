"""Which days a reconciliation must call provisional: late calls, or corrections of a bill, may still change them.

Only the question put to ledger and lake; when a day is complete is decided in ``usage.watermark``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import duckdb

from obs_pipeline.dashboard.queries import days_by_source
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.billing.configured import PulledBill
from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.watermark import provisional_days, unread_days


@dataclass(frozen=True)
class StillToCome:
    """What may still change a day: late calls, sources that are pulled, bills that are fetched again."""

    lateness: timedelta
    sources: Mapping[str, PulledSource] = field(default_factory=dict)
    bills: Iterable[PulledBill] = ()


def unsettled_days(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    ledger: Ledger,
    days: DayRange,
    awaited: StillToCome,
    now: datetime,
) -> set[date]:
    """The days of a range that some source's late calls may change, that some pulled source has not been read to the end of,
    or that some bill is still fetched again for. ``now`` is UTC without a zone.
    """
    newest = {source.source: source.last_event for source in ledger.freshness()}
    late = provisional_days(days_by_source(connection, lake, days), newest, awaited.lateness)
    unread = unread_days(days.days(), *_pulled(ledger, awaited.sources))
    restated = [now.date() - timedelta(days=bill.restated_days) for bill in awaited.bills]
    corrected = [day for day in days.days() if restated and day >= min(restated)]
    return {*late, *unread, *corrected}


def _pulled(
    ledger: Ledger, sources: Mapping[str, PulledSource]
) -> tuple[Mapping[str, date], Mapping[str, datetime | None]]:
    """The first day of each source, and how far it was read."""
    positions = SourcePositions(ledger)
    reached = {name: positions.get(name).position for name in sources}
    read_up_to = {name: datetime.fromisoformat(position) if position else None for name, position in reached.items()}
    return {name: source.since for name, source in sources.items()}, read_up_to
