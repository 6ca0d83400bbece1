"""The routes file: who is told of what, how soon, how often, and what keeps quiet.

Holds the schema of ``routes.yaml``, its reading with the line of every mistake, and which routes an incident takes. What
a route does with what takes it is decided by the pipeline.

A route states what differs from its parent; everything else is the parent's. A field written as empty (``escalation:``)
takes the parent's away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from obs_pipeline.alerting.connections import CHANNEL_OPTIONS, missing_options
from obs_pipeline.alerting.matching import Labelled, Mask, Matchers, checked
from obs_pipeline.alerting.models import (
    LABELS,
    TASK_CHANNEL,
    Escalation,
    RateLimit,
    Receiver,
    Route,
    TaskTemplate,
)
from obs_pipeline.alerting.spans import WEEKDAYS, QuietTime, span
from obs_pipeline.errors import ObsError
from obs_pipeline.time_zones import TimeZone
from obs_pipeline.yaml_positions import FieldPath, Problem, documents_in, nearest_line

ROOT: Final = "root"


class RoutesError(ObsError):
    """The routes file cannot be used; ``problems`` lists what to mend, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        listed = "".join(f"\n  {problem}" for problem in self.problems)
        many = f"{len(self.problems)} problems in the routes file:{listed}"
        super().__init__(str(self.problems[0]) if len(self.problems) == 1 else many)


@dataclass(frozen=True, slots=True)
class Inhibition:
    """While an active incident is meant by ``source``, those meant by ``target`` with equal labels are not told."""

    name: str
    source: Matchers
    target: Matchers
    equal: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Routes:
    """Everything the file says. ``receivers`` are those that escalations may name, ``digest`` names the text."""

    root: Route
    receivers: Mapping[str, Receiver]
    quiet_times: Mapping[str, QuietTime]
    inhibitions: tuple[Inhibition, ...]
    text: str
    digest: str

    def __iter__(self) -> Iterator[Route]:
        """Every route, parents before children, in the order of the file."""
        waiting = [self.root]
        while waiting:
            route = waiting.pop()
            yield route
            waiting += reversed(route.children)


# -- schema -----------------------------------------------------------------------------------------------------------


def _span(value: object) -> timedelta:
    if not isinstance(value, str):
        raise ValueError("is no length of time; write it as 30m, 2h, 3d or 1h30m")
    return span(value)


def _clock(value: object) -> time:
    try:
        return time.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f'{value!r} is no time of day; write it in quotes, as "20:00"') from None


def _label(value: str) -> str:
    if value not in (*LABELS, "incident"):
        raise ValueError(f"{value!r} is no label; it is one of {', '.join(LABELS)}, or incident")
    return value


def _kept_label(value: str) -> str:
    if value not in LABELS:
        raise ValueError(f"{value!r} is no label; it is one of {', '.join(LABELS)}")
    return value


def _words(value: object) -> object:
    return [value] if isinstance(value, str) else value


