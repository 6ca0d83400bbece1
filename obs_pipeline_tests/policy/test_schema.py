"""What one policy may say: round trips, the rules it can break on its own, the exported JSON Schema."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from obs_pipeline.policy.schema import BudgetPolicy, Place, policy_json_schema
from obs_pipeline_tests.policy.trees import policies

FULL = {
    "id": "acme.web.bot",
    "name": "Web bot",
    "scope": "agent",
    "scope_id": "bot",
    "org": "acme",
    "project": "web",
    "budgets": {
        "cost": [
            {
                "limit": "12.50",
                "period": "daily",
                "increases": [{"from": "2026-05-01", "until": "2026-05-04", "limit": 20, "reason": "launch"}],
            },
            {"limit": 100, "period": "monthly", "currency": "USD"},
        ],
        "tokens": {"limit": 1_000_000, "period": "hourly"},
    },
    "rate_limits": {"calls_per_minute": 10},
    "alerts": {"thresholds": [50, 99.5], "channels": ["widget", "slack"]},
    "inheritance": "override",
    "priority": 70,
    "metadata": {
        "created": "2025-01-01",
        "updated": "2025-01-01T12:00:00Z",
        "created_by": "me",
        "version": 2,
    },
}


def changed(**fields) -> dict:
    return {**FULL, **fields}


def refusal(stated) -> str:
    with pytest.raises(ValidationError) as caught:
        BudgetPolicy.model_validate(stated)
    return "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in caught.value.errors())


def test_a_full_policy_is_read_with_exact_money_and_real_dates():
    read = BudgetPolicy.model_validate(FULL)
    first = read.budgets.cost[0]
    assert first.limit == Decimal("12.50")
    assert first.increases[0].starts == date(2026, 5, 1)
    assert read.metadata.updated == datetime(2025, 1, 1, 12, tzinfo=UTC)
    assert read.place == Place("acme", "web", "bot")
    assert [(kind, position) for kind, position, _ in read.stated_limits()] == [
        ("cost", 0),
        ("cost", 1),
        ("tokens", 0),
    ]


def test_a_policy_survives_its_own_json():
    read = BudgetPolicy.model_validate(FULL)
    assert BudgetPolicy.model_validate_json(read.model_dump_json()) == read


@settings(max_examples=100)
@given(policies())
def test_any_policy_survives_its_own_json(source):
    assert BudgetPolicy.model_validate_json(source.policy.model_dump_json()) == source.policy


def test_a_policy_cannot_be_changed_after_it_was_read():
    with pytest.raises(ValidationError):
        BudgetPolicy.model_validate(FULL).priority = 1


@pytest.mark.parametrize(("scope", "priority"), [("org", 100), ("project", 80), ("agent", 60)])
def test_the_usual_priority_depends_on_the_scope(scope, priority):
    stated = {"id": "x", "name": "x", "scope": scope, "scope_id": "x"} | ({} if scope == "org" else {"org": "acme"})
    assert BudgetPolicy.model_validate(stated).priority == priority


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (changed(colour="red"), "colour: Extra inputs"),
        (changed(budgets={"cost": {"limit": 1, "period": "daily", "x": 1}}), "budgets.cost.0.x: Extra inputs"),
        (changed(budgets={"cost": {"limit": -1, "period": "daily"}}), "greater than or equal to 0"),
        (changed(budgets={"cost": {"limit": True, "period": "daily"}}), "not true or false"),
        (changed(budgets={"cost": {"limit": "nan", "period": "daily"}}), "finite"),
        (changed(budgets={"cost": {"limit": Decimal("1e99999"), "period": "daily"}}), "digits"),
        (changed(budgets={"cost": {"limit": "0.0000000001", "period": "daily"}}), "decimal places"),
        (changed(budgets={"tokens": {"limit": 1.5, "period": "daily"}}), "valid integer"),
        (changed(budgets={"tokens": {"limit": "5", "period": "daily"}}), "valid integer"),
        (changed(budgets={"tokens": {"limit": 2**63, "period": "daily"}}), "less than or equal"),
        (changed(budgets={"calls": {"limit": 1, "period": "yearly"}}), "'hourly', 'daily'"),
        (changed(budgets={"cost": {"limit": 1, "period": "daily", "currency": "usd"}}), "pattern"),
        (
            changed(budgets={"calls": [{"limit": 1, "period": "daily"}, {"limit": 2, "period": "daily"}]}),
            "one daily limit of a kind, not 2",
        ),
        (changed(scope="org"), "names itself in scope_id only"),
        (changed(org=None), "must name its organisation"),
        (changed(scope="project"), "belongs to no project"),
        (changed(calendar={"time_zone": "UTC"}), "the calendar is the organisation's"),
        (changed(alerts={"thresholds": [0]}), "greater than 0"),
        (changed(alerts={"channels": ["pager"]}), "'widget', 'email' or 'slack'"),
        (changed(id="has space"), "pattern"),
        (changed(scope_id=7), "valid string"),
        (changed(priority=-1), "greater than or equal to 0"),
    ],
)
def test_what_a_policy_may_not_say_is_refused_with_its_field(stated, said):
    assert said in refusal(stated)


@pytest.mark.parametrize(
    ("increase", "said"),
    [
        ({"limit": 5}, "must be above the limit it raises, 10"),
        ({"until": "2026-05-01"}, "must end after it starts"),
        ({"from": "2026-05-01T12:00:00"}, "must carry its zone"),
        ({"from": "last week"}, "not a date"),
        ({"from": 20260501}, "not a date"),
        ({"reason": ""}, "at least 1 character"),
    ],
)
def test_an_increase_must_raise_and_end_and_say_why(increase, said):
    whole = {"from": "2026-05-01", "until": "2026-05-04", "limit": 20, "reason": "launch", **increase}
    stated = changed(budgets={"cost": {"limit": 10, "period": "daily", "increases": [whole]}})
    assert said in refusal(stated)


@pytest.mark.parametrize("name", ["Europe/Zurch", "../../etc/passwd", "America", "localtime", "", "\0"])
def test_a_time_zone_that_is_none_is_refused(name):
    stated = {"id": "x", "name": "x", "scope": "org", "scope_id": "x", "calendar": {"time_zone": name}}
    assert "is no IANA time zone" in refusal(stated)


def test_a_misspelt_time_zone_is_answered_with_the_right_one():
    stated = {"id": "x", "name": "x", "scope": "org", "scope_id": "x", "calendar": {"time_zone": "Europe/Zurch"}}
    assert "did you mean Europe/Zurich?" in refusal(stated)


def test_the_json_schema_names_every_field_as_files_write_it():
    schema = policy_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    policy = schema["$defs"]["BudgetPolicy"]
    assert set(policy["properties"]) == set(BudgetPolicy.model_fields)
    assert policy["additionalProperties"] is False
    assert policy["required"] == ["id", "name", "scope", "scope_id"]
    assert "from" in schema["$defs"]["CostIncrease"]["properties"]
    one_or_many = policy_json_schema()["$defs"]["Budgets"]["properties"]["cost"]["anyOf"]
    assert {part.get("type", "one") for part in one_or_many} == {"one", "array"}


@pytest.mark.parametrize(
    ("place", "scope", "parent", "shown"),
    [
        (Place("o"), "org", None, "o"),
        (Place("o", "p"), "project", Place("o"), "o/p"),
        (Place("o", "p", "a"), "agent", Place("o", "p"), "o/p/a"),
        (Place("o", None, "a"), "agent", Place("o"), "o/-/a"),
    ],
)
def test_a_place_knows_its_scope_and_parent(place, scope, parent, shown):
    assert (place.scope, place.parent, str(place)) == (scope, parent, shown)
    assert place.chain[-1] == place
    assert place.chain[0] == Place("o")
