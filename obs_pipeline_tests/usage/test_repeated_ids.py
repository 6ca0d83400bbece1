"""Ids that repeat further apart than settling compares them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from obs_pipeline.storage.lake import DayRange
from obs_pipeline.usage import repeated_ids as module
from obs_pipeline.usage.repeated_ids import repeated_ids, window_before
from obs_pipeline_tests.usage.test_settling import MONDAY, Row, a_lake, land

ROWS = [
    Row("near", 1, 1, "f", 1),
    Row("near", 25, 1, "f", 2),
    Row("far", 2, 1, "f", 3),
    Row("far", 96, 1, "f", 4),
    Row("once", 96, 1, "f", 5),
]


@pytest.mark.parametrize("held", [1, 100])
def test_an_id_beyond_the_reach_is_found_however_the_hashes_are_shared_out(monkeypatch: pytest.MonkeyPatch, held: int):
    monkeypatch.setattr(module, "_HELD_ROWS", held)
    with a_lake() as (connection, lake):
        land(connection, lake, ROWS)
        days = DayRange(MONDAY, MONDAY + timedelta(days=4))
        found = repeated_ids(connection, lake, days, 1)
        assert found.offences == 1
        assert [(one["event_id"], one["events"]) for one in found.examples] == [("far", 2)]
        assert repeated_ids(connection, lake, days, 4).holds


def test_the_window_ends_with_the_newest_day_and_holds_no_more_than_asked():
    with a_lake() as (connection, lake):
        assert window_before(lake, 35) is None
        land(connection, lake, ROWS)
        newest = MONDAY + timedelta(days=4)
        assert window_before(lake, 3) == DayRange(newest - timedelta(days=2), newest)
        assert window_before(lake, 35, most_rows=2) == DayRange(MONDAY + timedelta(days=2), newest)
        assert window_before(lake, 0) is None
