from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from obs_pipeline.storage.ledger import Ledger, LedgerError
from obs_pipeline.storage.policy_store import (
    AuditEntry,
    ConcurrentChange,
    PolicyStore,
    PolicyVersion,
    ReadFile,
    Revision,
)
from obs_pipeline_tests.postgres import ledger_url, postgres_server  # noqa: F401

NOON = datetime(2026, 3, 2, 12, 0, 0, 123456)


@pytest.fixture
def ledger(ledger_url: str):  # noqa: F811
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def store(ledger: Ledger) -> PolicyStore:
    return PolicyStore(ledger)


def revision(number: int, at: datetime = NOON) -> Revision:
    return Revision(number, "sync", "ann", "why", at, False, 1, "d" * 64, "f" * 64, number, "a" * 64)


def version(policy: str, number: int, at_revision: int, content: str | None = "{}") -> PolicyVersion:
    return PolicyVersion(policy, number, at_revision, content, "" if content is None else "c" * 64, "org.yaml", 3)


def entry(number: int, subject: str = "", at: datetime = NOON) -> AuditEntry:
    return AuditEntry(number, at, "ann", "sync", subject, number, '{"é":1}', "p" * 64, "d" * 64)


def add(store: PolicyStore, number: int, *versions: PolicyVersion, at: datetime = NOON, subject: str = "") -> None:
    with store.writing() as writing:
        writing.add(revision(number, at), versions, [entry(number, subject, at)])


def test_nothing_is_in_force_before_the_first_revision(store: PolicyStore):
    assert store.head() is None
    assert store.latest(0) == []
    assert store.audit() == []
    with store.writing() as writing:
        assert (writing.head(), writing.last_entry()) == (0, None)


def test_what_is_added_is_read_back_to_the_microsecond(store: PolicyStore):
    add(store, 1, version("a", 1, 1))
    assert store.head() == store.revision(1) == revision(1)
    assert store.latest(1) == store.versions() == [version("a", 1, 1)]
    assert store.audit() == [entry(1)]
    with store.writing() as writing:
        assert (writing.head(), writing.last_entry()) == (1, entry(1))


def test_an_earlier_revision_still_has_its_versions(store: PolicyStore):
    add(store, 1, version("a", 1, 1), version("b", 1, 1))
    add(store, 2, version("a", 2, 2, None), version("c", 1, 2))
    add(store, 3, version("a", 3, 3, '{"again":1}'))
    assert store.latest(1) == [version("a", 1, 1), version("b", 1, 1)]
    assert store.latest(2) == [version("a", 2, 2, None), version("b", 1, 1), version("c", 1, 2)]
    assert store.latest(3)[0] == version("a", 3, 3, '{"again":1}')
    assert [each.version for each in store.versions_of("a")] == [1, 2, 3]


def test_a_moment_belongs_to_the_revision_that_was_in_force_then(store: PolicyStore):
    add(store, 1, at=NOON)
    add(store, 2, at=NOON + timedelta(hours=1))
    at = {minutes: store.revision_at(NOON + timedelta(minutes=minutes)) for minutes in (-1, 0, 59, 60)}
    assert {minutes: found and found.revision for minutes, found in at.items()} == {-1: None, 0: 1, 59: 1, 60: 2}
    assert [each.revision for each in store.revisions()] == [2, 1]
    assert [each.revision for each in store.revisions(1)] == [2]


def test_the_audit_log_is_asked_for_a_span_and_a_policy(store: PolicyStore):
    add(store, 1, at=NOON, subject="a")
    add(store, 2, at=NOON + timedelta(hours=1), subject="b")
    assert [each.entry for each in store.audit(since=NOON + timedelta(minutes=1))] == [2]
    assert [each.entry for each in store.audit(until=NOON + timedelta(hours=1))] == [1]
    assert [each.entry for each in store.audit(subject="b")] == [2]


PLACE = '{"scope_id":"bot","org":"acme","project":"web"}'


def test_policies_of_a_place_are_found_by_what_their_contents_say(store: PolicyStore):
    add(store, 1, version("a", 1, 1, PLACE), version("b", 1, 1, '{"scope_id":"bot","org":"acme"}'))
    add(store, 2, version("a", 2, 2, None), version("c", 1, 2, '{"scope_id":"acme"}'))
    asked = [("bot", "acme", "web"), ("acme", None, None)]
    assert store.latest_at(1, asked) == [version("a", 1, 1, PLACE)]
    assert [(each.policy_id, each.version) for each in store.latest_at(2, asked)] == [("a", 2), ("c", 1)]
    assert [each.policy_id for each in store.latest_at(2, [("bot", "acme", None)])] == ["b"]
    assert store.latest_at(2, []) == []
    assert [each.policy_id for each in store.latest_named(1, "bot")] == ["a", "b"]


def test_what_files_said_is_replaced_and_forgotten_by_file(store: PolicyStore):
    one, two = ReadFile("a.yaml", "1" * 64, "r", "[]"), ReadFile("b.yaml", "2" * 64, "r", "[]")
    store.remember_files([one, two], [])
    other = replace(one, digest="3" * 64)
    store.remember_files([other], ["b.yaml"])
    assert store.read_files("r") == [other]
    assert store.read_files("newer") == []


def test_a_block_that_fails_leaves_nothing(store: PolicyStore):
    def fail() -> None:
        with store.writing() as writing:
            writing.add(revision(1), [version("a", 1, 1)], [entry(1)])
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert (store.head(), store.versions(), store.audit()) == (None, [], [])


def test_the_same_revision_is_not_added_twice(store: PolicyStore):
    add(store, 1, version("a", 1, 1))
    with pytest.raises(ConcurrentChange, match="run the command again"):
        add(store, 1, version("b", 1, 1))
    assert store.versions() == [version("a", 1, 1)]


@pytest.mark.parametrize("table", ["policy_revisions", "policy_versions", "audit_log"])
@pytest.mark.parametrize("change", ["UPDATE {} SET digest = 'x'", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_change_a_row(ledger: Ledger, store: PolicyStore, table: str, change: str):
    add(store, 1, version("a", 1, 1))
    with pytest.raises((LedgerError, sa.exc.IntegrityError), match=f"{table} is append only"), ledger.begin() as open_:
        open_.execute(sa.text(change.format(table)))
    assert store.head() == revision(1)
    assert store.versions() == [version("a", 1, 1)]
    assert store.audit() == [entry(1)]


def test_postgresql_refuses_to_empty_the_log_as_well(ledger: Ledger, store: PolicyStore):
    if not ledger.url.startswith("postgresql"):
        return
    add(store, 1)
    with pytest.raises(LedgerError, match="append only"), ledger.begin() as connection:
        connection.execute(sa.text("TRUNCATE audit_log"))
    assert len(store.audit()) == 1


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_the_migrations_make_the_schema_of_the_code(ledger: Ledger):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from obs_pipeline.storage.policy_store import APPEND_ONLY, audit_log, policy_files
    from obs_pipeline.storage.target_store import policy_target_settings, policy_targets

    own = {table.name for table in (*APPEND_ONLY, policy_files, policy_targets, policy_target_settings)}
    with ledger.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, audit_log.metadata)
    changes = [change for each in found for change in (each if isinstance(each, list) else [each])]
    # Comments are for readers of the code, and an index over expressions is the migrations' alone.
    left_out = ("modify_comment", "add_table_comment", "remove_index")
    changes = [change for change in changes if change[0] not in left_out]
    assert [change for change in changes if any(name in str(change) for name in own)] == []
