"""What may be changed through the dashboard: the inputs, the deeds and what is said of each.

Here: one function a deed over the alert store and the verdicts on anomalies, and that each is logged before it is done: who,
when, what. What is another's is answered like what is not there. Whether anything may be changed at all, the roles and the
transport are decided elsewhere; what an acknowledgement or a silence does is the alerting room's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import Field

from obs_pipeline.alerting import incidents, records
from obs_pipeline.alerting.feedback import Said, give_feedback
from obs_pipeline.alerting.models import Incident
from obs_pipeline.alerting.silences import hidden_by, new_silence
from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import AccessDenied, Principal, ReadingRole
from obs_pipeline.dashboard.answers.incidents import incident_shown, incident_to_see
from obs_pipeline.dashboard.snapshot import Reader
from obs_pipeline.detection.incidents import ended
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.access_log import AccessLog, AccessLogRow
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, AnomalyLabels

_PATTERN: Final = frozenset("*?!")


class IncidentAsked(q.Asked):
    incident: str = Field(
        alias="incidentId", min_length=1, max_length=80, description="An incident's or an anomaly's id."
    )


class ResolveAsked(IncidentAsked):
    reason: str = Field(default="", max_length=2000, description="Why it is over.")
    verdict: Literal["real", "false_positive"] | None = Field(default=None, description="Whether it was worth telling.")


class SilenceAsked(q.Asked):
    org: str | None = Field(
        default=None, alias="orgId", min_length=1, max_length=500, description="Only this organisation."
    )
    project: str | None = Field(
        default=None, alias="projectId", min_length=1, max_length=500, description="Only this project; * is a wildcard."
    )
    agent: str | None = Field(
        default=None, alias="agentId", min_length=1, max_length=500, description="Only this agent; * is a wildcard."
    )
    metric: Literal["cost", "tokens", "errors", "latency"] | None = None
    hours: float = Field(gt=0, le=90 * 24, description="How long, from now.")
    reason: str = Field(min_length=1, max_length=2000, description="Why nobody needs to hear of it.")


class EndSilenceAsked(q.Asked):
    silence: str = Field(alias="silenceId", min_length=1, max_length=40, description="The id of the silence.")


class LabelAsked(q.Asked):
    anomaly: str = Field(alias="anomalyId", min_length=4, max_length=40, description="The anomaly's whole id.")
    verdict: Literal["real", "false_positive", "planned"]
    note: str = Field(default="", max_length=2000, description="What is known of it.")


class IncidentChanged(q.Shown):
    incident: q.IncidentShown
    acknowledged_by: str
    resolution: str


class Silenced(q.Shown):
    """``hides`` is how many of the open incidents are not told of any more."""

    id: str
    matchers: dict[str, list[str]]
    ends_at: q.Moment
    hides: int


class SilenceEnded(q.Shown):
    id: str
    ended_at: q.Moment


class Labelled(q.Shown):
    anomaly: str
    verdict: str
    note: str
    by: str


@dataclass(frozen=True, slots=True)
class Acting:
    """What a deed is done with: the caller, its rows of the lake, the stores, and now (UTC without a zone)."""

    principal: Principal
    reader: Reader
    alerts: AlertStore
    labels: AnomalyLabels
    log: AccessLog
    now: datetime

    def note(self, action: str, subject: str, asked: q.Asked) -> None:
        detail = asked.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.log.add(deed(self.principal, action, subject, detail, self.now))


def deed(who: Principal, action: str, subject: str, detail: Mapping[str, Any], now: datetime) -> AccessLogRow:
    """What is kept of something that somebody does."""
    return AccessLogRow(now, who.token, who.name[:200], who.role, who.org, action, subject[:200], detail)


@dataclass(frozen=True, slots=True)
class Action:
    """A name under which to act, who may, what is put in and what comes out. ``told`` is what was done in a sentence."""

    name: str
    title: str
    description: str
    role: ReadingRole
    asked: type[q.Asked]
    answer: type[q.Shown]
    function: Callable[[Acting, Any], q.Shown]
    told: Callable[[Any], str]


def acknowledge(acting: Acting, asked: IncidentAsked) -> IncidentChanged:
    """Somebody looks after it: no reminders and no escalation any more."""
    return _changed(
        acting,
        "acknowledge_incident",
        asked,
        lambda one: incidents.acknowledged(one, acting.principal.name, acting.now),
    )


def resolve(acting: Acting, asked: ResolveAsked) -> IncidentChanged:
    """It is over; the verdict, if there is one, counts for how good alerting is, and for each of its anomalies."""
    name = acting.principal.name
    changed = _changed(
        acting, "resolve_incident", asked, lambda one: incidents.resolved(one, name, acting.now, asked.reason)
    )
    if asked.verdict is not None:
        said = Said(asked.verdict, name[:200], asked.reason, acting.now)
        give_feedback(acting.alerts, acting.labels, changed.incident.id, said)
    return changed


def silence(acting: Acting, asked: SilenceAsked) -> Silenced:
    """Some incidents are not told for a while. They are found, listed and explained as ever."""
    made = new_silence(
        _matchers(acting.principal, asked),
        author=acting.principal.name[:200],
        reason=asked.reason,
        starts_at=acting.now,
        ends_at=acting.now + timedelta(hours=asked.hours),
        now=acting.now,
    )
    acting.note("silence", made.id, asked)
    acting.alerts.add_silence(records.silence_row(made, acting.now))
    open_ones = [records.incident_of(row) for row in acting.alerts.incidents(("open", "acknowledged"))]
    own = [one for one in open_ones if acting.principal.sees(one.org or None, one.project or None)]
    matchers = {label: list(patterns) for label, patterns in made.matchers.items()}
    return Silenced(id=made.id, matchers=matchers, ends_at=made.ends_at, hides=len(hidden_by(made, own)))


def end_silence(acting: Acting, asked: EndSilenceAsked) -> SilenceEnded:
    """A silence of the caller's own organisation and projects ends now."""
    found = next((row for row in acting.alerts.silences(acting.now) if row.id == asked.silence), None)
    if found is None or not _owns(acting.principal, records.silence_of(found).matchers):
        raise q.BadQuestion(f"silenceId: there is no silence {asked.silence!r} in force that you may end.")
    acting.note("end_silence", found.id, asked)
    acting.alerts.end_silence(found.id, acting.now)
    return SilenceEnded(id=found.id, ended_at=acting.now)


