"""Which days a reconciliation must call provisional: late calls, or corrections of a bill, may still change them.

Only the question put to ledger and lake; when a day is complete is decided in ``usage.watermark``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta

import duckdb

from obs_pipeline.dashboard.queries import days_by_source
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.billing.configured import PulledBill
from obs_pipeline.usage.watermark import provisional_days


def unsettled_days(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    ledger: Ledger,
    days: DayRange,
    bills: Iterable[PulledBill],
    lateness: timedelta,
    now: datetime,
) -> set[date]:
    """The days of a range that some source's late calls may change, or that some pulled bill is still fetched again for.

    ``now`` is UTC without a zone.
    """
    newest = {source.source: source.last_event for source in ledger.freshness()}
    late = provisional_days(days_by_source(connection, lake, days), newest, lateness)
    restated = max((bill.restated_days for bill in bills), default=None)
    if restated is None:
        return set(late)
    first_restated = now.date() - timedelta(days=restated)
    return {*late, *(day for day in days.days() if day >= first_restated)}
