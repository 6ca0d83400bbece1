from __future__ import annotations

import json
import os
import pwd
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from obs_pipeline.policy.applied import NOTHING, Applied, applied_at, applied_now, content_of, set_digest, sourced
from obs_pipeline.policy.audit import verify
from obs_pipeline.policy.effective import ConflictKind
from obs_pipeline.policy.ledger_target import apply_plan
from obs_pipeline.policy.planning import (
    Order,
    SyncError,
    SyncPlan,
    after_changes,
    conflicts_in,
    plan_sync,
    project_of,
)
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import resolve
from obs_pipeline.policy.rollback import roll_back, roll_back_policy
from obs_pipeline.policy.sync import SyncReport, sync_folder
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.policy_store import ConcurrentChange, PolicyStore
from obs_pipeline_tests.policy.trees import AGENT, AT, ORG, PROJECT, cost, policy, trees
from obs_pipeline_tests.postgres import ledger_url, postgres_server  # noqa: F401

ANN = Order("ann", "launch")
few = settings(max_examples=60)


def applied_after(applied: Applied, plan: SyncPlan) -> Applied:
    rows = {change.id: change.row(plan.base + 1) for change in plan.changes}
    return Applied(plan.base + 1, {**applied.versions, **rows})


def in_force(applied: Applied) -> dict[str, object]:
    return {source.policy.id: source.policy for source in applied.policies()}


def wanted_of(tree: list[SourcedPolicy]) -> dict[str, object]:
    return {source.policy.id: source.policy for source in tree}


# -- planning ------------------------------------------------------------------------------------------------------


@few
@given(trees, trees)
def test_after_a_sync_exactly_what_was_wanted_is_in_force(first: list[SourcedPolicy], second: list[SourcedPolicy]):
    before = applied_after(NOTHING, plan_sync(first, NOTHING, AT))
    plan = plan_sync(second, before, AT)
    after = applied_after(before, plan)
    assert in_force(after) == wanted_of(second)
    assert plan.in_force == len(second)
    assert plan.digest == set_digest({name: each.digest for name, each in after.in_force.items()})
    assert {each.policy.id: each.policy for each in after_changes(before, plan.changes)} == wanted_of(second)


@few
@given(trees, trees)
def test_a_second_sync_changes_nothing(first: list[SourcedPolicy], second: list[SourcedPolicy]):
    applied = applied_after(NOTHING, plan_sync(first, NOTHING, AT))
    applied = applied_after(applied, plan_sync(second, applied, AT))
    again = plan_sync(second, applied, AT)
    assert again.changes == ()
    assert not again.is_stopped


@few
@given(trees, trees, st.randoms())
def test_the_order_of_the_files_is_irrelevant(
    first: list[SourcedPolicy], second: list[SourcedPolicy], shuffler: random.Random
):
    applied = applied_after(NOTHING, plan_sync(first, NOTHING, AT))
    other = list(second)
    shuffler.shuffle(other)
    one, two = plan_sync(second, applied, AT), plan_sync(other, applied, AT)
    assert (one.changes, one.digest, set(one.conflicts)) == (two.changes, two.digest, set(two.conflicts))


@few
@given(trees, trees)
def test_versions_of_a_policy_count_on_even_after_it_was_removed(
    first: list[SourcedPolicy], second: list[SourcedPolicy]
):
    applied, last = NOTHING, {}
    for wanted in (first, second, [], first):
        plan = plan_sync(wanted, applied, AT)
        for change in plan.changes:
            assert change.version == last.get(change.id, 0) + 1
            last[change.id] = change.version
        applied = applied_after(applied, plan)


