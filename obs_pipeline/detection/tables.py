"""The lake tables of the detection room."""

from __future__ import annotations

from typing import Final

from obs_pipeline.detection.models import ANOMALY_SCHEMA, BASELINE_SCHEMA
from obs_pipeline.storage.lake import LakeTable

BASELINES: Final = LakeTable(
    "baselines",
    BASELINE_SCHEMA,
    ("grain", "time", "org", "project", "agent", "metric"),
    "What each agent's cost, tokens, error rate and latency was expected to be, hour by hour and day by day, with the "
    "band of the ordinary; from the days before alone.",
)

ANOMALIES: Final = LakeTable(
    "anomalies",
    ANOMALY_SCHEMA,
    ("id",),
    "Values outside their band that matter, with severity, score, confidence and the reason in a sentence.",
)
