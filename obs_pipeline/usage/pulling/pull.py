"""Pulling: from where a source was read to now, into files of the landing folder.

A span of time is fetched whole before the position moves past it, so a pull that fails is made again and is never taken for
a time without usage. Each pull begins a little before the position: a row is written when its call ends, and belongs where it
began. What is fetched twice has the same ids and is counted once, by ``settling``. No clock: the time is passed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.pulling.configured import Kind, PulledSource, SourcesInvalid
from obs_pipeline.usage.pulling.langfuse_api import observations
from obs_pipeline.usage.pulling.litellm_table import spend_logs
from obs_pipeline.usage.pulling.pages import Fetch, Page, PullFailed

_FETCHES: Final = {"litellm_table": spend_logs, "langfuse_api": observations}


@dataclass(frozen=True)
class Pulled:
    """What one pull brought: a span of time (UTC), how many rows, in which files."""

    source: str
    start: datetime
    end: datetime
    rows: int
    files: tuple[Path, ...]


def fetch_of(source: PulledSource) -> Fetch:
    """How a source is read."""
    by_kind: Kind = source.kind
    return partial(_FETCHES[by_kind], source)


def pull(
    name: str, source: PulledSource, fetch: Fetch, positions: SourcePositions, landing: Path, now: datetime
) -> Pulled:
    """Bring a source up to ``now``, window by window; each window is safe before the next begins.

    One that is far behind is brought ``windows_per_pull`` windows nearer; ``end`` of the answer says how far.

    Raises:
        PullFailed: the source could not be read to its end. The windows before stay, the failure is on record.
    """
    position = positions.get(name).position
    reached = datetime.fromisoformat(position) if position else source.begins
    start = max(reached - source.overlap, source.begins)
    rows, files, end = 0, [], reached
    try:
        for first, last in islice(_windows(start, now, source), source.windows_per_pull):
            written, count = _write(name, source, fetch(first, last), landing, first, last)
            files += written
            rows += count
            end = max(last, reached)
            positions.advance(name, end.isoformat(), count, now)
    except (PullFailed, SourcesInvalid) as error:
        positions.fail(name, str(error), now)
        raise PullFailed(str(error)) from None
    return Pulled(name, start, end, rows, tuple(files))


def backfill(name: str, source: PulledSource, fetch: Fetch, landing: Path, start: datetime, end: datetime) -> Pulled:
    """Fetch a span of time again; the position stays.

    Raises:
        PullFailed: the source could not be read to its end.
    """
    rows, files = 0, []
    for first, last in _windows(start, end, source):
        written, count = _write(name, source, fetch(first, last), landing, first, last)
        files += written
        rows += count
    return Pulled(name, start, end, rows, tuple(files))


def files_of(name: str) -> str:
    """The names of the files that pulls of a source write, as a pattern of SQL's ``LIKE`` with the escape ``!``."""
    return f"{name.replace('_', '!_')}-________T%"


def _windows(start: datetime, end: datetime, source: PulledSource) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        last = min(start + timedelta(hours=source.window_hours), end)
        yield start, last
        start = last


def _write(
    name: str, source: PulledSource, pages: Iterator[Page], landing: Path, start: datetime, end: datetime
) -> tuple[list[Path], int]:
    """One file a page. They appear in the landing folder together, when the last one is whole."""
    folder = landing / source.mapping_name
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{name}-[0-9]*T*.jsonl"):
        # Of a pull that was killed: one pull of a source runs at a time.
        left.unlink()
    span = f"{start:%Y%m%dT%H%M%S%f}-{end:%Y%m%dT%H%M%S%f}"
    parts: list[Path] = []
    rows = 0
    try:
        for number, page in enumerate(page for page in pages if page):
            part = folder / f".{name}-{span}-{number:04}.jsonl"
            parts.append(part)
            _put(part, page)
            rows += len(page)
        return [part.rename(part.with_name(part.name[1:])) for part in parts], rows
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _put(path: Path, page: Page) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{record}\n" for record in page)
        file.flush()
        os.fsync(file.fileno())
