"""The lake: analytical tables as Delta Lake, one partition a UTC day.

Knows how rows reach a disk or an object store and how the engine reads them. Knows nothing of what the tables mean:
their schemas come from the rooms as ``LakeTable`` values. No SQL of the domain, no clock.

A write is one Delta transaction: a reader sees all of it or none, a killed writer leaves nothing but files for
``vacuum``. A read pins one version, so a view never mixes two.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from obs_pipeline.errors import ObsError
from obs_pipeline.storage import object_store

if TYPE_CHECKING:
    import duckdb
    from pyarrow.fs import FileSystem

PARTITION: Final = "dt"
_WRITE_ATTEMPTS: Final = 6
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class LakeError(ObsError):
    """The lake cannot be read or written; the message says which table and what to do."""


@dataclass(frozen=True, eq=False)
class LakeTable:
    """A table's name, columns (``dt`` date32 among them), unique key and meaning.

    ``group_rows`` is how many rows at most are read or passed over as one: fewer where one series of many is looked for.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    description: str
    group_rows: int = 262_144

    def __post_init__(self) -> None:
        if self.schema.field(PARTITION).type != pa.date32():
            raise ValueError(f"{self.name}: the column {PARTITION} must be date32")


@dataclass(frozen=True)
class DayRange:
    """Whole UTC days from ``first`` to ``last``, both included."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"{self.first} is after {self.last}")

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def days(self) -> list[date]:
        return [self.first + timedelta(days=n) for n in range(len(self))]

    def widened(self, *, before: int = 0, after: int = 0) -> DayRange:
        return DayRange(self.first - timedelta(days=before), self.last + timedelta(days=after))

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} … {self.last}"


def chunk_days(days: DayRange, rows: Mapping[date, int], target_rows: int) -> list[DayRange]:
    """Split a range into as few runs of days as hold at most ``target_rows`` rows each, and those about evenly.

    A day is never split; empty days cost nothing and ride along.
    """
    chunks = _filled_up(days, rows, target_rows)
    even = sum(rows.get(day, 0) for day in days.days()) // len(chunks)
    for limit in range(even, target_rows, max(target_rows // 32, 1)):
        evened = _filled_up(days, rows, limit)
        if len(evened) == len(chunks):
            return evened
    return chunks


def _filled_up(days: DayRange, rows: Mapping[date, int], target_rows: int) -> list[DayRange]:
    chunks: list[DayRange] = []
    first, held = days.first, 0
    for day in days.days():
        size = rows.get(day, 0)
        if held and held + size > target_rows:
            chunks.append(DayRange(first, day - timedelta(days=1)))
            first, held = day, 0
        held += size
    chunks.append(DayRange(first, days.last))
    return chunks


class Lake:
    """All tables under one folder or object-store URI."""

    def __init__(self, root: str) -> None:
        """Raises :class:`LakeError` when ``root`` names a kind of store that there is not."""
        self.root = root.rstrip("/")
        if (scheme := object_store.scheme_of(root)) not in (None, *object_store.SCHEMES):
            raise LakeError(
                f"A lake cannot be kept at {root}: {scheme}:// is not known. "
                "Set OBS_LAKE_URI to a folder or to s3://BUCKET/PATH (any store that speaks S3)."
            )
        self._store: FileSystem | None = None
        self._read: dict[str, tuple[DeltaTable, str]] = {}
        """The tables as they were last read or written, each with its version's entry; none is written to again."""

    def uri(self, table: LakeTable) -> str:
        return f"{self.root}/{table.name}"

    def open(self, table: LakeTable, version: int | None = None) -> DeltaTable | None:
        """A version of a table (the newest unless named), or None while nothing was ever written to it."""
        try:
            return DeltaTable(self.uri(table), version=version)
        except TableNotFoundError:
            return None
        except Exception as error:
            raise LakeError(
                f"The table {table.name} at {self.uri(table)} cannot be opened: {error}. "
                "Check the path and its permissions, or restore the folder from a copy."
            ) from error

    def entry(self, table: LakeTable, version: int) -> str | None:
        """What tells the log's entry of a version from one of a table that was made anew under the same path.

        None when there is no such entry (any more).

        Raises:
            LakeError: an object store cannot be asked now.
        """
        where = f"{self.uri(table)}/_delta_log/{version:020d}.json"
        if object_store.scheme_of(self.root) is None:
            try:
                found = Path(where).stat()
            except OSError:
                return None
            return f"{found.st_ino} {found.st_mtime_ns}"
        if self._store is None:
            self._store = object_store.store_of(self.root)
        try:
            return object_store.tag_of(self._store, where)
        except OSError as error:
            raise LakeError(f"The table {table.name} at {self.uri(table)} cannot be asked for: {error}") from error

    def newest(self, table: LakeTable) -> DeltaTable | None:
        """As :meth:`open`, to be read only: as long as nobody writes, the same table again.

        Opening reads the log of the whole history, which would make the cost of a day grow with it.
        """
        held, entry = self._read.get(table.name, (None, None))
        if held is not None:
            version = held.version()
            if self.entry(table, version) == entry and self.entry(table, version + 1) is None:
                return held
        opened = self.open(table)
        self._keep(table, opened)
        return opened

    def _keep(self, table: LakeTable, opened: DeltaTable | None) -> None:
        entry = None if opened is None else self.entry(table, opened.version())
        if opened is None or entry is None:
            self._read.pop(table.name, None)
        else:
            self._read[table.name] = opened, entry

    def version(self, table: LakeTable) -> int | None:
        opened = self.newest(table)
        return None if opened is None else int(opened.version())

    def append(self, table: LakeTable, rows: pa.RecordBatchReader | pa.Table) -> None:
        """Add rows in one transaction. Appends never conflict with each other."""
        self._write(table, rows, mode="append")

    def replace(self, table: LakeTable, days: DayRange, produce: Callable[[int | None], Any]) -> None:
        """Replace whole days in one transaction.

        ``produce`` makes the rows (an Arrow table, reader or engine relation). It is told the version that will be
        replaced: rows made from the table itself must be read at that version, or an append that came in between
        would be lost. It is called again when another writer changed the same days meanwhile.
        """
        predicate = f"{PARTITION} >= '{days.first}' AND {PARTITION} <= '{days.last}'"

        def write() -> None:
            opened = self.open(table)
            rows = produce(None if opened is None else int(opened.version()))
            self._write(table, rows, mode="overwrite", predicate=predicate, onto=opened)

        self._retrying(write, table)

    def derive(
        self,
        connection: duckdb.DuckDBPyConnection,
        target: LakeTable,
        days: DayRange,
        query: str,
        inputs: Mapping[LakeTable, DayRange],
    ) -> None:
        """Replace days of a table by a query over views of other tables, each of which shows the days named for it."""
        for table, span in inputs.items():
            self.view(connection, table, span)
        columns = ", ".join(target.schema.names)
        self.replace(target, days, lambda _version: connection.sql(f"SELECT {columns} FROM ({query})"))

    def delete(self, table: LakeTable, predicate: str) -> None:
        """Remove the rows a predicate names, if there are any."""
        opened = self.open(table)
        if opened is not None:
            self._retrying(lambda: self.open(table).delete(predicate), table)  # type: ignore[union-attr]

    def rows_per_day(self, table: LakeTable, days: DayRange | None = None) -> dict[date, int]:
        """How many rows each day holds, from the transaction log alone: no data file is read."""
        opened = self.newest(table)
        if opened is None:
            return {}
        actions = pa.table(opened.get_add_actions(flatten=True))
        if actions.num_rows == 0:
            return {}
        counts = (
            pa.table({"dt": actions[f"partition.{PARTITION}"], "rows": actions["num_records"]})
            .group_by("dt")
            .aggregate([("rows", "sum")])
        )
        found = dict(zip(counts["dt"].to_pylist(), counts["rows_sum"].to_pylist(), strict=True))
        return {day: rows for day, rows in found.items() if days is None or day in days}

    def view(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: LakeTable,
        days: DayRange | None = None,
        *,
        name: str | None = None,
        version: int | None = None,
    ) -> None:
        """Make one pinned version of a table (the newest unless named), or some of its days, a view in the engine."""
        files = self._files(table, days, version)
        view = name or table.name
        if not files:
            connection.register(f"_{view}_empty", table.schema.empty_table())
            connection.execute(f'CREATE OR REPLACE VIEW "{view}" AS SELECT * FROM "_{view}_empty"')
            return
        object_store.let_read(connection, self.root)
        columns = ", ".join(f'"{column}"' for column in table.schema.names)
        listing = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        connection.execute(
            f'CREATE OR REPLACE VIEW "{view}" AS SELECT {columns} FROM read_parquet([{listing}], '
            f"hive_partitioning = true, hive_types = {{'{PARTITION}': DATE}}, union_by_name = true)"
        )

    def missing_files(self, table: LakeTable) -> list[str]:
        """Files that the newest version of a table needs and that are not there; of a folder, not of an object store."""
        if object_store.scheme_of(self.root) is not None:
            return []
        return [file for file in self._files(table, None, None) if not Path(file).exists()]

    def compact(self, table: LakeTable) -> dict[str, Any]:
        """Merge small files; readers of older versions are not disturbed."""
        opened = self.open(table)
        return {} if opened is None else dict(opened.optimize.compact())

    def vacuum(self, table: LakeTable, retention_hours: int) -> list[str]:
        """Delete files that no version younger than the retention needs."""
        opened = self.open(table)
        if opened is None:
            return []
        return list(opened.vacuum(retention_hours=retention_hours, dry_run=False, enforce_retention_duration=False))

    def _files(self, table: LakeTable, days: DayRange | None, version: int | None) -> list[str]:
        opened = self.newest(table)
        if opened is not None and version not in (None, opened.version()):
            opened = self.open(table, version)
        if opened is None:
            return []
        actions = pa.table(opened.get_add_actions(flatten=True))
        if actions.num_rows == 0:
            return []
        if days is not None:
            partition = actions[f"partition.{PARTITION}"]
            wanted = pc.and_(
                pc.greater_equal(partition, pa.scalar(days.first, pa.date32())),
                pc.less_equal(partition, pa.scalar(days.last, pa.date32())),
            )
            actions = actions.filter(wanted)
        # Relative to the table: whole URIs would come with the folder's spaces and letters URL-encoded.
        return sorted(f"{self.uri(table)}/{path}" for path in actions["path"].to_pylist())

    def _write(
        self,
        table: LakeTable,
        rows: Any,
        *,
        mode: str,
        predicate: str | None = None,
        onto: DeltaTable | None = None,
    ) -> None:
        try:
            onto = onto or self.open(table) or self._create(table)
            write_deltalake(
                onto,
                _conformed(rows, table.schema),
                mode=mode,
                predicate=predicate,
                writer_properties=_writer(table),
                commit_properties=CommitProperties(max_commit_retries=_WRITE_ATTEMPTS),
            )
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"The table {table.name} at {self.uri(table)} cannot be written: {_in_one_line(error)}. "
                "Check the free space and the permissions, then run this again."
            ) from error
        self._keep(table, onto)

    def _create(self, table: LakeTable) -> DeltaTable:
        if object_store.scheme_of(self.root) is None:
            Path(self.root).mkdir(parents=True, exist_ok=True)
        return DeltaTable.create(
            self.uri(table),
            table.schema,
            mode="ignore",
            partition_by=[PARTITION],
            name=table.name,
            description=table.description,
        )

    def _retrying(self, write: Callable[[], object], table: LakeTable) -> None:
        for attempt in range(_WRITE_ATTEMPTS):
            try:
                write()
                return
            except CommitFailedError as error:
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise LakeError(
                        f"Another writer kept changing the same days of {table.name}; run this again when it is done."
                    ) from error
                time.sleep(0.1 * 2**attempt)


