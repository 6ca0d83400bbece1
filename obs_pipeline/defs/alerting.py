"""Alerts leave the house: the sensor that sees what is due, the job that sends it, and the watch over both.

A tick only reads the ledger and asks for a run; everything that opens a connection is in the run's op. Secrets are looked
up when a message is sent, by the names that the routes give them.
"""

import os
import random
import socket
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from obs_pipeline.alerting.connections import channel_for, tracker_for
from obs_pipeline.alerting.delivery import Courier, deliver_due
from obs_pipeline.alerting.health import LEAST_SUCCESS, QUICK, SENSOR, WINDOW, AlertHealth, health
from obs_pipeline.alerting.models import Incident
from obs_pipeline.alerting.passes import (
    ROUTES_FILE,
    Findings,
    forget,
    heard_through,
    preview,
    routes_in_force,
    run_pass,
)
from obs_pipeline.alerting.records import incident_of, notification_of
from obs_pipeline.alerting.routes import RoutesError
from obs_pipeline.alerting.wording import Chart, Pages
from obs_pipeline.clock import utc_now
from obs_pipeline.defs import checks
from obs_pipeline.defs.incident_chart import incident_chart
from obs_pipeline.defs.instance import is_running
from obs_pipeline.defs.resources import BatchLimits, EngineResource, LakeResource, LedgerResource
from obs_pipeline.defs.source_watch import silent_sources
from obs_pipeline.defs.stories import markdown_table
from obs_pipeline.settings import secret
from obs_pipeline.storage.alert_store import AlertStore

MESSAGES_PER_RUN = 500
STUCK_AFTER = timedelta(minutes=10)
"""A run that began longer ago holds up no new one: claims are leased, so that two at once do no harm."""


@dg.op(
    description="Decide what the passing of time brings (silent sources, waits that end, repeats, digests), send what is due "
    "and forget what is old."
)
def send_due_messages(
    context: dg.OpExecutionContext,
    ledger: LedgerResource,
    lake: LakeResource,
    engine: EngineResource,
    limits: BatchLimits,
) -> None:
    """Log what was sent; the messages themselves are in the ledger."""
    store, now = AlertStore(ledger.open()), utc_now()
    in_force = routes_in_force(store, Path(limits.policies) / ROUTES_FILE, now)
    if in_force.problem:
        context.log.warning(f"The routes are the last good ones. {in_force.problem}")
    findings = replace(silent_sources(ledger.open(), limits, now), through=heard_through(ledger.open(), now))
    run_pass(store, in_force.routes, now, findings)

    def chart_of(incident: Incident) -> Chart:
        with engine.get_connection() as connection:
            return incident_chart(connection, lake.open(), incident)

    courier = Courier(
        store,
        lambda receiver: channel_for(receiver, secret),
        lambda receiver: tracker_for(receiver, secret),
        pages=Pages(limits.dashboard_url, limits.dagster_url),
        chart_of=chart_of,
    )
    worker = f"{socket.gethostname()}:{os.getpid()}"
    done = deliver_due(store, courier, notification_of, worker, utc_now, random.Random(), MESSAGES_PER_RUN)
    context.log.info(f"{done.sent} sent, {done.retrying} to be tried again, {done.parked} parked")
    forgotten = forget(store, now - timedelta(days=limits.alert_history_days))
    if any(forgotten):
        context.log.info(f"{forgotten.messages} old messages and {forgotten.traces} old traces forgotten")


@dg.job(description="Send the alerts that are due.")
def deliver_alerts() -> None:
    send_due_messages()


