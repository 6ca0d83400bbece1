"""What was found wrong, in the one shape that incidents are made of.

Holds one constructor a kind: an anomaly, a budget's threshold, a run that failed, a source that is silent, a sync that
met a conflict. They take plain values, so that this room knows none of those it hears from.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from obs_pipeline.alerting.models import Severity, Signal, digest, rank

_GRAINS: Final[Mapping[str, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


def anomaly_signal(anomaly: Mapping[str, Any], team: str = "") -> Signal:
    """An anomaly as the lake keeps it: a row of its table, with ``context`` as text or left out."""
    begins = anomaly["timestamp"]
    observed, expected = anomaly["observed"], anomaly["baseline"]
    rises = expected is None or observed >= expected
    effect = None
    if anomaly["metric"] == "cost" and expected is not None:
        effect = Decimal(str(round(observed - expected, 9)))
    return Signal(
        id=anomaly["id"],
        kind="anomaly",
        severity=anomaly["severity"],
        begins_at=begins,
        ends_at=begins + _GRAINS[anomaly["grain"]],
        headline=anomaly["reason"],
        org=anomaly["org"] or "",
        project=anomaly["project"] or "",
        team=team,
        agent=anomaly["agent"] or "",
        metric=anomaly["metric"],
        direction="rise" if rises else "drop",
        level=rank(anomaly["severity"]),
        score=anomaly["score"],
        confidence=anomaly["confidence"],
        observed=observed,
        expected=expected,
        cost_effect=effect,
    )


def budget_signal(
    *,
    window_key: str,
    window_start: datetime,
    window_end: datetime,
    crossed: Decimal,
    spent: Decimal,
    limit: Decimal,
    kind: str,
    period: str,
    org: str,
    project: str = "",
    agent: str = "",
) -> Signal:
    """The highest threshold (percent) that a budget crossed in its window. One signal a window: a higher threshold
    replaces a lower one. Critical from 100 %, warning from 80 %, else info."""
    severity: Severity = "critical" if crossed >= 100 else "warning" if crossed >= 80 else "info"
    share = f"{spent / limit:.0%}" if limit else "all"
    place = agent or project or org
    return Signal(
        id=f"bu-{digest(window_key)}",
        kind="budget",
        severity=severity,
        begins_at=window_start,
        ends_at=window_end,
        headline=f"{place}: {share} of the {period} {kind} budget of {limit.normalize():,f} used",
        org=org,
        project=project,
        agent=agent,
        metric=kind,
        subject=window_key,
        level=float(crossed),
        score=min(float(crossed), 100.0),
        observed=float(spent),
        expected=float(limit),
        cost_effect=spent - limit if kind == "cost" and spent > limit else None,
    )


def lasting_signal(
    kind: Literal["run_failure", "failed_check", "stale_source", "sync_conflict"],
    subject: str,
    occurrence: str,
    begins_at: datetime,
    seen_at: datetime,
    headline: str,
    severity: Severity = "critical",
    *,
    source: str = "",
    org: str = "",
    project: str = "",
) -> Signal:
    """Something that lasts until it is reported over: a job whose last run failed, a source that is silent.

    ``subject`` is what it is about; ``occurrence`` tells one case of it from the next (a run, a day).
    """
    return Signal(
        id=f"{kind[:2]}-{digest(subject, occurrence)}",
        kind=kind,
        severity=severity,
        begins_at=begins_at,
        ends_at=max(seen_at, begins_at),
        headline=headline,
        org=org,
        project=project,
        subject=subject,
        source=source,
        level=rank(severity),
        score=100.0 if severity == "critical" else 60.0,
        open_ended=True,
    )


def stale_source(source: str, last_event: datetime, now: datetime, org: str = "") -> Signal:
    """A source that sends nothing: the usage that seems to be missing is not known to be missing."""
    hours = (now - last_event).total_seconds() / 3600
    headline = f"The source {source} has sent nothing for {hours:.0f} h; usage since {last_event:%Y-%m-%d %H:%M} UTC is not known"
    return lasting_signal(
        "stale_source", source, last_event.isoformat(), last_event, now, headline, "warning", source=source, org=org
    )
