"""The lake as the dashboard reads it: one set of versions at a time, the sums of days kept in memory, rows of others left out.

Here: following the newest versions, copying what is asked often, and the one place where a caller's organisation and
projects are applied. No questions, no wording.

Data files of the lake never change once written, so a copy follows a new version by dropping the files that are gone and
reading those that are new. A reader works in a transaction of its own: the copy it began with stays as it was, whatever
versions come meanwhile.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from obs_pipeline.dashboard.access import Principal
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.onsets import ONSETS
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.errors import ObsError
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES
from obs_pipeline.storage import engine, object_store
from obs_pipeline.storage.lake import PARTITION, DayRange, Lake, LakeTable
from obs_pipeline.usage.tables import USAGE_EVENTS

FOLLOWED: Final = (MART_SPEND, BASELINES, ANOMALIES, BUDGET_STATUS, EFFECTIVE_POLICIES, USAGE_EVENTS)

_SUMS: Final = (
    "calls",
    "errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "saved_tokens",
    "cost",
    "list_cost",
    "cost_bound",
    "unpriced_calls",
)


def _summed(*names: str) -> str:
    return ", ".join(
        f"CAST(sum({name}) AS {'DECIMAL(38, 9)' if 'cost' in name else 'BIGINT'}) AS {name}" for name in names
    )


_DAILY: Final = """
    SELECT *, CAST(CASE WHEN agent IS NULL OR team IS NULL THEN cost ELSE 0 END AS DECIMAL(38, 9)) AS unattributed_cost
    FROM files WHERE grain = 'day'
"""
_COPIES: Final[Mapping[str, tuple[LakeTable, str]]] = {
    "spend_day": (
        MART_SPEND,
        f"SELECT dt, org, project, team, agent, provider, model, unattributed_cost, {', '.join(_SUMS)} FROM ({_DAILY})",
    ),
    # Fewer rows by as many as agents share a place: what no question about agents needs is summed here once.
    "spend_total": (
        MART_SPEND,
        f"SELECT dt, org, project, team, provider, model, {_summed(*_SUMS, 'unattributed_cost')} FROM ({_DAILY}) GROUP BY ALL",
    ),
    "spend_hour": (
        MART_SPEND,
        f"SELECT dt, time, org, project, team, {_summed(*_SUMS)} FROM files WHERE grain = 'hour' GROUP BY ALL",
    ),
    "anomalies": (ANOMALIES, "SELECT * FROM files"),
    # Days are one row in twenty-five of the baselines, and what is looked at most.
    "band_day": (
        BASELINES,
        "SELECT dt, time, org, project, agent, metric, observed, expected, lower, upper FROM files WHERE grain = 'day'",
    ),
}
BAND_DAYS: Final = 46
"""Days of which bands are copied, the newest: a month, and the fortnight around an anomaly in it. Older ones are in the files."""


_REMARKS: Final = re.compile(r"\A(?:\s*--[^\n]*\n)*\s*")
_WORD: Final = re.compile(r"\w+")


class NotReady(ObsError):
    """There is nothing to answer from yet, or the lake cannot be read now; the message says why."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Pinned:
    """One set of versions. ``files`` are each table's data files by day, oldest first, ``ids`` what each table was given when it
    was made: of two lakes, or of one made anew, the same version is another."""

    versions: Mapping[str, int]
    files: Mapping[str, tuple[tuple[date, str], ...]]
    ids: Mapping[str, str] = field(default_factory=dict)

    def versions_of(self, tables: Iterable[LakeTable]) -> dict[str, int]:
        """The versions of some tables; one that has none yet is left out."""
        names = {table.name for table in tables}
        return {name: version for name, version in sorted(self.versions.items()) if name in names}

    def mark_of(self, tables: Iterable[LakeTable]) -> str:
        """A text that differs wherever the rows of these tables may."""
        return ",".join(f"{name}={version}@{self.ids.get(name)}" for name, version in self.versions_of(tables).items())

    @property
    def days(self) -> DayRange | None:
        held = self.files.get(MART_SPEND.name)
        return DayRange(held[0][0], held[-1][0]) if held else None


