"""Resolution: the four rules one by one, the promises that hold for every input, and a second opinion."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from obs_pipeline.policy.resolution import PolicySet, resolve, resolve_all
from obs_pipeline.policy.schema import Place
from obs_pipeline_tests.policy.naive_resolution import naive
from obs_pipeline_tests.policy.trees import (
    AGENT,
    AT,
    ORG,
    PLACES,
    PROJECT,
    cost,
    named,
    policies,
    policy,
    trees,
    values,
)

QUICK = settings(max_examples=300, suppress_health_check=list(HealthCheck))
PROMISE = settings(QUICK, max_examples=120)
THOROUGH = settings(max_examples=20_000, suppress_health_check=list(HealthCheck))


def daily(effective):
    limit = effective.limit("cost", "daily")
    return None if limit is None else (limit.value, limit.ref.id)


class TestRules:
    def test_without_any_policy_nothing_holds_and_days_are_utc(self):
        effective = resolve(AGENT, [], AT)
        assert (effective.limits, effective.rate_limits, effective.conflicts) == ((), {}, ())
        assert (effective.time_zone.value, effective.week_start.value) == ("UTC", "monday")
        assert effective.time_zone.trail == ()

    def test_of_two_policies_of_one_place_the_higher_priority_wins_alone(self):
        low = policy(AGENT, id="low", priority=10, budgets={"cost": cost(1), "calls": cost(9)})
        high = policy(AGENT, id="high", priority=20, budgets={"cost": cost(5)})
        effective = resolve(AGENT, [low, high], AT)
        assert daily(effective) == (5, "high")
        assert effective.limit("calls", "daily") is None
        assert [(ignored.by.id, ignored.field) for ignored in effective.ignored] == [("low", "")]
        assert effective.conflicts == ()

    def test_equal_priority_is_a_conflict_and_the_stricter_limit_holds_meanwhile(self):
        one = policy(AGENT, id="one", budgets={"cost": cost(5)})
        two = policy(AGENT, id="two", budgets={"cost": cost(3)}, inheritance="override")
        effective = resolve(AGENT, [policy(ORG, budgets={"calls": cost(7)}), one, two], AT)
        assert daily(effective) == (3, "two")
        assert effective.limit("calls", "daily").value == 7
        assert [(conflict.kind, [ref.id for ref in conflict.policies]) for conflict in effective.conflicts] == [
            ("twins", ["one", "two"])
        ]

    def test_inherit_takes_the_parent_whole_and_reports_its_own_limits_as_ignored(self):
        above = policy(ORG, budgets={"cost": cost(10)}, alerts={"thresholds": [80]})
        child = policy(
            AGENT,
            inheritance="inherit",
            budgets={"cost": cost(1), "tokens": cost(5, "hourly")},
            rate_limits={"calls_per_hour": 3},
            alerts={"channels": ["slack"]},
        )
        effective = resolve(AGENT, [above, child], AT)
        assert values(effective) == values(resolve(ORG, [above], AT))
        assert [ignored.field for ignored in effective.ignored] == [
            "budgets.cost.daily (USD)",
            "budgets.tokens.hourly",
            "rate_limits.calls_per_hour",
            "alerts.channels",
        ]

    def test_an_organisation_has_nothing_to_inherit_so_its_limits_stand(self):
        assert daily(resolve(AGENT, [policy(ORG, inheritance="inherit", budgets={"cost": cost(4)})], AT)) == (4, "org")

    @pytest.mark.parametrize(
        ("org_priority", "agent_limit", "holds", "refused"),
        [
            (100, 20, (10, "org"), True),  # a guard-rail holds against a looser override
            (100, 5, (5, "agent"), False),  # and lets a tighter one pass
            (100, 10, (10, "org"), False),  # and an equal one
            (10, 20, (20, "agent"), False),  # a default of low priority yields
            (60, 20, (20, "agent"), False),  # only a higher priority holds
        ],
    )
    def test_an_override_may_loosen_only_what_has_no_higher_priority(self, org_priority, agent_limit, holds, refused):
        org = policy(ORG, priority=org_priority, budgets={"cost": cost(10)})
        agent = policy(AGENT, priority=60, inheritance="override", budgets={"cost": cost(agent_limit)})
        effective = resolve(AGENT, [org, agent], AT)
        assert daily(effective) == holds
        assert [conflict.kind for conflict in effective.conflicts] == ["refused_override"] * refused

    def test_an_override_that_leaves_a_guarded_limit_out_is_refused_too(self):
        org = policy(ORG, budgets={"cost": cost(10)}, rate_limits={"calls_per_hour": 3})
        agent = policy(AGENT, inheritance="override", budgets={"calls": cost(1)})
        effective = resolve(AGENT, [org, agent], AT)
        assert values(effective) == {"budgets.cost.daily (USD)": 10, "budgets.calls.daily": 1, "calls_per_hour": 3}
        assert [conflict.field for conflict in effective.conflicts] == [
            "budgets.cost.daily (USD)",
            "rate_limits.calls_per_hour",
        ]

    def test_an_override_replaces_limits_of_other_periods_and_alerts(self):
        org = policy(
            ORG,
            priority=1,
            budgets={"cost": [cost(1), cost(5, "monthly")]},
            alerts={"thresholds": [50], "channels": ["email"]},
        )
        agent = policy(AGENT, inheritance="override", budgets={"cost": cost(9)}, alerts={"thresholds": [80]})
        effective = resolve(AGENT, [org, agent], AT)
        assert values(effective) == {"budgets.cost.daily (USD)": 9}
        assert (effective.thresholds.value, effective.channels.value) == ((80,), ())

    def test_a_guard_rail_holds_below_a_stricter_policy_of_low_priority(self):
        # The project's 3 hides the organisation's 5, and the agent may replace the one but not the other.
        org = policy(ORG, priority=100, budgets={"cost": cost(5)})
        project = policy(PROJECT, priority=10, budgets={"cost": cost(3)})
        agent = policy(AGENT, priority=60, inheritance="override", budgets={"cost": cost(50)})
        assert daily(resolve(AGENT, [org, project, agent], AT)) == (5, "org")

    def test_merge_takes_the_stricter_of_each_period_and_unites_alerts(self):
        org = policy(
            ORG,
            budgets={"cost": [cost(10), cost(100, "monthly")]},
            rate_limits={"calls_per_minute": 5, "calls_per_hour": 50},
            alerts={"thresholds": [95, 50], "channels": ["widget"]},
        )
        agent = policy(
            AGENT,
            budgets={"cost": [cost(20), cost(30, "weekly"), cost(60, "monthly")]},
            rate_limits={"calls_per_minute": 9, "burst_allowance": 2, "calls_per_hour": 40},
            alerts={"thresholds": [80, 50], "channels": ["slack", "widget"]},
        )
        effective = resolve(AGENT, [org, agent], AT)
        assert [(limit.period, limit.value, limit.ref.id) for limit in effective.limits] == [
            ("daily", 10, "org"),
            ("weekly", 30, "agent"),
            ("monthly", 60, "agent"),
        ]
        assert {name: rate.value for name, rate in effective.rate_limits.items()} == {
            "calls_per_minute": 5,
            "calls_per_hour": 40,
            "burst_allowance": 2,
        }
        assert effective.thresholds.value == (50, 80, 95)
        assert effective.channels.value == ("slack", "widget")

    def test_limits_in_two_currencies_are_a_conflict_and_both_hold(self):
        org = policy(ORG, budgets={"cost": cost(10)})
        agent = policy(AGENT, budgets={"cost": cost(8, currency="EUR")})
        effective = resolve(AGENT, [org, agent], AT)
        assert {(limit.currency, limit.value) for limit in effective.limits} == {("USD", 10), ("EUR", 8)}
        assert [(conflict.kind, conflict.field) for conflict in effective.conflicts] == [
            ("currency", "budgets.cost.daily")
        ]

    def test_every_field_tells_what_each_policy_of_the_chain_said_about_it(self):
        org = policy(ORG, priority=10, budgets={"cost": cost(10)})
        project = policy(PROJECT, priority=50, inheritance="override", budgets={"cost": cost(30)})
        agent = policy(AGENT, priority=50, budgets={"cost": cost(40)})
        limit = resolve(AGENT, [agent, project, org], AT).limit("cost", "daily")
        assert [(step.by.id, step.value, step.outcome) for step in limit.trail] == [
            ("org", 10, "replaced"),
            ("project", 30, "decides"),
            ("agent", 40, "yields"),
        ]
        assert limit.trail[0].replaced_by == project.ref
        assert limit.files == ("project.yaml",)

    def test_an_agent_outside_any_project_is_not_the_agent_of_a_project(self):
        outside = policy(Place("acme", None, "bot"), budgets={"cost": cost(1)})
        assert daily(resolve(("acme", None, "bot"), [outside], AT)) == (1, "agent")
        assert daily(resolve(AGENT, [outside], AT)) is None

    def test_the_calendar_comes_from_the_organisation_and_survives_overrides(self):
        org = policy(ORG, priority=1, calendar={"time_zone": "Asia/Kolkata", "week_start": "sunday"})
        agent = policy(AGENT, inheritance="override")
        effective = resolve(AGENT, [org, agent], AT)
        assert (effective.time_zone.value, effective.week_start.value) == ("Asia/Kolkata", "sunday")
        assert effective.time_zone.decided_by == (org.ref,)


class TestIncreases:
    @pytest.mark.parametrize(
        ("at", "limit"),
        [
            ("2026-04-30T18:29:59", 10),
            ("2026-04-30T18:30:00", 20),  # the first of May begins in Kolkata
            ("2026-05-01T18:29:59", 20),
            ("2026-05-01T18:30:00", 30),  # two are in force: the higher
            ("2026-05-02T18:30:00", 10),
        ],
    )
    def test_an_increase_holds_from_its_first_moment_until_its_end_in_the_organisations_zone(self, at, limit):
        raises = [
            {"from": "2026-05-01", "until": "2026-05-03", "limit": 20, "reason": "launch"},
            {"from": "2026-05-02", "until": "2026-05-03", "limit": 30, "reason": "more launch"},
        ]
        org = policy(ORG, calendar={"time_zone": "Asia/Kolkata"}, budgets={"cost": cost(10, increases=raises)})
        effective = resolve(AGENT, [org], datetime.fromisoformat(at))
        found = effective.limit("cost", "daily")
        assert found.value == limit
        assert (found.increase is None) == (limit == 10)

    def test_an_increase_below_does_not_lift_the_parents_limit(self):
        raised = [{"from": "2026-05-01", "until": "2026-06-01", "limit": 50, "reason": "launch"}]
        tree = [policy(ORG, budgets={"cost": cost(10)}), policy(AGENT, budgets={"cost": cost(5, increases=raised)})]
        assert daily(resolve(AGENT, tree, AT)) == (10, "org")


def agrees(tree, place):
    effective, plain = resolve(place, tree, AT), naive(place, tree, AT)
    limits = {(each.kind, each.period, each.currency): (each.value, each.ref.id) for each in effective.limits}
    rates = {("rate", name, ""): (each.value, each.decided_by[0].id) for name, each in effective.rate_limits.items()}
    assert limits | rates == plain["limits"]
    assert list(effective.thresholds.value) == plain["united"].get(("alerts", "thresholds", ""), [])
    assert list(effective.channels.value) == plain["united"].get(("alerts", "channels", ""), [])
    assert (effective.time_zone.value, effective.week_start.value) == plain["calendar"]
    found = sorted(
        (
            conflict.kind,
            conflict.field,
            tuple(sorted(ids) if conflict.kind == "currency" else ids),
        )
        for conflict in effective.conflicts
        if (ids := [ref.id for ref in conflict.policies])
    )
    assert found == plain["conflicts"]
    assert sorted((ignored.by.id, ignored.field) for ignored in effective.ignored) == plain["ignored"]


class TestPromises:
    @QUICK
    @given(trees, st.sampled_from(PLACES))
    def test_random_trees_agree_with_the_naive_implementation(self, tree, place):
        agrees(tree, place)

    @pytest.mark.slow
    @THOROUGH
    @given(trees, st.sampled_from([AGENT, AGENT, AGENT, *PLACES]))
    def test_twenty_thousand_random_trees_agree_with_the_naive_implementation(self, tree, place):
        agrees(tree, place)

    @PROMISE
    @given(st.data(), trees)
    def test_the_order_of_the_files_is_irrelevant(self, data, tree):
        assert resolve(AGENT, data.draw(st.permutations(tree)), AT) == resolve(AGENT, tree, AT)

    @PROMISE
    @given(trees)
    def test_resolving_twice_changes_nothing(self, tree):
        indexed = PolicySet(tree)
        assert resolve(AGENT, indexed, AT) == resolve(AGENT, indexed, AT) == resolve(AGENT, tree, AT)

    @PROMISE
    @given(trees)
    def test_merging_what_holds_back_in_changes_nothing(self, tree):
        without = [each for each in tree if each.policy.place != AGENT]
        effective = resolve(AGENT, without, AT)
        assume(not any(conflict.kind == "currency" for conflict in effective.conflicts))
        echo = policy(
            AGENT,
            budgets={
                kind: [
                    {"limit": each.value, "period": each.period}
                    | ({"currency": each.currency} if each.currency else {})
                    for each in effective.limits
                    if each.kind == kind
                ]
                for kind in ("cost", "calls")
            },
            rate_limits={name: rate.value for name, rate in effective.rate_limits.items()},
            alerts={"thresholds": effective.thresholds.value, "channels": effective.channels.value},
        )
        again = resolve(AGENT, [*without, echo], AT)
        assert values(again) == values(effective)
        assert (again.thresholds.value, again.channels.value) == (effective.thresholds.value, effective.channels.value)

    @PROMISE
    @given(trees, policies(inheritance="merge"))
    def test_adding_a_merge_policy_never_loosens(self, tree, added):
        # One that outranks another policy of its place takes that one's word; that is rule 1, and reported.
        rivals = [each.policy.priority for each in tree if each.policy.place == added.policy.place]
        assume(added.policy.priority <= max(rivals, default=added.policy.priority))
        added = policy(added.policy.place, **_restated(added))  # without a calendar, which could move an increase
        before, after = values(resolve(AGENT, tree, AT)), values(resolve(AGENT, [*tree, added], AT))
        assert all(field in after and after[field] <= limit for field, limit in before.items())

    @PROMISE
    @given(trees)
    def test_no_agent_exceeds_a_limit_that_a_higher_priority_ancestor_set(self, tree):
        effective = values(resolve(AGENT, tree, AT))
        for depth, place in enumerate(AGENT.chain):
            here = [each for each in tree if each.policy.place == place]
            below = [each.policy for each in tree if each.policy.place in AGENT.chain[depth + 1 :]]
            for source in here:
                outranked = any(each.policy.priority > source.policy.priority for each in here)
                silent = source.policy.inheritance == "inherit" and depth > 0
                challenged = any(each.priority >= source.policy.priority for each in below)
                if outranked or silent or challenged:
                    continue
                for kind, _, limit in source.policy.stated_limits():
                    field = f"budgets.{kind}.{limit.period}" + (f" ({limit.currency})" if kind == "cost" else "")
                    highest = max([limit.limit, *(increase.limit for increase in limit.increases)])
                    assert effective[field] <= highest

    @PROMISE
    @given(trees)
    def test_no_limit_is_invented(self, tree):
        stated = {
            amount
            for each in tree
            for _, _, limit in each.policy.stated_limits()
            for amount in (limit.limit, *(increase.limit for increase in limit.increases))
        }
        assert {limit.value for limit in resolve(AGENT, tree, AT).limits} <= stated

    @PROMISE
    @given(trees)
    def test_a_place_without_a_policy_has_what_its_parent_has(self, tree):
        without = [each for each in tree if each.policy.place != AGENT]
        assert values(resolve(AGENT, without, AT)) == values(resolve(PROJECT, without, AT))

    @PROMISE
    @given(trees)
    def test_resolving_many_places_at_once_gives_the_same(self, tree):
        assert resolve_all(PLACES, tree, AT) == {place: resolve(place, tree, AT) for place in PLACES}

    @PROMISE
    @given(trees)
    def test_every_deciding_policy_belongs_to_the_chain_and_said_that_value(self, tree):
        by_ref = {each.ref: each for each in tree}
        for limit in resolve(AGENT, tree, AT).limits:
            source = by_ref[limit.ref]
            assert source.policy.place in AGENT.chain
            amounts = [
                amount
                for kind, _, stated in source.policy.stated_limits()
                if (kind, stated.period) == (limit.kind, limit.period)
                for amount in (stated.limit, *(increase.limit for increase in stated.increases))
            ]
            assert limit.value in amounts


def _restated(source):
    stated = source.policy.model_dump(exclude={"scope", "scope_id", "org", "project", "calendar"}, exclude_none=True)
    return {**stated, "id": "added"}


def test_resolving_one_agent_among_thousands_looks_at_its_chain_only(monkeypatch):
    tree = named(
        [policy(ORG, budgets={"cost": cost(9)})]
        + [policy(Place("acme", f"p{n % 50}", f"a{n}"), budgets={"cost": cost(Decimal(n))}) for n in range(2_000)]
    )
    indexed, looked, at = PolicySet(tree), list[Place](), PolicySet.at
    monkeypatch.setattr(PolicySet, "at", lambda self, place: looked.append(place) or at(self, place))
    resolve(("acme", "p7", "a7"), indexed, AT)
    assert looked == list(Place("acme", "p7", "a7").chain)
