"""The access tables and the ledger's mark, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from obs_pipeline.storage.access_store import AccessStore, SavedView, TokenRow
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline.storage.ledger_state import SourceDays, ledger_mark, sources
from obs_pipeline_tests.postgres import ledger_url, postgres_server  # noqa: F401

NOON = datetime(2026, 3, 2, 12, 0, 0, 123456)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:  # noqa: F811
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


def test_a_token_comes_back_as_it_was_kept_and_is_revoked_once(ledger: Ledger):
    store = AccessStore(ledger)
    row = TokenRow("t1", "ci", "d" * 64, "viewer", "acme", ("atlas", "o'hara"), NOON, NOON)
    store.add(row)
    assert store.tokens() == [store.by_digest(row.digest)] == [row]
    assert store.by_digest("e" * 64) is None
    assert store.revoke("t1", NOON)
    assert not store.revoke("t1", NOON)


def test_views_of_a_name_replace_each_other(ledger: Ledger):
    store = AccessStore(ledger)
    for owner in ("ann", "bob"):
        store.save_view(SavedView("acme", "mine", owner, {"by": owner}, NOON))
    assert store.views("acme") == [SavedView("acme", "mine", "bob", {"by": "bob"}, NOON)]


def test_a_view_is_forgotten_once_and_only_in_its_organisation(ledger: Ledger):
    store = AccessStore(ledger)
    views = [SavedView(org, "mine", "ann", {}, NOON) for org in ("acme", "globex")]
    for view in views:
        store.save_view(view)
    assert store.view("acme", "mine") == views[0]
    assert [store.forget_view("acme", "mine") for _ in range(2)] == [True, False]
    assert (store.view("acme", "mine"), store.views("globex")) == (None, views[1:])


def test_the_mark_changes_when_a_file_lands_and_the_sources_tell_of_it(ledger: Ledger):
    before = ledger_mark(ledger)
    assert sources(ledger) == {}
    ledger.start_landing(LandedFile("f", "gateway", "f.csv", 10, 0, None), "m", NOON)
    ledger.finish_landing("f", 1, [LandedDay(NOON.date(), 1, 0, NOON, NOON)], NOON)
    assert ledger_mark(ledger) != before
    assert sources(ledger) == {"gateway": SourceDays((NOON.date(),), NOON)}
