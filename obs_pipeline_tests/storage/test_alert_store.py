from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import (
    DeliveryRow,
    FeedbackRow,
    IncidentRow,
    MemoryRow,
    OutboxRow,
    SignalRow,
    SilenceRow,
    TaskRow,
)
from obs_pipeline.storage.ledger import Ledger

NOON = datetime(2026, 3, 2, 12)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> AlertStore:
    return AlertStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))


def message(key: str, **changes: object) -> OutboxRow:
    row = OutboxRow(key, "root", "d", "slack", "firing", "warning", "t", NOON, "{}", "due", 0, NOON)
    return replace(row, **changes)  # type: ignore[arg-type]


def put(store: AlertStore, *rows: OutboxRow) -> int:
    with store.deciding(NOON) as ledger:
        return ledger.enqueue(rows)


def note(row: OutboxRow, at: datetime = NOON) -> DeliveryRow:
    return DeliveryRow(row.key, row.channel, row.claimed_by, row.attempts, "sent", at, 12, "")


def test_a_key_is_queued_once(store: AlertStore):
    assert put(store, message("a"), message("a"), message("b")) == 2
    assert put(store, message("a", content="other"), message("c")) == 1
    assert {row.key: row.content for row in store.outbox()} == {"a": "{}", "b": "{}", "c": "{}"}


def test_a_claimed_message_is_nobody_elses_until_the_claim_lapses(store: AlertStore):
    put(store, message("a"))
    [mine] = store.claim("one", NOON, NOON + MINUTE)
    assert (mine.claimed_by, mine.attempts) == ("one", 1)
    assert not store.has_due(NOON)
    assert store.claim("two", NOON, NOON + MINUTE) == []
    [theirs] = store.claim("two", NOON + MINUTE, NOON + 2 * MINUTE)
    assert (theirs.claimed_by, theirs.attempts) == ("two", 2)


def test_messages_are_claimed_oldest_first_and_not_before_they_are_due(store: AlertStore):
    put(
        store,
        message("late", next_attempt_at=NOON + MINUTE),
        message("young", decided_at=NOON),
        message("old", decided_at=NOON - MINUTE),
    )
    assert [row.key for row in store.claim("one", NOON, NOON + MINUTE, limit=1)] == ["old"]
    assert [row.key for row in store.claim("one", NOON, NOON + MINUTE)] == ["young"]


def test_many_workers_claim_each_message_once(store: AlertStore):
    put(store, *(message(f"m{n:03}") for n in range(200)))
    taken: list[str] = []

    def work(name: str) -> None:
        while rows := store.claim(name, NOON, NOON + MINUTE, limit=7):
            taken.extend(row.key for row in rows)

    workers = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken) == [f"m{n:03}" for n in range(200)]


def test_a_sent_message_stays_sent_and_every_attempt_is_logged(store: AlertStore):
    put(store, message("a"))
    [first] = store.claim("one", NOON, NOON + MINUTE)
    [second] = store.claim("two", NOON + MINUTE, NOON + 2 * MINUTE)
    assert store.record_sent(note(second), "ts-1")
    assert not store.record_retry(replace(note(first), outcome="retry"), NOON)
    assert not store.record_sent(note(first), "ts-2")
    [row] = store.outbox("sent")
    assert (row.remote_id, row.sent_at) == ("ts-1", NOON)
    assert [(one.worker, one.outcome) for one in store.deliveries(NOON)] == [
        ("two", "sent"), ("one", "retry"), ("one", "sent")
    ]  # fmt: skip


