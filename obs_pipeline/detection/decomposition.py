"""A deviation, split into named terms that add up to it exactly: what came with more calls, what with other models.

Pure arithmetic over the sums of ``usage_sums``; no reading, no words for people beyond the names of the terms, no guess at a
cause.

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
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any, Final, Literal, NamedTuple

from obs_pipeline.detection.config import Metric
from obs_pipeline.detection.factors import Count, Total, contributions, factors_of, over
from obs_pipeline.detection.usage_sums import ALIKE, Group, Model, TokenRates, Usage

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
        sides = _by_model(found, observed=False), _by_model(found, observed=True)
        compared = _Compared(found, *sides, Decimal(str(expected)), _ONE / max(reference_times, 1), rates or {})
        return _SPLITTERS[metric](compared)


Sides = Mapping[Model, Usage]
Parts = dict[tuple[TermName, Any], Decimal]


@dataclass(frozen=True, slots=True)
class _Compared:
    """The usage of a reference and of an observed time, by user and model and by model alone."""

    groups: Sequence[Group]
    before: Sides
    after: Sides
    expected: Decimal
    scale: Decimal
    rates: Mapping[Model, TokenRates]

    def by_model(self) -> list[tuple[Model, Usage, Usage]]:
        """Every model with what it did before and after, in a fixed order."""
        models = sorted({*self.before, *self.after}, key=lambda model: (model[0] or "", model[1] or ""))
        return [(model, self.before.get(model, Usage()), self.after.get(model, Usage())) for model in models]

    def factor_parts(self, names: Sequence[TermName], calls: Count, totals: Sequence[Total]) -> Parts:
        """What each factor contributes, model by model. Where ``volume`` is none of them, means are compared, not sums."""
        models = [model for model, _, _ in self.by_model()]
        old, new = factors_of(self.before, self.after, models, calls, totals)
        if names[0] == "volume":
            old[0] = [count * self.scale for count in old[0]]
        else:
            old, new = old[1:], new[1:]
        return {
            (name, model): value
            for model, values in zip(models, contributions(old, new), strict=True)
            for name, value in zip(names, values, strict=True)
        }

    def by_user(self, amount: Callable[[Usage, bool], Decimal]) -> dict[str | None, Decimal]:
        """Observed less reference of each user; ``amount`` is told whether its usage is the observed one."""
        users: dict[str | None, Decimal] = {}
        for group in self.groups:
            sign = 1 if group.observed else -1
            users[group.user] = users.get(group.user, _ZERO) + sign * amount(group.usage, group.observed)
        return users


def _split_cost(compared: _Compared) -> Split:
    def plain(model: Model, usage: Usage) -> Decimal:
        rate = compared.rates.get(model, ALIKE)
        return usage.priced_input * rate.input + usage.priced_output * rate.output

    def cached(model: Model, usage: Usage) -> Decimal:
        rate = compared.rates.get(model, ALIKE)
        return (
            plain(model, usage)
            + usage.priced_cache_read * (rate.cache_read - rate.input)
            + usage.priced_cache_write * (rate.cache_write - rate.input)
        )

    scale = compared.scale
    parts = compared.factor_parts(
        ("volume", "model mix", "tokens per call", "cache share", "unit price"),
        lambda usage: usage.priced_calls,
        (plain, cached, lambda _, usage: usage.good_cost),
    )
    for model, old, new in compared.by_model():
        parts["errors", model] = new.failed_cost - scale * old.failed_cost
        parts["above list price", model] = new.overcharge - scale * old.overcharge
        parts["credits", model] = new.credits
    observed = sum((usage.charged + usage.credits for usage in compared.after.values()), _ZERO)

    def amount(usage: Usage, is_new: bool) -> Decimal:
        return usage.charged + usage.credits if is_new else usage.charged * scale

    return _finish("cost", compared, observed, compared.expected, parts, compared.by_user(amount))


def _split_tokens(compared: _Compared) -> Split:
    scale = compared.scale
    parts = compared.factor_parts(
        ("volume", "model mix", "tokens per call"),
        lambda usage: usage.good_calls,
        [lambda _, usage: Decimal(usage.good_tokens)],
    )
    for model, old, new in compared.by_model():
        parts["errors", model] = new.other_tokens - scale * old.other_tokens
    observed = Decimal(sum(usage.tokens for usage in compared.after.values()))
    by_user = compared.by_user(lambda usage, is_new: usage.tokens * (_ONE if is_new else scale))
    return _finish("tokens", compared, observed, compared.expected, parts, by_user)


def _split_errors(compared: _Compared) -> Split:
    old_calls, new_calls = _total(compared.before, "calls"), _total(compared.after, "calls")
    parts = compared.factor_parts(
        ("model mix", "error rate"), lambda usage: usage.calls, [lambda _, usage: Decimal(usage.failed_calls)]
    )
    observed = over(_total(compared.after, "failed_calls"), new_calls)
    by_user = compared.by_user(
        lambda usage, is_new: over(Decimal(usage.failed_calls), new_calls if is_new else old_calls)
    )
    return _finish("errors", compared, observed, compared.expected, parts, by_user)


def _split_latency(compared: _Compared) -> Split:
    parts = compared.factor_parts(
        ("model mix", "tokens per call", "time per token"),
        lambda usage: usage.timed_calls,
        (lambda _, usage: Decimal(usage.timed_output), lambda _, usage: Decimal(usage.waited_us) / 1000),
    )
    before, after = _waits(compared.before), _waits(compared.after)
    for model, old, new in compared.by_model():
        parts["errors", model] = after.excess(new) - before.excess(old)
    by_user = compared.by_user(lambda usage, is_new: (after if is_new else before).of(usage))
    return _finish("latency", compared, after.mean, before.mean, parts, by_user)


class _Waits(NamedTuple):
    """Mean waits of a side (ms): of all timed calls, and of those that succeeded; and how many were timed."""

    timed: Decimal
    mean: Decimal
    mean_good: Decimal

    def of(self, usage: Usage) -> Decimal:
        """What these calls add to the mean of all."""
        return over(Decimal(usage.waited_us + usage.failed_waited_us) / 1000, self.timed)

    def excess(self, usage: Usage) -> Decimal:
        """What their failures add to it beyond the wait of a call that succeeds."""
        return over(Decimal(usage.failed_waited_us) / 1000 - usage.timed_failed_calls * self.mean_good, self.timed)


def _waits(side: Sides) -> _Waits:
    good, failed = _total(side, "timed_calls"), _total(side, "timed_failed_calls")
    waited, failed_waited = _total(side, "waited_us") / 1000, _total(side, "failed_waited_us") / 1000
    return _Waits(good + failed, over(waited + failed_waited, good + failed), over(waited, good))


_SPLITTERS: Final[Mapping[Metric, Callable[[_Compared], Split]]] = {
    "cost": _split_cost,
    "tokens": _split_tokens,
    "errors": _split_errors,
    "latency": _split_latency,
}


def _finish(
    metric: Metric,
    compared: _Compared,
    observed: Decimal,
    expected: Decimal,
    parts: Parts,
    by_user: dict[str | None, Decimal],
) -> Split:
    """Round the parts so that they add up, and name what they leave."""
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
        scale=compared.scale,
        before=compared.before,
        after=compared.after,
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


def _by_model(groups: Iterable[Group], *, observed: bool) -> dict[Model, Usage]:
    sums: dict[Model, Usage] = {}
    for group in groups:
        if group.observed == observed:
            sums[group.model] = sums.get(group.model, Usage()) + group.usage
    return sums


def _total(side: Sides, name: str) -> Decimal:
    return Decimal(sum(getattr(usage, name) for usage in side.values()))
