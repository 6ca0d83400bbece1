"""What the lake knows of spending, in the shape that budgets are compared with. Reads only; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import duckdb
import pyarrow as pa

from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.status import places_of
from obs_pipeline.policy.windows import Window, hour_of
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.event import TIME
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_HOURLY

_IS_WITHIN: Final = "hour >= CAST($first AS TIMESTAMP) AND hour < CAST($until AS TIMESTAMP)"
_SPEND: Final = """
    SELECT org, project, agent, hour, sum(cost) AS cost, sum(cost_bound) AS cost_bound,
        CAST(coalesce(sum(input_tokens), 0) + coalesce(sum(output_tokens), 0) AS BIGINT) AS tokens,
        CAST(sum(calls) AS BIGINT) AS calls, CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls
"""
_WHOLE_SPEND: Final = f"""
    {_SPEND} FROM usage_hourly WHERE {_IS_WITHIN} AND hour NOT IN (SELECT hour FROM split_hours) GROUP BY ALL
"""
_SPLIT_SPEND: Final = f"""
    {_SPEND} FROM (
        SELECT org, project, agent, time_bucket(INTERVAL 15 MINUTES, event_time) AS hour, cost, cost_bound,
            input_tokens, output_tokens, CAST(event_type = 'usage' AS BIGINT) AS calls,
            CAST(cost_source = 'unpriced' AS BIGINT) AS unpriced_calls
        FROM usage_events WHERE date_trunc('hour', event_time) IN (SELECT hour FROM split_hours)
    ) WHERE {_IS_WITHIN} GROUP BY ALL
"""


def used_places(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange | None = None) -> tuple[Place, ...]:
    """Every organisation, project and agent with usage on the days."""
    lake.view(connection, USAGE_HOURLY, days)
    return places_of(connection.execute("SELECT DISTINCT org, project, agent FROM usage_hourly").fetchall())


def spend_between(
    connection: duckdb.DuckDBPyConnection, lake: Lake, span: Window, split: Sequence[datetime] = ()
) -> pa.Table:
    """Usage of a span as ``SPEND_SCHEMA`` says, summed by hour; the hours of ``split`` by quarter hour.

    Windows of zones at half and quarter hours begin within those. The span is widened to whole hours at its start.
    """
    lake.view(connection, USAGE_HOURLY, DayRange(span.start.date(), span.end.date()))
    connection.register("split_hours", pa.table({"hour": pa.array(split, TIME)}))
    bounds = {"first": hour_of(span.start), "until": span.end}
    hourly = connection.sql(_WHOLE_SPEND, params=bounds).to_arrow_table()
    if not split:
        return hourly
    lake.view(connection, USAGE_EVENTS, DayRange(min(split).date(), max(split).date()))
    return pa.concat_tables([hourly, connection.sql(_SPLIT_SPEND, params=bounds).to_arrow_table()])
