"""Pulling bills: the days since the last pull, and those before it that sellers still correct.

A window of days is in the lake before the position moves past it, so that a pull that fails is made again and is never taken
for days without a charge. Only whole UTC days are fetched. No clock: the time is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final, Protocol

import duckdb

from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.source_positions import SourcePosition, SourcePositions
from obs_pipeline.usage.billing.configured import BillsInvalid, PulledBill
from obs_pipeline.usage.billing.kept import keep_bill
from obs_pipeline.usage.billing.lines import Bill, BillRefused
from obs_pipeline.usage.currencies import NoRate, RateBook
from obs_pipeline.usage.pulling.pages import PullFailed

WINDOW_DAYS: Final = 31
_REFUSALS: Final = (BillRefused, NoRate, BillsInvalid)


class FetchBill(Protocol):
    """The bill of the days from one on and before another, as ``admin_api.fetch_bill``."""

    def __call__(self, bill: PulledBill, first: date, until: date, rates: RateBook, /) -> Bill: ...


@dataclass(frozen=True)
class PulledDays:
    """What a pull brought: the days from ``first`` on and before ``until`` (UTC), as so many lines."""

    bill: str
    first: date
    until: date
    lines: int


def pull_bill(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    name: str,
    bill: PulledBill,
    fetch: FetchBill,
    positions: SourcePositions,
    rates: RateBook,
    now: datetime,
) -> PulledDays:
    """Bring a bill up to the last whole day before ``now``, window by window.

    Raises:
        PullFailed: it could not be read to its end, or is not taken. The windows before stay, the failure is on record.
    """
    key = position_key(name)
    reached = read_until(positions.get(key), bill)
    first = max(reached - timedelta(days=bill.restated_days), bill.since)
    start, lines = first, 0
    try:
        while start < now.date():
            until = min(start + timedelta(days=WINDOW_DAYS), now.date())
            found = fetch(bill, start, until, rates)
            end = _read_to(found, start, until)
            count = keep_bill(connection, lake, name, found)
            reached = max(reached, end)
            positions.advance(key, datetime.combine(reached, time()).isoformat(), count, now)
            lines += count
            if end < until:
                break
            start = until
    except (PullFailed, *_REFUSALS) as error:
        positions.fail(key, str(error), now)
        raise PullFailed(str(error)) from None
    return PulledDays(name, first, reached, lines)


def backfill_bill(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    name: str,
    bill: PulledBill,
    fetch: FetchBill,
    rates: RateBook,
    first: date,
    until: date,
) -> PulledDays:
    """Fetch days again, from ``first`` on and before ``until``; the position stays.

    Raises:
        PullFailed: it could not be read to its end, or is not taken.
    """
    start, lines = first, 0
    try:
        while start < until:
            end = min(start + timedelta(days=WINDOW_DAYS), until)
            lines += keep_bill(connection, lake, name, fetch(bill, start, end, rates))
            start = end
    except _REFUSALS as error:
        raise PullFailed(str(error)) from None
    return PulledDays(name, first, until, lines)


def position_key(name: str) -> str:
    """What the position of a bill is kept under: no source is called so."""
    return f"bill:{name}"


def read_until(position: SourcePosition, bill: PulledBill) -> date:
    """The first day that a bill has not been read of yet."""
    return datetime.fromisoformat(position.position).date() if position.position else bill.since


def _read_to(found: Bill, start: date, until: date) -> date:
    """The first day of a window without a charge or a zero: it is asked for again by the next pull."""
    charged = {day for kind, day in found.covers if kind == "cost"}
    day = start
    while day < until and day in charged:
        day += timedelta(days=1)
    if day == start:
        raise PullFailed(f"The seller says nothing of {start}; the position stays where it is.")
    return day
