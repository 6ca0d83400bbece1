"""Every malformation a usage file can have: its own row is refused with a reason, the rest of the file lands."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.usage.quality import REASONS
from obs_pipeline.usage.sources.mapping import MappingInvalid, load_mapping
from obs_pipeline.usage.sources.translate import read_usage

NOW = datetime(2026, 3, 10)
SAMPLE = Path(__file__).parents[3] / "sample_data" / "aider-analytics.jsonl.gz"
GOOD = {"event_id": "a", "event_time": "2026-03-01T10:00:00Z", "agent": "bot", "input_tokens": 5, "output_tokens": 1}


def rows_of(path: Path, mapping: str | Path = "canonical", now: datetime = NOW) -> list[dict[str, Any]]:
    return [row for batch in read_usage(path, load_mapping(mapping), now=now) for row in batch.to_pylist()]


def written(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(texts) + b"\n")
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"event_time": None}, "missing_time"),
        ({"event_time": "yesterday"}, "bad_time"),
        ({"event_time": "2019-12-31T23:59:59Z"}, "time_before_2020"),
        ({"event_time": "2026-03-11T00:00:01Z"}, "time_in_future"),
        ({"event_type": "gift"}, "unknown_event_type"),
        ({"input_tokens": "abc"}, "bad_type"),
        ({"input_tokens": 12.5}, "bad_type"),
        ({"output_tokens": -1}, "negative_tokens"),
        ({"input_tokens": 1e300}, "tokens_too_large"),
        ({"reported_cost": "NaN"}, "non_finite"),
        ({"reported_cost": "Infinity"}, "non_finite"),
        ({"reported_cost": -0.5}, "negative_cost"),
        ({"reported_cost": 1e10}, "cost_too_large"),
        ({"latency_ms": -3}, "negative_latency"),
        ({"cache_read_tokens": 6}, "parts_exceed_whole"),
        ({"reasoning_tokens": 2}, "parts_exceed_whole"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason_and_its_neighbours_land(
    tmp_path: Path, change: dict[str, Any], reason: str
):
    path = written(tmp_path / "usage.jsonl", GOOD, {**GOOD, "event_id": "bad", **change}, {**GOOD, "event_id": "c"})
    first, bad, last = rows_of(path)
    assert (first["reason"], last["reason"]) == (None, None)
    assert bad["reason"] == reason
    assert bad["reason"] in REASONS
    assert next(iter(change)) in bad["detail"] or reason == "parts_exceed_whole"
    assert '"bad"' in bad["raw"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json}", "bad_json"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b'{"event_id": "\xff\xfe"}', "bad_encoding"),
        (b'{"agent": "' + b"x" * 2_000_000 + b'"}', "line_too_long"),
    ],
)
def test_a_broken_line_is_refused_and_the_lines_around_it_land(tmp_path: Path, line: bytes, reason: str):
    rows = rows_of(written(tmp_path / "usage.jsonl", GOOD, line, {**GOOD, "event_id": "b"}))
    assert sorted((row["row_number"], row["reason"] or "") for row in rows) == [(1, ""), (2, reason), (3, "")]
    assert all(len(row["raw"] or "") < 2_200 for row in rows)


@pytest.mark.parametrize("value", ["0.0001107", "4e-07", "1E-9", "12.3456789012", "0.1", "-0", "999999999.999999999"])
def test_a_cost_is_read_exactly_from_its_text(tmp_path: Path, value: str):
    path = tmp_path / "usage.jsonl"
    path.write_text('{"event_time": "2026-03-01", "reported_cost": ' + value + "}\n")
    (row,) = rows_of(path)
    assert row["reported_cost"] == Decimal(value).quantize(Decimal("1e-9"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10)),
        ("2026-03-01T10:00:00", datetime(2026, 3, 1, 10)),
        ("2026-03-01T10:00:00+05:30", datetime(2026, 3, 1, 4, 30)),
        (1772359200, datetime(2026, 3, 1, 10)),
        (1772359200000, datetime(2026, 3, 1, 10)),
        (1772359200000000, datetime(2026, 3, 1, 10)),
    ],
)
def test_times_become_utc(tmp_path: Path, value: object, expected: datetime):
    (row,) = rows_of(written(tmp_path / "usage.jsonl", {**GOOD, "event_time": value}))
    assert row["event_time"] == expected


def test_a_credit_may_be_negative(tmp_path: Path):
    credit = {**GOOD, "event_type": "credit", "reported_cost": -5}
    (row,) = rows_of(written(tmp_path / "usage.jsonl", credit))
    assert (row["reason"], row["reported_cost"]) == (None, Decimal(-5))


def test_missing_tokens_are_null_and_not_zero(tmp_path: Path):
    (row,) = rows_of(written(tmp_path / "usage.jsonl", {"event_time": "2026-03-01", "input_tokens": ""}))
    assert (row["input_tokens"], row["output_tokens"], row["reported_cost"]) == (None, None, None)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_packed_file_that_breaks_off_lands_what_came_before_the_break(tmp_path: Path, pack: Any):
    lines = b"\n".join(json.dumps({**GOOD, "event_id": f"{n}-{n * 7919 % 10007}"}).encode() for n in range(20_000))
    packed = pack(lines)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    whole.write_bytes(packed)
    cut.write_bytes(packed[: len(packed) // 2])
    assert len(rows_of(whole)) == 20_000
    *landed, last = rows_of(cut)
    assert 0 < len(landed) < 20_000
    assert {row["reason"] for row in landed} == {None}
    assert last["reason"] == "truncated_file"


def test_csv_takes_quoted_line_breaks_and_refuses_records_of_another_length(tmp_path: Path):
    path = tmp_path / "usage.csv"
    path.write_text('event_id,event_time,agent\na,2026-03-01,"two\nlines"\nb,2026-03-01\nc,2026-03-01,bot\n')
    rows = {row["event_id"] or row["reason"]: row for row in rows_of(path)}
    assert rows["a"]["agent"] == "two\nlines"
    assert rows["c"]["reason"] is None
    assert "2 fields" in rows["bad_csv"]["detail"]


def test_a_latin_1_line_and_a_utf_16_file_are_named_as_such(tmp_path: Path):
    latin = tmp_path / "latin.csv"
    latin.write_bytes("event_id,event_time,agent\na,2026-03-01,café\nb,2026-03-01,bot\n".encode("latin-1"))
    assert [row["reason"] for row in sorted(rows_of(latin), key=lambda row: row["row_number"])] == [
        "bad_encoding",
        None,
    ]
    wide = tmp_path / "wide.csv"
    wide.write_bytes("event_id,event_time\na,2026-03-01\n".encode("utf-16"))
    (row,) = rows_of(wide)
    assert (row["reason"], "UTF-16" in row["detail"]) == ("bad_encoding", True)


def test_a_parquet_file_that_is_none_is_one_refused_row(tmp_path: Path):
    path = tmp_path / "usage.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 100)
    (row,) = rows_of(path)
    assert row["reason"] == "unreadable_file"
    assert "usage.parquet" in row["detail"]


def test_parquet_columns_of_other_types_are_converted_or_refused(tmp_path: Path):
    path = tmp_path / "usage.parquet"
    table = {
        "event_id": ["a", "b"],
        "event_time": ["2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z"],
        "input_tokens": ["12", "x"],
        "reported_cost": [0.1, 0.2],
    }
    pq.write_table(pa.table(table), path)
    good, bad = rows_of(path)
    assert (good["input_tokens"], good["reported_cost"]) == (12, Decimal("0.1"))
    assert bad["reason"] == "bad_type"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_derived_ids_are_the_same_when_a_file_has_grown(tmp_path: Path, form: str):
    def write(path: Path, count: int) -> Path:
        times = [datetime(2026, 3, 1, hour) for hour in range(count)]
        if form == "parquet":
            pq.write_table(pa.table({"event_time": pa.array(times, pa.timestamp("us")), "agent": ["a"] * count}), path)
        elif form == "csv":
            path.write_text("event_time,agent\n" + "".join(f"{time.isoformat()},a\n" for time in times))
        else:
            path.write_text(
                "".join(json.dumps({"event_time": time.isoformat(), "agent": "a"}) + "\n" for time in times)
            )
        return path

    before = [row["event_id"] for row in rows_of(write(tmp_path / f"before.{form}", 3))]
    after = [row["event_id"] for row in rows_of(write(tmp_path / f"after.{form}", 6))]
    assert after[:3] == before
    assert len(set(after)) == 6


LINES = st.lists(
    st.one_of(
        st.integers(0, 10**6).map(lambda n: json.dumps({**GOOD, "event_id": str(n)}).encode()),
        # The tilde keeps a first line from being the magic number of some other kind of file.
        st.binary(max_size=30).map(lambda raw: b"~" + raw.translate(bytes.maketrans(b"\n\r\0", b"   "))),
        st.sampled_from(
            [b"", b"{}", b"[]", b"null", b'{"event_time": 1}', b"{\xff", b" " * 50, b'{"a": "' + b"y" * 400 + b'"}']
        ),
    ),
    max_size=30,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES)
def test_rows_out_are_the_lines_that_are_not_blank(tmp_path: Path, lines: list[bytes]):
    path = tmp_path / "usage.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    numbers = sorted(row["row_number"] for row in rows_of(path))
    assert numbers == [number for number, line in enumerate(lines, 1) if line.strip(b" \t\r")]


def test_the_real_sample_is_read_to_the_last_cent():
    with gzip.open(SAMPLE) as file:
        records = [json.loads(line, parse_float=Decimal) for line in file]
    rows = rows_of(SAMPLE, "aider", now=datetime(2026, 5, 1))
    assert len(rows) == len(records) == 5522
    assert {row["reason"] for row in rows} == {None}
    total = sum((Decimal(record["properties"]["cost"]).quantize(Decimal("1e-9")) for record in records), Decimal(0))
    assert sum((row["reported_cost"] or Decimal(0) for row in rows), Decimal(0)) == total


def test_a_cost_of_zero_is_not_reported_where_the_mapping_says_so():
    unknown = [row for row in rows_of(SAMPLE, "aider") if row["reported_cost"] is None]
    assert len(unknown) > 1000
    assert not [row for row in rows_of(SAMPLE, "aider") if row["reported_cost"] == 0]


def test_a_misspelt_field_of_a_mapping_is_named_with_its_line_and_a_suggestion(tmp_path: Path):
    path = tmp_path / "gateway.yaml"
    path.write_text("source: gateway\ncolumns:\n  event_time: ts\n  imput_tokens: tokens\n")
    with pytest.raises(MappingInvalid, match=r"gateway\.yaml.*4.*input_tokens") as caught:
        load_mapping(path)
    assert "\n  " in str(caught.value) or "imput_tokens" in str(caught.value)


def test_exclusive_token_counts_get_their_cache_parts_back(tmp_path: Path):
    mapping = tmp_path / "gateway.yaml"
    mapping.write_text(
        "source: gateway\ntokens: exclusive\ncolumns:\n  event_time: t\n  input_tokens: i\n  cache_read_tokens: r\n"
    )
    (row,) = rows_of(written(tmp_path / "usage.jsonl", {"t": "2026-03-01", "i": 10, "r": 90}), mapping)
    assert (row["input_tokens"], row["cache_read_tokens"]) == (100, 90)


_MEASURE = """
import resource, sys
from datetime import datetime
from pathlib import Path
from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline.usage.sources.translate import read_usage
rows = sum(batch.num_rows for batch in read_usage(Path(sys.argv[1]), load_mapping("canonical"), now=datetime(2026, 3, 10)))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path):
    def peak(lines: int) -> int:
        path = tmp_path / f"{lines}.jsonl"
        line = json.dumps({**GOOD, "attributes": {"note": "x" * 300}}).encode() + b"\n"
        path.write_bytes(line * lines)
        run = subprocess.run([sys.executable, "-c", _MEASURE, path], capture_output=True, text=True, check=True)
        rows, kilobytes = map(int, run.stdout.split())
        assert rows == lines
        return kilobytes

    small, large = peak(40_000), peak(200_000)
    assert large < small * 1.4 + 50_000, f"{small} kB for 40,000 lines, {large} kB for 200,000"
