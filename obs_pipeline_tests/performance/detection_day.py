"""How fast one day of a large fleet is judged: ``python -m obs_pipeline_tests.performance.detection_day [--agents N]``.

Four metrics of every agent, hour by hour and as a day, against the 28 days of hours before; read from a lake that is made
up for it, in a process of its own. Called by ``bench``, which prints it; nothing is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_daily
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_HOURLY
from obs_pipeline_tests.performance.bench import environment_of, measured, obs

AGENTS: Final = 10_000
LAST: Final = date(2026, 3, 1)
DAYS: Final = DayRange(LAST - timedelta(days=28), LAST)
METRICS: Final = 4

# Every agent has calls in every hour, with a rhythm of the day and some noise; latency lies in three buckets.
_HOURS: Final = """
    WITH drawn AS (
        SELECT
            CAST('{first}' AS TIMESTAMP) + to_hours(CAST(h AS INTEGER)) AS hour, a AS number,
            20 + CAST(15 * sin(h * pi() / 12) + hash(a * 1000 + h) % 20 AS BIGINT) AS calls, hash(a + h * 77777) AS noise
        FROM range({hours}) AS of_hours(h), range({agents}) AS of_agents(a)
    )
    SELECT
        CAST(hour AS DATE) AS dt, hour, 'gateway' AS source, 'acme' AS org, 'project-' || number % 200 AS project,
        CAST(NULL AS VARCHAR) AS team, 'agent-' || number AS agent, 'openai' AS provider, 'gpt-4o' AS model,
        'chat' AS operation, calls, CAST(noise % 3 AS BIGINT) AS errors, calls * 1000 AS input_tokens,
        CAST(0 AS BIGINT) AS cache_read_tokens, CAST(0 AS BIGINT) AS cache_write_tokens, calls * 200 AS output_tokens,
        CAST(0 AS BIGINT) AS reasoning_tokens, CAST(0 AS BIGINT) AS saved_tokens,
        CAST(calls * 0.0045 AS DECIMAL(38, 9)) AS cost, CAST(calls * 0.0045 AS DECIMAL(38, 9)) AS list_cost,
        CAST(0 AS DECIMAL(38, 9)) AS cost_bound, CAST(0 AS BIGINT) AS unpriced_calls,
        CAST(0 AS BIGINT) AS mispriced_calls, calls AS latency_calls,
        [66 * 4294967296 + calls - 8, 68 * 4294967296 + 5, (72 + noise % 3) * 4294967296 + 3]::BIGINT[] AS latency_histogram
    FROM drawn
"""


def detection_of_one_day(home: Path, agents: int = AGENTS) -> dict[str, Any]:
    """What judging the last day takes, and how many values that is; the history is written first and not counted."""
    environment = environment_of(home)
    write_history(home, agents)
    day = LAST.isoformat()
    stage = measured(
        f"detection of one day, {agents:,} agents × {METRICS} metrics × 28 days of hours",
        obs("backtest", "--from", day, "--to", day, "--json"),
        environment,
    )
    return {"agents": agents, "values_looked_at": agents * METRICS * len(DAYS) * 25, "stage": asdict(stage)}


def write_history(home: Path, agents: int, days: DayRange = DAYS) -> None:
    """A lake of hours and days without events: every agent is used in every hour."""
    lake = Lake(str(home / "lake"))
    with connect() as connection:
        query = _HOURS.format(first=days.first, hours=len(days) * 24, agents=agents)
        columns = ", ".join(USAGE_HOURLY.schema.names)
        rows = f"SELECT {columns} FROM ({query})"
        lake.replace(USAGE_HOURLY, days, lambda _version: connection.sql(rows).to_arrow_reader(65_536))
        for one in days.days():
            build_daily(connection, lake, DayRange(one, one))
    lake.replace(USAGE_EVENTS, days, lambda _version: USAGE_EVENTS.schema.empty_table())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--agents", type=int, default=AGENTS)
    with tempfile.TemporaryDirectory(prefix="obs-bench-") as folder:
        print(detection_of_one_day(Path(folder), asked.parse_args().agents))


if __name__ == "__main__":
    main()
