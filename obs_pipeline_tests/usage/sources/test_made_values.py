"""Values a mapping makes of several: joined, summed, between two times, by default, on a condition; and JSON in a column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from obs_pipeline.usage.sources.mapping import MappingInvalid, SourceMapping, load_mapping
from obs_pipeline_tests.usage.sources.reading_whole import TIME, landed, mapping_of, rows_of


def one(event: dict[str, Any], tmp_path: Path, columns: dict[str, Any], **settings: Any) -> dict[str, Any]:
    line = json.dumps({"event_time": TIME} | event) + "\n"
    (row,) = rows_of(line, tmp_path / "a.jsonl", mapping_of(columns, **settings))
    return row


@pytest.mark.parametrize(
    ("event", "joined"), [({"a": "x", "b": 5}, "x:5"), ({"b": 5}, "5"), ({"a": " ", "b": "y"}, "y"), ({"a": "x"}, "x")]
)
def test_texts_are_joined_by_a_colon_and_the_missing_left_out(tmp_path: Path, event: dict[str, Any], joined: str):
    assert one(event, tmp_path, {"event_id": {"join": ["a", "b"]}})["event_id"] == joined


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**11), max_size=3))
@settings(max_examples=25)
def test_a_sum_is_of_the_numbers_that_are_there(tmp_path_factory: Any, event: dict[str, int]):
    row = one(event, tmp_path_factory.mktemp("sum"), {"input_tokens": {"sum": ["a", "b", "c"]}})
    assert row["input_tokens"] == (sum(event.values()) if event else None)


@pytest.mark.parametrize(
    ("event", "milliseconds"),
    [
        ({"s": "2026-05-01T00:00:00Z", "e": "2026-05-01T00:00:01.5+00:00"}, 1500.0),
        ({"s": 1777629600, "e": 1777629600250}, 250.0),
        ({"s": "2026-05-01T00:00:00Z"}, None),
        ({"s": "soon", "e": "2026-05-01T00:00:00Z"}, None),
    ],
)
def test_a_duration_may_lie_between_two_times(tmp_path: Path, event: dict[str, Any], milliseconds: float | None):
    for unit in ("ms", "s"):
        row = one(event, tmp_path, {"latency_ms": {"between": ["s", "e"], "unit": unit}})
        assert row["latency_ms"] == milliseconds


def test_an_end_before_the_start_is_refused(tmp_path: Path):
    columns = {"latency_ms": {"between": ["s", "e"]}}
    assert one({"s": 1777629601, "e": 1777629600}, tmp_path, columns)["reason"] == "negative_latency"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"status": 500, "why": "boom"}, "boom"),
        ({"status": "500"}, "failed"),
        ({"status": 399, "why": "x"}, None),
        ({"why": "x"}, None),
    ],
)
def test_a_field_holds_only_under_its_condition_and_then_has_its_default(
    tmp_path: Path, event: dict[str, Any], error: str | None
):
    columns = {"error_type": {"from": "why", "default": "failed", "when": {"field": "status", "at_least": 400}}}
    assert one(event, tmp_path, columns)["error_type"] == error


def test_output_may_be_counted_without_its_reasoning(tmp_path: Path):
    columns = {"output_tokens": "o", "reasoning_tokens": "r", "input_tokens": "i", "cache_read_tokens": "c"}
    event = {"o": 5, "r": 7, "i": 1, "c": 2}
    row = one(event, tmp_path, columns, tokens={"input": "exclusive", "output": "exclusive"})
    assert (row["output_tokens"], row["input_tokens"], row["reason"]) == (12, 3, None)
    assert one(event, tmp_path, columns, tokens="exclusive")["reason"] == "parts_exceed_whole"


def test_typed_columns_take_defaults_and_conditions_as_well(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"event_time": [TIME, TIME], "status": [200, 503], "cost": [0.5, 0.5]}), path)
    failed = {"field": "status", "at_least": 400}
    columns = {"error_type": {"from": "status", "when": failed}, "reported_cost": {"from": "cost", "free": failed}}
    rows = landed(path, mapping_of(columns)).to_pylist()
    assert [(row["error_type"], float(row["reported_cost"])) for row in rows] == [(None, 0.5), ("503", 0.0)]


def test_a_path_reaches_into_json_text_in_a_column_or_struct(tmp_path: Path):
    path = tmp_path / "a.parquet"
    inner = json.dumps({"usage": {"in.put": [3]}, "team": "care", "nothing": None})
    pq.write_table(
        pa.table({"event_time": [TIME] * 2, "meta": [inner, "{"], "s": [{"json": inner}, {"json": None}]}), path
    )
    columns = {"input_tokens": 'meta.usage."in.put"[0]', "team": "meta.team", "agent": "s.json.team"}
    mapping = mapping_of(columns, attributes={"usage": "meta.usage", "nothing": "meta.nothing"})
    rows = landed(path, mapping).to_pylist()
    assert [(row["input_tokens"], row["team"], row["agent"], row["reason"]) for row in rows] == [
        (3, "care", "care", None),
        (None, None, None, None),
    ]
    assert json.loads(rows[0]["attributes"]) == {"usage": {"in.put": [3]}}


def test_only_the_first_of_rows_that_are_one_call_may_count(tmp_path: Path):
    lines = "".join(json.dumps({"event_time": TIME, "id": key, "n": n}) + "\n" for n, key in enumerate("aabac"))
    for keep, kept in (("first", [0, 2, 4]), ("last", [2, 3, 4])):
        mapping = mapping_of({"input_tokens": "n"}, once={"by": "id", "keep": keep})
        assert [row["input_tokens"] for row in rows_of(lines, tmp_path / "a.jsonl", mapping)] == kept


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"zone": "Mars/Olympus"}, "no IANA time zone"),
        ({"filter": {"field": "a"}}, "at_least"),
        ({"filter": {"field": "a", "equals": "x", "at_least": 1}}, "at_least"),
        ({"tokens": "both"}, "tokens"),
        ({"columns": {"event_time": "t", "org": {"from": "a", "const": "b"}}}, "give either from"),
        ({"once": {"by": []}}, "once"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], complaint: str):
    with pytest.raises(ValidationError, match=complaint):
        SourceMapping.model_validate({"source": "test", "columns": {"event_time": "t"}} | settings)


def test_a_misspelt_setting_of_a_condition_is_told(tmp_path: Path):
    path = tmp_path / "m.yaml"
    path.write_text("source: a\nonce: {bye: [id]}\ncolumns:\n  event_time: t\n")
    with pytest.raises(MappingInvalid, match=r"line 2: once\.bye: there is no such setting; did you mean by\?"):
        load_mapping(path)
