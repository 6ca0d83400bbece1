"""What targets took is kept setting by setting, on both kinds of database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.target_store import AcceptedSetting, TargetState, TargetStore
from obs_pipeline_tests.postgres import ledger_url, postgres_server  # noqa: F401

AT = datetime(2026, 5, 6, 12)


@pytest.fixture
def store(ledger_url: str) -> Iterator[TargetStore]:  # noqa: F811
    ledger = Ledger(ledger_url)
    yield TargetStore(ledger)
    ledger.close()


def test_nothing_is_known_of_a_target_that_was_never_tried(store: TargetStore):
    assert (store.states(), store.state("litellm"), store.accepted("litellm")) == ([], None, {})


def test_the_last_state_of_each_target_is_kept(store: TargetStore):
    store.note(TargetState("b", 1, 3, 0, "it is down", AT))
    store.note(TargetState("a", 1, 0, 1, "", AT))
    last = TargetState("b", 2, 0, 0, "", AT)
    store.note(last)
    assert store.states() == [TargetState("a", 1, 0, 1, "", AT), last]
    assert store.state("b") == last


def test_a_setting_is_what_was_accepted_last_of_it(store: TargetStore):
    for body, made in (("{}", True), ('{"rpm_limit": 1}', False)):
        store.accept("a", AcceptedSetting("team x", body, made), AT)
    store.accept("b", AcceptedSetting("team x", "{}", made=True), AT)
    assert store.accepted("a") == {"team x": AcceptedSetting("team x", '{"rpm_limit": 1}', made=False)}
    store.forget("a", "team x")
    assert store.accepted("a") == {}
    assert list(store.accepted("b")) == ["team x"]
