"""Which findings are one incident, since when, how bad, and when it is over.

A pure fold: what is known plus what was found gives incidents. Nothing is told or kept here, and the order of what was
found changes nothing. Also holds what a person may do to an incident.

Which findings belong together
------------------------------
- Findings with a subject (a budget window, a source, a job) belong to the incident of that subject.
- Anomalies of one agent belong together while they follow each other within the quiet time, whatever their metric.
- Where at least ``gathers`` agents of a project begin within ``together`` of the first, they are one incident, and so
  are that many projects of an organisation. It is rooted at the one agent (or project) that carries ``share`` of the
  weight, or else at the project (or organisation). Weight is the cost effect where there is one, else the score.

When it is over
---------------
An incident is over when the data, known up to ``through``, has been quiet for the quiet time (or as long as its last
finding lasted, if that is longer), and the alerting clock too since it last changed: so what is found a day late is
still told, and one good hour does not end it. Findings that last are over when they are reported over; a budget's
when its window ends. A new finding within the quiet time of one that ended lately opens it again.

What is found so late that it lies more than ``past`` back is recorded as over: it is history, not news.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from obs_pipeline.alerting.models import Incident, Kind, Signal, Status, digest, rank

_LINES: Final = 20
_WHY_OVER: Final[Mapping[Kind, str]] = {
    "budget": "reported over",
    "run_failure": "a later run went well",
    "failed_check": "the check holds again",
    "refused_file": "the file was taken in",
    "stale_source": "the source sends again",
    "sync_conflict": "a later sync met no conflict",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """How findings are gathered; see the module. ``material`` is the relative change of a number that is a correction."""

    quiet: timedelta = timedelta(hours=2)
    together: timedelta = timedelta(hours=2)
    past: timedelta = timedelta(days=3)
    gathers: int = 3
    share: float = 0.6
    material: float = 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """An incident and the findings it is made of."""

    incident: Incident
    signals: tuple[Signal, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """Cases that are new or changed, and findings that no longer belong to any."""

    cases: tuple[Case, ...]
    dropped: tuple[str, ...]


def fold(
    known: Iterable[Case],
    found: Iterable[Signal],
    now: datetime,
    *,
    through: datetime | None = None,
    over: Collection[str] = (),
    withdrawn: Collection[str] = (),
    rules: Rules | None = None,
) -> Folded:
    """What the incidents are, after what was found.

    ``known`` are the cases that are active or ended lately. ``through`` is up to when the data has been looked at
    (``now`` if not stated), ``over`` the subjects that are reported over, ``withdrawn`` the findings that a new
    computation no longer makes.
    """
    rules = rules or Rules()
    cases = {case.incident.id: case for case in known if not case.incident.merged_into}
    owners = {signal.id: case.incident.id for case in cases.values() for signal in case.signals}
    before = {signal.id: signal for case in cases.values() for signal in case.signals}
    fresh = {signal.id: signal for signal in _as_known(found, cases.values()) if signal.id not in withdrawn}
    pool = {name: one for name, one in {**before, **fresh}.items() if name not in withdrawn}
    fold_ = _Fold(rules, now, through or now, frozenset(over), before)
    result: dict[str, Case] = {}
    clusters = sorted(_clusters(pool.values(), rules), key=lambda one: (one[0].begins_at, one[0].id))
    taken = set(cases)
    for cluster in clusters:
        mine = sorted(
            {owner for one in cluster if (owner := owners.get(one.id)) is not None and owner not in result},
            key=lambda name: (cases[name].incident.opened_at, name),
        )
        case = fold_.opened(cluster, taken) if not mine else fold_.continued(cases[mine[0]], cluster)
        result[case.incident.id] = case
        taken.add(case.incident.id)
    where = {signal.id: name for name, case in result.items() for signal in case.signals}
    for name in sorted(set(cases) - set(result)):
        heirs = {where[signal.id] for signal in cases[name].signals if signal.id in where}
        result[name] = fold_.left(cases[name], min(heirs, default=""))
    changed = [case for name, case in result.items() if cases.get(name) != case]
    return Folded(tuple(sorted(changed, key=lambda case: case.incident.id)), tuple(sorted(set(before) - set(pool))))


def _as_known(found: Iterable[Signal], cases: Iterable[Case]) -> Iterator[Signal]:
    """What lasts is one finding as long as its incident does: the next run that fails is not another failure."""
    lasting = {
        (case.incident.kind, case.incident.subject): case.signals[-1]
        for case in cases
        if case.incident.active and case.signals and case.signals[-1].open_ended
    }
    for signal in found:
        known = lasting.get((signal.kind, signal.subject)) if signal.open_ended else None
        yield signal if known is None else replace(signal, id=known.id, begins_at=known.begins_at)


def no_longer_found(known: Iterable[Case], found: Collection[Signal], days: Collection[date]) -> set[str]:
    """The anomalies that were known of ``days`` (UTC), which were computed again, and that are not among the found."""
    there = {signal.id for signal in found}
    return {
        signal.id
        for case in known
        for signal in case.signals
        if signal.kind == "anomaly" and signal.begins_at.date() in days and signal.id not in there
    }


# -- what belongs together --------------------------------------------------------------------------------------------


def _clusters(signals: Iterable[Signal], rules: Rules) -> list[list[Signal]]:
    subjects: dict[tuple[str, str], list[Signal]] = defaultdict(list)
    agents: dict[tuple[str, str, str], list[Signal]] = defaultdict(list)
    for signal in sorted(signals, key=lambda one: (one.begins_at, one.id)):
        if signal.subject:
            subjects[signal.kind, signal.subject].append(signal)
        else:
            agents[signal.org, signal.project, signal.agent].append(signal)
    episodes: dict[tuple[str, str], list[list[Signal]]] = defaultdict(list)
    for (org, project, _), own in agents.items():
        episodes[org, project] += _episodes(own, rules)
    projects: dict[str, list[list[Signal]]] = defaultdict(list)
    clusters = list(subjects.values())
    for (org, _), own_episodes in episodes.items():
        gathered, single = _gathered(own_episodes, rules, lambda episode: episode[0].agent)
        projects[org] += gathered
        clusters += single
    for own_projects in projects.values():
        gathered, single = _gathered(own_projects, rules, lambda cluster: cluster[0].project)
        clusters += gathered + single
    return clusters


def _episodes(signals: Sequence[Signal], rules: Rules) -> list[list[Signal]]:
    """One agent's findings in order, cut where it was quiet for longer than the quiet time."""
    episodes: list[list[Signal]] = []
    end = datetime.min
    for signal in signals:
        if not episodes or signal.begins_at - end > rules.quiet:
            episodes.append([])
            end = signal.ends_at
        episodes[-1].append(signal)
        end = max(end, signal.ends_at)
    return episodes


