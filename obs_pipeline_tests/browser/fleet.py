"""A made lake behind a server that may be stopped and started again, for the tests in a browser.

The numbers stand in the marts directly: what computes them has tests of its own. One agent is named like a page's markup and one
like a spreadsheet's formula.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import uvicorn

from obs_pipeline.alerting.models import Incident, Severity
from obs_pipeline.alerting.records import incident_row
from obs_pipeline.dashboard.access import Gate, RateLimit, create_token
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Reader, Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.causes import Cause
from obs_pipeline.detection.decomposition import Split, Term
from obs_pipeline.detection.explanations import Explanation
from obs_pipeline.detection.models import Anomaly, anomalies_to_table, anomaly_id
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.policy.tables import BUDGET_STATUS
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import TaskRow, TraceRow
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.cases import incident

FIRST = date(2026, 3, 2)
DAYS = 3
LAST_NIGHT = datetime(2026, 3, 5)
SCRIPT = "</td><script>alert(1)</script>"
FORMULA = "=cmd|' /C calc'!A0"
FOUND = ("acme", "atlas", "triage", "cost")
"""Organisation, project, agent and metric of the anomalies and of the open incident."""

_MODELS = ("gpt-5", "claude-sonnet-4")
_Place = tuple[str, str, str, str]


def places() -> list[_Place]:
    """Organisation, project, team and agent of a small fleet, the dearest first."""
    acme = [
        ("acme", "atlas", "core", "triage"),
        ("acme", "atlas", "core", SCRIPT),
        ("acme", "borealis", "core", FORMULA),
    ]
    more = [("acme", "borealis", "docs", f"writer-{number:02d}") for number in range(30)]
    return [*acme, *more, ("globex", "manhattan", "secret", "stranger")]


def many_places(count: int) -> list[_Place]:
    """As many agents of one organisation, in forty projects."""
    return [("acme", f"project-{n % 40:02d}", f"team-{n % 12}", f"agent-{n:05d}") for n in range(count)]


def spend(fleet: Sequence[_Place], day: date, factor: int = 1) -> pa.Table:
    """A day's rows of the mart: of each agent one for each of two models, by the hour (all in the twelfth) and by the day."""
    places = [(*place, model) for place in fleet for model in _MODELS]
    count = len(places)
    columns: dict[str, object] = dict(
        zip(("org", "project", "team", "agent", "model"), zip(*places, strict=True), strict=True)
    )
    steps = np.arange(count, 0, -1, dtype=np.int64)
    cost = [Decimal(int(step) * 137 * factor) / 10_000 for step in steps]
    columns |= {
        "dt": [day] * count, "provider": ["openai", "anthropic"] * len(fleet), "calls": steps % 300 + 20,
        "errors": steps % 3, "input_tokens": steps * 100, "output_tokens": steps * 10, "cache_read_tokens": steps * 30,
        "saved_tokens": steps, "cost": cost, "list_cost": cost, "cost_bound": [None] * count,
        "unpriced_calls": [0] * count, "mispriced_calls": [0] * count,
    }  # fmt: skip
    grains = (("day", 0), ("hour", 12))
    return pa.concat_tables(
        pa.table(
            {**columns, "grain": [grain] * count, "time": [datetime(day.year, day.month, day.day, hour)] * count},
            schema=MART_SPEND.schema,
        )
        for grain, hour in grains
    )


class MadeFleet:
    """A lake and a ledger in a folder, and tokens to ask with. ``writes`` may be done by editors."""

    def __init__(self, folder: Path, fleet: Sequence[_Place] | None = None, days: int = DAYS) -> None:
        self.fleet = places() if fleet is None else fleet
        self.lake = Lake(str(folder / "lake"))
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self._scratch = folder / "scratch"
        for day in range(days):
            self.lake.append(MART_SPEND, spend(self.fleet, FIRST + timedelta(days=day)))
        store = AccessStore(self.ledger)
        self.gate = Gate(store)
        self.editor, _ = create_token(store, LAST_NIGHT, name="Edith", role="editor", org="acme")
        self.viewer, _ = create_token(store, LAST_NIGHT, name="Vic", role="viewer", org="acme")
        self.everyone, _ = create_token(store, LAST_NIGHT, name="Ada", role="admin")

    def add_findings(self) -> None:
        """Anomalies with the band around them, budgets, and incidents of which one is open."""
        found = [anomaly(day, score) for day, score in ((0, 40.0), (2, 93.0))]
        self.lake.append(ANOMALIES, anomalies_to_table(found).select(ANOMALIES.schema.names))
        self.lake.append(
            BASELINES, pa.Table.from_pylist([baseline(day) for day in range(DAYS)], schema=BASELINES.schema)
        )
        budgets = pa.Table.from_pylist([budget("weekly", 1.3), budget("daily", 0.2)], schema=BUDGET_STATUS.schema)
        self.lake.append(BUDGET_STATUS, budgets)
        self.open_incidents()
        with AlertStore(self.ledger).deciding(LAST_NIGHT) as deciding:
            deciding.add_traces([TraceRow("inc-open", "default", "sent", LAST_NIGHT, '{"reason": "it is new"}')])
        for tracker, url in (("github", "https://tasks.example/7"), ("odd", "javascript:alert(1)")):
            written = ("triage is odd", "", "high", "", "[]")
            task = TaskRow("inc-open", tracker, "7", url, "open", *written, LAST_NIGHT, LAST_NIGHT)
            AlertStore(self.ledger).keep_task(task)

    def open_incidents(self) -> None:
        """As they were before anybody looked."""
        with AlertStore(self.ledger).deciding(LAST_NIGHT) as deciding:
            deciding.keep_incidents(incident_row(one) for one in incidents())

    def raise_last_day(self, factor: int) -> None:
        """Another version of the lake, in which the last day costs as many times more."""
        day = FIRST + timedelta(days=DAYS - 1)
        self.lake.replace(MART_SPEND, DayRange(day, day), lambda _version: spend(self.fleet, day, factor))

    def app(self) -> object:
        snapshot = Snapshot(self.lake, scratch=self._scratch)
        service = Service(snapshot, self.ledger, lateness=timedelta(0), writes=lambda: LAST_NIGHT, explain=explanation)
        limit = RateLimit(per_minute=10**6, burst=10**6)
        return http_app(service, self.gate, clock=lambda: LAST_NIGHT, limit=limit)


