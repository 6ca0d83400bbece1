"""From events in the lake to an explained anomaly: what the reference is, and that no cent of the events is lost."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.detection.explanations import Explanation, explain_anomalies, list_rates
from obs_pipeline.detection.models import Anomaly, anomalies_to_table, anomaly_id
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.tables import USAGE_EVENTS

NOON = datetime(2025, 5, 20, 12)
NO_RATES = lambda _models, _moment: {}  # noqa: E731


def event(number: int, at: datetime, **values: Any) -> dict[str, Any]:
    plain = {
        "dt": at.date(),
        "source": "s",
        "event_id": f"e{number}",
        "event_time": at,
        "event_type": "usage",
        "org": "acme",
        "agent": "a",
        "user_id": "ann",
        "provider": "openai",
        "model": "gpt-4o",
        "input_tokens": 1000,
        "output_tokens": 0,
        "cost": Decimal("0.0025"),
        "list_cost": Decimal("0.0025"),
        "cost_source": "reported",
        "mispriced": False,
        "file_id": "f",
        "row_number": number,
    }
    return {**dict.fromkeys(USAGE_EVENTS.schema.names), **plain, **values}


def anomaly(
    at: datetime = NOON, grain="hour", metric="cost", baseline=0.0025, points=10, agent="a", **values
) -> Anomaly:
    start = at if grain == "hour" else datetime(at.year, at.month, at.day)
    plain = {
        "id": anomaly_id("acme", None, agent, metric, grain, start),
        "timestamp": start,
        "org": "acme",
        "project": None,
        "agent": agent,
        "severity": "warning",
        "score": 60.0,
        "confidence": 0.5,
        "observed": 1.0,
        "deviation": 4.0,
        "lower": 0.0,
        "upper": 0.01,
        "method": "zscore",
        "reason": "because",
        "context": {"history_points": points},
    }
    return Anomaly(**{**plain, "metric": metric, "grain": grain, "baseline": baseline, **values})


def explained(folder: Path, events: list[dict[str, Any]], *asked: Anomaly, known=()) -> list[Explanation]:
    lake = Lake(str(folder / "lake"))
    days = DayRange(date(2025, 4, 1), date(2025, 6, 30))
    lake.replace(USAGE_EVENTS, days, lambda _: pa.Table.from_pylist(events, schema=USAGE_EVENTS.schema))
    known_rows = anomalies_to_table([*asked, *known])
    dated = known_rows.set_column(0, "dt", pa.array([one.dt for one in (*asked, *known)], pa.date32()))
    lake.replace(ANOMALIES, days, lambda _: dated)
    with connect(threads=1) as connection:
        return explain_anomalies(connection, lake, asked, 28, NO_RATES)


def hourly(days: int, at: datetime = NOON, first: int = 0, **values: Any) -> list[dict[str, Any]]:
    """One call at that hour on each of the days before."""
    return [event(first + n, at - timedelta(days=n), **values) for n in range(1, days + 1)]


def amounts(one: Explanation) -> dict[str, Decimal]:
    return {term.name: term.amount for term in one.split.terms if term.amount}


def test_an_hour_is_compared_with_the_same_hour_of_the_days_before(tmp_path):
    other_hours = hourly(10, NOON.replace(hour=3), first=100, cost=Decimal(9))
    other_agent = hourly(10, first=200, agent="b", cost=Decimal(9))
    now = [event(300 + n, NOON) for n in range(5)]
    (one,) = explained(tmp_path, [*hourly(10), *other_hours, *other_agent, *now], anomaly())
    assert amounts(one) == {"volume": Decimal("0.01")}
    assert one.cause.name == "more calls"


def test_a_day_is_compared_with_whole_days(tmp_path):
    before = [*hourly(10), *hourly(10, NOON.replace(hour=3), first=100)]
    now = [event(300 + n, NOON.replace(hour=n)) for n in range(8)]
    (one,) = explained(tmp_path, [*before, *now], anomaly(grain="day", baseline=0.005))
    assert amounts(one) == {"volume": Decimal("0.015")}


def test_earlier_warnings_are_no_example_of_the_usual(tmp_path):
    storm = [event(100 + n, NOON - timedelta(days=2)) for n in range(500)]
    now = [event(700 + n, NOON) for n in range(5)]
    earlier = anomaly(NOON - timedelta(days=2))
    before = [one for one in hourly(11) if one["event_time"] != NOON - timedelta(days=2)]
    (one,) = explained(tmp_path, [*before, *storm, *now], anomaly(points=11), known=[earlier])
    assert amounts(one) == {"volume": Decimal("0.01")}


def test_usage_older_than_the_look_back_does_not_count(tmp_path):
    old = [event(n, NOON - timedelta(days=29 + n), cost=Decimal(5)) for n in range(1, 8)]
    (one,) = explained(tmp_path, [*old, event(100, NOON)], anomaly(baseline=0.0))
    assert one.cause.name == "new agent"


def test_the_first_calls_ever_at_an_hour_are_no_new_agent(tmp_path):
    elsewhere = hourly(10, NOON.replace(hour=3))
    (one,) = explained(tmp_path, [*elsewhere, event(100, NOON)], anomaly(baseline=0.0))
    assert amounts(one) == {"volume": Decimal("0.0025")}
    assert one.cause.name == "more calls"


def test_many_anomalies_are_explained_by_one_query_and_keep_their_order(tmp_path):
    asked = [anomaly(NOON - timedelta(days=n), metric=metric) for n in range(4) for metric in ("cost", "tokens")]
    events = [*hourly(20), event(100, NOON)]
    found = explained(tmp_path, events, *asked)
    assert [one.anomaly for one in found] == asked
    assert [one.split.metric for one in found] == ["cost", "tokens"] * 4


def test_nothing_asked_is_nothing_read(tmp_path):
    assert explained(tmp_path, [event(1, NOON)]) == []


def test_an_anomaly_whose_events_are_gone_is_left_to_the_reference(tmp_path):
    (one,) = explained(tmp_path, [event(1, NOON, agent="other")], anomaly())
    assert amounts(one) == {"reference": Decimal("-0.0025")}


def test_the_call_far_above_list_price_is_named_with_its_ratio(tmp_path):
    wrong = event(
        50, NOON, cost=Decimal(2500), reported_cost=Decimal(2500), list_cost=Decimal("0.0025"), mispriced=True
    )
    (one,) = explained(tmp_path, [*hourly(10), wrong], anomaly())
    assert amounts(one) == {"above list price": Decimal("2499.9975")}
    assert one.cause.because == "1 call to gpt-4o reported 1,000,000 × the list price"


def test_the_list_rates_are_those_of_the_moment():
    rates = list_rates(PriceBook.load(None), [("openai", "gpt-4o"), ("acme", "unheard-of")], NOON)
    assert set(rates) == {("openai", "gpt-4o")}
    assert rates["openai", "gpt-4o"].output > rates["openai", "gpt-4o"].input > 0


money = st.integers(-(10**9), 10**12).map(lambda units: Decimal(units).scaleb(-9))
tokens = st.one_of(st.none(), st.integers(0, 10**6))
drawn_events = st.lists(
    st.fixed_dictionaries(
        {
            "day": st.integers(0, 30),
            "hour": st.sampled_from([11, 12]),
            "agent": st.sampled_from(["a", "a", "b", None]),
            "user_id": st.sampled_from(["ann", "bob", None]),
            "model": st.sampled_from(["gpt-4o", "o3", "unheard-of", None]),
            "event_type": st.sampled_from(["usage", "usage", "usage", "credit", "correction"]),
            "error_type": st.sampled_from([None, None, "timeout"]),
            "input_tokens": tokens,
            "cache_read_tokens": tokens,
            "output_tokens": tokens,
            "cost": st.one_of(st.none(), money),
            "list_cost": st.one_of(st.none(), money.map(abs)),
            "mispriced": st.booleans(),
        }
    ),
    max_size=12,
)


@pytest.mark.parametrize("grain", ["hour", "day"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=drawn_events, baseline=st.floats(0, 1000))
def test_terms_of_any_events_add_up_to_observed_minus_expected(tmp_path_factory, grain, drawn, baseline):
    events = []
    for number, values in enumerate(drawn):
        row = dict(values)
        at = NOON.replace(hour=row.pop("hour")) - timedelta(days=row.pop("day"))
        cost = row["cost"] if row["cost"] is None or row["event_type"] != "usage" else abs(row["cost"])
        row["mispriced"] = row["mispriced"] and cost is not None and row["list_cost"] is not None
        events.append(event(number, at, **{**row, "cost": cost, "reported_cost": cost}))
    asked = [
        anomaly(grain=grain, metric=metric, baseline=baseline) for metric in ("cost", "tokens", "errors", "latency")
    ]
    found = explained(tmp_path_factory.mktemp("lake"), events, *asked)
    start = NOON if grain == "hour" else NOON.replace(hour=0)
    end = start + timedelta(hours=1 if grain == "hour" else 24)
    own = [one for one in events if one["agent"] == "a" and start <= one["event_time"] < end]
    assert found[0].split.observed == sum((one["cost"] or Decimal(0) for one in own), Decimal(0))
    for one in found:
        assert sum(term.amount for term in one.split.terms) == one.split.observed - one.split.expected
        assert one.cause.because


def test_rates_can_be_asked_of_the_price_book_as_it_is(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    days = DayRange(date(2025, 4, 1), date(2025, 6, 30))
    before = hourly(10, cache_read_tokens=900, cost=Decimal("0.001375"))
    rows = [*before, event(50, NOON, cache_read_tokens=0)]
    lake.replace(USAGE_EVENTS, days, lambda _: pa.Table.from_pylist(rows, schema=USAGE_EVENTS.schema))
    with connect(threads=1) as connection:
        rates = partial(list_rates, PriceBook.load(None))
        (one,) = explain_anomalies(connection, lake, [anomaly(baseline=0.001375)], 28, rates)
    assert amounts(one) == {"cache share": Decimal("0.001125")}
    assert one.cause.name == "cache miss"
