"""Mistakes that tools for usage are known for, each landed and priced here from a source that invites it.

Where each mistake is tested, here unless another module is named:

====================================  ====================================================================================
cache tokens free, or paid twice      ``cache_tokens_are_neither_free_nor_paid_twice``, of five sources
the tier of a long context            ``the_long_context_tier_is_chosen_by_the_whole_request``
Anthropic's cents                     ``anthropics_amounts_are_cents``; ``test_bill_file``, ``test_pull_bill``
a new price and the day before        ``a_price_change_does_not_touch_the_day_before``; ``test_pricing``
an id again with other content        ``an_id_that_repeats_with_other_content_is_counted_once_and_told``
the double span                       ``test_otlp`` (recorded), ``test_twins`` (in several files), ``test_producers`` (SDK)
a first token taken for the latency   ``the_latency_of_a_stream_is_not_its_time_to_the_first_token``; ``test_litellm``
a day in Asia/Kolkata                 ``a_day_in_kolkata_begins_half_past_six_in_the_evening_of_the_day_before``
a price below zero, or a sentinel     ``a_negative_or_sentinel_price_is_refused``; ``test_pull_bill``
====================================  ====================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.settling import settle
from obs_pipeline.usage.sources.mapping import SourceMapping, load_mapping
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_REJECTED
from obs_pipeline_tests.usage.receiving.requests import of_spans, span
from obs_pipeline_tests.usage.sources.reading_whole import mapping_of, rows_of
from obs_pipeline_tests.usage.sources.test_claude_code import message
from obs_pipeline_tests.usage.sources.test_litellm import STREAM

NOW = datetime(2026, 6, 1)
DAYS = DayRange(date(2026, 4, 29), date(2026, 5, 3))
PRICES = """
version: 1
prices:
  - {provider: anthropic, model: tiered, from: 2020-01-01, input: 3, cache_read: 0.3, cache_write: 3.75, output: 15,
     tiers: [{above: 200000, input: 6, cache_read: 0.6, cache_write: 7.5, output: 22.5}]}
  - {provider: openai, model: moving, from: 2020-01-01, until: 2026-05-01, input: 10, output: 10}
  - {provider: openai, model: moving, from: 2026-05-01, input: 2, output: 2}
