"""Hours gathered into incidents, and metrics into the one that speaks."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.detection.incidents import APART, ends_of, gathered, may_continue
from obs_pipeline.detection.models import SEVERITIES, Anomaly, anomaly_id

DAY = datetime(2026, 3, 2)


def hour(
    number: int, metric="cost", *, score=60.0, severity="warning", deviation=4.0, method="zscore", agent="a"
) -> Anomaly:
    moment = DAY + timedelta(hours=number)
    return Anomaly(
        id=anomaly_id("o", "p", agent, metric, "hour", moment), timestamp=moment, org="o", project="p", agent=agent,
        metric=metric, grain="hour", severity=severity, score=score, confidence=score / 100, baseline=1.0,
        observed=score, deviation=deviation, lower=0.0, upper=2.0, method=method, reason=f"{metric} at {number}.",
        context={"calls": number},
    )  # fmt: skip


def test_close_hours_are_one_anomaly_with_the_first_ones_name_and_the_worst_ones_weight():
    (one,) = gathered([hour(3, score=55), hour(4, score=88, severity="critical"), hour(7, score=51)])
    assert (one.id, one.timestamp, one.observed) == (hour(3).id, hour(3).timestamp, 55)
    assert (one.severity, one.score, one.confidence) == ("critical", 88, 0.88)
    assert (one.context["abnormal_hours"], ends_of(one)) == (3, DAY + timedelta(hours=8))
    assert one.context["excess"] == 55 + 88 + 51 - 3
    assert one.context["peak"]["timestamp"] == "2026-03-02T04:00:00"
    assert one.reason == "cost at 3. It went on until 08:00 UTC, in 3 abnormal hours, at its worst later: cost at 4."


def test_a_single_hour_stays_as_it_is():
    assert gathered([hour(5)]) == [hour(5)]


@pytest.mark.parametrize(
    "others",
    [
        [hour(16)],
        [hour(4, deviation=-4.0, score=50)],
        [hour(4, method="list_price", score=50)],
        [hour(3, agent="b")],
        [hour(27)],
    ],
    ids=["far apart", "the other side", "the list price", "another agent", "another day"],
)
def test_what_is_not_one_incident_stays_apart(others):
    assert [one.id for one in gathered([hour(3), *others])] == [one.id for one in [hour(3), *others]]


def test_of_overlapping_metrics_one_speaks_and_the_others_name_it():
    leader, echo, price, later = gathered(
        [
            hour(3, score=90, severity="critical"),
            hour(3, "tokens", score=80),
            hour(3, method="list_price"),
            hour(9, "errors"),
        ]
    )
    assert (leader.severity, leader.score) == ("critical", 90)
    assert (echo.severity, echo.score, echo.context["echo_of"]) == ("info", 35, leader.id)
    assert echo.context["severity_alone"] == "warning"
    assert echo.reason == "tokens at 3. It goes with the agent's cost, which stands out most."
    assert "echo_of" not in price.context
    assert "echo_of" not in later.context


def _of(hours: list[Anomaly], day: int) -> list[Anomaly]:
    return [each for each in hours if each.dt == (DAY + timedelta(day)).date()]


def test_what_goes_on_past_midnight_names_what_it_continues_and_is_graver_or_not_but_lower():
    first, second = gathered([hour(22, score=60), hour(23, score=70), *(hour(n, score=76) for n in range(24, 28))])
    assert "continues" not in first.context
    assert second.context["continues"] == first.id
    assert (second.id, second.severity, second.score) == (hour(24).id, "warning", 56.5)
    assert second.context["score_alone"] == 76
    assert second.reason.endswith("It goes on from the day before.")


def test_each_of_three_days_names_the_day_before_and_is_as_grave_as_its_own_hours():
    hours = [hour(n, score=85 if n == 30 else 55, severity="critical" if n == 30 else "warning") for n in range(20, 52)]
    first, second, third = gathered(hours)
    assert (second.context["continues"], third.context["continues"]) == (first.id, second.id)
    assert [one.severity for one in (first, second, third)] == ["warning", "critical", "warning"]


def test_what_ended_at_midnight_continues_nowhere_unless_the_next_hours_are_near():
    ended, other = gathered([hour(22), hour(23), hour(36)])
    assert "continues" not in other.context
    ended, near = gathered([hour(22), hour(23), hour(35)])
    assert near.context["continues"] == ended.id


def test_another_metric_that_follows_past_midnight_is_no_new_incident_but_a_contradicted_price_is():
    leader, _, tokens, price = gathered(
        [hour(23, score=70), hour(23, "errors", score=60), hour(25, "tokens"), hour(25, method="list_price")]
    )
    assert tokens.context["continues"] == leader.id
    assert "continues" not in price.context
    later = gathered([hour(20), hour(27, "tokens")])[1]
    assert "continues" not in later.context


def test_who_leads_on_the_second_day_continues_who_led_on_the_first():
    cost, tokens, second, other = gathered(
        [hour(23, score=70), hour(23, "tokens", score=60), hour(24, score=60), hour(24, "tokens", score=70)]
    )
    assert (second.context["continues"], other.context["continues"]) == (cost.id, cost.id)
    assert second.context["echo_of"] == other.id
    assert tokens.context["echo_of"] == cost.id


def test_of_the_day_before_only_the_name_is_taken():
    alone = gathered([hour(24), hour(25)], before=[hour(22), hour(23)])
    assert alone == gathered([hour(22), hour(23), hour(24), hour(25)])[1:]
    assert gathered([], before=[hour(22)]) == []


def test_only_hours_before_noon_may_continue_what_began_the_day_before():
    first = DAY.date()
    assert [n for n in range(30) if may_continue("hour", hour(n).timestamp, first)] == list(range(12))


HOURS = st.lists(
    st.builds(
        hour,
        st.integers(0, 60),
        st.sampled_from(["cost", "tokens", "errors"]),
        score=st.floats(20, 100),
        severity=st.sampled_from(SEVERITIES),
        deviation=st.sampled_from([4.0, -4.0]),
        method=st.sampled_from(["zscore", "list_price"]),
        agent=st.sampled_from(["a", "b"]),
    ),
    max_size=25,
    unique_by=lambda one: one.id,
)


@given(HOURS)
def test_nothing_is_lost_nor_named_twice_and_a_gathered_day_is_gathered_for_good(hours):
    found = gathered(hours)
    assert {one.id for one in found} <= {one.id for one in hours}
    assert sum(one.context.get("abnormal_hours", 1) for one in found) == len(hours)
    assert gathered([]) == []
    for one in found:
        echo = one.context.get("echo_of")
        assert echo is None or any(other.id == echo and "echo_of" not in other.context for other in found)
    alone = [one for day in range(3) for one in gathered(_of(hours, day), before=_of(hours, day - 1))]
    assert Counter(one.id for one in alone) == Counter(one.id for one in found)
    assert sorted(alone, key=lambda one: one.id) == sorted(found, key=lambda one: one.id)


@given(HOURS)
def test_two_anomalies_of_one_side_of_a_metric_are_never_close(hours):
    found = [one for one in gathered(hours) if one.method != "list_price"]
    for one in found:
        for other in found:
            same = (one.agent, one.metric, one.dt, (one.deviation or 0) > 0) == (
                other.agent, other.metric, other.dt, (other.deviation or 0) > 0,
            )  # fmt: skip
            assert one is other or not same or abs(one.timestamp - other.timestamp) > APART
