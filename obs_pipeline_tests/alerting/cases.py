"""Incidents, signals and routes that the tests of alerting speak about."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from obs_pipeline.alerting.models import Incident, Severity, Signal, rank
from obs_pipeline.alerting.routes import Routes, parse_routes

NOON = datetime(2026, 3, 2, 12)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def incident(name: str = "inc-1", severity: Severity = "warning", **changes: Any) -> Incident:
    values: dict[str, Any] = {
        "kind": "anomaly",
        "status": "open",
        "opened_at": NOON,
        "updated_at": NOON,
        "began_at": NOON - HOUR,
        "last_seen_at": NOON,
        "headline": f"{name} happened",
        "org": "acme",
        "project": "atlas",
        "agent": "triage",
        "metric": "cost",
        "level": float(rank(severity)),
    }
    return Incident(id=name, severity=severity, **{**values, **changes})


def signal(name: str, hour: float, agent: str = "triage", severity: Severity = "warning", **changes: Any) -> Signal:
    """An anomaly of one hour, counted from noon."""
    begins = NOON + hour * HOUR
    values: dict[str, Any] = {
        "kind": "anomaly",
        "headline": f"{agent} was odd",
        "org": "acme",
        "project": "atlas",
        "metric": "cost",
        "direction": "rise",
        "score": 50.0,
        "observed": 10.0,
        "expected": 1.0,
        "level": float(rank(severity)),
    }
    merged = {**values, **changes}
    return Signal(id=name, severity=severity, begins_at=begins, ends_at=begins + HOUR, agent=agent, **merged)


def routes(text: str = "", receivers: str = "[{name: dashboard, channel: widget}]") -> Routes:
    """A routes file whose root tells the dashboard at once; ``text`` is what else the root route says."""
    written = f"receivers: {receivers}\nroute:\n  receivers: [dashboard]\n  group_by: [agent]\n"
    if "group_wait" not in text:
        written += "  group_wait: 0s\n"
    if "group_interval" not in text:
        written += "  group_interval: 0s\n"
    return parse_routes((written + text).encode(), "routes.yaml")


def many_routes(count: int = 200) -> Routes:
    """Routes over projects of which every other one passes on what it takes."""
    text = "receivers: [{name: d, channel: widget}]\nroute:\n  receivers: [d]\n  routes:\n" + "".join(
        f"    - {{name: r{n}, match: {{project: 'p{n}-*', agent: '!agent-{n}*'}}, continue: {str(n % 2 == 0).lower()}}}\n"
        for n in range(count)
    )
    return parse_routes(text.encode(), "routes.yaml")


def many_incidents(count: int) -> list[Incident]:
    """Incidents of as many agents, in projects that most of :func:`many_routes` mean."""
    return [incident(f"inc-{n}", agent=f"agent-{n}", project=f"p{n % 210}-x") for n in range(count)]
