"""What is told to whom, now: one pass over all incidents and routes.

The stages are group → inhibit → silence → de-duplicate → wait and quiet times → rate limit, in :func:`decide`. Each is a
pure decision with a reason; the clock, what was told before and what was sent before are passed in. Nothing is kept or
sent here. Of every incident and route it takes there is exactly one :class:`Trace`; routes that an incident does not
take have the outcome ``not_matched`` and no trace is kept of them (``route_cases.why_not`` tells why).

What the stages promise
-----------------------
- The order of incidents, silences and memories changes nothing.
- A second pass at the same time, knowing what the first decided, sends nothing.
- What a rate limit or a quiet time holds back is in the route's next digest, whether it is over by then or not. A
  critical incident passes the limit; nothing passes the de-duplication.
- What was over before anyone was told is told to nobody, unless it was held back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

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
    State,
    TaskTemplate,
    Trace,
    digest,
    rank,
)
from obs_pipeline.alerting.routes import Inhibition, Routes, taken_routes
from obs_pipeline.alerting.silences import Silence

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(hours=24)
TASKS: Final = "task:"
"""The lane of a tracker is called ``task:`` and the tracker, whichever route wants the task: one task an incident."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one route has told of one incident, and whether it holds something back.

    ``state`` is what was told last, empty if nothing was. ``level``, ``revision`` and ``episode`` are as they were
    told. ``first_told_at`` is when the current episode was first told. ``thread`` is the group it was told in.
    """

    route: str
    incident_id: str
    state: Literal["", "firing", "resolved"] = ""
    level: float = 0.0
    revision: int = 0
    episode: int = 0
    first_told_at: datetime | None = None
    told_at: datetime | None = None
    thread: str = ""
    escalated: bool = False
    held_since: datetime | None = None
    held_by: str = ""


@dataclass(frozen=True)
class Past:
    """What earlier passes decided: memories by (route, incident id), and when each route's messages of the last 24
    hours were decided (digests not among them)."""

    memory: Mapping[tuple[str, str], Memory] = field(default_factory=dict)
    sent: Mapping[str, Sequence[datetime]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decisions:
    """The outcome of a pass: messages for the outbox, memories that changed, a trace an incident and route taken."""

    notifications: tuple[Notification, ...]
    memory: tuple[Memory, ...]
    traces: tuple[Trace, ...]


@dataclass(frozen=True, slots=True)
class News:
    """Something about an incident that its route has not told. ``occasion`` tells apart what may be told repeatedly."""

    state: Literal["firing", "resolved"]
    reason: str
    occasion: str = ""


@dataclass(slots=True)
class _Candidate:
    incident: Incident
    memory: Memory
    thread: str
    news: News | None = None
    trace: Trace | None = None


@dataclass
class _Lane:
    """One route with the incidents that take it, on their way through the stages.

    ``sent`` are the times of its messages in the last 24 hours, ``quiet`` the quiet time that is on and its end, ``told``
    when each group was last told.
    """

    route: Route
    candidates: list[_Candidate]
    now: datetime
    sent: list[datetime]
    quiet: tuple[str, datetime] | None
    escalation: tuple[Receiver, ...]
    told: Mapping[str, datetime]
    notifications: list[Notification] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)

    def open(self) -> Iterator[_Candidate]:
        """Those that no stage has decided about."""
        return (one for one in self.candidates if one.trace is None)

    def end(
        self,
        one: _Candidate,
        outcome: Outcome,
        stage: str,
        reason: str,
        *,
        by: str = "",
        until: datetime | None = None,
        keys: tuple[str, ...] = (),
    ) -> None:
        one.trace = Trace(one.incident.id, self.route.name, outcome, stage, reason, self.now, by, until, keys)


def decide(
    routes: Routes, incidents: Iterable[Incident], silences: Iterable[Silence], past: Past, now: datetime
) -> Decisions:
    """One pass. ``now`` is UTC without a zone; ``incidents`` are all active ones and those lately resolved."""
    labelled = Labelled(sorted(incidents, key=lambda one: one.id))
    inhibited = inhibitors(labelled, routes.inhibitions)
    silenced = silencers(labelled, silences, now)
    lanes = [
        lane
        for route, mask in _with_task_lanes(taken_routes(routes, labelled))
        if (lane := _lane(routes, route, mask, labelled, past, now)).candidates
    ]
    for lane in lanes:
        _inhibit(lane, inhibited)
        _silence(lane, silenced)
        _deduplicate(lane)
        _escalate(lane)
        _send_digest(lane)
        _keep_holding(lane)
        for group in _groups(lane):
            _wait(lane, group) or _keep_quiet(lane, group) or _hold(lane, group) or _send(lane, group)
    return Decisions(
        tuple(message for lane in lanes for message in lane.notifications),
        tuple(memory for lane in lanes for memory in lane.memory),
        tuple(one.trace for lane in lanes for one in lane.candidates if one.trace is not None),
    )


# -- lanes and groups -------------------------------------------------------------------------------------------------


def _with_task_lanes(taken: Iterable[tuple[Route, Mask]]) -> Iterator[tuple[Route, Mask]]:
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


def _lane(routes: Routes, route: Route, mask: Mask, labelled: Labelled, past: Past, now: datetime) -> _Lane:
    candidates = []
    for place in np.flatnonzero(mask).tolist():
        incident = labelled.incidents[place]
        memory = past.memory.get((route.name, incident.id)) or Memory(route.name, incident.id)
        candidates.append(_Candidate(incident, memory, ""))
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
    return _Lane(route, candidates, now, sent, quiet, tuple(routes.receivers[name] for name in receivers), told)


def group_of(route: Route, incident: Incident) -> tuple[str, ...]:
    """What incidents of one group have in common on this route."""
    return tuple(incident.id if name == "incident" else getattr(incident, name) for name in route.group_by)


def _groups(lane: _Lane) -> list[list[_Candidate]]:
    """What has news, group by group; gravest first and then oldest, so that a limit holds back what matters least."""
    groups: dict[str, list[_Candidate]] = defaultdict(list)
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


# -- inhibit, silence -------------------------------------------------------------------------------------------------


def inhibitors(labelled: Labelled, inhibitions: Sequence[Inhibition]) -> dict[str, tuple[str, str]]:
    """(rule, incident that inhibits) of every incident that is inhibited. An incident never inhibits its like: what a
    rule means as source and as target is not inhibited by that rule."""
    found: dict[str, tuple[str, str]] = {}
    active = np.fromiter((one.active for one in labelled.incidents), np.bool_, len(labelled))
    for rule in inhibitions:
        meant = labelled.meant_by(rule.source)
        sources = np.flatnonzero(meant & active)
        targets = np.flatnonzero(labelled.meant_by(rule.target) & ~meant)
        if not len(sources) or not len(targets):
            continue
        keys = labelled.keys(rule.equal)
        first = {int(key): place for key, place in zip(keys[sources][::-1], sources[::-1], strict=True)}
        for target in targets[np.isin(keys[targets], keys[sources])].tolist():
            source = labelled.incidents[first[int(keys[target])]]
            found.setdefault(labelled.incidents[target].id, (rule.name, source.id))
    return found


def silencers(labelled: Labelled, silences: Iterable[Silence], now: datetime) -> dict[str, Silence]:
    """The silence in force that hides each incident that is hidden; of several the one that ends last."""
    found: dict[str, Silence] = {}
    for silence in sorted(silences, key=lambda one: (one.ends_at, one.id)):
        if silence.in_force(now):
            for place in np.flatnonzero(labelled.meant_by(silence.matchers)).tolist():
                found[labelled.incidents[place].id] = silence
    return found


def _inhibit(lane: _Lane, inhibited: Mapping[str, tuple[str, str]]) -> None:
    for one in lane.open() if inhibited else ():
        if one.incident.id in inhibited:
            rule, source = inhibited[one.incident.id]
            lane.end(one, "inhibited", "inhibit", f"{source} explains it ({rule})", by=source)


def _silence(lane: _Lane, silenced: Mapping[str, Silence]) -> None:
    for one in lane.open() if silenced else ():
        silence = silenced.get(one.incident.id)
        if silence is not None:
            reason = f"{silence.author}: {silence.reason}"
            lane.end(one, "silenced", "silence", reason, by=silence.id, until=silence.ends_at)


# -- de-duplicate -----------------------------------------------------------------------------------------------------


def _deduplicate(lane: _Lane) -> None:
    for one in lane.open():
        if not lane.route.receivers:
            lane.end(one, "no_receiver", "de-duplicate", "the route names no receiver")
            continue
        found = news_of(one.incident, one.memory, lane.route.repeat_interval, lane.now)
        if isinstance(found, News):
            one.news = found
        else:
            lane.end(one, "nothing_new", "de-duplicate", found)


def news_of(incident: Incident, memory: Memory, repeat: timedelta | None, now: datetime) -> News | str:
    """What the route has not told yet, or why there is nothing."""
    if incident.merged_into and not memory.route.startswith(TASKS):
        return f"became part of {incident.merged_into}"
    if memory.held_since is not None:
        state: Literal["firing", "resolved"] = "firing" if incident.active else "resolved"
        return News(state, f"held back by {memory.held_by}", _when(memory.held_since))
    if memory.state == "":
        return News("firing", "new") if incident.active else "over before anyone was told"
    if memory.state == "resolved":
        return _news_after_recovery(incident, memory)
    if not incident.active:
        return News("resolved", incident.resolution or "over")
    if incident.level > memory.level:
        return News("firing", f"grew to {_height(incident)}")
    if incident.revision > memory.revision:
        return News("firing", incident.correction or "corrected")
    if (
        incident.status == "open"
        and repeat is not None
        and memory.told_at is not None
        and memory.told_at + repeat <= now
    ):
        return News("firing", "still open and not acknowledged", _when(memory.told_at))
    return f"told at {_when(memory.told_at)}, nothing new since"


def _news_after_recovery(incident: Incident, memory: Memory) -> News | str:
    if incident.active:
        return News("firing", "came back", _when(memory.told_at))
    if incident.revision > memory.revision:
        return News("resolved", incident.correction or "corrected")
    return f"its end was told at {_when(memory.told_at)}"


def _height(incident: Incident) -> str:
    return f"{incident.level:g} %" if incident.kind == "budget" else incident.severity


def _when(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


# -- escalate, digest -------------------------------------------------------------------------------------------------


def _escalate(lane: _Lane) -> None:
    rule = lane.route.escalation
    if rule is None or lane.quiet is not None:
        return
    overdue: dict[str, list[_Candidate]] = defaultdict(list)
    for one in lane.candidates:
        told = one.memory.first_told_at
        settled = one.trace is not None and one.trace.outcome == "nothing_new"
        waiting = one.memory.state == "firing" and one.incident.status == "open" and not one.memory.escalated
        if settled and waiting and told is not None and told + rule.after <= lane.now:
            overdue[one.thread].append(one)
    for group in overdue.values():
        reason = f"nobody acknowledged within {_length(rule.after)}"
        keys = _notify(lane, group, "firing", reason, "escalation", lane.escalation)
        for one in group:
            lane.memory.append(replace(one.memory, escalated=True))
            lane.end(one, "sent", "escalate", reason, keys=keys)


def _length(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes // 60} h" if minutes and minutes % 60 == 0 else f"{minutes} min"


def _send_digest(lane: _Lane) -> None:
    """Tell everything held back in one message once the oldest of it has waited long enough."""
    held = [one for one in lane.open() if one.memory.held_since is not None]
    oldest = min((one.memory.held_since for one in held if one.memory.held_since is not None), default=None)
    if oldest is None or lane.quiet is not None or oldest + lane.route.digest_interval > lane.now:
        return
    reason = f"held back since {_when(oldest)} by {', '.join(sorted({one.memory.held_by for one in held}))}"
    thread = digest(lane.route.name, "digest")
    keys = _notify(lane, held, "digest", reason, _when(oldest), lane.route.receivers, thread)
    for one in held:
        _remember(lane, one)
        lane.end(one, "sent", "rate limit", f"in the digest of what was {reason}", keys=keys)


def _keep_holding(lane: _Lane) -> None:
    """What was held back stays so until the digest, unless it has become critical and nothing but the limit holds it."""
    for one in lane.open():
        since = one.memory.held_since
        if since is None:
            continue
        if lane.quiet is not None:
            name, end = lane.quiet
            lane.end(one, "muted", "quiet time", f"the quiet time {name} is on", by=name, until=end)
        elif not (one.incident.active and one.incident.severity == "critical"):
            reason = f"held back by {one.memory.held_by}, until the digest"
            lane.end(one, "held", "rate limit", reason, until=since + lane.route.digest_interval)


# -- wait, quiet times, rate limit, send ------------------------------------------------------------------------------


def _wait(lane: _Lane, group: list[_Candidate]) -> bool:
    """Whether the group is too young, or was told too recently, to be told of now."""
    told = lane.told.get(group[0].thread)
    if told is None:
        due = min(one.incident.opened_at for one in group) + lane.route.group_wait
        reason = "waits for others of its group"
    else:
        due = told + lane.route.group_interval
        reason = f"its group was told at {_when(told)}"
    if due <= lane.now:
        return False
    for one in group:
        lane.end(one, "waiting", "group", reason, until=due)
    return True


def _keep_quiet(lane: _Lane, group: list[_Candidate]) -> bool:
    if lane.quiet is None:
        return False
    name, end = lane.quiet
    for one in group:
        _keep_back(lane, one, f"the quiet time {name}")
        lane.end(one, "muted", "quiet time", f"the quiet time {name} is on", by=name, until=end)
    return True


def _hold(lane: _Lane, group: list[_Candidate]) -> bool:
    """Whether the rate limit holds the group back. One critical incident takes its whole group past it."""
    over = _over_limit(lane, messages=len({one.news.state for one in group if one.news}))
    if over is None or any(one.incident.severity == "critical" for one in group):
        return False
    for one in group:
        _keep_back(lane, one, over)
        until = lane.now + lane.route.digest_interval
        lane.end(one, "held", "rate limit", f"held back by {over}, until the digest", until=until)
    return True


def _over_limit(lane: _Lane, messages: int) -> str | None:
    limit = lane.route.rate_limit
    lately = sum(at > lane.now - HOUR for at in lane.sent)
    if limit.per_hour is not None and lately + messages > limit.per_hour:
        return f"the limit of {limit.per_hour} messages an hour"
    if limit.per_day is not None and len(lane.sent) + messages > limit.per_day:
        return f"the limit of {limit.per_day} messages a day"
    return None


def _keep_back(lane: _Lane, one: _Candidate, by: str) -> None:
    if one.memory.held_since is None:
        lane.memory.append(replace(one.memory, held_since=lane.now, held_by=by))


def _send(lane: _Lane, group: list[_Candidate]) -> bool:
    for state in ("firing", "resolved"):
        told = [one for one in group if one.news is not None and one.news.state == state]
        if told:
            reasons = list(dict.fromkeys(one.news.reason for one in told if one.news))
            occasion = "|".join(sorted({one.news.occasion for one in told if one.news}))
            keys = _notify(lane, told, state, "; ".join(reasons), occasion, lane.route.receivers)
            lane.sent.append(lane.now)
            for one in told:
                _remember(lane, one)
                lane.end(one, "sent", "rate limit", one.news.reason if one.news else "", keys=keys)
    return True


def _notify(
    lane: _Lane,
    told: Sequence[_Candidate],
    state: State,
    reason: str,
    occasion: str,
    receivers: Iterable[Receiver],
    thread: str = "",
) -> tuple[str, ...]:
    incidents = tuple(one.incident for one in told)
    group = {} if state == "digest" else dict(zip(lane.route.group_by, group_of(lane.route, incidents[0]), strict=True))
    versions = sorted((one.id, one.episode, one.level, one.revision) for one in incidents)
    keys = []
    for receiver in receivers:
        key = f"al-{digest(lane.route.name, receiver.name, state, versions, occasion)}"
        keys.append(key)
        lane.notifications.append(
            Notification(
                key, lane.route.name, receiver, incidents, state, reason, lane.now, group, thread or told[0].thread
            )
        )
    return tuple(keys)


def _remember(lane: _Lane, one: _Candidate) -> None:
    """Note that the incident was told as it is now."""
    incident, memory = one.incident, one.memory
    again = memory.state == "firing" and incident.active
    lane.memory.append(
        replace(
            memory,
            state="firing" if incident.active else "resolved",
            level=max(memory.level, incident.level) if again else incident.level,
            revision=incident.revision,
            episode=incident.episode,
            first_told_at=memory.first_told_at if again else lane.now,
            told_at=lane.now,
            thread=one.thread,
            escalated=memory.escalated and again,
            held_since=None,
            held_by="",
        )
    )
