"""Onsets, not echoes: the abnormal hours of one incident as one anomaly, and one metric that speaks for it.

Holds how anomalies of a day are gathered. What is abnormal, and how grave, was decided before; alarms over days, and
who is told, are not here.

- **Hours.** Hours of one agent's metric that deviate to the same side on one UTC day, no more than :data:`APART` apart,
  are one anomaly. It has the identity, time and values of the first of them, the severity, score and confidence of the
  gravest, and says until when it lasted and when it was at its worst. It grows while the day goes on.
- **Metrics.** Of the anomalies of an agent's hours that overlap or follow within :data:`FOLLOWS`, the one with the highest score
  speaks for all; the others are its echoes: info, with a low score, and they name it. A contradicted price is no echo.
- **Midnight.** Each day has a row of its own for an incident that goes on. It names the row of the day before that it
  continues, keeps the severity of its own hours, and its score lies near the end of that severity's band. It is no new incident:
  who counts or lists incidents leaves it out, and lets the one it continues grow (:mod:`~obs_pipeline.detection.onsets`).

What a day's rows say depends on the hours of that day and of the day before, so it comes out the same alone and in a range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, Final

from obs_pipeline.detection.config import GRAIN_LENGTH, Grain
from obs_pipeline.detection.models import SEVERITIES, Anomaly, Severity
from obs_pipeline.detection.scoring import SCORE_BANDS

APART: Final = timedelta(hours=12)
"""Abnormal times of one agent closer than this belong together."""

FOLLOWS: Final = timedelta(hours=2)
"""What one metric shows first, another may show so much later."""

_ADD_UP: Final = ("cost", "tokens")  # metrics whose hours have a sum
_ECHO_SHARE: Final = 0.25
_DAY: Final = timedelta(days=1)
_ELSEWHERE: Final = -1  # the place of what is not in the list that is gathered

_Placed = tuple[int, Anomaly]
"""An anomaly and its place in the list that is gathered."""


def ends_of(anomaly: Anomaly) -> datetime:
    """When it was over: the end of its day or hour, or of its last abnormal hour."""
    return ended(anomaly.timestamp, anomaly.grain, anomaly.context)


def ended(timestamp: datetime, grain: Grain, context: Mapping[str, Any]) -> datetime:
    """The same from the columns of the table of anomalies."""
    until = context.get("until")
    return datetime.fromisoformat(until) if until else timestamp + GRAIN_LENGTH[grain]


def gathered(anomalies: Iterable[Anomaly], before: Iterable[Anomaly] = ()) -> list[Anomaly]:
    """The anomalies with one for each incident's metric and day, in the order in which they were given.

    ``before`` are the abnormal hours of the day before the first, one each: what began among them and goes on names them.
    """
    placed = list(enumerate(anomalies))
    kept = [one for one in placed if one[1].grain != "hour"]
    same: defaultdict[Hashable, list[_Placed]] = defaultdict(list)
    for place, one in [*((_ELSEWHERE, one) for one in before), *placed]:
        if one.grain == "hour":
            same[(_agent(one), one.dt, one.metric, _side(one))].append((place, one))
    agents: defaultdict[Hashable, defaultdict[date, list[_Placed]]] = defaultdict(lambda: defaultdict(list))
    for hours in same.values():
        first = hours[0][1]
        agents[_agent(first)][first.dt] += _incidents(hours)
    for days in agents.values():
        for day, incidents in days.items():
            kept += _of_day(incidents, days.get(day - _DAY, []))
    return [one for place, one in sorted(kept, key=lambda each: each[0]) if place != _ELSEWHERE]


def may_continue(grain: Grain, timestamp: datetime, first: date) -> bool:
    """Whether what is abnormal at this time of a range that begins on ``first`` may belong to an incident of the day before."""
    return grain == "hour" and timestamp - datetime.combine(first, datetime.min.time()) < APART


def _agent(one: Anomaly) -> Hashable:
    return one.org, one.project, one.agent


def _side(one: Anomaly) -> Hashable:
    return one.method if one.method == "list_price" else (one.deviation or 0.0) >= 0


def _incidents(hours: Sequence[_Placed]) -> Iterator[_Placed]:
    """The hours of one metric, side and day, joined where they are close."""
    ordered = sorted(hours, key=lambda each: each[1].timestamp)
    begin = 0
    for number, (_, one) in enumerate(ordered):
        later = ordered[number + 1][1].timestamp if number + 1 < len(ordered) else datetime.max
        if later - one.timestamp > APART:
            some = ordered[begin : number + 1]
            yield some[0][0], _one([each for _, each in some])
            begin = number + 1


def _one(hours: Sequence[Anomaly]) -> Anomaly:
    onset, last = hours[0], hours[-1]
    if len(hours) == 1:
        return onset
    peak = max(hours, key=lambda one: (SEVERITIES.index(one.severity), one.score))
    until = last.timestamp + GRAIN_LENGTH["hour"]
    told = f"{onset.reason} It went on until {until:%H:%M} UTC, in {len(hours)} abnormal hours"
    worst = "." if peak is onset else f", at its worst later: {peak.reason}"
    return replace(
        onset,
        severity=peak.severity,
        score=peak.score,
        confidence=max(one.confidence for one in hours),
        reason=told + worst,
        context={
            **onset.context,
            "until": until.isoformat(),
            "abnormal_hours": len(hours),
            **({"excess": _excess(hours)} if onset.metric in _ADD_UP else {}),
            "peak": _peak(peak),
        },
    )


def _excess(hours: Sequence[Anomaly]) -> float:
    """By how much all the hours together are above what was expected."""
    return round(sum(one.observed - (one.baseline or 0.0) for one in hours), 9)


def begun(anomalies: Sequence[Anomaly]) -> list[Anomaly]:
    """Each incident once: the anomalies without those that go on with others of them, as grave as they became.

    It says of severity, score and confidence what :mod:`~obs_pipeline.detection.onsets` says of the table.
    """
    whole = {one.id: one for one in anomalies}
    since = {one.id: name for one in anomalies if (name := one.context.get("continues")) in whole}
    for one in anomalies:
        onset = one.id
        while onset in since:
            onset = since[onset]
        score = one.context.get("score_alone", one.score)
        graver = score > whole[onset].score
        if onset != one.id:
            whole[onset] = replace(
                whole[onset],
                severity=one.severity if graver else whole[onset].severity,
                score=max(score, whole[onset].score),
                confidence=max(one.confidence, whole[onset].confidence),
            )
    return [whole[one.id] for one in anomalies if one.id not in since]


def _peak(one: Anomaly) -> dict[str, Any]:
    return {
        "timestamp": one.timestamp.isoformat(),
        "observed": one.observed,
        "baseline": one.baseline,
        "deviation": one.deviation,
        **({"call": one.context["call"]} if "call" in one.context else {}),
    }


def _of_day(placed: Sequence[_Placed], eve: Sequence[_Placed]) -> Iterator[_Placed]:
    """The incidents of one agent's day, the overlapping ones led by the one with the highest score.

    Those that began among the incidents of the ``eve`` name what they continue: who leads, the one that led then.
    """
    evenings = list(_overlapping(eve))
    spoke_for = {one.id: _leader(group).id for group in evenings for _, one in group}
    for number, group in enumerate(_overlapping(placed)):
        leader = _leader(group)
        own = {one.id: past.id for _, one in group if (past := _earlier(one, eve)) is not None}
        follows = number == 0 and evenings and _begins(group) <= _ends(evenings[-1]) + FOLLOWS
        since = spoke_for.get(own.get(leader.id, "")) or (_leader(evenings[-1]).id if follows else None)
        for place, one in group:
            contradiction = one.method == "list_price"
            earlier = own.get(one.id) if contradiction else since if one is leader else own.get(one.id, since)
            told = one if one is leader or contradiction else _echo(one, leader)
            yield place, told if earlier is None else _continuation(told, earlier)


def _overlapping(placed: Sequence[_Placed]) -> Iterator[list[_Placed]]:
    """One agent's incidents in groups that overlap or follow each other at once, in the order of time."""
    held: list[_Placed] = []
    for place, one in sorted(placed, key=lambda each: (each[1].timestamp, each[1].id)):
        if held and one.timestamp > _ends(held) + FOLLOWS:
            yield held
            held = []
        held.append((place, one))
    if held:
        yield held


