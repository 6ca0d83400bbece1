"""When a day counts as complete."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.usage.watermark import provisional_days

MONDAY = date(2026, 3, 2)
DAYS = st.lists(st.integers(0, 30).map(lambda n: MONDAY + timedelta(days=n)), unique=True, max_size=8)
NEWEST = st.integers(0, 31 * 24).map(lambda hours: datetime(2026, 3, 2) + timedelta(hours=hours))


@pytest.mark.parametrize(
    ("newest", "is_provisional"),
    [
        (None, True),
        (datetime(2026, 3, 2, 12), True),
        (datetime(2026, 3, 3, 23, 59, 59), True),
        (datetime(2026, 3, 4), False),
        (datetime(2026, 3, 9), False),
    ],
)
def test_a_day_is_final_once_its_source_was_heard_of_a_lateness_after_its_end(
    newest: datetime | None, is_provisional: bool
):
    found = provisional_days({"gateway": [MONDAY]}, {"gateway": newest}, timedelta(hours=24))
    assert found == ([MONDAY] if is_provisional else [])


def test_a_slow_source_keeps_only_its_own_days_open():
    days = {"fast": [MONDAY, MONDAY + timedelta(days=1)], "slow": [MONDAY]}
    newest: dict[str, datetime | None] = {"fast": datetime(2026, 3, 20), "slow": datetime(2026, 3, 2, 5)}
    assert provisional_days(days, newest, timedelta(hours=24)) == [MONDAY]


def test_a_source_the_ledger_does_not_know_is_not_trusted():
    assert provisional_days({"gateway": [MONDAY]}, {}, timedelta()) == [MONDAY]


@given(days=DAYS, newest=NEWEST, later=st.integers(0, 500), lateness=st.integers(0, 72))
def test_hearing_more_never_reopens_a_day(days: list[date], newest: datetime, later: int, lateness: int):
    allowed = timedelta(hours=lateness)
    before = provisional_days({"s": days}, {"s": newest}, allowed)
    after = provisional_days({"s": days}, {"s": newest + timedelta(hours=later)}, allowed)
    assert set(after) <= set(before)
    assert before == sorted(before)


@given(days=DAYS, newest=NEWEST, lateness=st.integers(0, 72))
def test_the_days_that_are_open_are_the_newest_ones(days: list[date], newest: datetime, lateness: int):
    found = provisional_days({"s": days}, {"s": newest}, timedelta(hours=lateness))
    assert found == sorted(days)[len(days) - len(found) :]
