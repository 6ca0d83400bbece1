"""A usage file as raw rows: whatever the format, tables called ``block`` and the layout that says what is where in them.

Here: choosing the reader for a file. The readers themselves are in ``records``, ``csv_fields`` and ``parquet_rows``; what the
rows mean is decided in ``translate``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import pyarrow as pa

from obs_pipeline.usage.sources.csv_fields import header_of, table_of
from obs_pipeline.usage.sources.formats import sniff_format, trouble_with_text
from obs_pipeline.usage.sources.layout import ColumnLayout, JsonLayout
from obs_pipeline.usage.sources.mapping import SourceMapping, kind_of
from obs_pipeline.usage.sources.once import first_or_last
from obs_pipeline.usage.sources.otlp import unfolded
from obs_pipeline.usage.sources.parquet_rows import ParquetRows, ParquetUnreadable, taken_type
from obs_pipeline.usage.sources.raw_rows import Blocks, RawRows
from obs_pipeline.usage.sources.records import BrokenRow, Records, read_records, split_csv, split_lines
from obs_pipeline.usage.sources.streams import unpacked

BOM: Final = b"\xef\xbb\xbf"
EXPORT_BYTES: Final = 32 << 20
"""The longest line of a format that writes many calls in one."""


@dataclass(frozen=True)
class Limits:
    """How much is held at a time: rows of a Parquet file, bytes of text, bytes of one record."""

    block_rows: int = 131_072
    block_bytes: int = 8 << 20
    record_bytes: int = 1 << 20


def raw_rows(path: Path, mapping: SourceMapping, limits: Limits) -> RawRows:
    """Open a file.

    Raises ``FileUnreadable`` when it cannot be opened; what is wrong inside the file comes as broken rows.
    """
    if mapping.unfold:
        longer = replace(limits, record_bytes=max(limits.record_bytes, EXPORT_BYTES))
        return unfolded(_lines(path, longer), mapping, mapping.unfold)
    if mapping.once:
        once, mapping = mapping.once, mapping.model_copy(update={"once": None})
        kept = mapping.model_copy(update={"columns": {}, "attributes": {}, "once": once})
        return first_or_last(partial(_rows_of_format, path, kept, limits), _rows_of_format(path, mapping, limits), kept)
    return _rows_of_format(path, mapping, limits)


def _rows_of_format(path: Path, mapping: SourceMapping, limits: Limits) -> RawRows:
    form = sniff_format(path) if mapping.format == "auto" else mapping.format
    if form == "parquet":
        return _parquet(path, mapping, limits)
    if trouble := trouble_with_text(path):
        return _nothing(BrokenRow(1, trouble.reason, trouble.sentence, None))
    return _csv(path, mapping, limits) if form == "csv" else _jsonl(path, mapping, limits)


def _nothing(why: BrokenRow | None = None) -> RawRows:
    nothing = pa.table({"row_number": pa.array([], pa.int64())})
    return RawRows(ColumnLayout(pa.schema([]), ()), iter([(nothing, (why,))] if why else []))


def _parquet(path: Path, mapping: SourceMapping, limits: Limits) -> RawRows:
    try:
        file = ParquetRows(path)
    except ParquetUnreadable as error:
        return _nothing(BrokenRow(1, "unreadable_file", f"{path.name} cannot be read as Parquet: {error}", None))
    schema = pa.schema([field.with_type(taken_type(field.type)) for field in file.schema])
    layout = ColumnLayout(schema, mapping.paths())
    if not layout.names:
        return _nothing(_no_mapped_column(path, schema.names))
    return RawRows(layout, file.batches(layout.names, limits.block_rows))


def _chunks(path: Path, limits: Limits) -> Iterator[bytes]:
    chunks = unpacked(path, limits.block_bytes)
    for at, chunk in enumerate(chunks):
        yield chunk if at else chunk.removeprefix(BOM)


def _csv(path: Path, mapping: SourceMapping, limits: Limits) -> RawRows:
    blocks = read_records(
        _chunks(path, limits), split_csv(mapping.delimiter), longest=limits.record_bytes, numbered_by_line=False
    )
    first = next((block for block in blocks if len(block.text) or block.broken), None)
    if first is None:
        return _nothing()
    if first.broken and first.broken[0].row_number == 1:
        fault = first.broken[0]
        return _nothing(replace(fault, detail=f"the header cannot be read: {fault.detail}"))
    record = first.text[0].as_py()
    try:
        header = header_of(record, mapping.delimiter)
    except ValueError as error:
        return _nothing(BrokenRow(1, "bad_csv", f"the header cannot be read: {error}", record.rstrip()))
    layout = ColumnLayout(pa.schema([(name, pa.string()) for name in header]), mapping.paths(), from_text=True)
    if not layout.names:
        return _nothing(_no_mapped_column(path, header))
    data = map(_less_header, chain([_after_header(first)], blocks))
    return RawRows(layout, (_csv_block(block, header, layout.names, mapping.delimiter) for block in data))


def _after_header(block: Records) -> Records:
    return replace(block, text=block.text[1:], numbers=block.numbers[1:], lines=block.lines[1:])


def _less_header(block: Records) -> Records:
    """Record numbers count from the first one under the header."""
    broken = tuple(replace(row, row_number=row.row_number - 1) for row in block.broken)
    return replace(block, numbers=block.numbers - 1, broken=broken)


def _csv_block(
    block: Records, header: Sequence[str], wanted: Sequence[str], delimiter: str
) -> tuple[pa.Table, tuple[BrokenRow, ...]]:
    table, misfits = table_of(block, header, wanted, delimiter)
    return table, block.broken + misfits


def _no_mapped_column(path: Path, names: Sequence[str]) -> BrokenRow:
    has = ", ".join(names[:20])
    return BrokenRow(
        1, "no_mapped_column", f"{path.name} has none of the columns that the mapping names; it has: {has}", None
    )


def _jsonl(path: Path, mapping: SourceMapping, limits: Limits) -> RawRows:
    money = (field for field in mapping.columns if kind_of(field) == "money")
    layout = JsonLayout(
        paths=mapping.paths(),
        kept=tuple(mapping.attributes.values()),
        exact=tuple(dict.fromkeys(path for field in money for path in mapping.columns[field].paths)),
    )
    return RawRows(layout, _lines(path, limits))


def _lines(path: Path, limits: Limits) -> Blocks:
    """The lines of a text file as ``row_number`` and ``raw``."""
    records = read_records(_chunks(path, limits), split_lines, longest=limits.record_bytes, numbered_by_line=True)
    return ((pa.table({"row_number": pa.array(block.numbers), "raw": block.text}), block.broken) for block in records)
