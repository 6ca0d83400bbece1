"""Incidents and notifications as the tests of delivery use them."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from obs_pipeline.alerting.models import Incident, Notification, Receiver, digest

AT = datetime(2026, 11, 24, 9, 0)
SLACK = Receiver("ops", "slack", {"webhook": "HOOK"})
TASKS = Receiver("tasks", "task", {"tracker": "github", "repository": "acme/ops", "token": "TOKEN", "labels": ["obs"]})
WIDGET = Receiver("board", "widget")


def incident(number: int = 1, **changes) -> Incident:
    values = {
        "id": f"incident-{number}",
        "kind": "anomaly",
        "severity": "critical",
        "status": "open",
        "opened_at": AT,
        "updated_at": AT,
        "began_at": AT - timedelta(hours=6),
        "last_seen_at": AT,
        "headline": f"Cost of acme/web/bot-{number} is 3.1 times the usual",
        "org": "acme",
        "project": "web",
        "agent": f"bot-{number}",
        "metric": "cost",
        "observed": 31.0,
        "expected": 10.0,
        "cost_effect": Decimal("126.5"),
        "confidence": 0.93,
        "explanation": ("87 % of it is the model large-1",),
    }
    return Incident(**{**values, **changes})


def notification(
    *incidents: Incident, receiver: Receiver = SLACK, state: str = "firing", at: datetime = AT, **changes
) -> Notification:
    told = incidents or (incident(),)
    values = {
        "key": digest(receiver.name, state, *(one.id for one in told)),
        "route": "root",
        "receiver": receiver,
        "incidents": told,
        "state": state,
        "reason": "it is new",
        "decided_at": at,
        "thread": digest(receiver.name, *(one.id for one in told)),
    }
    return Notification(**{**values, **changes})
