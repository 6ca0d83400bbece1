"""A deviation, split into named terms that add up to it exactly: what came with more calls, what with other models.

Pure arithmetic over sums that ``sql/split_usage.sql`` makes; no reading, no words for people beyond the names of the
terms, no guess at a cause.

What is split
-------------
``cost`` (USD) and ``tokens``: observed minus expected, in their unit. ``errors``: observed minus expected share of
calls that failed. ``latency``: a percentile does not add up, so the *mean wait* of the timed calls (ms) is split,
observed minus that of the reference, and the unit says so: the wait of the calls that succeed, by model mix, tokens per
call and time per token, and what failed calls wait beyond that (``errors``).

Reference
---------
The days the detector learned from (for an hour, the same hour of them) without those that were warnings themselves:
their mean, with their models, tokens per call, cache and prices. The expected value is the detector's, and it is not
that mean: it is learned on another scale, with outliers pulled in, and maybe from a weekly profile. So the mean of the
reference minus the expected value is a term of its own, ``reference``: what the comparison with those days leaves
unexplained. Without a call before, that term is the whole expected value. Credits are never expected: the whole of
them is a term.

Formula
-------
The cost of successful, priced calls is a sum over models m::

    N * sum_m  s_m * t_m * g_m * p_m

    N  calls                                               volume
    s  share of the calls that went to the model           model mix
    t  tokens of a call, at list rates and as if uncached  tokens per call
    g  what caching makes of that (1: nothing cached)      cache share
    p  cost over tokens at list rates                      unit price

The list rates weigh the kinds of tokens and are the same on both sides (those of the observed time), so a changed
price is a changed p. A model without a known rate counts every token alike; where a side reports no tokens, the cost
per call is its price. A model that only one side has takes t, g, p of that side, so all of it is model mix.

Each term is the factor's Shapley value: its marginal effect averaged over every order in which the five factors may
change. So no order has to be chosen, what factors do together is shared evenly, and the terms add up. (Shapley, "A
value for n-person games", 1953; as a decomposition: Sun, Energy Economics 20, 1998; Shorrocks, Journal of Economic
Inequality 11, 2013.) Beside them stand, additively: the cost of failed calls (``errors``), what was reported above list
price (``above list price``), and ``credits``.

Decimals of 60 digits; every part is rounded to the unit's quantum and what rounding leaves is laid on the largest part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Context, Decimal, localcontext
from itertools import product
from math import factorial
from typing import Any, Final, Literal, NamedTuple

from obs_pipeline.detection.config import Metric

Model = tuple[str | None, str | None]
"""Provider and model."""

TermName = Literal[
    "volume",
    "model mix",
    "tokens per call",
    "cache share",
    "unit price",
    "errors",
    "error rate",
    "time per token",
    "above list price",
    "credits",
    "reference",
]

_EXACT: Final = Context(prec=60)
_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)
QUANTUM: Final[Mapping[Metric, Decimal]] = {
    "cost": Decimal("1e-9"),
    "tokens": Decimal("0.001"),
    "errors": Decimal("1e-9"),
    "latency": Decimal("0.001"),
}
"""What the parts are rounded to, in the unit of the metric."""

UNIT: Final[Mapping[Metric, str]] = {
    "cost": "USD",
    "tokens": "tokens",
    "errors": "share of calls",
    "latency": "ms, mean of the timed calls",
}


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


@dataclass(frozen=True, slots=True)
class Term:
    """One reason, its amount in the unit of the metric, and the models it comes from, largest first."""

    name: TermName
    amount: Decimal
    by_model: tuple[tuple[str | None, Decimal], ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """A deviation taken apart.

    ``deviation`` is observed minus expected; the amounts of ``terms`` add up to it exactly, and so do those of
    ``by_user`` (empty where there is nothing to compare with) together with the term ``reference``. ``scale`` brings
    sums of the whole reference to one day or hour of it; ``before`` and ``after`` are the sums of both sides by model, unscaled.
    """

    metric: Metric
    unit: str
    observed: Decimal
    expected: Decimal
    deviation: Decimal
    terms: tuple[Term, ...]
    by_user: tuple[tuple[str | None, Decimal], ...]
    scale: Decimal
    before: Mapping[Model, Usage]
    after: Mapping[Model, Usage]

    def amount(self, name: TermName) -> Decimal:
        return next((term.amount for term in self.terms if term.name == name), _ZERO)

    @property
    def unpriced_calls(self) -> int:
        """Calls of the observed time whose price nobody knows: they cost nothing here."""
        return sum(usage.unpriced_calls for usage in self.after.values())


def split_deviation(
    metric: Metric,
    groups: Iterable[Group],
    expected: float | Decimal,
    reference_times: int,
    rates: Mapping[Model, TokenRates] | None = None,
) -> Split:
    """Split observed minus ``expected``.

    ``reference_times`` is how many days (or hours) the groups of the reference are the sum of, ``rates`` the list rates
    of the models at the observed time.
    """
    with localcontext(_EXACT):
        found = list(groups)
        before, after = _by_model(found, observed=False), _by_model(found, observed=True)
        scale = _ONE / max(reference_times, 1)
        return _SPLITTERS[metric](found, before, after, Decimal(str(expected)), scale, rates or {})


Sides = Mapping[Model, Usage]
Parts = dict[tuple[TermName, Any], Decimal]


def _split_cost(
    groups: Sequence[Group],
    before: Sides,
    after: Sides,
    expected: Decimal,
    scale: Decimal,
    rates: Mapping[Model, TokenRates],
) -> Split:
    models = sorted({*before, *after}, key=_order)
    sides = [_cost_factors(usages, models, rates) for usages in (before, after)]
    for position, model in enumerate(models):
        _complete(sides, position, before.get(model, Usage()).priced_calls, after.get(model, Usage()).priced_calls)
    sides[0][0] = [calls * scale for calls in sides[0][0]]
    parts = _factor_parts(("volume", "model mix", "tokens per call", "cache share", "unit price"), models, sides)
    for model in models:
        old, new = before.get(model, Usage()), after.get(model, Usage())
        parts["errors", model] = new.failed_cost - scale * old.failed_cost
        parts["above list price", model] = new.overcharge - scale * old.overcharge
        parts["credits", model] = new.credits
    observed = sum((usage.charged + usage.credits for usage in after.values()), _ZERO)
    by_user = _by_user(groups, lambda usage, is_new: usage.charged * (1 if is_new else scale), credits=True)
    return _finish("cost", observed, expected, parts, by_user, scale, before, after)


def _split_tokens(
    groups: Sequence[Group],
    before: Sides,
    after: Sides,
    expected: Decimal,
    scale: Decimal,
    _rates: Mapping[Model, TokenRates],
) -> Split:
    models = sorted({*before, *after}, key=_order)
    sides = [
        _shares(usages, models, lambda usage: usage.good_calls, [lambda usage: Decimal(usage.good_tokens)])
        for usages in (before, after)
    ]
    for position, model in enumerate(models):
        _complete(sides, position, before.get(model, Usage()).good_calls, after.get(model, Usage()).good_calls)
    sides[0][0] = [calls * scale for calls in sides[0][0]]
    parts = _factor_parts(("volume", "model mix", "tokens per call"), models, sides)
    for model in models:
        old, new = before.get(model, Usage()), after.get(model, Usage())
        parts["errors", model] = new.other_tokens - scale * old.other_tokens
    observed = Decimal(sum(usage.tokens for usage in after.values()))
    by_user = _by_user(groups, lambda usage, is_new: usage.tokens * (_ONE if is_new else scale))
    return _finish("tokens", observed, expected, parts, by_user, scale, before, after)


def _split_errors(
    groups: Sequence[Group],
    before: Sides,
    after: Sides,
    expected: Decimal,
    scale: Decimal,
    _rates: Mapping[Model, TokenRates],
) -> Split:
    models = sorted({*before, *after}, key=_order)
    old_calls, new_calls = _totals(before, "calls"), _totals(after, "calls")
    sides = [
        _shares(usages, models, lambda usage: usage.calls, [lambda usage: Decimal(usage.failed_calls)])
        for usages in (before, after)
    ]
    for position, model in enumerate(models):
        _complete(sides, position, before.get(model, Usage()).calls, after.get(model, Usage()).calls)
    parts = _factor_parts(("model mix", "error rate"), models, [side[1:] for side in sides])
    observed = _totals(after, "failed_calls") / new_calls if new_calls else _ZERO

    def part(usage: Usage, is_new: bool) -> Decimal:
        calls = new_calls if is_new else old_calls
        return usage.failed_calls / calls if calls else _ZERO

    return _finish("errors", observed, expected, parts, _by_user(groups, part), scale, before, after)


def _split_latency(
    groups: Sequence[Group],
    before: Sides,
    after: Sides,
    _expected: Decimal,
    scale: Decimal,
    _rates: Mapping[Model, TokenRates],
) -> Split:
    models = sorted({*before, *after}, key=_order)
    totals: list[Callable[[Usage], Decimal]] = [
        lambda usage: Decimal(usage.timed_output),
        lambda usage: Decimal(usage.waited_us) / 1000,
    ]
    sides = [_shares(usages, models, lambda usage: usage.timed_calls, totals) for usages in (before, after)]
    for position, model in enumerate(models):
        _complete(sides, position, before.get(model, Usage()).timed_calls, after.get(model, Usage()).timed_calls)
    names: tuple[TermName, ...] = ("model mix", "tokens per call", "time per token")
    parts = _factor_parts(names, models, [side[1:] for side in sides])
    old, new = _waits(before), _waits(after)
    for model in models:
        parts["errors", model] = new.excess(after.get(model, Usage())) - old.excess(before.get(model, Usage()))

    def part(usage: Usage, is_new: bool) -> Decimal:
        return (new if is_new else old).of(usage)

    return _finish("latency", new.mean, old.mean, parts, _by_user(groups, part), scale, before, after)


class _Waits(NamedTuple):
    """Mean waits of a side (ms): of all timed calls, and of those that succeeded; and how many were timed."""

    timed: Decimal
    mean: Decimal
    mean_good: Decimal

    def of(self, usage: Usage) -> Decimal:
        """What these calls add to the mean of all."""
        return _over(Decimal(usage.waited_us + usage.failed_waited_us) / 1000, self.timed)

    def excess(self, usage: Usage) -> Decimal:
        """What their failures add to it beyond the wait of a call that succeeds."""
        return _over(Decimal(usage.failed_waited_us) / 1000 - usage.timed_failed_calls * self.mean_good, self.timed)


def _waits(side: Sides) -> _Waits:
    good, failed = _totals(side, "timed_calls"), _totals(side, "timed_failed_calls")
    waited, failed_waited = _totals(side, "waited_us") / 1000, _totals(side, "failed_waited_us") / 1000
    return _Waits(good + failed, _over(waited + failed_waited, good + failed), _over(waited, good))


_SPLITTERS: Final[Mapping[Metric, Callable[..., Split]]] = {
    "cost": _split_cost,
    "tokens": _split_tokens,
    "errors": _split_errors,
    "latency": _split_latency,
}


# ---- factors ----------------------------------------------------------------------------------------------------


def _cost_factors(usages: Sides, models: Sequence[Model], rates: Mapping[Model, TokenRates]) -> list[list[Decimal]]:
    """Calls, shares, and for each model tokens per call, cache and price, zero where undefined."""

    def plain(model: Model) -> Decimal:
        usage, rate = usages.get(model, Usage()), rates.get(model, ALIKE)
        return usage.priced_input * rate.input + usage.priced_output * rate.output

    def cached(model: Model) -> Decimal:
        usage, rate = usages.get(model, Usage()), rates.get(model, ALIKE)
        return (
            plain(model)
            + usage.priced_cache_read * (rate.cache_read - rate.input)
            + usage.priced_cache_write * (rate.cache_write - rate.input)
        )

    chain = [plain, cached, lambda model: usages.get(model, Usage()).good_cost]
    return _chain(usages, models, lambda usage: usage.priced_calls, chain)


def _shares(
    usages: Sides,
    models: Sequence[Model],
    calls: Callable[[Usage], int],
    totals: Sequence[Callable[[Usage], Decimal]],
) -> list[list[Decimal]]:
    def of_model(total: Callable[[Usage], Decimal]) -> Callable[[Model], Decimal]:
        return lambda model: total(usages.get(model, Usage()))

    return _chain(usages, models, calls, [of_model(total) for total in totals])


def _chain(
    usages: Sides,
    models: Sequence[Model],
    calls: Callable[[Usage], int],
    totals: Sequence[Callable[[Model], Decimal]],
) -> list[list[Decimal]]:
    """All calls, each model's share of them, then each total over the one before it, beginning with the calls."""
    counts = [Decimal(calls(usages.get(model, Usage()))) for model in models]
    everything = sum(counts, _ZERO)
    factors = [[everything] * len(models), [_over(count, everything) for count in counts]]
    below = counts
    for total in totals:
        above = [total(model) for model in models]
        factors.append([_over(high, low) for high, low in zip(above, below, strict=True)])
        below = above
    # Where a link of the chain is nothing although the end is something, the whole is put into the last factor.
    for position, count in enumerate(counts):
        whole = _over(totals[-1](models[position]), count)
        if _product(factor[position] for factor in factors[2:]) != whole and _broken(factors, position):
            for factor in factors[2:-1]:
                factor[position] = _ONE
            factors[-1][position] = whole
    return factors


