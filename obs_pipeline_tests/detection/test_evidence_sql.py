"""The SQL between usage and detection: worst single calls, and usage by series."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from obs_pipeline.detection.detect import MOMENT_SCHEMA
from obs_pipeline.storage.engine import connect, load_sql
from obs_pipeline.usage.event import MONEY, MONEY_SUM

EVENTS = {
    "dt": pa.date32(),
    "source": pa.string(),
    "event_id": pa.string(),
    "event_time": pa.timestamp("us"),
    "org": pa.string(),
    "project": pa.string(),
    "agent": pa.string(),
    "model": pa.string(),
    "input_tokens": pa.int64(),
    "output_tokens": pa.int64(),
    "reported_cost": MONEY,
    "cost": MONEY,
    "list_cost": MONEY,
    "price_ratio": pa.float64(),
    "mispriced": pa.bool_(),
}


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with connect() as opened:
        yield opened


def call(event_id: str, hour: int = 3, **values) -> dict:
    when = datetime(2025, 5, 7, hour, 29)
    plain = dict.fromkeys(EVENTS) | {"dt": when.date(), "source": "s", "event_id": event_id, "event_time": when}
    plain |= {"agent": "a", "mispriced": False} | values
    for money in ("reported_cost", "cost", "list_cost"):
        plain[money] = None if plain[money] is None else Decimal(str(plain[money]))
    return plain


def evidence(connection, *calls, abnormal_days=None) -> dict[tuple, str]:
    table = pa.table({name: pa.array([one[name] for one in calls], kind) for name, kind in EVENTS.items()})
    connection.register("usage_events", table)
    connection.register(
        "abnormal_days", abnormal_days or table.select(MOMENT_SCHEMA.names).group_by(MOMENT_SCHEMA.names).aggregate([])
    )
    rows = connection.sql(load_sql("obs_pipeline.detection", "evidence")).to_arrow_table().to_pylist()
    found = {(row["agent"], row["time"].hour, row["kind"]): row["event_id"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_only_the_days_of_series_that_are_asked_about_are_searched(connection):
    calls = call("a", cost=1), call("b", agent="b", cost=1), call("c", agent=None, cost=1)
    days = [{"dt": calls[0]["dt"], "org": None, "project": None, "agent": agent} for agent in ("b", None)]
    asked = pa.Table.from_pylist(days, schema=MOMENT_SCHEMA)
    assert evidence(connection, *calls, abnormal_days=asked) == {("b", 3, "dearest"): "b", (None, 3, "dearest"): "c"}


def test_the_worst_call_of_each_kind_is_found_for_every_hour_and_agent(connection):
    assert evidence(
        connection,
        call("cheap", cost=1, input_tokens=10),
        call("dear", cost=9, input_tokens=5),
        call("long", cost=2, input_tokens=900, output_tokens=None),
        call("wrong", cost=5, reported_cost=5, list_cost=1, mispriced=True),
        call("next", hour=4, cost=1, input_tokens=1),
        call("other", agent=None, cost=3, output_tokens=2),
    ) == {
        ("a", 3, "dearest"): "dear",
        ("a", 3, "largest"): "long",
        ("a", 3, "mispriced"): "wrong",
        ("a", 4, "dearest"): "next",
        ("a", 4, "largest"): "next",
        (None, 3, "dearest"): "other",
        (None, 3, "largest"): "other",
    }


def test_a_call_below_its_list_price_or_without_a_contradiction_is_not_mispriced(connection):
    found = evidence(
        connection,
        call("free", cost=0, reported_cost=0, list_cost=4, mispriced=True),
        call("fair", cost=2, reported_cost=2, list_cost=1),
        call("unknown", cost=2, reported_cost=2, list_cost=None, mispriced=None),
    )
    assert found == {("a", 3, "dearest"): "fair"}


def test_of_equal_calls_always_the_same_one_is_named(connection):
    calls = [call(name, cost=5) for name in ("c", "a", "b")]
    assert evidence(connection, *calls) == evidence(connection, *calls[::-1]) == {("a", 3, "dearest"): "a"}


USAGE = {
    "dt": pa.date32(),
    "hour": pa.timestamp("us"),
    **dict.fromkeys(("source", "org", "project", "agent", "model"), pa.string()),
    **dict.fromkeys(("calls", "errors", "input_tokens", "output_tokens"), pa.int64()),
    "cost": MONEY_SUM,
    "list_cost": MONEY_SUM,
    **dict.fromkeys(("unpriced_calls", "mispriced_calls", "latency_calls"), pa.int64()),
    "latency_histogram": pa.list_(pa.int64()),
}
NOTHING = dict.fromkeys(("errors", "unpriced_calls", "mispriced_calls", "latency_calls"), 0)


def series(connection, grain: str, *rows) -> list[dict]:
    listed = [
        dict.fromkeys(USAGE)
        | NOTHING
        | {"dt": date(2025, 5, 7), "hour": datetime(2025, 5, 7, 3), "source": "s", "agent": "a", "calls": 1}
        | row
        for row in rows
    ]
    columns = {
        name: pa.array(
            [Decimal(str(one[name])) if kind == MONEY_SUM and one[name] is not None else one[name] for one in listed],
            kind,
        )
        for name, kind in USAGE.items()
    }
    connection.register(f"usage_{grain}", pa.table(columns))
    return connection.sql(load_sql("obs_pipeline.detection", f"series_{grain}")).to_arrow_table().to_pylist()


@pytest.mark.parametrize("grain", ["hourly", "daily"])
def test_models_are_summed_and_a_discount_does_not_offset_an_overcharge(connection, grain):
    (row,) = series(
        connection,
        grain,
        {"model": "m", "cost": 12, "list_cost": 2, "mispriced_calls": 1, "latency_histogram": [1]},
        {"model": "n", "cost": 0, "list_cost": 50, "mispriced_calls": 3, "latency_histogram": [2, 3]},
        {"model": "o", "cost": 7, "list_cost": 6, "calls": 4},
        {"model": "p", "cost": 3, "list_cost": None},
    )
    assert (row["calls"], row["cost"], row["mispriced_calls"]) == (7, 22, 4)
    assert (row["overcharge"], row["overcharged_list_cost"]) == (10, 2)
    assert sorted(row["latency_histogram"]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("rows", "cost"),
    [
        ([{"cost": 0, "calls": 3, "unpriced_calls": 3}], None),
        ([{"cost": 0, "calls": 3, "unpriced_calls": 3}, {"cost": 2}], 2),
        ([{"cost": 1, "calls": 3, "unpriced_calls": 2}], 1),
        ([{"cost": -5, "calls": 0}], -5),
        ([{"cost": 0, "calls": 3}], 0),
    ],
)
def test_usage_without_a_price_is_unknown_and_not_free(connection, rows, cost):
    (row,) = series(connection, "hourly", *rows)
    assert row["cost"] == cost
