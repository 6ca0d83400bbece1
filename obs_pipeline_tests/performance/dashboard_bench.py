"""How quick the dashboard answers: every tool cold and cached over a large made-up lake, then many clients while a batch writes.

    python -m obs_pipeline_tests.performance.dashboard_bench --agents 10000 --days 90

Cold is an answer that no cache holds, from a running server; cached is the same asked again. Rows are made straight into the
tables: one an agent and active hour, and as many for its baselines. The server, the writer and the clients are processes of
their own on the loopback address; other work on the machine shows in the seconds, less in the processor's. Nothing is
asserted: the numbers are printed and written to ``bench-results/dashboard.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from obs_pipeline.alerting import records
from obs_pipeline.clock import utc_now
from obs_pipeline.dashboard.access import LOCAL, Gate, RateLimit, create_token
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES
from obs_pipeline.storage import engine
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import TraceRow
from obs_pipeline.storage.lake import DayRange, Lake, LakeTable
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.cases import incident

LAST: Final = date(2026, 6, 30)
LATENESS: Final = timedelta(hours=24)
BASELINE_DAYS: Final = 30
INCIDENTS: Final = 5_000
RESULT: Final = Path(__file__).resolve().parents[2] / "bench-results" / "dashboard.json"

_PLACE: Final = "'acme' AS org, 'project-' || a % 100 AS project, 'agent-' || a AS agent"
_SPEND: Final = f"""
    WITH cells AS (
        SELECT CAST($day AS DATE) AS dt, CAST($day AS TIMESTAMP) + INTERVAL 1 HOUR * h AS time, a, h, hash(a * 24 + h) % 1000 AS n
        FROM range($agents) AS agents(a), range(24) AS hours(h)
    ), sums AS (
        SELECT dt, 'hour' AS grain, time, a, 1 + n % 20 AS calls, n FROM cells
        UNION ALL
        SELECT dt, 'day', CAST(dt AS TIMESTAMP), a, sum(1 + n % 20), sum(n) FROM cells GROUP BY dt, a
    )
    SELECT dt, grain, time, {_PLACE}, 'team-' || a % 20 AS team,
        'openai' AS provider, 'model-' || a % 7 AS model, CAST(calls AS BIGINT) AS calls, CAST(n % 3 AS BIGINT) AS errors,
        CAST(n * 100 AS BIGINT) AS input_tokens, CAST(n * 10 AS BIGINT) AS output_tokens, CAST(n AS BIGINT) AS cache_read_tokens,
        CAST(n AS BIGINT) AS saved_tokens, CAST(n AS DECIMAL(38, 9)) / 1000 AS cost, CAST(n AS DECIMAL(38, 9)) AS list_cost,
        NULL AS cost_bound, 0 AS unpriced_calls, 0 AS mispriced_calls
    FROM sums ORDER BY grain, agent, time
"""
_BASELINES: Final = f"""
    SELECT CAST($day AS DATE) AS dt, CASE WHEN h < 24 THEN 'hour' ELSE 'day' END AS grain,
        CAST($day AS TIMESTAMP) + INTERVAL 1 HOUR * (h % 24) AS time, {_PLACE}, metric, hash(a * 24 + h) % 1000 AS observed,
        500 AS expected, 100 AS lower, 900 AS upper, 0.5 AS deviation, 28 AS points, 'ok' AS state
    FROM range($agents) AS agents(a), range(25) AS hours(h),
        (VALUES ('cost'), ('tokens'), ('errors'), ('latency')) AS metrics(metric)
    ORDER BY project, agent, metric, grain, time
