"""A configuration replayed over history: how often it would have rung, and how often rightly.

Holds what an alarm is, how alarms are held against what is known to be true, and which of them a change of settings
adds or removes. Reads nothing but the file of incidents; the replay itself is that of the batch.

Terms
-----
- An *alarm* is what a person is rung for: anomalies of one agent, of any metric and grain, that overlap or lie no more
  than :data:`~obs_pipeline.detection.incidents.APART` apart.
- An *incident* is what is known: a row of a labels file, or an anomaly that a person has judged.
- An alarm is right when it overlaps a real incident of its agent. With a labels file every other alarm is false; with
  the verdicts of people only what was judged counts, the rest is *unjudged*.
- Precision is right / (right + false) alarms, recall the share of real incidents that some alarm overlaps, delay the
  time from an incident's begin to the end of the first day or hour that was reported, when it could be known.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from obs_pipeline.detection.config import GRAIN_LENGTH
from obs_pipeline.detection.incidents import APART, begun, ends_of
from obs_pipeline.detection.known import judged_until
from obs_pipeline.detection.models import SEVERITIES, Anomaly, Severity
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.anomaly_labels import VERDICTS, AnomalyLabel, Verdict

Series = tuple[str | None, str | None, str | None]


class LabelsUnusable(ObsError):
    """A file of incidents that cannot be used; the message names the line and what to mend."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Incident:
    """What is known of one agent's time [begins, ends), UTC."""

    series: Series
    begins: datetime
    ends: datetime
    kind: str
    verdict: Verdict = "real"


@dataclass(frozen=True, slots=True)
class Alarm:
    """What rings once: [begins, ends), UTC, with the worst of its anomalies."""

    series: Series
    begins: datetime
    ends: datetime
    worst: Anomaly
    anomalies: tuple[Anomaly, ...]


@dataclass(frozen=True, slots=True)
class Backtest:
    """What a configuration says of some days. Shares are None where nothing can be said."""

    days: int
    anomalies: Mapping[Severity, int]
    alarms: Mapping[Severity, int]
    alarms_per_week: float
    right: int
    false: int
    unjudged: int
    precision: float | None
    incidents: int
    found: int
    recall: float | None
    recall_by_kind: Mapping[str, tuple[int, int]]
    median_delay_hours: float | None


