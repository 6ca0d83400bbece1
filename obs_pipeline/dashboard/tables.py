"""The marts: what the dashboard, the tools and people read. Columns, keys, meaning; their SQL stands beside them."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from obs_pipeline.storage.lake import LakeTable
from obs_pipeline.usage.event import MONEY_SUM, TIME
from obs_pipeline.usage.tables import DT

_SPEND_DIMENSIONS: Final = ("org", "project", "team", "agent", "provider", "model")

MART_SPEND: Final = LakeTable(
    "mart_spend",
    pa.schema(
        [
            DT,
            pa.field("grain", pa.string(), nullable=False),
            pa.field("time", TIME, nullable=False),
            *(pa.field(column, pa.string()) for column in _SPEND_DIMENSIONS),
            pa.field("calls", pa.int64(), nullable=False),
            pa.field("errors", pa.int64(), nullable=False),
            pa.field("input_tokens", pa.int64()),
            pa.field("output_tokens", pa.int64()),
            pa.field("cache_read_tokens", pa.int64()),
            pa.field("saved_tokens", pa.int64()),
            pa.field("cost", MONEY_SUM, nullable=False),
            pa.field("list_cost", MONEY_SUM),
            pa.field("cost_bound", MONEY_SUM),
            pa.field("unpriced_calls", pa.int64(), nullable=False),
            pa.field("mispriced_calls", pa.int64(), nullable=False),
        ]
    ),
    ("grain", "time", *_SPEND_DIMENSIONS),
    "Spend, tokens and calls per hour and per day by org, project, team, agent and model. Each grain adds up to the total.",
    group_rows=8_192,
)

MART_LEADERBOARD: Final = LakeTable(
    "mart_leaderboard",
    pa.schema(
        [
            DT,
            pa.field("org", pa.string()),
            pa.field("project", pa.string()),
            pa.field("agent", pa.string()),
            pa.field("calls", pa.int64(), nullable=False),
            pa.field("cost", MONEY_SUM, nullable=False),
            pa.field("cost_week_before", MONEY_SUM, nullable=False),
            pa.field("cost_change", MONEY_SUM, nullable=False),
            pa.field("place", pa.int64(), nullable=False),
        ]
    ),
    ("dt", "org", "project", "agent"),
    "Top movers: each agent's cost of the day against its daily mean of the seven days before, the largest change first.",
)

MART_DATA_QUALITY: Final = LakeTable(
    "mart_data_quality",
    pa.schema(
        [
            DT,
            pa.field("source", pa.string(), nullable=False),
            pa.field("finding", pa.string(), nullable=False),
            pa.field("rows", pa.int64(), nullable=False),
            pa.field("cost", MONEY_SUM),
            pa.field("list_cost", MONEY_SUM),
            pa.field("worst_ratio", pa.float64()),
            pa.field("example", pa.string()),
        ]
    ),
    ("dt", "source", "finding"),
    "What became of the rows of each day and source: accepted, duplicate, rejected with its reason, unpriced,"
    " mispriced, reported by two sources.",
)
