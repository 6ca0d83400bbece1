"""How the engine reads a lake that is kept in an object store.

Holds which stores there are and the file system handed to the engine. No tables, no credentials: these, the region and
the endpoint are the usual ``AWS_…`` variables, which both Arrow, who reads, and Delta, who writes, heed by themselves.

Arrow's file system is used because it is there already: DuckDB's own extension for object stores would have to be
downloaded when it is first needed, which a closed network does not allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb
    from pyarrow.fs import FileSystem

SCHEMES: Final = ("s3",)


def scheme_of(uri: str) -> str | None:
    """``s3`` of ``s3://bucket/lake``; None for a folder."""
    scheme, separator, _ = uri.partition("://")
    return scheme if separator else None


def let_read(connection: duckdb.DuckDBPyConnection, uri: str) -> None:
    """See to it that a connection can read files under ``uri``; nothing needs to be done for a folder."""
    if scheme_of(uri) is None or scheme_of(uri) in connection.list_filesystems():
        return
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    store, _ = FileSystem.from_uri(uri)
    connection.register_filesystem(ArrowFSWrapper(store))


def store_of(uri: str) -> FileSystem:
    """The store that ``uri`` lies in. Making one costs more than asking it: keep it."""
    from pyarrow.fs import FileSystem

    store, _ = FileSystem.from_uri(uri)
    return store


def tag_of(store: FileSystem, uri: str) -> str | None:
    """What tells an object from any other that was ever kept under its name; None where there is none.

    Raises:
        OSError: the store cannot be asked.
    """
    try:
        with store.open_input_file(uri.partition("://")[2]) as found:
            return str(sorted(found.metadata().items()))
    except FileNotFoundError:
        return None
