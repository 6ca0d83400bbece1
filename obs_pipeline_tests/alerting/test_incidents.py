from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.alerting.incidents import Case, acknowledged, fold, no_longer_found, reopened, resolved
from obs_pipeline.alerting.models import Signal
from obs_pipeline.alerting.signals import anomaly_signal, budget_signal, failed_run, stale_source
from obs_pipeline_tests.alerting.cases import HOUR, MINUTE, NOON, incident, signal


class Cases:
    """Folds one after the other."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}

    def fold(self, found, now, **how) -> list[Case]:
        folded = fold(self.cases.values(), found, now, **how)
        self.cases |= {case.incident.id: case for case in folded.cases}
        return list(folded.cases)

    def only(self):
        [case] = [case for case in self.cases.values() if not case.incident.merged_into]
        return case.incident


def test_six_hours_in_several_metrics_are_one_incident():
    cases = Cases()
    for hour in range(6):
        found = [signal(f"c{hour}", hour), signal(f"e{hour}", hour, metric="errors", severity="critical")]
        cases.fold(found, NOON + (hour + 1) * HOUR)
    one = cases.only()
    assert (one.status, one.severity, one.metrics, len(one.signal_ids)) == ("open", "critical", ("cost", "errors"), 12)
    assert (one.began_at, one.last_seen_at, one.opened_at) == (NOON, NOON + 6 * HOUR, NOON + HOUR)
    assert (one.agent, one.metric) == ("triage", "errors")


def test_an_incident_ends_only_after_the_quiet_time():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + HOUR)
    cases.fold([], NOON + 3 * HOUR - MINUTE)
    assert cases.only().status == "open"
    cases.fold([], NOON + 3 * HOUR)
    assert (cases.only().status, cases.only().resolution) == ("resolved", "back to the ordinary")


def test_data_that_was_not_looked_at_yet_is_not_quiet():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + HOUR, through=NOON + HOUR)
    cases.fold([], NOON + 9 * HOUR, through=NOON + 2 * HOUR)
    assert cases.only().status == "open"


def test_what_is_found_a_day_late_is_open_first():
    cases = Cases()
    now = NOON + 20 * HOUR
    cases.fold([signal("a", 0)], now)
    assert cases.only().status == "open"
    cases.fold([], now + 2 * HOUR)
    assert cases.only().status == "resolved"


def test_what_lies_far_in_the_past_is_recorded_as_over():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + timedelta(days=30))
    assert (cases.only().status, cases.only().resolution) == ("resolved", "it lay in the past when it was found")


def test_a_day_of_abnormal_usage_needs_a_day_of_ordinary_usage_to_end():
    cases = Cases()
    day = replace(signal("a", 0), ends_at=NOON + 24 * HOUR)
    cases.fold([day], NOON + 25 * HOUR)
    cases.fold([], NOON + 47 * HOUR)
    assert cases.only().status == "open"
    cases.fold([], NOON + 48 * HOUR)
    assert cases.only().status == "resolved"


def test_a_finding_soon_after_the_end_opens_the_incident_again():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + HOUR)
    cases.fold([], NOON + 3 * HOUR)
    cases.fold([signal("b", 2.5)], NOON + 3.5 * HOUR)
    assert (cases.only().status, cases.only().episode, cases.only().resolved_at) == ("open", 1, None)


def test_a_finding_long_after_the_end_is_another_incident():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + HOUR)
    cases.fold([], NOON + 3 * HOUR)
    cases.fold([signal("b", 9)], NOON + 10 * HOUR)
    assert sorted(case.incident.status for case in cases.cases.values()) == ["open", "resolved"]


def test_what_a_person_resolved_stays_resolved_until_there_is_something_new():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + HOUR)
    [case] = cases.cases.values()
    done = resolved(case.incident, "ada", NOON + HOUR, "fixed")
    cases.cases[done.id] = Case(done, case.signals)
    assert cases.fold([signal("a", 0)], NOON + 2 * HOUR) == []
    cases.fold([signal("b", 1)], NOON + 2 * HOUR)
    assert (cases.only().status, cases.only().episode) == ("open", 1)


def test_the_same_findings_again_change_nothing():
    cases = Cases()
    cases.fold([signal("a", 0), signal("b", 1)], NOON + 2 * HOUR)
    assert cases.fold([signal("b", 1), signal("a", 0)], NOON + 2.5 * HOUR) == []


@pytest.mark.parametrize(
    ("scores", "root"),
    [
        ({"a": 50, "b": 50, "c": 50}, ("atlas", "")),
        ({"a": 90, "b": 20, "c": 20}, ("atlas", "a")),
        ({"a": 50, "b": 50}, None),
    ],
)
def test_many_agents_at_once_are_rooted_at_the_lowest_scope_that_explains_most(scores, root):
    cases = Cases()
    cases.fold([signal(name, 0, agent=name, score=float(score)) for name, score in scores.items()], NOON + HOUR)
    if root is None:
        assert len(cases.cases) == 2
    else:
        one = cases.only()
        assert (one.project, one.agent) == root
        assert one.agents == tuple(scores)


def test_several_projects_at_once_are_an_incident_of_the_organisation():
    cases = Cases()
    found = [
        signal(f"{project}{n}", 0, agent=f"{project}-{n}", project=project)
        for project in ("atlas", "beacon", "comet")
        for n in range(3)
    ]
    cases.fold(found, NOON + HOUR)
    assert (cases.only().org, cases.only().project, cases.only().agent) == ("acme", "", "")


def test_agents_that_begin_hours_apart_are_not_at_once():
    cases = Cases()
    cases.fold([signal(name, 3 * n, agent=name) for n, name in enumerate("abc")], NOON + 7 * HOUR)
    assert len(cases.cases) == 3


def test_incidents_that_turn_out_to_be_one_become_one_and_nothing_is_lost():
    cases = Cases()
    cases.fold([signal("a", 0, agent="a"), signal("b", 0, agent="b")], NOON + HOUR)
    assert len(cases.cases) == 2
    cases.fold([signal("c", 1, agent="c")], NOON + 2 * HOUR)
    one = cases.only()
    assert one.agents == ("a", "b", "c")
    [other] = [case.incident for case in cases.cases.values() if case.incident.merged_into]
    assert (other.merged_into, other.status) == (one.id, "resolved")
    assert one.level > 1.0


def test_cost_is_counted_once_for_a_day_and_its_hours():
    cases = Cases()
    day = replace(signal("d", 0, cost_effect=Decimal("90")), ends_at=NOON + 24 * HOUR)
    found = [day, signal("h", 0, cost_effect=Decimal("60")), signal("o", 1, cost_effect=Decimal("20"))]
    cases.fold(found, NOON + 24 * HOUR)
    assert cases.only().cost_effect == Decimal("90")


def test_hours_of_one_incident_cost_what_they_cost_together():
    cases = Cases()
    cases.fold([signal(f"h{n}", n, cost_effect=Decimal("21")) for n in range(6)], NOON + 6 * HOUR)
    assert cases.only().cost_effect == Decimal("126")


def test_a_corrected_number_is_a_correction_and_a_slight_change_is_none():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + HOUR)
    cases.fold([signal("a", 0, observed=10.5)], NOON + 1.5 * HOUR)
    assert cases.only().revision == 0
    cases.fold([signal("a", 0, observed=30.0)], NOON + 1.6 * HOUR)
    assert (cases.only().revision, cases.only().correction) == (1, "corrected: triage cost 10.5 is now 30")
    assert cases.fold([signal("a", 0, observed=30.0)], NOON + 1.7 * HOUR) == []


def test_a_finding_that_no_longer_holds_is_withdrawn():
    cases = Cases()
    cases.fold([signal("a", 0)], NOON + HOUR)
    gone = no_longer_found(cases.cases.values(), [], [NOON.date()])
    assert gone == {"a"}
    folded = fold(cases.cases.values(), [], NOON + 1.5 * HOUR, withdrawn=gone)
    [case] = folded.cases
    assert (case.incident.status, case.incident.revision, folded.dropped) == ("resolved", 1, ("a",))
    assert "withdrawn" in case.incident.resolution


def budget(spent: float, crossed: int, hour: float = 0) -> Signal:
    return budget_signal(
        window_key="acme|cost|daily|2026-03-02",
        window_start=NOON - 12 * HOUR,
        window_end=NOON + 12 * HOUR,
        crossed=Decimal(crossed),
        spent=Decimal(str(spent)),
        limit=Decimal(100),
        kind="cost",
        period="daily",
        org="acme",
    )


def test_a_budget_is_one_incident_a_window_and_ends_with_it():
    cases = Cases()
    cases.fold([budget(49, 0), budget(96, 95)], NOON)
    assert (cases.only().level, cases.only().severity) == (95.0, "warning")
    cases.fold([budget(97, 95)], NOON + HOUR)
    assert (cases.only().revision, cases.only().status) == (0, "open")
    cases.fold([], NOON + 12 * HOUR)
    assert (cases.only().status, cases.only().resolution) == ("resolved", "the budget's window has ended")


def test_a_silent_source_stays_an_incident_until_it_is_reported_over():
    cases = Cases()
    for hour in range(4, 10):
        cases.fold([stale_source("gateway", NOON, NOON, NOON + hour * HOUR)], NOON + hour * HOUR)
    one = cases.only()
    assert (one.status, one.kind, one.source) == ("open", "stale_source", "gateway")
    assert "sent nothing for 9 h" in one.headline
    assert len(one.signal_ids) == 1
    cases.fold([], NOON + 40 * HOUR, over=["gateway"])
    assert (cases.only().status, cases.only().resolution) == ("resolved", "the source sends again")


def test_a_job_that_fails_again_and_again_is_one_finding_until_it_runs_well():
    cases = Cases()
    for hour in range(5):
        cases.fold([failed_run("land_usage", f"run-{hour}", NOON + hour * HOUR, f"disk {hour}")], NOON + hour * HOUR)
    assert (len(cases.only().signal_ids), cases.only().began_at, cases.only().page) == (1, NOON, "runs/run-4")
    assert cases.only().headline == "The job land_usage failed: disk 4"
    cases.fold([], NOON + 6 * HOUR, over=["job:land_usage"])
    assert (cases.only().status, cases.only().resolution) == ("resolved", "a later run went well")
    cases.fold([failed_run("land_usage", "run-9", NOON + 9 * HOUR, "disk 9")], NOON + 9 * HOUR)
    assert (cases.only().status, cases.only().episode, len(cases.only().signal_ids)) == ("open", 1, 2)


def test_a_failure_that_is_heard_of_after_the_next_good_run_is_on_record_and_over():
    cases = Cases()
    cases.fold([failed_run("land_usage", "run-1", NOON, "disk")], NOON + HOUR, over=["job:land_usage"])
    assert cases.only().status == "resolved"


def test_an_anomaly_of_the_lake_becomes_a_signal():
    row = {
        "id": "an-1", "timestamp": NOON, "org": None, "project": None, "agent": "a", "metric": "cost", "grain": "hour",
        "severity": "critical", "score": 80.0, "confidence": 0.9, "baseline": 0.1, "observed": 0.4, "reason": "more",
    }  # fmt: skip
    one = anomaly_signal(row)
    assert (one.ends_at, one.direction, one.cost_effect, one.org) == (NOON + HOUR, "rise", Decimal("0.3"), "")
    context = json.dumps({"until": (NOON + 6 * HOUR).isoformat(), "excess": 1.75})
    longer = anomaly_signal({**row, "context": context})
    assert (longer.ends_at, longer.cost_effect) == (NOON + 6 * HOUR, Decimal("1.75")), (
        "six hours cost more than the first"
    )


def test_acknowledging_and_reopening_tell_who_and_how_often():
    one = acknowledged(incident(), "ada", NOON)
    assert (one.status, one.acknowledged_by) == ("acknowledged", "ada")
    again = reopened(resolved(one, "ada", NOON), NOON)
    assert (again.status, again.acknowledged_by, again.episode) == ("open", "", 1)
    assert acknowledged(resolved(one, "ada", NOON), "bob", NOON).status == "resolved"


signals_of_any_kind = st.lists(
    st.builds(
        signal,
        name=st.integers(0, 60).map("s{}".format),
        hour=st.integers(0, 12).map(float),
        agent=st.sampled_from(["a", "b", "c", "d"]),
        project=st.sampled_from(["atlas", "beacon"]),
        severity=st.sampled_from(["info", "warning", "critical"]),
        score=st.integers(0, 100).map(float),
    ),
    unique_by=lambda one: one.id,
    max_size=20,
)


@settings(max_examples=80)
@given(st.lists(signals_of_any_kind, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_the_order_of_findings_changes_nothing_and_each_belongs_to_one_incident(batches, chance):
    one, other = Cases(), Cases()
    for step, found in enumerate(batches):
        now = NOON + (4 + step) * HOUR
        shuffled = list(found)
        chance.shuffle(shuffled)
        assert one.fold(found, now) == other.fold(shuffled, now)
        owned = [signal.id for case in one.cases.values() for signal in case.signals]
        assert len(owned) == len(set(owned))
        assert {signal.id for signal in found} <= set(owned)
    assert one.cases == other.cases
    assert fold(one.cases.values(), batches[-1], NOON + (3 + len(batches)) * HOUR).cases == ()
