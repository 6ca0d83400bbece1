"""The decision table of likely causes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from obs_pipeline.detection.causes import likely_cause
from obs_pipeline.detection.decomposition import split_deviation
from obs_pipeline.detection.usage_sums import Group, Usage
from obs_pipeline_tests.detection.test_decomposition import GPT, OPUS, RATES, calls


def cause(before: Usage | None, after: Usage, metric="cost", expected: float | None = None, model=GPT):
    groups = [Group(True, model, "ann", after)]
    if before is not None:
        groups.append(Group(False, GPT, "ann", before))
    usual = (0 if before is None else before.charged) if expected is None else expected
    return likely_cause(split_deviation(metric, groups, usual, 1, RATES), existed=before is not None)


OVERCHARGED = calls(3, overcharge=Decimal("9990"), overcharged_calls=1, overcharged_list=Decimal("0.0126"))


@pytest.mark.parametrize(
    ("before", "after", "named", "evidence"),
    [
        (calls(10), OVERCHARGED, "mispriced call", "1 call to gpt reported 790,000 × the list price"),
        (None, OVERCHARGED, "mispriced call", "790,000 ×"),
        (None, calls(40), "new agent", "none of its 40 calls"),
        (calls(10), calls(200, failed=200), "retry storm", "50% of the calls failed, usually 0.0%, 400 calls"),
        (calls(10), calls(80), "more calls", "80 calls, usually 10"),
        (calls(10), calls(8, failed=2), "fewer calls", "usually 10"),
        (calls(10), Usage(), "fewer calls", "0 calls"),
        (calls(10), calls(10, tokens=90_000, largest_input=913_414), "runaway context", "913,414 input tokens to gpt"),
        (calls(10, tokens=9000), calls(10), "shorter calls", "usually 9,000"),
        (calls(10, cached=900), calls(10), "cache miss", "0% of the input came from the cache, usually 90%"),
        (calls(10), calls(10, price="9e-6"), "price change", "gpt"),
        (calls(10), calls(10, credits=Decimal(-5)), "credit or correction", "credits"),
        (calls(10), calls(10, failed=1, failed_cost=Decimal(9)), "failing calls", "9% of the calls failed"),
    ],
)
def test_each_row_of_the_table(before, after, named, evidence):
    found = cause(before, after)
    assert found.name == named
    assert evidence in found.because


def test_another_model_is_a_swap_and_says_which():
    found = cause(calls(100), calls(100, price="30e-6"), model=OPUS)
    assert found.name == "model swap"
    assert found.because == "100% of the calls went to opus, usually 0%"


def test_more_calls_of_which_as_many_fail_as_ever_are_no_storm():
    assert cause(calls(70, failed=30), calls(700, failed=300)).name == "more calls"


def test_failing_calls_without_more_of_them_are_no_storm():
    assert cause(calls(100), calls(50, failed=50), metric="errors", expected=0.0).name == "failing calls"


def test_what_the_calls_do_not_explain_is_unknown():
    assert cause(calls(10), calls(10), expected=0.001).name == "unknown"


def test_slower_answers_are_named():
    before = calls(10, timed_calls=10, waited_us=10_000_000, timed_output=1000)
    slow = calls(10, timed_calls=10, waited_us=40_000_000, timed_output=1000)
    found = cause(before, slow, metric="latency", expected=1000.0)
    assert str(found) == "slower answers: 4,000 ms a call on average, usually 1,000 ms, for no more tokens"
