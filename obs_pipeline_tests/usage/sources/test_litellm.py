"""LiteLLM: rows of the spend log in three formats, and the payload of a callback."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline.usage.sources.translate import read_usage
from obs_pipeline_tests.usage.sources.reading_whole import rows_of

LITELLM = load_mapping("litellm")

CACHED_CLAUDE: dict[str, Any] = {
    "request_id": "msg_01",
    "litellm_call_id": "call-1",
    "call_type": "acompletion",
    "spend": 0.006675,
    "total_tokens": 3140,
    "prompt_tokens": 3090,
    "completion_tokens": 50,
    "startTime": "2026-05-01T10:00:00.000000",
    "endTime": "2026-05-01T10:00:02.500000",
    "completionStartTime": "2026-05-01T10:00:02.500000",
    "model": "anthropic/claude-sonnet-4-5",
    "model_group": "sonnet",
    "custom_llm_provider": "anthropic",
    "team_id": "team-7",
    "organization_id": "acme",
    "end_user": "u1",
    "session_id": "s1",
    "agent_id": None,
    "cache_hit": "False",
    "status": "success",
    "request_tags": ["User-Agent: x"],
    "metadata": {
        "user_api_key_alias": "support-bot",
        "user_api_key_team_alias": "care",
        "additional_usage_values": {"cache_read_input_tokens": 2000, "cache_creation_input_tokens": 1000},
        "usage_object": {"completion_tokens_details": {"reasoning_tokens": 20}},
    },
}
STREAM = {
    "litellm_call_id": "call-2",
    "startTime": "2026-05-01T10:00:00.000000",
    "completionStartTime": "2026-05-01T10:00:00.219000",
    "endTime": "2026-05-01T10:00:00.315000",
    "custom_llm_provider": "openai",
    "model": "gpt-4o",
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "spend": 0.000075,
    "status": "success",
    "cache_hit": "False",
    "metadata": {},
}
FAILED = {
    **STREAM,
    "litellm_call_id": "call-3",
    "status": "failure",
    "spend": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "metadata": {"error_information": {"error_class": "RateLimitError", "error_code": "429"}},
}
ROWS = [CACHED_CLAUDE, STREAM, FAILED]
SHOWN = (
    *("event_id", "event_time", "org", "team", "agent", "model", "input_tokens", "cache_read_tokens"),
    *("cache_write_tokens", "output_tokens", "reported_cost", "latency_ms", "ttft_ms", "error_type", "reason"),
)


def as_jsonl(rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    return rows_of("".join(json.dumps(row) + "\n" for row in rows), tmp_path / "spend.jsonl", LITELLM)


def as_csv(rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "spend.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(CACHED_CLAUDE))
        writer.writeheader()
        writer.writerows({**row, "metadata": json.dumps(row["metadata"]), "request_tags": "[]"} for row in rows)
    return rows_of(path.read_bytes(), path, LITELLM)


def as_parquet(rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "spend.parquet"
    flat = [{name: row.get(name) for name in CACHED_CLAUDE} | {"metadata": json.dumps(row["metadata"])} for row in rows]
    for row in flat:
        for name in ("startTime", "endTime", "completionStartTime"):
            row[name] = datetime.fromisoformat(row[name])
    pq.write_table(pa.Table.from_pylist(flat), path)
    return rows_of(path.read_bytes(), path, LITELLM)


def one(row: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    (read,) = as_jsonl([row], tmp_path)
    return read


def test_a_row_of_the_spend_log_becomes_an_event(tmp_path: Path):
    row = one(CACHED_CLAUDE, tmp_path)
    assert {name: row[name] for name in SHOWN} == {
        "event_id": "call-1",
        "event_time": datetime(2026, 5, 1, 10),
        "org": "acme",
        "team": "care",
        "agent": "support-bot",
        "model": "anthropic/claude-sonnet-4-5",
        "input_tokens": 3090,
        "cache_read_tokens": 2000,
        "cache_write_tokens": 1000,
        "output_tokens": 50,
        "reported_cost": Decimal("0.006675000"),
        "latency_ms": 2500.0,
        "ttft_ms": None,
        "error_type": None,
        "reason": None,
    }
    assert row["reasoning_tokens"] == 20


@pytest.mark.parametrize("written", [as_csv, as_parquet])
def test_the_same_rows_mean_the_same_as_csv_and_parquet_with_metadata_as_json_text(tmp_path: Path, written: Any):
    expected = [{name: row[name] for name in SHOWN} for row in as_jsonl(ROWS, tmp_path)]
    assert [{name: row[name] for name in SHOWN} for row in written(ROWS, tmp_path)] == expected


def test_the_time_to_the_first_token_of_a_stream_is_not_its_latency(tmp_path: Path):
    row = one(STREAM | {"response_time": 0.219}, tmp_path)
    assert (row["latency_ms"], row["ttft_ms"]) == (315.0, 219.0)


def test_a_first_token_that_comes_with_the_end_is_none(tmp_path: Path):
    assert one(STREAM | {"completionStartTime": STREAM["endTime"]}, tmp_path)["ttft_ms"] is None


def test_a_failed_call_has_its_class_and_a_call_that_went_well_has_none_whatever_stands_there(tmp_path: Path):
    assert one(FAILED, tmp_path)["error_type"] == "RateLimitError"
    assert one(FAILED | {"metadata": {}}, tmp_path)["error_type"] == "failure"
    assert one(FAILED | {"status": "success"}, tmp_path)["error_type"] is None


@pytest.mark.parametrize(
    ("cache_hit", "cost"), [("False", None), ("None", None), ("", None), ("True", Decimal(0)), (True, Decimal(0))]
)
def test_no_spend_is_an_unknown_price_unless_the_gateway_answered_from_its_cache(
    tmp_path: Path, cache_hit: object, cost: Decimal | None
):
    assert one(STREAM | {"spend": 0, "cache_hit": cache_hit}, tmp_path)["reported_cost"] == cost


@pytest.mark.parametrize("spend", [-1, -0.000001, "-1"])
def test_a_negative_or_sentinel_price_is_refused(tmp_path: Path, spend: object):
    assert one(STREAM | {"spend": spend}, tmp_path)["reason"] == "negative_cost"


def test_a_provider_id_that_repeats_does_not_make_two_calls_one(tmp_path: Path):
    twice = [
        {**STREAM, "request_id": "chatcmpl-1"},
        {**STREAM, "request_id": "chatcmpl-1", "litellm_call_id": "call-9"},
    ]
    assert [row["event_id"] for row in as_jsonl(twice, tmp_path)] == ["call-2", "call-9"]


def test_the_payload_of_a_callback_is_read_by_the_same_mapping(tmp_path: Path):
    payload = {
        "id": "chatcmpl-5",
        "litellm_call_id": "call-5",
        "trace_id": "trace-5",
        "call_type": "acompletion",
        "stream": True,
        "response_cost": 0.00125,
        "status": "success",
        "custom_llm_provider": "openai",
        "prompt_tokens": 120,
        "completion_tokens": 30,
        "startTime": 1777629600.25,
        "completionStartTime": 1777629600.5,
        "endTime": 1777629601.25,
        "response_time": 0.25,
        "model": "gpt-4o",
        "cache_hit": None,
        "metadata": {
            "user_api_key_alias": "triage",
            "user_api_key_team_id": "team-7",
            "usage_object": {"prompt_tokens_details": {"cached_tokens": 64}},
        },
    }
    row = one(payload, tmp_path)
    assert row["event_time"] == datetime(2026, 5, 1, 10, 0, 0, 250_000)
    assert (row["latency_ms"], row["ttft_ms"]) == (1000.0, 250.0)
    assert (row["reported_cost"], row["cache_read_tokens"]) == (Decimal("0.00125"), 64)
    assert (row["event_id"], row["session_id"], row["team"], row["reason"]) == ("call-5", "trace-5", "team-7", None)


def test_metadata_that_is_no_json_leaves_the_rest_of_the_row_whole(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("startTime,prompt_tokens,metadata\n2026-05-01T10:00:00,5,{broken\n2026-05-01T10:00:00,6,\n")
    rows = rows_of(path.read_bytes(), path, LITELLM)
    assert [(row["input_tokens"], row["cache_read_tokens"], row["reason"]) for row in rows] == [
        (5, None, None),
        (6, None, None),
    ]


def test_the_recorded_rows_of_the_proxys_own_table_come_to_its_spend_with_every_token():
    recorded = Path(__file__).parent / "payloads" / "litellm_spend_logs.jsonl"
    theirs = [json.loads(line) for line in recorded.read_text().splitlines()]
    batches = read_usage(recorded, LITELLM, now=datetime(2026, 12, 1))
    ours = [row for batch in batches for row in batch.to_pylist()]
    assert [row["reason"] for row in ours] == [None] * 6
    spend = sum(Decimal(str(row.get("spend", 0))) for row in theirs)
    assert abs(sum(row["reported_cost"] or 0 for row in ours) - spend) < Decimal("1e-9")
    assert [row["error_type"] for row in ours if row["error_type"]] == ["RateLimitError"]
    tokens = {(row["model"], row["input_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) for row in ours}
    assert ("anthropic/claude-sonnet-4-5", 740, 700, 30) in tokens
    assert {row["agent"] for row in ours} == {"triage"}


def test_the_first_token_of_the_recorded_stream_is_not_taken_for_its_end():
    recorded = Path(__file__).parent / "payloads" / "litellm_spend_logs.jsonl"
    ours = [row for batch in read_usage(recorded, LITELLM, now=datetime(2026, 12, 1)) for row in batch.to_pylist()]
    streamed = [row for row in ours if row["ttft_ms"] is not None and not row["error_type"]]
    assert [(row["ttft_ms"], row["latency_ms"]) for row in streamed] == [(170.0, 309.0)]
