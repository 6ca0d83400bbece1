"""What resolving a place yields: every field that holds, the policies behind it, and what contradicts or is idle.

Plain values that explain themselves. How they come about is decided in resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from obs_pipeline.policy.provenance import PolicyRef
from obs_pipeline.policy.schema import Increase, Kind, Period, Place, Weekday

Outcome = Literal["decides", "yields", "replaced"]
ConflictKind = Literal["twins", "refused_override", "currency"]
Value = TypeVar("Value", covariant=True)


def amount(value: Decimal | int) -> str:
    """An amount as people read it: 1,000,000 or 12.50, never in powers of ten."""
    return f"{value:,d}" if isinstance(value, int) else f"{value:,f}"


class FieldKey(NamedTuple):
    """One field that policies decide. ``period`` and ``currency`` are empty where they mean nothing."""

    group: Literal["budgets", "rate_limits", "alerts", "calendar"]
    name: str
    period: str = ""
    currency: str = ""

    def __str__(self) -> str:
        named = ".".join(part for part in (self.group, self.name, self.period) if part)
        return f"{named} ({self.currency})" if self.currency else named

    @property
    def is_limit(self) -> bool:
        return self.group in ("budgets", "rate_limits")


@dataclass(frozen=True, slots=True)
class Step:
    """What one policy of the chain said about a field, and what became of it.

    ``decides``: its value stands. ``yields``: it stands, but a stricter one decides. ``replaced``: an override below
    took its place.
    """

    by: PolicyRef
    value: Any
    outcome: Outcome
    replaced_by: PolicyRef | None = None
    increase: Increase | None = None


@dataclass(frozen=True, slots=True)
class Decided(Generic[Value]):
    """A value and how it came about. ``trail`` runs from the organisation down; a default has none."""

    value: Value
    trail: tuple[Step, ...]

    @property
    def decided_by(self) -> tuple[PolicyRef, ...]:
        """The policies whose statements make the value: one for a limit, several for what is united."""
        return tuple(step.by for step in self.trail if step.outcome == "decides")

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(ref.file for ref in self.decided_by))


@dataclass(frozen=True, slots=True)
class EffectiveLimit(Decided[Decimal | int]):
    """``value`` units (money of ``currency``, tokens or calls) in each calendar ``period``.

    ``increase`` is the dated raise that the value includes, if one is in force.
    """

    kind: Kind
    period: Period
    currency: str
    increase: Increase | None

    @property
    def ref(self) -> PolicyRef:
        """The policy whose limit holds; of equal ones the highest in the chain."""
        return self.decided_by[0]

    @property
    def key(self) -> FieldKey:
        return FieldKey("budgets", self.kind, self.period, self.currency)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Policies that contradict each other. ``policies`` are those to mend; the message says what holds meanwhile."""

    kind: ConflictKind
    field: str
    policies: tuple[PolicyRef, ...]
    message: str
    mend: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A field, or with an empty ``field`` a whole policy, that has no effect on this place."""

    by: PolicyRef
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """Everything that holds for ``place`` at ``at`` (UTC), each field with the policies that decided it."""

    place: Place
    at: datetime
    limits: tuple[EffectiveLimit, ...]
    rate_limits: Mapping[str, Decided[int]]
    thresholds: Decided[tuple[Decimal, ...]]
    channels: Decided[tuple[str, ...]]
    time_zone: Decided[str]
    week_start: Decided[Weekday]
    conflicts: tuple[Conflict, ...]
    ignored: tuple[Ignored, ...]

    def limit(self, kind: Kind, period: Period, currency: str = "") -> EffectiveLimit | None:
        """The limit of a kind and period; the currency of a cost limit may be left out where there is one only."""
        found = (limit for limit in self.limits if (limit.kind, limit.period) == (kind, period))
        return next((limit for limit in found if currency in ("", limit.currency)), None)
