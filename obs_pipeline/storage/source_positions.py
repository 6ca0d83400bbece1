"""How far each pulled source has been read, and how the last pull went: a table of the ledger.

Knows names and positions as text; what a position means is for the source to say. Times are UTC without a zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from obs_pipeline.storage.ledger import Ledger, landed_days, landed_files, metadata

source_positions: Final = sa.Table(
    "source_positions",
    metadata,
    sa.Column("source", sa.String(100), primary_key=True, comment="name in sources.yaml"),
    sa.Column("position", sa.String(200), comment="everything up to here was fetched; NULL before the first pull"),
    sa.Column("pulled_at", sa.DateTime, comment="end of the last pull that went well"),
    sa.Column("rows_pulled", sa.BigInteger, nullable=False, comment="by all pulls"),
    sa.Column("failed_at", sa.DateTime, comment="the last pull, if it failed"),
    sa.Column("failure", sa.Text, comment="why it failed"),
)


@dataclass(frozen=True)
class SourcePosition:
    """How far a source has been read. ``failed_at`` and ``failure`` are null once a pull went well again."""

    source: str
    position: str | None = None
    pulled_at: datetime | None = None
    rows_pulled: int = 0
    failed_at: datetime | None = None
    failure: str | None = None


class SourcePositions:
    """The positions in a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def get(self, source: str) -> SourcePosition:
        """The position of a source; one that was never pulled has none."""
        with self._ledger.read() as connection:
            row = connection.execute(
                sa.select(source_positions).where(source_positions.c.source == source)
            ).one_or_none()
        return SourcePosition(source) if row is None else SourcePosition(**row._mapping)

    def newest_event(self, files: str) -> datetime | None:
        """The newest event among the landed files whose names are like ``files`` (escape ``!``)."""
        query = (
            sa.select(sa.func.max(landed_days.c.last_event))
            .join(landed_files, landed_files.c.file_id == landed_days.c.file_id)
            .where(landed_files.c.state == "landed", landed_files.c.name.like(files, escape="!"))
        )
        with self._ledger.read() as connection:
            found: datetime | None = connection.scalar(query)
        return found

    def advance(self, source: str, position: str, rows: int, now: datetime) -> None:
        """A batch was fetched and is safe: the source is read up to ``position``."""
        changed = {"position": position, "pulled_at": now, "failed_at": None, "failure": None}
        self._upsert(source, changed, rows)

    def fail(self, source: str, why: str, now: datetime) -> None:
        """A pull failed; the position stays where it is."""
        self._upsert(source, {"failed_at": now, "failure": why}, 0)

    def _upsert(self, source: str, changed: dict[str, object], rows: int) -> None:
        this = source_positions.c.source == source
        with self._ledger.begin() as connection:
            counted = {**changed, "rows_pulled": source_positions.c.rows_pulled + rows}
            if connection.execute(sa.update(source_positions).where(this).values(counted)).rowcount == 0:
                connection.execute(sa.insert(source_positions).values(source=source, rows_pulled=rows, **changed))