"""
Land = Callable[[str, list[dict[str, Any]]], None]


@pytest.fixture
def prices(tmp_path: Path) -> PriceBook:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return PriceBook.load(path)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def land(tmp_path: Path, lake: Lake, prices: PriceBook, connection: duckdb.DuckDBPyConnection) -> Land:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    landing = Landing(lake, ledger, prices, connection, tmp_path / "scratch", date(2020, 1, 1))

    def land_rows(mapping: str, rows: list[dict[str, Any]]) -> None:
        path = tmp_path / f"{mapping}-{len(list(tmp_path.iterdir()))}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        landing.land(path, load_mapping(mapping), now=NOW)

    return land_rows


def events(connection: duckdb.DuckDBPyConnection, lake: Lake) -> list[dict[str, Any]]:
    lake.view(connection, USAGE_EVENTS)
    return connection.sql("SELECT * FROM usage_events ORDER BY event_time, event_id").to_arrow_table().to_pylist()


def claude(model: str, cached: int, written: int) -> dict[str, Any]:
    usage = {
        "input_tokens": 1_000,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": 100,
    }
    return message(1, 1, message={"id": "m", "model": model, "usage": usage})


LONG_AGO, BEGAN = "2026-05-01T10:00:00Z", 1_777_629_600_000_000_000
CACHED = {
    "claude_code": claude("tiered", 10_000, 2_000),
    "litellm": {
        **STREAM, "model": "anthropic/tiered", "custom_llm_provider": "anthropic", "spend": 0, "prompt_tokens": 13_000,
        "completion_tokens": 100,
        "metadata": {
            "additional_usage_values": {"cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 2_000}
        },
    },
    "langfuse": {
        "id": "o", "projectId": "p", "type": "GENERATION", "startTime": LONG_AGO, "providedModelName": "tiered",
        "metadata": {"provider": "anthropic"},
        "usageDetails": {"input": 1_000, "input_cached_tokens": 10_000, "input_cache_creation_5m": 2_000, "output": 100},
    },
    "helicone": {
        "request_id": "h", "request_created_at": LONG_AGO, "provider": "anthropic", "model": "tiered", "status": 200, "cost": 0,
        "prompt_tokens": 1_000, "prompt_cache_read_tokens": 10_000, "prompt_cache_write_tokens": 2_000, "completion_tokens": 100,
    },
    "otlp": of_spans(
        span(
            1,
            start=BEGAN,
            **{
                "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "tiered", "gen_ai.response.model": "tiered",
                "gen_ai.usage.input_tokens": 13_000, "gen_ai.usage.cache_read.input_tokens": 10_000,
                "gen_ai.usage.cache_creation.input_tokens": 2_000, "gen_ai.usage.output_tokens": 100,
            },
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", CACHED)
def test_cache_tokens_are_neither_free_nor_paid_twice(
    land: Land, lake: Lake, connection: duckdb.DuckDBPyConnection, source: str
):
    land(source, [CACHED[source]])
    (event,) = events(connection, lake)
    by_hand = Decimal(1_000 * 3 + 100 * 15) + Decimal("0.3") * 10_000 + Decimal("3.75") * 2_000
    assert (event["input_tokens"], event["cost"]) == (13_000, by_hand / 1_000_000)


@pytest.mark.parametrize("source", ["litellm", "langfuse", "otlp"])
def test_the_latency_of_a_stream_is_not_its_time_to_the_first_token(
    land: Land, lake: Lake, connection: duckdb.DuckDBPyConnection, source: str
):
    times = {
        "startTime": LONG_AGO,
        "completionStartTime": "2026-05-01T10:00:00.2Z",
        "endTime": "2026-05-01T10:00:01.5Z",
    }
    streamed = {
        "litellm": {**CACHED["litellm"], **times, "response_time": 0.2},
        "langfuse": {**CACHED["langfuse"], **times, "latency": 0.2, "timeToFirstToken": 0.2},
        "otlp": of_spans(
            {
                **span(1, start=BEGAN, **{"gen_ai.response.time_to_first_chunk": 0.2}),
                "endTimeUnixNano": str(BEGAN + 1_500_000_000),
            }
        ),
    }
    land(source, [streamed[source]])
    (event,) = events(connection, lake)
    assert (event["latency_ms"], event["ttft_ms"]) == (1_500, 200)


@pytest.mark.parametrize(
    ("cached", "rates"), [(199_000, ("3", "0.3", "15")), (199_001, ("6", "0.6", "22.5"))], ids=["at", "above"]
)
def test_the_long_context_tier_is_chosen_by_the_whole_request(
    land: Land, lake: Lake, connection: duckdb.DuckDBPyConnection, cached: int, rates: tuple[str, str, str]
):
    land("claude_code", [claude("tiered", cached, 0)])
    (event,) = events(connection, lake)
    fresh, read, output = map(Decimal, rates)
    assert event["cost"] == (1_000 * fresh + cached * read + 100 * output) / 1_000_000


def test_a_price_change_does_not_touch_the_day_before(land: Land, lake: Lake, connection: duckdb.DuckDBPyConnection):
    call = {**STREAM, "model": "moving", "prompt_tokens": 1_000_000, "completion_tokens": 0, "spend": 0}
    land(
        "litellm",
        [
            {
                **call,
                "litellm_call_id": "a",
                "startTime": "2026-04-30T23:59:59.999999",
                "endTime": "2026-05-01T00:00:05",
            },
            {**call, "litellm_call_id": "b", "startTime": "2026-05-01T00:00:00", "endTime": "2026-05-01T00:00:05"},
        ],
    )
    assert [event["cost"] for event in events(connection, lake)] == [Decimal(10), Decimal(2)]


def test_an_id_that_repeats_with_other_content_is_counted_once_and_told(
    land: Land, lake: Lake, prices: PriceBook, connection: duckdb.DuckDBPyConnection
):
    land("litellm", [STREAM])
    land("litellm", [{**STREAM, "spend": 5.0}])
    settled = settle(connection, lake, DAYS, prices, 0.05)
    assert (settled.duplicates, settled.conflicts) == (0, 1)
    assert len(events(connection, lake)) == 1
    lake.view(connection, USAGE_REJECTED)
    assert connection.sql("SELECT reason FROM usage_rejected").fetchall() == [("id_conflict",)]


def test_the_row_of_the_table_and_the_callback_of_one_call_are_counted_once(
    land: Land, lake: Lake, prices: PriceBook, connection: duckdb.DuckDBPyConnection
):
    land("litellm", [STREAM])
    land(
        "litellm", [{**STREAM, "response_cost": STREAM["spend"], "startTime": 1777629600.0, "endTime": 1777629600.315}]
    )
    settle(connection, lake, DAYS, prices, 0.05)
    assert len(events(connection, lake)) == 1


def test_a_session_that_was_resumed_in_another_file_counts_its_old_messages_once(
    land: Land, lake: Lake, prices: PriceBook, connection: duckdb.DuckDBPyConnection
):
    land("claude_code", [message(1, 5)])
    land("claude_code", [message(1, 5), message(2, 6)])
    settled = settle(connection, lake, DAYS, prices, 0.05)
    assert (settled.duplicates, len(events(connection, lake))) == (1, 2)


def test_anthropics_amounts_are_cents(tmp_path: Path):
    mapping = mapping_of({"reported_cost": {"from": "amount", "unit": "cents"}})
    (row,) = rows_of('{"event_time": "2026-05-01", "amount": "12345.678912"}\n', tmp_path / "cost.jsonl", mapping)
    assert row["reported_cost"] == Decimal("123.456789120")


IN_KOLKATA = SourceMapping.model_validate({"source": "test", "zone": "Asia/Kolkata", "columns": {"event_time": "t"}})


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2026-05-01T00:00:00", datetime(2026, 4, 30, 18, 30)),
        ("2026-05-01 05:29:59.999", datetime(2026, 4, 30, 23, 59, 59, 999_000)),
        ("2026-05-01", datetime(2026, 4, 30, 18, 30)),
        ("2026-05-01T00:00:00Z", datetime(2026, 5, 1)),
        ("2026-05-01T00:00:00+05:30", datetime(2026, 4, 30, 18, 30)),
        ("2026-05-01T00:00:00+0530", datetime(2026, 4, 30, 18, 30)),
        ("2026-05-01T00:00:00-08", datetime(2026, 5, 1, 8)),
        ("1777593600", datetime(2026, 5, 1)),
    ],
)
def test_a_day_in_kolkata_begins_half_past_six_in_the_evening_of_the_day_before(
    tmp_path: Path, written: str, utc: datetime
):
    (row,) = rows_of(json.dumps({"t": written}) + "\n", tmp_path / "a.jsonl", IN_KOLKATA)
    assert (row["event_time"], row["reason"]) == (utc, None)


def test_a_time_with_its_own_offset_needs_no_zone(tmp_path: Path):
    utc = mapping_of({})
    (row,) = rows_of('{"event_time": "2026-05-01T00:00:00+05:30"}\n', tmp_path / "a.jsonl", utc)
    assert row["event_time"] == datetime(2026, 4, 30, 18, 30)


@pytest.mark.parametrize("price", [-1, "-1", -1e-9])
@pytest.mark.parametrize("mapping", ["litellm", "canonical"])
def test_a_negative_or_sentinel_price_is_refused(tmp_path: Path, price: object, mapping: str):
    row = {**STREAM, "spend": price, "reported_cost": price, "event_time": "2026-05-01"}
    (read,) = rows_of(json.dumps(row) + "\n", tmp_path / "a.jsonl", load_mapping(mapping))
    assert read["reason"] == "negative_cost"


def test_a_negative_price_in_the_price_file_is_refused(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text("version: 1\nprices: [{model: m, from: 2020-01-01, input: -1, output: 1}]\n")
    with pytest.raises(Exception, match="input"):
        PriceBook.load(path)