def label(acting: Acting, asked: LabelAsked) -> Labelled:
    """What somebody knows of an anomaly: later scores of its series heed it."""
    query = "SELECT org, project, agent, metric, grain, timestamp, context FROM {} WHERE id = $id"
    tables = ("onsets", "anomalies")  # one that went on is meant to its end; the row of a later day can be meant too
    found = next(
        (rows for table in tables if (rows := acting.reader.rows(query.format(table), {"id": asked.anomaly}))), []
    )
    if len(found) != 1:
        raise q.BadQuestion(f"anomalyId: there is no anomaly {asked.anomaly!r} that you may see.")
    acting.note("label_anomaly", asked.anomaly, asked)
    place = dict(found[0])
    ends = ended(place["timestamp"], place["grain"], json.loads(place.pop("context")))
    author = acting.principal.name[:200]
    acting.labels.add(
        [AnomalyLabel(asked.anomaly, asked.verdict, author=author, note=asked.note, at=acting.now, ends=ends, **place)]
    )
    return Labelled(anomaly=asked.anomaly, verdict=asked.verdict, note=asked.note, by=author)


ACTIONS: Final[Mapping[str, Action]] = {
    action.name: action
    for action in (
        Action(
            "acknowledge_incident",
            "Acknowledge an incident",
            "Say that you look after an incident: no reminders and no escalation any more.",
            "editor",
            IncidentAsked,
            IncidentChanged,
            acknowledge,
            lambda done: f"{done.incident.id} is {done.incident.status}.",
        ),
        Action(
            "resolve_incident",
            "Resolve an incident",
            "Say that an incident is over, why, and whether it was worth telling.",
            "editor",
            ResolveAsked,
            IncidentChanged,
            resolve,
            lambda done: f"{done.incident.id} is {done.incident.status}.",
        ),
        Action(
            "silence",
            "Silence",
            "Do not tell of some incidents for a while; they are found and listed as ever.",
            "editor",
            SilenceAsked,
            Silenced,
            silence,
            lambda done: f"{done.id} hides {done.hides} open incidents until {done.ends_at:%Y-%m-%d %H:%M} UTC.",
        ),
        Action(
            "end_silence",
            "End a silence",
            "Let a silence end now.",
            "editor",
            EndSilenceAsked,
            SilenceEnded,
            end_silence,
            lambda done: f"The silence {done.id} has ended.",
        ),
        Action(
            "label_anomaly",
            "Label an anomaly",
            "Say that an anomaly is real, false or planned; later scores of its series heed it.",
            "editor",
            LabelAsked,
            Labelled,
            label,
            lambda done: f"{done.anomaly} is {done.verdict}.",
        ),
    )
}


