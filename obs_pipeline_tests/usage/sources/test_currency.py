"""Costs in other currencies: in dollars by the rate of the call's day, or refused; never taken for dollars."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.currencies import Rate, RateBook
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.sources.mapping import SourceMapping
from obs_pipeline.usage.sources.translate import read_usage
from obs_pipeline.usage.tables import USAGE_EVENTS

NOW = datetime(2026, 3, 10)


def rates(**by_day: str) -> RateBook:
    said = [{"currency": "EUR", "from": day[1:].replace("_", "-"), "usd": usd} for day, usd in by_day.items()]
    return RateBook(map(Rate.model_validate, said))


EUROS = rates(d2026_03_01="1.1", d2026_03_05="1.2")


def mapping(currency: Any = "EUR", **cost: Any) -> SourceMapping:
    columns = {"event_time": "time", "reported_cost": {"from": "cost", "currency": currency, **cost}, "event_id": "id"}
    return SourceMapping.model_validate({"source": "desk", "columns": columns})


def rows(
    folder: Path, events: list[dict[str, Any]], how: SourceMapping, book: RateBook = EUROS
) -> list[dict[str, Any]]:
    path = folder / "calls.jsonl"
    path.write_text("".join(json.dumps({"id": str(at), **event}) + "\n" for at, event in enumerate(events)))
    return [row for batch in read_usage(path, how, now=NOW, rates=book) for row in batch.to_pylist()]


@pytest.mark.parametrize(
    ("time", "usd"),
    [
        ("2026-03-01T00:00:00Z", "2.2"),
        ("2026-03-04T23:59:59.999999Z", "2.2"),
        ("2026-03-05T00:00:00Z", "2.4"),
        ("2026-03-05T01:00:00+05:30", "2.2"),
    ],
)
def test_the_rate_of_the_utc_day_of_the_call_holds(tmp_path: Path, time: str, usd: str):
    (row,) = rows(tmp_path, [{"time": time, "cost": 2}], mapping())
    assert (row["reason"], row["reported_cost"]) == (None, Decimal(usd))


def test_a_column_may_say_the_currency_and_dollars_need_no_rate(tmp_path: Path):
    events = [{"time": "2026-03-02", "cost": 2, "in": name} for name in ("EUR", " eur ", "USD", "GBP", None)]
    found = rows(tmp_path, events, mapping({"from": "in"}))
    assert [row["reported_cost"] for row in found] == [Decimal("2.2"), Decimal("2.2"), Decimal(2), None, None]
    assert [row["reason"] for row in found] == [None, None, None, "no_currency_rate", "no_currency_rate"]
    assert found[3]["detail"] == "the currency is GBP; the cost is in it, and it has no rate on that day"
    assert "missing" in found[4]["detail"]


def test_a_day_before_the_first_rate_is_refused(tmp_path: Path):
    (row,) = rows(tmp_path, [{"time": "2026-02-28T23:59:59Z", "cost": 2}], mapping())
    assert (row["reason"], row["reported_cost"]) == ("no_currency_rate", None)


def test_nothing_is_nothing_in_any_currency_and_no_cost_needs_no_rate(tmp_path: Path):
    events = [{"time": "2026-03-02", "cost": 0}, {"time": "2026-03-02"}]
    found = rows(tmp_path, events, mapping("GBP"))
    assert [(row["reason"], row["reported_cost"]) for row in found] == [(None, Decimal(0)), (None, None)]


def test_cents_are_cents_of_the_currency(tmp_path: Path):
    (row,) = rows(tmp_path, [{"time": "2026-03-02", "cost": "150"}], mapping(unit="cents"))
    assert row["reported_cost"] == Decimal("1.65")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"time": "soon", "cost": 2}, "bad_time"),
        ({"time": "2026-03-02", "cost": -2}, "negative_cost"),
        ({"time": "2026-03-02", "cost": "two"}, "bad_type"),
        ({"time": "2026-03-02", "cost": 999_999_999}, "cost_too_large"),
    ],
)
def test_other_faults_keep_their_names(tmp_path: Path, event: dict[str, Any], reason: str):
    (row,) = rows(tmp_path, [event], mapping())
    assert row["reason"] == reason


@given(
    st.decimals(0, 900_000, places=9),
    st.decimals("0.000001", 1000, places=12),
    st.dates(date(2026, 3, 1), date(2026, 3, 9)),
)
@settings(max_examples=25)
def test_a_cost_in_a_file_and_one_on_a_bill_come_to_the_same_dollars(
    tmp_path_factory: Any, amount: Decimal, usd: Decimal, day: date
):
    book = RateBook([Rate.model_validate({"currency": "EUR", "from": "2026-03-01", "usd": str(usd)})])
    event = {"time": f"{day}T12:00:00Z", "cost": f"{amount:f}"}
    (row,) = rows(tmp_path_factory.mktemp("rate"), [event], mapping(), book)
    assert row["reported_cost"] == book.usd(amount, "EUR", day)


@pytest.mark.parametrize(
    "columns",
    [
        {"reported_cost": {"from": "cost", "currency": "euro"}},
        {"reported_cost": {"from": "cost", "currency": {}}},
        {"input_tokens": {"from": "n", "currency": "EUR"}},
    ],
)
def test_a_currency_that_makes_no_sense_is_refused_with_the_mapping(columns: dict[str, Any]):
    with pytest.raises(ValueError, match=r"currency|amount of money"):
        SourceMapping.model_validate({"source": "desk", "columns": {"event_time": "time", **columns}})


def test_a_new_rate_lets_a_refused_file_in_and_leaves_the_days_before_alone(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    lake, ledger = Lake(str(tmp_path / "lake")), Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    path = tmp_path / "calls.jsonl"
    days = ("2026-03-02", "2026-03-07")
    path.write_text("".join(json.dumps({"id": day, "time": day, "cost": 1}) + "\n" for day in days))

    def landed(book: RateBook) -> list[tuple[Any, ...]]:
        landing = Landing(
            *(lake, ledger, PriceBook.load(None), connection, tmp_path / "scratch", date(2020, 1, 1)), rates=book
        )
        landing.land(path, mapping(), now=NOW)
        lake.view(connection, USAGE_EVENTS)
        return connection.execute("SELECT event_id, cost FROM usage_events ORDER BY dt").fetchall()

    (tmp_path / "scratch").mkdir()
    assert landed(RateBook()) == []
    assert landed(rates(d2026_03_01="1.1")) == [(days[0], Decimal("1.1")), (days[1], Decimal("1.1"))]
    assert landed(EUROS) == [(days[0], Decimal("1.1")), (days[1], Decimal("1.2"))]
