"""What ``/metrics`` tells of delivery, pulls, syncs and batches, over a ledger whose state is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from obs_pipeline.dashboard.http.measures import LedgerFigures
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import DeliveryRow, OutboxRow
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.storage.target_store import TargetState, TargetStore

NOW = datetime(2026, 3, 2, 12)
SENT = OutboxRow(
    "al-1", "default", "ops", "slack", "firing", "warning", "th", NOW - timedelta(minutes=10), "{}", "due", 0, NOW
)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def told(ledger: Ledger, now: datetime = NOW) -> dict[tuple[str, ...], float]:
    text = LedgerFigures(ledger, lambda: now).text().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_empty_ledger_is_told_without_a_fault(ledger: Ledger):
    found = told(ledger)
    assert found["obs_ledger_up",] == 1
    assert found["obs_messages_waiting",] == found["obs_batch_pending_days",] == 0


def test_a_ledger_that_cannot_be_read_is_told(tmp_path: Path):
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    assert told(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) == {("obs_ledger_up",): 0}


def test_delivery_is_told_by_channel_with_its_percentiles(ledger: Ledger):
    store = AlertStore(ledger)
    with store.deciding(NOW) as deciding:
        deciding.enqueue([SENT, replace(SENT, key="al-2", decided_at=NOW - timedelta(minutes=20))])
    store.claim("w", NOW, NOW + timedelta(minutes=1))
    attempt = DeliveryRow("al-1", "slack", "w", 1, "sent", NOW - timedelta(minutes=9), 20, "")
    store.record_sent(attempt, "remote")
    store.record_retry(replace(attempt, key="al-2", outcome="retry"), NOW)
    found = told(ledger)
    assert found["obs_delivery_seconds", "slack", "0.95"] == found["obs_delivery_seconds", "all", "0.99"] == 60
    assert found["obs_delivery_success_ratio", "slack"] == 0.5
    assert found["obs_messages_waiting",] == 1
    assert found["obs_messages_oldest_waiting_seconds",] == 20 * 60


def test_pulls_and_syncs_tell_whether_the_last_went_well(ledger: Ledger):
    positions = SourcePositions(ledger)
    positions.advance("langfuse", "7", 10, NOW)
    positions.advance("openai", "7", 10, NOW)
    positions.fail("openai", "401", NOW + timedelta(hours=1))
    TargetStore(ledger).note(TargetState("litellm", 3, 2, 0, "refused", NOW))
    found = told(ledger)
    assert found["obs_sync_failed", "source", "langfuse"] == 0
    assert found["obs_sync_failed", "source", "openai"] == found["obs_sync_failed", "policy_target", "litellm"] == 1
    assert (
        found["obs_sync_last_success_timestamp_seconds", "source", "openai"]
        == datetime.fromisoformat("2026-03-02T12:00:00+00:00").timestamp()
    )
    assert found["obs_sync_pending", "litellm"] == 2


def test_a_day_that_no_batch_has_computed_is_pending_until_one_has(ledger: Ledger):
    monday = date(2026, 3, 2)
    ledger.start_landing(LandedFile("f", "gateway", "f.csv", 10, 0, None), "m", NOW)
    ledger.finish_landing("f", 1, [LandedDay(monday, 1, 0, NOW, NOW)], NOW)
    found = told(ledger)
    assert found["obs_batch_pending_days",] == 1
    assert found["obs_source_newest_event_timestamp_seconds", "gateway"] > 0
    assert ("obs_batch_last_success_timestamp_seconds",) not in found
    ledger.note_seen(ledger.newest_landing_per_day())
    ledger.mark_settled((monday, monday), NOW)
    found = told(ledger)
    assert found["obs_batch_pending_days",] == 0
    assert found["obs_batch_last_success_timestamp_seconds",] > 0


def test_the_ledger_is_read_once_for_scrapes_that_come_together(ledger: Ledger):
    moment = [NOW]
    figures = LedgerFigures(ledger, lambda: moment[0])
    figures.text()
    AlertStore(ledger)
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.enqueue([SENT])
    assert b"obs_messages_waiting 0.0" in figures.text()
    moment[0] += timedelta(seconds=10)
    assert b"obs_messages_waiting 1.0" in figures.text()
