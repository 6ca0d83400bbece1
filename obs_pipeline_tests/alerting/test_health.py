"""The watch over alerting: its figures, and what it calls unwell."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.alerting.health import QUICK, SENSOR, SILENT_AFTER, WINDOW, Percentiles, health, percentile
from obs_pipeline.alerting.records import outbox_row
from obs_pipeline.storage.alert_tables import DeliveryRow, FeedbackRow
from obs_pipeline_tests.alerting.notifications import AT, incident, notification

NOW = AT + timedelta(days=1)
ALIVE = {SENSOR: NOW}


def sent(number: int, seconds: float):
    row = outbox_row(notification(incident(number), at=NOW - timedelta(hours=1)))
    return replace(row, state="sent", sent_at=row.decided_at + timedelta(seconds=seconds))


def attempt(outcome: str, channel: str = "slack") -> DeliveryRow:
    return DeliveryRow("k", channel, "w", 1, outcome, NOW - timedelta(hours=1), 10, "")


def test_delivery_time_is_told_in_percentiles():
    found = health([sent(n, n) for n in range(1, 101)], [], ALIVE, [], NOW)
    assert found.delivery == Percentiles(50.0, 95.0, 99.0)
    assert found.is_quick


def test_one_message_that_waits_too_long_is_noticed_before_it_is_sent():
    waiting = outbox_row(notification(at=NOW - QUICK - timedelta(seconds=1)))
    found = health([sent(1, 1.0), waiting], [], ALIVE, [], NOW)
    assert (found.waiting, found.is_quick) == (1, False)


def test_a_channel_that_fails_is_named_and_what_was_not_tried_counts_for_nothing():
    attempts = [*[attempt("sent")] * 19, attempt("retry"), attempt("retry", "email"), *[attempt("postponed")] * 50]
    found = health([], attempts, ALIVE, [], NOW)
    assert [(one.channel, one.attempts, one.success) for one in found.channels] == [
        ("email", 1, 0.0),
        ("slack", 20, 0.95),
    ]
    assert found.failing == ("email",)


def test_a_parked_message_counts_however_old():
    old = replace(outbox_row(notification(at=NOW - 9 * WINDOW)), state="parked", detail="channel_not_found")
    assert health([old], [], ALIVE, [], NOW).parked == (old,)


@pytest.mark.parametrize(
    ("beat", "silent"),
    [({}, True), ({SENSOR: NOW - SILENT_AFTER}, False), ({SENSOR: NOW - SILENT_AFTER - timedelta(seconds=1)}, True)],
)
def test_a_dead_daemon_is_noticed(beat, silent: bool):
    assert bool(health([], [], beat, [], NOW).silent) == silent


def test_the_last_word_on_an_incident_counts():
    said = [
        FeedbackRow("a", "ada", "false_positive", "", NOW),
        FeedbackRow("a", "ada", "real", "", NOW),
        FeedbackRow("b", "ada", "false_positive", "", NOW),
    ]
    assert health([], [], ALIVE, said, NOW).false_positives == 0.5
    assert health([], [], ALIVE, [], NOW).false_positives is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_occurred_and_that_many_do_not_exceed(values: list[float], share: float):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
