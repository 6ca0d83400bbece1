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
- A receiver that several routes name hears of an incident once, from the first of them that tells it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from obs_pipeline.alerting.lanes import Candidate, Elsewhere, Lane, Past, group_of, groups_of, lane_of, with_task_lanes
from obs_pipeline.alerting.matching import Labelled
from obs_pipeline.alerting.models import Incident, Notification, Receiver, State, Trace, digest
from obs_pipeline.alerting.news import Memory, News, news_of, when
from obs_pipeline.alerting.routes import Inhibition, Routes, taken_routes
from obs_pipeline.alerting.silences import Silence

HOUR: Final = timedelta(hours=1)

Already = Callable[[Receiver, Incident, Memory], str]
"""The route that told a receiver of an incident before; empty if none did."""


@dataclass(frozen=True)
class Decisions:
    """The outcome of a pass: messages for the outbox, memories that changed, a trace an incident and route taken."""

    notifications: tuple[Notification, ...]
    memory: tuple[Memory, ...]
    traces: tuple[Trace, ...]


def decide(
    routes: Routes, incidents: Iterable[Incident], silences: Iterable[Silence], past: Past, now: datetime
) -> Decisions:
    """One pass. ``now`` is UTC without a zone; ``incidents`` are all active ones and those lately resolved."""
    labelled = Labelled(sorted(incidents, key=lambda one: one.id))
    inhibited = inhibitors(labelled, routes.inhibitions)
    silenced = silencers(labelled, silences, now)
    elsewhere = Elsewhere()
    lanes = [
        lane
        for route, mask in with_task_lanes(taken_routes(routes, labelled))
        if (lane := lane_of(routes, route, mask, labelled, past, elsewhere, now)).candidates
    ]
    for lane in lanes:
        _inhibit(lane, inhibited)
        _silence(lane, silenced)
        _deduplicate(lane)
        _escalate(lane)
        _send_digest(lane)
        _keep_holding(lane)
        for group in groups_of(lane):
            _wait(lane, group) or _keep_quiet(lane, group) or _hold(lane, group) or _send(lane, group)
    return Decisions(
        tuple(message for lane in lanes for message in lane.notifications),
        tuple(memory for lane in lanes for memory in lane.memory),
        tuple(one.trace for lane in lanes for one in lane.candidates if one.trace is not None),
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


def _inhibit(lane: Lane, inhibited: Mapping[str, tuple[str, str]]) -> None:
    for one in lane.open() if inhibited else ():
        if one.incident.id in inhibited:
            rule, source = inhibited[one.incident.id]
            lane.end(one, "inhibited", "inhibit", f"{source} explains it ({rule})", by=source)


def _silence(lane: Lane, silenced: Mapping[str, Silence]) -> None:
    for one in lane.open() if silenced else ():
        silence = silenced.get(one.incident.id)
        if silence is not None:
            reason = f"{silence.author}: {silence.reason}"
            lane.end(one, "silenced", "silence", reason, by=silence.id, until=silence.ends_at)


# -- de-duplicate -----------------------------------------------------------------------------------------------------


def _deduplicate(lane: Lane) -> None:
    for one in lane.open():
        if not lane.route.receivers:
            lane.end(one, "no_receiver", "de-duplicate", "the route names no receiver")
            continue
        found = news_of(one.incident, one.memory, lane.route.repeat_interval, lane.now)
        if not isinstance(found, News):
            lane.end(one, "nothing_new", "de-duplicate", found)
        elif tellers := _told_elsewhere(lane, one):
            # As told as by itself, when it was told: so that the next reminder is due when it would be.
            _remember(lane, one, max(at for _, at in tellers))
            route = tellers[0][0]
            lane.end(one, "nothing_new", "de-duplicate", f"already sent by route {route}", by=route)
        else:
            one.news = found


def _told_elsewhere(lane: Lane, one: Candidate) -> list[tuple[str, datetime]]:
    """For each receiver the route that told it and when; empty unless all of them know."""
    found = []
    for receiver in lane.route.receivers:
        told = lane.elsewhere.told_by(receiver, one.incident, one.memory)
        if told is None or told.told_at is None:
            return []
        found.append((told.route, told.told_at))
    return found


# -- escalate, digest -------------------------------------------------------------------------------------------------


def _escalate(lane: Lane) -> None:
    rule = lane.route.escalation
    if rule is None or lane.quiet is not None:
        return
    overdue: dict[str, list[Candidate]] = defaultdict(list)
    for one in lane.candidates:
        told = one.memory.first_told_at
        settled = one.trace is not None and one.trace.outcome == "nothing_new"
        waiting = one.memory.state == "firing" and one.incident.status == "open" and not one.memory.escalated
        if settled and waiting and told is not None and told + rule.after <= lane.now:
            overdue[one.thread].append(one)
    for group in overdue.values():
        reason = f"nobody acknowledged within {_length(rule.after)}"
        keys = _notify(lane, group, "firing", reason, "escalation", lane.escalation, lane.elsewhere.escalated_by)
        for one in group:
            memory = replace(one.memory, escalated=True)
            lane.memory.append(memory)
            lane.elsewhere.note_escalation(lane.escalation, memory)
            if one.incident.id in keys:
                lane.end(one, "sent", "escalate", reason, keys=keys[one.incident.id])


def _length(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes // 60} h" if minutes and minutes % 60 == 0 else f"{minutes} min"


def _send_digest(lane: Lane) -> None:
    """Tell everything held back in one message once the oldest of it has waited long enough."""
    held = [one for one in lane.open() if one.memory.held_since is not None]
    oldest = min((one.memory.held_since for one in held if one.memory.held_since is not None), default=None)
    if oldest is None or lane.quiet is not None or oldest + lane.route.digest_interval > lane.now:
        return
    reason = f"held back since {when(oldest)} by {', '.join(sorted({one.memory.held_by for one in held}))}"
    thread = digest(lane.route.name, "digest")
    keys = _notify(lane, held, "digest", reason, when(oldest), lane.route.receivers, _told_by(lane), thread)
    for one in held:
        _remember(lane, one, lane.now)
        lane.end(one, "sent", "send", f"in the digest of what was {reason}", keys=keys.get(one.incident.id, ()))


def _keep_holding(lane: Lane) -> None:
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


def _wait(lane: Lane, group: list[Candidate]) -> bool:
    """Whether the group is too young, or was told too recently, to be told of now."""
    told = lane.told.get(group[0].thread)
    if told is None:
        due = min(one.incident.opened_at for one in group) + lane.route.group_wait
        reason = "waits for others of its group"
    else:
        due = told + lane.route.group_interval
        reason = f"its group was told at {when(told)}"
    if due <= lane.now:
        return False
    for one in group:
        lane.end(one, "waiting", "group", reason, until=due)
    return True


def _keep_quiet(lane: Lane, group: list[Candidate]) -> bool:
    if lane.quiet is None:
        return False
    name, end = lane.quiet
    for one in group:
        _keep_back(lane, one, f"the quiet time {name}")
        lane.end(one, "muted", "quiet time", f"the quiet time {name} is on", by=name, until=end)
    return True


def _hold(lane: Lane, group: list[Candidate]) -> bool:
    """Whether the rate limit holds the group back. One critical incident takes its whole group past it."""
    over = _over_limit(lane, messages=len({one.news.state for one in group if one.news}))
    if over is None or any(one.incident.severity == "critical" for one in group):
        return False
    for one in group:
        _keep_back(lane, one, over)
        until = lane.now + lane.route.digest_interval
        lane.end(one, "held", "rate limit", f"held back by {over}, until the digest", until=until)
    return True


def _over_limit(lane: Lane, messages: int) -> str | None:
    limit = lane.route.rate_limit
    lately = sum(at > lane.now - HOUR for at in lane.sent)
    if limit.per_hour is not None and lately + messages > limit.per_hour:
        return f"the limit of {limit.per_hour} messages an hour"
    if limit.per_day is not None and len(lane.sent) + messages > limit.per_day:
        return f"the limit of {limit.per_day} messages a day"
    return None


def _keep_back(lane: Lane, one: Candidate, by: str) -> None:
    if one.memory.held_since is None:
        lane.memory.append(replace(one.memory, held_since=lane.now, held_by=by))


def _send(lane: Lane, group: list[Candidate]) -> bool:
    for state in ("firing", "resolved"):
        told = [one for one in group if one.news is not None and one.news.state == state]
        if told:
            reasons = list(dict.fromkeys(one.news.reason for one in told if one.news))
            occasion = "|".join(sorted({one.news.occasion for one in told if one.news}))
            keys = _notify(lane, told, state, "; ".join(reasons), occasion, lane.route.receivers, _told_by(lane))
            lane.sent.append(lane.now)
            for one in told:
                _remember(lane, one, lane.now)
                reason = one.news.reason if one.news else ""
                lane.end(one, "sent", "send", reason, keys=keys.get(one.incident.id, ()))
    return True


def _notify(
    lane: Lane,
    told: Sequence[Candidate],
    state: State,
    reason: str,
    occasion: str,
    receivers: Iterable[Receiver],
    already: Already,
    thread: str = "",
) -> dict[str, tuple[str, ...]]:
    """One message a receiver, about those incidents that no other route told it of; the messages of each incident."""
    keys: dict[str, tuple[str, ...]] = {}
    first = told[0]
    group = (
        {} if state == "digest" else dict(zip(lane.route.group_by, group_of(lane.route, first.incident), strict=True))
    )
    for receiver in receivers:
        incidents = tuple(one.incident for one in told if not already(receiver, one.incident, one.memory))
        if not incidents:
            continue
        versions = sorted((one.id, one.episode, one.level, one.revision) for one in incidents)
        key = f"al-{digest(lane.route.name, receiver.name, state, versions, occasion)}"
        where = thread or first.thread
        lane.notifications.append(
            Notification(key, lane.route.name, receiver, incidents, state, reason, lane.now, group, where)
        )
        for incident in incidents:
            keys[incident.id] = (*keys.get(incident.id, ()), key)
    return keys


def _told_by(lane: Lane) -> Already:
    def route(receiver: Receiver, incident: Incident, memory: Memory) -> str:
        told = lane.elsewhere.told_by(receiver, incident, memory)
        return told.route if told else ""

    return route


def _remember(lane: Lane, one: Candidate, at: datetime) -> None:
    """Note that the incident was told as it is now, at that time."""
    incident, memory = one.incident, one.memory
    again = memory.state == "firing" and incident.active
    now_told = replace(
        memory,
        state="firing" if incident.active else "resolved",
        level=max(memory.level, incident.level) if again else incident.level,
        revision=incident.revision,
        episode=incident.episode,
        first_told_at=memory.first_told_at if again else at,
        told_at=at,
        thread=one.thread,
        escalated=memory.escalated and again,
        held_since=None,
        held_by="",
    )
    lane.memory.append(now_told)
    lane.elsewhere.note(lane.route.receivers, now_told)
