"""Landing: one usage file into the lake, once, whole or not at all.

Reads through ``sources``, prices, and appends to ``usage_events`` and ``usage_rejected``. Whether an event is a
duplicate of another is decided later, for whole days, by ``settling``.

A file is known by the digest of its bytes: landing it again does nothing, landing it by another mapping replaces its
rows. They are written first and count from the moment the ledger says ``landed``; an attempt that was interrupted is
found there, undone and made again.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from obs_pipeline.errors import ObsError
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline.usage.currencies import NO_RATES, RateBook
from obs_pipeline.usage.pricing import PriceBook, price_calls_sql, price_tolerance
from obs_pipeline.usage.sources.landed import LANDED_SCHEMA
from obs_pipeline.usage.sources.mapping import SourceMapping
from obs_pipeline.usage.sources.translate import read_usage
from obs_pipeline.usage.tables import PRICED_FIELDS, USAGE_DUPLICATES, USAGE_EVENTS, USAGE_REJECTED

_ROWS_PER_STEP: Final = 262_144
_DAY_IN_NAME: Final = re.compile(r"(20\d\d)-?([01]\d)-?([0-3]\d)")
_GOOD_COLUMNS: Final = [name for name in LANDED_SCHEMA.names if name not in ("reason", "detail", "raw")]
_PRICED_BY: Final = [
    *("event_time", "event_type", "provider", "model", "error_type", "reported_cost"),
    *("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"),
]
_PRICE_COLUMNS: Final = [field.name for field in PRICED_FIELDS if field.name != "price_version"]
_EARLIEST: Final = datetime(2020, 1, 1)
_FUTURE_ALLOWED: Final = timedelta(days=1)
_EXAMPLES: Final = 20


class LandingError(ObsError):
    """A file cannot be landed; the message names it and says why."""


class FileChanged(LandingError):
    """A file was written to, replaced or removed while it was read; what it held when it was named is not what was read."""


@dataclass(frozen=True)
class LandingReport:
    """What became of one file."""

    name: str
    source: str
    file_id: str
    already_landed: bool
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    examples: tuple[dict[str, Any], ...] = ()
    unpriced: int = 0
    mispriced: int = 0
    first_day: date | None = None
    last_day: date | None = None

    @property
    def accepted(self) -> int:
        return self.rows - sum(self.rejected.values())


@dataclass
class Landing:
    """Where files land and what they are priced with. ``undated`` is the day of a file without one usable time."""

    lake: Lake
    ledger: Ledger
    prices: PriceBook
    connection: duckdb.DuckDBPyConnection
    scratch: Path
    undated: date
    price_tolerance: float = 0.05
    rates: RateBook = NO_RATES

    def land(
        self,
        path: Path,
        mapping: SourceMapping,
        *,
        now: datetime,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> LandingReport:
        """Take one file in. ``now`` is UTC; ``on_rows`` hears how many rows were read as they come.

        Raises:
            LandingError: the file cannot be opened.
            FileChanged: it did not stay the same meanwhile; none of its rows is kept.
        """
        found = _state_of(path)
        file_id = digest(path)
        read_by = mapping_digest(mapping, self.rates)
        before = self.ledger.landing_of(file_id)
        if before == ("landed", read_by):
            return LandingReport(path.name, mapping.source, file_id, already_landed=True)
        file = LandedFile(file_id, mapping.source, path.name, path.stat().st_size, 0, None)
        self.ledger.start_landing(file, read_by, now)
        if before is not None:
            self._undo(file_id)
        spool = self.scratch / f"rejected-{file_id}.parquet"
        possible = (self.undated, (now + _FUTURE_ALLOWED).date())
        tally = _Tally(file_id, mapping.source, spool, possible, path.name)
        try:
            self._write(path, mapping, tally, now, on_rows)
            if _state_of(path) != found:
                self._undo(file_id)
                raise FileChanged(
                    f"{path}: it changed while it was read. Take it in again once it is written to its end."
                )
        finally:
            tally.discard()
        self.ledger.finish_landing(file_id, tally.rows, tally.days(), now)
        return tally.report()

    def _write(
        self,
        path: Path,
        mapping: SourceMapping,
        tally: _Tally,
        now: datetime,
        on_rows: Callable[[int], None],
    ) -> None:
        def accepted() -> Iterator[pa.Table]:
            for rows in _in_steps(read_usage(path, mapping, now=now, rates=self.rates), _ROWS_PER_STEP):
                good = tally.take(rows, now)
                on_rows(rows.num_rows)
                if good.num_rows:
                    yield good

        def priced(events: Iterator[pa.Table]) -> Iterator[pa.Table]:
            for good in events:
                table = price(self.connection, good, self.prices, self.price_tolerance)
                tally.note_prices(table)
                yield table

        # Reading, pricing and writing each take one step at a time, all three at once.
        tables = _ahead(priced(_ahead(accepted())))
        first = next(tables, None)
        if first is not None:
            batches = (batch for table in itertools.chain([first], tables) for batch in table.to_batches())
            self.lake.append(USAGE_EVENTS, pa.RecordBatchReader.from_batches(USAGE_EVENTS.schema, batches))
        rejected = tally.rejected()
        if rejected is not None:
            self.lake.append(USAGE_REJECTED, rejected)

    def _undo(self, file_id: str) -> None:
        for table in (USAGE_EVENTS, USAGE_REJECTED, USAGE_DUPLICATES):
            self.lake.delete(table, f"file_id = '{file_id}'")


def price(connection: duckdb.DuckDBPyConnection, calls: pa.Table, prices: PriceBook, tolerance: float) -> pa.Table:
    """Price rows that carry the event columns, ``dt``, ``file_id`` and ``row_number`` → the columns of ``usage_events``."""
    pairs = calls.select(["provider", "model"]).group_by(["provider", "model"]).aggregate([])
    models = list(zip(pairs["provider"].to_pylist(), pairs["model"].to_pylist(), strict=True))
    # Only what a price depends on goes through the engine, which answers in any order.
    asked = calls.select(_PRICED_BY).append_column("place", pa.array(np.arange(calls.num_rows)))
    connection.register("calls", asked)
    connection.register("rates", prices.rates(models))
    connection.register("bounds", prices.bounds(models))
    connection.register("price_tolerance", price_tolerance(Decimal(str(tolerance))))
    wanted = ", ".join(_PRICE_COLUMNS)
    answers = connection.sql(f"SELECT place, {wanted} FROM ({price_calls_sql()})").to_arrow_table().sort_by("place")
    columns = {name: calls[name] for name in calls.column_names} | dict(
        zip(_PRICE_COLUMNS, answers.columns[1:], strict=True)
    )
    columns["price_version"] = pa.repeat(prices.version, calls.num_rows)
    return pa.table(columns).select(USAGE_EVENTS.schema.names).cast(USAGE_EVENTS.schema)


def digest(path: Path) -> str:
    """The name of a file's content: BLAKE2b of its bytes, read in blocks.

    Raises:
        LandingError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
    except OSError as error:
        raise LandingError(f"{path}: {error.strerror}. Check the path and its permissions.") from None