@few
@given(trees, trees)
def test_chosen_projects_change_and_nothing_else(first: list[SourcedPolicy], second: list[SourcedPolicy]):
    applied = applied_after(NOTHING, plan_sync(first, NOTHING, AT))
    if not any(project_of(each) == "web" for each in (*first, *second)):
        with pytest.raises(SyncError, match="no policy is for a project 'web'"):
            plan_sync(second, applied, AT, ["web"])
        return
    after = applied_after(applied, plan_sync(second, applied, AT, ["web"]))
    inside = {each.policy.id for each in (*first, *second) if project_of(each) == "web"}
    for name, was in in_force(applied).items():
        if name not in inside:
            assert in_force(after)[name] == was
    wanted = {each.policy.id: each.policy for each in second if project_of(each) == "web"}
    now = {name: each for name, each in in_force(after).items() if each.place.project == "web"}
    assert now == wanted


@given(trees)
@settings(max_examples=200)
def test_the_conflicts_are_those_of_every_place(tree: list[SourcedPolicy]):
    every = {each for source in tree for each in resolve(source.policy.place, tree, AT).conflicts}
    found = conflicts_in(tree, AT)
    assert set(found) == every
    assert len(found) == len(every)


@given(trees, trees, st.integers(0, 3))
@settings(max_examples=300)
def test_what_is_known_to_be_the_same_changes_no_plan(
    first: list[SourcedPolicy], second: list[SourcedPolicy], days: int
):
    plan = plan_sync(first, NOTHING, AT)
    assume(not plan.conflicts)
    applied, later = applied_after(NOTHING, plan), AT + timedelta(days=days)
    kept = [each for each in first if int(each.policy.id[1:]) % 3]
    wanted = [*kept, *(each for each in second if each.policy.id not in {one.policy.id for one in kept})]
    same = {each.policy.id: applied.versions[each.policy.id] for each in kept}
    whole = plan_sync(wanted, applied, later)
    found = plan_sync([each for each in wanted if each.policy.id not in same], applied, later, same=same)
    if not whole.changes:
        assert found.changes == ()
        return
    assert set(found.conflicts) == set(whole.conflicts)
    assert replace(found, conflicts=()) == replace(whole, conflicts=())


def test_a_new_kind_of_conflict_is_looked_for_in_a_sync_as_well():
    # Only places that can bring one of these are resolved: whoever adds a kind looks at what a sync leaves out.
    assert set(get_args(ConflictKind)) == {"twins", "refused_override", "currency"}


@given(trees)
def test_a_policy_read_back_from_its_content_is_the_policy(tree: list[SourcedPolicy]):
    applied = applied_after(NOTHING, plan_sync(tree, NOTHING, AT))
    for source in tree:
        again = sourced(applied.versions[source.policy.id])
        assert again == source
        assert content_of(again.policy) == content_of(source.policy)


def test_a_change_tells_every_field_before_and_after():
    applied = applied_after(NOTHING, plan_sync([policy(AGENT, budgets={"cost": cost(5)})], NOTHING, AT))
    (change,) = plan_sync([policy(AGENT, budgets={"cost": cost("7.5")}, priority=3)], applied, AT).changes
    assert (change.action, change.version) == ("update", 2)
    edits = {edit.field: (edit.before, edit.after) for edit in change.fields}
    assert edits == {"budgets.cost.daily.limit": ("5", "7.5"), "priority": (60, 3)}


def test_an_amount_written_in_another_way_is_no_change():
    applied = applied_after(NOTHING, plan_sync([policy(AGENT, budgets={"cost": cost(Decimal(100))})], NOTHING, AT))
    assert plan_sync([policy(AGENT, budgets={"cost": cost(Decimal("100.00"))})], applied, AT).changes == ()


def test_money_is_kept_to_the_last_of_its_decimals():
    exact = policy(AGENT, budgets={"cost": cost(Decimal("12345678901234567890.123456789"))})
    applied = applied_after(NOTHING, plan_sync([exact], NOTHING, AT))
    assert applied.policies() == (exact,)


