"""What a change of the policies changes for whom."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings

from obs_pipeline.policy.diff import diff
from obs_pipeline.policy.resolution import resolve
from obs_pipeline.policy.schema import Place
from obs_pipeline_tests.policy.trees import AGENT, AT, ORG, PROJECT, cost, policy, trees, values

WIDGET = {"thresholds": [80], "channels": ["widget"]}
GUARD = policy(ORG, id="guard", budgets={"cost": cost(25)}, alerts=WIDGET)


def told(before, after, **more):
    return [
        (str(change.place), str(change.field), change.direction, change.before, change.after)
        for change in diff(before, after, AT, **more).fields
    ]


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        (cost(10), cost(12), "looser"),
        (cost(10), cost(8), "tighter"),
        (None, cost(8), "tighter"),
        (cost(8), None, "looser"),
    ],
)
def test_a_limit_that_appears_or_falls_is_tighter_and_one_that_goes_or_rises_is_looser(before, after, direction):
    old, new = ([policy(AGENT, budgets={"cost": limit} if limit else {})] for limit in (before, after))
    [change] = diff(old, new, AT).fields
    assert (change.place, change.direction) == (AGENT, direction)


def test_a_change_above_is_told_for_every_place_below_that_it_reaches():
    tight = policy(AGENT, budgets={"cost": cost(5)})
    lowered = policy(ORG, id="guard", budgets={"cost": cost(20)}, alerts=WIDGET)
    rows = told([GUARD, tight], [lowered, tight], known=[Place("acme", "web", "ant")])
    assert rows == [
        ("acme", "budgets.cost.daily (USD)", "tighter", 25, 20),
        ("acme/web", "budgets.cost.daily (USD)", "tighter", 25, 20),
        ("acme/web/ant", "budgets.cost.daily (USD)", "tighter", 25, 20),
    ]


def test_alerts_have_no_order_they_are_changed():
    told_others = policy(
        ORG, id="guard", budgets={"cost": cost(25)}, alerts={"thresholds": [90], "channels": ["slack"]}
    )
    assert [row[1:3] for row in told([GUARD], [told_others])] == [
        ("alerts.thresholds", "changed"),
        ("alerts.channels", "changed"),
    ]


def test_another_currency_is_one_limit_less_and_one_more():
    euro = policy(ORG, id="guard", budgets={"cost": cost(25, currency="EUR")}, alerts=WIDGET)
    assert {row[1]: row[2] for row in told([GUARD], [euro])} == {
        "budgets.cost.daily (EUR)": "tighter",
        "budgets.cost.daily (USD)": "looser",
    }


def test_policies_are_listed_as_added_removed_and_edited_even_where_nothing_holds_differently():
    renamed = policy(ORG, id="guard", name="New name", budgets={"cost": cost(25)}, alerts=WIDGET)
    gone, fresh = policy(PROJECT, id="gone"), policy(PROJECT, id="fresh")
    found = diff([GUARD, gone], [renamed, fresh], AT)
    assert [(edit.id, edit.edit) for edit in found.policies] == [
        ("fresh", "added"),
        ("gone", "removed"),
        ("guard", "edited"),
    ]
    assert (found.fields, found.places) == ((), ())


def test_a_raise_that_begins_later_changes_nothing_before_and_is_looser_from_then():
    raised = cost(10, increases=[{"from": "2026-06-01", "until": "2026-06-08", "limit": 20, "reason": "launch"}])
    before, after = [policy(AGENT, budgets={"cost": cost(10)})], [policy(AGENT, budgets={"cost": raised})]
    assert diff(before, after, AT).fields == ()
    [change] = diff(before, after, AT + timedelta(days=27)).fields
    assert (change.direction, change.after) == ("looser", Decimal(20))


def test_a_conflict_that_the_change_brings_is_told_once_and_an_old_one_not_again():
    guard = policy(ORG, id="guard", priority=100, budgets={"cost": cost(25)})
    wish = policy(PROJECT, id="wish", priority=80, inheritance="override", budgets={"cost": cost(50)})
    found = diff([guard], [guard, wish], AT, known=[AGENT])
    assert [conflict.kind for conflict in found.conflicts] == ["refused_override"]
    assert diff([guard, wish], [guard, wish], AT, known=[AGENT]).conflicts == ()


@settings(max_examples=150)
@given(trees)
def test_the_same_policies_differ_in_nothing(tree):
    found = diff(tree, list(reversed(tree)), AT)
    assert (found.policies, found.fields, found.conflicts) == ((), (), ())


@settings(max_examples=200)
@given(trees, trees)
def test_what_is_told_is_exactly_what_resolving_twice_finds(before, after):
    found = {
        str(change.field) if change.field.group == "budgets" else change.field.name: change
        for change in diff(before, after, AT, known=[AGENT]).fields
        if change.place == AGENT and change.field.is_limit
    }
    old, new = values(resolve(AGENT, before, AT)), values(resolve(AGENT, after, AT))
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} == set(found)
    for name, change in found.items():
        tighter = name not in old or (name in new and new[name] < old[name])
        assert change.direction == ("tighter" if tighter else "looser")


@settings(max_examples=100)
@given(trees, trees)
def test_going_back_undoes_every_direction(before, after):
    opposite = {"tighter": "looser", "looser": "tighter", "changed": "changed"}
    there = {(change.place, change.field): change.direction for change in diff(before, after, AT).fields}
    back = {(change.place, change.field): change.direction for change in diff(after, before, AT).fields}
    assert {key: opposite[direction] for key, direction in there.items()} == back