def _broken(factors: Sequence[Sequence[Decimal]], position: int) -> bool:
    return any(factor[position] <= 0 for factor in factors[2:-1])


def _complete(sides: list[list[list[Decimal]]], position: int, old_calls: int, new_calls: int) -> None:
    """Fill what a side does not know of a model from the other, and let both speak of the same factors."""
    old, new = sides
    if not old_calls or not new_calls:
        known, unknown = (new, old) if new_calls else (old, new)
        for factor in range(2, len(old)):
            unknown[factor][position] = known[factor][position]
    elif _broken(old, position) or _broken(new, position):
        for side in sides:
            whole = _product(factor[position] for factor in side[2:])
            for factor in range(2, len(old) - 1):
                side[factor][position] = _ONE
            side[-1][position] = whole
    # A side without any call has no mix of its own: its volume alone is zero.
    for one, other in ((old, new), (new, old)):
        if one[0][position] == 0:
            one[1][position] = other[1][position]


def _factor_parts(
    names: Sequence[TermName], models: Sequence[Model], sides: Sequence[Sequence[Sequence[Decimal]]]
) -> Parts:
    """The Shapley value of each factor, model by model."""
    parts: Parts = {}
    for position, model in enumerate(models):
        old, new = ([factor[position] for factor in side] for side in sides)
        for name, value in zip(names, shapley_values(old, new), strict=True):
            parts[name, model] = value
    return parts


