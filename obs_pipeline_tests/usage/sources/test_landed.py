"""The ids of events that have none, and rows as they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from obs_pipeline.usage.sources.landed import DERIVED_PREFIX, LANDED_SCHEMA
from obs_pipeline_tests.usage.sources.reading_whole import CANONICAL, TIME, landed, mapping_of, rows_of

EVENTS = [
    {
        "event_time": TIME,
        "agent": f"agent-{n % 3}",
        "input_tokens": n,
        "reported_cost": f"0.{n:03d}",
        "latency_ms": n / 4,
    }
    for n in range(40)
]


def jsonl(events: list[dict[str, object]]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def ids(rows: list[dict[str, object]]) -> list[object]:
    return [row["event_id"] for row in rows]


def test_a_derived_id_has_the_prefix_and_32_hexadecimal_digits(tmp_path: Path):
    (row,) = rows_of(jsonl(EVENTS[:1]), tmp_path / "a.jsonl")
    assert row["event_id"].startswith(DERIVED_PREFIX)
    assert len(row["event_id"]) == len(DERIVED_PREFIX) + 32
    int(row["event_id"].removeprefix(DERIVED_PREFIX), 16)


def test_the_same_content_twice_in_a_file_is_two_events(tmp_path: Path):
    assert len(set(ids(rows_of(jsonl(EVENTS[:1] * 5), tmp_path / "a.jsonl")))) == 5


def test_ids_do_not_depend_on_the_name_the_blocks_or_what_follows(tmp_path: Path):
    whole = ids(rows_of(jsonl(EVENTS), tmp_path / "a.jsonl"))
    assert ids(rows_of(jsonl(EVENTS[:25]), tmp_path / "b.log")) == whole[:25]
    assert ids(rows_of(jsonl(EVENTS), tmp_path / "c.jsonl", block_bytes=150)) == whole
    assert ids(rows_of(jsonl(EVENTS), tmp_path / "d.jsonl", batch_rows=7)) == whole


def test_ids_do_not_depend_on_the_format(tmp_path: Path):
    table = landed_without_ids(tmp_path)
    pq.write_table(table, tmp_path / "a.parquet")
    pa_csv.write_csv(table, tmp_path / "a.csv")
    expected = landed(tmp_path / "a.jsonl")["event_id"]
    assert landed(tmp_path / "a.parquet")["event_id"].equals(expected)
    assert landed(tmp_path / "a.csv")["event_id"].equals(expected)


def landed_without_ids(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(jsonl(EVENTS))
    return landed(tmp_path / "a.jsonl").drop_columns(["event_id", "row_number", "reason", "detail", "raw"])


def test_any_change_of_the_content_changes_the_id(tmp_path: Path):
    event = {"event_time": TIME, "agent": "a", "model": None, "input_tokens": 1}
    variants = [
        event,
        event | {"agent": "b"},
        event | {"input_tokens": 2},
        event | {"agent": None, "model": "a"},
        event | {"attributes": {"x": 1}},
    ]
    found = [ids(rows_of(jsonl([variant]), tmp_path / "a.jsonl"))[0] for variant in variants]
    assert len(set(found)) == len(variants)


@pytest.mark.parametrize(("native", "kept"), [("x-1", "x-1"), (17, "17"), ("", None), ("  ", None), (None, None)])
def test_a_native_id_is_kept_and_a_blank_one_is_none(tmp_path: Path, native: object, kept: str | None):
    (row,) = rows_of(jsonl([{"event_time": TIME, "event_id": native}]), tmp_path / "a.jsonl")
    assert row["event_id"] == kept if kept else row["event_id"].startswith(DERIVED_PREFIX)


def test_an_unfit_row_gets_no_id_it_did_not_have(tmp_path: Path):
    found = rows_of(jsonl([{"agent": "a"}, {"agent": "a", "event_id": "x"}]), tmp_path / "a.jsonl")
    assert ids(found) == [None, "x"]


def test_a_long_raw_row_is_cut_with_a_note_of_its_length(tmp_path: Path):
    line = json.dumps({"agent": "é" * 30_000}, ensure_ascii=False)
    (row,) = rows_of(line, tmp_path / "a.jsonl")
    assert row["raw"].startswith('{"agent": "ééé')
    assert row["raw"].endswith(f"… [{len(line.encode()):,} bytes in all]")
    assert len(row["raw"]) < 2_100


def test_a_good_row_keeps_no_raw_row(tmp_path: Path):
    (row,) = rows_of(jsonl(EVENTS[:1]), tmp_path / "a.jsonl")
    assert (row["reason"], row["detail"], row["raw"]) == (None, None, None)


def test_zero_bytes_of_a_lost_page_are_shown_and_not_kept(tmp_path: Path):
    found = rows_of(jsonl(EVENTS[:1]).encode() + bytes(50) + b"\n", tmp_path / "a.jsonl")
    assert found[1]["reason"] == "bad_json"
    assert found[1]["raw"] == "\\x00" * 50


def test_every_batch_has_the_landed_schema(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(jsonl(EVENTS) + "rubbish\n")
    assert landed(tmp_path / "a.jsonl", mapping_of({"agent": "agent"})).schema == LANDED_SCHEMA
    assert landed(tmp_path / "a.jsonl", CANONICAL).schema == LANDED_SCHEMA