def _begins(group: Sequence[_Placed]) -> datetime:
    return min(one.timestamp for _, one in group)


def _ends(group: Sequence[_Placed]) -> datetime:
    return max(ends_of(one) for _, one in group)


def _leader(group: Sequence[_Placed]) -> Anomaly:
    return max((one for _, one in group), key=lambda one: (one.score, one.id))


def _earlier(one: Anomaly, eve: Sequence[_Placed]) -> Anomaly | None:
    """The incident of the day before, of the same metric and side, that this one goes on with."""
    same = [other for _, other in eve if (other.metric, _side(other)) == (one.metric, _side(one))]
    last = max(same, key=ends_of, default=None)
    return last if last is not None and one.timestamp - ends_of(last) + GRAIN_LENGTH["hour"] <= APART else None


def _lowered(score: float, severity: Severity) -> float:
    floor = SCORE_BANDS[SEVERITIES.index(severity) + 1]
    return round(floor + _ECHO_SHARE * (score - floor), 2)


def _echo(one: Anomaly, leader: Anomaly) -> Anomaly:
    return replace(
        one,
        severity=SEVERITIES[0],
        score=_lowered(one.score, SEVERITIES[0]),
        reason=f"{one.reason} It goes with the agent's {leader.metric}, which stands out most.",
        context={**one.context, "echo_of": leader.id, "severity_alone": one.severity},
    )


def _continuation(one: Anomaly, earlier: str) -> Anomaly:
    """What goes on from the day before. An echo is low already."""
    lower = {} if "echo_of" in one.context else {"score_alone": one.score}
    return replace(
        one,
        score=_lowered(one.score, one.severity) if lower else one.score,
        reason=f"{one.reason} It goes on from the day before.",
        context={**one.context, "continues": earlier, **lower},
    )
