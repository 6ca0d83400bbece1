"""What a model cost at a time and a size: the catalogue and the overlay, turned into a small table to join.

Prices are a join in SQL (``sql/price_calls.sql``), not a call per event. This module answers for the few
distinct (provider, model) pairs that occur. Catalogue: the snapshot inside the ``genai-prices`` package, so no
network. Overlay: ``prices.yaml``, which wins over the catalogue on the days its entries hold.

Not here: how names are split (``model_names``), how the overlay is read (``price_file``), sums over events.

What a list price covers: text tokens, cache reads, cache writes (at the five-minute rate) and fees per call.
What it leaves out because events do not carry it: hours of audio, images, pages, web searches, one-hour cache
writes, batch or priority tiers, and a separate reasoning rate (two models), which is taken as output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property
from hashlib import sha256
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import pyarrow as pa

from obs_pipeline.usage.event import TIME
from obs_pipeline.usage.model_names import ModelRef, model_ref
from obs_pipeline.usage.price_file import NO_PRICES, PriceEntry, PriceFile, PriceFileError, read_price_file

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

__all__ = [
    "BOUND_SCHEMA",
    "RATE_SCHEMA",
    "PriceBook",
    "PriceFileError",
    "price_calls_sql",
    "price_tolerance",
]

RATE: Final = pa.decimal128(18, 6)

RATE_SCHEMA: Final = pa.schema(
    [
        pa.field("provider", pa.string()),
        pa.field("model", pa.string(), nullable=False),
        pa.field("valid_from", TIME),
        pa.field("valid_to", TIME),
        pa.field("day_second_from", pa.int32()),
        pa.field("day_second_to", pa.int32()),
        pa.field("min_input_tokens", pa.int64()),
        pa.field("max_input_tokens", pa.int64()),
        pa.field("input_rate", RATE, nullable=False),
        pa.field("cache_read_rate", RATE, nullable=False),
        pa.field("cache_write_rate", RATE, nullable=False),
        pa.field("output_rate", RATE, nullable=False),
        pa.field("call_fee", RATE, nullable=False),
        pa.field("price_source", pa.string(), nullable=False),
    ]
)
"""One row for each model, span of days, span of the UTC day and size of request that have a price of their own.

