"""Reading a usage file from end to end: raw rows in, canonical rows out, one block at a time.

Here: running the block query, and sparing it the columns that are canonical already. What the query says is in ``query``; no
knowledge of any format.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.usage.currencies import NO_RATES, RateBook
from obs_pipeline.usage.sources.landed import LANDED_SCHEMA, landed_broken, landed_rows, with_derived_ids
from obs_pipeline.usage.sources.layout import BLOCK
from obs_pipeline.usage.sources.mapping import SourceMapping
from obs_pipeline.usage.sources.query import DEFAULT_TYPE, BlockQuery, MappedField
from obs_pipeline.usage.sources.reading import Limits, raw_rows
from obs_pipeline.usage.sources.ready_columns import ready_column

THREADS: Final = 2


def read_usage(
    path: Path,
    mapping: SourceMapping,
    *,
    now: datetime,
    batch_rows: int = 65_536,
    block_bytes: int = Limits.block_bytes,
    max_line_bytes: int = Limits.record_bytes,
    rates: RateBook = NO_RATES,
) -> Iterator[pa.RecordBatch]:
    """Every row of a file as ``LANDED_SCHEMA``, good or not, in batches of at most ``batch_rows``.

    Memory does not grow with the file: at most about ``block_bytes`` of text, or one block of Parquet rows, are held.
    ``now`` (UTC when naive) bounds the times that are possible, ``rates`` turn costs in other currencies into USD.
    Whatever is wrong inside the file comes as rows with a reason; only a file that cannot be opened or read from its disk
    raises ``FileUnreadable``.
    """
    limits = Limits(block_rows=max(batch_rows, Limits.block_rows), block_bytes=block_bytes, record_bytes=max_line_bytes)
    raw = raw_rows(path, mapping, limits)
    with closing(_engine()) as engine:
        translator = Translator(BlockQuery(mapping, raw.layout, now, rates), engine)
        for rows, broken in raw.blocks:
            landed = translator.landed(rows) if rows.num_rows else LANDED_SCHEMA.empty_table()
            if broken:
                both = pa.concat_tables([landed, landed_broken(mapping.source, broken)])
                landed = both.sort_by("row_number")
            if mapping.filter and mapping.filter.others == "skip":
                landed = landed.filter(pc.not_equal(pc.fill_null(landed.column("reason"), ""), "not_usage"))
            yield from landed.combine_chunks().to_batches(max_chunksize=batch_rows)


def _engine() -> duckdb.DuckDBPyConnection:
    engine = duckdb.connect(":memory:", config={"threads": THREADS, "enable_external_access": False})
    engine.execute("SET TimeZone = 'UTC'")
    return engine


class Translator:
    """Translates the blocks of one file with ``engine``, whose time zone is UTC."""

    def __init__(self, query: BlockQuery, engine: duckdb.DuckDBPyConnection) -> None:
        self._query = query
        self._engine = engine
        self._sql: dict[frozenset[str], str] = {}

    def landed(self, rows: pa.Table) -> pa.Table:
        """A block as ``LANDED_SCHEMA``, row for row."""
        ready = self._ready(rows)
        computed = self._query.computable.difference(ready)
        found = self._computed(rows, computed) if computed else self._findings(rows)
        landed = landed_rows({**ready, **found, "row_number": rows.column("row_number")}, rows.num_rows)
        return with_derived_ids(landed, self._engine)

    def _computed(self, rows: pa.Table, computed: frozenset[str]) -> dict[str, pa.ChunkedArray]:
        if computed not in self._sql:
            self._sql[computed] = self._query.sql(computed)
        found = self._run(self._sql[computed], rows)
        if not found.column("row_number").equals(rows.column("row_number")):
            raise RuntimeError("the engine returned the rows of a block in another order")
        return {name: found.column(name) for name in found.column_names}

    def _findings(self, rows: pa.Table) -> dict[str, pa.ChunkedArray]:
        """Reasons for a block of which only the fitness of its rows is not known."""
        unfit = self._run(self._query.unfit_sql, rows).column("row_number").to_numpy()
        if not len(unfit):
            return {}
        places = np.searchsorted(rows.column("row_number").to_numpy(), unfit)
        found = self._computed(rows.take(pa.array(places)), frozenset())
        taken = np.full(rows.num_rows, -1)
        taken[places] = np.arange(len(places))
        indices = pa.array(taken, mask=taken < 0)
        return {name: found[name].take(indices) for name in ("reason", "detail", "raw")}

    def _ready(self, rows: pa.Table) -> dict[str, pa.Array]:
        """The fields of this block that need no query."""
        query = self._query
        defaults = {"source": query.mapping.source, "event_type": DEFAULT_TYPE}
        ready = {name: pa.repeat(value, rows.num_rows) for name, value in defaults.items() if name not in query.fields}
        for name, field in query.fields.items():
            column = None if name in query.adjusted else _ready_field(field, rows)
            if column is not None:
                ready[name] = column
        return ready

    def _run(self, sql: str, rows: pa.Table) -> pa.Table:
        self._engine.register(BLOCK, rows)
        try:
            return self._engine.sql(sql).to_arrow_table()
        finally:
            self._engine.unregister(BLOCK)


def _ready_field(field: MappedField, rows: pa.Table) -> pa.Array | None:
    if not field.column.is_plain:
        return None
    constant = field.column.const
    if constant is not None and field.kind == "text" and field.name != "event_type":
        return pa.repeat(str(constant), rows.num_rows)
    column = field.places[0].column
    if len(field.places) > 1 or column is None:
        return None
    found = ready_column(field.name, field.kind, field.column.unit, rows.column(column).combine_chunks())
    falls_back = field.name == "source" and found is not None and found.null_count
    return None if falls_back else found
