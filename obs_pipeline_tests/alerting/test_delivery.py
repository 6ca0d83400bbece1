"""Delivery loses nothing, repeats next to nothing, keeps order, and waits as it is told; also when it is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.alerting.channels import ChannelError
from obs_pipeline.alerting.delivery import (
    FEWEST_ATTEMPTS,
    GIVE_UP_AFTER,
    LEASE,
    LONGEST_WAIT,
    Courier,
    Delivered,
    deliver_due,
    wait_seconds,
)
from obs_pipeline.alerting.models import Delivery, Notification, Receiver, Refused, RetryAfter, Sent
from obs_pipeline.alerting.records import incident_row, notification_of, outbox_row
from obs_pipeline.alerting.rendering import Message
from obs_pipeline.alerting.trackers import LedgerTracker
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.fault_worker import LEAP
from obs_pipeline_tests.alerting.loopback import Answer, Request, http_server
from obs_pipeline_tests.alerting.notifications import AT, SLACK, WIDGET, incident, notification
from obs_pipeline_tests.alerting.test_trackers import FakeGitHub

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@dataclass
class Recorder:
    """A channel that answers as told, once each, and then takes everything."""

    answers: list[Delivery | Exception] = field(default_factory=list)
    got: list[Message] = field(default_factory=list)

    def send(self, message: Message, now: datetime) -> Delivery:
        answer = self.answers.pop(0) if self.answers else Sent("ts")
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Sent):
            self.got.append(message)
        return answer


@dataclass
class Office:
    """A ledger, a channel a receiver, and a clock that moves when it is told to."""

    store: AlertStore
    channels: dict[str, Recorder] = field(default_factory=dict)
    now: datetime = AT

    def put(self, *notifications: Notification) -> None:
        with self.store.deciding(self.now) as deciding:
            deciding.keep_incidents(incident_row(one) for told in notifications for one in told.incidents)
            deciding.enqueue(outbox_row(told) for told in notifications)

    def channel_of(self, receiver: Receiver) -> Recorder:
        return self.channels.setdefault(receiver.name, Recorder())

    def deliver(self, later: timedelta = timedelta(), limit: int = 200) -> Delivered:
        self.now += later
        courier = Courier(self.store, self.channel_of, lambda _: LedgerTracker())
        return deliver_due(self.store, courier, notification_of, "me", lambda: self.now, random.Random(1), limit)

    def row(self, key: str):
        [row] = self.store.messages([key])
        return row


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(AlertStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")))


def test_what_is_due_is_sent_once_and_noted(office: Office):
    told = notification()
    office.put(told)
    assert office.deliver() == Delivered(sent=1)
    assert office.deliver(timedelta(days=1)) == Delivered()
    assert (office.row(told.key).state, office.row(told.key).remote_id) == ("sent", "ts")
    [attempt] = office.store.deliveries(AT)
    assert (attempt.outcome, attempt.attempt, attempt.worker) == ("sent", 1, "me")


def test_a_failure_is_tried_again_later_each_time_and_then_sent(office: Office):
    told = notification()
    office.channels["ops"] = Recorder([RetryAfter(None, "HTTP 500")] * 3)
    office.put(told)
    waits = []
    for _ in range(3):
        assert office.deliver().retrying == 1
        waits.append((office.row(told.key).next_attempt_at - office.now).total_seconds())
        assert office.deliver().tried == 0
        office.now = office.row(told.key).next_attempt_at
    assert office.deliver() == Delivered(sent=1)
    assert [15 * 2**n <= wait <= 30 * 2**n for n, wait in enumerate(waits)] == [True] * 3
    assert [one.outcome for one in office.store.deliveries(AT)] == ["retry"] * 3 + ["sent"]


def test_retry_after_is_obeyed_and_nobody_else_is_sent_there_meanwhile(office: Office):
    first, second, other = notification(incident(1)), notification(incident(2)), notification(receiver=WIDGET)
    office.channels["ops"] = Recorder([RetryAfter(600.0, "HTTP 429")])
    office.put(first, second, other)
    assert office.deliver() == Delivered(sent=1, retrying=1, postponed=1)
    assert office.deliver(599 * timedelta(seconds=1)) == Delivered()
    assert sorted(office.row(one.key).attempts for one in (first, second)) == [0, 1]
    assert office.deliver(62 * timedelta(seconds=1)) == Delivered(sent=2)


def test_one_message_that_always_fails_holds_up_no_other(office: Office):
    told = [notification(incident(n)) for n in range(5)]
    office.channels["ops"] = Recorder([ValueError("bug"), *[Sent()] * 4])
    office.put(*told)
    assert office.deliver() == Delivered(sent=4, retrying=1)
    [failed] = office.store.outbox("due")
    assert failed.detail == "unforeseen ValueError"


def test_a_receiver_that_fails_three_times_is_left_alone_by_the_rest(office: Office):
    office.channels["ops"] = Recorder([RetryAfter(None, "no answer")] * 20)
    office.put(*(notification(incident(n)) for n in range(20)))
    assert office.deliver() == Delivered(retrying=3, postponed=17)
    assert len(office.channels["ops"].answers) == 17


def test_a_refused_message_is_parked_with_its_reason_and_can_be_sent_again(office: Office):
    told = notification()
    office.channels["ops"] = Recorder([Refused("channel_not_found")])
    office.put(told)
    assert office.deliver() == Delivered(parked=1)
    assert (office.row(told.key).state, office.row(told.key).detail) == ("parked", "channel_not_found")
    assert office.deliver(timedelta(days=1)) == Delivered()
    assert office.store.release_parked(told.key, "ada", office.now)
    assert office.deliver() == Delivered(sent=1)


def test_a_receiver_that_is_not_set_up_is_tried_again_because_a_person_may_mend_it(office: Office):
    told = notification()
    office.channels["ops"] = Recorder([ChannelError("the variable HOOK is not set")])
    office.put(told)
    assert office.deliver() == Delivered(retrying=1)
    assert office.row(told.key).detail == "the variable HOOK is not set"
    assert office.deliver(MINUTE) == Delivered(sent=1)


def test_after_days_of_failure_a_message_is_parked_not_lost(office: Office):
    told = notification()
    office.channels["ops"] = Recorder([RetryAfter(None, "HTTP 500")] * (FEWEST_ATTEMPTS + 1))
    office.put(told)
    for _ in range(FEWEST_ATTEMPTS - 1):
        assert office.deliver(HOUR) == Delivered(retrying=1)
    assert office.deliver(GIVE_UP_AFTER) == Delivered(parked=1)
    assert office.row(told.key).detail == "given up after 3 days; last: HTTP 500"
    office.store.release_parked(told.key, "ada", office.now)
    assert office.deliver() == Delivered(retrying=1)


def test_a_recovery_never_overtakes_what_it_recovers_from(office: Office):
    opened = notification()
    over = notification(incident(status="resolved", resolved_at=AT), state="resolved", at=AT + MINUTE)
    office.channels["ops"] = Recorder([RetryAfter(300.0, "HTTP 429")])
    office.put(opened)
    office.deliver()
    office.put(over)
    assert office.deliver(2 * MINUTE) == Delivered(postponed=1)
    office.deliver(10 * MINUTE)
    office.deliver(MINUTE)
    assert [one.subject.split(":")[0] for one in office.channels["ops"].got] == [
        "bot-1",
        "Resolved",
    ]


def test_a_parked_message_does_not_hold_its_thread_up(office: Office):
    office.channels["ops"] = Recorder([Refused("invalid_blocks")])
    office.put(notification(), notification(incident(status="resolved"), state="resolved", at=AT + MINUTE))
    assert office.deliver(MINUTE) == Delivered(sent=1, parked=1)


def test_a_batch_is_bounded(office: Office):
    office.put(*(notification(incident(n)) for n in range(30)))
    assert office.deliver(limit=12) == Delivered(sent=12)
    assert office.deliver(limit=100) == Delivered(sent=18)


def test_what_a_killed_worker_had_claimed_is_free_after_its_lease(office: Office):
    office.put(notification())
    office.store.claim("killed", AT, AT + LEASE)
    assert office.deliver() == Delivered()
    assert office.deliver(LEASE) == Delivered(sent=1)


def test_no_send_begins_when_it_might_outlast_its_lease(office: Office):
    office.put(*(notification(incident(n)) for n in range(10)))
    slow = office.channel_of(SLACK)
    send = slow.send

    def slowly(message: Message, now: datetime) -> Delivery:
        office.now += 40 * timedelta(seconds=1)
        return send(message, now)

    slow.send = slowly  # type: ignore[method-assign]
    assert office.deliver(limit=10) == Delivered(sent=4)
    assert {row.attempts for row in office.store.outbox("due")} == {0}


def test_an_incident_has_one_task_that_is_closed_with_it(office: Office):
    tasks = Receiver("tasks", "task", {"priority": "high", "assignee": "ada", "labels": ["cost"]})
    grown = notification(incident(observed=50.0), receiver=tasks, key="grown", at=AT + MINUTE)
    over = notification(incident(status="resolved"), receiver=tasks, state="resolved", at=AT + 2 * MINUTE)
    office.put(notification(receiver=tasks), grown, over)
    assert office.deliver(5 * MINUTE) == Delivered(sent=3)
    [task] = office.store.tasks("incident-1")
    assert (task.state, task.priority, task.assignee, json.loads(task.labels)) == ("closed", "high", "ada", ["cost"])
    assert task.title == "bot-1: cost $50.00, usually $10.00"


@given(st.integers(0, 10**6), st.none() | st.floats(0, 86_400), st.integers())
def test_a_wait_is_never_shorter_than_asked_nor_longer_than_it_may(attempts: int, asked: float | None, seed: int):
    wait = wait_seconds(attempts, asked, random.Random(seed))
    if asked is None:
        assert 15 <= wait <= LONGEST_WAIT.total_seconds()
    else:
        assert asked <= wait <= asked * 1.1


# -- faults -----------------------------------------------------------------------------------------------------------


class Unreliable:
    """Webhooks and a tracker behind one server that fails in every way; knows what it took and what it never said so.

    ``kill`` is called at random moments: before a request is looked at, or when it was taken and not yet answered.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.hub = FakeGitHub()
        self.taken: Counter[str] = Counter()
        self.unsaid = 0
        self.requests = 0
        self.kill_at = 0
        self.killing = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        with self._lock:
            self.requests += 1
            kills = self.kill_at and self.requests >= self.kill_at
            if kills and self.chance.random() < 0.3:
                self._kill()
                return Answer(drop=True)
            fate = self.chance.random()
            if fate < 0.10:
                return Answer(500, "server_error")
            if fate < 0.12:
                return Answer(429, "rate_limited", {"Retry-After": "30"})
            if fate < 0.16:
                return Answer(drop=True)
            if fate < 0.163:
                return Answer(delay=1.2, drop=True)
            answer = self._take(request)
            if kills:
                self._kill()
                return answer
            if fate < 0.195:
                self.unsaid += request.path.startswith("/hook/")
                return Answer(drop=True)
            return answer

    def _kill(self) -> None:
        self.kill_at = 0
        self.killing.set()
        time.sleep(self.chance.random() * 0.02)

    def _take(self, request: Request) -> Answer:
        if not request.path.startswith("/hook/"):
            return self.hub(request)
        key = request.json["blocks"][-1]["elements"][0]["text"].split(" · ")[1]
        self.taken[key] += 1
        return Answer()