def _changed(
    acting: Acting, action: str, asked: IncidentAsked, change: Callable[[Incident], Incident]
) -> IncidentChanged:
    """Change an incident, unless it is over. Read and kept while no pass decides, so that neither undoes the other."""
    row = incident_to_see(acting.alerts, acting.principal, asked.incident)
    acting.note(action, row.id, asked)
    with acting.alerts.deciding(acting.now) as ledger:
        incident = records.incident_of(acting.alerts.incident(row.id) or row)
        if not incident.active:
            raise q.BadQuestion(f"incidentId: {incident.id} is over: {incident.resolution or incident.status}.")
        changed = change(incident)
        ledger.keep_incidents([records.incident_row(changed)])
    shown = incident_shown(records.incident_row(changed))
    return IncidentChanged(incident=shown, acknowledged_by=changed.acknowledged_by, resolution=changed.resolution)


def _matchers(principal: Principal, asked: SilenceAsked) -> dict[str, str | tuple[str, ...]]:
    """What is asked for, never more than the caller's own organisation and projects."""
    given = {name: getattr(asked, name) for name in ("org", "project", "agent", "metric")}
    matchers: dict[str, str | tuple[str, ...]] = {name: value for name, value in given.items() if value is not None}
    if not matchers:
        raise q.BadQuestion("agentId, projectId, metric: name what to be silent of; a silence of everything hides all.")
    if principal.org is not None:
        if asked.org not in (None, principal.org):
            raise AccessDenied(f"The token of {principal.name} is bound to another organisation.")
        matchers["org"] = _exactly(principal.org)
    if principal.projects:
        if asked.project is not None and asked.project not in principal.projects:
            raise AccessDenied(f"The token of {principal.name} is bound to other projects; name one of them.")
        matchers["project"] = tuple(map(_exactly, [asked.project] if asked.project else principal.projects))
    return matchers


def _exactly(name: str) -> str:
    if _PATTERN & set(name):
        raise NotExact(
            f"{name!r} would mean others too in a silence; make it on the machine: obs-pipeline alerts silence"
        )
    return name


class NotExact(ObsError):
    """A name that, as a pattern, means more than itself."""


def _owns(principal: Principal, matchers: Mapping[str, tuple[str, ...]]) -> bool:
    own_org = principal.org is None or tuple(matchers.get("org", ())) == (principal.org,)
    projects = set(matchers.get("project", ()))
    return own_org and (not principal.projects or (bool(projects) and projects <= set(principal.projects)))
