"""Routes with the incidents that take them: what the stages of a pass work on.

Holds the lane of a route and of a tracker, the groups that an incident is told in, and what receivers were told by other
routes. What becomes of the incidents in a lane is decided in ``pipeline``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from obs_pipeline.alerting.matching import Labelled, Mask
from obs_pipeline.alerting.models import (
    TASK_CHANNEL,
    Incident,
    Notification,
    Outcome,
    RateLimit,
    Receiver,
    Route,
    TaskTemplate,
    Trace,
    digest,
    rank,
)
from obs_pipeline.alerting.news import TASKS, Memory, News
from obs_pipeline.alerting.routes import Routes

DAY: Final = timedelta(hours=24)


@dataclass(frozen=True)
class Past:
    """What earlier passes decided: memories by (route, incident id), and when each route's messages of the last 24
    hours were decided (digests not among them)."""

    memory: Mapping[tuple[str, str], Memory] = field(default_factory=dict)
    sent: Mapping[str, Sequence[datetime]] = field(default_factory=dict)


@dataclass(slots=True)
class Candidate:
    """An incident on a route, with the group it is told in. ``news`` is what is to be told, ``trace`` how it ended."""

    incident: Incident
    memory: Memory
    thread: str
    news: News | None = None
    trace: Trace | None = None


class Elsewhere:
    """What each receiver was told of each incident, by whichever route: nobody needs to hear the same twice."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], dict[str, Memory]] = defaultdict(dict)
        self._escalated: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)

    def note(self, receivers: Iterable[Receiver], memory: Memory) -> None:
        for receiver in receivers:
            self._told[memory.incident_id, receiver.name][memory.route] = memory

    def note_escalation(self, receivers: Iterable[Receiver], memory: Memory) -> None:
        for receiver in receivers:
            self._escalated[memory.incident_id, receiver.name][memory.route] = memory.episode

    def told_by(self, receiver: Receiver, incident: Incident, memory: Memory) -> Memory | None:
        """What another route told the receiver that the route of ``memory`` is about to tell; None if none did."""
        for route, told in self._told.get((incident.id, receiver.name), {}).items():
            newer = told.told_at is not None and (memory.told_at is None or told.told_at > memory.told_at)
            if route != memory.route and newer and told.is_up_to_date(incident):
                return told
        return None

    def escalated_by(self, receiver: Receiver, incident: Incident, memory: Memory) -> str:
        """The other route that escalated the present episode to the receiver; empty if none did."""
        escalated = self._escalated.get((incident.id, receiver.name), {})
        return next((route for route, of in escalated.items() if route != memory.route and of == incident.episode), "")


@dataclass
class Lane:
    """One route with the incidents that take it, on their way through the stages.

    ``sent`` are the times of its messages in the last 24 hours, ``quiet`` the quiet time that is on and its end, ``told``
    when each group was last told. ``elsewhere`` is shared by all lanes of a pass.
    """

    route: Route
    candidates: list[Candidate]
    now: datetime
    sent: list[datetime]
    quiet: tuple[str, datetime] | None
    escalation: tuple[Receiver, ...]
    told: Mapping[str, datetime]
    elsewhere: Elsewhere
    notifications: list[Notification] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)

    def open(self) -> Iterator[Candidate]:
        """Those that no stage has decided about."""
        return (one for one in self.candidates if one.trace is None)

    def end(
        self,
        one: Candidate,
        outcome: Outcome,
        stage: str,
        reason: str,
        *,
        by: str = "",
        until: datetime | None = None,
        keys: tuple[str, ...] = (),
    ) -> None:
        one.trace = Trace(one.incident.id, self.route.name, outcome, stage, reason, self.now, by, until, keys)


def with_task_lanes(taken: Iterable[tuple[Route, Mask]]) -> Iterator[tuple[Route, Mask]]:
    """The routes, and behind them one lane a tracker; an incident's task follows the first route that wants one."""
    wanted: dict[str, list[tuple[Route, TaskTemplate, Mask]]] = defaultdict(list)
    for route, mask in taken:
        yield route, mask
        if route.create_task is not None:
            wanted[route.create_task.tracker].append((route, route.create_task, mask))
    for lanes in wanted.values():
        has_one = np.zeros(len(lanes[0][2]), dtype=np.bool_)
        for route, template, mask in lanes:
            yield _task_route(route, template), mask & ~has_one
            has_one |= mask


def _task_route(route: Route, template: TaskTemplate) -> Route:
    options = {
        **template.options,
        "tracker": template.tracker,
        "priority": template.priority,
        "assignee": template.assignee,
        "labels": list(template.labels),
        "route": route.name,
    }
    name = f"{TASKS}{template.tracker}"
    return replace(
        route,
        name=name,
        receivers=(Receiver(name, TASK_CHANNEL, options),),
        group_by=("incident",),
        group_wait=timedelta(),
        group_interval=timedelta(),
        repeat_interval=None,
        mute_times=(),
        rate_limit=RateLimit(),
        escalation=None,
    )


def lane_of(
    routes: Routes, route: Route, mask: Mask, labelled: Labelled, past: Past, elsewhere: Elsewhere, now: datetime
) -> Lane:
    """A route on its way through a pass; notes in ``elsewhere`` what it told before."""
    candidates = []
    for place in np.flatnonzero(mask).tolist():
        incident = labelled.incidents[place]
        memory = past.memory.get((route.name, incident.id)) or Memory(route.name, incident.id)
        candidates.append(Candidate(incident, memory, ""))
    threads: dict[tuple[str, ...], str] = {}
    for one in candidates:
        key = group_of(route, one.incident)
        one.thread = threads.get(key) or threads.setdefault(key, digest(route.name, route.group_by, key))
    ends = [(name, end) for name in route.mute_times if (end := routes.quiet_times[name].until(now)) is not None]
    receivers = route.escalation.receivers if route.escalation else ()
    sent = [at for at in past.sent.get(route.name, ()) if at > now - DAY]
    quiet = max(ends, key=lambda one: one[1]) if ends else None
    told: dict[str, datetime] = {}
    for one in candidates:
        if one.memory.told_at is not None:
            told[one.thread] = max(told.get(one.thread, one.memory.told_at), one.memory.told_at)
    escalation = tuple(routes.receivers[name] for name in receivers)
    for one in candidates:
        if one.memory.state:
            elsewhere.note(route.receivers, one.memory)
        if one.memory.escalated:
            elsewhere.note_escalation(escalation, one.memory)
    return Lane(route, candidates, now, sent, quiet, escalation, told, elsewhere)


def group_of(route: Route, incident: Incident) -> tuple[str, ...]:
    """What incidents of one group have in common on this route."""
    return tuple(incident.id if name == "incident" else getattr(incident, name) for name in route.group_by)


def groups_of(lane: Lane) -> list[list[Candidate]]:
    """What has news, group by group; gravest first and then oldest, so that a limit holds back what matters least."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    for one in lane.open():
        groups[one.thread].append(one)
    return sorted(
        groups.values(),
        key=lambda group: (
            -max(rank(one.incident.severity) for one in group),
            min(one.incident.opened_at for one in group),
            group[0].thread,
        ),
    )