def _gathered(
    clusters: list[list[Signal]], rules: Rules, part: Callable[[list[Signal]], str]
) -> tuple[list[list[Signal]], list[list[Signal]]]:
    """(those that began together, in enough different parts, as one each; those that did not)."""
    waves: list[list[list[Signal]]] = []
    for cluster in sorted(clusters, key=lambda one: (one[0].begins_at, one[0].id)):
        if not waves or cluster[0].begins_at - waves[-1][0][0].begins_at > rules.together:
            waves.append([])
        waves[-1].append(cluster)
    gathered, single = [], []
    for wave in waves:
        if len({part(cluster) for cluster in wave}) >= rules.gathers:
            everything = (signal for cluster in wave for signal in cluster)
            gathered.append(sorted(everything, key=lambda one: (one.begins_at, one.id)))
        else:
            single += wave
    return gathered, single


# -- what it amounts to -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fold:
    rules: Rules
    now: datetime
    through: datetime
    over: frozenset[str]
    before: Mapping[str, Signal]

    def opened(self, signals: Sequence[Signal], taken: Collection[str]) -> Case:
        name = f"inc-{digest(signals[0].kind, signals[0].id)}"
        if name in taken:
            name = f"inc-{digest(signals[0].kind, [one.id for one in signals], self.now)}"
        incident = self._described(signals, name, "open", self.now)
        ended = max(one.ends_at for one in signals) + self.rules.past <= self.now
        if self._reported_over(signals) or (ended and not any(one.open_ended for one in signals)):
            incident = _ended(incident, "it lay in the past when it was found", self.now)
        return Case(incident, tuple(signals))

    def continued(self, case: Case, signals: Sequence[Signal]) -> Case:
        old = case.incident
        incident = self._described(signals, old.id, old.status, old.opened_at)
        correction = self._correction(case, signals)
        incident = replace(
            incident,
            updated_at=old.updated_at,
            resolved_at=old.resolved_at,
            resolution=old.resolution,
            acknowledged_by=old.acknowledged_by,
            episode=old.episode,
            revision=old.revision + bool(correction),
            correction=correction or old.correction,
        )
        news = any(one.id not in self.before for one in signals)
        if not old.active and news and not self._is_over(signals, self.now):
            incident = reopened(incident, self.now)
        if incident != old:
            incident = replace(incident, updated_at=self.now)
        if incident.active and self._is_over(signals, incident.updated_at):
            incident = _ended(incident, self._why_over(signals), self.now)
        return Case(incident, tuple(signals))

    def left(self, case: Case, heir: str) -> Case:
        """An incident whose findings all went: into another one, or because they no longer hold."""
        old = case.incident
        if heir:
            # Findings belong to one incident; those of this one are listed where they went.
            merged = replace(_ended(old, f"became part of {heir}", self.now), merged_into=heir)
            return Case(merged, ())
        why = "withdrawn: the finding does not hold after late data or a corrected price"
        corrected = replace(old, revision=old.revision + 1, correction=why)
        return Case(replace(_ended(corrected, why, self.now), signal_ids=()), ())

    def _described(self, signals: Sequence[Signal], name: str, status: Status, opened_at: datetime) -> Incident:
        worst = max(signals, key=lambda one: (rank(one.severity), one.score, one.id))
        place = _root(signals, self.rules)
        agents = tuple(sorted({one.agent for one in signals if one.agent}))
        return Incident(
            id=name,
            kind=worst.kind,
            severity=worst.severity,
            status=status,
            opened_at=opened_at,
            updated_at=opened_at,
            began_at=min(one.begins_at for one in signals),
            last_seen_at=max(one.ends_at for one in signals),
            headline=_headline(worst, place, agents),
            org=place[0],
            project=place[1],
            team=_same(one.team for one in signals),
            agent=place[2],
            metric=worst.metric,
            subject=worst.subject,
            direction=_same(one.direction for one in signals),
            source=_same(one.source for one in signals),
            level=max(one.level for one in signals) + _breadth(signals, place),
            score=worst.score,
            confidence=max(one.confidence for one in signals),
            observed=worst.observed,
            expected=worst.expected,
            cost_effect=_cost_effect(signals),
            signal_ids=tuple(one.id for one in signals),
            agents=agents,
            metrics=tuple(sorted({one.metric for one in signals if one.metric})),
            explanation=tuple(one.headline for one in sorted(signals, key=_worst_first)[:_LINES]),
            page=worst.page,
        )

    def _is_over(self, signals: Sequence[Signal], changed_at: datetime) -> bool:
        if self._reported_over(signals):
            return True
        if any(one.open_ended for one in signals):
            return False
        last = max(signals, key=lambda one: one.ends_at)
        if last.subject:
            return last.ends_at <= self.now
        quiet = max(self.rules.quiet, last.ends_at - last.begins_at)
        return last.ends_at + quiet <= self.through and changed_at + self.rules.quiet <= self.now

    def _reported_over(self, signals: Sequence[Signal]) -> bool:
        return bool(signals[0].subject) and signals[0].subject in self.over

    def _why_over(self, signals: Sequence[Signal]) -> str:
        if signals[0].kind == "budget" and not self._reported_over(signals):
            return "the budget's window has ended"
        return _WHY_OVER.get(signals[0].kind, "back to the ordinary")

    def _correction(self, case: Case, signals: Sequence[Signal]) -> str:
        """What was said before and is said differently now. Numbers of findings with a subject move by nature."""
        there = {one.id for one in signals}
        changes = [
            f"{one.agent} {one.metric} {_number(was.observed)} is now {_number(one.observed)}"
            for one in signals
            if (was := self.before.get(one.id)) is not None and not one.subject and self._differs(was, one)
        ]
        gone = [one for one in case.signals if one.id not in there and not one.subject]
        withdrawn = [f"{one.agent} {one.metric} is withdrawn" for one in gone]
        return f"corrected: {', '.join((changes + withdrawn)[:5])}" if changes or withdrawn else ""

    def _differs(self, was: Signal, one: Signal) -> bool:
        def apart(first: float | None, second: float | None) -> bool:
            if first is None or second is None:
                return first is not second
            return abs(second - first) > self.rules.material * max(abs(first), abs(second))

        return was.severity != one.severity or apart(was.observed, one.observed)