class Reader:
    """Asks one pinned set of versions on behalf of one caller. Every row that it shows is the caller's own."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, pinned: Pinned, principal: Principal) -> None:
        self._cursor = cursor
        self.pinned = pinned
        self._own = _own_rows(principal)
        # Not views: they would have to be made for each answer, and those over files be bound when made and when asked.
        self._shown = {name: f'"{name}" AS (SELECT * FROM memory.main."{name}" WHERE {self._own})' for name in _COPIES}
        self.name("onsets", ONSETS)

    def show(self, table: LakeTable, days: DayRange, *, name: str | None = None) -> None:
        """Let queries name the caller's rows of some days of a table, read from the files."""
        files = [file for day, file in self.pinned.files.get(table.name, ()) if day in days]
        view = name or table.name
        if files:
            origin = _scan(files)
        else:
            self._cursor.register(f"_{view}", table.schema.empty_table())
            origin = f'"_{view}"'
        self._shown[view] = f'"{view}" AS (SELECT * FROM {origin} WHERE {self._own})'

    def name(self, name: str, query: str) -> None:
        """Let queries name the rows of another."""
        self._shown[name] = f'"{name}" AS ({query})'

    def give(self, name: str, table: pa.Table) -> None:
        """Let queries name rows of one's own."""
        self._cursor.register(name, table)

    def has_bands_of(self, days: DayRange) -> bool:
        """Whether the copy of bands of whole days holds all that there are of these days."""
        return not any(day in days for day, _ in self.pinned.files.get(BASELINES.name, ())[: -BAND_DAYS or None])

    def newest_day(self, table: LakeTable) -> DayRange | None:
        held = self.pinned.files.get(table.name)
        return DayRange(held[-1][0], held[-1][0]) if held else None

    def parts(self, query: str, values: Mapping[str, Any], rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of a query, so many at a time. Nothing else can be asked until the last was taken."""
        yield from self._cursor.sql(self._whole(query), params=dict(values)).to_arrow_reader(rows)

    def rows(self, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Every row of a query, by column."""
        # Not as Arrow, for which the query would be bound twice.
        found = self._cursor.execute(self._whole(query), dict(values or {}))
        names = [name for name, *_ in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _whole(self, query: str) -> str:
        """A query with what it names before it."""
        named = set(_WORD.findall(query))
        for name in named & self._shown.keys():
            named |= set(_WORD.findall(self._shown[name]))
        shown = ", ".join(rows for name, rows in self._shown.items() if name in named)
        bare = _REMARKS.sub("", query)
        if not shown:
            return bare
        return f"WITH {shown}, {bare.removeprefix('WITH ')}" if bare.startswith("WITH ") else f"WITH {shown} {bare}"


class Snapshot:
    """Follows the lake. One a process; safe across threads.

    ``look_again`` is for how many seconds a look at the versions serves those who ask at the same time. ``copied`` hears how
    many seconds it took to copy a new version.
    """

    def __init__(
        self,
        lake: Lake,
        *,
        memory_limit: str = "1200MB",
        threads: int = 2,
        scratch: Path | None = None,
        look_again: float = 0.0,
        ticks: Callable[[], float] = time.monotonic,
        copied: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self.copied = copied
        self._lake = lake
        self._look_again = look_again
        self._ticks = ticks
        self._looked = -math.inf
        self._readable = False
        self._following = threading.Lock()
        self._swapping = threading.Lock()
        self._opened: dict[str, Any] = {}
        self._entries: dict[str, str | None] = {}
        self._held: dict[str, set[str]] = {name: set() for name in _COPIES}
        # Each row of a copy names its file: by a number, as the names would take more room than the rows.
        self._numbers: dict[str, int] = {}
        self._pinned = Pinned({}, {})
        self._connection = duckdb.connect(":memory:")
        engine.configure(self._connection, memory_limit=memory_limit, threads=threads, scratch=scratch)
        # Global: each reader has a cursor, to which what is set for this connection alone does not pass.
        self._connection.execute("SET GLOBAL parquet_metadata_cache = true")
        for name, (table, query) in _COPIES.items():
            self._connection.register("files", table.schema.empty_table())
            self._connection.execute(
                f'CREATE TABLE "{name}" AS SELECT CAST(NULL AS INTEGER) AS file, * FROM ({query}) LIMIT 0'
            )
            self._connection.unregister("files")

    def follow(self) -> Pinned:
        """The newest versions, copied.

        Raises:
            NotReady: nothing was computed yet, or the lake cannot be read.
        """
        with self._following:
            try:
                pinned = self._follow()
            except NotReady:
                self._readable = False
                raise
            self._readable = True
            return pinned

    @contextmanager
    def reading(self, principal: Principal) -> Iterator[Reader]:
        """A reader of what was last followed, for one answer, on a cursor of its own. It waits for no copying.

        Raises:
            NotReady: nothing was computed yet, or the lake cannot be read.
        """
        if not self._pinned.versions:
            self.follow()
        with self._swapping:
            pinned = self._pinned
            cursor = self._connection.cursor()
            cursor.execute("BEGIN TRANSACTION")
            # The transaction's view of all tables begins with the first look at one, not with BEGIN.
            cursor.execute("SELECT 1 FROM spend_day LIMIT 1").fetchall()
        try:
            yield Reader(cursor, pinned, principal)
        except duckdb.IOException as error:
            raise NotReady(f"A file of the lake cannot be read now: {error}") from error
        finally:
            cursor.close()

    @property
    def readable(self) -> bool:
        """Whether the lake could be read at the last look."""
        return self._readable

    def close(self) -> None:
        self._connection.close()

    def _follow(self) -> Pinned:
        now = self._ticks()
        if now - self._looked < self._look_again:
            return self._pinned
        versions = {table.name: version for table in FOLLOWED if (version := self._newest(table)) is not None}
        if MART_SPEND.name not in versions:
            raise NotReady(f"There is no usage in the lake at {self._lake.root} yet. Run: obs-pipeline batch")
        ids = {name: str(self._opened[name].metadata().id) for name in versions}
        if (versions, ids) != (self._pinned.versions, self._pinned.ids):
            files = {table.name: self._files(table) for table in FOLLOWED if table.name in versions}
            began = self._ticks()
            self._copy(files, Pinned(versions, files, ids))
            self.copied(self._ticks() - began)
        self._looked = now
        return self._pinned

    def _newest(self, table: LakeTable) -> int | None:
        try:
            return self._looked_up(table)
        except Exception as error:
            self._opened.pop(table.name, None)
            raise NotReady(f"The table {table.name} of the lake cannot be read now: {error}") from error

    def _looked_up(self, table: LakeTable) -> int | None:
        held = self._opened.get(table.name)
        # One that was deleted or made anew would go on as it was: following only ever looks for the next version.
        if held is not None and self._lake.entry(table, held.version()) != self._entries[table.name]:
            held = None
        if held is None:
            held = self._lake.open(table)
            if held is None:
                self._opened.pop(table.name, None)
                return None
            self._opened[table.name] = held
        held.update_incremental()
        version = int(held.version())
        self._entries[table.name] = self._lake.entry(table, version)
        return version

    def _files(self, table: LakeTable) -> tuple[tuple[date, str], ...]:
        actions = pa.table(self._opened[table.name].get_add_actions(flatten=True))
        if actions.num_rows == 0:
            return ()
        days, paths = actions[f"partition.{PARTITION}"].to_pylist(), actions["path"].to_pylist()
        return tuple(sorted((day, f"{self._lake.uri(table)}/{path}") for day, path in zip(days, paths, strict=True)))

    def _copy(self, files: Mapping[str, tuple[tuple[date, str], ...]], pinned: Pinned) -> None:
        object_store.let_read(self._connection, self._lake.root)
        copied = {
            name: {file for _, file in files.get(table.name, ())[-BAND_DAYS if table is BASELINES else 0 :]}
            for name, (table, _) in _COPIES.items()
        }
        self._connection.execute("BEGIN TRANSACTION")
        try:
            for name, (_, query) in _COPIES.items():
                if gone := [self._numbers[file] for file in self._held[name] - copied[name]]:
                    self._connection.execute(f'DELETE FROM "{name}" WHERE list_contains(?, file)', [gone])
                for file in sorted(copied[name] - self._held[name]):
                    rows = query.replace("FROM files", f"FROM {_scan([file])}")
                    number = self._numbers.setdefault(file, len(self._numbers))
                    self._connection.execute(f'INSERT INTO "{name}" BY NAME SELECT {number} AS file, * FROM ({rows})')
            with self._swapping:
                self._connection.execute("COMMIT")
                self._held, self._pinned = copied, pinned
        except duckdb.Error as error:
            self._connection.execute("ROLLBACK")
            raise NotReady(f"The lake cannot be read now: {error}") from error


def _scan(files: list[str]) -> str:
    listing = ", ".join(_text(file) for file in files)
    return f"read_parquet([{listing}], hive_partitioning = true, hive_types = {{'{PARTITION}': DATE}}, union_by_name = true)"


def _own_rows(principal: Principal) -> str:
    """The condition that every row shown to a caller meets: its organisation, its projects."""
    conditions = ["true"]
    if principal.org is not None:
        conditions.append(f"org = {_text(principal.org)}")
    if principal.projects:
        conditions.append(f"project IN ({', '.join(map(_text, principal.projects))})")
    return " AND ".join(conditions)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