``provider`` and ``model`` are spelled as in the event. Spans are half-open, null means unbounded. Rates are USD
per million tokens, ``call_fee`` is USD per call. At most one row fits a call.
"""

BOUND_SCHEMA: Final = pa.schema(
    [
        pa.field("provider", pa.string()),
        pa.field("model", pa.string()),
        pa.field("input_rate", RATE, nullable=False),
        pa.field("output_rate", RATE, nullable=False),
        pa.field("call_fee", RATE, nullable=False),
    ]
)
"""One row for each model that lacks a price at some time: no known price of its seller is above these rates."""

TOLERANCE_SCHEMA: Final = pa.schema(
    [
        pa.field("relative", RATE, nullable=False),
        pa.field("absolute", pa.decimal128(18, 9), nullable=False),
    ]
)

MILLIONTH: Final = Decimal("0.000001")
TOKEN_UNITS: Final = ("_mtok", "searches_kcount", "requests_kcount")
"""Units of a model that is sold by the token, perhaps with extras. Others sell hours, pages or characters."""

Cut = TypeVar("Cut")
Value = TypeVar("Value")


class Rates(NamedTuple):
    """USD per million tokens; ``call_fee`` is USD per call."""

    input: Decimal
    cache_read: Decimal
    cache_write: Decimal
    output: Decimal
    call_fee: Decimal


class DearestRates(NamedTuple):
    """An upper bound of ``Rates``; ``input`` also covers cache reads and writes."""

    input: Decimal
    output: Decimal
    call_fee: Decimal


class Span(NamedTuple, Generic[Cut, Value]):
    """A half-open piece of a line on which ``value`` is the same throughout; null ends are open."""

    start: Cut | None
    end: Cut | None
    value: Value


class Tariff(NamedTuple):
    """What a model costs at one moment: rates by the input tokens of the whole request."""

    source: str
    by_size: tuple[Span[int, Rates], ...]


DayPlan = tuple[Span[int, Tariff | None], ...]
"""The tariffs of one day, by spans of its seconds."""


class PriceBook:
    """The catalogue with the overlay on it. Immutable; the same file and package give the same answers."""

    def __init__(
        self, catalogue: Catalogue, file: PriceFile, tariffs: Sequence[tuple[PriceEntry, Tariff]], version: str
    ) -> None:
        self._catalogue = catalogue
        self._file = file
        self._overlay = sorted(tariffs, key=lambda pair: pair[0].specificity)
        self.version = version
        """Changes whenever the package's release or a byte of the overlay does."""

    @classmethod
    def load(cls, path: Path | None = None) -> PriceBook:
        """The bundled catalogue, overlaid by ``path`` if one is given.

        Raises:
            PriceFileError: the overlay cannot be read or contradicts itself.
        """
        catalogue = Catalogue.bundled()
        if path is None:
            return cls(catalogue, NO_PRICES, (), _version(catalogue.name, b""))
        file, lines, content = read_price_file(path)
        tariffs = [
            (entry, _entry_tariff(entry, f"{path.name}:{line}")) for entry, line in zip(file.prices, lines, strict=True)
        ]
        return cls(catalogue, file, tariffs, _version(catalogue.name, content))

    def rates(self, models: Iterable[tuple[str | None, str | None]]) -> pa.Table:
        """The prices of the ``(provider, model)`` pairs given, as ``RATE_SCHEMA``; unpriced models have no row."""
        rows = [
            (provider, model, *cell)
            for provider, model in _distinct(models)
            if model is not None
            for cell in self._cells(self.resolve(provider, model))
        ]
        return _table(rows, RATE_SCHEMA)

    def bounds(self, models: Iterable[tuple[str | None, str | None]]) -> pa.Table:
        """The dearest rates of the seller, for each pair that has no price at some time, as ``BOUND_SCHEMA``.

        A seller without any price above zero is bounded by the dearest of all sellers. Input is bounded by the
        dearest of input, cache read and cache write, so that no split of the tokens gets past it.
        """
        rows = [
            (provider, model, *self._bound(self.resolve(provider, model or "")))
            for provider, model in _distinct(models)
            if model is None or not self._always_priced(self.resolve(provider, model))
        ]
        return _table(rows, BOUND_SCHEMA)

    def resolve(self, provider: str | None, model: str) -> ModelRef:
        """The seller and the seller's name of a model, the aliases of the overlay followed."""
        ref = model_ref(provider, model)
        alias = next((alias for alias in self._file.aliases if alias.applies_to(ref)), None)
        if alias is not None:
            ref = alias.target(ref)
        return ref if ref.seller is not None else ModelRef(self._catalogue.seller_of(ref.name), ref.name)

    def _schedule(self, ref: ModelRef) -> list[Span[date, DayPlan]]:
        """What the model costs at any time, as spans of days on which the plan of the day is the same."""
        overlay = [(entry, tariff) for entry, tariff in self._overlay if entry.covers(ref)]
        listed = self._catalogue.find(ref)
        listed_days, listed_seconds = _constraint_cuts(listed)
        overlay_days = {day for entry, _ in overlay for day in (entry.from_day, entry.until_day) if day}

        def tariff_at(day: date, second: int) -> Tariff | None:
            laid_over = next((tariff for entry, tariff in overlay if entry.holds_on(day)), None)
            if laid_over is not None or listed is None:
                return laid_over
            return self._catalogue.tariff(ref, listed, datetime.combine(day, _clock(second), UTC))

        def plan_of(day: date) -> DayPlan:
            return tuple(_spans(sorted(listed_seconds), 0, lambda second: tariff_at(day, second)))

        return _spans(sorted(listed_days | overlay_days), date.min, plan_of)

    def _cells(self, ref: ModelRef) -> Iterator[tuple[object, ...]]:
        """The rows of ``RATE_SCHEMA`` for one model, without its key."""
        for days in self._schedule(ref):
            for seconds in days.value:
                if seconds.value is None:
                    continue
                for size in seconds.value.by_size:
                    yield (
                        _midnight(days.start),
                        _midnight(days.end),
                        seconds.start,
                        seconds.end,
                        size.start,
                        size.end,
                        *size.value,
                        seconds.value.source,
                    )

    def _always_priced(self, ref: ModelRef) -> bool:
        return all(seconds.value is not None for days in self._schedule(ref) for seconds in days.value)

    def _bound(self, ref: ModelRef) -> DearestRates:
        everyone, by_seller = self._dearest
        return by_seller.get(ref.seller or "", everyone)

    @cached_property
    def _dearest(self) -> tuple[DearestRates, dict[str, DearestRates]]:
        """The dearest rates of all sellers, and of each seller that has prices above zero."""
        offers = self._catalogue.offers()
        for entry, tariff in self._overlay:
            for seller in [entry.ref.seller] if entry.ref.seller else list(offers):
                offers.setdefault(seller, []).extend(size.value for size in tariff.by_size)
        dearest = {seller: _dearest_of(rates) for seller, rates in offers.items() if rates}
        everyone = DearestRates(*map(max, zip(*dearest.values(), strict=True)))
        return everyone, {seller: rates for seller, rates in dearest.items() if rates.input and rates.output}


