"""Settling, on a lake that is filled by hand: what stays must not depend on how it came."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.event import EVENT_SCHEMA
from obs_pipeline.usage.landing import price
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.settling import leaks, settle
from obs_pipeline.usage.tables import USAGE_DUPLICATES, USAGE_EVENTS, USAGE_REJECTED

MONDAY = date(2026, 3, 2)
DAYS = DayRange(MONDAY, MONDAY + timedelta(days=2))
BOOK = PriceBook.load(None)


class Row(NamedTuple):
    """One landed row: its id, its hour since Monday, its tokens, the file and row it came from."""

    event_id: str
    hour: int
    tokens: int
    file_id: str
    row_number: int


def land(connection: duckdb.DuckDBPyConnection, lake: Lake, rows: list[Row], model: str = "gpt-4o") -> None:
    if not rows:
        return
    times = [datetime(2026, 3, 2) + timedelta(hours=row.hour) for row in rows]
    columns: dict[str, Any] = {name: [None] * len(rows) for name in EVENT_SCHEMA.names}
    columns |= {
        "source": ["gateway"] * len(rows),
        "event_id": [row.event_id for row in rows],
        "event_time": times,
        "event_type": ["usage"] * len(rows),
        "agent": ["writer"] * len(rows),
        "provider": ["openai"] * len(rows),
        "model": [model] * len(rows),
        "input_tokens": [row.tokens for row in rows],
        "output_tokens": [0] * len(rows),
    }
    calls = pa.table(columns, schema=EVENT_SCHEMA)
    calls = calls.append_column("dt", pa.array([time.date() for time in times], pa.date32()))
    calls = calls.append_column("file_id", pa.array([row.file_id for row in rows]))
    calls = calls.append_column("row_number", pa.array([row.row_number for row in rows], pa.int64()))
    lake.append(USAGE_EVENTS, price(connection, calls, BOOK, 0.05))


@contextmanager
def a_lake() -> Iterator[tuple[duckdb.DuckDBPyConnection, Lake]]:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        yield connection, Lake(folder)


def content(connection: duckdb.DuckDBPyConnection, lake: Lake) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table in (USAGE_EVENTS, USAGE_REJECTED, USAGE_DUPLICATES):
        lake.view(connection, table)
        found[table.name] = connection.execute(f"SELECT * FROM {table.name} ORDER BY ALL").fetchall()
    return found


def verdicts(connection: duckdb.DuckDBPyConnection, lake: Lake) -> dict[str, list[tuple[str, int]]]:
    found = {}
    for table in (USAGE_EVENTS, USAGE_REJECTED, USAGE_DUPLICATES):
        lake.view(connection, table)
        query = f"SELECT file_id, row_number FROM {table.name} ORDER BY ALL"
        found[table.name] = connection.execute(query).fetchall()
    return found


def test_the_same_event_again_is_dropped_and_recorded():
    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 1, 10, "f1", 1), Row("b", 1, 10, "f1", 2)])
        land(connection, lake, [Row("a", 1, 10, "f2", 1)])
        settled = settle(connection, lake, DAYS, BOOK, 0.05)
        assert (settled.duplicates, settled.conflicts) == (1, 0)
        assert verdicts(connection, lake) == {
            "usage_events": [("f1", 1), ("f1", 2)],
            "usage_rejected": [],
            "usage_duplicates": [("f2", 1)],
        }


def test_other_content_under_the_same_id_is_quarantined_with_its_reason_and_its_content():
    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 2, 99, "f1", 1), Row("a", 1, 10, "f2", 1)])
        settle(connection, lake, DAYS, BOOK, 0.05)
        (event,) = content(connection, lake)["usage_events"]
        lake.view(connection, USAGE_REJECTED)
        row = connection.execute("SELECT reason, detail, raw FROM usage_rejected").fetchone()
        assert row is not None
        assert row[0] == "id_conflict"
        assert "belongs to an earlier event" in row[1]
        assert "read from row 1 of the file f1" in row[1]
        assert "input_tokens=99" in row[2]
        assert event[USAGE_EVENTS.schema.get_field_index("input_tokens")] == 10


def test_an_id_used_late_yesterday_is_recognised_today():
    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 23, 10, "f1", 1), Row("a", 25, 11, "f1", 2)])
        settle(connection, lake, DayRange(MONDAY, MONDAY), BOOK, 0.05)
        tuesday = MONDAY + timedelta(days=1)
        assert settle(connection, lake, DayRange(tuesday, tuesday), BOOK, 0.05).conflicts == 1
        assert verdicts(connection, lake)["usage_events"] == [("f1", 1)]


@pytest.mark.parametrize(("reach", "days_later", "conflicts"), [(1, 2, 0), (2, 2, 1), (7, 7, 1), (7, 8, 0)])
def test_an_id_of_some_days_before_is_recognised_as_far_back_as_is_asked(reach: int, days_later: int, conflicts: int):
    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 23, 10, "f1", 1), Row("a", 24 * days_later, 11, "f1", 2)])
        later = DayRange(MONDAY + timedelta(days=days_later), MONDAY + timedelta(days=days_later))
        assert settle(connection, lake, later, BOOK, 0.05, reach).conflicts == conflicts
        assert len(verdicts(connection, lake)["usage_events"]) == 2 - conflicts


def test_settling_settled_days_writes_nothing():
    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 1, 10, "f1", 1), Row("a", 1, 10, "f2", 1), Row("a", 3, 7, "f2", 2)])
        settle(connection, lake, DAYS, BOOK, 0.05)
        version = lake.version(USAGE_EVENTS)
        assert settle(connection, lake, DAYS, BOOK, 0.05) == type(settle(connection, lake, DAYS, BOOK, 0.05))(0, 0, 0)
        assert lake.version(USAGE_EVENTS) == version


def test_a_settling_killed_after_the_quarantine_was_written_ends_the_same():
    rows = [Row("a", 1, 10, "f1", 1), Row("a", 1, 10, "f2", 1), Row("a", 3, 7, "f2", 2)]
    with a_lake() as (connection, whole), a_lake() as (other, killed):
        land(connection, whole, rows)
        settle(connection, whole, DAYS, BOOK, 0.05)
        land(other, killed, rows)

        class Killed(Exception):
            pass

        replace, written = killed.replace, []

        def replace_two(table: Any, days: Any, produce: Any) -> None:
            if len(written) == 2:
                raise Killed
            written.append(table.name)
            replace(table, days, produce)

        killed.replace = replace_two  # type: ignore[method-assign]
        with pytest.raises(Killed):
            settle(other, killed, DAYS, BOOK, 0.05)
        killed.replace = replace  # type: ignore[method-assign]
        settle(other, killed, DAYS, BOOK, 0.05)
        assert content(other, killed) == content(connection, whole)


def test_a_call_without_a_price_is_priced_once_the_book_knows_one(tmp_path: Path):
    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 1, 1_000_000, "f1", 1)], model="house-model-7")
        lake.view(connection, USAGE_EVENTS)
        assert connection.execute("SELECT cost_source, cost FROM usage_events").fetchall() == [("unpriced", None)]
        prices = tmp_path / "prices.yaml"
        prices.write_text(
            "version: 1\nprices:\n"
            "  - {provider: openai, model: house-model-7, from: 2026-01-01, input: '2', output: '8'}\n"
        )
        assert settle(connection, lake, DAYS, PriceBook.load(prices), 0.05).newly_priced == 1
        lake.view(connection, USAGE_EVENTS)
        found = connection.execute("SELECT cost_source, cost FROM usage_events").fetchall()
        assert found == [("list", Decimal("2.000000000"))]


def test_a_price_that_was_given_stays_when_the_book_changes(tmp_path: Path):
    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 1, 1_000_000, "f1", 1)])
        before = content(connection, lake)
        prices = tmp_path / "prices.yaml"
        prices.write_text(
            "version: 1\nprices:\n  - {provider: openai, model: gpt-4o, from: 2020-01-01, input: '999', output: '999'}\n"
        )
        settle(connection, lake, DAYS, PriceBook.load(prices), 0.05)
        assert content(connection, lake) == before


def test_a_row_that_vanished_is_named_by_file_and_day():
    class Landed(NamedTuple):
        file_id: str
        name: str
        dt: date
        rows_read: int

    with a_lake() as (connection, lake):
        land(connection, lake, [Row("a", 1, 10, "f1", 1)])
        assert leaks(connection, lake, DAYS, [Landed("f1", "f1.csv", MONDAY, 1)]) == []
        (leak,) = leaks(connection, lake, DAYS, [Landed("f1", "f1.csv", MONDAY, 3)])
        assert leak.missing == 2
        assert "f1.csv" in str(leak)


@st.composite
def files_of_rows(draw: st.DrawFn) -> list[list[Row]]:
    """A few files whose rows share few ids, few contents and five days."""
    files = []
    for number in range(draw(st.integers(1, 4))):
        keys = draw(
            st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 119), st.integers(1, 2)), min_size=1, max_size=6)
        )
        files.append([Row(key, hour, tokens, f"f{number}", row) for row, (key, hour, tokens) in enumerate(keys, 1)])
    return files


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(files=files_of_rows(), reach=st.integers(1, 3), data=st.data())
def test_the_order_of_landing_and_when_the_batch_ran_change_nothing(
    files: list[list[Row]], reach: int, data: st.DataObject
):
    days = DayRange(MONDAY, MONDAY + timedelta(days=4))
    order = data.draw(st.permutations(files))
    stops = data.draw(st.lists(st.booleans(), min_size=len(files), max_size=len(files)))
    with a_lake() as (connection, once), a_lake() as (other, piecemeal):
        for rows in files:
            land(connection, once, rows)
        settle(connection, once, days, BOOK, 0.05, reach)
        for rows, settle_now in zip(order, stops, strict=True):
            land(other, piecemeal, rows)
            if settle_now:
                settle(other, piecemeal, days, BOOK, 0.05, reach)
        for day in days.days():
            settle(other, piecemeal, DayRange(day, day), BOOK, 0.05, reach)
        assert content(other, piecemeal) == content(connection, once)
        kept = Counter(len(rows) for rows in verdicts(connection, once).values())
        assert sum(size * times for size, times in kept.items()) == sum(len(rows) for rows in files)