def test_a_retry_waits_and_a_parked_message_waits_for_a_person(store: AlertStore):
    put(store, message("a"))
    [row] = store.claim("one", NOON, NOON + MINUTE)
    store.record_retry(replace(note(row), outcome="retry", detail="503"), NOON + 5 * MINUTE)
    assert store.claim("one", NOON + 4 * MINUTE, NOON + 9 * MINUTE) == []
    [row] = store.claim("one", NOON + 5 * MINUTE, NOON + 9 * MINUTE)
    assert (row.attempts, row.detail) == (2, "503")
    store.park(replace(note(row), outcome="refused", detail="no such channel"))
    assert not store.has_due(NOON + 60 * MINUTE)
    assert [one.detail for one in store.outbox("parked")] == ["no such channel"]
    assert store.release_parked("a", "ada", NOON + 60 * MINUTE)
    assert not store.release_parked("a", "ada", NOON + 60 * MINUTE)
    assert store.has_due(NOON + 60 * MINUTE)


def test_a_message_given_back_counts_no_attempt(store: AlertStore):
    put(store, message("a"))
    store.claim("one", NOON, NOON + MINUTE)
    store.release("a")
    [row] = store.claim("two", NOON, NOON + MINUTE)
    assert row.attempts == 1


INCIDENT = IncidentRow("i", "anomaly", "warning", "open", "o", "p", "a", NOON, NOON, "{}")


def test_keeping_a_row_again_replaces_it(store: AlertStore):
    for route, content in (("r", "1"), ("s", "2"), ("r", "3")):
        with store.deciding(NOON) as ledger:
            ledger.keep_incidents([replace(INCIDENT, content=content), replace(INCIDENT, id="j")])
            ledger.keep_memory([MemoryRow(route, "i", content)])
    with store.deciding(NOON) as ledger:
        assert {(row.route, row.content) for row in ledger.memory(["i", "j"])} == {("r", "3"), ("s", "2")}
    assert {(row.id, row.content) for row in store.incidents()} == {("i", "3"), ("j", "{}")}
    assert store.incidents(["resolved"]) == []


def test_more_rows_than_a_query_takes_parameters_are_found(store: AlertStore):
    with store.deciding(NOON) as ledger:
        ledger.keep_incidents(replace(INCIDENT, id=f"i{n}") for n in range(1200))
        ledger.keep_memory(MemoryRow("r", f"i{n}", "") for n in range(1200))
        assert len(ledger.memory(f"i{n}" for n in range(1200))) == 1200


def test_a_silence_is_in_force_from_its_start_to_before_its_end(store: AlertStore):
    store.add_silence(SilenceRow("s", "{}", "ada", "why", NOON, NOON, NOON + MINUTE))
    for now, in_force in ((NOON - MINUTE, 0), (NOON, 1), (NOON + MINUTE, 0)):
        with store.deciding(now) as ledger:
            assert len(ledger.silences(now)) == in_force
    assert store.end_silence("s", NOON + timedelta(seconds=30))
    assert store.silences(NOON + timedelta(seconds=30)) == []
    assert not store.end_silence("s", NOON + MINUTE)
    assert [row.ends_at for row in store.silences()] == [NOON + timedelta(seconds=30)]


def test_tasks_and_feedback_are_kept(store: AlertStore):
    with store.deciding(NOON) as ledger:
        ledger.keep_incidents([INCIDENT])
        ledger.keep_signals([SignalRow("an-1", "i", "{}")])
    task = TaskRow("i", "ledger", "obs-1", None, "open", "t", "b", "high", "", "[]", NOON, NOON)
    store.keep_task(task)
    store.keep_task(replace(task, state="closed", closed_at=NOON))
    assert [row.state for row in store.tasks("i")] == ["closed"]
    store.add_feedback(FeedbackRow("i", "ada", "false_positive", "", NOON))
    assert [row.verdict for row in store.feedback()] == ["false_positive"]


def test_routes_are_kept_when_they_change(store: AlertStore):
    assert store.routes() is None
    assert [store.keep_routes(text, text, NOON) for text in ("a", "a", "b", "a")] == [True, False, True, True]
    newest = store.routes()
    assert newest is not None
    assert newest.content == "a"


def test_a_heartbeat_is_the_last_one(store: AlertStore):
    store.beat("sensor", NOON)
    store.beat("sensor", NOON + MINUTE)
    assert store.heartbeats() == {"sensor": NOON + MINUTE}
