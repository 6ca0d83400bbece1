"""Spikes taken apart: everything adds up."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.detection.spikes import BaselineWindow, SpikeRequestError, analyze_spikes
from obs_pipeline.usage.event import EVENT_SCHEMA, MONEY

START = datetime(2025, 5, 7)
END = START + timedelta(days=1)
SCHEMA = EVENT_SCHEMA.append(pa.field("cost", MONEY))
NAMES = st.sampled_from(["a", "b", None])


def event(number: int, seconds: float = 0, **values) -> dict:
    plain = dict.fromkeys(SCHEMA.names)
    plain |= {
        "source": "s",
        "event_id": f"e{number:03}",
        "event_type": "usage",
        "event_time": START + timedelta(seconds=seconds),
        "agent": "ask",
    }
    return plain | values


def table(rows) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


EVENTS = st.lists(
    st.builds(
        dict,
        seconds=st.integers(-1000, 90_000),
        agent=st.sampled_from(["ask", "ask", "ask", "other", None]),
        model=NAMES,
        user_id=NAMES,
        operation=NAMES,
        cost=st.one_of(st.none(), st.decimals(-1000, 999_999_999, places=9)),
        input_tokens=st.one_of(st.none(), st.integers(0, 10**15)),
        output_tokens=st.one_of(st.none(), st.integers(0, 10**9)),
        latency_ms=st.one_of(st.none(), st.floats(0, 1e7)),
        error_type=st.one_of(st.none(), st.just("timeout")),
    ),
    max_size=25,
).map(lambda rows: [event(number, **row) for number, row in enumerate(rows)])


@given(rows=EVENTS, metric=st.sampled_from(["cost", "tokens", "calls", "errors", "latency"]), before=EVENTS)
def test_contributions_add_up_to_the_total_exactly(rows, metric, before):
    baseline = BaselineWindow(table(before), START, END)
    report = analyze_spikes(table(rows), "ask", metric, START, END, baseline)
    for contributions in (report.models, report.users, report.operations):
        assert sum((one.observed for one in contributions), Decimal(0)) == report.observed
        assert sum(one.calls for one in contributions) == report.calls
    mine = [row for row in rows if row["agent"] == "ask" and START <= row["event_time"] < END]
    expected = {
        "cost": sum((row["cost"] or 0 for row in mine), Decimal(0)),
        "tokens": sum((row["input_tokens"] or 0) + (row["output_tokens"] or 0) for row in mine),
        "calls": len(mine),
        "errors": sum(row["error_type"] is not None for row in mine),
    }
    assert report.calls == len(mine)
    if metric in expected:
        assert report.observed == expected[metric]
    assert isinstance(report.observed, Decimal if metric in ("cost", "latency") else int)


@given(rows=EVENTS, seed=st.randoms())
def test_the_order_of_the_events_changes_nothing(rows, seed):
    shuffled = rows.copy()
    seed.shuffle(shuffled)
    reports = [analyze_spikes(table(one), "ask", "cost", START, END) for one in (rows, shuffled)]
    assert reports[0] == reports[1]


def test_the_spike_is_traced_to_its_model_user_and_call():
    rows = [event(n, n * 600, model="small", user_id="u1", cost=Decimal("0.01")) for n in range(100)]
    rows.append(event(200, 55_772, model="large", user_id="u2", cost=Decimal("9990.012528750")))
    report = analyze_spikes(table(rows), "ask", "cost", START, END)
    assert report.observed == Decimal("9991.012528750")
    assert [one.key for one in report.models] == ["large", "small"]
    assert report.models[0].share == pytest.approx(0.9999, abs=1e-4)
    assert report.users[0].key == "u2"
    assert report.operations[0].key is None
    assert report.largest_calls[0].event_id == "e200"
    assert report.began == report.peaked == START + timedelta(seconds=55_772)


def test_the_beginning_is_the_first_call_above_the_usual_rate():
    calm = [event(n, n * 3600, cost=Decimal("0.10")) for n in range(24)]
    storm = [event(100 + n, 40_000 + n * 60, cost=Decimal(1)) for n in range(30)]
    before = [event(n, n * 3600, cost=Decimal("0.10")) for n in range(24)]
    report = analyze_spikes(table(calm + storm), "ask", "cost", START, END, BaselineWindow(table(before), START, END))
    assert START + timedelta(seconds=39_600) <= report.began <= START + timedelta(seconds=40_000)
    assert START + timedelta(seconds=40_000 + 29 * 60) <= report.peaked


def test_the_baseline_is_scaled_to_the_length_of_the_window():
    week = [event(n, -n * 86_400, model="m", cost=Decimal(2)) for n in range(1, 8)]
    gone = [event(50, -86_400, model="gone", cost=Decimal("0.7"))]
    now = [event(100, 60, model="m", cost=Decimal(5)), event(101, 90, model="new", cost=Decimal(1))]
    window = BaselineWindow(table(week + gone), START - timedelta(days=7), START)
    report = analyze_spikes(table(now), "ask", "cost", START, END, window)
    assert (report.baseline, report.difference) == (Decimal("2.1"), Decimal("3.9"))
    assert [(one.key, one.observed, one.baseline, one.difference) for one in report.models] == [
        ("m", 5, 2, 3),
        ("new", 1, 0, 1),
        ("gone", 0, Decimal("0.1"), Decimal("-0.1")),
    ]


def test_calls_whose_amount_nobody_knows_are_counted_and_not_invented():
    rows = [event(1, cost=None), event(2, cost=Decimal(1))]
    report = analyze_spikes(table(rows), "ask", "cost", START, END)
    assert (report.calls, report.unknown_calls, report.observed) == (2, 1, Decimal(1))


def test_the_window_includes_its_start_and_excludes_its_end():
    rows = [event(1, 0), event(2, 86_400), event(3, -0.000001)]
    assert analyze_spikes(table(rows), "ask", "calls", START, END).observed == 1


def test_events_without_an_agent_can_be_asked_for():
    rows = [event(1, agent=None), event(2)]
    report = analyze_spikes(table(rows), None, "calls", START, END)
    assert [one.event_id for one in report.largest_calls] == ["e001"]


def test_waiting_time_is_added_to_the_microsecond():
    rows = [event(n, latency_ms=0.1) for n in range(10)]
    assert analyze_spikes(table(rows), "ask", "latency", START, END).observed == Decimal("1.000")


@pytest.mark.parametrize("metric", ["cost", "tokens", "errors", "latency", "calls"])
def test_nothing_observed_is_a_report_of_nothing(metric):
    report = analyze_spikes(table([]), "ask", metric, START, END, BaselineWindow(table([]), START, END))
    assert (report.observed, report.calls, report.began, report.models) == (0, 0, None, ())


def test_an_unknown_metric_or_an_empty_window_is_refused():
    with pytest.raises(SpikeRequestError, match="choose one of cost, tokens"):
        analyze_spikes(table([]), "ask", "money", START, END)
    with pytest.raises(SpikeRequestError, match="its end must lie after its start"):
        analyze_spikes(table([]), "ask", "cost", START, START)