Span = Annotated[timedelta, BeforeValidator(_span)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Meant = Annotated[dict[str, Words], AfterValidator(checked)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Receiver(_Spec):
    name: str = Field(min_length=1, max_length=200)
    channel: str
    options: dict[str, Any] = {}


class _QuietTime(_Spec):
    name: str = Field(min_length=1)
    zone: TimeZone
    days: tuple[Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"], ...] = WEEKDAYS
    begins: Annotated[time, BeforeValidator(_clock)] = Field(alias="from")
    ends: Annotated[time, BeforeValidator(_clock)] = Field(alias="until")


class _Inhibition(_Spec):
    name: str = Field(min_length=1)
    source: Meant
    target: Meant
    equal: tuple[Annotated[str, AfterValidator(_kept_label)], ...] = ()


class _RateLimit(_Spec):
    per_hour: int | None = Field(default=None, ge=0)
    per_day: int | None = Field(default=None, ge=0)


class _Escalation(_Spec):
    after: Span
    receivers: Words


class _Task(_Spec):
    tracker: Literal["ledger", "github", "jira", "redmine"] = "ledger"
    priority: Literal["low", "medium", "high", "critical"] = "medium"
    assignee: str = ""
    labels: Words = ()
    options: dict[str, Any] = {}


class _Route(_Spec):
    name: str = Field(default="", max_length=180)
    match: Meant = {}
    continues: bool = Field(default=False, alias="continue")
    receivers: Words | None = None
    group_by: Annotated[tuple[Annotated[str, AfterValidator(_label)], ...], BeforeValidator(_words)] | None = None
    group_wait: Span | None = None
    group_interval: Span | None = None
    repeat_interval: Span | None = None
    digest_interval: Span | None = None
    mute_times: Words | None = None
    rate_limit: _RateLimit | None = None
    escalation: _Escalation | None = None
    create_task: _Task | bool | None = None
    routes: tuple[_Route, ...] = ()


class _File(_Spec):
    receivers: tuple[_Receiver, ...]
    quiet_times: tuple[_QuietTime, ...] = ()
    inhibit: tuple[_Inhibition, ...] = ()
    route: _Route


_PLAIN: Final = Route(
    name=ROOT,
    line=1,
    matchers={},
    continues=False,
    receivers=(),
    group_by=("org", "project", "kind"),
    group_wait=timedelta(minutes=1),
    group_interval=timedelta(minutes=5),
    repeat_interval=timedelta(hours=24),
    digest_interval=timedelta(hours=1),
    mute_times=(),
    rate_limit=RateLimit(),
    escalation=None,
    create_task=None,
)
"""What the root route says where the file says nothing."""


# -- reading ----------------------------------------------------------------------------------------------------------


def load_routes(path: Path) -> Routes:
    """The routes of a file.

    Raises:
        RoutesError: it is missing, is no YAML, says what the schema does not know, or names a receiver, channel or
            quiet time that does not exist.
    """
    return parse_routes(_bytes(path), path.name)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise RoutesError([Problem(path.name, 1, "", f"cannot be read: {reason}", f"put it at {path}")]) from None


def parse_routes(content: bytes, file: str) -> Routes:
    """The routes of a text; ``file`` is the name that problems carry. Raises as ``load_routes`` does."""
    documents, problem = documents_in(content, file)
    if problem is not None:
        raise RoutesError([problem])
    if len(documents) != 1:
        raise RoutesError([Problem(file, 1, "", f"holds {len(documents)} documents", "write one")])
    where = _Lines(file, documents[0].lines)
    try:
        spec = _File.model_validate(documents[0].value)
    except ValidationError as error:
        raise RoutesError(where.refusals(error)) from None
    problems = list(_problems(spec, where))
    if problems:
        raise RoutesError(sorted(problems, key=lambda one: one.line))
    return _compiled(spec, where, content.decode("utf-8-sig"))


class _Lines:
    """Finds the line of a field."""

    def __init__(self, file: str, lines: Mapping[FieldPath, int]) -> None:
        self._file, self._lines = file, lines

    def line(self, path: FieldPath) -> int:
        """The line of the field, or of what is nearest around it."""
        return nearest_line(self._lines, path)

    def problem(self, path: FieldPath, message: str, mend: str) -> Problem:
        return Problem(self._file, self.line(path), ".".join(map(str, path)), message, mend)

    def refusals(self, error: ValidationError) -> list[Problem]:
        found = [self._refusal(detail) for detail in error.errors()]
        return sorted(dict.fromkeys(found), key=lambda problem: problem.line)

    def _refusal(self, detail: ErrorDetails) -> Problem:
        # Where a field may be of several types, pydantic adds the type's name to the path; the file knows none.
        path = tuple(part for part in detail["loc"] if part not in {"_Task", "bool"})
        match detail["type"]:
            case "missing":
                return self.problem(path, "is missing", "add it")
            case "extra_forbidden":
                return self.problem(path, "is not a field of the routes file", "remove it or correct its name")
            case "value_error":
                message, _, mend = detail["msg"].removeprefix("Value error, ").rpartition("; ")
                return self.problem(path, message or mend, mend if message else "correct it")
            case _:
                said = detail["msg"][:1].lower() + detail["msg"][1:]
                return self.problem(path, f"is {str(detail['input'])[:60]!r}: {said}", "correct it")


def _problems(spec: _File, where: _Lines) -> Iterator[Problem]:
    yield from _twice([one.name for one in spec.receivers], "receivers", where)
    yield from _twice([one.name for one in spec.quiet_times], "quiet_times", where)
    for place, receiver in enumerate(spec.receivers):
        if receiver.channel not in CHANNEL_OPTIONS:
            known = f"write one of {', '.join(CHANNEL_OPTIONS)}"
            yield where.problem(("receivers", place, "channel"), f"{receiver.channel!r} is no channel", known)
        elif wrong := missing_options(receiver.channel, receiver.options):
            yield where.problem(("receivers", place), f"{receiver.name!r} cannot be used: {wrong}", "add its options")
    if spec.route.match:
        yield where.problem(("route", "match"), "the first route must mean everything", "move this into a child route")
    names = Counter(route.name for _, route in _walk(spec.route))
    for path, route in _walk(spec.route):
        yield from _route_problems(spec, path, route, names, where)


def _route_problems(
    spec: _File, path: FieldPath, route: _Route, names: Counter[str], where: _Lines
) -> Iterator[Problem]:
    receivers = [one.name for one in spec.receivers]
    quiet = [one.name for one in spec.quiet_times]
    named = [("receivers", name, receivers) for name in route.receivers or ()]
    named += [("mute_times", name, quiet) for name in route.mute_times or ()]
    named += [("escalation", name, receivers) for name in (route.escalation.receivers if route.escalation else ())]
    for field, name, known in named:
        if name not in known:
            what = "quiet time" if field == "mute_times" else "receiver"
            mend = f"write one of {', '.join(known)}" if known else f"define a {what} of that name"
            yield where.problem((*path, field), f"there is no {what} {name!r}", mend)
    if isinstance(route.create_task, _Task):
        task = route.create_task
        if wrong := missing_options(TASK_CHANNEL, {**task.options, "tracker": task.tracker}):
            yield where.problem((*path, "create_task"), f"no task can be made: {wrong}", "add them under options")
    if len(path) > 1 and not route.name:
        yield where.problem(path, "the route has no name", "add one; what was told is remembered by it")
    if route.name and (names[route.name] > 1 or (len(path) > 1 and route.name == ROOT)):
        yield where.problem((*path, "name"), f"several routes are called {route.name!r}", "name them apart")
    for place, child in enumerate(route.routes[:-1]):
        if not child.match and not child.continues:
            after = (*path, "routes", place + 1)
            yield where.problem(after, f"is never reached: {child.name!r} before it takes everything", "move it up")


def _twice(names: Sequence[str], field: str, where: _Lines) -> Iterator[Problem]:
    for place, name in enumerate(names):
        if name in names[:place]:
            yield where.problem((field, place, "name"), f"{name!r} is defined twice", "name them apart")


def _walk(route: _Route, path: FieldPath = ("route",)) -> Iterator[tuple[FieldPath, _Route]]:
    yield path, route
    for place, child in enumerate(route.routes):
        yield from _walk(child, (*path, "routes", place))


def _compiled(spec: _File, where: _Lines, text: str) -> Routes:
    receivers = {one.name: Receiver(one.name, one.channel, one.options) for one in spec.receivers}
    quiet = {
        one.name: QuietTime(one.name, one.zone, tuple(map(WEEKDAYS.index, one.days)), one.begins, one.ends)
        for one in spec.quiet_times
    }
    inhibitions = tuple(Inhibition(one.name, one.source, one.target, one.equal) for one in spec.inhibit)
    root = _route(spec.route, ("route",), _PLAIN, receivers, where)
    return Routes(root, receivers, quiet, inhibitions, text, hashlib.sha256(text.encode()).hexdigest())


def _route(spec: _Route, path: FieldPath, parent: Route, receivers: Mapping[str, Receiver], where: _Lines) -> Route:
    stated = spec.model_fields_set

    def taken(field: str, value: Any, nothing: Any) -> Any:
        return getattr(parent, field) if field not in stated else nothing if value is None else value

    limit, escalation = spec.rate_limit, spec.escalation
    route = Route(
        name=spec.name or ROOT,
        line=where.line(path),
        matchers=spec.match,
        continues=spec.continues,
        receivers=taken("receivers", tuple(receivers[name] for name in spec.receivers or ()), ()),
        group_by=taken("group_by", spec.group_by, ()),
        group_wait=taken("group_wait", spec.group_wait, timedelta()),
        group_interval=taken("group_interval", spec.group_interval, timedelta()),
        repeat_interval=taken("repeat_interval", spec.repeat_interval, None),
        digest_interval=taken("digest_interval", spec.digest_interval, timedelta()),
        mute_times=taken("mute_times", spec.mute_times, ()),
        rate_limit=taken("rate_limit", limit and RateLimit(limit.per_hour, limit.per_day), RateLimit()),
        escalation=taken("escalation", escalation and Escalation(escalation.after, escalation.receivers), None),
        create_task=taken("create_task", _task(spec.create_task), None),
    )
    children = tuple(
        _route(child, (*path, "routes", place), route, receivers, where) for place, child in enumerate(spec.routes)
    )
    return Route(**{**{name: getattr(route, name) for name in Route.__slots__}, "children": children})


def _task(spec: _Task | bool | None) -> TaskTemplate | None:
    if isinstance(spec, bool) or spec is None:
        return TaskTemplate() if spec else None
    return TaskTemplate(spec.tracker, spec.priority, spec.assignee, spec.labels, spec.options)


# -- which routes -----------------------------------------------------------------------------------------------------


def taken_routes(routes: Routes, labelled: Labelled) -> list[tuple[Route, Mask]]:
    """Every route with the incidents that take it, as one truth value an incident. Each takes at least one route."""
    found: list[tuple[Route, Mask]] = []
    _descend(routes.root, labelled.everything(), labelled, found)
    return found


def _descend(route: Route, reached: Mask, labelled: Labelled, found: list[tuple[Route, Mask]]) -> None:
    left = reached.copy()
    passed_on = ~labelled.everything()
    own = len(found)
    for child in route.children:
        taken = left & labelled.meant_by(child.matchers) if left.any() else passed_on & left
        if taken.any():
            _descend(child, taken, labelled, found)
        passed_on |= taken
        if not child.continues:
            left &= ~taken
    found.insert(own, (route, reached & ~passed_on))
