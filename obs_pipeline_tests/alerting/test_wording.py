"""What a message says of an incident, a recovery, a correction, a group and a digest."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from obs_pipeline.alerting.models import TaskTemplate
from obs_pipeline.alerting.rendering import text_of
from obs_pipeline.alerting.wording import amount, message_of, money, span, task_of
from obs_pipeline_tests.alerting.notifications import AT, incident, notification


def told(*incidents, **changes) -> str:
    message = message_of(notification(*incidents, **changes), "https://obs.example/")
    return message.subject + "\n\n" + text_of(message)


def test_a_new_incident_is_told_with_its_numbers():
    assert told(incident()) == (
        "Cost of acme/web/bot-1 is 3.1 times the usual\n\n"
        "It is new.\n\n"
        "Where        acme/web/bot-1\n"
        "What         cost\n"
        "Observed     $31.00\n"
        "Expected     $10.00\n"
        "Cost effect  +$126.50\n"
        "Began        2026-11-24 03:00 UTC\n"
        "Last seen    2026-11-24 09:00 UTC\n"
        "Confidence   93%\n"
        "Why          87 % of it is the model large-1\n\n"
        "Open the incident: https://obs.example/incidents/incident-1\n"
    )


def test_a_recovery_says_how_long_it_lasted_and_alarms_nobody():
    over = incident(status="resolved", resolved_at=AT, resolution="cost has been usual for two hours")
    message = message_of(notification(over, state="resolved", reason=""))
    assert message.subject == "Resolved: Cost of acme/web/bot-1 is 3.1 times the usual"
    assert message.severity == "info"
    assert message.lead == "Cost has been usual for two hours."
    assert "Ended        2026-11-24 09:00 UTC, after 6 h" in text_of(message)


def test_a_correction_and_a_return_say_so():
    assert told(incident(revision=1, correction="it was $12.00, not $31.00")).startswith("Corrected: Cost of")
    assert "It was $12.00, not $31.00. It is new." in told(incident(revision=1, correction="it was $12.00, not $31.00"))
    assert told(incident(episode=1)).startswith("Again: Cost of")


def test_five_hundred_incidents_are_told_as_one():
    text = told(*(incident(n) for n in range(500)), group={"project": "web", "kind": "anomaly"})
    assert text.startswith("500 incidents of project web, kind anomaly\n\nIt is new. 500 critical. In acme/web (500).")
    assert "and 488 more" in text
    assert len(text.splitlines()) < 25


def test_a_digest_says_what_is_over():
    text = told(
        incident(1), incident(2, status="resolved", resolved_at=AT), state="digest", reason="2 were over the limit"
    )
    assert text.startswith("Digest: 2 incidents held back\n\n2 were over the limit.")
    assert "bot-2 is 3.1 times the usual (over since 2026-11-24 09:00 UTC)" in text


def test_a_task_is_keyed_by_its_incident_whatever_it_says():
    first, grown = notification(), notification(incident(headline="worse", severity="warning"))
    tasks = [task_of(one, message_of(one), TaskTemplate(labels=("obs",))) for one in (first, grown)]
    assert tasks[0].mark == tasks[1].mark
    assert tasks[0].title != tasks[1].title


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (1234.5, "cost", "$1,234.50"),
        (0.256, "errors", "25.6%"),
        (850.0, "latency", "850 ms"),
        (12_400.0, "latency", "12.4 s"),
        (1_234_567.0, "tokens", "1,234,567"),
        (4.25, "", "4.25"),
    ],
)
def test_an_amount_is_told_in_its_metrics_unit(value: float, metric: str, text: str):
    assert amount(value, metric) == text


def test_money_has_a_sign_and_spans_their_units():
    assert [money(Decimal(value)) for value in ("12.345", "-3", "0")] == ["+$12.34", "-$3.00", "+$0.00"]
    lengths = [timedelta(minutes=12), timedelta(hours=26, minutes=5), timedelta(seconds=5), timedelta(hours=6)]
    assert [span(length) for length in lengths] == ["12 min", "1 d 2 h 5 min", "less than a minute", "6 h"]