def _root(signals: Sequence[Signal], rules: Rules) -> tuple[str, str, str]:
    """The lowest (org, project, agent) that carries enough of the weight; empty below it."""
    weights: dict[tuple[str, ...], float] = defaultdict(float)
    costs = any(one.cost_effect for one in signals)
    for one in signals:
        weight = abs(float(one.cost_effect or 0)) if costs else one.score
        for depth in (1, 2, 3):
            weights[(one.org, one.project, one.agent)[:depth]] += weight
    total = sum(weight for place, weight in weights.items() if len(place) == 1)
    for depth in (3, 2, 1):
        places = sorted(place for place in weights if len(place) == depth)
        heaviest = max(places, key=lambda place: weights[place])
        if len(places) == 1 or (total > 0 and weights[heaviest] >= rules.share * total):
            org, project, agent = (*heaviest, "", "")[:3]
            return org, project, agent
    return "", "", ""


def _breadth(signals: Sequence[Signal], place: tuple[str, str, str]) -> float:
    """Less than a severity: an anomaly that spreads from an agent to its project has grown."""
    if signals[0].subject or place[2]:
        return 0.0
    return 0.25 if place[1] else 0.5


def _headline(worst: Signal, place: tuple[str, str, str], agents: Sequence[str]) -> str:
    if worst.subject or len(agents) < 2:
        return worst.headline
    where = "/".join(part for part in place if part) or "no organisation"
    return f"{len(agents)} agents at once, rooted at {where}; worst: {worst.headline}"