def refused_override() -> list[SourcedPolicy]:
    guard = policy(ORG, priority=100, budgets={"cost": cost(5)})
    return [guard, policy(AGENT, inheritance="override", budgets={"cost": cost(50)})]


@pytest.mark.parametrize("force", [False, True])
def test_a_conflict_stops_a_sync_unless_it_is_forced(force: bool):
    plan = plan_sync(refused_override(), NOTHING, AT, force=force)
    assert [conflict.kind for conflict in plan.conflicts] == ["refused_override"]
    assert (plan.is_stopped, plan.forced) == (not force, force)


def test_conflicts_of_other_projects_stop_no_chosen_project():
    fine = policy(PROJECT._replace(project="app"), id="app", budgets={"cost": cost(1)})
    wanted = [*refused_override(), fine]
    assert not plan_sync(wanted, NOTHING, AT, ["app"]).is_stopped
    assert plan_sync(wanted, NOTHING, AT, ["web"]).conflicts == ()  # the organisation's guard is not in force
    org_applied = applied_after(NOTHING, plan_sync(wanted[:1], NOTHING, AT))
    assert plan_sync(wanted, org_applied, AT, ["web"]).is_stopped


def test_a_mistyped_project_is_told_with_a_suggestion():
    with pytest.raises(SyncError, match=r"did you mean web\?"):
        plan_sync([policy(PROJECT)], NOTHING, AT, ["wev"])


def test_a_project_that_is_only_in_force_can_be_chosen_to_be_removed():
    applied = applied_after(NOTHING, plan_sync([policy(PROJECT), policy(ORG)], NOTHING, AT))
    plan = plan_sync([policy(ORG)], applied, AT, ["web"])
    assert [(change.id, change.action) for change in plan.changes] == [("project", "delete")]


def test_removing_everything_has_to_be_forced():
    applied = applied_after(NOTHING, plan_sync([policy(ORG)], NOTHING, AT))
    assert plan_sync([], applied, AT).is_stopped
    assert not plan_sync([], applied, AT, force=True).is_stopped
    assert not plan_sync([], NOTHING, AT).is_stopped


# -- applying ------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:  # noqa: F811
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def store(ledger: Ledger) -> PolicyStore:
    return PolicyStore(ledger)


@pytest.fixture
def clock() -> Callable[[], datetime]:
    ticks = count()
    return lambda: AT + timedelta(seconds=next(ticks))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "policies", limit=5)


def write(folder: Path, limit: int, agents: int = 3, name: str = "Acme") -> Path:
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    (folder / "org.yaml").write_text(f"id: acme\nname: {name}\nscope: org\nscope_id: acme\npriority: 10\n")
    for number in range(agents):
        (folder / "agents" / f"a{number}.yaml").write_text(
            f"id: a{number}\nname: Agent\nscope: agent\nscope_id: a{number}\norg: acme\nproject: p{number % 2}\n"
            f"budgets:\n  cost: {{limit: {limit}, period: daily}}\n"
        )
    return folder


def verdict(store: PolicyStore):
    return verify(store.audit(), store.versions(), store.revisions())


def test_a_sync_puts_the_folder_into_force_and_a_second_one_changes_nothing(store, clock, folder):
    first = sync_folder(folder, store, ANN, clock)
    assert (first.outcome, first.revision, first.total, first.synced, first.skipped) == ("applied", 1, 4, 4, 0)
    again = sync_folder(folder, store, ANN, clock)
    assert (again.outcome, again.revision, again.total, again.synced, again.skipped) == ("unchanged", 1, 4, 0, 4)
    assert [each.revision for each in store.revisions()] == [1]
    assert len(store.audit()) == 5
    assert verdict(store).holds


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """The names of the files that were parsed, as they are."""
    from obs_pipeline.policy import files

    names: list[str] = []
    read = files.read_entries
    monkeypatch.setattr(files, "read_entries", lambda root, path: names.append(path.name) or read(root, path))
    return names