def _in_one_line(error: Exception) -> str:
    """The engine's words without their colours and line breaks."""
    return " ".join(_COLOURS.sub("", str(error)).split()).rstrip(".")


def _writer(table: LakeTable) -> WriterProperties:
    """Only text is worth a dictionary: trying one for numbers costs the writer twice the time and saves a tenth of the bytes.
    LZ4 takes the bytes of Snappy and reads faster."""
    plain = ColumnProperties(dictionary_enabled=False)
    numbers = [
        column.name for column in table.schema if column.name != PARTITION and not pa.types.is_string(column.type)
    ]
    return WriterProperties(
        compression="LZ4_RAW",
        max_row_group_size=table.group_rows,
        column_properties=dict.fromkeys(numbers, plain),
    )


def _conformed(rows: Any, schema: pa.Schema) -> pa.RecordBatchReader:
    """Stream rows with exactly the table's columns and types."""
    reader = rows if isinstance(rows, pa.RecordBatchReader) else _reader(rows)
    if reader.schema.equals(schema):
        return reader

    def batches() -> Iterable[pa.RecordBatch]:
        for batch in reader:
            table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            yield from table.to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def _reader(rows: Any) -> pa.RecordBatchReader:
    if isinstance(rows, pa.Table):
        return rows.to_reader()
    return pa.RecordBatchReader.from_stream(rows)
