"""The calendar file: what is known beforehand to make usage unusual, for whom, and by how much.

Holds the schema of ``calendar.yaml``, its reading with the line of every mistake, and when its events take place. What
an event does to a baseline or a verdict is not decided here.

version: 1
events:
  - name: Black Friday
    from: 2026-11-27                      # a day or a time, in the zone below
    until: 2026-12-01                     # exclusive
    timezone: America/New_York            # UTC without it
    every: year                           # once without it
    scope: {org: acme, project: [atlas, beacon]}   # everyone without it
    expect: {cost: [1, 4], tokens: [1, 4]}         # multiples of the usual; what is not named is judged as ever
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from obs_pipeline.detection.config import Metric
from obs_pipeline.errors import ObsError
from obs_pipeline.time_zones import TimeZone
from obs_pipeline.yaml_positions import Document, FieldPath, nearest_line, read_documents

ANYTHING: Final = (0.0, float("inf"))
"""What an event without a stated effect lets cost and tokens be: any multiple of the usual."""

SCOPES: Final = ("org", "project", "agent")
_LONGEST: Final = timedelta(days=366)


class CalendarError(ObsError):
    """The calendar cannot be used; the message names file, line and field of each mistake."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _local(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("is no date; write 2026-11-27 or 2026-11-27T18:00")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{value!r} is no date; write 2026-11-27 or 2026-11-27T18:00") from None
    if moment.tzinfo is not None:
        raise ValueError("has an offset; leave it out and name the zone in timezone")
    return moment


def _names(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]
Multiple = Annotated[float, Field(ge=0)]


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("must rise: [at least, at most] as multiples of the usual")
    return span


class Scope(_Strict):
    """Whom an event is about: those whose every named level is one of the names. Nothing named is everyone."""

    org: Names | None = None
    project: Names | None = None
    agent: Names | None = None


class PlannedEvent(_Strict):
    """One event of the calendar. ``begins`` and ``ends`` are local times of ``timezone``, the end exclusive."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    begins: Annotated[datetime, BeforeValidator(_local), Field(alias="from")]
    ends: Annotated[datetime, BeforeValidator(_local), Field(alias="until")]
    timezone: TimeZone = "UTC"
    every: Literal["year"] | None = None
    scope: Scope = Scope()
    expect: Mapping[Metric, Annotated[tuple[Multiple, Multiple], AfterValidator(_rising)]] | None = None

    @model_validator(mode="after")
    def _lasts(self) -> PlannedEvent:
        if self.ends <= self.begins:
            raise ValueError("until must be after from; it is the first moment that no longer belongs to the event")
        if self.every and self.ends - self.begins > _LONGEST:
            raise ValueError("an event of every year cannot be longer than one")
        return self

    def multiples(self, metric: Metric) -> tuple[float, float] | None:
        """Between which multiples of the usual the metric is expected; None where the event says nothing of it."""
        if self.expect is None:
            return ANYTHING if metric in ("cost", "tokens") else None
        return self.expect.get(metric)


class _File(_Strict):
    version: Literal[1] = 1
    events: tuple[PlannedEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An event as it takes place once, [begins, ends) in UTC without a zone."""

    event: PlannedEvent
    begins: datetime
    ends: datetime


def load_calendar(path: Path) -> tuple[PlannedEvent, ...]:
    """The events of a file, in its order; a file that is not there has none.

    Raises:
        CalendarError: the file cannot be read or used; every mistake with its line.
    """
    if not path.exists():
        return ()
    documents, _, problem = read_documents(path, path.name)
    if problem:
        raise CalendarError(str(problem))
    if len(documents) > 1:
        raise CalendarError(f"{path.name}:{documents[1].line}: a second document; a calendar is one document")
    if not documents:
        return ()
    try:
        return _File.model_validate(documents[0].value).events
    except ValidationError as error:
        raise CalendarError("\n".join(_told(path.name, documents[0], error))) from None


def _told(file: str, document: Document, error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        path: FieldPath = tuple(one["loc"])
        yield f"{file}:{nearest_line(document.lines, path)}: {'.'.join(map(str, path)) or 'the file'}: {_message(dict(one))}"


def _message(one: dict[str, Any]) -> str:
    if one["type"] == "extra_forbidden":
        return "there is no such field; remove it or mend its spelling"
    if one["type"] == "missing":
        return "is missing; add it"
    return str(one["msg"]).removeprefix("Value error, ")


def occurrences(events: Sequence[PlannedEvent], first: date, last: date) -> list[Occurrence]:
    """Every occurrence that overlaps the UTC days ``first`` … ``last``, in the order of the events."""
    start = datetime(first.year, first.month, first.day)
    end = datetime(last.year, last.month, last.day) + timedelta(days=1)
    return [
        occurrence
        for event in events
        for occurrence in _of_event(event, first.year, last.year)
        if occurrence.begins < end and occurrence.ends > start
    ]


def _of_event(event: PlannedEvent, first: int, last: int) -> Iterator[Occurrence]:
    zone = ZoneInfo(event.timezone)
    if event.every is None:
        yield Occurrence(event, _utc(event.begins, zone), _utc(event.ends, zone))
        return
    length = event.ends - event.begins
    for year in range(first - 1, last + 2):
        begins = _in_year(event.begins, year)
        yield Occurrence(event, _utc(begins, zone), _utc(begins + length, zone))


def _in_year(moment: datetime, year: int) -> datetime:
    """The same day of another year; the leap day falls on the first of March where there is none."""
    try:
        return moment.replace(year=year)
    except ValueError:
        return moment.replace(year=year, month=3, day=1)


def _utc(local: datetime, zone: ZoneInfo) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
