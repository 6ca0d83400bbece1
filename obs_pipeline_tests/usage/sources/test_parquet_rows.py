"""Parquet files: types of every kind, damage, text that is none, and the short way for columns that are canonical already."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from obs_pipeline.usage.event import EVENT_SCHEMA, MONEY, TIME
from obs_pipeline.usage.sources.mapping import SourceMapping
from obs_pipeline.usage.sources.streams import FileUnreadable
from obs_pipeline.usage.sources.translate import read_usage
from obs_pipeline_tests.usage.sources.reading_whole import CANONICAL, NOW, landed, mapping_of, reasons

NOON = datetime(2026, 5, 1, 12)


def canonical_table(rows: int) -> pa.Table:
    """Events in exactly the types of the canonical event."""
    made = np.random.default_rng(7)
    tokens = made.integers(0, 10_000, rows)
    return pa.table(
        {
            "source": ["gateway"] * rows,
            "event_id": [f"call-{n}" for n in range(rows)],
            "event_time": pa.array([NOON + timedelta(seconds=n) for n in range(rows)], TIME),
            "event_type": ["usage"] * rows,
            "agent": pa.array([None if n % 7 == 0 else f"agent-{n % 5}" for n in range(rows)]),
            "model": [f"model-{n % 3}" for n in range(rows)],
            "input_tokens": pa.array(tokens),
            "cache_read_tokens": pa.array(tokens // 2),
            "output_tokens": pa.array(tokens // 3),
            "reported_cost": pa.array([Decimal(n) / 1000 for n in range(rows)]).cast(MONEY),
            "latency_ms": pa.array(tokens / 7.0),
        }
    )


def stored(table: pa.Table, path: Path, **how: Any) -> Path:
    pq.write_table(table, path, **how)
    return path


def read(table: pa.Table, tmp_path: Path, mapping=CANONICAL) -> list[dict[str, Any]]:
    return landed(stored(table, tmp_path / "a.parquet"), mapping).to_pylist()


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.append_column(name, values) if at < 0 else table.set_column(at, name, values)


def test_canonical_columns_come_through_unchanged(tmp_path: Path):
    table = canonical_table(1000)
    found = landed(stored(table, tmp_path / "a.parquet"))
    for name in table.column_names:
        assert found[name].to_pylist() == table[name].to_pylist(), name
    assert found["row_number"].to_pylist() == list(range(1, 1001))
    assert found["reason"].null_count == 1000


def test_every_rule_holds_on_canonical_columns_as_on_text(tmp_path: Path):
    faults = [
        ("event_time", None, "missing_time"),
        ("event_time", datetime(2019, 1, 1), "time_before_2020"),
        ("event_time", NOW + timedelta(days=2), "time_in_future"),
        ("event_type", "gift", "unknown_event_type"),
        ("input_tokens", -1, "negative_tokens"),
        ("output_tokens", 10**13, "tokens_too_large"),
        ("reported_cost", Decimal(-1), "negative_cost"),
        ("latency_ms", float("nan"), "non_finite"),
        ("latency_ms", float("inf"), "non_finite"),
        ("latency_ms", -1.0, "negative_latency"),
        ("cache_read_tokens", 10**9, "parts_exceed_whole"),
    ]
    table = canonical_table(30)
    for at, (name, value, _) in enumerate(faults):
        column = table[name].to_pylist()
        column[2 * at + 1] = value
        table = with_column(table, name, pa.array(column, table[name].type))
    as_text = pa.table({name: table[name].cast(pa.string()) for name in table.column_names})
    expected = [faults[n // 2][2] if n % 2 and n // 2 < len(faults) else None for n in range(30)]
    found = read(table, tmp_path)
    assert reasons(found) == expected
    assert reasons(read(as_text, tmp_path)) == expected
    assert '"event_id":"call-9"' in found[9]["raw"]
    assert found[9]["detail"] == "input_tokens is -1; a count cannot be negative"


def test_other_types_of_the_same_values_give_the_same_events(tmp_path: Path):
    table = canonical_table(50)
    others = {
        "event_time": [
            pa.timestamp("ns"),
            pa.timestamp("ms"),
            pa.timestamp("us", "Europe/Berlin"),
            pa.timestamp("ns", "UTC"),
            pa.timestamp("ns", "Asia/Tokyo"),
            pa.int64(),
            pa.string(),
        ],
        "input_tokens": [pa.int32(), pa.uint64(), pa.float64(), pa.decimal128(30, 2), pa.string(), pa.float32()],
        "reported_cost": [pa.float64(), pa.decimal128(30, 12), pa.decimal256(50, 9), pa.string()],
        "latency_ms": [pa.string()],
        "agent": [pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
        "event_type": [pa.large_string(), pa.binary()],
    }
    expected = read(table, tmp_path)
    for name, types in others.items():
        for wanted in types:
            changed = with_column(table, name, table[name].combine_chunks().cast(wanted))
            assert read(changed, tmp_path) == expected, (name, wanted)


def test_every_other_number_type_of_a_duration_is_taken(tmp_path: Path):
    table = with_column(canonical_table(5), "latency_ms", pa.array([1, 2, 3, 4, 5], pa.int16()))
    assert [row["latency_ms"] for row in read(table, tmp_path)] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_date_is_its_midnight(tmp_path: Path):
    table = with_column(canonical_table(2), "event_time", pa.array([date(2026, 5, 1)] * 2))
    assert [row["event_time"] for row in read(table, tmp_path)] == [datetime(2026, 5, 1)] * 2


def test_a_time_too_large_for_the_event_is_no_time(tmp_path: Path):
    table = with_column(canonical_table(2), "event_time", pa.array([10**17, 1777636800000], pa.timestamp("ms")))
    assert reasons(read(table, tmp_path)) == ["bad_time", None]


def test_a_timestamp_with_a_zone_becomes_utc(tmp_path: Path):
    berlin = pa.array([datetime(2026, 5, 1, 10, tzinfo=UTC)] * 2).cast(pa.timestamp("us", "Europe/Berlin"))
    assert [row["event_time"] for row in read(with_column(canonical_table(2), "event_time", berlin), tmp_path)] == [
        datetime(2026, 5, 1, 10)
    ] * 2


def test_a_double_cost_is_exact(tmp_path: Path):
    table = with_column(canonical_table(3), "reported_cost", pa.array([0.1, 4e-7, None]))
    assert [row["reported_cost"] for row in read(table, tmp_path)] == [Decimal("0.1"), Decimal("4e-7"), None]


@pytest.mark.parametrize("name", ["agent", "session_id"])
def test_blank_texts_are_null(tmp_path: Path, name: str):
    table = with_column(canonical_table(4), name, pa.array(["", " ", "\t\n", "a"]))
    assert [row[name] for row in read(table, tmp_path)] == [None, None, None, "a"]


def test_an_event_type_is_read_in_any_case_and_missing_is_usage(tmp_path: Path):
    table = with_column(canonical_table(3), "event_type", pa.array(["Credit", None, " usage "]))
    assert [row["event_type"] for row in read(table, tmp_path)] == ["credit", "usage", "usage"]


def test_a_missing_source_is_the_mappings(tmp_path: Path):
    table = with_column(canonical_table(3), "source", pa.array(["a", None, ""]))
    assert [row["source"] for row in read(table, tmp_path)] == ["a", "canonical", "canonical"]


def test_a_column_of_nothing_but_nulls_is_missing(tmp_path: Path):
    table = canonical_table(2)
    for name in ("agent", "input_tokens", "cache_read_tokens", "reported_cost", "latency_ms", "event_type"):
        table = with_column(table, name, pa.nulls(2))
    (row, _) = read(table, tmp_path)
    assert (row["agent"], row["input_tokens"], row["reported_cost"], row["latency_ms"], row["event_type"]) == (
        None,
        None,
        None,
        None,
        "usage",
    )


@pytest.mark.parametrize("dictionary", [True, False])
def test_text_that_is_not_utf_8_refuses_its_row_only(tmp_path: Path, dictionary: bool):
    raw = pa.array([b"ok", b"caf\xe9", b"ok", None, b"ok"], pa.binary())
    table = with_column(canonical_table(5), "agent", raw.view(pa.string()))
    path = stored(table, tmp_path / "a.parquet", use_dictionary=dictionary)
    found = landed(path).to_pylist()
    assert reasons(found) == [None, "bad_encoding", None, None, None]
    assert "caf\\xe9" in found[1]["raw"].replace("\\\\", "\\")
    assert found[1]["detail"] == "agent is not UTF-8 text"
    assert [row["row_number"] for row in found] == [1, 2, 3, 4, 5]


def test_structs_are_reached_by_paths_and_kept_as_attributes(tmp_path: Path):
    table = pa.table(
        {
            "event_time": pa.array([NOON], TIME),
            "usage": [{"prompt": 5, "more": {"model": "m"}}],
            "a.b": ["flat"],
            "tags": [[{"k": 1}]],
        }
    )
    mapping = mapping_of(
        {"input_tokens": "usage.prompt", "model": "usage.more.model", "agent": "a.b", "team": "usage.none"},
        attributes={"usage": "usage", "tags": "tags", "prompt": "usage.prompt", "none": "nothing"},
    )
    (row,) = read(table, tmp_path, mapping)
    assert (row["input_tokens"], row["model"], row["agent"], row["team"]) == (5, "m", "flat", None)
    assert row["attributes"] == '{"usage":{"prompt":5,"more":{"model":"m"}},"tags":[{"k":1}],"prompt":5}'


def test_the_first_of_several_columns_with_a_value_is_taken(tmp_path: Path):
    table = pa.table({"a": [None, 5, None], "b": ["7", "8", ""], "event_time": pa.array([NOON] * 3, TIME)})
    found = read(table, tmp_path, mapping_of({"input_tokens": ["missing", "a", "b"]}))
    assert [row["input_tokens"] for row in found] == [7, 5, None]


def test_a_file_without_a_column_for_time_refuses_every_row(tmp_path: Path):
    found = read(canonical_table(3).drop_columns(["event_time"]), tmp_path)
    assert reasons(found) == ["missing_time"] * 3
    assert "no column" in found[0]["detail"]


def test_a_file_with_none_of_the_columns_is_refused_as_a_whole(tmp_path: Path):
    (row,) = read(pa.table({"x": [1, 2], "y": [3, 4]}), tmp_path)
    assert (row["row_number"], row["reason"]) == (1, "no_mapped_column")
    assert "x, y" in row["detail"]


def test_an_empty_table_has_no_rows(tmp_path: Path):
    assert read(EVENT_SCHEMA.empty_table(), tmp_path) == []


def test_damage_in_one_row_group_leaves_the_others(tmp_path: Path):
    table = canonical_table(3000)
    path = stored(table, tmp_path / "a.parquet", row_group_size=1000, compression="zstd", write_page_checksum=True)
    column = pq.read_metadata(path).row_group(1).column(table.schema.get_field_index("event_id"))
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)
    found = landed(path).to_pylist()
    (lost,) = [row for row in found if row["reason"]]
    assert (lost["row_number"], lost["reason"]) == (1001, "unreadable_file")
    assert "rows 1,001 to 2,000 (row group 2)" in lost["detail"]
    assert [row["row_number"] for row in found if not row["reason"]] == [*range(1, 1001), *range(2001, 3001)]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_one_row_that_says_so(tmp_path: Path, kept: float):
    path = stored(canonical_table(100), tmp_path / "a.parquet")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    (row,) = landed(path).to_pylist()
    assert (row["row_number"], row["reason"]) == (1, "unreadable_file")
    assert "a.parquet" in row["detail"]


def test_random_damage_never_ends_the_reading_with_an_error(tmp_path: Path):
    path = stored(canonical_table(2000), tmp_path / "a.parquet", row_group_size=500, write_page_checksum=True)
    content = path.read_bytes()
    chance = random.Random(5)
    for _ in range(25):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[chance.randrange(4, len(damaged) - 8_000)] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        found = landed(path)
        assert found.num_rows > 0


def test_rows_come_in_batches_of_the_size_asked_for(tmp_path: Path):
    path = stored(canonical_table(1000), tmp_path / "a.parquet", row_group_size=300)
    sizes = [batch.num_rows for batch in read_usage(path, CANONICAL, now=NOW, batch_rows=128)]
    assert max(sizes) == 128
    assert sum(sizes) == 1000


@pytest.mark.parametrize("mapping", [CANONICAL, mapping_of({}, format="parquet"), mapping_of({}, format="csv")])
def test_a_file_that_is_not_there_is_told_by_name(tmp_path: Path, mapping: SourceMapping):
    with pytest.raises(FileUnreadable, match=r"nowhere\.parquet"):
        list(read_usage(tmp_path / "nowhere.parquet", mapping, now=NOW))
