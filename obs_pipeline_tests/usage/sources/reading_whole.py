"""Reading a small file whole, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from obs_pipeline.usage.sources.mapping import SourceMapping, load_mapping
from obs_pipeline.usage.sources.translate import LANDED_SCHEMA, read_usage

NOW = datetime(2026, 6, 1)
TIME = "2026-05-01T12:00:00Z"
CANONICAL = load_mapping("canonical")


def landed(path: Path, mapping: SourceMapping = CANONICAL, **how: int) -> pa.Table:
    table = pa.Table.from_batches(read_usage(path, mapping, now=NOW, **how), LANDED_SCHEMA)
    table.validate(full=True)
    return table


def rows_of(content: bytes | str, path: Path, mapping: SourceMapping = CANONICAL, **how: int) -> list[dict[str, Any]]:
    """``content`` written to ``path`` and read."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return landed(path, mapping, **how).to_pylist()


def mapping_of(columns: Mapping[str, Any], **settings: Any) -> SourceMapping:
    return SourceMapping.model_validate(
        {"source": "test", "columns": {"event_time": "event_time"} | dict(columns)} | settings
    )


def reasons(rows: list[dict[str, Any]]) -> list[str | None]:
    return [row["reason"] for row in rows]
