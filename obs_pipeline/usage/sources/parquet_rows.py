"""Rows of a Parquet file, batch by batch, row group by row group.

Here: reading only the columns asked for, types the engine cannot take turned into those it can, text that is not UTF-8 set
apart, and damage confined to its row group. No meaning of a column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from obs_pipeline.usage.sources.records import BrokenRow, shown
from obs_pipeline.usage.sources.streams import FileUnreadable

_DAMAGE: Final = (pa.ArrowException, OSError)
_COARSE_UNITS: Final = {"s": 1_000_000, "ms": 1_000}
_BYTES_OF_A_REPEATED_TEXT: Final = 4
_READ_AHEAD: Final = 1 << 20
"""Bytes of a column chunk held at a time; without it a row group's packed bytes would be held whole."""


class ParquetUnreadable(Exception):
    """The file's footer cannot be read. Never leaves this package."""


class ParquetRows:
    """An open Parquet file.

    Raises ``ParquetUnreadable`` when it is none, or its footer is damaged, and ``FileUnreadable``, then and later, when
    the operating system refuses to open or read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(
                path,
                read_dictionary=_repeating(pq.read_metadata(path)),
                buffer_size=_READ_AHEAD,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            self.schema: pa.Schema = self._file.schema_arrow
        except _DAMAGE as error:
            _refuse_disk_faults(path, error)
            raise ParquetUnreadable(_cause(error)) from error

    def batches(self, columns: tuple[str, ...], rows: int) -> Iterator[tuple[pa.Table, tuple[BrokenRow, ...]]]:
        """Tables of at most ``rows`` rows: ``row_number`` (from 1), then the columns as ``c0``, ``c1``, ...

        A row group that cannot be read to its end gives one broken row with the number of the first row lost.
        """
        with closing(self._file):
            first = 1
            for group in range(self._file.num_row_groups):
                size = self._file.metadata.row_group(group).num_rows
                yield from self._group(group, first, size, columns, rows)
                first += size

    def _group(
        self, group: int, first: int, size: int, columns: tuple[str, ...], rows: int
    ) -> Iterator[tuple[pa.Table, tuple[BrokenRow, ...]]]:
        number = first
        lost = first + size
        batches = self._file.iter_batches(rows, row_groups=[group], columns=list(columns))
        try:
            while number < lost:
                batch = next(batches, None)
                if batch is None or not batch.num_rows:
                    raise pa.ArrowInvalid("the rows end early")
                yield _numbered(batch.select(list(columns)), number)
                number += batch.num_rows
        except _DAMAGE as error:
            _refuse_disk_faults(self._path, error)
            detail = f"rows {number:,} to {lost - 1:,} (row group {group + 1}) cannot be read: {_cause(error)}"
            yield _no_rows(), (BrokenRow(number, "unreadable_file", detail, None),)


def _repeating(file: pq.FileMetaData) -> list[str]:
    """The texts that the file itself keeps as dictionaries of few values; they are fastest read as such."""
    if not file.num_row_groups:
        return []
    texts = {field.name for field in file.schema.to_arrow_schema() if pa.types.is_string(field.type)}
    group = file.row_group(0)
    chunks = [group.column(at) for at in range(group.num_columns)]
    return [
        chunk.path_in_schema
        for chunk in chunks
        if chunk.path_in_schema in texts
        and chunk.has_dictionary_page
        and chunk.total_uncompressed_size < _BYTES_OF_A_REPEATED_TEXT * max(chunk.num_values, 1)
    ]


def _refuse_disk_faults(path: Path, error: BaseException) -> None:
    """Damage has no error number; a fault of the disk has, and is no reason to call the rows lost."""
    if isinstance(error, OSError) and error.errno:
        raise FileUnreadable(f"{path} cannot be read: {error.strerror or error}") from error


def _cause(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _no_rows() -> pa.Table:
    return pa.table({"row_number": pa.array([], pa.int64())})


def _numbered(batch: pa.RecordBatch, first: int) -> tuple[pa.Table, tuple[BrokenRow, ...]]:
    numbers = np.arange(first, first + batch.num_rows)
    columns = [taken(column) for column in batch.columns]
    table = pa.table([pa.array(numbers), *columns], names=["row_number", *(f"c{at}" for at in range(len(columns)))])
    faulty = _not_utf8(columns)
    if not faulty:
        return table, ()
    fine = np.ones(batch.num_rows, np.bool_)
    fine[list(faulty)] = False
    broken = tuple(
        BrokenRow(int(numbers[at]), "bad_encoding", f"{batch.schema.names[column]} is not UTF-8 text", _raw(batch, at))
        for at, column in sorted(faulty.items())
    )
    return table.filter(pa.array(fine)), broken


def taken_type(found: pa.DataType) -> pa.DataType:
    """The type under which a column of the file reaches the engine."""
    if pa.types.is_dictionary(found):
        return taken_type(found.value_type)
    if pa.types.is_binary(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return pa.string()
    if pa.types.is_timestamp(found) and (found.unit in _COARSE_UNITS or found.tz):
        # Of nanoseconds with a zone the engine makes no time in UTC.
        return pa.timestamp("us", found.tz)
    if pa.types.is_float16(found):
        return pa.float32()
    if pa.types.is_decimal256(found) or pa.types.is_large_binary(found) or pa.types.is_fixed_size_binary(found):
        return pa.string()
    return found


def taken(column: pa.Array) -> pa.Array:
    """``column`` as ``taken_type``, except that dictionaries of text stay what they are."""
    wanted = taken_type(column.type)
    if pa.types.is_dictionary(column.type) and column.type.value_type == wanted == pa.string():
        return column
    if column.type == wanted:
        return column
    if pa.types.is_binary(column.type):
        return column.view(wanted)
    if pa.types.is_timestamp(wanted) and column.type.unit in _COARSE_UNITS:
        return _in_microseconds(column, wanted)
    return column.cast(wanted, safe=False)


def _in_microseconds(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The engine stops at a time that microseconds cannot hold; the last one they can is as impossible, and does no harm."""
    furthest = np.iinfo(np.int64).max // _COARSE_UNITS[column.type.unit]
    count = pc.min_element_wise(
        pc.max_element_wise(column.view(pa.int64()), -furthest, skip_nulls=False), furthest, skip_nulls=False
    )
    return count.view(column.type).cast(wanted)


def _not_utf8(columns: list[pa.Array]) -> dict[int, int]:
    """Rows with text that is not UTF-8, and the first column it is in."""
    faulty: dict[int, int] = {}
    for at, column in enumerate(columns):
        if _sound(column):
            continue
        flat = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for row in range(len(flat)):
            if row not in faulty and not _sound(flat.slice(row, 1)):
                faulty[row] = at
    return faulty


def _sound(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _raw(batch: pa.RecordBatch, row: int) -> str:
    """The row as JSON; text that is not UTF-8 is escaped."""
    values = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values[name] = _shown_value(column.slice(row, 1))
    return shown(json.dumps(values, ensure_ascii=False, default=str).encode())


def _shown_value(cell: pa.Array) -> object:
    flat = cell.dictionary_decode() if pa.types.is_dictionary(cell.type) else cell
    if pa.types.is_string(flat.type):
        data = flat.view(pa.binary()).to_pylist()[0]
        return None if data is None else shown(data)
    return flat.to_pylist()[0] if _sound(flat) else "(not UTF-8)"
