"""From raw rows to canonical rows: paths, constants, filters, exclusive counts; and that no row is lost or made."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.usage.quality import REASONS
from obs_pipeline_tests.usage.sources.reading_whole import TIME, landed, mapping_of, reasons, rows_of


def one(event: dict[str, Any] | str, tmp_path: Path, columns: dict[str, Any], **settings: Any) -> dict[str, Any]:
    line = event if isinstance(event, str) else json.dumps({"event_time": TIME} | event)
    (row,) = rows_of(line + "\n", tmp_path / "a.jsonl", mapping_of(columns, **settings))
    return row


@pytest.mark.parametrize(
    ("path", "event"),
    [
        ("a.b.c", {"a": {"b": {"c": "m"}}}),
        ('a."gen_ai.model"', {"a": {"gen_ai.model": "m"}}),
        ("a[1].b", {"a": [{}, {"b": "m"}]}),
        ("my model", {"my model": "m"}),
        ("größe", {"größe": "m"}),
        ("it's", {"it's": "m"}),
    ],
)
def test_a_path_reaches_into_a_line(tmp_path: Path, path: str, event: dict[str, Any]):
    assert one(event, tmp_path, {"model": path})["model"] == "m"


@pytest.mark.parametrize("event", [{}, {"a": None}, {"a": {}}, {"a": "text"}, {"a": {"b": None}}, {"a": {"b": " "}}])
def test_a_path_that_leads_nowhere_is_null(tmp_path: Path, event: dict[str, Any]):
    row = one(event, tmp_path, {"model": "a.b"})
    assert (row["model"], row["reason"]) == (None, None)


def test_the_first_path_with_a_value_is_taken(tmp_path: Path):
    columns = {"model": ["a", "b", "c"]}
    assert one({"b": "", "c": "m"}, tmp_path, columns)["model"] == "m"
    assert one({"a": "x", "c": "m"}, tmp_path, columns)["model"] == "x"


def test_constants_fill_every_row_in_the_type_of_their_field(tmp_path: Path):
    row = one({}, tmp_path, {"org": {"const": "acme"}, "input_tokens": {"const": 5}, "reported_cost": {"const": "0.1"}})
    assert (row["org"], row["input_tokens"], row["reported_cost"]) == ("acme", 5, Decimal("0.1"))


def test_a_cost_keeps_digits_that_a_double_would_lose(tmp_path: Path):
    line = f'{{"event_time": "{TIME}", "usage": {{"cost": 123456789.123456784}}}}'
    assert one(line, tmp_path, {"reported_cost": "usage.cost"})["reported_cost"] == Decimal("123456789.123456784")


def test_another_number_under_the_same_name_is_not_taken_for_the_cost(tmp_path: Path):
    line = f'{{"event_time": "{TIME}", "other": {{"cost": 7.5}}, "usage": {{"cost": 0.25}}}}'
    assert one(line, tmp_path, {"reported_cost": "usage.cost"})["reported_cost"] == Decimal("0.25")


@pytest.mark.parametrize(("unit", "cost"), [("usd", "12.5"), ("cents", "0.125"), ("micro_usd", "0.0000125")])
def test_the_unit_of_a_cost_is_applied(tmp_path: Path, unit: str, cost: str):
    assert one({"c": 12.5}, tmp_path, {"reported_cost": {"from": "c", "unit": unit}})["reported_cost"] == Decimal(cost)


def test_seconds_become_milliseconds(tmp_path: Path):
    columns = {"latency_ms": {"from": "s", "unit": "s"}, "ttft_ms": {"from": "ms", "unit": "ms"}}
    row = one({"s": "1.5", "ms": 250}, tmp_path, columns)
    assert (row["latency_ms"], row["ttft_ms"]) == (1500.0, 250.0)


@pytest.mark.parametrize(("zero", "cost"), [("value", Decimal(0)), ("unknown", None)])
@pytest.mark.parametrize("written", [0, "0.00", -0.0])
def test_a_cost_of_zero_is_a_value_or_unknown_as_the_mapping_says(tmp_path: Path, zero: str, cost: Any, written: Any):
    row = one({"c": written}, tmp_path, {"reported_cost": {"from": "c", "zero": zero}})
    assert (row["reported_cost"], row["reason"]) == (cost, None)


def test_a_cost_that_is_no_number_is_refused_where_zero_is_unknown(tmp_path: Path):
    assert one({"c": "abc"}, tmp_path, {"reported_cost": {"from": "c", "zero": "unknown"}})["reason"] == "bad_type"


@pytest.mark.parametrize(
    ("event", "total"),
    [
        ({"i": 10, "r": 90, "w": 5}, 105),
        ({"i": 10, "r": 90}, 100),
        ({"i": 10}, 10),
        ({"r": 90}, None),
    ],
)
def test_exclusive_input_gets_its_cache_parts_back(tmp_path: Path, event: dict[str, int], total: int | None):
    columns = {"input_tokens": "i", "cache_read_tokens": "r", "cache_write_tokens": "w"}
    row = one(event, tmp_path, columns, tokens="exclusive")
    assert (row["input_tokens"], row["cache_read_tokens"], row["reason"]) == (total, event.get("r"), None)


def test_exclusive_counts_of_parquet_get_their_parts_back(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"event_time": [TIME], "i": [10], "r": [90]}), path)
    mapping = mapping_of({"input_tokens": "i", "cache_read_tokens": "r"}, tokens="exclusive")
    assert landed(path, mapping)["input_tokens"].to_pylist() == [100]


def test_rows_that_the_filter_leaves_out_are_named_and_not_dropped(tmp_path: Path):
    lines = [{"kind": "call"}, {"kind": "login"}, {}, {"kind": None}, {"kind": "call"}]
    text = "".join(json.dumps({"event_time": TIME} | line) + "\n" for line in lines)
    mapping = mapping_of({}, filter={"field": "kind", "equals": ["call", "embedding"]})
    found = rows_of(text, tmp_path / "a.jsonl", mapping)
    assert reasons(found) == [None, "not_usage", "not_usage", "not_usage", None]
    assert found[1]["detail"] == "kind is login; the filter takes call or embedding"
    assert '"login"' in found[1]["raw"]


def test_a_filter_takes_truth_values_and_numbers(tmp_path: Path):
    mapping = mapping_of({}, filter={"field": "done", "equals": [True, 1]})
    text = "".join(f'{{"event_time": "{TIME}", "done": {value}}}\n' for value in ("true", "1", "false", "0"))
    assert reasons(rows_of(text, tmp_path / "a.jsonl", mapping)) == [None, None, "not_usage", "not_usage"]


def test_a_filter_on_a_column_that_is_not_there_leaves_everything_out(tmp_path: Path):
    mapping = mapping_of({"model": "model"}, filter={"field": "kind", "equals": "call"})
    (row,) = rows_of(f"event_time,model\n{TIME},m\n", tmp_path / "a.csv", mapping)
    assert (row["reason"], "kind" in row["detail"]) == ("not_usage", True)


def test_attributes_are_gathered_by_name_in_their_own_types(tmp_path: Path):
    attributes = {"n": "x.n", "text": "x.t", 'q"uote': "x.o", "gone": "x.none", "null": "x.null"}
    row = one({"x": {"n": 1.5, "t": 'a"b', "o": {"p": [1]}, "null": None}}, tmp_path, {}, attributes=attributes)
    assert json.loads(row["attributes"]) == {"n": 1.5, "text": 'a"b', 'q"uote': {"p": [1]}}
    assert one({}, tmp_path, {}, attributes=attributes)["attributes"] is None


def test_attributes_from_one_column_stay_an_object(tmp_path: Path):
    columns = {"attributes": "x"}
    assert json.loads(one({"x": {"a": 1}}, tmp_path, columns)["attributes"]) == {"a": 1}
    assert json.loads(one({"x": "plain"}, tmp_path, columns)["attributes"]) == {"text": "plain"}


def test_the_source_of_a_row_may_come_from_the_row(tmp_path: Path):
    assert one({"s": "east"}, tmp_path, {"source": "s"})["source"] == "east"
    assert one({}, tmp_path, {"source": "s"})["source"] == "test"
    assert one({}, tmp_path, {})["source"] == "test"


def test_a_refused_row_keeps_whatever_could_be_read(tmp_path: Path):
    columns = {"model": "m", "input_tokens": "i", "output_tokens": "o", "event_id": "id"}
    row = one({"m": "gpt", "i": "abc", "o": 5, "id": "x"}, tmp_path, columns)
    assert (row["reason"], row["model"], row["input_tokens"], row["output_tokens"], row["event_id"]) == (
        "bad_type",
        "gpt",
        None,
        5,
        "x",
    )


def test_a_line_of_ten_megabytes_costs_itself_only(tmp_path: Path):
    good = json.dumps({"event_time": TIME}) + "\n"
    huge = json.dumps({"event_time": TIME, "prompt": "x" * 10_000_000}) + "\n"
    found = rows_of(good + huge + good, tmp_path / "a.jsonl", mapping_of({}))
    assert reasons(found) == [None, "line_too_long", None]
    assert rows_of(huge, tmp_path / "a.jsonl", mapping_of({}), max_line_bytes=20_000_000)[0]["reason"] is None


def test_json_deeper_than_any_stack_is_read_or_refused(tmp_path: Path):
    deep = "[" * 200_000
    found = rows_of(f'{deep}\n{{"event_time": "{TIME}"}}\n', tmp_path / "a.jsonl", mapping_of({}, format="jsonl"))
    assert reasons(found) == ["bad_json", None]


def test_a_time_zone_of_the_machine_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "America/New_York")
    assert one({}, tmp_path, {})["event_time"].isoformat() == "2026-05-01T12:00:00"


GOOD_LINE = st.integers(0, 999).map(
    lambda n: json.dumps({"event_time": TIME, "input_tokens": n, "model": f"m{n}"}).encode()
)
ODD_LINE = st.sampled_from(
    [
        b"",
        b"   ",
        b"{",
        b"[1]",
        b"null",
        b'{"a": "\xff"}',
        b'{"event_time": "x"}',
        b'{"event_time": "2026-05-01", "input_tokens": -3}',
        b'{"event_time": "2026-05-01", "input_tokens": "9", }',
        b'{"event_time": 1777636800, "cost": NaN}',
        b'{"a": "' + b"z" * 500 + b'"}',
    ]
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.one_of(GOOD_LINE, ODD_LINE), min_size=5, max_size=30), block=st.integers(100, 2000))
def test_rows_in_are_rows_out_however_the_file_is_cut(tmp_path: Path, lines: list[bytes], block: int):
    mapping = mapping_of({"input_tokens": "input_tokens", "model": "model", "reported_cost": "cost"}, format="jsonl")
    content = b"\n".join(lines)
    whole = rows_of(content, tmp_path / "a.jsonl", mapping, max_line_bytes=400)
    in_blocks = rows_of(content, tmp_path / "a.jsonl", mapping, max_line_bytes=400, block_bytes=block)
    assert [row["row_number"] for row in whole] == [n for n, line in enumerate(lines, 1) if line.strip()]
    assert in_blocks == whole
    assert {row["reason"] for row in whole} <= {None, *REASONS}
    assert all(row["detail"] and row["raw"] for row in whole if row["reason"])
