"""The rows that come out of reading: canonical columns beside the place, and for unfit rows the reason and the raw row.

Here: their schema, rows that never became columns in that schema, and ids for events without one. No reading, no rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.usage.event import EVENT_FIELDS
from obs_pipeline.usage.sources.records import RAW_CHARACTERS, BrokenRow

LANDED_SCHEMA: Final = pa.schema(
    [
        *(field.with_nullable(True) for field in EVENT_FIELDS),
        pa.field("row_number", pa.int64(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("raw", pa.string()),
    ]
)
"""``row_number`` counts from 1: the line of JSON lines, the record under a CSV header, the row of Parquet. ``reason`` is
null for a good row; otherwise it is a key of ``quality.REASONS``, ``detail`` is a sentence, ``raw`` the row as text where
there is one, and the canonical columns hold whatever could be read. A row about the whole file or the rest of it has the
number of the first row lost."""

DERIVED_PREFIX: Final = "derived-"
_NULL: Final = "chr(0)"
_SEPARATOR: Final = "chr(31)"


def raw_sql(raw: str) -> str:
    """SQL for a raw row as text without its line end, zero bytes escaped."""
    return f"replace(rtrim({raw}, E'\\r\\n'), chr(0), '\\x00')"


def cut_sql(text: str) -> str:
    """SQL for a raw row cut to what is kept, with a note of its length."""
    note = f"'… [' || format('{{:,}}', strlen({text})) || ' bytes in all]'"
    return f"CASE WHEN length({text}) > {RAW_CHARACTERS} THEN left({text}, {RAW_CHARACTERS}) || {note} ELSE {text} END"


def landed_rows(columns: dict[str, pa.Array], rows: int) -> pa.Table:
    """A table of ``LANDED_SCHEMA``; a column that is not given is null."""
    arrays = [columns[field.name] if field.name in columns else pa.nulls(rows, field.type) for field in LANDED_SCHEMA]
    return pa.table(arrays, schema=LANDED_SCHEMA)


def landed_broken(source: str, broken: Sequence[BrokenRow]) -> pa.Table:
    """Broken rows as landed rows: the source, and nothing else of the event."""
    return landed_rows(
        {
            "source": pa.array([source] * len(broken), pa.string()),
            "row_number": pa.array([row.row_number for row in broken], pa.int64()),
            "reason": pa.array([row.reason for row in broken], pa.string()),
            "detail": pa.array([row.detail for row in broken], pa.string()),
            "raw": pa.array([row.raw for row in broken], pa.string()),
        },
        len(broken),
    )


def with_derived_ids(rows: pa.Table, engine: duckdb.DuckDBPyConnection) -> pa.Table:
    """Good rows without an id get one from their content and their place in the file.

    It depends on the canonical content and ``row_number`` alone: not on the file's name or format, nor on how it was cut into
    batches. A file that has grown gives its old rows their old ids.
    """
    nameless = pc.and_(pc.is_null(rows.column("event_id")), pc.is_null(rows.column("reason")))
    if not pc.any(nameless).as_py():
        return rows
    engine.register("nameless", rows.filter(nameless))
    ids = engine.sql(_derive_ids()).to_arrow_table().column("event_id").combine_chunks()
    engine.unregister("nameless")
    filled = pc.replace_with_mask(rows.column("event_id").combine_chunks(), nameless.combine_chunks(), ids)
    return rows.set_column(rows.schema.get_field_index("event_id"), LANDED_SCHEMA.field("event_id"), filled)


def _derive_ids() -> str:
    names = [field.name for field in EVENT_FIELDS if field.name != "event_id"]
    parts = [f"coalesce(CAST({name} AS VARCHAR), {_NULL})" for name in (*names, "row_number")]
    return f"SELECT '{DERIVED_PREFIX}' || md5(concat_ws({_SEPARATOR}, {', '.join(parts)})) AS event_id FROM nameless"
