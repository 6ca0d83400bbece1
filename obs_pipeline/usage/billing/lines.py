"""What a bill says, in one shape whoever wrote it: lines of a day, and which days it speaks of.

Here: the line, the refusals, and the step from a line as it is written to one in dollars and in our names. No source's shape,
no files, no lake.

Conventions: days are UTC; token counts are inclusive, as in the usage event; money keeps its own currency beside USD, to the
nano-dollar. A line of ``cost`` says what was charged, a line of ``usage`` how much was used; a bill may say only one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Final, Literal

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.currencies import BASE, RateBook
from obs_pipeline.usage.event import NANO_DOLLAR

LineKind = Literal["cost", "usage"]
Meter = Literal["input", "cache_read", "cache_write", "output"]
NOTHING: Final = "nothing"
"""The item of the one line of a day on which nothing was charged, or nothing used: the bill speaks of it all the same."""

_MOST: Final = Decimal(999_999_999)


class BillRefused(ObsError):
    """A bill that is not taken: it says something that no bill says. The message names the day, the line and the reason."""


@dataclass(frozen=True)
class BillLine:
    """One line of a bill. ``cost`` is ``amount`` in USD, known once the line is ``in_dollars``.

    ``meter``: which tokens a charge is for, if it is for one kind of them. ``item``: what the bill calls it.
    """

    dt: date
    kind: LineKind
    provider: str
    org: str | None = None
    project: str | None = None
    model: str | None = None
    meter: Meter | None = None
    item: str = ""
    requests: int | None = None
    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    amount: Decimal | None = None
    currency: str | None = None
    cost: Decimal | None = None


KEY: Final = ("dt", "kind", "provider", "org", "project", "model", "meter", "item", "currency")
_SUMS: Final = tuple(field.name for field in fields(BillLine) if field.name not in KEY)


@dataclass(frozen=True)
class Bill:
    """Lines, and the days each kind of them is known for: those without a line were without a charge, or without usage."""

    lines: tuple[BillLine, ...]
    covers: frozenset[tuple[LineKind, date]]
    provider: str

    @property
    def days(self) -> list[date]:
        return sorted({day for _, day in self.covers})


def utc_day(start: datetime, end: datetime) -> date:
    """The UTC day that a bucket of time lies in.

    Raises:
        BillRefused: it does not lie in one.
    """
    first, last = start.astimezone(UTC), end.astimezone(UTC) - timedelta(microseconds=1)
    if first.date() != last.date():
        raise BillRefused(f"The bucket from {start.isoformat()} to {end.isoformat()} is not within one UTC day.")
    return first.date()


def charge(amount: Decimal, *, day: date, item: str, may_be_negative: bool = False) -> Decimal:
    """An amount that a bill can say, to the nano-unit.

    Raises:
        BillRefused: it is no number, below zero where that is no credit, or absurdly large.
    """
    if not amount.is_finite():
        raise BillRefused(f"{day}, {item}: {amount} is no amount.")
    if amount < 0 and not may_be_negative:
        raise BillRefused(f"{day}, {item}: {amount} is below zero; a charge is not. Was it written for 'unknown'?")
    if abs(amount) > _MOST:
        raise BillRefused(f"{day}, {item}: {amount} is more than {_MOST:,}; it stands for something else than money.")
    return amount.quantize(NANO_DOLLAR, ROUND_HALF_EVEN)


def bill_of(
    lines: Iterable[BillLine],
    covers: Iterable[tuple[LineKind, date]],
    provider: str,
    *,
    org: str | None = None,
    projects: Mapping[str, str] | None = None,
    rates: RateBook,
) -> Bill:
    """A bill in dollars and in our names: one line a key, in order, and one for each day without any.

    ``projects`` are our names of the projects or workspaces that the bill names by its own ids.

    Raises:
        NoRate: an amount is in a currency that has no rate on its day.
    """
    named = projects or {}
    covered = frozenset(covers)
    merged: dict[tuple[object, ...], BillLine] = {}
    for line in lines:
        ours = replace(line, org=line.org or org, project=named.get(line.project or "", line.project))
        key = tuple(getattr(ours, name) for name in KEY)
        merged[key] = ours if key not in merged else _added(merged[key], ours)
    silent = covered - {(line.kind, line.dt) for line in merged.values()}
    found = [_in_dollars(line, rates) for line in merged.values()]
    found += [_nothing(kind, day, provider, org) for kind, day in silent]
    return Bill(tuple(sorted(found, key=_order)), covered, provider)


def _added(one: BillLine, other: BillLine) -> BillLine:
    def total(name: str) -> Decimal | int | None:
        values = [value for line in (one, other) if (value := getattr(line, name)) is not None]
        return sum(values[1:], values[0]) if values else None

    sums: dict[str, Any] = {name: total(name) for name in _SUMS}
    return replace(one, **sums)


def _in_dollars(line: BillLine, rates: RateBook) -> BillLine:
    if line.amount is None or line.currency is None:
        return line
    return replace(line, cost=rates.usd(line.amount, line.currency, line.dt))


def _nothing(kind: LineKind, day: date, provider: str, org: str | None) -> BillLine:
    line = BillLine(day, kind, provider, org, item=NOTHING)
    if kind == "cost":
        return replace(line, amount=Decimal(0), currency=BASE, cost=Decimal(0))
    return replace(line, requests=0, input_tokens=0, output_tokens=0)


def _order(line: BillLine) -> tuple[str, ...]:
    return tuple("" if (value := getattr(line, name)) is None else str(value) for name in KEY)
