"""How policy files are read: as every file of the policies folder is, by ``obs_pipeline.yaml_positions``.

Holds names only, so that this room has one place to import its reader from.
"""

from __future__ import annotations

from obs_pipeline.yaml_positions import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    SUFFIXES,
    Document,
    FieldPath,
    parse_documents,
    read_documents,
)

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "SUFFIXES",
    "Document",
    "FieldPath",
    "parse_documents",
    "read_documents",
]
