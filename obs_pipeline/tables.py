"""Every lake table, in flow order: the one list for what walks over all of them."""

from __future__ import annotations

from typing import Final

from obs_pipeline.dashboard.tables import MART_DATA_QUALITY, MART_LEADERBOARD, MART_SPEND
from obs_pipeline.detection.tables import ANOMALIES, BASELINES, FORECASTS
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES
from obs_pipeline.storage.lake import LakeTable
from obs_pipeline.usage.tables import (
    BILLED_BUCKETS,
    RECONCILIATION,
    USAGE_DAILY,
    USAGE_DUPLICATES,
    USAGE_EVENTS,
    USAGE_HOURLY,
    USAGE_REJECTED,
    USAGE_TWINS,
)

ALL_TABLES: Final[tuple[LakeTable, ...]] = (
    USAGE_EVENTS,
    USAGE_REJECTED,
    USAGE_DUPLICATES,
    USAGE_TWINS,
    USAGE_HOURLY,
    USAGE_DAILY,
    BASELINES,
    ANOMALIES,
    EFFECTIVE_POLICIES,
    BUDGET_STATUS,
    FORECASTS,
    MART_SPEND,
    MART_LEADERBOARD,
    MART_DATA_QUALITY,
    BILLED_BUCKETS,
    RECONCILIATION,
)
