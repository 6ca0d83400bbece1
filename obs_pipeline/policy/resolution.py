"""Which limits hold for a place of the organisation, and which policies decided each of them.

A pure function of the policies and an instant; it reads nothing and changes nothing. How a policy is written, and
what was spent, are no concern of this module.

The four rules
--------------
The chain organisation → project → agent is folded from the top.

1. Of several policies of one place the higher ``priority`` wins and the others say nothing. Equal priority is a
   conflict; until it is mended every limit of both stands, and what is above is replaced only if both override.
2. ``inherit`` takes what stands above as it is; what the policy states itself is reported as ignored.
3. ``override`` replaces what stands above, except limits stated by an ancestor of higher priority. Where those are
   stricter than the override, or the override has no such limit, that is a conflict and the ancestor's limit holds.
4. ``merge`` adds to what stands above.

So a chain leaves, for every field, the statements that still stand. Of limits and rate limits the strictest
decides; thresholds and channels are united. Limits of different periods are different fields. Limits of one kind
and period in two currencies cannot be compared: both hold, and that is a conflict. A policy of an organisation has
nothing above it and always states what it states; the calendar comes from it alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from obs_pipeline.policy.effective import (
    Conflict,
    Decided,
    EffectiveLimit,
    EffectivePolicy,
    FieldKey,
    Ignored,
    Step,
    amount,
)
from obs_pipeline.policy.provenance import PolicyRef, SourcedPolicy
from obs_pipeline.policy.schema import (
    KINDS,
    PERIODS,
    RATE_FIELDS,
    SCOPES,
    Calendar,
    Increase,
    Kind,
    Limit,
    Period,
    Place,
)
from obs_pipeline.policy.windows import moment, utc

_DEFAULT: Final = Calendar()
_THRESHOLDS: Final = FieldKey("alerts", "thresholds")
_CHANNELS: Final = FieldKey("alerts", "channels")
_TIME_ZONE: Final = FieldKey("calendar", "time_zone")
_WEEK_START: Final = FieldKey("calendar", "week_start")


@dataclass(frozen=True, slots=True)
class _Statement:
    key: FieldKey
    value: Any
    by: PolicyRef
    increase: Increase | None = None


@dataclass(frozen=True, slots=True)
class _Level:
    """The policies of one place: those of the highest priority, and the ones they outrank."""

    winners: tuple[SourcedPolicy, ...] = ()
    outranked: tuple[SourcedPolicy, ...] = ()

    @property
    def priority(self) -> int:
        return self.winners[0].policy.priority

    @property
    def overrides(self) -> bool:
        return all(winner.policy.inheritance == "override" for winner in self.winners)


_NO_LEVEL: Final = _Level()


class PolicySet:
    """Policies by place, so that resolving one agent among a hundred thousand looks at three places only."""

    def __init__(self, policies: Iterable[SourcedPolicy]) -> None:
        by_place: dict[Place, list[SourcedPolicy]] = {}
        for policy in policies:
            by_place.setdefault(policy.policy.place, []).append(policy)
        self._levels = {place: _level(found) for place, found in by_place.items()}

    def at(self, place: Place) -> _Level:
        return self._levels.get(place, _NO_LEVEL)

    @property
    def places(self) -> tuple[Place, ...]:
        """Every place that a policy is written for."""
        return tuple(self._levels)


def _level(policies: Sequence[SourcedPolicy]) -> _Level:
    highest = max(policy.policy.priority for policy in policies)
    ordered = sorted(policies, key=lambda policy: policy.ref)
    return _Level(
        tuple(policy for policy in ordered if policy.policy.priority == highest),
        tuple(policy for policy in ordered if policy.policy.priority < highest),
    )


@dataclass(frozen=True, slots=True)
class _State:
    """What is known after folding the chain down to some place."""

    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo(_DEFAULT.time_zone))
    standing: tuple[_Statement, ...] = ()
    replaced: tuple[tuple[_Statement, PolicyRef], ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    ignored: tuple[Ignored, ...] = ()


def resolve(
    chain: tuple[str, str | None, str | None], policies: PolicySet | Iterable[SourcedPolicy], at: datetime
) -> EffectivePolicy:
    """What holds at ``at`` for the place that ``chain`` (organisation, project, agent) names.

    ``None`` for the agent, or for both, asks for the project or the organisation itself. An ``at`` without zone is
    UTC. The order of ``policies`` is irrelevant.
    """
    place = Place(*chain)
    indexed = policies if isinstance(policies, PolicySet) else PolicySet(policies)
    state = _State()
    for step in place.chain:
        state = _fold(state, indexed.at(step), step, utc(at))
    return _effective(place, utc(at), state)


def resolve_all(
    places: Iterable[Place], policies: PolicySet | Iterable[SourcedPolicy], at: datetime
) -> dict[Place, EffectivePolicy]:
    """``resolve`` for many places, each organisation and project folded once."""
    indexed = policies if isinstance(policies, PolicySet) else PolicySet(policies)
    states: dict[Place, _State] = {}

    def state_of(place: Place) -> _State:
        if place not in states:
            above = _State() if place.parent is None else state_of(place.parent)
            states[place] = _fold(above, indexed.at(place), place, utc(at))
        return states[place]

    return {place: _effective(place, utc(at), state_of(place)) for place in places}


def _fold(above: _State, level: _Level, place: Place, at: datetime) -> _State:
    zone = ZoneInfo(_calendar(level).time_zone) if place.scope == "org" else above.zone
    if not level.winners:
        return above
    silent = [winner for winner in level.winners if _is_silent(winner)]
    said = [
        statement for winner in level.winners if not _is_silent(winner) for statement in _statements(winner, zone, at)
    ]
    kept, replaced, refused = _override(above.standing, level, said) if level.overrides else (above.standing, (), ())
    return _State(
        zone,
        (*kept, *said),
        (*above.replaced, *replaced),
        (*above.conflicts, *_twins(level, place), *refused),
        (
            *above.ignored,
            *(_not_listened_to(policy, level) for policy in level.outranked),
            *(ignored for winner in silent for ignored in _inherited_instead(winner, zone, at)),
        ),
    )


def _is_silent(policy: SourcedPolicy) -> bool:
    return policy.policy.inheritance == "inherit" and policy.policy.scope != "org"


def _calendar(level: _Level) -> Calendar:
    stated = (winner.policy.calendar for winner in level.winners)
    return next((calendar for calendar in stated if calendar is not None), _DEFAULT)


def _statements(source: SourcedPolicy, zone: ZoneInfo, at: datetime) -> Iterator[_Statement]:
    policy, ref = source.policy, source.ref
    for kind, _, limit in policy.stated_limits():
        increase = increase_at(limit, zone, at)
        key = FieldKey("budgets", kind, limit.period, getattr(limit, "currency", ""))
        yield _Statement(key, limit.limit if increase is None else increase.limit, ref, increase)
    if policy.rate_limits is not None:
        for name in RATE_FIELDS:
            rate = getattr(policy.rate_limits, name)
            if rate is not None:
                yield _Statement(FieldKey("rate_limits", name), rate, ref)
    if policy.alerts is not None:
        if policy.alerts.thresholds:
            yield _Statement(_THRESHOLDS, policy.alerts.thresholds, ref)
        if policy.alerts.channels:
            yield _Statement(_CHANNELS, policy.alerts.channels, ref)
    if policy.calendar is not None:
        yield _Statement(_TIME_ZONE, policy.calendar.time_zone, ref)
        yield _Statement(_WEEK_START, policy.calendar.week_start, ref)


def increase_at(limit: Limit, zone: ZoneInfo, at: datetime) -> Increase | None:
    """The dated raise of a limit in force at ``at``; of several the highest, then the one written first."""
    in_force = (
        increase
        for increase in limit.increases
        if moment(increase.starts, zone) <= utc(at) < moment(increase.until, zone)
    )
    return max(in_force, key=lambda increase: increase.limit, default=None)


_Overridden = tuple[tuple[_Statement, ...], tuple[tuple[_Statement, PolicyRef], ...], tuple[Conflict, ...]]


def _override(standing: tuple[_Statement, ...], level: _Level, said: Sequence[_Statement]) -> _Overridden:
    by = level.winners[0].ref
    kept = tuple(statement for statement in standing if _survives(statement, level.priority))
    gone = tuple((statement, by) for statement in standing if not _survives(statement, level.priority))
    guards = _by_field(statement for statement in kept if statement.key.is_limit)
    wished = _by_field(said)
    refused = (_refusal(level, key, min(guard, key=_strictness), wished.get(key, ())) for key, guard in guards.items())
    return kept, gone, tuple(conflict for conflict in refused if conflict is not None)


def _survives(statement: _Statement, priority: int) -> bool:
    if statement.key.is_limit:
        return statement.by.priority > priority
    return statement.key.group == "calendar"


def _refusal(level: _Level, key: FieldKey, guard: _Statement, wished: Sequence[_Statement]) -> Conflict | None:
    wish = min(wished, key=_strictness, default=None)
    if wish is not None and wish.value <= guard.value:
        return None
    overriding = level.winners[0].ref
    attempt = f"would lift it to {amount(wish.value)}" if wish is not None else "does not state it"
    return Conflict(
        "refused_override",
        str(key),
        (guard.by, *(winner.ref for winner in level.winners)),
        f"{guard.by} limits {key} to {amount(guard.value)} with priority {guard.by.priority}, and the override"
        f" {overriding} with priority {level.priority} {attempt}; {amount(guard.value)} holds",
        f"state at most {amount(guard.value)}, use inheritance: merge, or raise its priority to {guard.by.priority}",
    )


def _strictness(statement: _Statement) -> Any:
    return statement.value


def _by_field(statements: Iterable[_Statement]) -> dict[FieldKey, list[_Statement]]:
    found: dict[FieldKey, list[_Statement]] = {}
    for statement in statements:
        found.setdefault(statement.key, []).append(statement)
    return found


def _twins(level: _Level, place: Place) -> Iterator[Conflict]:
    if len(level.winners) > 1:
        refs = tuple(winner.ref for winner in level.winners)
        yield Conflict(
            "twins",
            "priority",
            refs,
            f"{' and '.join(map(str, refs))} are both for {place.scope} {place} with priority {level.priority};"
            " the stricter limits of both hold",
            "merge them into one policy or give them different priorities",
        )


def _not_listened_to(policy: SourcedPolicy, level: _Level) -> Ignored:
    winner = level.winners[0].ref
    return Ignored(policy.ref, "", f"{winner} is for the same place with the higher priority {winner.priority}")


def _inherited_instead(policy: SourcedPolicy, zone: ZoneInfo, at: datetime) -> Iterator[Ignored]:
    for statement in _statements(policy, zone, at):
        yield Ignored(policy.ref, str(statement.key), "inheritance: inherit takes what stands above instead")


def _effective(place: Place, at: datetime, state: _State) -> EffectivePolicy:
    fields = _by_field(state.standing)
    gone: dict[FieldKey, list[Step]] = {}
    for statement, by in state.replaced:
        step = Step(statement.by, statement.value, "replaced", by, statement.increase)
        gone.setdefault(statement.key, []).append(step)

    def united(key: FieldKey) -> Decided[tuple[Any, ...]]:
        said = fields.get(key, [])
        values = sorted({value for statement in said for value in statement.value})
        return Decided(tuple(values), _trail(gone.get(key, []), said, said))

    def first(key: FieldKey, default: Any) -> Decided[Any]:
        said = fields.get(key, [])
        return Decided(said[0].value if said else default, _trail([], said, said[:1]))

    limits = [_limit(key, said, gone.get(key, [])) for key, said in fields.items() if key.group == "budgets"]
    return EffectivePolicy(
        place,
        at,
        tuple(sorted(limits, key=_reading_order)),
        {
            name: _strictest(fields[key], gone.get(key, []))
            for name in RATE_FIELDS
            if (key := FieldKey("rate_limits", name)) in fields
        },
        united(_THRESHOLDS),
        united(_CHANNELS),
        first(_TIME_ZONE, _DEFAULT.time_zone),
        first(_WEEK_START, _DEFAULT.week_start),
        (*state.conflicts, *_currency_conflicts(fields)),
        state.ignored,
    )


def _limit(key: FieldKey, said: Sequence[_Statement], gone: Sequence[Step]) -> EffectiveLimit:
    strictest = min(said, key=_strictness)
    return EffectiveLimit(
        strictest.value,
        _trail(gone, said, [strictest]),
        cast(Kind, key.name),
        cast(Period, key.period),
        key.currency,
        strictest.increase,
    )


def _strictest(said: Sequence[_Statement], gone: Sequence[Step]) -> Decided[int]:
    strictest = min(said, key=_strictness)
    return Decided(strictest.value, _trail(gone, said, [strictest]))


def _trail(gone: Sequence[Step], said: Sequence[_Statement], deciding: Sequence[_Statement]) -> tuple[Step, ...]:
    chosen = {id(statement) for statement in deciding}
    steps = [
        Step(
            statement.by,
            statement.value,
            "decides" if id(statement) in chosen else "yields",
            None,
            statement.increase,
        )
        for statement in said
    ]
    return tuple(sorted((*gone, *steps), key=lambda step: SCOPES.index(step.by.scope)))


def _reading_order(limit: EffectiveLimit) -> tuple[int, int, str]:
    return KINDS.index(limit.kind), PERIODS.index(limit.period), limit.currency


def _currency_conflicts(fields: Mapping[FieldKey, Sequence[_Statement]]) -> Iterator[Conflict]:
    by_period: dict[str, list[FieldKey]] = {}
    for key in fields:
        if key.group == "budgets" and key.currency:
            by_period.setdefault(key.period, []).append(key)
    for period, keys in by_period.items():
        if len(keys) > 1:
            refs = tuple(statement.by for key in keys for statement in fields[key])
            named = " and ".join(sorted(key.currency for key in keys))
            yield Conflict(
                "currency",
                f"budgets.cost.{period}",
                refs,
                f"{', '.join(map(str, refs))} limit the {period} cost in {named}, which cannot be compared; both hold",
                "state the limits of one chain in one currency",
            )
