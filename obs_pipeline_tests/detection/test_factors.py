"""What each factor of a product contributes to its change."""

from __future__ import annotations

from decimal import Decimal
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.factors import shapley_values


@settings(max_examples=60)
@given(
    old=st.lists(st.decimals(0, 100, places=3), min_size=4, max_size=4),
    new=st.lists(st.decimals(0, 100, places=3), min_size=4, max_size=4),
)
def test_shapley_values_are_the_mean_over_all_orders_of_substitution(old, new):
    orders = list(permutations(range(4)))
    expected = [Decimal(0)] * 4
    for order in orders:
        at = list(old)
        for factor in order:
            before = at[0] * at[1] * at[2] * at[3]
            at[factor] = new[factor]
            expected[factor] += at[0] * at[1] * at[2] * at[3] - before
    for value, total in zip(shapley_values(old, new), expected, strict=True):
        assert abs(value - total / len(orders)) < Decimal("1e-9")