def mapping_digest(mapping: SourceMapping, rates: RateBook) -> str:
    """The name of what a mapping says, and of the rates where its costs are not in USD."""
    said = mapping.model_dump_json(exclude_defaults=True)
    if any(column.currency for column in mapping.columns.values()):
        said += rates.digest
    return hashlib.blake2b(said.encode(), digest_size=20).hexdigest()


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from one that was written to or put in its place since; None when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


class _Tally:
    """Counts one file's rows as they pass and keeps the bad ones until their day is known."""

    def __init__(self, file_id: str, source: str, spool: Path, possible: tuple[date, date], name: str) -> None:
        self.rows = 0
        self.reasons: Counter[str] = Counter()
        self.unpriced = self.mispriced = 0
        self._file_id, self._source, self._name = file_id, source, name
        self._possible = possible
        self._spool = spool
        self._writer: pq.ParquetWriter | None = None
        self._good: Counter[date] = Counter()
        self._bad: Counter[date | None] = Counter()
        self._first: dict[date, datetime] = {}
        self._last: dict[date, datetime] = {}
        self._examples: list[dict[str, Any]] = []

    def take(self, rows: pa.Table, now: datetime) -> pa.Table:
        """Count rows, set the bad ones aside, return the good ones with ``dt`` and ``file_id``."""
        self.rows += rows.num_rows
        is_good = pc.is_null(rows["reason"])
        bad = rows.filter(pc.invert(is_good))
        if bad.num_rows:
            self._set_aside(bad, now)
            rows = rows.filter(is_good)
        good = rows.select(_GOOD_COLUMNS)
        good = good.append_column("dt", good["event_time"].cast(pa.date32()))
        good = good.append_column("file_id", pa.repeat(self._file_id, good.num_rows))
        self._count_days(good)
        return good

    def note_prices(self, priced: pa.Table) -> None:
        self.unpriced += pc.sum(pc.equal(priced["cost_source"], "unpriced")).as_py() or 0
        self.mispriced += pc.sum(priced["mispriced"]).as_py() or 0

    def rejected(self) -> pa.RecordBatchReader | None:
        """The bad rows, each under its day; None when there are none."""
        if self._writer is None:
            return None
        self._writer.close()
        spooled = pq.ParquetFile(self._spool)
        day = pa.scalar(self._fallback_day, pa.date32())

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in spooled.iter_batches():
                table = pa.Table.from_batches([batch])
                dated = table.set_column(0, "dt", pc.fill_null(table["dt"], day))
                yield from dated.select(USAGE_REJECTED.schema.names).cast(USAGE_REJECTED.schema).to_batches()

        return pa.RecordBatchReader.from_batches(USAGE_REJECTED.schema, batches())

    def days(self) -> list[LandedDay]:
        bad: Counter[date] = Counter()
        for day, rows in self._bad.items():
            bad[day or self._fallback_day] += rows
        return [
            LandedDay(day, self._good[day] + bad[day], bad[day], self._first.get(day), self._last.get(day))
            for day in sorted({*self._good, *bad})
        ]

    def report(self) -> LandingReport:
        days = self.days()
        return LandingReport(
            name=self._name,
            source=self._source,
            file_id=self._file_id,
            already_landed=False,
            rows=self.rows,
            rejected=dict(self.reasons.most_common()),
            examples=tuple(self._examples),
            unpriced=self.unpriced,
            mispriced=self.mispriced,
            first_day=days[0].dt if days else None,
            last_day=days[-1].dt if days else None,
        )

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._spool.unlink(missing_ok=True)

    @property
    def _fallback_day(self) -> date:
        """A row without a usable time belongs to the first good day of its file, else the day in the file's name."""
        known = [*self._good, *(day for day in self._bad if day is not None)]
        if known:
            return min(known)
        first, last = self._possible
        named = _day_in(self._name)
        return named if named is not None and first <= named <= last else first

    def _set_aside(self, bad: pa.Table, now: datetime) -> None:
        latest = now + _FUTURE_ALLOWED
        usable = pc.and_(
            pc.greater_equal(bad["event_time"], pa.scalar(_EARLIEST, pa.timestamp("us"))),
            pc.less_equal(bad["event_time"], pa.scalar(latest, pa.timestamp("us"))),
        )
        days = pc.if_else(usable, bad["event_time"].cast(pa.date32()), pa.scalar(None, pa.date32()))
        bad = bad.select(["source", "event_id", "event_time", "reason", "detail", "raw", "row_number"])
        bad = bad.set_column(0, "source", pa.repeat(self._source, bad.num_rows))
        bad = bad.append_column("file_id", pa.repeat(self._file_id, bad.num_rows))
        bad = bad.add_column(0, "dt", days)
        if self._writer is None:
            self._spool.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._spool, bad.schema)
        self._writer.write_table(bad)
        self.reasons.update(_counts(bad["reason"]))
        self._bad.update(_counts(bad["dt"]))
        if len(self._examples) < _EXAMPLES:
            shown = bad.select(["row_number", "reason", "detail"]).slice(0, _EXAMPLES - len(self._examples))
            self._examples += shown.to_pylist()

    def _count_days(self, good: pa.Table) -> None:
        times = good.select(["dt", "event_time"]).group_by("dt")
        days = times.aggregate([("event_time", "count"), ("event_time", "min"), ("event_time", "max")])
        for row in days.to_pylist():
            day = row["dt"]
            self._good[day] += row["event_time_count"]
            self._first[day] = min(row["event_time_min"], self._first.get(day, row["event_time_min"]))
            self._last[day] = max(row["event_time_max"], self._last.get(day, row["event_time_max"]))


def _counts(column: pa.ChunkedArray) -> dict[Any, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()}


def _day_in(name: str) -> date | None:
    found = _DAY_IN_NAME.search(name)
    if found is None:
        return None
    try:
        return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


def _in_steps(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Gather batches into tables of about ``rows`` rows: big enough to price at engine speed, small enough to hold."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Make the next table in a thread while the one before is written; an error surfaces where it is awaited."""
    ready: queue.Queue[pa.Table | BaseException | None] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def produce() -> None:
        outcome: BaseException | None = None
        try:
            for table in tables:
                if not _put(ready, table, stopped):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            outcome = error
        _put(ready, outcome, stopped)

    producer = threading.Thread(target=produce, name="landing-reader", daemon=True)
    producer.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        producer.join()


def _put(ready: queue.Queue[Any], item: object, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