@dg.sensor(
    job=deliver_alerts,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A message that is due, new or to be tried again, is sent.",
)
def due_alerts_sensor(
    context: dg.SensorEvaluationContext, ledger: LedgerResource, limits: BatchLimits
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run when a message is due or would be decided now. Every tick is a heartbeat."""
    store, now = AlertStore(ledger.open()), utc_now()
    store.beat(SENSOR, now)
    waits = store.has_due(now) or _would_decide(store, Path(limits.policies) / ROUTES_FILE, now)
    if not waits and not _sources_changed(store, silent_sources(ledger.open(), limits, now)):
        return dg.SkipReason("No message is due.")
    if is_running(context.instance, deliver_alerts.name, since=now - STUCK_AFTER):
        return dg.SkipReason("Messages are being sent.")
    return dg.RunRequest()


@dg.asset(
    group_name="alerting",
    owners=["team:platform"],
    kinds={"sqlite"},
    description="How well alerting itself is: delivery time, success by channel, what is parked, who is silent. The last "
    "seven days.",
    check_specs=checks.specs("alert_health"),
)
def alert_health(ledger: LedgerResource) -> dg.MaterializeResult:
    """The figures as metadata, judged by four checks that warn."""
    store, now = AlertStore(ledger.open()), utc_now()
    found = health(
        store.outbox(), store.deliveries(now - WINDOW), store.heartbeats(), store.feedback(now - WINDOW), now
    )
    return dg.MaterializeResult(metadata=_metadata(found), check_results=_judgements(found))


watch_alerts = dg.define_asset_job(
    "watch_alerts", dg.AssetSelection.assets("alert_health"), description="Watch over alerting itself."
)
watch_alerts_schedule = dg.ScheduleDefinition(
    name="watch_alerts_schedule",
    job=watch_alerts,
    cron_schedule="15 * * * *",
    execution_timezone="UTC",
    description="Every hour: how quickly and how surely alerts are delivered, and which sources are silent.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


def _would_decide(store: AlertStore, routes: Path, now: datetime) -> bool:
    try:
        in_force = routes_in_force(store, routes, now)
    except RoutesError:
        return False
    return bool(preview(store, in_force.routes, now).notifications)


def _sources_changed(store: AlertStore, silences: Findings) -> bool:
    """Whether a source fell silent, or was heard again, since that was last told. Whoever resolved the incident of a
    silence by hand has heard of it."""
    active = map(incident_of, store.incidents(("open", "acknowledged")))
    known = {incident.subject for incident in active if incident.kind == "stale_source"}
    new = [one for one in silences.signals if one.subject not in known and not store.incident_of_signal(one.id)]
    return bool(new) or not known.isdisjoint(silences.over)


def _metadata(found: AlertHealth) -> dict[str, Any]:
    columns = ("channel", "attempts", "sent", "refused", "success", "p50 s", "p95 s", "p99 s")
    rows = [
        (
            one.channel,
            one.attempts,
            one.sent,
            one.refused,
            "–" if one.success is None else f"{one.success:.1%}",
            *(_seconds(value) for value in (one.delivery.p50, one.delivery.p95, one.delivery.p99)),
        )
        for one in found.channels
    ]
    figures: dict[str, float | int | None] = {
        "delivery_p50_seconds": found.delivery.p50,
        "delivery_p95_seconds": found.delivery.p95,
        "delivery_p99_seconds": found.delivery.p99,
        "waiting": found.waiting,
        "parked": len(found.parked),
        "false_positive_rate": found.false_positives,
    }
    known = {name: value for name, value in figures.items() if value is not None}
    return {**known, "channels": dg.MetadataValue.md(markdown_table(columns, rows))}


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _judgements(found: AlertHealth) -> list[dg.AssetCheckResult]:
    reasons = [[row.receiver, row.detail] for row in found.parked[:10]]
    return [
        _warning(
            "delivery_is_quick",
            found.is_quick,
            {"p95_seconds": found.delivery.p95 or 0.0, "limit_seconds": QUICK.total_seconds()},
        ),
        _warning(
            "channels_succeed",
            not found.failing,
            {"failing": ", ".join(found.failing) or "none", "least_success": LEAST_SUCCESS},
        ),
        _warning(
            "nothing_is_parked",
            not found.parked,
            {"reasons": dg.MetadataValue.md(markdown_table(("receiver", "reason"), reasons))},
        ),
        _warning("the_daemon_is_alive", not found.silent, {"silent": ", ".join(found.silent) or "none"}),
    ]


def _warning(name: str, passed: bool, metadata: dict[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)
