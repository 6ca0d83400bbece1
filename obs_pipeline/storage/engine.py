"""The engine: DuckDB connections with limits, and the SQL that ships beside the rooms.

No table names, no rules. A connection is in memory, single-owner and short-lived: the lake is the only state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb


@contextmanager
def connect(
    *, memory_limit: str = "1200MB", threads: int = 2, scratch: Path | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory connection that spills to ``scratch`` and is closed whatever happens."""
    connection = duckdb.connect(":memory:")
    try:
        configure(connection, memory_limit=memory_limit, threads=threads, scratch=scratch)
        yield connection
    finally:
        connection.close()


def configure(connection: duckdb.DuckDBPyConnection, *, memory_limit: str, threads: int, scratch: Path | None) -> None:
    """Bound a connection's memory and threads; row order is not kept, which lets it stream."""
    connection.execute(f"SET memory_limit = '{memory_limit}'")
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
        connection.execute("SET temp_directory = ?", [str(scratch)])


def one_row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The only row of a query, with nothing left to fetch: an unfinished result blocks the connection."""
    (row,) = connection.execute(query).fetchall()
    return tuple(row)


@cache
def load_sql(package: str, name: str) -> str:
    """The text of ``name``.sql in the ``sql`` folder of a room, such as ``load_sql("obs_pipeline.usage", "hourly")``."""
    return (resources.files(package) / "sql" / f"{name}.sql").read_text(encoding="utf-8").strip()
