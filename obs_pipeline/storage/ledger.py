"""The ledger: transactional tables, row by row, where a decision and its history are kept.

Holds which files were landed with what counts and which days the batch has settled. Money and counts of usage never
live only here. SQLite in WAL mode by default, any SQLAlchemy URL otherwise. Times are UTC, naive.
Schema changes are Alembic migrations beside this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url

from obs_pipeline.errors import ObsError

metadata: Final = sa.MetaData()

landed_files: Final = sa.Table(
    "landed_files",
    metadata,
    sa.Column("file_id", sa.String(64), primary_key=True, comment="digest of the file's bytes"),
    sa.Column("mapping", sa.String(64), nullable=False, comment="digest of the mapping it was read by"),
    sa.Column("source", sa.String(200), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(20), nullable=False, comment="landing, then landed"),
    sa.Column("rows_read", sa.BigInteger, nullable=False, default=0),
    sa.Column("started_at", sa.DateTime, nullable=False),
    sa.Column("landed_at", sa.DateTime),
)

landed_days: Final = sa.Table(
    "landed_days",
    metadata,
    sa.Column("landing", sa.Integer, primary_key=True, autoincrement=True, comment="order of landing"),
    sa.Column("file_id", sa.ForeignKey("landed_files.file_id"), nullable=False),
    sa.Column("dt", sa.Date, nullable=False, index=True),
    sa.Column("rows_read", sa.BigInteger, nullable=False),
    sa.Column("rows_rejected", sa.BigInteger, nullable=False),
    sa.Column("first_event", sa.DateTime),
    sa.Column("last_event", sa.DateTime),
    sa.UniqueConstraint("file_id", "dt"),
    sqlite_autoincrement=True,
)

settled_days: Final = sa.Table(
    "settled_days",
    metadata,
    sa.Column("dt", sa.Date, primary_key=True),
    sa.Column("seen_landing", sa.Integer, nullable=False, comment="newest landing when a batch began on this day"),
    sa.Column("through_landing", sa.Integer, nullable=False, comment="newest landing a whole batch has computed"),
    sa.Column("settled_at", sa.DateTime),
)


class LedgerError(ObsError):
    """The ledger cannot be opened; the message says where it is and what to do."""


@dataclass(frozen=True)
class LandedDay:
    """What one file brought for one UTC day. ``rows_read`` is counted by the reader, before anything was written."""

    dt: date
    rows_read: int
    rows_rejected: int
    first_event: datetime | None
    last_event: datetime | None


@dataclass(frozen=True)
class LandedFile:
    """One file, as landed."""

    file_id: str
    source: str
    name: str
    bytes: int
    rows_read: int
    landed_at: datetime | None
    days: Sequence[LandedDay] = field(default=())


@dataclass(frozen=True)
class SourceFreshness:
    """When a source was last heard of: its newest event and its newest landing (both UTC)."""

    source: str
    files: int
    rows: int
    last_event: datetime | None
    last_landed: datetime | None


class Ledger:
    """Opens, migrates and answers. One instance a process is enough; it is safe across threads.

    ``patience`` is for how many seconds a SQLite ledger that another process holds locked is waited for.
    """

    def __init__(self, url: str, patience: float = 30.0) -> None:
        self.url = url
        try:
            self._engine = _create_engine(url, patience)
        except (sa.exc.ArgumentError, ImportError) as error:
            raise LedgerError(f"The ledger URL {_without_secrets(url)} cannot be used: {error}.") from None
        self._migrated = False

    @contextmanager
    def begin(self, options: Mapping[str, bool] | None = None) -> Iterator[Connection]:
        """A transaction; committed when the block ends well, rolled back otherwise."""
        try:
            self._migrate_once()
            with self._engine.execution_options(**(options or {})).begin() as connection:
                yield connection
        except sa.exc.IntegrityError:
            raise
        except sa.exc.DatabaseError as error:
            raise LedgerError(
                f"The ledger at {_without_secrets(self.url)} cannot be used: {error.orig}. Check the path (OBS_HOME or "
                "OBS_LEDGER_URL), its permissions, and that no other program holds it locked."
            ) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot for reading, which waits for no writer and makes none wait."""
        with self.begin(_READ_ONLY) as connection:
            yield connection

    def migrate(self) -> None:
        """Bring the schema to the newest revision. Safe to call from many processes at once."""
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._engine.begin() as connection:
            _serialise_migration(connection)
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise LedgerError(
                    f"The ledger at {_without_secrets(self.url)} was written by a newer version: this one knows revisions up "
                    f"to {HEAD} ({error}). Use the version that wrote it, or restore the ledger from a copy made before."
                ) from error

    def revision(self) -> str | None:
        """The schema revision in force, for the doctor."""
        with self.begin() as connection:
            found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return found

    def close(self) -> None:
        self._engine.dispose()

    def _migrate_once(self) -> None:
        if not self._migrated and (not sa.inspect(self._engine).has_table("alembic_version") or self._behind()):
            self.migrate()
        self._migrated = True

    def _behind(self) -> bool:
        with self._engine.connect() as connection:
            current = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return bool(current != HEAD)

    # -- landing ------------------------------------------------------------------------------------------------

    def landing_of(self, file_id: str) -> tuple[str, str] | None:
        """(state, mapping digest) of a file; the state is ``landing`` for one that was interrupted, else ``landed``."""
        query = sa.select(landed_files.c.state, landed_files.c.mapping).where(landed_files.c.file_id == file_id)
        with self.begin() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else (found.state, found.mapping)

    def start_landing(self, file: LandedFile, mapping: str, now: datetime) -> None:
        """Note that a file is about to be written, so that an interrupted attempt is found and undone."""
        values = {
            "source": file.source,
            "mapping": mapping,
            "name": file.name,
            "bytes": file.bytes,
            "state": "landing",
            "rows_read": 0,
            "started_at": now,
        }
        with self.begin() as connection:
            again = sa.update(landed_files).where(landed_files.c.file_id == file.file_id).values(**values)
            if connection.execute(again).rowcount == 0:
                connection.execute(sa.insert(landed_files).values(file_id=file.file_id, **values))

    def finish_landing(self, file_id: str, rows_read: int, days: Iterable[LandedDay], now: datetime) -> None:
        """Make a landing count: from here on its days are pending for the batch.

        Days that an earlier landing of the same file had and this one has not stay on record with no rows, so that
        they are computed again too.
        """
        with self.begin() as connection:
            before = set(connection.scalars(sa.select(landed_days.c.dt).where(landed_days.c.file_id == file_id)))
            connection.execute(sa.delete(landed_days).where(landed_days.c.file_id == file_id))
            connection.execute(
                sa.update(landed_files)
                .where(landed_files.c.file_id == file_id)
                .values(state="landed", rows_read=rows_read, landed_at=now)
            )
            now_there = list(days)
            gone = before - {day.dt for day in now_there}
            rows = [
                {"file_id": file_id, **vars(day)}
                for day in [*now_there, *(LandedDay(day, 0, 0, None, None) for day in sorted(gone))]
            ]
            if rows:
                connection.execute(sa.insert(landed_days), rows)

    def landed(self, days: tuple[date, date] | None = None) -> list[sa.Row[Any]]:
        """Rows (file_id, source, name, dt, rows_read, rows_rejected) of every landed file and day."""
        query = (
            sa.select(
                landed_files.c.file_id,
                landed_files.c.source,
                landed_files.c.name,
                landed_days.c.dt,
                landed_days.c.rows_read,
                landed_days.c.rows_rejected,
            )
            .join(landed_files, landed_files.c.file_id == landed_days.c.file_id)
            .where(landed_files.c.state == "landed")
            .order_by(landed_days.c.landing)
        )
        if days is not None:
            query = query.where(landed_days.c.dt.between(*days))
        with self.begin() as connection:
            return list(connection.execute(query))

    def freshness(self) -> list[SourceFreshness]:
        """Each source's newest event and landing."""
        per_file = (
            sa.select(
                landed_days.c.file_id,
                sa.func.max(landed_days.c.last_event).label("last_event"),
            )
            .group_by(landed_days.c.file_id)
            .subquery()
        )
        query = (
            sa.select(
                landed_files.c.source,
                sa.func.count().label("files"),
                sa.func.sum(landed_files.c.rows_read),
                sa.func.max(per_file.c.last_event),
                sa.func.max(landed_files.c.landed_at),
            )
            .outerjoin(per_file, per_file.c.file_id == landed_files.c.file_id)
            .where(landed_files.c.state == "landed")
            .group_by(landed_files.c.source)
            .order_by(landed_files.c.source)
        )
        with self.begin() as connection:
            return [
                SourceFreshness(source, files, int(rows or 0), last_event, last_landed)
                for source, files, rows, last_event, last_landed in connection.execute(query)
            ]

    def landings(self, since: datetime) -> list[tuple[str, datetime, datetime | None]]:
        """(source, landed at, newest event) of every file that landed after ``since``, and of each source's last file
        before it."""
        per_file = (
            sa.select(landed_days.c.file_id, sa.func.max(landed_days.c.last_event).label("last_event"))
            .group_by(landed_days.c.file_id)
            .subquery()
        )
        recent = (
            sa.select(landed_files.c.source, landed_files.c.landed_at, per_file.c.last_event)
            .outerjoin(per_file, per_file.c.file_id == landed_files.c.file_id)
            .where(landed_files.c.state == "landed", landed_files.c.landed_at > since)
        )
        before = (
            sa.select(landed_files.c.source, sa.func.max(landed_files.c.landed_at), sa.func.max(per_file.c.last_event))
            .outerjoin(per_file, per_file.c.file_id == landed_files.c.file_id)
            .where(landed_files.c.state == "landed", landed_files.c.landed_at <= since)
            .group_by(landed_files.c.source)
        )
        with self.read() as connection:
            return [tuple(row) for query in (before, recent) for row in connection.execute(query)]

    # -- days ---------------------------------------------------------------------------------------------------

    def newest_landing_per_day(self) -> dict[date, int]:
        """For every day with landed rows, the number of its newest landing."""
        query = sa.select(landed_days.c.dt, sa.func.max(landed_days.c.landing)).group_by(landed_days.c.dt)
        with self.begin() as connection:
            return dict(connection.execute(query).tuples().all())

    def settled_through(self) -> dict[date, int]:
        """For every day that a batch computed to its end, the newest landing that is in it."""
        query = sa.select(settled_days.c.dt, settled_days.c.through_landing).where(settled_days.c.through_landing >= 0)
        with self.begin() as connection:
            return dict(connection.execute(query).tuples().all())

    def note_seen(self, seen: Mapping[date, int]) -> None:
        """Note, as a batch begins, the newest landing of each day that it will see. Settles nothing yet."""
        with self.begin() as connection:
            known = set(connection.scalars(sa.select(settled_days.c.dt).where(settled_days.c.dt.in_(list(seen)))))
            for day, landing in seen.items():
                if day in known:
                    change = sa.update(settled_days).where(settled_days.c.dt == day).values(seen_landing=landing)
                    connection.execute(change)
            new = [
                {"dt": day, "seen_landing": landing, "through_landing": -1}
                for day, landing in seen.items()
                if day not in known
            ]
            if new:
                connection.execute(sa.insert(settled_days), new)

    def mark_settled(self, days: tuple[date, date], now: datetime) -> int:
        """Note that a batch came to its end for these days (both included); answer how many had landed rows."""
        with self.begin() as connection:
            done = connection.execute(
                sa.update(settled_days)
                .where(settled_days.c.dt.between(*days))
                .values(through_landing=settled_days.c.seen_landing, settled_at=now)
            )
            return int(done.rowcount)


_READ_ONLY: Final = {"only_reads": True}

HEAD: Final = "0010"
"""The newest migration; a test holds it against the migrations folder."""


def _create_engine(url: str, patience: float) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": patience})
    sa.event.listen(engine, "connect", _configure_sqlite)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    # The driver must not open transactions of its own: see SQLAlchemy's notes on pysqlite and SAVEPOINT.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    # A read that becomes a write fails at once under WAL when another writer came between; taking the write lock
    # at the start makes it wait instead.
    only_reads = connection.get_execution_options().get("only_reads", False)
    connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


def _serialise_migration(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7243392)"))


def _without_secrets(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "that is set"
