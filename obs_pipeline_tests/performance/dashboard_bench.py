"""How quick the dashboard answers: every tool cold and cached over a large made-up lake, then many clients at once.

    python -m obs_pipeline_tests.performance.dashboard_bench --agents 10000 --days 90

Cold is an answer that no cache holds, from a running server; cached is the same asked again. Rows are made straight into the
mart: one an agent and active hour. Everything stays on the loopback address.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from obs_pipeline.clock import utc_now
from obs_pipeline.dashboard.access import LOCAL, Gate, RateLimit, create_token
from obs_pipeline.dashboard.http_app import http_app
from obs_pipeline.dashboard.service import QUESTIONS, Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.storage import engine
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger

LAST = date(2026, 6, 30)
_ROWS = """
    WITH cells AS (
        SELECT CAST($day AS DATE) AS dt, CAST($day AS TIMESTAMP) + INTERVAL 1 HOUR * h AS time, a, h, hash(a * 24 + h) % 1000 AS n
        FROM range($agents) AS agents(a), range(24) AS hours(h)
    ), sums AS (
        SELECT dt, 'hour' AS grain, time, a, 1 + n % 20 AS calls, n FROM cells
        UNION ALL
        SELECT dt, 'day', CAST(dt AS TIMESTAMP), a, sum(1 + n % 20), sum(n) FROM cells GROUP BY dt, a
    )
    SELECT dt, grain, time, 'acme' AS org, 'project-' || a % 100 AS project, 'team-' || a % 20 AS team, 'agent-' || a AS agent,
        'openai' AS provider, 'model-' || a % 7 AS model, CAST(calls AS BIGINT) AS calls, CAST(n % 3 AS BIGINT) AS errors,
        CAST(n * 100 AS BIGINT) AS input_tokens, CAST(n * 10 AS BIGINT) AS output_tokens, CAST(n AS BIGINT) AS cache_read_tokens,
        CAST(n AS BIGINT) AS saved_tokens, CAST(n AS DECIMAL(38, 9)) / 1000 AS cost, CAST(n AS DECIMAL(38, 9)) AS list_cost,
        NULL AS cost_bound, 0 AS unpriced_calls, 0 AS mispriced_calls
    FROM sums
"""


def fill(lake: Lake, agents: int, days: int) -> None:
    """A mart of so many agents and days, every agent active every hour."""
    with engine.connect() as connection:
        for back in reversed(range(days)):
            day = LAST - timedelta(days=back)
            rows = connection.sql(_ROWS, params={"day": day, "agents": agents})
            lake.replace(MART_SPEND, DayRange(day, day), lambda _version, rows=rows: rows)  # type: ignore[misc]


def asked(turn: int, agents: int) -> list[tuple[str, dict[str, Any]]]:
    """Questions that differ from turn to turn, so that none is cached."""
    end, agent = str(LAST - timedelta(days=turn % 20)), f"agent-{turn * 37 % agents}"
    return [
        ("dashboard_get_metrics", {"timeframe": "month", "by": "agent", "end": end}),
        ("dashboard_get_metrics", {"timeframe": "day", "by": "project", "end": end}),
        ("dashboard_get_trends", {"metric": "cost", "granularity": "hour", "timeframe": "month", "end": end}),
        ("dashboard_get_trends", {"metric": "cost", "granularity": "hour", "timeframe": "week", "agentId": agent}),
        ("dashboard_get_anomalies", {"timeframe": "month", "end": end}),
        ("dashboard_export_data", {"timeframe": "day", "end": end}),
        ("list_entities", {"level": "agent", "timeframe": "month", "end": end}),
        ("get_budget_status", {"agentId": agent}),
        ("get_effective_policy", {"agentId": agent}),
        ("list_incidents", {"limit": 1 + turn}),
    ]


def percentile(seconds: list[float], share: float) -> float:
    return round(float(np.quantile(seconds, share)) * 1000, 1)


async def each(service: Service, agents: int, turns: int) -> dict[str, dict[str, float]]:
    """p95 in milliseconds of every kind of question, cold and cached."""
    cold: dict[str, list[float]] = {}
    cached: dict[str, list[float]] = {}
    for turn in range(turns):
        for position, (name, values) in enumerate(asked(turn, agents)):
            key = f"{position}:{name}"
            for kept in (cold, cached):
                start = time.perf_counter()
                await service.ask(QUESTIONS[name], values, LOCAL)
                kept.setdefault(key, []).append(time.perf_counter() - start)
    return {
        key: {
            "cold_p50": percentile(cold[key], 0.5),
            "cold_p95": percentile(cold[key], 0.95),
            "cached_p95": percentile(cached[key], 0.95),
        }
        for key in cold
    }


async def sustained(base: str, token: str, seconds: float, clients: int, per_second: int) -> dict[str, float]:
    """So many clients asking at a steady pace together: latency from when a request was due, and errors."""
    import httpx2

    took: list[float] = []
    failed = 0
    begin = time.perf_counter()

    async def client(number: int) -> None:
        nonlocal failed
        async with httpx2.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
            for turn in range(int(seconds * per_second / clients)):
                due = begin + (turn * clients + number) / per_second
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                name, values = asked(turn % 5, 1000)[(turn + number) % 10]
                answered = await http.post(f"/api/{name}", json=values)
                failed += answered.status_code != 200
                took.append(time.perf_counter() - due)

    await asyncio.gather(*(client(number) for number in range(clients)))
    whole = time.perf_counter() - begin
    return {
        "requests": len(took), "per_second": round(len(took) / whole), "errors": failed,
        "p50": percentile(took, 0.5), "p95": percentile(took, 0.95), "p99": percentile(took, 0.99),
    }  # fmt: skip


def main() -> None:
    from obs_pipeline_tests.dashboard.served import running

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--agents", type=int, default=10_000)
    options.add_argument("--days", type=int, default=90)
    options.add_argument("--turns", type=int, default=20)
    options.add_argument("--seconds", type=float, default=10)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lake, ledger = Lake(f"{folder}/lake"), Ledger(f"sqlite:///{folder}/ledger.db")
        start = time.perf_counter()
        fill(lake, chosen.agents, chosen.days)
        made = time.perf_counter()
        service = Service(
            Snapshot(lake, scratch=Path(folder) / "scratch", look_again=0.1), ledger, lateness=timedelta(hours=24)
        )
        service.ready()
        loaded = time.perf_counter()
        told: dict[str, Any] = {"made_s": round(made - start, 1), "first_copy_s": round(loaded - made, 1)}
        told["tools_ms"] = asyncio.run(each(service, chosen.agents, chosen.turns))
        store = AccessStore(ledger)
        token, _row = create_token(store, utc_now(), name="bench", role="admin")
        service = Service(service.snapshot, ledger, lateness=timedelta(hours=24), look_again=0.1)
        app = http_app(service, Gate(store), clock=utc_now, limit=RateLimit(10**7, 10**7))
        with running(app) as base:
            told["sustained_ms"] = asyncio.run(sustained(base, token, chosen.seconds, clients=20, per_second=200))
        print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
