"""The application's own role on a real PostgreSQL server: it can do its work, and cannot alter what was written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from obs_pipeline.policy.audit import verify
from obs_pipeline.policy.planning import Order
from obs_pipeline.policy.rollback import roll_back
from obs_pipeline.policy.sync import sync_folder
from obs_pipeline.storage.grants import grants
from obs_pipeline.storage.ledger import Ledger, LedgerError
from obs_pipeline.storage.policy_store import APPEND_ONLY, PolicyStore
from obs_pipeline.storage.target_store import AcceptedSetting, TargetState, TargetStore
from obs_pipeline_tests.postgres import postgres_server, postgres_url  # noqa: F401

AT = datetime(2026, 5, 6, 12)
ROLE = "Obs app"
ANN = Order("ann", "launch")


@pytest.fixture
def owner(postgres_url: str) -> Iterator[Ledger]:  # noqa: F811
    ledger = Ledger(postgres_url)
    ledger.migrate()
    with ledger.begin() as connection:
        if not connection.scalar(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": ROLE}):
            connection.exec_driver_sql(f'CREATE ROLE "{ROLE}" LOGIN')
        for statement in grants(ROLE):
            connection.exec_driver_sql(statement)
    yield ledger
    ledger.close()


@pytest.fixture
def app(owner: Ledger) -> Iterator[Ledger]:
    ledger = Ledger(owner.url.replace("tests@", "Obs%20app@"))
    yield ledger
    ledger.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "policies"
    root.mkdir()
    return write(root, 5)


def write(root: Path, limit: int) -> Path:
    (root / "org.yaml").write_text(
        f"id: acme\nname: Acme\nscope: org\nscope_id: acme\nbudgets:\n  cost: {{limit: {limit}, period: daily}}\n"
    )
    return root


def test_the_role_can_sync_roll_back_and_verify(app: Ledger, folder: Path):
    store = PolicyStore(app)
    for limit in (5, 6, 7):
        assert sync_folder(write(folder, limit), store, ANN, lambda: AT).outcome == "applied"
    assert roll_back(store, 1, ANN, lambda: AT).outcome == "applied"
    assert verify(store.audit(), store.versions(), store.revisions()).holds


def test_the_role_can_keep_what_targets_took(app: Ledger):
    targets = TargetStore(app)
    for pending in (2, 0):
        targets.note(TargetState("litellm", 1, pending, 0, "", AT))
        targets.accept("litellm", AcceptedSetting("team a", "{}", made=True), AT)
    targets.forget("litellm", "team a")
    assert targets.states() == [TargetState("litellm", 1, 0, 0, "", AT)]


CHANGES = [
    "UPDATE {} SET digest = 'x'",
    "DELETE FROM {}",
    "TRUNCATE {} CASCADE",
    "ALTER TABLE {} DISABLE TRIGGER ALL",
    "DROP TABLE {} CASCADE",
    "SELECT * FROM {} FOR UPDATE",
]


def test_the_role_cannot_change_what_was_written(owner: Ledger, app: Ledger, folder: Path):
    sync_folder(folder, PolicyStore(app), ANN, lambda: AT)
    with app.begin() as connection:
        connection.exec_driver_sql("GRANT ALL ON audit_log TO CURRENT_USER")  # refused with a warning only
    for change in CHANGES:
        for table in APPEND_ONLY:
            with pytest.raises(LedgerError, match=r"permission denied|must be owner"), app.begin() as connection:
                connection.exec_driver_sql(change.format(table.name))
    store = PolicyStore(owner)
    assert verify(store.audit(), store.versions(), store.revisions()).holds


@pytest.mark.parametrize("way", ["SET ROLE tests", "CREATE FUNCTION public.f() RETURNS int AS 'SELECT 1' LANGUAGE sql"])
def test_the_role_cannot_become_another_one(app: Ledger, way: str):
    with pytest.raises(LedgerError, match="permission denied"), app.begin() as connection:
        connection.exec_driver_sql(way)


def test_the_role_cannot_migrate_and_says_that_it_may_not(owner: Ledger, app: Ledger):
    with owner.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises((LedgerError, sa.exc.DatabaseError), match=r"permission denied|must be owner|already exists"):
        PolicyStore(app).head()


def test_every_table_is_granted(owner: Ledger):
    with owner.begin() as connection:
        there = set(sa.inspect(connection).get_table_names())
    said = " ".join(grants(ROLE))
    assert {table for table in there if f"public.{table}" not in said} == set()


def test_a_role_is_written_as_a_name_whatever_it_is_called():
    assert all('"x; DROP TABLE audit_log"' in each for each in grants("x; DROP TABLE audit_log"))


def test_granting_again_takes_back_what_was_given_by_hand(owner: Ledger, app: Ledger, folder: Path):
    with owner.begin() as connection:
        connection.exec_driver_sql(f'GRANT DELETE ON audit_log TO "{ROLE}"')
        for statement in grants(ROLE):
            connection.exec_driver_sql(statement)
    with pytest.raises(LedgerError, match="permission denied"), app.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit_log")
