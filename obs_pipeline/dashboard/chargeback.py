"""Who pays for a month: its cost by team and project, with what is shared dealt out and the margin on top.

Here: the rules as they stand in ``chargeback.yaml`` and the arithmetic. No lake, no printing.

    version: 1
    shared:                       # cost that others bear; the first entry that fits a team and project holds
      - {project: platform, split: cost}             # in proportion to each line's own cost
      - {team: research, split: calls, among: [care, sales]}
      - {project: gateway, split: even}
    unattributed: keep            # usage without a team: keep it as a line of its own, or split it: cost, calls, even
    margin:                       # what is added to each line, as a share of it
      default: 0
      teams: {care: 0.05}

Exactness: everything is counted in whole nano-dollars. A shared amount is dealt out by largest remainder, so that the lines
come to the cost of the month to the last nano-dollar, and the margin is rounded half to even on each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.event import NANO_DOLLAR
from obs_pipeline.yaml_settings import read_settings

Split = Literal["cost", "calls", "even"]
UNATTRIBUTED: Final = "unattributed"
_NANOS: Final = 1_000_000_000
_Share = Annotated[Decimal, Field(ge=0, le=10)]


class ChargebackInvalid(ObsError):
    """Chargeback rules that cannot be used; the message names the file and the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SharedCost(_Strict):
    """Cost that others bear: of a team, a project, or a project of a team. ``among`` limits the teams that bear it."""

    team: str | None = None
    project: str | None = None
    split: Split
    among: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_something(self) -> SharedCost:
        if self.team is None and self.project is None:
            raise ValueError("name a team, a project or both")
        return self

    def fits(self, spend: Spend) -> bool:
        return self.team in (None, spend.team) and self.project in (None, spend.project)


class Margin(_Strict):
    """What is added to a line, as a share of it."""

    default: _Share = Decimal(0)
    teams: dict[str, _Share] = Field(default_factory=dict)

    def of(self, team: str | None) -> Decimal:
        return self.teams.get(team or UNATTRIBUTED, self.default)


class ChargebackRules(_Strict):
    """The file, as it says."""

    version: Literal[1] = 1
    shared: tuple[SharedCost, ...] = ()
    unattributed: Literal["keep"] | Split = "keep"
    margin: Margin = Margin()


@dataclass(frozen=True)
class Spend:
    """What a team and project used. ``cost`` in USD, with at most nine decimals."""

    team: str | None
    project: str | None
    cost: Decimal
    calls: int


@dataclass(frozen=True)
class Line:
    """What a team and project pay: their own cost, their part of what is shared, the margin. USD."""

    team: str | None
    project: str | None
    calls: int
    own: Decimal
    shared: Decimal
    margin: Decimal

    @property
    def cost(self) -> Decimal:
        return self.own + self.shared

    @property
    def total(self) -> Decimal:
        return self.cost + self.margin


@dataclass(frozen=True)
class Chargeback:
    """The lines of a month, the dearest first. Their ``cost`` comes to the cost of the month, their ``total`` to ``total``."""

    lines: tuple[Line, ...]

    @property
    def cost(self) -> Decimal:
        return sum((line.cost for line in self.lines), Decimal(0))

    @property
    def margin(self) -> Decimal:
        return sum((line.margin for line in self.lines), Decimal(0))

    @property
    def total(self) -> Decimal:
        return self.cost + self.margin


def read_rules(path: Path) -> ChargebackRules:
    """The rules of a file; a file that is not there says nothing: no shared cost, no margin.

    Raises:
        ChargebackInvalid: the file cannot be read, or not used.
    """
    return read_settings(path, ChargebackRules, ChargebackInvalid)


def charge(spends: Iterable[Spend], rules: ChargebackRules) -> Chargeback:
    """Deal a month's spend out. Teams and projects each occur once in ``spends``.

    What nobody is there to bear stays a line of its own.
    """
    own: list[Spend] = []
    pools: list[tuple[Spend, Split, tuple[str, ...]]] = []
    for spend in spends:
        rule = next((rule for rule in rules.shared if rule.fits(spend)), None)
        if rule:
            pools.append((spend, rule.split, rule.among))
        elif spend.team is None and rules.unattributed != "keep":
            pools.append((spend, rules.unattributed, ()))
        else:
            own.append(spend)
    # Each bears by what it used itself, never by what was dealt to it: the order of the pools does not matter.
    bearers = [spend for spend in own if spend.team is not None]
    dealt: dict[tuple[str | None, str | None], int] = {}
    for pool, split, among in pools:
        bearing = [spend for spend in bearers if not among or spend.team in among]
        if not bearing:
            own.append(pool)
            continue
        for spend, part in zip(bearing, deal(_nanos(pool.cost), _weights(bearing, split)), strict=True):
            key = (spend.team, spend.project)
            dealt[key] = dealt.get(key, 0) + part
    lines = [_line(spend, dealt.get((spend.team, spend.project), 0), rules.margin) for spend in own]
    return Chargeback(tuple(sorted(lines, key=lambda line: (-line.total, line.team or "~", line.project or "~"))))


def deal(amount: int, weights: Sequence[Fraction]) -> list[int]:
    """Whole parts of ``amount`` in proportion to the weights that come to it exactly: largest remainder, then first.

    Weights are not negative; where all are 0, everyone gets the same.
    """
    if not sum(weights):
        weights = [Fraction(1)] * len(weights)
    sign = -1 if amount < 0 else 1
    whole = sum(weights, Fraction(0))
    exact = [abs(amount) * weight / whole for weight in weights]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(parts)), key=lambda at: (parts[at] - exact[at], at))
    for at in by_remainder[: abs(amount) - sum(parts)]:
        parts[at] += 1
    return [sign * part for part in parts]


def by_team(lines: Iterable[Line]) -> tuple[Line, ...]:
    """The lines summed to teams."""
    teams: dict[str | None, Line] = {}
    for line in lines:
        so_far = teams.get(line.team)
        teams[line.team] = replace(line, project=None) if so_far is None else _added(so_far, line)
    return tuple(sorted(teams.values(), key=lambda line: (-line.total, line.team or "~")))


def as_rows(lines: Iterable[Line]) -> list[Mapping[str, object]]:
    """Lines as plain values, money as ``Decimal``."""
    return [
        {
            "team": line.team or UNATTRIBUTED,
            "project": line.project,
            "calls": line.calls,
            "own": line.own,
            "shared": line.shared,
            "margin": line.margin,
            "total": line.total,
        }
        for line in lines
    ]


def _line(spend: Spend, shared: int, margin: Margin) -> Line:
    part = Decimal(shared).scaleb(-9)
    added = ((spend.cost + part) * margin.of(spend.team)).quantize(NANO_DOLLAR, ROUND_HALF_EVEN)
    return Line(spend.team, spend.project, spend.calls, spend.cost, part, added)


def _added(a: Line, b: Line) -> Line:
    return Line(a.team, None, a.calls + b.calls, a.own + b.own, a.shared + b.shared, a.margin + b.margin)


def _weights(spends: Sequence[Spend], split: Split) -> list[Fraction]:
    match split:
        case "cost":
            return [Fraction(max(spend.cost, Decimal(0))) for spend in spends]
        case "calls":
            return [Fraction(spend.calls) for spend in spends]
        case "even":
            return [Fraction(1)] * len(spends)


def _nanos(amount: Decimal) -> int:
    return int(amount * _NANOS)