def read_incidents(path: Path) -> list[Incident]:
    """The incidents of a CSV with ``agent,start,end`` and, if it likes, ``org,project,kind,verdict``.

    Times are ISO 8601, UTC without an offset, ends exclusive; the simulator's ``labels.csv`` is such a file.

    Raises:
        LabelsUnusable: a column is missing, or a line cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if missing := {"agent", "start", "end"} - set(rows.fieldnames or ()):
                raise LabelsUnusable(f"{path}:1: the columns {', '.join(sorted(missing))} are missing.")
            return [_incident(path, rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelsUnusable(f"{path} cannot be read: {error}. It should be a CSV in UTF-8.") from None


def _incident(path: Path, line: int, row: Mapping[str, str | None]) -> Incident:
    begins, ends = (_time(path, line, column, row[column] or "") for column in ("start", "end"))
    if ends <= begins:
        raise LabelsUnusable(f"{path}:{line}: the end must be after the start.")
    verdict = row.get("verdict") or "real"
    if verdict not in VERDICTS:
        raise LabelsUnusable(f"{path}:{line}: verdict {verdict!r} is none of {', '.join(VERDICTS)}.")
    series = (row.get("org") or None, row.get("project") or None, row["agent"] or None)
    return Incident(series, begins, ends, row.get("kind") or "", verdict)


def _time(path: Path, line: int, column: str, value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise LabelsUnusable(f"{path}:{line}: {column} {value!r} is no time such as 2026-03-01T12:00:00Z.") from None
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def judged_incidents(labels: Iterable[AnomalyLabel]) -> list[Incident]:
    """What people judged, as incidents of the time of each anomaly."""
    return [
        Incident(
            (label.org, label.project, label.agent),
            label.timestamp,
            judged_until(label),
            label.metric,
            label.verdict,
        )
        for label in labels
    ]


def alarms_of(anomalies: Iterable[Anomaly], least: Severity) -> list[Alarm]:
    """The alarms of the anomalies of at least this severity, in the order in which they begin."""
    loud = [one for one in anomalies if SEVERITIES.index(one.severity) >= SEVERITIES.index(least)]
    of_series: defaultdict[Series, list[Anomaly]] = defaultdict(list)
    for one in sorted(loud, key=lambda one: (one.timestamp, one.id)):
        of_series[(one.org, one.project, one.agent)].append(one)
    alarms = [alarm for series, some in of_series.items() for alarm in _joined(series, some)]
    return sorted(alarms, key=lambda alarm: (alarm.begins, tuple(map(str, alarm.series))))


def _joined(series: Series, anomalies: Sequence[Anomaly]) -> Iterator[Alarm]:
    """Alarms of one series; ``anomalies`` in order of time."""
    held: list[Anomaly] = []
    ends = datetime.min
    for one in [*anomalies, None]:
        if held and (one is None or one.timestamp > ends + APART):
            worst = max(held, key=lambda each: (each.score, each.id))
            yield Alarm(series, held[0].timestamp, ends, worst, tuple(held))
            held = []
        if one is not None:
            ends = max(ends if held else datetime.min, ends_of(one))
            held.append(one)


def evaluate(
    anomalies: Sequence[Anomaly], least: Severity, incidents: Sequence[Incident], days: int, *, complete: bool
) -> Backtest:
    """What the anomalies of ``days`` days amount to. ``complete``: nothing is real but the real incidents."""
    alarms = alarms_of(anomalies, least)
    by_agent: defaultdict[str | None, list[Incident]] = defaultdict(list)
    for incident in incidents:
        by_agent[incident.series[2]].append(incident)
    verdicts = Counter(_verdict(alarm, by_agent[alarm.series[2]], complete=complete) for alarm in alarms)
    of_agent: defaultdict[str | None, list[Alarm]] = defaultdict(list)
    for alarm in alarms:
        of_agent[alarm.series[2]].append(alarm)
    real = [one for one in incidents if one.verdict == "real"]
    delays = {number: _delay(one, of_agent[one.series[2]]) for number, one in enumerate(real)}
    found = {number: delay for number, delay in delays.items() if delay is not None}
    kinds = Counter(one.kind for one in real)
    kinds_found = Counter(real[number].kind for number in found)
    right, false = verdicts["right"], verdicts["false"]
    return Backtest(
        days=days,
        anomalies=_counted(one.severity for one in begun(anomalies)),
        alarms=_counted(alarm.worst.severity for alarm in alarms),
        alarms_per_week=len(alarms) / days * 7,
        right=right,
        false=false,
        unjudged=verdicts["unjudged"],
        precision=right / (right + false) if right + false else None,
        incidents=len(real),
        found=len(found),
        recall=len(found) / len(real) if real else None,
        recall_by_kind={kind: (kinds_found[kind], count) for kind, count in sorted(kinds.items())},
        median_delay_hours=median(delay / timedelta(hours=1) for delay in found.values()) if found else None,
    )


def _counted(severities: Iterable[Severity]) -> dict[Severity, int]:
    counts = Counter(severities)
    return {severity: counts[severity] for severity in SEVERITIES}


def _verdict(alarm: Alarm, known: Sequence[Incident], *, complete: bool) -> str:
    met = {one.verdict for one in known if _meets(alarm, one)}
    if "real" in met:
        return "right"
    return "false" if complete or met else "unjudged"


def _delay(incident: Incident, alarms: Sequence[Alarm]) -> timedelta | None:
    """From the begin of an incident to the end of the first reported day or hour in it; None when there is none."""
    told = [
        max(one.timestamp + GRAIN_LENGTH[one.grain], incident.begins)
        for alarm in alarms
        if _meets(alarm, incident)
        for one in alarm.anomalies
        if one.timestamp < incident.ends and ends_of(one) > incident.begins
    ]
    return min(told) - incident.begins if told else None


def _meets(alarm: Alarm, incident: Incident) -> bool:
    """Whether both are about one agent and share a moment. A level that an incident does not name may be any."""
    same = all(theirs in (None, ours) for theirs, ours in zip(incident.series, alarm.series, strict=True))
    return same and alarm.begins < incident.ends and incident.begins < alarm.ends


def changes(before: Sequence[Alarm], after: Sequence[Alarm]) -> tuple[list[Alarm], list[Alarm]]:
    """Alarms that only ``after`` has, and those only ``before`` has: with none of the other's at the same time."""
    return _without(after, before), _without(before, after)


def _without(alarms: Sequence[Alarm], others: Sequence[Alarm]) -> list[Alarm]:
    known: defaultdict[Series, list[Alarm]] = defaultdict(list)
    for other in others:
        known[other.series].append(other)
    return [
        alarm
        for alarm in alarms
        if not any(alarm.begins < other.ends and other.begins < alarm.ends for other in known[alarm.series])
    ]
