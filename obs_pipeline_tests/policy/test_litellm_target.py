"""Settings for a LiteLLM proxy: they are what its API declares, and nothing is lost in silence."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings

from obs_pipeline.policy.files import load_policies
from obs_pipeline.policy.litellm_target import DURATION, litellm_settings
from obs_pipeline.policy.resolution import PolicySet, resolve, resolve_all
from obs_pipeline.policy.schema import PERIODS, Place
from obs_pipeline_tests.policy.litellm_server import mistakes
from obs_pipeline_tests.policy.trees import AGENT, AT, ORG, PLACES, PROJECT, cost, policy, trees

SHIPPED = Path(__file__).parents[2] / "policies"


def translated(*tree, place=AGENT):
    return litellm_settings([resolve(place, tree, AT)])


def assert_declared(found) -> None:
    for setting in found.settings:
        # As it goes over the wire: JSON knows neither Decimal nor tuples.
        body = json.loads(json.dumps(setting.body))
        assert mistakes(setting.path, body) == []


def lost(found) -> list[tuple[str, str]]:
    return [(str(one.place), one.field) for one in found.untranslated]


def test_an_agent_is_a_key_of_its_projects_team_with_a_window_for_each_period():
    limits = [cost(2, "hourly"), cost("10.5"), cost(40, "weekly"), cost(100, "monthly")]
    [setting] = translated(policy(AGENT, budgets={"cost": limits}, rate_limits={"calls_per_minute": 20})).settings
    assert setting.path == "/key/generate"
    assert (setting.body["key_alias"], setting.body["team_id"]) == ("acme/web/bot", "acme/web")
    assert setting.body["rpm_limit"] == 20
    assert [tuple(window.values()) for window in setting.body["budget_limits"]] == [
        ("1h", 2.0),
        ("1d", 10.5),
        ("7d", 40.0),
        ("30d", 100.0),
    ]


def test_a_project_is_a_team_and_comes_before_its_keys():
    tree = [policy(PROJECT, budgets={"cost": cost(10)})]
    found = litellm_settings(resolve_all([AGENT, PROJECT], tree, AT).values())
    assert [(setting.path, setting.body["team_id"]) for setting in found.settings] == [
        ("/team/new", "acme/web"),
        ("/key/generate", "acme/web"),
    ]


def test_an_agent_outside_any_project_has_a_key_without_a_team():
    [setting] = translated(policy(ORG, budgets={"cost": cost(1)}), place=Place("acme", None, "bot")).settings
    assert "team_id" not in setting.body
    assert setting.body["key_alias"] == "acme/-/bot"


def test_the_file_that_set_a_budget_can_be_found_from_the_proxy():
    [setting] = translated(policy(ORG, id="guard", budgets={"cost": cost(1)})).settings
    assert setting.body["metadata"]["obs_pipeline"]["budgets.cost.daily (USD)"] == ["guard (guard.yaml:1)"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"budgets": {"tokens": cost(10)}}, "budgets.tokens.daily"),
        ({"budgets": {"calls": cost(10)}}, "budgets.calls.daily"),
        ({"budgets": {"cost": cost(10, currency="EUR")}}, "budgets.cost.daily (EUR)"),
        ({"rate_limits": {"calls_per_hour": 9}}, "rate_limits.calls_per_hour"),
        ({"rate_limits": {"burst_allowance": 9}}, "rate_limits.burst_allowance"),
    ],
)
def test_what_the_proxy_cannot_hold_to_is_told_and_not_sent(fields, field):
    found = translated(policy(AGENT, **fields))
    assert lost(found) == [("acme/web/bot", field)]
    assert found.settings[0].body["budget_limits"] == []
    assert "rpm_limit" not in found.settings[0].body


def test_a_calendar_other_than_the_proxys_own_is_told_where_it_matters():
    abroad = {"time_zone": "Asia/Kolkata", "week_start": "sunday"}
    weekly = policy(ORG, calendar=abroad, budgets={"cost": cost(1, "weekly")})
    assert [field for _, field in lost(translated(weekly))] == ["calendar.time_zone", "calendar.week_start"]
    hourly = policy(ORG, calendar=abroad, budgets={"cost": cost(1, "hourly")})
    assert lost(translated(hourly)) == []


def test_a_total_of_a_whole_organisation_is_told_as_lost():
    found = translated(policy(ORG, budgets={"cost": cost(25)}), place=ORG)
    assert (found.settings, lost(found)) == ((), [("acme", "budgets.cost.daily (USD)")])


def test_every_period_has_a_duration():
    assert tuple(DURATION) == PERIODS


def test_the_shipped_policies_become_valid_requests():
    loaded = load_policies(SHIPPED, strict=True)
    places = {place for stated in PolicySet(loaded.policies).places for place in stated.chain}
    found = litellm_settings(resolve_all(places, loaded.policies, datetime(2026, 6, 1)).values())
    assert len(found.settings) == 9
    assert_declared(found)


@settings(max_examples=150)
@given(trees)
def test_whatever_the_policies_every_limit_is_sent_or_told(tree):
    effective = resolve_all(PLACES, tree, AT)
    found = litellm_settings(effective.values())
    assert_declared(found)
    sent = {setting.place: setting.body for setting in found.settings}
    told = set(lost(found))
    for place, one in effective.items():
        for limit in one.limits:
            window = {"budget_duration": DURATION[limit.period], "max_budget": float(Decimal(limit.value))}
            is_sent = window in sent.get(place, {"budget_limits": []})["budget_limits"] and limit.currency == "USD"
            assert is_sent != ((str(place), str(limit.key)) in told)