class Server:
    """An application on the loopback address; its address stays the same over stops and starts."""

    def __init__(self, fleet: MadeFleet) -> None:
        self.fleet = fleet
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._running: tuple[uvicorn.Server, threading.Thread] | None = None

    def start(self) -> None:
        if self._running is not None:
            return
        # An application ends with its server, so each start has its own.
        config = uvicorn.Config(
            self.fleet.app(), port=self._port, log_level="error", ws="none", timeout_graceful_shutdown=2
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "The server did not come up."
            time.sleep(0.01)
        self._running = (server, thread)

    def stop(self) -> None:
        if self._running is None:
            return
        server, thread = self._running
        server.should_exit = True
        thread.join(20)
        self._running = None


def anomaly(day: int, score: float) -> Anomaly:
    org, project, agent, metric = FOUND
    when = datetime(FIRST.year, FIRST.month, FIRST.day) + timedelta(days=day)
    return Anomaly(
        id=anomaly_id(org, project, agent, metric, "day", when), timestamp=when, org=org, project=project, agent=agent,
        metric=metric, grain="day", severity="critical" if score > 90 else "info", score=score, confidence=0.9,
        baseline=0.4, observed=1.8, deviation=6.0, lower=0.2, upper=0.8, method="zscore",
        reason=f"Score {score:.0f}: it cost four times what is usual.", context={"calls": 40, "history_points": 28},
    )  # fmt: skip


def explanation(_reader: Reader, found: Anomaly) -> Explanation:
    """The anomaly in two parts, one of them a saving."""
    more, less = Decimal("1.5"), Decimal("-0.1")
    terms = (Term("volume", more, (("gpt-5", more),)), Term("unit price", less, (("claude-sonnet-4", less),)))
    split = Split(
        metric="cost", unit="USD", observed=Decimal("1.8"), expected=Decimal("0.4"), deviation=more + less, terms=terms,
        by_user=(), scale=Decimal(1), before={}, after={},
    )  # fmt: skip
    return Explanation(found, split, Cause("more calls", "120 calls, usually 30"), datetime(2026, 2, 2))


def baseline(day: int) -> dict[str, object]:
    org, project, agent, metric = FOUND
    when = datetime(FIRST.year, FIRST.month, FIRST.day) + timedelta(days=day)
    return {
        "dt": when.date(), "grain": "day", "time": when, "org": org, "project": project, "agent": agent, "metric": metric,
        "observed": 1.8, "expected": 0.4, "lower": 0.2, "upper": 0.8, "deviation": 6.0, "points": 28, "state": "ok",
    }  # fmt: skip


def budget(period: str, ratio: float) -> dict[str, object]:
    spent = Decimal(100) * Decimal(str(ratio))
    return {
        "dt": FIRST + timedelta(days=DAYS - 1), "judged_at": LAST_NIGHT, "scope": "org", "org": "acme", "kind": "cost",
        "period": period, "currency": "USD", "window_start": datetime(2026, 3, 2), "window_end": datetime(2026, 3, 9),
        "limit_amount": Decimal(100), "spent": spent, "spent_upper": spent, "ratio": ratio, "ratio_upper": ratio,
        "state": "exceeded" if ratio > 1 else "ok", "burn_short": 2.5, "burn_long": 1.5, "set_at": "org",
        "files": "org.yaml", "channels": "slack", "window_key": period,
    }  # fmt: skip


def incidents() -> list[Incident]:
    """Two open ones, and one that is over."""
    noon = datetime(2026, 3, 4, 12)

    def of(name: str, severity: Severity, agent: str, **more: Any) -> Incident:
        told = {"org": "acme", "metric": "cost", "opened_at": noon, "updated_at": noon, "last_seen_at": noon}
        began = noon - timedelta(hours=1)
        return incident(
            name, severity, **{**told, "agent": agent, "began_at": began, "headline": f"{agent} is odd", **more}
        )

    return [
        of("inc-open", "critical", "triage", project="atlas", observed=9.0, expected=1.0),
        of("inc-more", "warning", "writer-05", project="borealis", kind="budget", headline="writer-05 spends too much"),
        of("inc-over", "warning", "writer-03", project="borealis", status="resolved", resolved_at=LAST_NIGHT),
    ]
