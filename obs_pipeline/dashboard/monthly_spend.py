"""What each team and project spent in a month, read from the hourly table. No rules, no money moved."""

from __future__ import annotations

from typing import Final

import duckdb

from obs_pipeline.dashboard.chargeback import Spend
from obs_pipeline.dashboard.focus import Month
from obs_pipeline.storage.lake import Lake
from obs_pipeline.usage.tables import USAGE_HOURLY

_SPEND: Final = """
    SELECT team, project, CAST(sum(cost) AS DECIMAL(38, 9)) AS cost, CAST(sum(calls) AS BIGINT) AS calls
    FROM usage_hourly WHERE $org IS NULL OR org = $org
    GROUP BY team, project ORDER BY team, project
"""


def spend_by_team_and_project(
    connection: duckdb.DuckDBPyConnection, lake: Lake, month: Month, *, org: str | None = None
) -> list[Spend]:
    """The spend of a month (UTC), of one organisation or of all, each team and project once."""
    lake.view(connection, USAGE_HOURLY, month.days)
    return [Spend(*row) for row in connection.execute(_SPEND, {"org": org}).fetchall()]
