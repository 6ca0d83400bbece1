"""Every lint, with the line it names, and the policies it leaves in peace."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from obs_pipeline.policy.files import load_policies
from obs_pipeline.policy.lint import lint
from obs_pipeline.policy.schema import Place
from obs_pipeline_tests.policy.trees import AGENT, AT, ORG, PROJECT, cost, policy


def found(*tree, at=AT, known=None) -> list[tuple[str, str, str]]:
    return [(finding.rule, finding.policy.id, finding.field) for finding in lint(tree, at, known)]


def test_a_tidy_chain_has_no_findings():
    raised = [{"from": "2026-05-01", "until": "2026-06-01", "limit": 8, "reason": "launch"}]
    tree = [
        policy(ORG, budgets={"cost": [cost(10), cost(100, "monthly")]}, alerts={"thresholds": [50, 80]}),
        policy(PROJECT, inheritance="inherit"),
        policy(AGENT, budgets={"cost": cost(5, increases=raised)}, rate_limits={"calls_per_minute": 3}),
    ]
    assert found(*tree, known=AGENT.chain) == []


def test_a_child_that_exceeds_its_parent_is_told_which_limit_binds():
    tree = [
        policy(ORG, budgets={"cost": cost(10)}, rate_limits={"calls_per_minute": 5}),
        policy(AGENT, budgets={"cost": [cost(3, "hourly"), cost(20)]}, rate_limits={"calls_per_minute": 6}),
    ]
    assert found(*tree) == [
        ("child-exceeds-parent", "agent", "budgets.cost.1.limit"),
        ("child-exceeds-parent", "agent", "rate_limits.calls_per_minute"),
    ]
    finding = lint(tree, AT)[0]
    assert finding.message == "20 never binds: org (org.yaml:1) above allows 10"
    assert finding.mend == "lower it to less than 10 or remove it"


def test_an_equal_limit_and_a_legitimate_override_exceed_nobody():
    assert found(policy(ORG, budgets={"cost": cost(10)}), policy(AGENT, budgets={"cost": cost(10)})) == []
    low = policy(ORG, priority=1, budgets={"cost": cost(10)})
    assert found(low, policy(AGENT, inheritance="override", budgets={"cost": cost(20)})) == []


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ([cost(10), cost(310, "monthly")], "budgets.cost.1.limit"),
        ([cost(10), cost(309, "monthly")], None),
        ([cost(10), cost(70, "weekly")], "budgets.cost.1.limit"),
        ([cost(1, "hourly"), cost(25)], None),  # a zone may have a day of 25 hours, or of 26 touched ones
        ([cost(1, "hourly"), cost(26)], "budgets.cost.1.limit"),
        ([cost(10, "weekly"), cost(60, "monthly")], "budgets.cost.1.limit"),
        ([cost(10, "weekly"), cost(50, "monthly")], None),  # six weeks can touch a month
        ([cost(100), cost(100, "monthly")], "budgets.cost.0.limit"),
        ([cost(99), cost(100, "monthly")], None),
        ([cost(150, "weekly"), cost(100, "monthly")], None),  # a week can lie in two months
        ([cost(200, "weekly"), cost(100, "monthly")], "budgets.cost.0.limit"),
    ],
)
def test_a_limit_that_can_never_bind_beside_another_is_told(limits, field):
    expected = [] if field is None else [("never-binds", "org", field)]
    assert found(policy(ORG, budgets={"cost": limits})) == expected


def test_a_limit_that_never_binds_is_told_to_whoever_states_it():
    tree = [policy(ORG, budgets={"cost": cost(10)}), policy(AGENT, budgets={"cost": cost(400, "monthly")})]
    assert found(*tree) == [("never-binds", "agent", "budgets.cost.0.limit")]
    tree = [policy(ORG, budgets={"cost": cost(400, "monthly")}), policy(AGENT, budgets={"cost": cost(10)})]
    assert found(*tree) == []


def test_limits_of_different_kinds_do_not_shadow_each_other():
    assert found(policy(ORG, budgets={"tokens": cost(1), "calls": cost(10**9, "monthly")})) == []


@pytest.mark.parametrize(("thresholds", "position"), [([80, 50], 1), ([50, 50], 1), ([50, 95, 80], 2)])
def test_thresholds_out_of_order_are_told(thresholds, position):
    expected = [("thresholds-out-of-order", "org", f"alerts.thresholds.{position}")]
    assert found(policy(ORG, alerts={"thresholds": thresholds})) == expected


def test_a_refused_override_is_an_error_of_the_override_and_not_of_the_guard():
    tree = [
        policy(ORG, budgets={"cost": cost(10)}, rate_limits={"calls_per_hour": 5}),
        policy(AGENT, inheritance="override", budgets={"cost": cost(20)}),
    ]
    assert found(*tree) == [
        ("override-refused", "agent", "budgets.cost.0.limit"),
        ("override-refused", "agent", "inheritance"),  # it does not state the rate limit at all
    ]
    assert {finding.severity for finding in lint(tree, AT)} == {"error"}


def test_twins_are_both_told():
    tree = [policy(AGENT, id="one", budgets={"cost": cost(1)}), policy(AGENT, id="two", budgets={"cost": cost(1)})]
    assert found(*tree) == [("same-priority-twins", "one", "priority"), ("same-priority-twins", "two", "priority")]


def test_currencies_that_cannot_be_compared_are_told():
    tree = [policy(ORG, budgets={"cost": cost(10)}), policy(AGENT, budgets={"cost": cost(8, currency="EUR")})]
    assert found(*tree) == [
        ("foreign-currency", "agent", "budgets.cost.0.currency"),
        ("two-currencies", "agent", "budgets.cost.0.limit"),
    ]


@pytest.mark.parametrize(
    ("at", "expired"), [("2026-05-03T18:29:59", False), ("2026-05-03T18:30:00", True), ("2027-01-01", True)]
)
def test_an_increase_expires_at_its_end_in_the_organisations_zone(at, expired):
    raised = [{"from": "2026-05-01", "until": "2026-05-04", "limit": 20, "reason": "launch"}]
    tree = [
        policy(ORG, calendar={"time_zone": "Asia/Kolkata"}),
        policy(AGENT, budgets={"calls": cost(10, increases=raised)}),
    ]
    expected = [("expired-increase", "agent", "budgets.calls.0.increases.0.until")] * expired
    assert found(*tree, at=datetime.fromisoformat(at)) == expected


def test_fields_that_inherit_ignores_and_policies_outranked_are_told():
    inheriting = policy(PROJECT, inheritance="inherit", budgets={"cost": cost(3)}, alerts={"channels": ["slack"]})
    loser = policy(AGENT, id="loser", priority=1)
    winner = policy(AGENT, id="winner", priority=2)
    assert found(inheriting, loser, winner) == [
        ("ignored-field", "loser", "priority"),
        ("ignored-field", "project", "alerts.channels"),
        ("ignored-field", "project", "budgets.cost.0.limit"),
    ]


def test_an_override_that_leaves_nobody_told_is_told():
    org = policy(ORG, priority=1, alerts={"thresholds": [50]})
    assert found(org, policy(AGENT, inheritance="override")) == [("override-silences-alerts", "agent", "inheritance")]
    assert found(org, policy(AGENT, inheritance="override", alerts={"thresholds": [80]})) == []


@pytest.mark.parametrize(
    ("place", "mend"),
    [
        (Place("acme", "web", "bto"), "did you mean bot?"),
        (Place("acme", None, "bot"), "usage has agent bot as acme/web/bot: correct org or project"),
        (Place("acme", "wbe"), "did you mean web?"),
        (Place("acme", "web", "quite-else"), "correct the name, or remove the policy"),
    ],
)
def test_a_scope_that_no_usage_mentions_is_told_with_the_likely_one(place, mend):
    [finding] = lint([policy(place)], AT, known=AGENT.chain)
    assert (finding.rule, finding.field, finding.mend) == ("unknown-scope", "scope_id", mend)


def test_without_usage_no_scope_is_unknown():
    assert found(policy(AGENT)) == []


def test_a_finding_names_file_and_line_as_editors_do(tmp_path: Path):
    (tmp_path / "org.yaml").write_text(
        "id: acme\nname: Acme\nscope: org\nscope_id: acme\n"
        "budgets:\n  cost:\n    - {limit: 10, period: daily}\n    - limit: 500\n      period: monthly\n"
    )
    [finding] = lint(load_policies(tmp_path, strict=True).policies, AT)
    assert str(finding) == (
        "org.yaml:8: warning never-binds: budgets.cost.1.limit: the monthly cost limit 500 can never bind:"
        " the daily limit 10 of acme (org.yaml:1) allows at most 310 in 31 periods; lower it or remove it"
    )
