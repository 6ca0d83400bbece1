"""The canonical usage event: one call of one agent to one model, as every source is translated into.

Holds the columns, their Arrow types and their meaning. No reading, no rules, no prices.

Conventions
-----------
- ``event_time`` is UTC, stored without a zone (Arrow ``timestamp[us]``).
- ``input_tokens`` includes cache reads and cache writes; ``output_tokens`` includes reasoning.
  The parts stand beside the whole. A part that a source does not report is null, not zero.
- Money is USD, ``decimal(18, 9)``: exact to the nano-dollar, up to 999,999,999 dollars an event.
- Latency and time to first token are milliseconds.
- An event is identified by ``(source, event_id)``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import pyarrow as pa

MONEY: Final = pa.decimal128(18, 9)
MONEY_SUM: Final = pa.decimal128(38, 9)
NANO_DOLLAR: Final = Decimal("0.000000001")
TIME: Final = pa.timestamp("us")

DIMENSIONS: Final = (
    "org",
    "project",
    "team",
    "agent",
    "provider",
    "model",
    "operation",
)
"""What usage is sliced by. Columns, never partitions."""

TOKEN_COLUMNS: Final = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "saved_tokens",
)

EVENT_TYPES: Final = ("usage", "credit", "correction")
"""Only ``credit`` and ``correction`` may carry a negative cost."""

EVENT_FIELDS: Final = (
    pa.field("source", pa.string(), nullable=False),
    pa.field("event_id", pa.string(), nullable=False),
    pa.field("event_time", TIME, nullable=False),
    pa.field("event_type", pa.string(), nullable=False),
    pa.field("org", pa.string()),
    pa.field("project", pa.string()),
    pa.field("team", pa.string()),
    pa.field("agent", pa.string()),
    pa.field("user_id", pa.string()),
    pa.field("session_id", pa.string()),
    pa.field("provider", pa.string()),
    pa.field("model", pa.string()),
    pa.field("operation", pa.string()),
    pa.field("input_tokens", pa.int64()),
    pa.field("cache_read_tokens", pa.int64()),
    pa.field("cache_write_tokens", pa.int64()),
    pa.field("output_tokens", pa.int64()),
    pa.field("reasoning_tokens", pa.int64()),
    pa.field("saved_tokens", pa.int64()),
    pa.field("reported_cost", MONEY),
    pa.field("latency_ms", pa.float64()),
    pa.field("ttft_ms", pa.float64()),
    pa.field("error_type", pa.string()),
    pa.field("attributes", pa.string()),
)
"""The canonical event, as a source reports it. ``attributes`` is a JSON object as text."""

EVENT_SCHEMA: Final = pa.schema(EVENT_FIELDS)
