"""Helicone's rows of requests and responses."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline_tests.usage.sources.reading_whole import rows_of

HELICONE = load_mapping("helicone")
ROW: dict[str, Any] = {
    "request_id": "r1",
    "response_id": "p1",
    "request_created_at": "2026-05-01 10:00:00.123",
    "response_created_at": "2026-05-01 10:00:01.123",
    "organization_id": "acme",
    "user_id": "u1",
    "provider": "OPENAI",
    "model": "gpt-4o",
    "status": 200,
    "latency": 1000,
    "time_to_first_token": 0,
    "prompt_tokens": 100,
    "prompt_cache_read_tokens": 900,
    "prompt_cache_write_tokens": 0,
    "completion_tokens": 40,
    "cost": 1_775_000,
    "properties": {"agent": "triage", "team": "care", "Helicone-Session-Id": "s1"},
}


def one(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    (row,) = rows_of(json.dumps(ROW | changed) + "\n", tmp_path / "rows.jsonl", HELICONE)
    return row


def test_a_row_becomes_an_event(tmp_path: Path):
    row = one(tmp_path)
    assert row["reason"] is None
    assert (row["input_tokens"], row["cache_read_tokens"], row["output_tokens"]) == (1000, 900, 40)
    assert (row["agent"], row["team"], row["session_id"], row["org"]) == ("triage", "care", "s1", "acme")
    assert (row["latency_ms"], row["ttft_ms"], row["error_type"]) == (1000.0, None, None)


def test_the_cost_is_in_whole_nano_dollars(tmp_path: Path):
    assert one(tmp_path)["reported_cost"] == Decimal("0.001775")
    assert one(tmp_path, cost=1)["reported_cost"] == Decimal("0.000000001")


@pytest.mark.parametrize(("status", "error"), [(200, None), (304, None), (400, "400"), (429, "429"), (500, "500")])
def test_a_status_from_400_on_is_an_error(tmp_path: Path, status: int, error: str | None):
    assert one(tmp_path, status=status)["error_type"] == error


def test_typed_columns_and_properties_as_json_text_mean_the_same(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([ROW | {"properties": json.dumps(ROW["properties"]), "status": 503}]), path)
    (row,) = rows_of(path.read_bytes(), path, HELICONE)
    expected = one(tmp_path, status=503)
    same = [name for name in expected if name not in ("attributes", "raw")]
    assert {name: row[name] for name in same} == {name: expected[name] for name in same}
