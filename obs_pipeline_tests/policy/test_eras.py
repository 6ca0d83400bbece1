"""What held when: resolved once for as long as nothing changes, and the same as resolving at every instant."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.policy.applied import content_of, digest_of
from obs_pipeline.policy.eras import eras, turns
from obs_pipeline.policy.in_force import PoliciesOverTime
from obs_pipeline.policy.resolution import resolve
from obs_pipeline.policy.schema import Place
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.policy_store import PolicyStore, PolicyVersion, Revision
from obs_pipeline_tests.policy.trees import AGENT, ORG, cost, policy, trees

START = datetime(2026, 5, 4)
DAYS = [START + timedelta(days=n) for n in range(8)]
RAISED = cost(
    10, increases=[{"from": "2026-05-06", "until": "2026-05-08T12:00:00Z", "limit": 20, "reason": "a launch"}]
)


def test_a_dated_raise_makes_an_era_of_its_own():
    tree = (policy(AGENT, budgets={"cost": RAISED}),)
    assert turns(tree) == [datetime(2026, 5, 6), datetime(2026, 5, 8, 12)]
    found = list(eras(DAYS, lambda _: tree, ()))
    assert [len(era.moments) for era in found] == [2, 3, 3]
    assert [era.effective[AGENT].limits[0].value for era in found] == [10, 20, 10]


def test_a_raise_begins_on_the_day_of_the_organisation():
    tree = (policy(ORG, calendar={"time_zone": "Asia/Kolkata"}), policy(AGENT, budgets={"cost": RAISED}))
    assert turns(tree)[0] == datetime(2026, 5, 5, 18, 30)


def test_places_are_those_used_and_those_with_a_policy_and_all_above_them():
    [era] = eras(DAYS, lambda _: (policy(AGENT),), [Place("globex", None, "bot")])
    named = {str(place) for place in era.effective}
    assert named == {"acme", "acme/web", "acme/web/bot", "globex", "globex/-/bot"}


def test_another_set_of_policies_begins_an_era():
    early, late = (policy(AGENT, budgets={"cost": cost(1)}),), (policy(AGENT, budgets={"cost": cost(2)}),)
    found = list(eras(reversed(DAYS), lambda at: late if at >= DAYS[5] else early, ()))
    assert [(len(era.moments), era.effective[AGENT].limits[0].value) for era in found] == [(5, 1), (3, 2)]


@settings(max_examples=80)
@given(trees, st.lists(st.sampled_from(DAYS), max_size=5))
def test_an_era_says_what_resolving_at_each_of_its_moments_says(tree, moments):
    held = tuple(tree)
    for era in eras(moments, lambda _: held, [AGENT]):
        for at in era.moments:
            assert replace(era.effective[AGENT], at=at) == resolve(AGENT, tree, at)


def applied(store: PolicyStore, number: int, at: datetime, limit: int) -> None:
    source = policy(ORG, id="guard", budgets={"cost": cost(limit)})
    content = content_of(source.policy)
    version = PolicyVersion("guard", number, number, content, digest_of(content), "org.yaml", 1)
    revision = Revision(number, "sync", "someone", "", at, False, 1, "d", "f", number, "a")
    with store.writing() as writing:
        writing.add(revision, [version], [])


def test_the_files_hold_until_a_revision_is_applied_and_each_revision_from_its_moment_on(tmp_path: Path):
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "org.yaml").write_text(
        "{id: guard, name: Guard, scope: org, scope_id: acme, budgets: {cost: {limit: 9, period: daily}}}"
    )
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    store = PolicyStore(ledger)

    def limit(at: datetime | None = None) -> tuple[int, str]:
        known = PoliciesOverTime(folder, store)
        held = known.now() if at is None else known.at(at)
        return int(held.policies[0].policy.budgets.cost[0].limit), held.origin

    assert limit() == limit(START) == (9, "files")
    applied(store, 1, START, 10)
    applied(store, 2, START + timedelta(days=2), 20)
    assert limit() == (20, "revision 2")
    assert limit(START - timedelta(days=9)) == limit(START) == limit(START + timedelta(days=1)) == (10, "revision 1")
    assert limit(START + timedelta(days=2)) == (20, "revision 2")
    (folder / "org.yaml").write_text("no: policy")
    assert limit() == (20, "revision 2")
    assert PoliciesOverTime(folder, store).files.problems
    ledger.close()


def test_one_revision_is_one_object_so_that_it_is_one_era(tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    store = PolicyStore(ledger)
    applied(store, 1, START, 10)
    known = PoliciesOverTime(tmp_path, store)
    assert len(list(eras(DAYS, lambda at: known.at(at).policies, ()))) == 1
    ledger.close()