def shapley_values(before: Sequence[Decimal], after: Sequence[Decimal]) -> list[Decimal]:
    """What each factor of a product contributes to its change; the values add up to it.

    The weight of a set of factors that changed already is ``|S|! (n - 1 - |S|)! / n!``.
    """
    count = len(before)
    values = [_ZERO] * count
    for changed in product((False, True), repeat=count):
        size = sum(changed)
        chosen = [new if is_new else old for old, new, is_new in zip(before, after, changed, strict=True)]
        for factor in range(count):
            if not changed[factor]:
                others = _product(value for number, value in enumerate(chosen) if number != factor)
                weight = Decimal(factorial(size) * factorial(count - 1 - size)) / factorial(count)
                values[factor] += weight * others * (after[factor] - before[factor])
    return values


# ---- sums and rounding ----------------------------------------------------------------------------------------------


def _finish(
    metric: Metric,
    observed: Decimal,
    expected: Decimal,
    parts: Parts,
    by_user: dict[str | None, Decimal],
    scale: Decimal,
    before: Sides,
    after: Sides,
) -> Split:
    quantum = QUANTUM[metric]
    observed, expected = observed.quantize(quantum), expected.quantize(quantum)
    deviation = observed - expected
    rest = (deviation - sum(parts.values(), _ZERO)).quantize(quantum)
    # Less than half a quantum a part is rounding; more is what the reference does not explain.
    unexplained = rest if abs(rest) > quantum * (len(parts) + 2) else _ZERO
    rounded = _rounded(parts, deviation - unexplained, quantum)
    # Where the calls have nothing to be compared with, no user can be told from the reference.
    astray = abs(sum(by_user.values(), _ZERO) - (deviation - unexplained)) > quantum * (len(by_user) + len(parts) + 2)
    users = {} if astray else _rounded(by_user, deviation - unexplained, quantum)
    names = list(dict.fromkeys(name for name, _ in parts))
    terms = [_term(name, {model[1]: _ZERO for _, model in rounded}, rounded) for name in names]
    return Split(
        metric=metric,
        unit=UNIT[metric],
        observed=observed,
        expected=expected,
        deviation=deviation,
        terms=(*terms, Term("reference", deviation - sum((term.amount for term in terms), _ZERO))),
        by_user=tuple(sorted(users.items(), key=lambda one: (-abs(one[1]), one[0] or ""))),
        scale=scale,
        before=before,
        after=after,
    )


