"""Incidents, and every decision about whom to tell of one. They are read from the ledger, not the lake."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from obs_pipeline.alerting import records
from obs_pipeline.alerting.wording import title_of
from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import Principal
from obs_pipeline.dashboard.answers.asking import (
    PLACE,
    Asking,
    Rows,
    page,
    page_start,
    rows_about,
    rows_at,
)
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import IncidentRow, TraceRow

_TOLD: Final = 20_000
"""Characters of decisions that a reader can take in."""


def list_incidents(asking: Asking, asked: q.IncidentsAsked) -> q.Incidents:
    """Incidents, the most recently changed or the worst first."""
    place = {
        # As the ledger writes it: what has no name is empty there.
        name: "" if value == q.UNATTRIBUTED else value
        for name in PLACE
        if (value := getattr(asked, name)) is not None
    }
    own = ((asked.status,) if asked.status else (), asking.principal.org, asking.principal.projects, place)
    by_severity, newest = asking.alerts.incident_counts(*own)
    start, mark = page_start(asking, asked, str(newest))
    worst_first = asked.order == "worst"
    shown = asking.alerts.incident_page(*own, asked.limit, start, worst_first=worst_first)
    return q.Incidents(
        **asking.told(asking.window("month", None), rows_about(asked, PLACE)),
        **page(sum(by_severity.values()), start, len(shown), mark),
        by_severity=by_severity,
        incidents=[incident_shown(row) for row in shown],
    )


def why_notified(asking: Asking, asked: q.WhyAsked) -> q.Why:
    """Every decision about an incident: who was told, and what held a message back."""
    found = incident_to_see(asking.alerts, asking.principal, asked.incident)
    store = asking.alerts
    every = store.traces(found.id)
    decisions = [
        q.Decision(at=trace.at, route=trace.route, outcome=trace.outcome, detail=json.loads(trace.content))
        for trace in every[-_newest(every) :]
    ]
    told = asking.told(asking.window("month", None), _rows_of(found))
    tasks = [
        q.TaskShown(tracker=one.tracker, id=one.task_id, url=one.url, state=one.state) for one in store.tasks(found.id)
    ]
    return q.Why(**told, total=len(every), incident=incident_shown(found), tasks=tasks, decisions=decisions)


def incident_to_see(store: AlertStore, principal: Principal, name: str) -> IncidentRow:
    """The incident of this id, or that of an anomaly's id.

    Raises:
        BadQuestion: it is not there, or another's, which is answered alike.
    """
    found = store.incident(name) or store.incident(store.incident_of_signal(name) or "")
    if found is None or not principal.sees(found.org or None, found.project or None):
        raise q.BadQuestion(f"incidentId: there is no incident {name!r} that you may see.")
    return found


def _newest(traces: Sequence[TraceRow]) -> int:
    """How many of the newest may be told: the last, and those before it that a reader can take in."""
    sizes = accumulate(len(trace.content) for trace in reversed(traces[-q.PAGE :]))
    return max(sum(size <= _TOLD for size in sizes), 1)


def _rows_of(row: IncidentRow) -> Rows:
    """The usage that an incident is about, as far as it names a place."""
    return rows_at({name: value for name in PLACE if (value := getattr(row, name))})


def incident_shown(row: IncidentRow) -> q.IncidentShown:
    """An incident as it is told, from the ledger's row of it."""
    whole = records.incident_of(row)
    found = {name: getattr(whole, name) for name in q.IncidentShown.model_fields if name != "title"}
    named = {name: found[name] or None for name in (*PLACE, "acknowledged_by")}
    return q.IncidentShown(**{**found, **named, "title": title_of(whole)})
