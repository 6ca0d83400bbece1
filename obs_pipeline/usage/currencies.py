"""Dated currency rates, as ``currencies.yaml`` states them. USD is the base; nothing is fetched and nothing is guessed.

    version: 1
    rates:                               # what one unit of a currency is worth in USD
      - {currency: EUR, from: 2026-01-01, usd: "1.0832", note: the rate our finance books with}
      - {currency: EUR, from: 2026-02-01, usd: "1.0911"}

A rate holds from its day (UTC) until the next one of the currency begins. To change it, add an entry: the days before keep
theirs. A day before the first entry, and a currency without any, have no rate, and what is in it is refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal, localcontext
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.event import NANO_DOLLAR
from obs_pipeline.yaml_settings import read_settings

BASE: Final = "USD"
_DIGITS: Final = 60
"""Enough for the largest sum times the longest rate, so that only the last step rounds."""


class CurrenciesInvalid(ObsError):
    """A ``currencies.yaml`` that cannot be used; the message names the file and the field."""


class NoRate(ObsError):
    """An amount in a currency that has no rate on its day."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rate(_Strict):
    """What one unit of ``currency`` is worth in USD from a day (UTC) on."""

    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    begins: date = Field(alias="from")
    usd: Annotated[Decimal, Field(gt=0, allow_inf_nan=False, max_digits=18, decimal_places=12)]
    note: str = ""


class _Rates(_Strict):
    version: Literal[1] = 1
    rates: tuple[Rate, ...] = ()


class RateBook:
    """The rates of a file. Immutable; without any it still knows that a dollar is a dollar."""

    def __init__(self, rates: Iterable[Rate] = ()) -> None:
        self._rates: dict[str, list[Rate]] = {}
        for rate in sorted(rates, key=lambda rate: (rate.currency, rate.begins)):
            self._rates.setdefault(rate.currency, []).append(rate)

    @classmethod
    def load(cls, path: Path) -> RateBook:
        """The rates of a file; a file that is not there has none.

        Raises:
            CurrenciesInvalid: the file cannot be read, or contradicts itself.
        """
        rates = read_settings(path, _Rates, CurrenciesInvalid, lambda text: yaml.load(text, _TextLoader)).rates
        if problems := _contradictions(rates):
            raise CurrenciesInvalid(f"{path}: {'; '.join(problems)}")
        return cls(rates)

    def rate(self, currency: str, day: date) -> Decimal:
        """What one unit was worth in USD on a day (UTC). The currency is its ISO 4217 code, in any case.

        Raises:
            NoRate: it has none on that day.
        """
        code = currency.strip().upper()
        if code == BASE:
            return Decimal(1)
        held = self._rates.get(code, [])
        at = bisect_right(held, day, key=lambda rate: rate.begins)
        if at == 0:
            since = f"its first one begins on {held[0].begins}" if held else "it has none at all"
            raise NoRate(
                f"{code or 'An amount without a currency'} has no rate on {day}: {since}. Add it to currencies.yaml."
            )
        return held[at - 1].usd

    def usd(self, amount: Decimal, currency: str, day: date) -> Decimal:
        """An amount in USD, to the nano-dollar, rounded half away from zero.

        Raises:
            NoRate: the currency has no rate on that day.
        """
        with localcontext() as context:
            context.prec = _DIGITS
            return (amount * self.rate(currency, day)).quantize(NANO_DOLLAR, ROUND_HALF_UP)

    def rate_sql(self, currency: str, day: str) -> str:
        """SQL for the rate of a currency (its code in upper case) on a day, both given as SQL: DECIMAL(18, 12), null for none."""
        worth = [f"WHEN {currency} = '{BASE}' THEN CAST(1 AS DECIMAL(18, 12))"]
        for code, rates in self._rates.items():
            spans = " ".join(
                f"WHEN {day} >= DATE '{rate.begins}' THEN CAST('{rate.usd:f}' AS DECIMAL(18, 12))"
                for rate in reversed(rates)
            )
            worth.append(f"WHEN {currency} = '{code}' THEN CASE {spans} END")
        return f"CASE {' '.join(worth)} END"

    @property
    def digest(self) -> str:
        """The name of what the rates say."""
        said = [(code, rate.begins.isoformat(), f"{rate.usd:f}") for code, held in self._rates.items() for rate in held]
        return blake2b(repr(said).encode(), digest_size=20).hexdigest()


NO_RATES: Final = RateBook()


class _TextLoader(yaml.SafeLoader):
    """Leaves decimals as they are written: a rate must not pass through a double."""


def _as_written(loader: _TextLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_TextLoader.add_constructor("tag:yaml.org,2002:float", _as_written)


def _contradictions(rates: Sequence[Rate]) -> list[str]:
    seen: set[tuple[str, date]] = set()
    problems = []
    for number, rate in enumerate(rates):
        if rate.currency == BASE:
            problems.append(f"rates.{number}: USD is what the others are stated in; leave it out")
        if (rate.currency, rate.begins) in seen:
            problems.append(f"rates.{number}: {rate.currency} has two rates from {rate.begins} on")
        seen.add((rate.currency, rate.begins))
    return problems
