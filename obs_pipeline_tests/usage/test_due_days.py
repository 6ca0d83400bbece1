"""Which days a batch has to compute."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.usage.due_days import LOOKBACK_DAYS, affected_ranges, pending_days

MONDAY = date(2026, 3, 2)
NEAR_DAYS = st.integers(0, 30).map(lambda n: MONDAY + timedelta(days=n))


@given(
    newest=st.dictionaries(NEAR_DAYS, st.integers(1, 9)),
    settled=st.dictionaries(NEAR_DAYS, st.integers(1, 9)),
    reach=st.integers(1, 5),
)
def test_pending_are_the_days_with_unseen_landings_and_those_their_ids_reach(
    newest: dict[date, int], settled: dict[date, int], reach: int
):
    pending = pending_days(newest, settled, reach)
    assert pending == sorted(set(pending))
    for day in newest:
        before = (day - timedelta(days=n) for n in range(reach + 1))
        unseen = any(one in newest and newest[one] > settled.get(one, -1) for one in before)
        assert (day in pending) == unseen


DAY = st.integers(0, 200).map(lambda n: MONDAY + timedelta(days=n))


@given(pending=st.sets(DAY, max_size=12).map(sorted), settled=st.sets(DAY, max_size=60))
def test_ranges_cover_the_touched_days_and_all_they_affect_and_little_else(pending: list[date], settled: set[date]):
    ranges = affected_ranges(pending, settled)
    covered = {day for one in ranges for day in one.days()}
    affected = {
        later for day in pending for later in settled if timedelta(0) < later - day <= timedelta(days=LOOKBACK_DAYS)
    }
    needed = affected | set(pending)
    assert needed <= covered
    for one in ranges:
        assert one.first in needed
        assert one.last in needed
    for one, other in pairwise(ranges):
        assert other.first - one.last > timedelta(days=LOOKBACK_DAYS)
