"""What ``/metrics`` tells: how this process answers, and what the ledger says of delivery, pulls, syncs and batches.

Here: the names and what they count. How a message is judged late or a day pending is decided in the rooms below. Names follow
the custom of Prometheus: seconds, totals that only grow, times as seconds since 1970.

What the ledger says is of every organisation, so it is told apart from what this process measures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from obs_pipeline.alerting.health import WINDOW, AlertHealth, Percentiles, health
from obs_pipeline.dashboard.actions import ACTIONS
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.ledger_state import batch_state, pulls
from obs_pipeline.storage.target_store import TargetStore
from obs_pipeline.usage.due_days import pending_days

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_STEPS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_BESIDE: Final = frozenset({"/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/mcp", "/v1/traces", "/v1/logs"})
_READ_AGAIN: Final = timedelta(seconds=10)


class Measures:
    """How this process answers."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self._seconds = Histogram(
            "obs_request_seconds", "Seconds a request took.", ["route"], registry=own, buckets=_STEPS
        )
        self._requests = Counter("obs_requests", "Requests by route and status.", ["route", "status"], registry=own)
        self._lookups = Counter("obs_cache_lookups", "Cache look-ups.", ["outcome"], registry=own)
        self._refresh = Histogram(
            "obs_lake_refresh_seconds",
            "Seconds it took to copy a new version of the lake.",
            registry=own,
            buckets=_STEPS,
        )
        self.cache_up = Gauge("obs_cache_up", "1 while the cache is used, 0 while it is away.", registry=own)
        self.cache_faults = Gauge("obs_cache_faults", "Times the cache was found away, since the start.", registry=own)
        self.lake_up = Gauge("obs_lake_up", "1 if the lake could be read at the last look.", registry=own)

    def looked_up(self, hit: bool) -> None:
        self._lookups.labels("hit" if hit else "miss").inc()

    def copied(self, seconds: float) -> None:
        self._refresh.observe(seconds)

    def served(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class MeasuringMiddleware:
    """Measures every request: how long it took and what came of it, refusals included."""

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._measures.served(_route_name(scope["path"]), status, time.perf_counter() - started)


def _route_name(path: str) -> str:
    """A label of few values: an unknown path is not a label of its own."""
    name = path.removeprefix("/api/")
    return name if name in QUESTIONS or name in ACTIONS or path in _BESIDE else "other"


class LedgerFigures(Collector):
    """What the ledger says, read again every ten seconds at most. ``clock`` is UTC without a zone."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._read: tuple[datetime, list[Metric]] | None = None

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def describe(self) -> list[Metric]:
        # Without this the registry would read the ledger once more, to learn the names.
        return []

    def collect(self) -> Iterator[Metric]:
        now = self._clock()
        with self._lock:
            if self._read is None or not timedelta() <= now - self._read[0] < _READ_AGAIN:
                self._read = (now, self._figures(now))
            yield from self._read[1]

    def _figures(self, now: datetime) -> list[Metric]:
        up = "1 if the ledger could be read."
        try:
            found = [*self._delivery(now), *self._syncs(), *self._batch()]
        except ObsError:
            return [_gauge("obs_ledger_up", up, 0)]
        return [_gauge("obs_ledger_up", up, 1), *found]

    def _delivery(self, now: datetime) -> Iterator[Metric]:
        store = AlertStore(self._ledger)
        found = health(
            store.outbox(), store.deliveries(now - WINDOW), store.heartbeats(), store.feedback(now - WINDOW), now
        )
        yield _percentiles(found)
        success = GaugeMetricFamily(
            "obs_delivery_success_ratio",
            "Share of attempts that the channel took, of the last 7 days.",
            labels=["channel"],
        )
        for channel in found.channels:
            if channel.success is not None:
                success.add_metric([channel.channel], channel.success)
        yield success
        yield _gauge("obs_messages_waiting", "Messages that are due.", found.waiting)
        yield _gauge(
            "obs_messages_oldest_waiting_seconds",
            "Age of the oldest due message.",
            found.oldest_waiting.total_seconds(),
        )
        yield _gauge("obs_messages_given_up", "Messages that will not be tried again by themselves.", len(found.parked))
        counts = GaugeMetricFamily("obs_incidents", "Incidents that are not resolved.", labels=["status"])
        for status in ("open", "acknowledged"):
            counts.add_metric([status], sum(store.incident_counts((status,))[0].values()))
        yield counts

    def _syncs(self) -> Iterator[Metric]:
        failed = GaugeMetricFamily("obs_sync_failed", "1 if the last attempt failed.", labels=["kind", "name"])
        last = GaugeMetricFamily(
            "obs_sync_last_success_timestamp_seconds", "When a source was last pulled in full.", labels=["kind", "name"]
        )
        pending = GaugeMetricFamily("obs_sync_pending", "Settings a policy target did not take yet.", labels=["name"])
        for pull in pulls(self._ledger):
            failed.add_metric(["source", pull.source], float(pull.failed))
            if pull.pulled_at is not None:
                last.add_metric(["source", pull.source], _seconds(pull.pulled_at))
        for state in TargetStore(self._ledger).states():
            failed.add_metric(["policy_target", state.target], float(bool(state.failure)))
            pending.add_metric([state.target], state.pending)
        yield from (failed, last, pending)

    def _batch(self) -> Iterator[Metric]:
        state = batch_state(self._ledger)
        if state.settled_at is not None:
            yield _gauge(
                "obs_batch_last_success_timestamp_seconds",
                "When a batch last came to its end.",
                _seconds(state.settled_at),
            )
        late = len(pending_days(self._ledger.newest_landing_per_day(), self._ledger.settled_through()))
        yield _gauge("obs_batch_pending_days", "Days with usage that no batch has computed yet.", late)
        newest = GaugeMetricFamily(
            "obs_source_newest_event_timestamp_seconds", "The newest event of each source.", labels=["source"]
        )
        for source, event in state.newest_events.items():
            newest.add_metric([source], _seconds(event))
        yield newest


def _percentiles(found: AlertHealth) -> Metric:
    family = GaugeMetricFamily(
        "obs_delivery_seconds", "Seconds from decision to delivery, of the last 7 days.", labels=["channel", "quantile"]
    )
    every: list[tuple[str, Percentiles]] = [
        ("", found.delivery),
        *((one.channel, one.delivery) for one in found.channels),
    ]
    for channel, one in every:
        for quantile, value in (("0.5", one.p50), ("0.95", one.p95), ("0.99", one.p99)):
            if value is not None:
                family.add_metric([channel or "all", quantile], value)
    return family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _seconds(moment: datetime) -> float:
    return moment.replace(tzinfo=UTC).timestamp()
