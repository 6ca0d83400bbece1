"""How each pulled source is, and when it is pulled next. Reads the ledger; decides nothing about people being told.

The clock is passed in; times are UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from obs_pipeline.storage.source_positions import SourcePosition, SourcePositions
from obs_pipeline.usage.pulling.configured import Kind, PulledSource
from obs_pipeline.usage.pulling.pull import files_of

Health = Literal["never pulled", "alive", "late", "silent", "failed"]


@dataclass(frozen=True)
class SourceStatus:
    """How a source is.

    ``position``: everything up to there was fetched; what came after is unknown, not nothing. ``newest_event``: of what it
    brought and was taken in. ``next_pull``: from when on it is pulled again.
    """

    source: str
    kind: Kind
    mapping: str
    health: Health
    position: datetime | None
    pulled_at: datetime | None
    newest_event: datetime | None
    rows_pulled: int
    failed_at: datetime | None
    failure: str | None
    next_pull: datetime

    def is_due(self, now: datetime) -> bool:
        return now >= self.next_pull


def statuses(sources: Mapping[str, PulledSource], positions: SourcePositions, now: datetime) -> list[SourceStatus]:
    """The status of each source, in the order of the file."""
    return [
        status(name, source, positions.get(name), positions.newest_event(files_of(name)), now)
        for name, source in sources.items()
    ]


def status(
    name: str, source: PulledSource, position: SourcePosition, newest_event: datetime | None, now: datetime
) -> SourceStatus:
    """The status of one source, from what is on record of it."""
    reached = datetime.fromisoformat(position.position) if position.position else None
    return SourceStatus(
        source=name,
        kind=source.kind,
        mapping=source.mapping_name,
        health=health(source, position, newest_event, now),
        position=reached,
        pulled_at=position.pulled_at,
        newest_event=newest_event,
        rows_pulled=position.rows_pulled,
        failed_at=position.failed_at,
        failure=position.failure,
        next_pull=(position.failed_at or reached or source.begins) + source.every,
    )


def health(source: PulledSource, position: SourcePosition, newest_event: datetime | None, now: datetime) -> Health:
    """``failed``: the last pull did. ``late``: not read as far as it should be. ``silent``: read, but no call came lately.

    A source that never brought a call is silent too, once it has been read for long enough; one whose rows have not been
    taken in yet is not.
    """
    if position.failed_at is not None:
        return "failed"
    if position.position is None:
        return "never pulled"
    if now - datetime.fromisoformat(position.position) > timedelta(minutes=source.late_after_minutes):
        return "late"
    if newest_event is None and position.rows_pulled:
        return "alive"
    quiet = now - (newest_event or source.begins)
    return "silent" if quiet > timedelta(minutes=source.silent_after_minutes) else "alive"
