"""Test cases beside the policies: for a place, the limits that should hold and the files that should decide them.

Holds the shape of a case, reading cases and running them. A case says everything that limits the place: a limit
that holds and is not expected fails as surely as an expected one that does not hold, and so does a conflict. Rate
limits, thresholds and channels are compared only where the case states them.

Cases live in ``tests/`` under the policy folder; a file holds one case or a list of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from obs_pipeline.policy.effective import ConflictKind, Decided, EffectiveLimit, EffectivePolicy, amount
from obs_pipeline.policy.files import Entry, read_entries
from obs_pipeline.policy.problems import PolicyError
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve
from obs_pipeline.policy.schema import Channel, Kind, Moment, Money, Percent, Period, Place, Text
from obs_pipeline.policy.validation import problems_of
from obs_pipeline.policy.windows import utc
from obs_pipeline.yaml_positions import SUFFIXES, Problem

FOLDER: Final = "tests"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CasePlace(_Part):
    """Whose policy is asked for; without an agent the project's, without a project the organisation's."""

    org: Text
    project: Text | None = None
    agent: Text | None = None


class ExpectedLimit(_Part):
    """One limit: units of the kind, and the file, relative to the policy folder, that decides it."""

    kind: Kind
    period: Period
    limit: Money
    currency: str = ""
    decided_by: Text


class ExpectedRate(_Part):
    limit: Money
    decided_by: Text


class Expectation(_Part):
    limits: tuple[ExpectedLimit, ...]
    rate_limits: dict[str, ExpectedRate] | None = None
    thresholds: tuple[Percent, ...] | None = None
    channels: tuple[Channel, ...] | None = None
    conflicts: tuple[ConflictKind, ...] = ()


class PolicyCase(_Part):
    """At an instant, for a place, this should hold. ``at`` carries its zone."""

    name: Text
    place: Annotated[CasePlace, Field(alias="for")]
    at: Moment
    expect: Expectation

    @field_validator("at", mode="after")
    @classmethod
    def _at_is_an_instant(cls, at: Moment) -> Moment:
        if not isinstance(at, datetime):
            raise ValueError("an instant is wanted, such as 2026-05-01T12:00:00Z")
        return at


@dataclass(frozen=True, slots=True)
class SourcedCase:
    case: PolicyCase
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class LoadedCases:
    cases: tuple[SourcedCase, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """``differences`` says in words what differs from the expectation; a case without any has passed."""

    name: str
    file: str
    line: int
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.differences


def load_cases(folder: Path, *, strict: bool = False) -> LoadedCases:
    """The cases of a policy folder in file order. Bad content becomes problems, or ``PolicyError`` with ``strict``."""
    cases: list[SourcedCase] = []
    problems: list[Problem] = []
    tests = folder / FOLDER
    paths = sorted(path for path in tests.iterdir() if path.suffix in SUFFIXES) if tests.is_dir() else []
    for path in paths:
        file = path.relative_to(folder).as_posix()
        entries, _, problem = read_entries(folder, path)
        if problem is None and not entries:
            problem = Problem(file, 1, "", "holds no case", "write one or delete the file")
        problems.extend([] if problem is None else [problem])
        for entry in entries:
            case = _case(entry, file)
            if isinstance(case, SourcedCase):
                cases.append(case)
            else:
                problems.extend(case)
    if strict and problems:
        raise PolicyError(problems)
    return LoadedCases(tuple(cases), tuple(problems))


def _case(entry: Entry, file: str) -> SourcedCase | tuple[Problem, ...]:
    try:
        return SourcedCase(PolicyCase.model_validate(entry.value), file, entry.line)
    except ValidationError as error:
        return tuple(problems_of(error, PolicyCase, file, entry.line, entry.lines))


def run_cases(cases: Iterable[SourcedCase], policies: PolicySet | Iterable[SourcedPolicy]) -> tuple[CaseResult, ...]:
    """Every case against the policies, in the order given."""
    indexed = policies if isinstance(policies, PolicySet) else PolicySet(policies)
    return tuple(_run(sourced, indexed) for sourced in cases)


def _run(sourced: SourcedCase, policies: PolicySet) -> CaseResult:
    case = sourced.case
    place = Place(case.place.org, case.place.project, case.place.agent)
    effective = resolve(place, policies, utc(cast(datetime, case.at)))
    differences = (*_limits(case.expect, effective), *_stated(case.expect, effective))
    return CaseResult(case.name, sourced.file, sourced.line, differences)


def _limits(expect: Expectation, effective: EffectivePolicy) -> Iterator[str]:
    left = list(effective.limits)
    for wanted in expect.limits:
        found = next((limit for limit in left if _is_wanted(limit, wanted)), None)
        if found is None:
            yield f"no {wanted.period} {wanted.kind} limit holds, expected {amount(wanted.limit)}"
            continue
        left.remove(found)
        yield from _compared(f"{wanted.period} {wanted.kind} limit", found, wanted.limit, wanted.decided_by)
    for limit in left:
        yield f"the {limit.period} {limit.kind} limit {amount(limit.value)} of {limit.ref} holds, expected none"


def _is_wanted(limit: EffectiveLimit, wanted: ExpectedLimit) -> bool:
    same = (limit.kind, limit.period) == (wanted.kind, wanted.period)
    return same and wanted.currency in ("", limit.currency)


def _compared(named: str, found: Decided[Any], wanted: Decimal, decided_by: str) -> Iterator[str]:
    if found.value != wanted:
        yield f"the {named} is {amount(found.value)} by {found.decided_by[0]}, expected {amount(wanted)}"
    if decided_by not in found.files:
        yield f"the {named} is decided by {found.files[0]}, expected {decided_by}"


def _stated(expect: Expectation, effective: EffectivePolicy) -> Iterator[str]:
    if expect.rate_limits is not None:
        yield from _rates(expect.rate_limits, effective)
    if expect.thresholds is not None:
        yield from _listed("thresholds", expect.thresholds, effective.thresholds.value, lambda value: f"{value:f}")
    if expect.channels is not None:
        yield from _listed("channels", expect.channels, effective.channels.value, str)
    kinds = tuple(conflict.kind for conflict in effective.conflicts)
    yield from _listed("conflicts", expect.conflicts, kinds, str)


def _rates(expected: dict[str, ExpectedRate], effective: EffectivePolicy) -> Iterator[str]:
    for name in sorted(expected.keys() | effective.rate_limits.keys()):
        wanted, found = expected.get(name), effective.rate_limits.get(name)
        if wanted is not None and found is not None:
            yield from _compared(name, found, wanted.limit, wanted.decided_by)
        elif wanted is not None:
            yield f"no {name} holds, expected {amount(wanted.limit)}"
        elif found is not None:
            yield f"{name} {amount(found.value)} of {found.decided_by[0]} holds, expected none"


def _listed(named: str, wanted: Iterable[Any], found: Iterable[Any], shown: Callable[[Any], str]) -> Iterator[str]:
    if sorted(wanted) != sorted(found):
        listed = [", ".join(map(shown, sorted(values))) or "none" for values in (found, wanted)]
        yield f"the {named} are {listed[0]}, expected {listed[1]}"
