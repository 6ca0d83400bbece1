"""Langfuse observations, as the API and as the blob export write them."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline_tests.usage.sources.reading_whole import rows_of

LANGFUSE = load_mapping("langfuse")

FROM_API: dict[str, Any] = {
    "id": "obs-1",
    "projectId": "proj",
    "traceId": "t1",
    "traceName": "triage",
    "type": "GENERATION",
    "startTime": "2026-05-01T10:00:00.000Z",
    "endTime": "2026-05-01T10:00:01.500Z",
    "completionStartTime": "2026-05-01T10:00:00.400Z",
    "providedModelName": "claude-sonnet-4-5",
    "usageDetails": {
        "input": 10,
        "input_cached_tokens": 700,
        "input_cache_creation_5m": 20,
        "input_cache_creation_1h": 10,
        "output": 60,
        "output_reasoning_tokens": 40,
        "total": 840,
    },
    "totalCost": 0.0042,
    "level": "DEFAULT",
    "statusMessage": "fine",
    "latency": 1.5,
    "userId": "u1",
    "sessionId": "s1",
    "metadata": {"team": "care"},
}


def read(rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    return rows_of("".join(json.dumps(row) + "\n" for row in rows), tmp_path / "obs.jsonl", LANGFUSE)


def one(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    (row,) = read([FROM_API | changed], tmp_path)
    return row


def test_what_was_taken_out_of_input_and_output_is_added_back(tmp_path: Path):
    row = one(tmp_path)
    assert row["reason"] is None
    assert (row["input_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (740, 700, 30)
    assert (row["output_tokens"], row["reasoning_tokens"]) == (100, 40)
    assert row["input_tokens"] + row["output_tokens"] == FROM_API["usageDetails"]["total"]


def test_durations_are_milliseconds_from_the_times_and_the_first_token_is_not_the_end(tmp_path: Path):
    row = one(tmp_path)
    assert (row["latency_ms"], row["ttft_ms"]) == (1500.0, 400.0)


def test_who_called_and_what_it_cost(tmp_path: Path):
    row = one(tmp_path)
    assert (row["event_id"], row["project"], row["team"], row["agent"]) == ("proj:obs-1", "proj", "care", "triage")
    assert row["reported_cost"] == Decimal("0.0042")
    assert row["event_time"] == datetime(2026, 5, 1, 10)


def test_a_message_is_an_error_only_at_the_level_of_one(tmp_path: Path):
    assert one(tmp_path)["error_type"] is None
    assert one(tmp_path, level="ERROR", statusMessage="429")["error_type"] == "429"
    assert one(tmp_path, level="ERROR", statusMessage=None)["error_type"] == "error"


def test_spans_and_events_are_passed_over_without_a_trace(tmp_path: Path):
    rows = read(
        [FROM_API, FROM_API | {"id": "obs-2", "type": "SPAN"}, FROM_API | {"id": "obs-3", "type": None}], tmp_path
    )
    assert [row["event_id"] for row in rows] == ["proj:obs-1"]


def test_a_row_of_the_blob_export_means_the_same(tmp_path: Path):
    names = {
        "projectId": "project_id",
        "traceName": "trace_name",
        "startTime": "start_time",
        "endTime": "end_time",
        "completionStartTime": "completion_start_time",
        "providedModelName": "provided_model_name",
        "usageDetails": "usage_details",
        "totalCost": "total_cost",
        "statusMessage": "status_message",
        "userId": "user_id",
        "sessionId": "session_id",
    }
    (exported,) = read([{names.get(name, name): value for name, value in FROM_API.items()}], tmp_path)
    expected = one(tmp_path)
    same = [name for name in expected if name not in ("attributes", "raw")]
    assert {name: exported[name] for name in same} == {name: expected[name] for name in same}


def test_a_call_whose_cost_is_not_known_is_not_free(tmp_path: Path):
    assert one(tmp_path, totalCost=0)["reported_cost"] is None


def test_a_count_that_is_no_number_is_refused(tmp_path: Path):
    assert one(tmp_path, usageDetails={"input": "many"})["reason"] == "non_finite"


def test_a_call_without_any_count_has_none(tmp_path: Path):
    row = one(tmp_path, usageDetails={})
    assert (row["input_tokens"], row["output_tokens"], row["cache_write_tokens"]) == (None, None, None)
