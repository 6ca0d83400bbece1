"""What a message says of an incident, a recovery, a correction, a group and a digest."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.alerting.incidents import fold
from obs_pipeline.alerting.models import Signal, TaskTemplate
from obs_pipeline.alerting.rendering import mail_of, slack_of, text_of
from obs_pipeline.alerting.signals import failed_check, failed_run, refused_file, stale_source, sync_conflict
from obs_pipeline.alerting.wording import Pages, amount, message_of, money, span, task_of
from obs_pipeline_tests.alerting.notifications import AT, incident, notification

HOUR = timedelta(hours=1)


def told(*incidents, **changes) -> str:
    message = message_of(notification(*incidents, **changes), Pages("https://obs.example/"))
    return message.subject + "\n\n" + text_of(message)


def test_a_new_incident_says_who_what_how_much_since_when_and_what_to_do():
    assert told(incident(signal_ids=("an-1",)), reason="new") == (
        "bot-1: cost $31.00, usually $10.00\n\n"
        "Since 2026-11-24 03:00 UTC, for 6 h. +$126.50 so far.\n\n"
        "> See what it is made of: obs-pipeline explain an-1\n"
        "> Say that you are on it: obs-pipeline alerts ack incident-1\n\n"
        "What        Cost of acme/web/bot-1 is 3.1 times the usual\n"
        "Where       acme/web/bot-1\n"
        "Confidence  93%\n"
        "Also        87 % of it is the model large-1\n\n"
        "Open the incident: https://obs.example/?orgId=acme&projectId=web&agentId=bot-1&incidentId=incident-1\n"
    )


@pytest.mark.parametrize(
    ("found", "subject", "step"),
    [
        (
            failed_run("daily_batch", "run-1", AT, "disk full\nat line 7"),
            "The job daily_batch failed: disk full",
            "Mend the cause and run it again",
        ),
        (
            failed_check("usage_events", "unpriced_share", "run-1", AT, "Few calls are without a price.", 3),
            "Check unpriced_share of usage_events: 3 findings. What should hold: Few calls are without a price",
            "Look at the examples",
        ),
        (stale_source("gateway", AT - 5 * HOUR, AT - 6 * HOUR, AT), "gateway: silent for 5 h", "Check that it runs"),
        (
            refused_file("a.csv", "no mapping", AT),
            "The file a.csv could not be taken in: no mapping",
            "Read the reason",
        ),
        (sync_conflict(["a and b", "c"], AT), "The policies were not put into force: a and b (and 1 more)", "See what"),
    ],
)
def test_each_kind_says_what_it_is_and_what_to_do_and_links_to_dagster(found: Signal, subject: str, step: str):
    [case] = fold([], [found], AT).cases
    message = message_of(notification(case.incident), Pages(dagster="https://dagster.example/"))
    assert message.subject == subject
    assert message.steps[0].label.startswith(step)
    assert message.steps[1].value == f"obs-pipeline alerts ack {case.incident.id}"
    assert [link.url for link in message.links] == [f"https://dagster.example/{found.page}"]


def test_findings_that_differ_in_nothing_but_numbers_are_told_once():
    hours = tuple(f"bot-1 spent ${n}.00 from {n:02}:00" for n in range(9))
    text = told(incident(headline=hours[0], explanation=(*hours, "bot-1 failed in 3 calls")))
    assert text.count("spent") == 1
    assert "Also        bot-1 failed in 3 calls" in text


def test_a_recovery_says_how_long_it_lasted_and_alarms_nobody():
    over = incident(status="resolved", resolved_at=AT, resolution="cost has been usual for two hours")
    message = message_of(notification(over, state="resolved", reason=""))
    assert message.subject == "Resolved: bot-1: cost $31.00, usually $10.00"
    assert (message.severity, message.is_over, message.steps) == ("info", True, ())
    assert message.lead == "Cost has been usual for two hours. It lasted 6 h. +$126.50 in all."
    assert "Ended  2026-11-24 09:00 UTC" in text_of(message)
    assert mail_of(message, "a@example.org", ["b@example.org"], AT)["Subject"] == message.subject
    assert "✅" in slack_of(message)["blocks"][0]["text"]["text"]


def test_what_lasted_until_it_was_reported_over_ended_then():
    known = fold([], [failed_run("daily_batch", "run-1", AT, "disk full")], AT).cases
    [case] = fold(known, [], AT + 3 * HOUR, over=["job:daily_batch"]).cases
    message = message_of(notification(case.incident, state="resolved", reason="a later run went well"))
    assert message.lead == "A later run went well. It lasted 3 h."
    assert "Ended  2026-11-24 12:00 UTC" in text_of(message)


def test_a_correction_and_a_return_say_so():
    corrected = told(incident(revision=1, correction="it was $12.00, not $31.00"), reason="it was $12.00, not $31.00")
    assert corrected.startswith("Corrected: bot-1: cost")
    assert corrected.count("$12.00") == 1
    assert told(incident(episode=1)).startswith("Again: bot-1: cost")


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
    assert "bot-2: cost $31.00, usually $10.00 (over since 2026-11-24 09:00 UTC)" in text


def test_a_task_is_keyed_by_its_incident_whatever_it_says():
    first, grown = notification(), notification(incident(observed=50.0, severity="warning"))
    tasks = [task_of(one, message_of(one), TaskTemplate(labels=("obs",))) for one in (first, grown)]
    assert tasks[0].mark == tasks[1].mark
    assert tasks[0].title != tasks[1].title


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (1234.5, "cost", "$1,234.50"),
        (0.5, "cost", "$0.50"),
        (0.0421, "cost", "$0.042"),
        (0.05, "cost", "$0.05"),
        (0.00999, "cost", "$0.01"),
        (0.000_012_34, "cost", "$0.000012"),
        (-0.004, "cost", "-$0.004"),
        (-2.5, "cost", "-$2.50"),
        (0.0, "cost", "$0.00"),
        (1e-14, "cost", "$0.00"),
        (0.256, "errors", "25.6%"),
        (850.0, "latency", "850 ms"),
        (12_400.0, "latency", "12.4 s"),
        (1_234_567.0, "tokens", "1,234,567"),
        (4.25, "", "4.25"),
    ],
)
def test_an_amount_is_told_in_its_metrics_unit(value: float, metric: str, text: str):
    assert amount(value, metric) == text


@given(st.decimals(min_value="0.000000001", max_value=10**12, places=9))
def test_money_that_is_there_is_never_told_as_nothing(value: Decimal):
    told = Decimal(amount(float(value), "cost").replace("$", "").replace(",", ""))
    assert abs(told - value) <= max(value / 10, Decimal("0.005") if value >= Decimal("0.1") else 0)


def test_money_has_a_sign_and_spans_their_units():
    assert [money(Decimal(value)) for value in ("12.345", "-3", "0")] == ["+$12.34", "-$3.00", "+$0.00"]
    assert [money(Decimal(value)) for value in ("0.0042", "-0.000000001")] == ["+$0.0042", "-$0.000000001"]
    lengths = [timedelta(minutes=12), timedelta(hours=26, minutes=5), timedelta(seconds=5), timedelta(hours=6)]
    assert [span(length) for length in lengths] == ["12 min", "1 d 2 h 5 min", "less than a minute", "6 h"]
