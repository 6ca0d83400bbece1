"""CSV records into columns of text.

Here: the header, and the fields of well-split records by pyarrow, with a slower exact reading for the rare block on which the
two readings differ. No splitting of bytes into records, no types.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from obs_pipeline.usage.sources.records import BrokenRow, Records, shown


def header_of(record: str, delimiter: str) -> list[str]:
    """The column names, trimmed. Raises ``ValueError`` when the record cannot be a header."""
    try:
        names = next(csv.reader([record], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return [name.strip() for name in names]


def table_of(
    records: Records, header: Sequence[str], wanted: Sequence[str], delimiter: str
) -> tuple[pa.Table, tuple[BrokenRow, ...]]:
    """The wanted columns as ``c0``, ``c1``, ... with ``row_number``, ``line`` and ``raw``; and the records that do not fit
    the header."""
    if not len(records.text):
        return pa.table({"row_number": pa.array([], pa.int64())}), ()
    positions = [list(header).index(name) for name in wanted]
    try:
        columns, misfits = _by_arrow(records, len(header), positions, delimiter)
    except pa.ArrowInvalid:
        columns, misfits = _one_by_one(records, len(header), positions, delimiter)
    fits = np.ones(len(records.text), np.bool_)
    fits[list(misfits)] = False
    broken = tuple(_misfit(records, at, len(header), fields) for at, fields in misfits.items())
    if not fits.all():
        records = Records(records.text.filter(pa.array(fits)), records.numbers[fits], records.lines[fits])
    return pa.table(
        {
            "row_number": pa.array(records.numbers),
            "line": pa.array(records.lines),
            "raw": records.text,
            **{f"c{at}": column for at, column in enumerate(columns)},
        }
    ), broken


def _misfit(records: Records, at: int, expected: int, fields: int | None) -> BrokenRow:
    line = int(records.lines[at])
    found = f"has {fields} fields" if fields is not None else "cannot be split into fields"
    raw = records.text[at].as_py().encode()
    return BrokenRow(
        int(records.numbers[at]),
        "bad_csv",
        f"the record {found}; the header has {expected} (line {line:,})",
        shown(raw),
    )


Misfits = dict[int, int | None]
"""How many fields a record has (None: not to be said), by the position of the record."""


def _by_arrow(
    records: Records, width: int, wanted: Sequence[int], delimiter: str
) -> tuple[list[pa.ChunkedArray], Misfits]:
    misfits: Misfits = {}

    def skip(row: pa_csv.InvalidRow) -> str:
        misfits[row.number - 1] = row.actual_columns
        return "skip"

    names = [f"f{at}" for at in range(width)]
    table = pa_csv.read_csv(
        pa.BufferReader(_bytes_of(records.text)),
        read_options=pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=_size_of(records.text) + 1),
        parse_options=pa_csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=[names[at] for at in wanted] or names[:1],
            check_utf8=False,
        ),
    )
    if table.num_rows + len(misfits) != len(records.text):
        raise pa.ArrowInvalid("the records were split otherwise")
    return [table.column(names[at]) for at in wanted], misfits


def _one_by_one(records: Records, width: int, wanted: Sequence[int], delimiter: str) -> tuple[list[pa.Array], Misfits]:
    rows: list[list[str]] = []
    misfits: Misfits = {}
    for at, record in enumerate(records.text.to_pylist()):
        try:
            parsed = list(csv.reader([record.rstrip("\r\n")], delimiter=delimiter, strict=True))
        except csv.Error:
            misfits[at] = None
            continue
        if len(parsed) == 1 and len(parsed[0]) == width:
            rows.append(parsed[0])
        else:
            misfits[at] = len(parsed[0]) if len(parsed) == 1 else None
    return [pa.array([row[at] for row in rows], pa.string()) for at in wanted], misfits


def _bytes_of(text: pa.StringArray) -> pa.Buffer:
    return text.buffers()[2].slice(_start_of(text), _size_of(text))


def _start_of(text: pa.StringArray) -> int:
    return int(_offsets(text)[0])


def _size_of(text: pa.StringArray) -> int:
    offsets = _offsets(text)
    return int(offsets[-1] - offsets[0])


def _offsets(text: pa.StringArray) -> npt.NDArray[np.int32]:
    offsets = np.frombuffer(text.buffers()[1], np.int32)
    return offsets[text.offset : text.offset + len(text) + 1]
