"""The spool: lines that were received and acknowledged, on their way into the landing folder.

A line is on the disk before ``append`` returns. ``roll`` moves what is old or large enough into the landing folder, where it is
taken in like any file. Spans whose parents have not come yet wait for them a while, because a call takes its agent from the
spans above it. Killed anywhere in between, nothing is lost; what is moved twice has the same ids and is counted once.

Each process has a folder of its own below the spool's, locked while it lives; a process takes over what a dead one left.
No HTTP, no clock: the time (UTC) is passed in.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from obs_pipeline.errors import ObsError

_LOCK: Final = ".lock"
_HELD: Final = "held"
_EPOCH: Final = datetime(1970, 1, 1)


class SpoolFull(ObsError):
    """Nothing can be stored now; ``retry_after`` says in how many seconds it is worth trying again."""

    exit_code = 3

    def __init__(self, why: str, retry_after: int) -> None:
        super().__init__(f"Nothing can be stored now: {why}.")
        self.retry_after = retry_after


@dataclass(frozen=True)
class SpoolLimits:
    """When lines move on, how long spans wait for their parents, and how much may wait in the landing folder."""

    roll_bytes: int = 16 << 20
    roll_after: timedelta = timedelta(seconds=60)
    patience: timedelta = timedelta(minutes=15)
    most_waiting: int = 4 << 30


class _Segment:
    """A file lines are appended to. Threads that append at the same time share one wait for the disk."""

    def __init__(self, path: Path, opened: datetime) -> None:
        self.path = path
        self.opened = opened
        self.size = 0
        self.is_broken = False
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._synced = 0
        self._syncing = threading.Lock()
        _sync_folder(path.parent)

    def write(self, lines: bytes) -> int:
        """Append, and answer how far the file must reach the disk. The caller holds the lock of the spool."""
        left = memoryview(lines)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            self.is_broken = True
            os.ftruncate(self._descriptor, self.size)
            self.is_broken = False
            raise
        self.size += len(lines)
        return self.size

    def sync(self, up_to: int) -> None:
        with self._syncing:
            if self._synced >= up_to:
                return
            reached = self.size
            os.fsync(self._descriptor)
            self._synced = reached

    def close(self) -> None:
        with self._syncing:
            if not self.is_broken:
                os.fsync(self._descriptor)
                self._synced = self.size
            os.close(self._descriptor)
            self._descriptor = -1

    def give_up(self) -> None:
        """After a failed write to the disk nobody knows what is there: the file takes no more lines."""
        self.is_broken = True


class Spool:
    """What one process has received. ``folder`` is shared by all of them; ``landing`` is the landing folder."""

    def __init__(self, folder: Path, landing: Path, limits: SpoolLimits, clock: Callable[[], datetime]) -> None:
        self._landing = landing
        self._limits = limits
        self._clock = clock
        self._all = folder
        self._folder = folder / secrets.token_hex(6)
        self._lock_file = FileLock(self._folder / _LOCK, thread_local=False)
        self._open: dict[str, _Segment] = {}
        self._writing = threading.Lock()
        self._rolling = threading.Lock()
        self._waiting = 0
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK):
            self._folder.mkdir()
            self._lock_file.acquire()
            self._adopt()

    def append(self, mapping: str, lines: Sequence[bytes]) -> None:
        """Store lines for a mapping; they are on the disk afterwards.

        Raises:
            SpoolFull: they are not, and nothing of them is.
        """
        if not lines:
            return
        if self._waiting > self._limits.most_waiting:
            raise SpoolFull("too much waits in the landing folder", 60)
        try:
            with self._writing:
                segment = self._segment(mapping)
                reached = segment.write(b"".join(lines))
            try:
                segment.sync(reached)
            except OSError:
                segment.give_up()
                raise
        except OSError as error:
            raise SpoolFull(f"the disk says: {error.strerror}", 30) from None

    def roll(self, *, everything: bool = False) -> list[Path]:
        """Move what is due, or ``everything``, into the landing folder; the files that appeared there.

        Raises:
            OSError: the landing folder cannot be written; what waits stays where it is.
        """
        now = self._clock()
        with self._rolling:
            self._waiting = _bytes_below(self._landing) + _bytes_below(self._all)
            with self._writing:
                for mapping, segment in list(self._open.items()):
                    if everything or segment.is_broken or self._is_due(segment, now):
                        segment.close()
                        del self._open[mapping]
                being_written = {segment.path for segment in self._open.values()}
                sealed: dict[str, list[Path]] = {}
                for path in sorted(set(self._folder.glob("*.jsonl")) - being_written):
                    sealed.setdefault(path.name.rpartition("@")[0], []).append(path)
            patience = timedelta(0) if everything else self._limits.patience
            moved = (self._move(mapping, paths, now, patience) for mapping, paths in sealed.items())
            return [path for path in moved if path is not None]

    def close(self) -> None:
        """Move everything on. What cannot be stays for the next process."""
        with suppress(OSError):
            self.roll(everything=True)
            (self._folder / _LOCK).unlink(missing_ok=True)
            self._folder.rmdir()
        self._lock_file.release()

    def _segment(self, mapping: str) -> _Segment:
        segment = self._open.get(mapping)
        if segment is None or segment.is_broken:
            now = self._clock()
            path = self._folder / f"{mapping}@{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}.jsonl"
            segment = self._open[mapping] = _Segment(path, now)
        return segment

    def _is_due(self, segment: _Segment, now: datetime) -> bool:
        return segment.size >= self._limits.roll_bytes or now - segment.opened >= self._limits.roll_after

    def _move(self, mapping: str, paths: Sequence[Path], now: datetime, patience: timedelta) -> Path | None:
        lines = [line for path in paths for line in _whole_lines(path)]
        ready, held = _parted(lines, now, patience)
        if held and not ready and len(paths) == 1:
            return None
        if held:
            kept = f"{mapping}@{_HELD}-{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}.jsonl"
            _put(self._folder / kept, held)
        target = None
        if ready:
            folder = self._landing / mapping
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / f"received-{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(2)}.jsonl"
            _put(target, ready)
        for path in paths:
            path.unlink()
        return target

    def _adopt(self) -> None:
        """Take over what dead processes left."""
        for folder in sorted(self._all.iterdir()):
            if folder == self._folder or not folder.is_dir():
                continue
            lock = FileLock(folder / _LOCK)
            try:
                lock.acquire(timeout=0)
            except (Timeout, OSError):
                continue
            for path in sorted(folder.glob("*.jsonl")):
                path.rename(self._folder / path.name)
            for path in folder.glob(".*.part"):
                path.unlink()
            (folder / _LOCK).unlink(missing_ok=True)
            lock.release()
            with suppress(OSError):
                folder.rmdir()


def move_abandoned(folder: Path, landing: Path, clock: Callable[[], datetime]) -> None:
    """Move into the landing folder what processes that are no longer there had received."""
    if any(folder.glob("*/*.jsonl")):
        Spool(folder, landing, SpoolLimits(), clock).close()


def _parted(lines: Iterable[bytes], now: datetime, patience: timedelta) -> tuple[list[bytes], list[bytes]]:
    """Lines that can go, and lines of traces in which a span that ended lately lacks the one above it."""
    read = [(line, _spans(line)) for line in lines]
    known = {(span["traceId"], span["spanId"]) for _, spans in read for span in spans}
    since = (now - patience - _EPOCH) // timedelta(microseconds=1) * 1_000
    until = (now - _EPOCH) // timedelta(microseconds=1) * 1_000
    waiting = {
        span["traceId"]
        for _, spans in read
        for span in spans
        if span["parentSpanId"]
        and (span["traceId"], span["parentSpanId"]) not in known
        and since < int(span["endTimeUnixNano"]) <= until
    }
    ready = [line for line, spans in read if not spans or spans[0]["traceId"] not in waiting]
    held = [line for line, spans in read if spans and spans[0]["traceId"] in waiting]
    return ready, held


def _spans(line: bytes) -> list[dict[str, Any]]:
    if not line.startswith(b'{"resourceSpans"'):
        return []
    content = json.loads(line)
    return [span for one in content["resourceSpans"] for scope in one["scopeSpans"] for span in scope["spans"]]


def _whole_lines(path: Path) -> list[bytes]:
    """What was written to its end: half a line at the end of a file was never acknowledged."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)


def _put(path: Path, lines: Sequence[bytes]) -> None:
    """A file that appears whole, and on the disk."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes_below(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.stat().st_size if path.is_file() else 0
    return found