def _term(name: TermName, by_model: dict[str | None, Decimal], parts: Parts) -> Term:
    for (term, model), amount in parts.items():
        if term == name:
            by_model[model[1]] += amount
    shown = sorted(((model, amount) for model, amount in by_model.items() if amount), key=lambda one: -abs(one[1]))
    return Term(name, sum((amount for _, amount in shown), _ZERO), tuple(shown))


def _rounded(parts: Mapping[Any, Decimal], total: Decimal, quantum: Decimal) -> dict[Any, Decimal]:
    """The parts in whole quanta that add up to ``total``: what rounding leaves goes to the largest of the rounded ones."""
    rounded = {key: amount.quantize(quantum) for key, amount in parts.items()}
    left = total - sum(rounded.values(), _ZERO)
    if left and rounded:
        inexact = [key for key, amount in parts.items() if amount != rounded[key]] or list(parts)
        rounded[max(inexact, key=lambda key: (abs(rounded[key]), str(key)))] += left
    return rounded


def _by_user(
    groups: Sequence[Group], amount: Callable[[Usage, bool], Decimal], *, credits: bool = False
) -> dict[str | None, Decimal]:
    users: dict[str | None, Decimal] = {}
    for group in groups:
        sign = 1 if group.observed else -1
        more = sign * amount(group.usage, group.observed) + (group.usage.credits if credits and group.observed else 0)
        users[group.user] = users.get(group.user, _ZERO) + more
    return users


def _by_model(groups: Iterable[Group], *, observed: bool) -> dict[Model, Usage]:
    sums: dict[Model, Usage] = {}
    for group in groups:
        if group.observed == observed:
            sums[group.model] = sums.get(group.model, Usage()) + group.usage
    return sums


def _totals(side: Sides, name: str) -> Decimal:
    return Decimal(sum(getattr(usage, name) for usage in side.values()))


def _over(high: Decimal, low: Decimal) -> Decimal:
    return high / low if low else _ZERO


def _product(values: Iterable[Decimal]) -> Decimal:
    found = _ONE
    for value in values:
        found *= value
    return found


def _order(model: Model) -> tuple[str, str]:
    return model[0] or "", model[1] or ""