def run_until_delivered(tmp_path: Path, incidents: int, kills: int, seed: int = 7) -> str:
    chance = random.Random(seed)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    office = Office(AlertStore(Ledger(url)))
    told: list[Notification] = []
    for number in range(incidents):
        hook = Receiver(f"hook-{number % 40}", "slack")
        tasks = Receiver(f"tasks-{number % 40}", "task", {"tracker": "github", "labels": ["obs"]})
        told += [notification(incident(number), receiver=receiver) for receiver in (hook, tasks)]
        if number % 4 == 0:
            over = incident(number, status="resolved", resolved_at=AT + MINUTE)
            told += [notification(over, receiver=one, state="resolved", at=AT + MINUTE) for one in (hook, tasks)]
    office.put(*told)
    faulty, killed, start, began = Unreliable(seed), 0, AT + 2 * MINUTE, time.monotonic()
    log = tmp_path / "worker.log"
    with http_server(faulty) as server:
        while office.store.outbox("due"):
            faulty.killing.clear()
            share = max(2 * incidents // (kills + 1), 4)
            faulty.kill_at = faulty.requests + chance.randint(3, share) if killed < kills else 0
            with log.open("w") as out:
                words = [url, server.url, start.isoformat(), str(killed)]
                worker = subprocess.Popen(
                    [sys.executable, "-m", "obs_pipeline_tests.alerting.fault_worker", *words], stdout=out
                )
            while worker.poll() is None and not faulty.killing.wait(0.005):
                pass
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
                killed += 1
            code = worker.wait()
            assert code in {0, -signal.SIGKILL}
            lines = log.read_text().split()
            start = (datetime.fromisoformat(lines[-1]) if lines else start) + LEAP
    rows = office.store.outbox()
    assert Counter(row.state for row in rows) == {"sent": len(told)}
    by_hook = [one.key for one in told if one.receiver.channel == "slack"]
    lost = set(by_hook) - set(faulty.taken)
    repeats = sum(faulty.taken.values()) - len(by_hook)
    assert lost == set()
    assert repeats <= killed + faulty.unsaid
    assert faulty.hub.wrong == []
    marks = Counter(issue["labels"][-1] for issue in faulty.hub.issues)
    assert len(marks) == incidents
    assert max(marks.values()) == 1
    closed = sum(issue["state"] == "closed" for issue in faulty.hub.issues)
    assert closed == len(range(0, incidents, 4))
    assert killed == kills
    return (
        f"{incidents} incidents, {len(told)} messages, {faulty.requests} requests, {killed} kills, "
        f"{faulty.unsaid} webhooks whose answer was lost: 0 messages lost, {repeats} repeated, "
        f"{len(faulty.hub.issues)} tasks, "
        f"0 made twice; {time.monotonic() - began:.0f} s"
    )


def test_failing_channels_and_killed_workers_lose_nothing(tmp_path: Path):
    run_until_delivered(tmp_path, incidents=40, kills=2)


@pytest.mark.slow
def test_a_thousand_incidents_through_failing_channels_and_killed_workers(tmp_path: Path, capsys):
    figure = run_until_delivered(tmp_path, incidents=1000, kills=40)
    with capsys.disabled():
        print(f"\n{figure}")
