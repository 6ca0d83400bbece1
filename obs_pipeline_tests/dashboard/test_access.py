"""Who may ask what."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from obs_pipeline.dashboard.access import (
    ROLES,
    AccessDenied,
    Gate,
    NotKnown,
    Principal,
    RateLimit,
    TooMany,
    create_token,
    digest_of,
)
from obs_pipeline.storage.access_store import AccessStore, SavedView
from obs_pipeline.storage.ledger import Ledger

NOON = datetime(2026, 3, 2, 12)


@pytest.fixture
def store(tmp_path: Path) -> AccessStore:
    return AccessStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))


def test_a_token_is_known_by_what_it_was_made_for(store: AccessStore):
    token, row = create_token(store, NOON, name="ci", role="analyst", org="acme", projects=["atlas"])
    assert Gate(store).principal(token, NOON) == Principal("ci", "analyst", "acme", ("atlas",))
    assert store.tokens() == [row]


def test_the_ledger_holds_a_digest_and_never_the_token(store: AccessStore, tmp_path: Path):
    token, row = create_token(store, NOON, name="ci", role="viewer", org="acme")
    assert row.digest == digest_of(token)
    assert not any(token.encode() in file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize("shown", [None, "", "obs_wrong", "x" * 9000, "a.b.c"])
def test_what_is_no_token_of_ours_is_not_known(store: AccessStore, shown: str | None):
    with pytest.raises(NotKnown):
        Gate(store).principal(shown, NOON)


def test_a_revoked_or_expired_token_is_not_known(store: AccessStore):
    gone, row = create_token(store, NOON, name="a", role="viewer", org="acme")
    short, _ = create_token(store, NOON, name="b", role="viewer", org="acme", valid_for=timedelta(hours=1))
    assert store.revoke(row.id, NOON)
    assert not store.revoke(row.id, NOON)
    gate = Gate(store)
    gate.principal(short, NOON + timedelta(minutes=59))
    for token, when in ((gone, NOON), (short, NOON + timedelta(hours=1))):
        with pytest.raises(NotKnown):
            gate.principal(token, when)


@pytest.mark.parametrize("held", ROLES)
@pytest.mark.parametrize("needed", ROLES)
def test_a_role_may_do_what_the_roles_below_it_may(held, needed):
    principal = Principal("p", held, "acme")
    if ROLES.index(held) >= ROLES.index(needed):
        principal.require(needed)
    else:
        with pytest.raises(AccessDenied):
            principal.require(needed)


def test_rows_of_another_organisation_or_project_are_not_its_own():
    bound = Principal("p", "viewer", "acme", ("atlas",))
    assert bound.sees("acme", "atlas")
    assert not bound.sees("acme", None)
    assert not bound.sees("acme", "other")
    assert not bound.sees("globex", "atlas")
    assert Principal("p", "viewer", "acme").sees("acme", None)
    assert not Principal("p", "viewer", "acme").sees(None, None)
    assert Principal("p", "admin").sees("globex", None)


@pytest.mark.parametrize(("role", "org", "projects"), [("owner", "acme", []), ("viewer", None, ["atlas"])])
def test_a_token_that_makes_no_sense_is_not_made(store: AccessStore, role, org, projects):
    with pytest.raises(AccessDenied):
        create_token(store, NOON, name="x", role=role, org=org, projects=projects)
    assert store.tokens() == []


def test_a_bucket_empties_and_refills_for_each_token_by_itself():
    limit = RateLimit(per_minute=60, burst=2)
    limit.take("a", NOON)
    limit.take("a", NOON)
    with pytest.raises(TooMany) as refused:
        limit.take("a", NOON)
    assert refused.value.retry_after >= 1
    limit.take("b", NOON)
    limit.take("a", NOON + timedelta(seconds=1))


def test_a_view_is_shared_within_its_organisation_and_replaced_by_name(store: AccessStore):
    store.save_view(SavedView("acme", "mine", "ann", {"agent": "a"}, NOON))
    store.save_view(SavedView("acme", "mine", "bob", {"agent": "b"}, NOON))
    store.save_view(SavedView("globex", "mine", "eve", {}, NOON))
    assert store.views("acme") == [SavedView("acme", "mine", "bob", {"agent": "b"}, NOON)]
