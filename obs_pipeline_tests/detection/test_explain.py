"""The sentence under an anomaly."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from obs_pipeline.detection.explain import Evidence, Finding, explain

WHEN = datetime(2024, 12, 13, 20)
FINDING = Finding(
    series=("o", "p", "ask"),
    metric="tokens",
    grain="hour",
    time=WHEN,
    observed=942_515,
    expected=1_607.4,
    lower=0,
    upper=158_123,
    deviation=5.13,
    points=23,
    calls=5,
    errors=0,
    overcharge=0,
    list_cost=0,
    mispriced_calls=0,
    by_price=False,
)
CALL = {
    "kind": "largest",
    "event_id": "e9",
    "model": "m-large",
    "reported_cost": Decimal("2.740242"),
    "cost": Decimal("2.740242"),
    "list_cost": Decimal("2.740242"),
    "price_ratio": 1.0,
    "input_tokens": 913_414,
    "output_tokens": 0,
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "agent ask (p) used 942,515 tokens in 5 calls on 2024-12-13 between 20:00 and 21:00 UTC, where 1,600 tokens is "
            "usual at this hour and more than 160,000 tokens rare (5.1 sigmas from 23 days of history).",
        ),
        (
            {"metric": "cost", "grain": "day", "observed": 2.92, "expected": 0.0, "upper": 0.5264, "calls": 1},
            "agent ask (p) spent $2.92 in 1 call on 2024-12-13, where nothing is usual and more than $0.526 rare "
            "(5.1 sigmas from 23 days of history).",
        ),
        (
            {"metric": "errors", "grain": "day", "observed": 0.2, "expected": 0.013, "upper": 0.06, "errors": 12, "calls": 60},
            "agent ask (p) failed in 12 of 60 calls (20%) on 2024-12-13, where 1.3% is usual and more than 6.0% rare "
            "(5.1 sigmas from 23 days of history).",
        ),
        (
            {"metric": "latency", "grain": "day", "observed": 9321.0, "expected": 900.0, "upper": 1500.2, "calls": 60},
            "agent ask (p) took 9,321 ms at the 95th percentile of 60 calls on 2024-12-13, where 900 ms is usual and more than "
            "1,500 ms rare (5.1 sigmas from 23 days of history).",
        ),
        (
            {"metric": "cost", "observed": 0.0, "expected": 50.0, "lower": 31.0, "deviation": -8.0, "calls": 0, "grain": "day"},
            "agent ask (p) made no calls on 2024-12-13, where $50.00 is usual and less than $31.00 rare "
            "(8.0 sigmas from 23 days of history).",
        ),
        (
            {"series": (None, None, None), "grain": "day", "deviation": 1e6},
            "usage without an agent used 942,515 tokens in 5 calls on 2024-12-13, where 1,600 tokens is usual and more than "
            "160,000 tokens rare (over 1,000 sigmas from 23 days of history).",
        ),
    ],
)  # fmt: skip
def test_a_deviation_is_one_plain_sentence(changes, sentence):
    assert explain(replace(FINDING, **changes), {})[0] == sentence


def test_the_call_that_is_most_of_it_is_named():
    reason, context = explain(FINDING, {"largest": CALL})
    assert "; one call to m-large with 913,414 input tokens and no output is 97% of it." in reason
    assert context["call"] == {
        "event_id": "e9",
        "model": "m-large",
        "reported_cost": "2.740242",
        "list_cost": "2.740242",
        "price_ratio": 1.0,
        "input_tokens": 913_414,
        "output_tokens": 0,
    }
    json.dumps(context, allow_nan=False)


def test_a_call_that_is_one_of_many_is_not_blamed():
    reason, context = explain(replace(FINDING, observed=50_000_000), {"largest": CALL})
    assert "one call" not in reason
    assert "call" not in context


def test_a_drop_blames_no_call():
    drop = replace(FINDING, observed=942_515, expected=9e6, deviation=-4.0)
    assert "one call" not in explain(drop, {"largest": CALL})[0]


def test_an_overcharge_says_how_much_and_by_which_call():
    finding = replace(
        FINDING,
        metric="cost",
        grain="day",
        observed=9990.04,
        overcharge=9990.0,
        list_cost=0.0126,
        mispriced_calls=1,
        by_price=True,
        expected=None,
        deviation=None,
    )
    call = {
        **CALL,
        "kind": "mispriced",
        "reported_cost": Decimal("9990.012528750"),
        "list_cost": Decimal("0.012628750"),
    }
    reason, context = explain(finding, {"mispriced": call, "dearest": call})
    assert reason == (
        "agent ask (p) was charged $9,990.04 on 2024-12-13, $9,990.00 above list price: the reported cost contradicts the "
        "list price; one call to m-large reported $9,990.01, 790,000 × its list price of $0.0126."
    )
    assert (context["mispriced_calls"], context["overcharge_usd"]) == (1, 9990.0)


def test_an_ordinary_cost_anomaly_mentions_an_overcharge_only_when_it_matters():
    cost = replace(FINDING, metric="cost", observed=100.0, expected=10.0, upper=20.0, mispriced_calls=1)
    assert "list price" not in explain(replace(cost, overcharge=1.0), {})[0]
    assert "$60.00 of it is above list price" in explain(replace(cost, overcharge=60.0), {})[0]


def test_a_call_reported_at_a_cost_although_it_is_free_is_worded_without_a_ratio():
    call = {**CALL, "kind": "mispriced", "reported_cost": Decimal(20), "list_cost": Decimal(0)}
    finding = replace(FINDING, metric="cost", observed=20.0, overcharge=20.0, by_price=True)
    assert "reported $20.00, against a list price of $0.00" in explain(finding, {"mispriced": call})[0]


def evidence(*rows) -> Evidence:
    return Evidence(pa.Table.from_pylist([{"org": "o", "project": "p", "agent": "ask", **row} for row in rows]))


def test_a_day_is_explained_by_the_worst_call_of_its_hours():
    calls = evidence(
        {**CALL, "time": WHEN, "event_id": "small", "input_tokens": 10},
        {**CALL, "time": WHEN.replace(hour=3), "event_id": "big"},
    )
    day = (("o", "p", "ask"), "day", WHEN.replace(hour=0))
    hour = (("o", "p", "ask"), "hour", WHEN)
    found = calls.of([day, hour])
    assert found[day]["largest"]["event_id"] == "big"
    assert found[hour]["largest"]["event_id"] == "small"


def test_evidence_of_another_series_or_hour_is_not_used():
    calls = evidence({**CALL, "time": WHEN}, {**CALL, "time": WHEN, "agent": None})
    wanted = [
        (("o", "p", "other"), "hour", WHEN),
        (("o", "q", "ask"), "hour", WHEN),
        (("o", "p", "ask"), "hour", WHEN.replace(hour=1)),
    ]
    assert calls.of(wanted) == {}
    assert list(calls.of([(("o", "p", None), "hour", WHEN)])) == [(("o", "p", None), "hour", WHEN)]
    assert Evidence(None).of(wanted) == {}
