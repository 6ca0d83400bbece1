"""Which days the batch has to compute: those with landed rows it has not seen, and the days whose baselines they belong to.

Pure decisions over what the ledger has on record, and the one question to it. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from obs_pipeline.storage.lake import DayRange
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.settling import ID_REACH_DAYS

LOOKBACK_DAYS: Final = 35
"""How many later days a day's usage bears on: four weeks and the days since their last Monday, whose baselines it is part of,
and one more, as a day's anomalies may go on on the next."""


@dataclass(frozen=True)
class DueDays:
    """Days that wait for a batch, in order, and those already computed."""

    pending: list[date]
    settled: frozenset[date]

    def ranges(self) -> list[DayRange]:
        """What one batch each should compute."""
        return affected_ranges(self.pending, self.settled)


def due_days(ledger: Ledger, reach_days: int = ID_REACH_DAYS) -> DueDays:
    """What waits right now, where event ids are compared with those of ``reach_days`` before."""
    newest, settled = ledger.newest_landing_per_day(), ledger.settled_through()
    return DueDays(pending_days(newest, settled, reach_days), frozenset(settled))


def pending_days(
    newest: Mapping[date, int], settled: Mapping[date, int], reach_days: int = ID_REACH_DAYS
) -> list[date]:
    """Days whose ``newest`` landing is later than the one they are ``settled`` through, in order.

    An event id is compared with those of the days before it, so a late landing also touches that many later days where
    they have rows.
    """
    late = [day for day, landing in newest.items() if settled.get(day, -1) < landing]
    touched = {day + timedelta(days=n) for day in late for n in range(reach_days + 1)}
    return sorted(day for day in touched if day in newest)


def affected_ranges(pending: Collection[date], settled: Collection[date]) -> list[DayRange]:
    """Touched days and the settled days whose baseline they belong to, as few ranges as their gaps allow."""
    affected, computed = set(pending), set(settled)
    for day in pending:
        affected |= {later for n in range(1, LOOKBACK_DAYS + 1) if (later := day + timedelta(days=n)) in computed}
    ranges: list[DayRange] = []
    for day in sorted(affected):
        if ranges and (day - ranges[-1].last).days <= LOOKBACK_DAYS:
            ranges[-1] = DayRange(ranges[-1].first, day)
        else:
            ranges.append(DayRange(day, day))
    return ranges