def test_unchanged_files_are_not_parsed_again(store, clock, folder, parsed):
    sync_folder(folder, store, ANN, clock)
    assert sorted(parsed) == ["a0.yaml", "a1.yaml", "a2.yaml", "org.yaml"]
    parsed.clear()
    assert sync_folder(folder, store, ANN, clock).outcome == "unchanged"
    assert parsed == []


def test_of_many_files_only_the_changed_ones_are_parsed(store, clock, folder, parsed):
    sync_folder(folder, store, ANN, clock)
    for limit in (7, 8):
        parsed.clear()
        a1 = folder / "agents" / "a1.yaml"
        a1.write_text("# moved down\n" + a1.read_text().replace(f"limit: {5 if limit == 7 else 7}", f"limit: {limit}"))
        report = sync_folder(folder, store, ANN, clock)
        assert (parsed, [change.id for change in report.changes]) == (["a1.yaml"], ["a1"])
        assert (report.total, report.synced, report.skipped) == (4, 1, 3)
    (folder / "agents" / "a2.yaml").unlink()
    (folder / "agents" / "a0.yaml").rename(folder / "agents" / "b.yaml")
    parsed.clear()
    assert [change.action for change in sync_folder(folder, store, ANN, clock).changes] == ["delete"]
    assert parsed == ["b.yaml"]
    assert verdict(store).holds


