"""What was applied is found again, and for one place without reading all of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.policy.applied import agents_named, applied_at, applied_now, applied_to
from obs_pipeline.policy.in_force import revision_holding
from obs_pipeline.policy.ledger_target import apply_plan
from obs_pipeline.policy.planning import Order, plan_sync
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve
from obs_pipeline.policy.schema import Place
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.policy_store import PolicyStore
from obs_pipeline_tests.policy.trees import AGENT, AT, ORG, PLACES, PROJECT, cost, policy, trees
from obs_pipeline_tests.postgres import ledger_url, postgres_server  # noqa: F401


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:  # noqa: F811
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def store(ledger: Ledger) -> PolicyStore:
    return PolicyStore(ledger)


def put(store: PolicyStore, wanted: list[SourcedPolicy], at: datetime = AT) -> int:
    plan = plan_sync(wanted, applied_now(store), at, force=True)
    return apply_plan(store, plan, Order("ann"), at).revision if plan.changes else plan.base


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.lists(trees, min_size=1, max_size=3))
def test_one_place_is_resolved_as_it_is_among_all(store: PolicyStore, several: list[list[SourcedPolicy]]):
    revisions = [put(store, tree) for tree in several]
    for revision in {*revisions} - {0}:
        every = PolicySet(applied_at(store, revision).policies())
        for place in PLACES:
            assert resolve(place, applied_to(store, revision, place), AT) == resolve(place, every, AT)


def test_a_policy_that_moved_or_was_removed_is_no_longer_found_where_it_was(store: PolicyStore):
    put(store, [policy(AGENT, id="a"), policy(PROJECT, id="p"), policy(ORG, id="o")])
    put(store, [policy(AGENT._replace(agent="cat"), id="a"), policy(ORG, id="o")])
    found = [[each.policy.id for each in applied_to(store, revision, AGENT)] for revision in (1, 2)]
    assert found == [["a", "o", "p"], ["o"]]
    assert [agents_named(store, revision, "bot") for revision in (1, 2)] == [(AGENT,), ()]
    assert agents_named(store, 2, "cat") == (AGENT._replace(agent="cat"),)


def test_a_project_and_an_agent_outside_projects_of_one_name_are_told_apart(store: PolicyStore):
    put(store, [policy(PROJECT, id="p"), policy(Place("acme", None, "web"), id="a"), policy(Place("web"), id="o")])
    assert [each.policy.id for each in applied_to(store, 1, PROJECT)] == ["p"]
    assert [each.policy.id for each in applied_to(store, 1, Place("acme", None, "web"))] == ["a"]
    assert agents_named(store, 1, "web") == (Place("acme", None, "web"),)


def test_one_agent_among_many_is_found_through_the_index(ledger: Ledger, store: PolicyStore):
    many = [
        policy(Place("acme", f"p{n % 20}", f"a{n // 20}"), id=f"x{n}", budgets={"cost": cost(n)}) for n in range(400)
    ]
    put(store, [*many, policy(ORG, id="o")])
    asked: list[tuple[str, object]] = []
    sa.event.listen(ledger._engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
    assert [each.policy.id for each in applied_to(store, 1, Place("acme", "p7", "a3"))] == ["o", "x67"]
    [(statement, parameters)] = [each for each in asked if "policy_versions" in each[0]]
    explain = "EXPLAIN" if ledger.url.startswith("postgresql") else "EXPLAIN QUERY PLAN"
    with ledger.begin() as connection:
        if ledger.url.startswith("postgresql"):
            connection.exec_driver_sql("ANALYZE policy_versions")
            connection.exec_driver_sql("SET enable_seqscan = off")
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters))
    assert "ix_policy_versions_place" in plan
    assert "SCAN policy_versions" not in plan


def test_the_revision_that_holds_is_the_newest_until_a_moment_and_the_first_before_it(store: PolicyStore):
    assert revision_holding(store, None) is None
    put(store, [policy(ORG)], datetime(2026, 5, 1))
    put(store, [policy(ORG, priority=3)], datetime(2026, 5, 3))
    held = [revision_holding(store, at) for at in (None, datetime(2026, 5, 2), datetime(2026, 4, 1))]
    assert [each and each.revision for each in held] == [2, 1, 1]
