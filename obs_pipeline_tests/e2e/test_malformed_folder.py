"""A folder of everything that goes wrong with files: the good rows land, every bad one is explained, nothing is lost."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from obs_pipeline_tests.command_line import CommandLine, lake_content
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489") + bytes(range(256)) * 8
TEN_MEGABYTES = 10_000_000


def line(**fields: Any) -> bytes:
    when = {"event_time": "2026-03-03T10:00:00", "agent": "writer", "model": "gpt-4o", "input_tokens": 10}
    return json.dumps({**when, **fields}).encode() + b"\n"


def malformed(folder: Path) -> dict[str, tuple[int, dict[int | None, str]]]:
    """Writes the files. By name: how many rows are good, and the reasons of the others by row (None: whichever)."""
    folder.mkdir()
    write_jsonl(folder / "a-good.jsonl", usage_rows(2))
    packed = gzip.compress(b"".join(line(event_id=f"cut-{n}", user_id="x" * 40 + str(n * n)) for n in range(5000)))
    (folder / "b-truncated.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "c-bad.jsonl").write_bytes(
        line(event_id="c1")
        + b'{"event_id": "c2", \n'
        + b"[1, 2]\n"
        + line(event_id="c4", input_tokens=-5)
        + line(event_id="c5")
    )
    (folder / "d-latin.jsonl").write_bytes(
        line(event_id="d1") + '{"event_id": "d2", "agent": "caf\u00e9"}\n'.encode("latin-1") + line(event_id="d3")
    )
    (folder / "e-types.jsonl").write_bytes(
        line(event_id="e1", input_tokens="many") + line(event_id="e2") + line(event_id="e3", latency_ms=-1)
    )
    (folder / "f-empty.jsonl").write_bytes(b"")
    (folder / "g-picture.png").write_bytes(PNG)
    (folder / "h-long.jsonl").write_bytes(
        line(event_id="h1") + line(event_id="h2", attributes={"prompt": "x" * TEN_MEGABYTES}) + line(event_id="h3")
    )
    far = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    (folder / "i-times.jsonl").write_bytes(
        line(event_id="i1", event_time=far)
        + line(event_id="i2", event_time="2019-12-31T23:59:59Z")
        + line(event_id="i3")
    )
    (folder / "j-fields.csv").write_text(
        "event_id,event_time,input_tokens,reported_cost\nj1,2026-03-03T00:00:00,1,0.5\nj2,2026-03-03T00:00:00\n"
        "j3,2026-03-03T00:00:00,NaN,0\nj4,2026-03-03T00:00:00,4,-1\n"
    )
    return {
        "a-good.jsonl": (48, {}),
        "c-bad.jsonl": (2, {2: "bad_json", 3: "not_an_object", 4: "negative_tokens"}),
        "d-latin.jsonl": (2, {2: "bad_encoding"}),
        "e-types.jsonl": (1, {1: "bad_type", 3: "negative_latency"}),
        "f-empty.jsonl": (0, {}),
        "h-long.jsonl": (2, {2: "line_too_long"}),
        "i-times.jsonl": (1, {1: "time_in_future", 2: "time_before_2020"}),
        "j-fields.csv": (1, {2: "bad_csv", 3: "non_finite", 4: "negative_cost"}),
    }


class Landed(NamedTuple):
    """The folder, landed; what was expected, said and reported."""

    obs: CommandLine
    folder: Path
    expected: dict[str, tuple[int, dict[int | None, str]]]
    reports: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Landed:
    folder = tmp_path_factory.mktemp("malformed")
    obs = CommandLine(folder / "home")
    expected = malformed(folder / "files")
    told = json.loads(obs("ingest", folder / "files", "--json").stdout)
    assert told["refused"] == []
    return Landed(obs, folder / "files", expected, {report["name"]: report for report in told["landed"]})


def test_every_file_is_reported(landed: Landed):
    assert set(landed.reports) == {path.name for path in landed.folder.iterdir()}


def test_the_good_rows_land_and_each_bad_one_has_its_reason_and_its_row(landed: Landed):
    for name, (good, reasons) in landed.expected.items():
        report = landed.reports[name]
        assert report["rows"] - sum(report["rejected"].values()) == good, report
        assert {one["row_number"]: one["reason"] for one in report["examples"]} == reasons, report
        assert all(one["detail"] for one in report["examples"])


def test_everything_before_the_break_of_a_truncated_file_is_in(landed: Landed):
    report = landed.reports["b-truncated.jsonl.gz"]
    assert report["rejected"].get("truncated_file") == 1
    assert report["rows"] > 1000
    (last,) = report["examples"][-1:]
    assert last["row_number"] == report["rows"]


def test_a_picture_is_one_explained_row_or_a_few_and_no_event(landed: Landed):
    report = landed.reports["g-picture.png"]
    assert report["rows"] == sum(report["rejected"].values()) > 0
    assert set(report["rejected"]) <= {"unreadable_file", "bad_encoding", "no_mapped_column", "bad_json", "bad_csv"}


def test_the_quarantine_keeps_the_row_as_it_came_but_not_ten_megabytes_of_it(landed: Landed):
    rejected = lake_content(landed.obs.lake)["usage_rejected"]
    raws = [raw for row in rejected for raw in row if isinstance(raw, str)]
    assert any('"event_id": "c4"' in raw for raw in raws)
    assert max(map(len, raws)) < 100_000


def test_a_terminal_sees_the_reasons_too(landed: Landed, tmp_path: Path):
    said = CommandLine(tmp_path / "home")(
        "ingest", landed.folder / "c-bad.jsonl", landed.folder / "i-times.jsonl"
    ).stdout
    for word in ("c-bad.jsonl", "bad_json", "negative_tokens", "time_in_future", "time_before_2020"):
        assert word in said


def test_strict_makes_refused_rows_an_exit_code(landed: Landed, tmp_path: Path):
    CommandLine(tmp_path / "home")("ingest", "--strict", landed.folder / "c-bad.jsonl", exits_with=3)


def test_after_the_batch_every_row_is_accounted_for(landed: Landed):
    (*_,) = json.loads(landed.obs("batch", "--json").stdout)
    content = lake_content(landed.obs.lake)
    rows = sum(report["rows"] for report in landed.reports.values())
    assert rows == sum(len(content[table]) for table in ("usage_events", "usage_rejected", "usage_duplicates"))
    reasons: Counter[str] = Counter()
    for report in landed.reports.values():
        reasons.update(report["rejected"])
    assert sum(reasons.values()) == len(content["usage_rejected"])
    assert json.loads(landed.obs("batch", "--json").stdout) == []
