"""A sum over models as a product of factors, on two sides, and what each factor contributes to the difference.

Knows usage only through the functions that it is given; what the factors are called and mean is for ``decomposition``.
A side is a list of factors, a factor a number for each model. The first is the number of all calls, the second each
model's share of them; every further one is a total over the total before it, the first of them over the model's calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import product
from math import factorial
from typing import Final

from obs_pipeline.detection.usage_sums import Model, Usage

Side = list[list[Decimal]]
Count = Callable[[Usage], int]
Total = Callable[[Model, Usage], Decimal]

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)


def factors_of(
    before: Mapping[Model, Usage],
    after: Mapping[Model, Usage],
    models: Sequence[Model],
    calls: Count,
    totals: Sequence[Total],
) -> tuple[Side, Side]:
    """The factors of both sides, so that they speak of the same: what a side does not know of a model, it takes from the
    other, and where a total within the chain is nothing on a side, the last factor is the whole on both."""
    old, new = _side(before, models, calls, totals), _side(after, models, calls, totals)
    for position, model in enumerate(models):
        _agree(old, new, position, calls(before.get(model, Usage())), calls(after.get(model, Usage())))
    return old, new


def contributions(old: Side, new: Side) -> list[list[Decimal]]:
    """Model by model, what each factor contributes to the change of their product."""
    return [shapley_values(*pair) for pair in zip(zip(*old, strict=True), zip(*new, strict=True), strict=True)]


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


def over(high: Decimal, low: Decimal) -> Decimal:
    """The ratio, zero where there is nothing to divide by."""
    return high / low if low else _ZERO


def _side(usages: Mapping[Model, Usage], models: Sequence[Model], calls: Count, totals: Sequence[Total]) -> Side:
    of_models = [usages.get(model, Usage()) for model in models]
    counts = [Decimal(calls(usage)) for usage in of_models]
    everything = sum(counts, _ZERO)
    factors = [[everything] * len(models), [over(count, everything) for count in counts]]
    below = counts
    for total in totals:
        above = [total(model, usage) for model, usage in zip(models, of_models, strict=True)]
        factors.append([over(high, low) for high, low in zip(above, below, strict=True)])
        below = above
    # Where a link of the chain is nothing although the end is something, the whole is put into the last factor.
    for position, (count, end) in enumerate(zip(counts, below, strict=True)):
        if _whole(factors, position) != (whole := over(end, count)) and _broken(factors, position):
            _put_into_the_last(factors, position, whole)
    return factors


def _agree(old: Side, new: Side, position: int, old_calls: int, new_calls: int) -> None:
    if not old_calls or not new_calls:
        known, unknown = (new, old) if new_calls else (old, new)
        for factor in range(2, len(old)):
            unknown[factor][position] = known[factor][position]
    elif _broken(old, position) or _broken(new, position):
        for side in (old, new):
            _put_into_the_last(side, position, _whole(side, position))
    # A side without any call has no mix of its own: its volume alone is zero.
    for one, other in ((old, new), (new, old)):
        if one[0][position] == 0:
            one[1][position] = other[1][position]


def _broken(side: Side, position: int) -> bool:
    return any(factor[position] <= 0 for factor in side[2:-1])


def _whole(side: Side, position: int) -> Decimal:
    """The last total of a call."""
    return _product(factor[position] for factor in side[2:])


def _put_into_the_last(side: Side, position: int, whole: Decimal) -> None:
    for factor in side[2:-1]:
        factor[position] = _ONE
    side[-1][position] = whole


def _product(values: Iterable[Decimal]) -> Decimal:
    found = _ONE
    for value in values:
        found *= value
    return found
