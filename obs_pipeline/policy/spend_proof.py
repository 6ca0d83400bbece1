"""A second opinion on what budgets have spent: the same sums, made another way. Finds rows, decides nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import duckdb

from obs_pipeline.policy.tables import BUDGET_STATUS
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.proofs import Proof
from obs_pipeline.usage.tables import USAGE_HOURLY

_SHOWN: Final = 10
_LONGEST_WINDOW_DAYS: Final = 32

_DIFFERING: Final = """
    WITH spent AS (
        SELECT CASE WHEN grouping(agent) = 0 THEN 'agent' WHEN grouping(project) = 0 THEN 'project' ELSE 'org' END AS scope,
            org, coalesce(project, '') AS project, coalesce(agent, '') AS agent, hour, sum(cost) AS cost,
            CAST(sum(calls) AS DECIMAL(38, 9)) AS calls,
            CAST(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) AS DECIMAL(38, 9)) AS tokens
        FROM usage_hourly WHERE org IS NOT NULL
        GROUP BY GROUPING SETS ((org, hour), (org, project, hour), (org, project, agent, hour))
    ),
    stood AS (
        SELECT * REPLACE (coalesce(project, '') AS project, coalesce(agent, '') AS agent)
        FROM budget_status WHERE spent IS NOT NULL AND minute(window_start) = 0
    ),
    used AS (
        SELECT stood.dt, scope, org, project, agent, stood.kind, stood.period,
            coalesce(sum(CASE stood.kind WHEN 'cost' THEN spent.cost WHEN 'calls' THEN calls ELSE tokens END), 0) AS used
        FROM stood LEFT JOIN spent USING (scope, org, project, agent)
        WHERE spent.hour IS NULL OR spent.hour >= stood.window_start AND spent.hour < least(window_end, judged_at)
        GROUP BY ALL
    )
    SELECT stood.dt, scope, org, project, agent, kind, period, stood.spent, coalesce(used.used, 0) AS used
    FROM stood LEFT JOIN used USING (dt, scope, org, project, agent, kind, period)
    WHERE stood.currency IN ('', 'USD') AND coalesce(used.used, 0) <> stood.spent
    ORDER BY ALL
"""


def spend_is_the_sum_of_usage(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Proof:
    """Every budget's spend is the sum of the hourly rows of its window, exactly.

    Windows of zones at half hours begin within an hour and are left out: hourly rows do not add up to them.
    """
    lake.view(connection, BUDGET_STATUS, days)
    lake.view(connection, USAGE_HOURLY, DayRange(days.first - timedelta(days=_LONGEST_WINDOW_DAYS), days.last))
    found = connection.execute(_DIFFERING)
    names = [column[0] for column in found.description or []]
    rows = found.fetchall()
    return Proof(len(rows), [dict(zip(names, row, strict=True)) for row in rows[:_SHOWN]])