@dataclass(frozen=True)
class Catalogue:
    """The published prices of the ``genai-prices`` package."""

    name: str
    providers: list[Provider]

    @classmethod
    def bundled(cls) -> Catalogue:
        """The snapshot that came with the installed package; a snapshot fetched later is not looked at."""
        from genai_prices import __version__
        from genai_prices.data import providers

        return cls(f"genai-prices {__version__}", providers)

    def seller_of(self, name: str) -> str | None:
        """Who sells a model of this name first-hand, if the catalogue knows."""
        matching = (p.id for p in self.providers if p.model_match is not None and p.model_match.is_match(name))
        return next(matching, None)

    def find(self, ref: ModelRef) -> ModelInfo | None:
        provider = self._by_id.get(ref.seller or "")
        return None if provider is None else provider.find_model(ref.name, all_providers=self.providers)

    def tariff(self, ref: ModelRef, model: ModelInfo, moment: datetime) -> Tariff | None:
        """The prices at that moment; null if the model is not sold by the token."""
        prices = model.get_prices(moment)
        by_size = _sizes(prices)
        return Tariff(f"{self.name} {ref.seller}/{model.id}", by_size) if by_size else None

    def offers(self) -> dict[str, list[Rates]]:
        """Every rate, of any date and size, of each seller's models that have token prices both ways.

        A seller that resells another's models at the other's prices offers those too.
        """
        own = {provider.id: list(_offered(provider)) for provider in self.providers}
        return {
            provider.id: own[provider.id]
            + [rates for other in provider.fallback_model_providers or () for rates in own.get(other, ())]
            for provider in self.providers
        }

    @cached_property
    def _by_id(self) -> dict[str, Provider]:
        return {provider.id: provider for provider in self.providers}


def price_calls_sql() -> str:
    """The query that prices the view ``calls`` from ``rates``, ``bounds`` and ``price_tolerance``."""
    return resources.files("obs_pipeline.usage").joinpath("sql", "price_calls.sql").read_text(encoding="utf-8")


def price_tolerance(relative: Decimal = Decimal("0.05"), absolute: Decimal = Decimal("0.001")) -> pa.Table:
    """How far a reported cost may lie from the list cost: the larger of a share of it and an amount of USD."""
    return _table([(_rounded(relative), absolute)], TOLERANCE_SCHEMA)


def _spans(cuts: Sequence[Cut], before: Cut, value_at: Callable[[Cut], Value]) -> list[Span[Cut, Value]]:
    """The pieces of a line between rising ``cuts``; neighbours of equal value are one piece.

    ``value_at`` must be constant between cuts; ``before`` stands for the points that precede them all.
    """
    spans: list[Span[Cut, Value]] = []
    for start, end in pairwise((None, *cuts, None)):
        value = value_at(before if start is None else start)
        if spans and spans[-1].value == value:
            spans[-1] = spans[-1]._replace(end=end)
        else:
            spans.append(Span(start, end, value))
    return spans


