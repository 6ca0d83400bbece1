"""Rows of a file that are one call written several times: only the first or the last of them counts.

Here: finding the others, in a pass over the file before the one that reads it. Only keys are held, and on disk. Nothing about
the same call in two files: that is for ``settling``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from obs_pipeline.usage.sources.layout import BLOCK, Layout
from obs_pipeline.usage.sources.mapping import SourceMapping
from obs_pipeline.usage.sources.query import condition_sql
from obs_pipeline.usage.sources.raw_rows import Blocks, RawRows
from obs_pipeline.usage.sources.records import Positions
from obs_pipeline.usage.sources.workbench import workbench

_SEPARATOR: Final = "chr(31)"


def first_or_last(open_keys: Callable[[], RawRows], rows: RawRows, mapping: SourceMapping) -> RawRows:
    """``rows`` less those that another row of the file stands for.

    ``mapping`` says by what (``once``) and which rows take part (``filter``); ``open_keys`` opens the file by it.
    """
    return RawRows(rows.layout, _less_repeats(open_keys, rows.blocks, mapping))


def _less_repeats(open_keys: Callable[[], RawRows], blocks: Blocks, mapping: SourceMapping) -> Blocks:
    repeats = _repeats(open_keys(), mapping)
    for table, broken in blocks:
        numbers = table.column("row_number").to_numpy()
        yield table.filter(pa.array(~_is_in(numbers, repeats))), broken


def _is_in(numbers: Positions, sorted_numbers: Positions) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if not len(sorted_numbers):
        return np.zeros(len(numbers), np.bool_)
    at = np.minimum(np.searchsorted(sorted_numbers, numbers), len(sorted_numbers) - 1)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = sorted_numbers[at] == numbers
    return found


def _repeats(rows: RawRows, mapping: SourceMapping) -> Positions:
    """The numbers of the rows that do not count, in order."""
    if mapping.once is None:
        return np.empty(0, np.int64)
    query = _keys_sql(rows.layout, mapping)
    order = "DESC" if mapping.once.keep == "last" else "ASC"
    with workbench() as bench:
        bench.execute("CREATE TABLE keys (row_number BIGINT, key VARCHAR)")
        for table in _tables(rows.blocks):
            bench.register(BLOCK, table)
            bench.execute(f"INSERT INTO keys {query}")
            bench.unregister(BLOCK)
        found = bench.sql(
            "SELECT row_number FROM (SELECT row_number, row_number() OVER "
            f"(PARTITION BY key ORDER BY row_number {order}) AS place FROM keys) WHERE place > 1 ORDER BY row_number"
        ).to_arrow_table()
    numbers: Positions = found.column(0).to_numpy()
    return numbers


def _tables(blocks: Blocks) -> Iterator[pa.Table]:
    return (table for table, _ in blocks if table.num_rows)


def _keys_sql(layout: Layout, mapping: SourceMapping) -> str:
    places = [place.sql for path in (mapping.once.paths if mapping.once else ()) if (place := layout.place(path))]
    key = f"nullif(concat_ws({_SEPARATOR}, {', '.join(places) or 'NULL'}), '')"
    takes_part = condition_sql(mapping.filter, layout) if mapping.filter else "TRUE"
    return f"SELECT row_number, {key} AS key FROM ({layout.relation}) WHERE {takes_part} AND {key} IS NOT NULL"
