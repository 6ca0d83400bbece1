"""Findings about settled days that a person should know: unpriced, mispriced; and the rows that tell a day.

Reads the view ``usage_events``; judges nothing that would stop a batch.
"""

from __future__ import annotations

from typing import Final

import duckdb

from obs_pipeline.storage.proofs import Proof

_CALLS_A_DAY: Final = 5
# The few highest costs of a day are found first and joined by equality, which lets the engine skip the other rows
# unread: ranking every call would hold all of them.
DEAREST_CALLS: Final = f"""
    WITH highest AS (SELECT DISTINCT dt, unnest(max(cost, {_CALLS_A_DAY})) AS cost FROM usage_events GROUP BY dt)
    SELECT dt, event_time, agent, model, input_tokens, output_tokens, cost, list_cost, price_ratio AS reported_to_list,
        event_id
    FROM usage_events JOIN highest USING (dt, cost) ORDER BY cost DESC, event_id
"""
REJECTIONS: Final = """
    SELECT dt, source, reason, count(*) AS rows, min(detail) AS example
    FROM usage_rejected GROUP BY dt, source, reason ORDER BY rows DESC, reason
"""
DEAREST_HOURS: Final = """
    SELECT dt, hour, agent, sum(calls) AS calls, sum(errors) AS errors, sum(cost) AS cost
    FROM usage_hourly GROUP BY dt, hour, agent ORDER BY cost DESC, hour, agent
"""
DEAREST_AGENTS: Final = """
    SELECT dt, project, agent, sum(calls) AS calls, sum(errors) AS errors, sum(input_tokens) AS input_tokens,
        sum(output_tokens) AS output_tokens, sum(cost) AS cost
    FROM usage_daily GROUP BY dt, project, agent ORDER BY cost DESC, agent
"""


def unpriced(connection: duckdb.DuckDBPyConnection, limit: float) -> Proof:
    """Days on which a larger share of calls than ``limit`` has no price."""
    rows = connection.execute(
        """
        SELECT dt, count(*) FILTER (cost_source = 'unpriced') AS unpriced, count(*) AS calls,
            any_value(model) FILTER (cost_source = 'unpriced') AS for_example
        FROM usage_events GROUP BY dt HAVING unpriced > ? * calls ORDER BY dt
        """,
        [limit],
    )
    return _as_proof(rows)


def mispriced(connection: duckdb.DuckDBPyConnection) -> Proof:
    """Calls whose reported cost contradicts the list price, the dearest first."""
    rows = connection.execute(
        """
        SELECT event_time, agent, model, reported_cost, list_cost, price_ratio, event_id
        FROM usage_events WHERE mispriced ORDER BY abs(reported_cost - list_cost) DESC, event_id
        """
    )
    return _as_proof(rows)


def _as_proof(cursor: duckdb.DuckDBPyConnection) -> Proof:
    names = [column[0] for column in cursor.description or []]
    rows = cursor.fetchall()
    return Proof(len(rows), [dict(zip(names, row, strict=True)) for row in rows[:10]])
