"""The spool: nothing that was acknowledged is lost, whenever the process dies; what moves on is whole."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from obs_pipeline.usage.receiving.exports import Owner, taken
from obs_pipeline.usage.receiving.spool import Spool, SpoolFull, SpoolLimits, move_abandoned
from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline_tests.usage.receiving.requests import as_json, of_spans, span

NOW = datetime(2026, 11, 24, 12)
NOW_NS = int((NOW - datetime(1970, 1, 1)).total_seconds()) * 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def lines_of(*spans: dict[str, Any]) -> list[bytes]:
    return taken(as_json(of_spans(*spans)), "traces", load_mapping("otlp"), Owner(), is_json=True).lines


def landed(landing: Path) -> list[str]:
    """The ids of the spans in the landing folder, in order."""
    found = []
    for path in sorted(landing.rglob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            (one,) = json.loads(line)["resourceSpans"]
            found += [each["spanId"][-1] for scope in one["scopeSpans"] for each in scope["spans"]]
    return sorted(found)


def spool_in(folder: Path, clock: Clock | None = None, **limits: Any) -> Spool:
    return Spool(folder / "spool", folder / "landing", SpoolLimits(**limits), clock or Clock())


def test_lines_move_on_when_they_are_old_enough_or_many(tmp_path: Path):
    clock = Clock()
    spool = spool_in(tmp_path, clock, roll_bytes=2_000)
    spool.append("otlp", lines_of(span(1)))
    assert spool.roll() == []
    clock.now += timedelta(seconds=60)
    assert len(spool.roll()) == 1
    spool.append("otlp", lines_of(*(span(n) for n in range(2, 10))))
    assert len(spool.roll()) == 1
    assert landed(tmp_path / "landing") == [str(n) for n in range(1, 10)]
    spool.close()
    assert not list((tmp_path / "spool").glob("*/*"))


def test_a_call_waits_for_the_span_above_it_but_not_for_ever(tmp_path: Path):
    clock = Clock()
    spool = spool_in(tmp_path, clock, roll_after=timedelta(0))
    spool.append("otlp", lines_of(span(2, parent=1, start=NOW_NS - 10**9)))
    spool.append("otlp", lines_of(span(3, parent=4, trace="f" * 32, start=NOW_NS - 10**9)))
    spool.roll()
    assert landed(tmp_path / "landing") == []
    clock.now += timedelta(minutes=5)
    spool.append("otlp", lines_of(span(1, start=NOW_NS)))
    spool.roll()
    assert landed(tmp_path / "landing") == ["1", "2"]
    clock.now += timedelta(minutes=15)
    spool.roll()
    assert landed(tmp_path / "landing") == ["1", "2", "3"]


def test_what_a_killed_process_had_acknowledged_is_taken_over_and_half_a_line_is_not(tmp_path: Path):
    program = (
        "import os, sys, pathlib, datetime\n"
        "from obs_pipeline.usage.receiving.spool import Spool, SpoolLimits\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "spool = Spool(folder / 'spool', folder / 'landing', SpoolLimits(), lambda: datetime.datetime(2026, 11, 24, 12))\n"
        "spool.append('otlp', [sys.stdin.buffer.read()])\n"
        "os.write(next(iter(spool._open.values()))._descriptor, b'{\"resourceSpans\": [{')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], input=b"".join(lines_of(span(7))), check=False)
    assert done.returncode == -9
    alive = spool_in(tmp_path)
    alive.append("otlp", lines_of(span(8)))
    move_abandoned(tmp_path / "spool", tmp_path / "landing", Clock())
    assert landed(tmp_path / "landing") == []
    alive.roll(everything=True)
    assert landed(tmp_path / "landing") == ["7", "8"]


def test_what_a_process_left_is_moved_without_a_server(tmp_path: Path):
    gone = spool_in(tmp_path)
    gone.append("otlp", lines_of(span(5)))
    gone._lock_file.release()
    move_abandoned(tmp_path / "spool", tmp_path / "landing", Clock())
    assert landed(tmp_path / "landing") == ["5"]
    move_abandoned(tmp_path / "nowhere", tmp_path / "landing", Clock())


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spool = spool_in(tmp_path)
    spool.append("otlp", lines_of(span(1)))
    write = os.write

    room = [10]

    def full(descriptor: int, content: Any) -> int:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[: room.pop()])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        with pytest.raises(SpoolFull, match="No space left"):
            spool.append("otlp", lines_of(span(2)))
    spool.append("otlp", lines_of(span(3)))
    spool.roll(everything=True)
    assert landed(tmp_path / "landing") == ["1", "3"]


def test_after_a_failed_flush_the_file_takes_no_more_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spool = spool_in(tmp_path)
    spool.append("otlp", lines_of(span(1)))

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        with pytest.raises(SpoolFull, match="Input/output"):
            spool.append("otlp", lines_of(span(2)))
    spool.append("otlp", lines_of(span(3)))
    assert len(list((tmp_path / "spool").glob("*/*.jsonl"))) == 2
    spool.roll(everything=True)
    assert {"1", "3"} <= set(landed(tmp_path / "landing"))


def test_too_much_that_waits_stops_the_receiving_until_it_was_taken_in(tmp_path: Path):
    spool = spool_in(tmp_path, most_waiting=100)
    spool.append("otlp", lines_of(span(1)))
    (moved,) = spool.roll(everything=True)
    spool.roll()
    with pytest.raises(SpoolFull) as told:
        spool.append("otlp", lines_of(span(2)))
    assert told.value.retry_after > 0
    moved.unlink()
    spool.roll()
    spool.append("otlp", lines_of(span(2)))


def test_many_threads_at_once_lose_nothing(tmp_path: Path):
    spool = spool_in(tmp_path, roll_after=timedelta(0))
    mine = [lines_of(span(thread * 100 + n)) for thread in range(8) for n in range(1, 21)]

    def send(share: int) -> None:
        for lines in mine[share::8]:
            spool.append("otlp", lines)

    threads = [threading.Thread(target=send, args=(share,)) for share in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        spool.roll()
    spool.close()
    assert len(landed(tmp_path / "landing")) == 160
