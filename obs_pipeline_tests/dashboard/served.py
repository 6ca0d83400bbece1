"""A small computed lake and ledger behind a service, for the tests of what is served."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import uvicorn

from obs_pipeline.alerting.records import incident_row
from obs_pipeline.dashboard.access import Gate, Principal, create_token
from obs_pipeline.dashboard.catalogue import QUESTIONS, checked_inputs
from obs_pipeline.dashboard.marts import build_spend
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline.detection.models import Anomaly, anomalies_to_table, anomaly_id
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES
from obs_pipeline.storage import engine
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import TraceRow
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.aggregates import build_hourly
from obs_pipeline.usage.tables import USAGE_EVENTS
from obs_pipeline_tests.alerting.cases import incident
from obs_pipeline_tests.usage_files import MONDAY, landed_lake, usage_rows

DAYS = DayRange(MONDAY.date(), MONDAY.date() + timedelta(days=2))
NOW = datetime(2026, 3, 6)
LATENESS = timedelta(hours=24)
ACME = Principal("ann", "admin", "acme")


@dataclass
class Served:
    """One service and the tokens to ask it with, by (role, organisation)."""

    service: Service
    lake: Lake
    ledger: Ledger
    gate: Gate
    tokens: dict[tuple[str, str], str]


def ask(served: Served, name: str, principal: Principal = ACME, **values: object) -> Any:
    """The answer to a question, made anew."""
    question = QUESTIONS[name]
    return served.service.answer(question, checked_inputs(question, values), principal)


def usage_of_two() -> list[dict[str, object]]:
    """Three days of acme, with one agent named like a formula, and of globex."""
    ours = usage_rows(3)
    for row in ours[:4]:
        row["agent"] = "=cmd|' /C calc'!A0"
    for row in ours[4:7]:
        row["agent"], row["team"] = None, None
    theirs = [{**row, "org": "globex", "agent": "secret-agent", "project": "manhattan"} for row in usage_rows(3)]
    return [*ours, *({**row, "event_id": f"g-{row['event_id']}"} for row in theirs)]


def an_anomaly(org: str, agent: str, day: int, score: float) -> Anomaly:
    when, project = MONDAY + timedelta(days=day), "atlas" if org == "acme" else "manhattan"
    return Anomaly(
        id=anomaly_id(org, project, agent, "cost", "day", when), timestamp=when, org=org, project=project, agent=agent,
        metric="cost", grain="day", severity="warning", score=score, confidence=0.9, baseline=1.0, observed=9.0,
        deviation=4.0, lower=0.0, upper=2.0, method="zscore", reason="It cost nine times what is usual.", context={"n": 3},
    )  # fmt: skip


FOUND = [an_anomaly("acme", "agent-0", day, 50 + day) for day in range(3)] + [
    an_anomaly("globex", "secret-agent", 1, 99)
]


def serve(folder: Path) -> Served:
    with engine.connect() as connection:
        lake = landed_lake(folder, connection, usage_of_two())
        lake.view(connection, USAGE_EVENTS)
        build_hourly(connection, lake, DAYS)
        build_spend(connection, lake, DAYS)
    lake.append(ANOMALIES, anomalies_to_table(FOUND).select(ANOMALIES.schema.names))
    lake.append(BASELINES, pa.Table.from_pylist([_baseline(day) for day in range(3)], schema=BASELINES.schema))
    lake.append(BUDGET_STATUS, pa.Table.from_pylist([_budget("acme"), _budget("globex")], schema=BUDGET_STATUS.schema))
    policies = pa.Table.from_pylist([_policy("acme"), _policy("globex")], schema=EFFECTIVE_POLICIES.schema)
    lake.append(EFFECTIVE_POLICIES, policies)
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
    _incidents(ledger)
    store = AccessStore(ledger)
    tokens = {
        (role, org): create_token(store, NOW, name=f"{role} of {org}", role=role, org=org)[0]
        for role in ("viewer", "analyst", "editor", "admin")
        for org in ("acme", "globex")
    }
    service = Service(Snapshot(lake, scratch=folder / "scratch"), ledger, lateness=LATENESS)
    return Served(service, lake, ledger, Gate(store), tokens)


def _baseline(day: int) -> dict[str, object]:
    when = MONDAY + timedelta(days=day)
    return {
        "dt": when.date(), "grain": "day", "time": when, "org": "acme", "project": "atlas", "agent": "agent-0",
        "metric": "cost", "observed": 9.0, "expected": 1.0, "lower": 0.0, "upper": 2.0, "deviation": 4.0, "points": 28,
        "state": "ok",
    }  # fmt: skip


def _budget(org: str) -> dict[str, object]:
    return {
        "dt": DAYS.last, "judged_at": NOW, "scope": "org", "org": org, "kind": "cost", "period": "daily", "currency": "USD",
        "window_start": MONDAY, "window_end": NOW, "limit_amount": 10, "spent": 2, "spent_upper": 2, "ratio": 0.2,
        "ratio_upper": 0.2, "state": "ok", "set_at": "org", "files": "org.yaml", "channels": "slack", "window_key": org,
    }  # fmt: skip


def _policy(org: str) -> dict[str, object]:
    return {
        "dt": DAYS.last, "scope": "org", "org": org, "field": "budgets.cost.daily (USD)", "field_group": "budgets",
        "name": "cost", "period": "daily", "currency": "USD", "value": "10", "amount": 10, "decided_by": "guard",
        "files": "org.yaml", "set_at": "org", "trail": '[{"policy": "guard"}]', "conflicts": 0,
    }  # fmt: skip


def _incidents(ledger: Ledger) -> None:
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.keep_incidents(
            incident_row(
                incident(f"inc-{org}", org=org, agent="agent-0", opened_at=MONDAY, updated_at=MONDAY, headline="odd")
            )
            for org in ("acme", "globex")
        )
        deciding.add_traces(
            TraceRow(f"inc-{org}", "default", "sent", NOW, '{"why": "new"}') for org in ("acme", "globex")
        )


@contextmanager
def running(app: object) -> Iterator[str]:
    """A server of an application on the loopback address; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


INPUTS: dict[str, dict[str, object]] = {
    "dashboard_get_metrics": {"timeframe": "week", "by": "agent"},
    "dashboard_get_trends": {"metric": "cost", "granularity": "day", "agentId": "agent-0", "projectId": "atlas"},
    "dashboard_get_anomalies": {"timeframe": "week", "limit": 2},
    "dashboard_export_data": {"format": "csv", "timeframe": "week"},
    "list_entities": {"level": "agent"},
    "explain_anomaly": {"anomalyId": FOUND[0].id},
    "get_effective_policy": {"orgId": "acme"},
    "get_budget_status": {},
    "list_incidents": {},
    "why_notified": {"incidentId": "inc-acme"},
}
"""One good question of each name, asked by somebody of acme."""