def test_a_file_that_is_not_parsed_again_still_conflicts_and_still_counts_as_an_id(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    (folder / "agents" / "twin.yaml").write_text(
        (folder / "agents" / "a0.yaml").read_text().replace("id: a0", "id: t", 1)
    )
    assert [each.kind for each in sync_folder(folder, store, ANN, clock).conflicts] == ["twins"]
    (folder / "agents" / "twin.yaml").write_text((folder / "agents" / "a0.yaml").read_text())
    assert {each.file for each in sync_folder(folder, store, ANN, clock).errors} == {
        "agents/a0.yaml",
        "agents/twin.yaml",
    }


def test_a_conflict_that_was_forced_stops_later_syncs_too(store, clock, folder):
    (folder / "agents" / "twin.yaml").write_text(
        (folder / "agents" / "a0.yaml").read_text().replace("id: a0", "id: t", 1)
    )
    assert sync_folder(folder, store, Order("ann", force=True), clock).forced
    a1 = folder / "agents" / "a1.yaml"
    a1.write_text(a1.read_text().replace("limit: 5", "limit: 6"))
    assert sync_folder(folder, store, ANN, clock).outcome == "refused"


def test_after_a_rollback_all_files_are_parsed_again(store, clock, folder, parsed):
    sync_folder(folder, store, ANN, clock)
    write(folder, limit=9)
    sync_folder(folder, store, ANN, clock)
    roll_back_policy(store, "a1", 1, ANN, clock)
    parsed.clear()
    assert [change.id for change in sync_folder(folder, store, ANN, clock).changes] == ["a1"]
    assert len(parsed) == 4


def test_files_that_another_program_version_read_are_parsed_again(store, clock, folder, parsed, monkeypatch):
    sync_folder(folder, store, ANN, clock)
    parsed.clear()
    monkeypatch.setattr("obs_pipeline.policy.remembered.reader_digest", lambda: "newer")
    assert sync_folder(folder, store, ANN, clock).outcome == "unchanged"
    assert len(parsed) == 4


def test_a_comment_is_no_new_revision(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    with (folder / "org.yaml").open("a") as file:
        file.write("# reviewed\n")
    assert sync_folder(folder, store, ANN, clock).outcome == "unchanged"
    assert len(store.revisions()) == 1


def test_who_why_and_when_are_kept(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    head = store.head()
    assert head is not None
    assert (head.author, head.reason, head.kind, head.forced, head.policies) == ("ann", "launch", "sync", False, 4)
    assert AT <= head.applied_at < AT + timedelta(minutes=1)
    actions = [(entry.action, entry.subject, entry.actor) for entry in store.audit()]
    assert actions == [*(("create", name, "ann") for name in ("a0", "a1", "a2", "acme")), ("sync", "", "ann")]


def test_a_dry_run_tells_what_it_would_do_and_does_nothing(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    write(folder, limit=9)
    report = sync_folder(folder, store, Order("ann", dry_run=True), clock)
    assert (report.outcome, report.dry_run, report.synced, report.skipped) == ("planned", True, 3, 1)
    assert {change.action for change in report.changes} == {"update"}
    assert len(store.revisions()) == 1
    assert len(store.audit()) == 5


def test_only_the_chosen_projects_are_applied_and_the_rest_follows_later(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    write(folder, limit=9)
    report = sync_folder(folder, store, Order("ann", projects=("p1",)), clock)
    assert [change.id for change in report.changes] == ["a1"]
    assert (report.synced, report.skipped) == (1, 3)
    rest = sync_folder(folder, store, ANN, clock)
    assert [change.id for change in rest.changes] == ["a0", "a2"]
    assert verdict(store).holds


BROKEN = {
    "syntax": "id: [",
    "unknown field": "id: x\nname: X\nscope: org\nscope_id: x\nbudgetz: {}\n",
    "wrong type": "id: x\nname: X\nscope: org\nscope_id: x\npriority: high\n",
    "id of another": "id: acme\nname: X\nscope: org\nscope_id: x\n",
    "nothing": "",
    "anchors": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
    "cycle": "id: x\nname: &a [*a]\n",
    "too large": "#" * 50_000_000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_cannot_be_used_changes_nothing(store, clock, folder, content: str, force: bool):
    sync_folder(folder, store, ANN, clock)
    write(folder, limit=9)
    (folder / "agents" / "broken.yaml").write_text(content)
    report = sync_folder(folder, store, Order("ann", force=force), clock)
    assert (report.outcome, report.revision, report.synced, report.changes) == ("refused", 1, 0, ())
    assert any(problem.file == "agents/broken.yaml" and problem.line for problem in report.errors)
    assert len(store.revisions()) == 1


UNREADABLE = {
    "file": ("agents/a0.yaml", "agents/a0.yaml:1: cannot be read: Permission denied; make it a readable file"),
    "folder": ("agents", "agents:1: cannot be listed: Permission denied; make it a readable folder"),
}


@pytest.mark.parametrize(("path", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_may_not_be_read_is_named_and_what_was_in_force_stays(path: str, said: str):
    with tempfile.TemporaryDirectory() as home:  # a folder of pytest's may not be entered by others
        url, root = f"sqlite:///{home}/ledger.db", write(Path(home, "policies"), limit=5)
        ledger = Ledger(url)
        sync_folder(root, PolicyStore(ledger), ANN, lambda: AT)
        ledger.close()
        write(root, limit=9)
        for each in (Path(home), *Path(home).rglob("*")):
            each.chmod(0o777)
        (root / path).chmod(0)
        assert without_rights(lambda: outcome(root, url)) == ["refused", 1, [said]]
        (root / path).chmod(0o777)
        assert in_force(applied_now(PolicyStore(Ledger(url))))["a0"].budgets.cost[0].limit == 5
        assert without_rights(lambda: outcome(root, url)) == ["applied", 2, []]


def outcome(root: Path, url: str) -> list[object]:
    report = sync_folder(root, PolicyStore(Ledger(url)), Order("ann", force=True), lambda: AT)
    return [report.outcome, report.revision, [str(problem) for problem in report.errors]]


def without_rights(act: Callable[[], object]) -> object:
    """What ``act`` answers in a process that may not do everything, as root may."""
    read, write_ = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                nobody = pwd.getpwnam("nobody")
                os.setgroups([])
                os.setgid(nobody.pw_gid)
                os.setuid(nobody.pw_uid)
            os.write(write_, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(write_)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return json.loads(answer.read() or "null")


def test_a_link_out_of_the_folder_changes_nothing(store, clock, folder, tmp_path):
    sync_folder(folder, store, ANN, clock)
    (tmp_path / "outside.yaml").write_text("id: x\nname: X\nscope: org\nscope_id: x\n")
    (folder / "agents" / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    assert sync_folder(folder, store, ANN, clock).outcome == "refused"


def test_a_folder_that_is_not_there_changes_nothing(store, clock, folder, tmp_path):
    sync_folder(folder, store, ANN, clock)
    report = sync_folder(tmp_path / "nowhere", store, Order("ann", force=True), clock)
    assert (report.outcome, len(report.errors)) == ("refused", 1)


def test_an_empty_folder_changes_nothing_unless_forced(store, clock, folder, tmp_path):
    sync_folder(folder, store, ANN, clock)
    (tmp_path / "empty").mkdir()
    report = sync_folder(tmp_path / "empty", store, ANN, clock)
    assert (report.outcome, report.conflicts, len(report.guards)) == ("refused", (), 1)
    assert sync_folder(tmp_path / "empty", store, Order("ann", force=True), clock).forced
    assert applied_now(store).policies() == ()
    assert verdict(store).holds


def test_what_was_forced_is_in_the_audit_log(store, clock, folder):
    (folder / "agents" / "twin.yaml").write_text(
        "id: twin\nname: Twin\nscope: agent\nscope_id: a0\norg: acme\nproject: p0\n"
    )
    assert sync_folder(folder, store, ANN, clock).outcome == "refused"
    assert store.audit() == []
    forced = sync_folder(folder, store, Order("ann", force=True), clock)
    assert (forced.outcome, forced.forced) == ("applied", True)
    (entry,) = [each for each in store.audit() if each.action == "force"]
    assert "twin" in entry.detail
    head = store.head()
    assert head is not None
    assert head.forced


def test_of_two_plans_against_one_state_the_second_is_refused_whole(store, clock):
    first = plan_sync([policy(ORG)], NOTHING, AT)
    second = plan_sync([policy(ORG, name="Other"), policy(PROJECT)], NOTHING, AT)
    apply_plan(store, first, ANN, AT)
    with pytest.raises(ConcurrentChange, match="Revision 1 came into force after this was planned") as refused:
        apply_plan(store, second, Order("bob"), AT)
    assert refused.value.exit_code == 4
    assert list(in_force(applied_now(store))) == ["org"]
    assert verdict(store).holds


def test_of_two_transactions_at_once_one_is_refused_or_waits(store, ledger):
    """The second begins while the first has not ended: SQLite makes it wait, PostgreSQL refuses its revision."""
    import threading

    begun, ended = threading.Event(), []

    def second() -> None:
        begun.wait(10)
        other = PolicyStore(Ledger(ledger.url))
        try:
            apply_plan(other, plan_sync([policy(PROJECT)], NOTHING, AT), Order("bob"), AT)
        except ConcurrentChange as error:
            ended.append(error)
        finally:
            other._ledger.close()

    ledger.migrate()
    thread = threading.Thread(target=second)
    thread.start()
    plan = plan_sync([policy(ORG)], NOTHING, AT)
    with store.writing() as writing:
        add = writing.add

        def add_slowly(*rows) -> None:
            add(*rows)
            begun.set()
            time.sleep(0.2)

        store_now = type("Now", (), {"writing": lambda self: _already(writing)})()
        writing.add = add_slowly
        apply_plan(store_now, plan, ANN, AT)
    thread.join(30)
    assert len(ended) == 1
    assert list(in_force(applied_now(store))) == ["org"]
    assert verdict(store).holds


class _already:  # noqa: N801 - stands for a context manager function
    def __init__(self, value) -> None:
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *_) -> None:
        return None


def test_a_stopped_or_empty_plan_cannot_be_applied(store):
    with pytest.raises(SyncError, match="conflicts"):
        apply_plan(store, plan_sync(refused_override(), NOTHING, AT), ANN, AT)
    with pytest.raises(SyncError, match="empty"):
        apply_plan(store, plan_sync([], NOTHING, AT), ANN, AT)
    assert store.head() is None


# -- going back ----------------------------------------------------------------------------------------------------


def test_a_rollback_is_a_new_revision_with_the_old_content(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    before = applied_now(store)
    (folder / "agents" / "a2.yaml").unlink()
    write(folder, limit=9, agents=2)
    (folder / "agents" / "new.yaml").write_text("id: new\nname: N\nscope: agent\nscope_id: n\norg: acme\n")
    sync_folder(folder, store, ANN, clock)
    report = roll_back(store, 1, Order("bob", "too loose"), clock)
    actions = {change.id: change.action for change in report.changes}
    assert actions == {"a0": "update", "a1": "update", "a2": "create", "new": "delete"}
    assert in_force(applied_now(store)) == in_force(before)
    head = store.head()
    assert head is not None
    assert (head.revision, head.kind, head.author, head.reason) == (3, "rollback", "bob", "too loose")
    assert store.audit()[-1].action == "rollback"
    assert head.digest == store.revision(1).digest
    assert verdict(store).holds


def test_after_a_rollback_a_sync_brings_the_files_in_again(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    write(folder, limit=9)
    sync_folder(folder, store, ANN, clock)
    roll_back(store, 1, ANN, clock)
    report = sync_folder(folder, store, ANN, clock)
    assert (report.outcome, report.synced) == ("applied", 3)


def test_one_policy_goes_back_alone(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    write(folder, limit=9)
    sync_folder(folder, store, ANN, clock)
    report = roll_back_policy(store, "a1", 1, ANN, clock)
    assert [(change.id, change.version) for change in report.changes] == [("a1", 3)]
    limits = {name: each.budgets.cost[0].limit for name, each in in_force(applied_now(store)).items() if name != "acme"}
    assert limits == {"a0": 9, "a1": 5, "a2": 9}


def test_going_back_to_a_removal_removes(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    moved = folder / "agents" / "a2.yaml"
    content = moved.read_text()
    moved.unlink()
    sync_folder(folder, store, ANN, clock)
    moved.write_text(content)
    sync_folder(folder, store, ANN, clock)
    roll_back_policy(store, "a2", 2, ANN, clock)
    assert "a2" not in in_force(applied_now(store))


def test_going_back_to_what_is_in_force_changes_nothing(store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    assert roll_back(store, 1, ANN, clock).outcome == "unchanged"
    assert roll_back_policy(store, "a1", 1, ANN, clock).outcome == "unchanged"
    assert roll_back(store, 0, ANN, clock).outcome == "refused"


@pytest.mark.parametrize(
    ("back", "says"),
    [
        (lambda *store: roll_back(*store[:1], 7, *store[1:]), "no revision 7; the newest is 1"),
        (lambda *store: roll_back_policy(*store[:1], "a1", 7, *store[1:]), "has versions 1 to 1, not 7"),
        (lambda *store: roll_back_policy(*store[:1], "zz", 1, *store[1:]), "No policy 'zz' was ever in force"),
    ],
)
def test_going_back_to_what_never_was_is_told(store, clock, folder, back, says: str):
    sync_folder(folder, store, ANN, clock)
    with pytest.raises(SyncError, match=says):
        back(store, ANN, clock)


# -- killing -------------------------------------------------------------------------------------------------------


def state(store: PolicyStore) -> dict[str, object]:
    return in_force(applied_now(store))


def killed(folder: Path, url: str, arrange: Callable[[], None], wait: float | None = None) -> int:
    """A sync in a process of its own, killed after ``wait`` seconds or by what ``arrange`` set up; how it ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arrange()
            done = sync_folder(folder, PolicyStore(Ledger(url)), ANN, lambda: AT)
            code = 0 if done.outcome in ("applied", "unchanged") else 2
        finally:
            os._exit(code)
    if wait is not None:
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(point: int) -> Callable[[], None]:
    """Arranges that this process kills itself before its ``point``-th statement or commit."""

    def arrange() -> None:
        reached = count()

        def step(*_args) -> None:
            if next(reached) == point:
                os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(sa.engine.Engine, "before_cursor_execute", step)
        sa.event.listen(sa.engine.Engine, "commit", step)

    return arrange


def test_a_sync_killed_before_any_of_its_statements_leaves_the_old_state(ledger, store, clock, folder):
    sync_folder(folder, store, ANN, clock)
    old = state(store)
    write(folder, limit=9, agents=4)
    was_old = []
    for point in range(100):
        ledger.close()
        code = killed(folder, ledger.url, kill_at(point))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        was_old.append(state(store) == old)
        assert was_old[-1] or len(state(store)) == 5
        assert verdict(store).holds
    assert 5 < point < 99
    assert was_old == sorted(was_old, reverse=True)
    assert was_old.count(True) > 5
    assert len(state(store)) == 5
    assert state(store) != old
    assert verdict(store).holds


def kill_many_times(ledger: Ledger, store: PolicyStore, folder: Path, times: int, agents: int) -> None:
    dice = random.Random(7)
    write(folder, limit=5, agents=agents)
    sync_folder(folder, store, ANN, lambda: AT)
    took, outcomes = 0.0, []
    for limit in range(6, 6 + times):
        old = state(store)
        write(folder, limit=limit, agents=agents)
        wait = dice.uniform(0, took * 1.2) if took else None
        ledger.close()
        begun = time.perf_counter()
        code = killed(folder, ledger.url, lambda: None, wait)
        # The machine may have become quicker or slower: aim at about as many that end as are cut off.
        took = took * (0.7 if code == 0 else 1.2) if took else time.perf_counter() - begun
        now = state(store)
        new = old | {name: changed(each, limit) for name, each in old.items() if name != "acme"}
        assert now in (old, new)
        assert code in (0, -signal.SIGKILL)
        assert code != 0 or now == new
        outcomes.append(now == new)
        assert verdict(store).holds
        sync_folder(folder, store, ANN, lambda: AT)
        assert state(store) == new
    assert not all(outcomes)


def changed(policy_, limit: int):
    cost_limit = policy_.budgets.cost[0].model_copy(update={"limit": Decimal(limit)})
    return policy_.model_copy(update={"budgets": policy_.budgets.model_copy(update={"cost": (cost_limit,)})})


def test_a_sync_killed_at_any_time_leaves_the_old_or_the_new_state(ledger, store, folder):
    kill_many_times(ledger, store, folder, times=10, agents=40)


@pytest.mark.slow
def test_a_large_sync_killed_at_any_time_leaves_the_old_or_the_new_state(ledger, store, folder):
    kill_many_times(ledger, store, folder, times=100, agents=100)


# -- time ----------------------------------------------------------------------------------------------------------


def test_a_revision_of_the_past_is_read_as_of_its_time(store, folder):
    at: list[SyncReport] = []
    for hour, limit in enumerate((5, 6, 7)):
        write(folder, limit=limit)
        at.append(sync_folder(folder, store, ANN, lambda hour=hour: AT + timedelta(hours=hour)))
    for minutes, wanted in ((0, 5), (59, 5), (60, 6), (600, 7)):
        found = store.revision_at(AT + timedelta(minutes=minutes))
        assert found is not None
        assert in_force(applied_at(store, found.revision))["a0"].budgets.cost[0].limit == wanted
    assert store.revision_at(AT - timedelta(seconds=1)) is None
