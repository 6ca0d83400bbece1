"""What of calls is summed to take a deviation apart: the sums of one user and model, and what a token of each kind weighs.

Plain values and their addition. ``sql/split_usage.sql`` makes the sums, ``decomposition`` compares them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final, NamedTuple

Model = tuple[str | None, str | None]
"""Provider and model."""

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)


class TokenRates(NamedTuple):
    """What a token of each kind weighs: list rates, in any unit, none negative."""

    input: Decimal
    cache_read: Decimal
    cache_write: Decimal
    output: Decimal


ALIKE: Final = TokenRates(_ONE, _ONE, _ONE, _ONE)


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over calls, as ``sql/split_usage.sql`` names and defines them. ``priced_*`` are of successful priced calls."""

    calls: int = 0
    failed_calls: int = 0
    unpriced_calls: int = 0
    overcharged_calls: int = 0
    priced_calls: int = 0
    priced_input: int = 0
    priced_cache_read: int = 0
    priced_cache_write: int = 0
    priced_output: int = 0
    good_cost: Decimal = _ZERO
    failed_cost: Decimal = _ZERO
    overcharge: Decimal = _ZERO
    overcharged_list: Decimal = _ZERO
    credits: Decimal = _ZERO
    good_tokens: int = 0
    other_tokens: int = 0
    largest_input: int = 0
    timed_calls: int = 0
    waited_us: int = 0
    timed_output: int = 0
    timed_failed_calls: int = 0
    failed_waited_us: int = 0

    def __add__(self, other: Usage) -> Usage:
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        return Usage(**sums, largest_input=max(self.largest_input, other.largest_input))

    @property
    def good_calls(self) -> int:
        return self.calls - self.failed_calls

    @property
    def charged(self) -> Decimal:
        """What calls cost, credits apart."""
        return self.good_cost + self.failed_cost + self.overcharge

    @property
    def tokens(self) -> int:
        return self.good_tokens + self.other_tokens


_SUMMED: Final = tuple(field.name for field in fields(Usage) if field.name != "largest_input")


@dataclass(frozen=True, slots=True)
class Group:
    """What one user did with one model, in the observed time or in the reference."""

    observed: bool
    model: Model
    user: str | None
    usage: Usage
