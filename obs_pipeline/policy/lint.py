"""What is odd about policies that are valid one by one: limits that never bind, wishes that are refused, twins.

One small function a lint; each looks at one policy in its chain and names the line and a way to mend it. Reading
files and deciding limits happen elsewhere. An ``error`` means that someone's wish does not hold, a ``warning`` that
something written has no effect or probably another one than meant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from itertools import pairwise
from typing import Final, Literal
from zoneinfo import ZoneInfo

from obs_pipeline.policy.effective import Decided, EffectiveLimit, EffectivePolicy, amount
from obs_pipeline.policy.provenance import PolicyRef, SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve_all
from obs_pipeline.policy.schema import PERIODS, Increase, Period, Place
from obs_pipeline.policy.status import SPEND_CURRENCY
from obs_pipeline.policy.windows import moment, utc
from obs_pipeline.yaml_positions import FieldPath

Severity = Literal["error", "warning"]

MOST_WINDOWS: Final[dict[tuple[Period, Period], int]] = {
    ("hourly", "daily"): 26,
    ("hourly", "weekly"): 170,
    ("hourly", "monthly"): 746,
    ("daily", "weekly"): 7,
    ("daily", "monthly"): 31,
    ("weekly", "monthly"): 6,
}
"""How many windows of the shorter period one window of the longer can touch, at most: the day the clocks go back has
25 hours, and in a zone at half hours it begins and ends within an hour; six calendar weeks can touch a month."""

_TOUCHES_TWO: Final = frozenset({("weekly", "monthly"), *(("hourly", longer) for longer in PERIODS[1:])})
"""Pairs where one window of the shorter period can lie in two of the longer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One lint of one policy. ``line`` counts from 1; ``field`` is dotted."""

    rule: str
    severity: Severity
    policy: PolicyRef
    line: int
    field: str
    message: str
    mend: str

    @property
    def file(self) -> str:
        return self.policy.file

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: {self.severity} {self.rule}: {self.field}"
        return f"{where}: {self.message}; {self.mend}"


@dataclass(frozen=True, slots=True)
class _Subject:
    """A policy with what holds at its place and at the place above."""

    source: SourcedPolicy
    here: EffectivePolicy
    above: EffectivePolicy | None
    at: datetime
    known: Collection[Place] | None

    @property
    def ref(self) -> PolicyRef:
        return self.source.ref

    def finding(self, rule: str, severity: Severity, path: FieldPath, message: str, mend: str) -> Finding:
        field = ".".join(map(str, path))
        return Finding(rule, severity, self.ref, self.source.line_of(*path), field, message, mend)


def lint(
    policies: Iterable[SourcedPolicy], at: datetime, known: Collection[Place] | None = None
) -> tuple[Finding, ...]:
    """Every finding, by file and line. ``known`` are the places that usage mentions; without it none is unknown."""
    sources = tuple(policies)
    indexed = PolicySet(sources)
    wanted = {place for source in sources for place in source.policy.place.chain}
    effective = resolve_all(wanted, indexed, at)
    found: list[Finding] = []
    for source in sources:
        place = source.policy.place
        above = None if place.parent is None else effective[place.parent]
        subject = _Subject(source, effective[place], above, utc(at), known)
        for rule in _RULES:
            found.extend(rule(subject))
    return tuple(sorted(found, key=lambda finding: (finding.file, finding.line, finding.rule, finding.field)))


def _child_exceeds_parent(subject: _Subject) -> Iterator[Finding]:
    for path, decided in _own_fields(subject):
        own = next((step for step in decided.trail if step.by == subject.ref), None)
        strictest = decided.decided_by[0]
        if own is None or own.outcome != "yields" or own.value <= decided.value:
            continue
        if strictest.scope != subject.ref.scope and subject.source.policy.inheritance == "merge":
            yield subject.finding(
                "child-exceeds-parent",
                "warning",
                path,
                f"{amount(own.value)} never binds: {strictest} above allows {amount(decided.value)}",
                f"lower it to less than {amount(decided.value)} or remove it",
            )


def _own_fields(subject: _Subject) -> Iterator[tuple[FieldPath, Decided[Decimal | int]]]:
    for kind, position, stated in subject.source.policy.stated_limits():
        limit = subject.here.limit(kind, stated.period, getattr(stated, "currency", ""))
        if limit is not None:
            yield ("budgets", kind, position, "limit"), limit
    for name, rate in subject.here.rate_limits.items():
        if getattr(subject.source.policy.rate_limits, name, None) is not None:
            yield ("rate_limits", name), rate


def _never_binds(subject: _Subject) -> Iterator[Finding]:
    for limit in subject.here.limits:
        if limit.ref != subject.ref:
            continue
        for other in subject.here.limits:
            reason = _shadowed(limit, other)
            if reason is not None:
                yield subject.finding(
                    "never-binds",
                    "warning",
                    _path_of(subject.source, limit),
                    f"the {limit.period} {limit.kind} limit {amount(limit.value)} can never bind: {reason}",
                    "lower it or remove it",
                )
                break


def _shadowed(limit: EffectiveLimit, other: EffectiveLimit) -> str | None:
    if (limit.kind, limit.currency) != (other.kind, other.currency) or limit.period == other.period:
        return None
    named = f"the {other.period} limit {amount(other.value)} of {other.ref}"
    if PERIODS.index(other.period) < PERIODS.index(limit.period):
        windows = MOST_WINDOWS[other.period, limit.period]
        most = other.value * windows
        return f"{named} allows at most {amount(most)} in {windows} periods" if limit.value >= most else None
    windows = 2 if (limit.period, other.period) in _TOUCHES_TWO else 1
    return f"{named} is reached first" if limit.value >= other.value * windows else None


def _path_of(source: SourcedPolicy, limit: EffectiveLimit) -> FieldPath:
    for kind, position, stated in source.policy.stated_limits():
        if (kind, stated.period) == (limit.kind, limit.period):
            return ("budgets", kind, position, "limit")
    return ("budgets",)


def _thresholds_out_of_order(subject: _Subject) -> Iterator[Finding]:
    alerts = subject.source.policy.alerts
    if alerts is None:
        return
    for position, (lower, higher) in enumerate(pairwise(alerts.thresholds), start=1):
        if higher <= lower:
            yield subject.finding(
                "thresholds-out-of-order",
                "warning",
                ("alerts", "thresholds", position),
                f"{higher:f} comes after {lower:f}",
                "write every threshold once, in rising order",
            )


def _silences_alerts(subject: _Subject) -> Iterator[Finding]:
    policy = subject.source.policy
    if policy.inheritance != "override" or subject.above is None or not subject.above.thresholds.value:
        return
    if not subject.here.thresholds.value:
        yield subject.finding(
            "override-silences-alerts",
            "warning",
            ("inheritance",),
            "the override states no thresholds, so that nothing is announced any more",
            "state alerts, or use inheritance: merge",
        )


def _conflicts(subject: _Subject) -> Iterator[Finding]:
    # A conflict is told once for each policy that can mend it; those above a refused override are in the right.
    rules = {"refused_override": "override-refused", "twins": "same-priority-twins", "currency": "two-currencies"}
    for conflict in subject.here.conflicts:
        mending = conflict.policies[1:] if conflict.kind == "refused_override" else conflict.policies
        if subject.ref in mending:
            path = _conflict_path(subject.source, conflict.field)
            yield subject.finding(rules[conflict.kind], "error", path, conflict.message, conflict.mend)


def _conflict_path(source: SourcedPolicy, field: str) -> FieldPath:
    group, *names = field.split(" ")[0].split(".")
    if group == "budgets":
        for kind, position, stated in source.policy.stated_limits():
            if [kind, stated.period] == names:
                return ("budgets", kind, position, "limit")
        return ("inheritance",)
    if group == "rate_limits" and getattr(source.policy.rate_limits, names[0], None) is None:
        return ("inheritance",)
    return (group, *names)


def _foreign_currency(subject: _Subject) -> Iterator[Finding]:
    for position, limit in enumerate(subject.source.policy.budgets.cost):
        if limit.currency != SPEND_CURRENCY:
            yield subject.finding(
                "foreign-currency",
                "error",
                ("budgets", "cost", position, "currency"),
                f"usage is counted in {SPEND_CURRENCY}, a limit in {limit.currency} is never compared with it",
                f"state the limit in {SPEND_CURRENCY}",
            )


def _expired_increase(subject: _Subject) -> Iterator[Finding]:
    zone = ZoneInfo(subject.here.time_zone.value)
    for kind, position, limit in subject.source.policy.stated_limits():
        increases: tuple[Increase, ...] = limit.increases
        for number, increase in enumerate(increases):
            if moment(increase.until, zone) <= subject.at:
                yield subject.finding(
                    "expired-increase",
                    "warning",
                    ("budgets", kind, position, "increases", number, "until"),
                    f"the increase to {amount(increase.limit)} ended on {increase.until.isoformat()}",
                    "remove it",
                )


def _ignored_fields(subject: _Subject) -> Iterator[Finding]:
    for ignored in subject.here.ignored:
        if ignored.by == subject.ref:
            path = _conflict_path(subject.source, ignored.field) if ignored.field else ("priority",)
            mend = "remove it, or use inheritance: merge" if ignored.field else "remove the policy or merge the two"
            yield subject.finding("ignored-field", "warning", path, ignored.reason, mend)


def _unknown_scope(subject: _Subject) -> Iterator[Finding]:
    place = subject.source.policy.place
    if subject.known is None or place in subject.known:
        return
    yield subject.finding(
        "unknown-scope",
        "warning",
        ("scope_id",),
        f"no usage mentions {place.scope} {place}",
        _likely_place(place, subject.known),
    )


def _likely_place(place: Place, known: Collection[Place]) -> str:
    same_scope = [other for other in known if other.scope == place.scope]
    elsewhere = sorted(str(other) for other in same_scope if other.scope_id == place.scope_id)
    if elsewhere:
        return f"usage has {place.scope} {place.scope_id} as {', '.join(elsewhere[:3])}: correct org or project"
    siblings = [other.scope_id for other in same_scope if other.parent == place.parent]
    close = get_close_matches(place.scope_id, siblings, n=1)
    return f"did you mean {close[0]}?" if close else "correct the name, or remove the policy"


_RULES: Final = (
    _child_exceeds_parent,
    _never_binds,
    _thresholds_out_of_order,
    _silences_alerts,
    _conflicts,
    _foreign_currency,
    _expired_increase,
    _ignored_fields,
    _unknown_scope,
)
