"""What was found wrong, in the one shape that incidents are made of.

Holds one constructor a kind: an anomaly, a budget's threshold, a run or a check that failed, a file that was refused, a
source that is silent, a sync that met a conflict. They take plain values, so that this room knows none of those it
hears from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from obs_pipeline.alerting.models import Kind, Severity, Signal, digest, rank
from obs_pipeline.alerting.wording import amount

_GRAINS: Final[Mapping[str, timedelta]] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_LONGEST: Final = 300


def anomaly_signal(anomaly: Mapping[str, Any], team: str = "") -> Signal:
    """An anomaly as the lake keeps it: a row of its table, with ``context`` as text or left out.

    The hours of one incident are one anomaly: then the context says until when, and what it cost in all.
    """
    begins, context = anomaly["timestamp"], json.loads(anomaly.get("context") or "{}")
    until = context.get("until")
    observed, expected = anomaly["observed"], anomaly["baseline"]
    rises = expected is None or observed >= expected
    effect = None
    if anomaly["metric"] == "cost" and expected is not None:
        effect = Decimal(str(round(context.get("excess", observed - expected), 9)))
    return Signal(
        id=anomaly["id"],
        kind="anomaly",
        severity=anomaly["severity"],
        begins_at=begins,
        ends_at=datetime.fromisoformat(until) if until else begins + _GRAINS[anomaly["grain"]],
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
        page=f"assets/anomalies?view=partitions&partition={begins:%Y-%m-%d}",
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
    allowed = amount(float(limit), "cost") if kind == "cost" else f"{limit.normalize():,f}"
    place = agent or project or org
    return Signal(
        id=f"bu-{digest(window_key)}",
        kind="budget",
        severity=severity,
        begins_at=window_start,
        ends_at=window_end,
        headline=f"{place}: {share} of the {period} {kind} budget of {allowed} used",
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
        page="assets/budget_status",
    )


def job_subject(job: str) -> str:
    """What the failures of a job are about; its next good run reports this over."""
    return f"job:{job}"


def check_subject(asset: str, check: str) -> str:
    return f"check:{asset}/{check}"


def file_subject(name: str) -> str:
    return f"file:{name}"


SYNC: Final = "policies"
"""What the conflicts of a sync are about; the next sync without one reports this over."""


def failed_run(job: str, run_id: str, at: datetime, error: str) -> Signal:
    """A run that failed, with the first line of why."""
    name = "A run started by hand" if job.startswith("__") else f"The job {job}"
    headline = f"{name} failed: {_first_line(error) or 'no reason is known'}"
    return _lasting(
        "run_failure", job_subject(job), run_id, at, at, headline, "critical", source=job, page=f"runs/{run_id}"
    )


def failed_check(asset: str, check: str, run_id: str, at: datetime, expected: str, offences: int) -> Signal:
    """A check that does not stop the batch and does not hold. ``expected`` is the sentence that should be true."""
    count = f"{offences:,} finding{'' if offences == 1 else 's'}" if offences else "fails"
    headline = f"Check {check} of {asset}: {count}. What should hold: {_first_line(expected).rstrip('.')}"
    page = f"assets/{asset}?view=checks&checkDetail={check}"
    return _lasting("failed_check", check_subject(asset, check), run_id, at, at, headline, "warning", page=page)


def refused_file(name: str, reason: str, at: datetime) -> Signal:
    """A file in the landing folder that cannot be read; its usage is missing until it lands."""
    headline = f"The file {name} could not be taken in: {_first_line(reason)}"
    occurrence = at.isoformat()
    return _lasting(
        "refused_file", file_subject(name), occurrence, at, at, headline, "warning", page="assets/usage_files"
    )


def sync_conflict(messages: Sequence[str], at: datetime) -> Signal:
    """Policies that contradict each other, so that a sync was stopped. ``messages`` says how."""
    more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
    headline = f"The policies were not put into force: {_first_line(messages[0])}{more}"
    return _lasting("sync_conflict", SYNC, at.isoformat(), at, at, headline, "warning", page="assets/policies")


def stale_source(source: str, silent_since: datetime, last_event: datetime | None, now: datetime) -> Signal:
    """A source that sends nothing: the usage that seems to be missing is not known to be missing."""
    hours = (now - silent_since).total_seconds() / 3600
    unknown = f"usage since {last_event:%Y-%m-%d %H:%M} UTC is not known" if last_event else "its usage is not known"
    headline = f"The source {source} has sent nothing for {hours:.0f} h; {unknown}"
    occurrence = silent_since.isoformat()
    return _lasting(
        "stale_source",
        source,
        occurrence,
        silent_since,
        now,
        headline,
        "warning",
        source=source,
        page="assets/usage_files",
    )


def _lasting(
    kind: Kind,
    subject: str,
    occurrence: str,
    begins_at: datetime,
    seen_at: datetime,
    headline: str,
    severity: Severity,
    *,
    source: str = "",
    page: str = "",
) -> Signal:
    """Something that lasts until it is reported over. ``subject`` is what it is about; ``occurrence`` tells one case of
    it from the next (a run, the moment it began)."""
    return Signal(
        id=f"{kind[:2]}-{digest(subject, occurrence)}",
        kind=kind,
        severity=severity,
        begins_at=begins_at,
        ends_at=max(seen_at, begins_at),
        headline=headline,
        subject=subject,
        source=source,
        level=rank(severity),
        score=100.0 if severity == "critical" else 60.0,
        open_ended=True,
        page=page,
    )


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:_LONGEST] if lines else ""
