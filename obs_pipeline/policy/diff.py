"""What a change of the policies does to the limits of every place: which fields, from what to what, tighter or looser.

A pure comparison of two sets of policies at one instant. Reading either set, and what was ever spent, happen
elsewhere.

A limit that appears, or that becomes lower, is tighter; one that disappears or becomes higher is looser. Thresholds,
channels and the calendar have no such order: they are changed. Policies that differ without changing what holds
anywhere at the instant (a reworded name, a raise that begins later) are listed as edited all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from obs_pipeline.policy.effective import Conflict, Decided, EffectivePolicy, FieldKey
from obs_pipeline.policy.provenance import PolicyRef, SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve_all
from obs_pipeline.policy.schema import Place

Direction = Literal["tighter", "looser", "changed"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("tighter", "looser", "changed")
Edit = Literal["added", "removed", "edited"]

_UNSTATED: Final[Decided[Any]] = Decided(None, ())


@dataclass(frozen=True, slots=True)
class PolicyEdit:
    """One policy that is in one set only, or says something else in the other."""

    id: str
    edit: Edit
    before: PolicyRef | None
    after: PolicyRef | None


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of one place that holds differently. ``None`` is a field that nothing states."""

    place: Place
    field: FieldKey
    direction: Direction
    before: Any
    after: Any
    before_by: tuple[PolicyRef, ...]
    after_by: tuple[PolicyRef, ...]


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """Everything that differs. ``conflicts`` are those that the change brings, each told once."""

    policies: tuple[PolicyEdit, ...]
    fields: tuple[FieldChange, ...]
    conflicts: tuple[Conflict, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """The places whose effective policy changes, in reading order."""
        return tuple(dict.fromkeys(change.place for change in self.fields))

    def count(self, direction: Direction) -> int:
        return sum(change.direction == direction for change in self.fields)


def diff(
    before: Iterable[SourcedPolicy], after: Iterable[SourcedPolicy], at: datetime, known: Iterable[Place] = ()
) -> PolicyDiff:
    """What holds differently at ``at`` (UTC) for the places of either set, and for those that usage mentions."""
    old, new = tuple(before), tuple(after)
    sets = PolicySet(old), PolicySet(new)
    named = {place for stated in (*sets[0].places, *sets[1].places, *known) for place in stated.chain}
    places = sorted(named, key=lambda place: tuple(part or "" for part in place))
    then, now = (resolve_all(places, one, at) for one in sets)
    changes = tuple(change for place in places for change in _changes(then[place], now[place]))
    return PolicyDiff(tuple(_edits(old, new)), changes, _new_conflicts(then, now))


def _edits(before: Sequence[SourcedPolicy], after: Sequence[SourcedPolicy]) -> Iterator[PolicyEdit]:
    old = {source.policy.id: source for source in before}
    new = {source.policy.id: source for source in after}
    for name in sorted(old.keys() | new.keys()):
        was, comes = old.get(name), new.get(name)
        if was is None and comes is not None:
            yield PolicyEdit(name, "added", None, comes.ref)
        elif was is not None and comes is None:
            yield PolicyEdit(name, "removed", was.ref, None)
        elif was is not None and comes is not None and was.policy != comes.policy:
            yield PolicyEdit(name, "edited", was.ref, comes.ref)


def _changes(before: EffectivePolicy, after: EffectivePolicy) -> Iterator[FieldChange]:
    old, new = fields_of(before), fields_of(after)
    for key in (*new, *(key for key in old if key not in new)):
        was, comes = old.get(key, _UNSTATED), new.get(key, _UNSTATED)
        if was.value != comes.value:
            direction = _direction(key, was.value, comes.value)
            yield FieldChange(after.place, key, direction, was.value, comes.value, was.decided_by, comes.decided_by)


def fields_of(effective: EffectivePolicy) -> Mapping[FieldKey, Decided[Any]]:
    """Every field of an effective policy, in reading order."""
    return {
        **{limit.key: limit for limit in effective.limits},
        **{FieldKey("rate_limits", name): rate for name, rate in effective.rate_limits.items()},
        FieldKey("alerts", "thresholds"): effective.thresholds,
        FieldKey("alerts", "channels"): effective.channels,
        FieldKey("calendar", "time_zone"): effective.time_zone,
        FieldKey("calendar", "week_start"): effective.week_start,
    }


def _direction(key: FieldKey, before: Any, after: Any) -> Direction:
    if not key.is_limit:
        return "changed"
    if before is None or after is None:
        return "tighter" if before is None else "looser"
    return "tighter" if after < before else "looser"


def _new_conflicts(
    before: Mapping[Place, EffectivePolicy], after: Mapping[Place, EffectivePolicy]
) -> tuple[Conflict, ...]:
    # Every place below inherits the conflicts of those above; lines may move without anything having changed.
    known = {_named(conflict) for effective in before.values() for conflict in effective.conflicts}
    fresh = {
        _named(conflict): conflict
        for effective in after.values()
        for conflict in effective.conflicts
        if _named(conflict) not in known
    }
    return tuple(fresh.values())


def _named(conflict: Conflict) -> tuple[object, ...]:
    return conflict.kind, conflict.field, tuple(ref.id for ref in conflict.policies)
