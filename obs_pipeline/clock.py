"""The clock, read at the edges (``defs`` and ``cli``) and passed inwards. The rooms never import this."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Now, as the lake stores times: UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
