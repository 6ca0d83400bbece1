"""What every reader of a file hands on: blocks of raw rows and the layout that says what is where in them.

Here: the shape only. Who makes the blocks is chosen in ``reading``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from obs_pipeline.usage.sources.layout import Layout
from obs_pipeline.usage.sources.records import BrokenRow

Blocks = Iterator[tuple[pa.Table, tuple[BrokenRow, ...]]]


@dataclass(frozen=True)
class RawRows:
    """The rows of one file. Each block comes with the rows that could not become part of it."""

    layout: Layout
    blocks: Blocks
