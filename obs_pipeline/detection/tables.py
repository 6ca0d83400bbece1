"""The lake tables of the detection room."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from obs_pipeline.detection.models import ANOMALY_SCHEMA, BASELINE_SCHEMA, TIME
from obs_pipeline.storage.lake import LakeTable
from obs_pipeline.usage.event import MONEY_SUM
from obs_pipeline.usage.tables import DT

BASELINES: Final = LakeTable(
    "baselines",
    BASELINE_SCHEMA,
    ("grain", "time", "org", "project", "agent", "metric"),
    "What each agent's cost, tokens, error rate and latency was expected to be, hour by hour and day by day, with the "
    "band of the ordinary; from the days before alone.",
    group_rows=65_536,
)

ANOMALIES: Final = LakeTable(
    "anomalies",
    ANOMALY_SCHEMA,
    ("id",),
    "Values outside their band that matter, with severity, score, confidence and the reason in a sentence.",
)

FORECASTS: Final = LakeTable(
    "forecasts",
    pa.schema(
        [
            DT,
            pa.field("as_of", TIME, nullable=False),
            pa.field("scope", pa.string(), nullable=False),
            pa.field("org", pa.string()),
            pa.field("project", pa.string()),
            pa.field("agent", pa.string()),
            pa.field("period", pa.string(), nullable=False),
            pa.field("window_start", TIME, nullable=False),
            pa.field("window_end", TIME, nullable=False),
            pa.field("spent", MONEY_SUM, nullable=False),
            pa.field("unpriced_calls", pa.int64(), nullable=False),
            pa.field("state", pa.string(), nullable=False),
            pa.field("history_days", pa.int32(), nullable=False),
            pa.field("forecast", pa.float64()),
            pa.field("lower", pa.float64()),
            pa.field("upper", pa.float64()),
            pa.field("limit_amount", MONEY_SUM),
            pa.field("budget", pa.string()),
            pa.field("exhausted_at", TIME),
            pa.field("exhausted_earliest", TIME),
            pa.field("files", pa.string()),
        ]
    ),
    ("dt", "scope", "org", "project", "agent", "period"),
    "What every organisation, project and agent will have spent (USD) by the end of the day, week and month that follow "
    "each day, with an 80 % interval, or why that cannot be said; and when its budget is used up at that pace.",
)