def _worst_first(signal: Signal) -> tuple[int, float, str]:
    return -rank(signal.severity), -signal.score, signal.id


def _cost_effect(signals: Iterable[Signal]) -> Decimal | None:
    """Summed over agents and days. A day's finding contains those of its hours, so of the two the larger counts."""
    days: dict[tuple[str, str, str, date], Decimal] = defaultdict(Decimal)
    hours: dict[tuple[str, str, str, date], Decimal] = defaultdict(Decimal)
    for one in signals:
        if one.cost_effect is not None:
            kept = hours if one.ends_at - one.begins_at < timedelta(days=1) else days
            kept[one.org, one.project, one.agent, one.begins_at.date()] += one.cost_effect
    known = days.keys() | hours.keys()
    return sum((max(days[key], hours[key], key=abs) for key in known), Decimal(0)) if known else None


def _same(values: Iterable[str]) -> str:
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else ""


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.6g}"


# -- what a person does -----------------------------------------------------------------------------------------------


def acknowledged(incident: Incident, who: str, now: datetime) -> Incident:
    """Somebody looks after it: no reminders and no escalation any more. One that is resolved stays so."""
    if not incident.active:
        return incident
    return replace(incident, status="acknowledged", acknowledged_by=who, updated_at=now)


def resolved(incident: Incident, who: str, now: datetime, why: str = "") -> Incident:
    """Somebody says that it is over."""
    return incident if not incident.active else _ended(incident, f"resolved by {who}{why and f': {why}'}", now)


def reopened(incident: Incident, now: datetime) -> Incident:
    """It goes on; whoever acknowledged the last episode is asked again."""
    if incident.active:
        return incident
    return replace(
        incident,
        status="open",
        resolved_at=None,
        resolution="",
        acknowledged_by="",
        episode=incident.episode + 1,
        updated_at=now,
    )


def _ended(incident: Incident, why: str, now: datetime) -> Incident:
    return replace(incident, status="resolved", resolved_at=now, resolution=why, updated_at=now)
