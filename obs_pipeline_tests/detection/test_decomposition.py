"""A deviation split into terms: that they add up exactly, whatever came before, and that each means what it says."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.config import METRICS
from obs_pipeline.detection.decomposition import Split, split_deviation
from obs_pipeline.detection.usage_sums import Group, TokenRates, Usage

GPT, OPUS = ("openai", "gpt"), ("anthropic", "opus")
RATES = {
    GPT: TokenRates(Decimal(2), Decimal("0.2"), Decimal("2.5"), Decimal(8)),
    OPUS: TokenRates(Decimal(15), Decimal("1.5"), Decimal("18.75"), Decimal(75)),
}
MICRO_DOLLAR = Decimal("0.000001")

nano = st.integers(0, 10**13).map(lambda units: Decimal(units).scaleb(-9))
count = st.integers(0, 10**7)


def possible(drawn: Usage) -> Usage:
    """What sums over events can be: no more failures than calls, and no cost of calls that are not there."""
    kept = replace(drawn, failed_calls=min(drawn.failed_calls, drawn.calls))
    priced = [name for name in Usage.__dataclass_fields__ if name.startswith("priced_")]
    if not kept.priced_calls:
        kept = replace(kept, **dict.fromkeys(priced, 0), good_cost=Decimal(0))
    return kept if kept.good_calls else replace(kept, good_tokens=0)


usages = st.builds(
    Usage,
    calls=count,
    failed_calls=count,
    unpriced_calls=count,
    overcharged_calls=count,
    priced_calls=count,
    priced_input=count,
    priced_cache_read=count,
    priced_cache_write=count,
    priced_output=count,
    good_cost=nano,
    failed_cost=nano,
    overcharge=nano,
    overcharged_list=nano,
    credits=st.one_of(st.just(Decimal(0)), nano, nano.map(lambda amount: -amount)),
    good_tokens=count,
    other_tokens=count,
    largest_input=count,
    timed_calls=count,
    waited_us=count,
    timed_output=count,
).map(possible)
groups = st.lists(
    st.builds(
        Group,
        observed=st.booleans(),
        model=st.sampled_from([GPT, OPUS, (None, None), ("acme", "no list price")]),
        user=st.sampled_from([None, "ann", "bob"]),
        usage=usages,
    ),
    max_size=6,
)
expectations = st.one_of(st.just(0.0), st.floats(0, 1e6, allow_nan=False))


def calls(number: int, *, tokens: int = 1000, cached: int = 0, price: str = "2e-6", failed: int = 0, **more) -> Usage:
    """Calls of ``tokens`` input tokens each, at ``price`` a token, of which ``cached`` were read for a tenth."""
    cost = number * (Decimal(price) * (tokens - cached) + Decimal(price) / 10 * cached)
    plain = {
        "calls": number + failed,
        "failed_calls": failed,
        "priced_calls": number,
        "priced_input": number * tokens,
        "priced_cache_read": number * cached,
        "good_cost": cost,
        "good_tokens": number * tokens,
    }
    return Usage(**{**plain, **more})


def split(before: Usage | None, after: Usage, expected: str | None = None, metric="cost", times: int = 1) -> Split:
    found = [Group(True, GPT, "ann", after)]
    if before is not None:
        found.append(Group(False, GPT, "ann", before))
    usual = Decimal(0) if before is None else before.charged / times
    return split_deviation(metric, found, usual if expected is None else Decimal(expected), times, RATES)


def amounts(found: Split) -> dict[str, Decimal]:
    return {term.name: term.amount for term in found.terms if abs(term.amount) > Decimal("1e-7")}


# -- exactness ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=60)
@given(found=groups, expected=expectations, times=st.integers(0, 28))
def test_the_terms_add_up_to_the_deviation_exactly(metric, found, expected, times):
    told = split_deviation(metric, found, expected, times, RATES)
    assert sum(term.amount for term in told.terms) == told.deviation == told.observed - told.expected
    for term in told.terms:
        assert not term.by_model or sum(amount for _, amount in term.by_model) == term.amount
    if told.by_user:
        assert sum(amount for _, amount in told.by_user) + told.amount("reference") == told.deviation


@settings(max_examples=60)
@given(found=groups, expected=expectations, times=st.integers(1, 28))
def test_the_observed_cost_is_the_sum_of_everything_charged_and_credited(found, expected, times):
    told = split_deviation("cost", found, expected, times, RATES)
    after = [group.usage for group in found if group.observed]
    assert told.observed == sum((one.charged + one.credits for one in after), Decimal(0))
    assert abs(told.expected - Decimal(str(expected))) < MICRO_DOLLAR


@settings(max_examples=60)
@given(found=groups, expected=expectations, times=st.integers(1, 28))
def test_what_the_reference_leaves_is_its_mean_less_the_expected_value(found, expected, times):
    told = split_deviation("cost", found, expected, times, RATES)
    mean = sum((group.usage.charged for group in found if not group.observed), Decimal(0)) / times
    assert abs(told.amount("reference") - (mean - told.expected)) < MICRO_DOLLAR


@settings(max_examples=60)
@given(found=groups, expected=expectations)
def test_the_order_of_the_groups_never_shows(found, expected):
    told = split_deviation("cost", found, expected, 3, RATES)
    assert split_deviation("cost", found[::-1], expected, 3, RATES).terms == told.terms


# -- meaning ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "only"),
    [
        (calls(10), calls(30), "volume"),
        (calls(10), calls(10, tokens=5000), "tokens per call"),
        (calls(10, cached=800), calls(10), "cache share"),
        (calls(10), calls(10, price="4e-6"), "unit price"),
        (calls(10), calls(10, failed=5, failed_cost=Decimal(3)), "errors"),
        (calls(10), calls(10, overcharge=Decimal(9990), overcharged_calls=1), "above list price"),
        (calls(10), calls(10, credits=Decimal(-5)), "credits"),
    ],
)
def test_what_changes_alone_is_the_only_term(before, after, only):
    found = split(before, after)
    assert set(amounts(found)) == {only}
    assert amounts(found)[only] == found.deviation


def test_calls_that_move_to_a_dearer_model_are_model_mix_and_nothing_else():
    cheap, dear = calls(100), calls(100, price="30e-6")
    found = split_deviation(
        "cost",
        [Group(False, GPT, None, cheap), Group(True, OPUS, None, dear)],
        cheap.charged,
        1,
        RATES,
    )
    assert amounts(found) == {"model mix": found.deviation}


def test_the_reference_is_a_mean_over_its_days():
    assert amounts(split(calls(280), calls(10), times=28)) == {}


def test_a_first_day_is_all_volume():
    found = split(None, calls(10))
    assert amounts(found) == {"volume": found.deviation}


def test_the_same_usage_as_ever_above_an_expected_value_is_left_to_the_reference():
    found = split(calls(10), calls(10), expected="0.005")
    assert amounts(found) == {"reference": found.deviation}


def test_a_day_without_calls_is_all_volume():
    found = split(calls(10), Usage())
    assert amounts(found) == {"volume": found.deviation}
    assert found.deviation < 0


def test_cost_reported_without_tokens_is_price():
    before, after = (Usage(calls=4, priced_calls=4, good_cost=Decimal(cost)) for cost in (4, 12))
    assert amounts(split(before, after)) == {"unit price": Decimal(8)}


def test_unpriced_calls_cost_nothing_and_are_counted_beside():
    found = split(calls(10), calls(10, calls=15, unpriced_calls=5))
    assert amounts(found) == {}
    assert found.unpriced_calls == 5


def test_a_model_without_a_list_price_is_split_by_plain_tokens():
    model = ("acme", "home-made")
    found = split_deviation(
        "cost",
        [Group(False, model, None, calls(10)), Group(True, model, None, calls(10, tokens=3000))],
        calls(10).charged,
        1,
    )
    assert amounts(found) == {"tokens per call": found.deviation}


def test_users_get_what_they_spent_more():
    found = split_deviation(
        "cost",
        [
            Group(False, GPT, "ann", calls(10)),
            Group(True, GPT, "ann", calls(10)),
            Group(True, GPT, "bob", calls(500)),
        ],
        calls(10).charged,
        1,
        RATES,
    )
    assert dict(found.by_user) == {"bob": calls(500).charged, "ann": 0}


def test_an_error_rate_is_split_into_rate_and_mix():
    found = split(calls(98, failed=2), calls(50, failed=50), expected="0.02", metric="errors")
    assert amounts(found) == {"error rate": Decimal("0.48")}


def test_of_latency_the_mean_wait_is_split_and_the_unit_says_so():
    before = calls(10, timed_calls=10, waited_us=10_000_000, timed_output=1000)
    slow = calls(10, timed_calls=10, waited_us=40_000_000, timed_output=1000)
    found = split(before, slow, expected="123", metric="latency")
    assert amounts(found) == {"time per token": Decimal(3000)}
    assert "mean" in found.unit