"""
_ANOMALIES: Final = f"""
    SELECT CAST($day AS DATE) AS dt, 'an-' || substr(md5($day || a), 1, 16) AS id, CAST($day AS TIMESTAMP) AS timestamp,
        {_PLACE}, 'cost' AS metric, 'day' AS grain, 'warning' AS severity, a % 100 AS score, 0.9 AS confidence, 1 AS baseline,
        9 AS observed, 4 AS deviation, 0 AS lower, 2 AS upper, 'zscore' AS method, 'It cost nine times what is usual.' AS reason,
        '{{}}' AS context
    FROM range($agents // 100) AS agents(a)
"""
_BUDGETS: Final = f"""
    SELECT CAST($day AS DATE) AS dt, CAST($day AS TIMESTAMP) AS judged_at, 'agent' AS scope, {_PLACE}, 'cost' AS kind, period,
        'USD' AS currency, CAST($day AS TIMESTAMP) AS window_start, CAST($day AS TIMESTAMP) + INTERVAL 1 DAY AS window_end,
        10 AS limit_amount, a % 12 AS spent, a % 12 AS spent_upper, a % 12 / 10 AS ratio, a % 12 / 10 AS ratio_upper,
        CASE WHEN a % 12 > 10 THEN 'exceeded' ELSE 'ok' END AS state, 'org' AS set_at, 'org.yaml' AS files, 'slack' AS channels,
        'agent-' || a || period AS window_key
    FROM range($agents) AS agents(a), (VALUES ('daily'), ('monthly')) AS periods(period)
"""
_POLICIES: Final = f"""
    SELECT CAST($day AS DATE) AS dt, 'agent' AS scope, {_PLACE}, 'limit ' || f AS field, 'budgets' AS field_group, 'cost' AS name,
        'daily' AS period, 'USD' AS currency, '10' AS value, 10 AS amount, 'guard' AS decided_by, 'org.yaml' AS files,
        'org' AS set_at, '[]' AS trail, 0 AS conflicts
    FROM range($agents) AS agents(a), range(4) AS limits(f)
"""

console = Console(highlight=False)


def fill(lake: Lake, agents: int, days: int) -> None:
    """Marts of so many agents and days, every agent active every hour; baselines of the last 30, all else of every day."""
    for table, query, length in (
        (MART_SPEND, _SPEND, days),
        (ANOMALIES, _ANOMALIES, days),
        (BASELINES, _BASELINES, min(days, BASELINE_DAYS)),
        (BUDGET_STATUS, _BUDGETS, 2),
        (EFFECTIVE_POLICIES, _POLICIES, 2),
    ):
        for back in reversed(range(length)):
            write(lake, table, query, LAST - timedelta(days=back), agents)


def write(lake: Lake, table: LakeTable, query: str, day: date, agents: int) -> None:
    """Compute one day of one table as a batch does."""
    with engine.connect() as connection:
        values = {"day": day, "agents": agents}
        rows = connection.sql(query, params={name: values[name] for name in values if f"${name}" in query})
        found = rows.to_arrow_table()
        columns = [
            found[field.name].cast(field.type) if field.name in found.column_names else _nothing(field, found.num_rows)
            for field in table.schema
        ]
        made = type(found).from_arrays(columns, schema=table.schema)
        lake.replace(table, DayRange(day, day), lambda _version: made)


def _nothing(field: Any, rows: int) -> Any:
    import pyarrow as pa

    return pa.nulls(rows, field.type)


def fill_ledger(ledger: Ledger) -> None:
    when = datetime(2026, 6, 30)
    with AlertStore(ledger).deciding(when) as deciding:
        deciding.keep_incidents(
            records.incident_row(incident(f"inc-{n}", project=f"project-{n % 100}", agent=f"agent-{n}"))
            for n in range(INCIDENTS)
        )
        deciding.add_traces(TraceRow(f"inc-{n}", "default", "sent", when, "{}") for n in range(INCIDENTS))


def asked(turn: int, agents: int) -> list[tuple[str, str, dict[str, Any]]]:
    """(what, tool, inputs) of questions that differ from turn to turn, so that none is cached."""
    end, agent, n = str(LAST - timedelta(days=turn % 20)), f"agent-{turn * 37 % agents}", turn * 37 % agents
    one = {"agentId": agent, "end": end}
    anomaly = anomaly_of(LAST - timedelta(days=turn % 20), turn % max(agents // 100, 1))
    return [
        ("month by agent", "dashboard_get_metrics", {"timeframe": "month", "by": "agent", "end": end}),
        ("day by project", "dashboard_get_metrics", {"timeframe": "day", "by": "project", "end": end}),
        ("one agent, month", "dashboard_get_metrics", {"timeframe": "month", "by": "model", **one}),
        ("fleet, month by hour", "dashboard_get_trends", {"granularity": "hour", "timeframe": "month", "end": end}),
        ("one agent, month by day", "dashboard_get_trends", {"granularity": "day", "timeframe": "month", **one}),
        ("one agent, week by hour", "dashboard_get_trends", {"granularity": "hour", "timeframe": "week", **one}),
        ("one agent, month by hour", "dashboard_get_trends", {"granularity": "hour", "timeframe": "month", **one}),
        ("month", "dashboard_get_anomalies", {"timeframe": "month", "end": end}),
        ("day, csv", "dashboard_export_data", {"timeframe": "day", "end": end}),
        ("month, csv", "dashboard_export_data", {"timeframe": "month", "end": end}),
        ("agents, month", "list_entities", {"level": "agent", "timeframe": "month", "end": end}),
        ("one", "explain_anomaly", {"anomalyId": anomaly}),
        ("one agent", "get_effective_policy", {"agentId": agent}),
        ("all", "get_budget_status", {"limit": 1 + turn}),
        ("one agent", "get_budget_status", {"agentId": agent}),
        ("all", "list_incidents", {"limit": 1 + turn}),
        ("one", "why_notified", {"incidentId": f"inc-{n % INCIDENTS}"}),
    ]


def anomaly_of(day: date, number: int) -> str:
    import hashlib

    return "an-" + hashlib.md5(f"{day}{number}".encode(), usedforsecurity=False).hexdigest()[:16]


def percentile(seconds: list[float], share: float) -> float:
    return round(float(np.quantile(seconds, share)) * 1000, 1)


async def each(service: Service, agents: int, turns: int) -> list[dict[str, Any]]:
    """Milliseconds of every kind of question, cold and cached; ``cpu`` is the processor's, of all threads together."""
    took: dict[tuple[str, str], dict[str, list[float]]] = {}
    for turn in range(turns):
        for what, name, values in asked(turn, agents):
            kept = took.setdefault((name, what), {"cold": [], "cpu": [], "cached": []})
            for kind in ("cold", "cached"):
                start, cpu = time.perf_counter(), time.process_time()
                await service.ask_json(QUESTIONS[name], values, LOCAL)
                kept[kind].append(time.perf_counter() - start)
                if kind == "cold":
                    kept["cpu"].append(time.process_time() - cpu)
    return [
        {
            "tool": name, "question": what,
            "cold_p50": percentile(one["cold"], 0.5), "cold_p95": percentile(one["cold"], 0.95),
            "cold_cpu_p50": percentile(one["cpu"], 0.5), "cached_p95": percentile(one["cached"], 0.95),
        }
        for (name, what), one in took.items()
    ]  # fmt: skip


async def sustained(
    base: str, token: str, agents: int, seconds: float, clients: int, per_second: int
) -> dict[str, Any]:
    """So many clients asking at a steady pace together: latency from when a request was due, and errors."""
    import httpx2

    took: list[float] = []
    failed: list[int] = []
    begin = time.perf_counter()

    async def client(number: int) -> None:
        async with httpx2.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
            for turn in range(int(seconds * per_second / clients)):
                due = begin + (turn * clients + number) / per_second
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                questions = asked(turn % 5, agents)
                _, name, values = questions[(turn + number) % len(questions)]
                answered = await http.post(f"/api/{name}", json=values)
                if answered.status_code != 200:
                    failed.append(answered.status_code)
                took.append(time.perf_counter() - due)

    await asyncio.gather(*(client(number) for number in range(clients)))
    whole = time.perf_counter() - begin
    return {
        "clients": clients, "asked_per_second": per_second, "requests": len(took), "per_second": round(len(took) / whole),
        "errors": len(failed), "p50": percentile(took, 0.5), "p95": percentile(took, 0.95), "p99": percentile(took, 0.99),
    }  # fmt: skip


def service_over(lake: Lake, ledger: Ledger, folder: Path) -> Service:
    """As ``obs-pipeline serve`` makes it."""
    snapshot = Snapshot(lake, scratch=folder / "scratch", look_again=0.1)
    return Service(snapshot, ledger, lateness=LATENESS, look_again=0.1, patience=0.02)


def serve(folder: Path, port: int) -> None:
    """The server, as ``obs-pipeline serve`` makes it."""
    import uvicorn

    lake, ledger = Lake(f"{folder}/lake"), Ledger(f"sqlite:///{folder}/ledger.db")
    service = service_over(lake, ledger, folder)
    service.mark()
    app = http_app(service, Gate(AccessStore(ledger), look_again=0.1), clock=utc_now, limit=RateLimit(10**7, 10**7))
    uvicorn.run(app, port=port, log_level="error", access_log=False)


def keep_writing(folder: Path, agents: int, pause: float) -> None:
    """What a batch does, without end: a day's tables computed anew, one after the other."""
    lake = Lake(f"{folder}/lake")
    while True:
        for table, query in (
            (MART_SPEND, _SPEND),
            (BASELINES, _BASELINES),
            (ANOMALIES, _ANOMALIES),
            (EFFECTIVE_POLICIES, _POLICIES),
            (BUDGET_STATUS, _BUDGETS),
        ):
            write(lake, table, query, LAST, agents)
            time.sleep(pause)


@contextmanager
def another(*arguments: str) -> Iterator[psutil.Process]:
    started = subprocess.Popen([sys.executable, "-m", __spec__.name, *arguments])
    try:
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(20)


def under_load(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Many clients, first on a server that has just started, then with a lake at rest and while another process writes."""
    import socket
    import urllib.request

    token, _row = create_token(
        AccessStore(Ledger(f"sqlite:///{folder}/ledger.db")), utc_now(), name="bench", role="admin"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base, told = f"http://127.0.0.1:{port}", {}
    with another("--serve", str(folder), "--port", str(port)) as server:
        while True:
            try:
                urllib.request.urlopen(f"{base}/healthz").read()
                break
            except OSError:
                time.sleep(0.1)
        for name in ("from_cold", "at_rest", "while_a_batch_writes"):
            before = server.cpu_times()
            load = sustained(base, token, options.agents, options.seconds, 20, options.per_second)
            if name != "while_a_batch_writes":
                found = asyncio.run(load)
            else:
                with another("--write", str(folder), "--agents", str(options.agents)) as _writer:
                    found = asyncio.run(load)
            after = server.cpu_times()
            used = after.user + after.system - before.user - before.system
            told[name] = {**found, "server_cpu_ms_a_request": round(used / max(found["requests"], 1) * 1000, 2)}
        told["server_mb"] = round(server.memory_info().rss / 1e6)
    return told


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    lake, ledger = Lake(f"{folder}/lake"), Ledger(f"sqlite:///{folder}/ledger.db")
    told: dict[str, Any] = {"agents": options.agents, "days": options.days, "load_before": os.getloadavg()[0]}
    start = time.perf_counter()
    if not (folder / "lake").exists():
        fill(lake, options.agents, options.days)
        fill_ledger(ledger)
    made = time.perf_counter()
    service = service_over(lake, ledger, folder)
    service.mark()
    told |= {"made_s": round(made - start, 1), "first_copy_s": round(time.perf_counter() - made, 1)}
    told["tools_ms"] = asyncio.run(each(service, options.agents, options.turns))
    service.snapshot.close()
    told["clients"] = under_load(folder, options)
    return told | {"load_after": os.getloadavg()[0]}


def show(told: dict[str, Any]) -> None:
    table = Table(
        "tool", "question", "cold p50", "cold p95", "cold CPU", "cached p95",
        title=f"{told['agents']:,} agents × {told['days']} days of hours; milliseconds",
    )  # fmt: skip
    for one in told["tools_ms"]:
        table.add_row(*map(str, one.values()))
    console.print(table)
    loads = Table("20 clients", "requests/s", "errors", "p50 ms", "p95 ms", "p99 ms", "server CPU ms a request")
    for name in ("from_cold", "at_rest", "while_a_batch_writes"):
        one = told["clients"][name]
        columns = ("per_second", "errors", "p50", "p95", "p99", "server_cpu_ms_a_request")
        loads.add_row(name.replace("_", " "), *(str(one[column]) for column in columns))
    console.print(loads)
    console.print(
        f"First copy into memory {told['first_copy_s']} s; the server takes {told['clients']['server_mb']:,} MB. "
        f"Load of the machine before and after: {told['load_before']:.1f}, {told['load_after']:.1f}."
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--agents", type=int, default=10_000)
    options.add_argument("--days", type=int, default=90)
    options.add_argument("--turns", type=int, default=20)
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--per-second", type=int, default=200)
    options.add_argument("--home", type=Path, help="where the lake is made and kept, or was made before")
    options.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        serve(chosen.serve, chosen.port)
    elif chosen.write:
        keep_writing(chosen.write, chosen.agents, pause=2)
    else:
        folder = chosen.home or Path(tempfile.mkdtemp(prefix="obs-bench-"))
        try:
            told = run(folder, chosen)
        finally:
            if chosen.home is None:
                shutil.rmtree(folder, ignore_errors=True)
        show(told)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
