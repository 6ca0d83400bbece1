"""A small database on disk for what has to be known about a whole file before its first row can be judged.

Here: opening one with bounded memory, and throwing it away. What is put on it is for ``once`` and ``otlp`` to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import duckdb

MEMORY: Final = "256MB"
THREADS: Final = 2


@contextmanager
def workbench() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own in the temporary folder, gone afterwards. It holds ``MEMORY``, and the rest is on disk."""
    with TemporaryDirectory(prefix="obs-workbench-") as folder:
        settings = {"threads": THREADS, "memory_limit": MEMORY, "temp_directory": folder}
        connection = duckdb.connect(str(Path(folder) / "rows.db"), config=settings)
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()
