"""The lake tables of the usage room: columns, keys, meaning.

Only shapes. What fills them is SQL beside this module; how they are stored is the lake's affair.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from obs_pipeline.storage.lake import LakeTable
from obs_pipeline.usage.event import DIMENSIONS, EVENT_FIELDS, MONEY, MONEY_SUM, TIME, TOKEN_COLUMNS

DT: Final = pa.field("dt", pa.date32(), nullable=False)
_ORIGIN: Final = (
    pa.field("file_id", pa.string(), nullable=False),
    pa.field("row_number", pa.int64(), nullable=False),
)

PRICED_FIELDS: Final = (
    pa.field("list_cost", MONEY),
    pa.field("cost", MONEY),
    pa.field("cost_bound", MONEY),
    pa.field("cost_source", pa.string(), nullable=False),
    pa.field("price_ratio", pa.float64()),
    pa.field("mispriced", pa.bool_(), nullable=False),
    pa.field("price_version", pa.string()),
)
"""What pricing adds to an event. ``cost`` is the reported cost where there is one, else the list cost, else null."""

USAGE_EVENTS: Final = LakeTable(
    "usage_events",
    pa.schema([DT, *EVENT_FIELDS, *PRICED_FIELDS, *_ORIGIN]),
    ("dt", "source", "event_id"),
    "One row a call, as its source reported it, with its price. Each (source, event id) once within two days.",
)

USAGE_REJECTED: Final = LakeTable(
    "usage_rejected",
    pa.schema(
        [
            DT,
            pa.field("source", pa.string(), nullable=False),
            pa.field("event_id", pa.string()),
            pa.field("event_time", TIME),
            pa.field("reason", pa.string(), nullable=False),
            pa.field("detail", pa.string()),
            pa.field("raw", pa.string()),
            *_ORIGIN,
        ]
    ),
    ("file_id", "row_number"),
    "Quarantine: rows that could not be used, each with its reason and the row as it came; of a row that was good until "
    "another had its id, or was the same call, the fields that were read from it. A row without a usable time stands "
    "under the first good day of its file.",
)

USAGE_DUPLICATES: Final = LakeTable(
    "usage_duplicates",
    pa.schema(
        [
            DT,
            pa.field("source", pa.string(), nullable=False),
            pa.field("event_id", pa.string(), nullable=False),
            *_ORIGIN,
        ]
    ),
    ("file_id", "row_number"),
    "Rows dropped because the same event, with the same content, was taken in already.",
)

USAGE_TWINS: Final = LakeTable(
    "usage_twins",
    pa.schema(
        [
            DT,
            pa.field("kind", pa.string(), nullable=False),
            pa.field("org", pa.string()),
            pa.field("source", pa.string(), nullable=False),
            pa.field("event_id", pa.string(), nullable=False),
            pa.field("counted_source", pa.string(), nullable=False),
            pa.field("counted_event_id", pa.string(), nullable=False),
            pa.field("event_time", TIME, nullable=False),
            pa.field("model", pa.string()),
            pa.field("agent", pa.string()),
            pa.field("input_tokens", pa.int64()),
            pa.field("output_tokens", pa.int64()),
            pa.field("cost", MONEY),
            pa.field("counted_cost", MONEY),
        ]
    ),
    ("dt", "source", "event_id"),
    "Calls that two sources reported. A same call (by the provider's response id) is counted once, as the counted event; "
    "a near twin (same model, agent and tokens within seconds) is counted twice. The cost is what was, or may be, too much.",
)

BILLED_BUCKETS: Final = LakeTable(
    "billed_buckets",
    pa.schema(
        [
            DT,
            pa.field("bill", pa.string(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),
            pa.field("provider", pa.string(), nullable=False),
            pa.field("org", pa.string()),
            pa.field("project", pa.string()),
            pa.field("model", pa.string()),
            pa.field("meter", pa.string()),
            pa.field("item", pa.string(), nullable=False),
            pa.field("requests", pa.int64()),
            pa.field("input_tokens", pa.int64()),
            pa.field("cache_read_tokens", pa.int64()),
            pa.field("cache_write_tokens", pa.int64()),
            pa.field("output_tokens", pa.int64()),
            pa.field("amount", MONEY_SUM),
            pa.field("currency", pa.string()),
            pa.field("cost", MONEY_SUM),
        ]
    ),
    ("dt", "bill", "kind", "provider", "org", "project", "model", "meter", "item", "currency"),
    "What sellers bill, as buckets of a UTC day and never as calls: what was charged (kind cost) and what was used (kind "
    "usage), by project, model and item. A day that a bill speaks of and charges nothing for has one line that says so.",
)

RECONCILIATION: Final = LakeTable(
    "reconciliation",
    pa.schema(
        [
            DT,
            pa.field("org", pa.string()),
            pa.field("provider", pa.string(), nullable=False),
            pa.field("project", pa.string()),
            pa.field("model", pa.string()),
            pa.field("provisional", pa.bool_(), nullable=False),
            pa.field("calls", pa.int64(), nullable=False),
            pa.field("captured_tokens", pa.int64(), nullable=False),
            pa.field("billed_tokens", pa.int64()),
            pa.field("captured", MONEY_SUM, nullable=False),
            pa.field("billed", MONEY_SUM, nullable=False),
            pa.field("gap", MONEY_SUM, nullable=False),
            pa.field("missing", MONEY_SUM, nullable=False),
            pa.field("surplus", MONEY_SUM, nullable=False),
            pa.field("late", MONEY_SUM, nullable=False),
            pa.field("unpriced", MONEY_SUM, nullable=False),
            pa.field("mispriced", MONEY_SUM, nullable=False),
            pa.field("unexplained", MONEY_SUM, nullable=False),
        ]
    ),
    ("dt", "org", "provider", "project", "model"),
    "Captured against billed, for the days that a bill speaks of. The gap is what was billed less what was captured, and is "
    "exactly the sum of its terms: missing, surplus, late, unpriced, mispriced, unexplained.",
)

_SUMS: Final = (
    pa.field("calls", pa.int64(), nullable=False),
    pa.field("errors", pa.int64(), nullable=False),
    *(pa.field(column, pa.int64()) for column in TOKEN_COLUMNS),
    pa.field("cost", MONEY_SUM, nullable=False),
    pa.field("list_cost", MONEY_SUM),
    pa.field("cost_bound", MONEY_SUM),
    pa.field("unpriced_calls", pa.int64(), nullable=False),
    pa.field("mispriced_calls", pa.int64(), nullable=False),
)
_LATENCY: Final = (
    pa.field("latency_calls", pa.int64(), nullable=False),
    pa.field("latency_histogram", pa.list_(pa.int64())),
)
_DIMENSIONS: Final = tuple(pa.field(column, pa.string()) for column in DIMENSIONS)

USAGE_HOURLY: Final = LakeTable(
    "usage_hourly",
    pa.schema(
        [
            DT,
            pa.field("hour", TIME, nullable=False),
            pa.field("source", pa.string(), nullable=False),
            *_DIMENSIONS,
            *_SUMS,
            *_LATENCY,
        ]
    ),
    ("hour", "source", *DIMENSIONS),
    "Exact sums per hour, source and dimension; latency as a mergeable histogram.",
)

USAGE_DAILY: Final = LakeTable(
    "usage_daily",
    pa.schema([DT, pa.field("source", pa.string(), nullable=False), *_DIMENSIONS, *_SUMS, *_LATENCY]),
    ("dt", "source", *DIMENSIONS),
    "The hourly table summed to UTC days.",
)
