"""Onsets, not echoes: the abnormal hours of one incident as one anomaly, and one metric that speaks for it.

Holds how anomalies of a day are gathered. What is abnormal, and how grave, was decided before; alarms over days, and
who is told, are not here.

- **Hours.** Hours of one agent's metric that deviate to the same side on one UTC day, no more than :data:`APART` apart,
  are one anomaly. It has the identity, time and values of the first of them, the severity, score and confidence of the
  gravest, and says until when it lasted and when it was at its worst. It grows while the day goes on.
- **Metrics.** Of the anomalies of an agent's hours that overlap or follow within :data:`FOLLOWS`, the one with the highest score
  speaks for all; the others are its echoes: info, with a low score, and they name it. A contradicted price is no echo.

Each day is gathered by itself, so it comes out the same alone and in a range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from obs_pipeline.detection.config import GRAIN_LENGTH, Grain
from obs_pipeline.detection.models import SEVERITIES, Anomaly

APART: Final = timedelta(hours=12)
"""Abnormal times of one agent closer than this belong together."""

FOLLOWS: Final = timedelta(hours=2)
"""What one metric shows first, another may show so much later."""

_ADD_UP: Final = ("cost", "tokens")  # metrics whose hours have a sum
_ECHO_FLOOR: Final = 20.0  # the lowest score of an anomaly
_ECHO_SHARE: Final = 0.25


def ends_of(anomaly: Anomaly) -> datetime:
    """When it was over: the end of its day or hour, or of its last abnormal hour."""
    return ended(anomaly.timestamp, anomaly.grain, anomaly.context)


def ended(timestamp: datetime, grain: Grain, context: Mapping[str, Any]) -> datetime:
    """The same from the columns of the table of anomalies."""
    until = context.get("until")
    return datetime.fromisoformat(until) if until else timestamp + GRAIN_LENGTH[grain]


def gathered(anomalies: Iterable[Anomaly]) -> list[Anomaly]:
    """The anomalies with one for each incident's metric, in the order in which they were given."""
    placed = list(enumerate(anomalies))
    kept = [one for one in placed if one[1].grain != "hour"]
    of_metric: defaultdict[Hashable, list[tuple[int, Anomaly]]] = defaultdict(list)
    of_agent: defaultdict[Hashable, list[tuple[int, Anomaly]]] = defaultdict(list)
    for place, one in placed:
        if one.grain == "hour":
            side = one.method if one.method == "list_price" else (one.deviation or 0.0) >= 0
            of_metric[(_agent_day(one), one.metric, side)].append((place, one))
    for hours in of_metric.values():
        of_agent[_agent_day(hours[0][1])] += _incidents(hours)
    for some in of_agent.values():
        kept += _with_echoes(some)
    return [one for _, one in sorted(kept, key=lambda each: each[0])]


def _agent_day(one: Anomaly) -> Hashable:
    return one.org, one.project, one.agent, one.dt


def _incidents(hours: Sequence[tuple[int, Anomaly]]) -> Iterator[tuple[int, Anomaly]]:
    """The hours of one metric and side, joined where they are close."""
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
            "peak": {
                "timestamp": peak.timestamp.isoformat(),
                "observed": peak.observed,
                "baseline": peak.baseline,
                "deviation": peak.deviation,
                **({"call": peak.context["call"]} if "call" in peak.context else {}),
            },
        },
    )


def _excess(hours: Sequence[Anomaly]) -> float:
    """By how much all the hours together are above what was expected."""
    return round(sum(one.observed - (one.baseline or 0.0) for one in hours), 9)


def _with_echoes(placed: Sequence[tuple[int, Anomaly]]) -> Iterator[tuple[int, Anomaly]]:
    """The incidents of one agent's day, the overlapping ones led by the one with the highest score."""
    held: list[tuple[int, Anomaly]] = []
    ends = datetime.min
    for place, one in sorted(placed, key=lambda each: (each[1].timestamp, each[0])):
        if held and one.timestamp > ends + FOLLOWS:
            yield from _led(held)
            held, ends = [], datetime.min
        held.append((place, one))
        ends = max(ends, ends_of(one))
    yield from _led(held)


def _led(placed: Sequence[tuple[int, Anomaly]]) -> Iterator[tuple[int, Anomaly]]:
    leader = max((one for _, one in placed), key=lambda one: (one.score, one.id))
    for place, one in placed:
        yield place, one if one is leader or one.method == "list_price" else _echo(one, leader)


def _echo(one: Anomaly, leader: Anomaly) -> Anomaly:
    return replace(
        one,
        severity=SEVERITIES[0],
        score=round(_ECHO_FLOOR + _ECHO_SHARE * (one.score - _ECHO_FLOOR), 2),
        reason=f"{one.reason} It goes with the agent's {leader.metric}, which stands out most.",
        context={**one.context, "echo_of": leader.id, "severity_alone": one.severity},
    )