def _constraint_cuts(model: ModelInfo | None) -> tuple[set[date], set[int]]:
    """The days, and the seconds of the UTC day, at which the catalogue's price of a model may change."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    prices = model.prices if model is not None and isinstance(model.prices, list) else []
    constraints = [conditional.constraint for conditional in prices]
    days = {c.start_date for c in constraints if isinstance(c, StartDateConstraint)}
    times = {t for c in constraints if isinstance(c, TimeOfDateConstraint) for t in (c.start_time, c.end_time)}
    return days, {_utc_second(moment) for moment in times} - {0}


def _sizes(prices: ModelPrice) -> tuple[Span[int, Rates], ...]:
    """The catalogue's prices by request size; empty if tokens are not what is sold."""
    listed = {unit: price for unit, price in vars(prices).items() if price is not None}
    if "input_mtok" not in listed or not all(unit.endswith(TOKEN_UNITS) for unit in listed):
        return ()
    thresholds = {tier.start + 1 for price in listed.values() for tier in getattr(price, "tiers", ())}

    def rates(tokens: int) -> Rates:
        at = {unit: _at_size(price, tokens) for unit, price in listed.items()}
        return Rates(
            input=at["input_mtok"],
            cache_read=at.get("cache_read_mtok", at["input_mtok"]),
            cache_write=at.get("cache_write_mtok", at["input_mtok"]),
            output=at.get("output_mtok", Decimal(0)),
            call_fee=_rounded(at.get("requests_kcount", Decimal(0)) / 1000),
        )

    return tuple(_spans(sorted(thresholds), 0, rates))


def _at_size(price: Decimal | TieredPrices, tokens: int) -> Decimal:
    if isinstance(price, Decimal):
        return _rounded(price)
    reached = [tier.price for tier in price.tiers if tokens > tier.start]
    return _rounded(reached[-1] if reached else price.base)


def _offered(provider: Provider) -> Iterator[Rates]:
    for model in provider.models:
        for prices in [p.prices for p in model.prices] if isinstance(model.prices, list) else [model.prices]:
            if prices.output_mtok is not None:
                yield from (size.value for size in _sizes(prices))


def _entry_tariff(entry: PriceEntry, source: str) -> Tariff:
    lines = {0: entry} | {tier.above + 1: tier for tier in entry.tiers}

    def rates(tokens: int) -> Rates:
        line = lines[tokens]
        return Rates(
            input=line.input,
            cache_read=line.input if line.cache_read is None else line.cache_read,
            cache_write=line.input if line.cache_write is None else line.cache_write,
            output=line.output,
            call_fee=entry.call_fee,
        )

    return Tariff(source, tuple(_spans(sorted(lines)[1:], 0, rates)))


def _dearest_of(offers: Sequence[Rates]) -> DearestRates:
    return DearestRates(
        input=max(max(rates.input, rates.cache_read, rates.cache_write) for rates in offers),
        output=max(rates.output for rates in offers),
        call_fee=max(rates.call_fee for rates in offers),
    )


def _rounded(rate: Decimal) -> Decimal:
    """To the table's six places; the catalogue carries a few binary fractions such as 0.18000000000000002."""
    return rate.quantize(MILLIONTH, ROUND_HALF_UP)


def _utc_second(moment: time) -> int:
    offset = moment.utcoffset() or timedelta(0)
    local = timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second)
    return int((local - offset).total_seconds()) % 86_400


def _clock(second: int) -> time:
    return (datetime.min + timedelta(seconds=second)).time()


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time())


def _distinct(models: Iterable[tuple[str | None, str | None]]) -> list[tuple[str | None, str | None]]:
    return sorted(set(models), key=lambda pair: tuple((part is not None, part or "") for part in pair))


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _version(catalogue: str, overlay: bytes) -> str:
    return sha256(catalogue.encode() + b"\0" + overlay).hexdigest()[:12]
