"""Delivery: what is due in the outbox is sent, and what became of it is noted after the send.

Holds the order of work, when to try again and when to rest. What is told is decided before (``pipeline``), how it
leaves is in ``channels`` and ``trackers``. The clock, the random source and the name of the worker are passed in.

What holds whatever happens:
- A message leaves the outbox only after its channel took it, or refused it with a reason. A killed worker's claims lapse.
- One crash repeats at most one message: the one that was sent and not yet noted.
- What is said of one incident arrives in order: a message waits for an earlier one of its thread.
- A receiver that asks for patience, or fails three times in a row, is left alone by the rest of the batch.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from obs_pipeline.alerting.channels import Channel
from obs_pipeline.alerting.models import (
    TASK_CHANNEL,
    Delivery,
    Incident,
    Notification,
    Receiver,
    Refused,
    RetryAfter,
    Sent,
    TaskRef,
    TaskTemplate,
)
from obs_pipeline.alerting.trackers import TaskTracker
from obs_pipeline.alerting.wording import Chart, Pages, message_of, task_of
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import DeliveryRow, OutboxRow, TaskRow

FIRST_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT: Final = timedelta(hours=1)
GIVE_UP_AFTER: Final = timedelta(days=3)
FEWEST_ATTEMPTS: Final = 10
"""Nothing is given up before: after days without a daemon, or when a person releases it, a message has its chance."""

LEASE: Final = timedelta(minutes=3)
_CLAIMED_AT_ONCE: Final = 10
_SLOWEST_SEND: Final = timedelta(seconds=45)
"""No send begins so late in a lease that it might outlast it: another worker would send the same."""

_FAILURES_TO_REST: Final = 3

Clock = Callable[[], datetime]
"""Answers the time: UTC without a zone."""


@dataclass(frozen=True)
class Delivered:
    """What one call of :func:`deliver_due` did, in messages. ``postponed`` were not tried."""

    sent: int = 0
    retrying: int = 0
    parked: int = 0
    postponed: int = 0

    @property
    def tried(self) -> int:
        return self.sent + self.retrying + self.parked


class Carrier(Protocol):
    """Takes one notification to its receiver."""

    def carry(self, notification: Notification, now: datetime) -> Delivery:
        """Try once."""


def deliver_due(
    store: AlertStore,
    carrier: Carrier,
    read: Callable[[OutboxRow], Notification],
    worker: str,
    clock: Clock,
    chance: random.Random,
    limit: int = 200,
) -> Delivered:
    """Send up to ``limit`` of the messages that are due, oldest first. ``read`` decodes a row of the outbox."""
    batch = _Batch(store, carrier, read, worker, clock, chance)
    handled = 0
    while handled < limit:
        now = clock()
        rows = store.claim(worker, now, now + LEASE, min(_CLAIMED_AT_ONCE, limit - handled))
        if not rows:
            break
        batch.look_at_threads(rows)
        for row in rows:
            batch.handle(row, now + LEASE)
        handled += len(rows)
    return Delivered(**batch.counts)


@dataclass
class _Batch:
    """One call of :func:`deliver_due`: its surroundings, and what it has learned of the receivers so far."""

    store: AlertStore
    carrier: Carrier
    read: Callable[[OutboxRow], Notification]
    worker: str
    clock: Clock
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    rest_until: dict[str, datetime] = field(default_factory=dict)
    earlier: dict[str, OutboxRow | None] = field(default_factory=dict)

    def look_at_threads(self, rows: list[OutboxRow]) -> None:
        """Learn which message each of these must not overtake. What comes into the outbox later is never earlier."""
        if any(row.key not in self.earlier for row in rows):
            self.earlier.update(_earlier_in_thread(self.store.outbox("due")))

    def handle(self, row: OutboxRow, lease_ends: datetime) -> None:
        """Send one claimed message, or put it off, or give it back."""
        now = self.clock()
        if now + _SLOWEST_SEND > lease_ends:
            self.store.release(row.key)
        elif wait := self._reason_to_wait(row, now):
            self._postpone(row, now, *wait)
        else:
            self._send(row, now)

    def _send(self, row: OutboxRow, began: datetime) -> None:
        outcome = self._carried(row, began)
        at = self.clock()
        took = int((at - began) / timedelta(milliseconds=1))
        note = DeliveryRow(row.key, row.channel, self.worker, row.attempts, "sent", at, took, "")
        match settled(outcome, row, at, self.chance):
            case Sent(remote_id):
                self.store.record_sent(note, remote_id)
                self.counts["sent"] += 1
                self.failures[row.receiver] = 0
            case Refused(reason):
                self.store.park(replace(note, outcome="refused", detail=reason))
                self.counts["parked"] += 1
            case RetryAfter(seconds, reason):
                again = at + timedelta(seconds=seconds or 0.0)
                self.store.record_retry(replace(note, outcome="retry", detail=reason), again)
                self.counts["retrying"] += 1
                self._learn(row.receiver, outcome, again)

    def _learn(self, receiver: str, outcome: Delivery, again: datetime) -> None:
        self.failures[receiver] += 1
        asked = isinstance(outcome, RetryAfter) and outcome.seconds is not None
        if asked or self.failures[receiver] >= _FAILURES_TO_REST:
            self.rest_until[receiver] = again

    def _carried(self, row: OutboxRow, now: datetime) -> Delivery:
        try:
            return self.carrier.carry(self.read(row), now)
        except ObsError as error:
            return RetryAfter(None, str(error))
        except Exception as error:  # noqa: BLE001  one message that cannot be handled must not hold up the others
            # Only its kind is noted: the text of an unforeseen error may quote a secret.
            return RetryAfter(None, f"unforeseen {type(error).__name__}")

    def _reason_to_wait(self, row: OutboxRow, now: datetime) -> tuple[datetime, str] | None:
        until = self.rest_until.get(row.receiver)
        if until is not None and until > now:
            return until, f"{row.receiver} is left alone until then"
        before = self.earlier.get(row.key)
        if before is None:
            return None
        # It may have been sent since the batch was claimed.
        [current] = self.store.messages([before.key])
        if current.state != "due":
            return None
        soonest = max(current.next_attempt_at, current.claimed_until or now, now) + timedelta(seconds=1)
        return soonest, f"an earlier message of its thread ({before.key}) comes first"

    def _postpone(self, row: OutboxRow, now: datetime, until: datetime, why: str) -> None:
        # Recorded first, given back second: the claim counted an attempt that was none.
        note = DeliveryRow(row.key, row.channel, self.worker, row.attempts - 1, "postponed", now, 0, why)
        self.store.record_retry(note, until)
        self.store.release(row.key)
        self.counts["postponed"] += 1


def settled(outcome: Delivery, row: OutboxRow, now: datetime, chance: random.Random) -> Delivery:
    """What an outcome leads to: a wait always has its seconds, and after ``GIVE_UP_AFTER`` and ``FEWEST_ATTEMPTS`` there is
    none. Pure."""
    if not isinstance(outcome, RetryAfter):
        return outcome
    if now - row.decided_at >= GIVE_UP_AFTER and row.attempts >= FEWEST_ATTEMPTS:
        return Refused(f"given up after {GIVE_UP_AFTER.days} days; last: {outcome.reason}")
    return RetryAfter(wait_seconds(row.attempts, outcome.seconds, chance), outcome.reason)


def wait_seconds(attempts: int, asked: float | None, chance: random.Random) -> float:
    """How long to wait after the ``attempts``-th failure: doubling from 30 s to an hour, between half and all of it.

    Where the channel asked for a time, never less than that; up to a tenth is added at random, so that not all come
    at once.
    """
    if asked is not None:
        return asked * (1 + 0.1 * chance.random())
    whole = min(FIRST_WAIT.total_seconds() * 2.0 ** min(max(attempts - 1, 0), 30), LONGEST_WAIT.total_seconds())
    return whole * (0.5 + 0.5 * chance.random())


def _earlier_in_thread(due: list[OutboxRow]) -> dict[str, OutboxRow | None]:
    """For each message the newest one before it that is due to the same receiver in the same thread."""
    newest: dict[tuple[str, str], OutboxRow] = {}
    found: dict[str, OutboxRow | None] = {}
    for row in sorted(due, key=_place):
        found[row.key] = newest.get((row.receiver, row.thread)) if row.thread else None
        newest[row.receiver, row.thread] = row
    return found


def _place(row: OutboxRow) -> tuple[datetime, bool, str]:
    # Of two that were decided at once, what began is told before what is over.
    return row.decided_at, row.message_state == "resolved", row.key


# -- carrying ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Courier:
    """Words a notification and hands it to its channel, or makes, extends or closes its task.

    ``channel_of`` and ``tracker_of`` raise ``ObsError`` where a receiver cannot be used as configured: then it is
    tried again, because a person may mend that.
    """

    store: AlertStore
    channel_of: Callable[[Receiver], Channel]
    tracker_of: Callable[[Receiver], TaskTracker]
    pages: Pages = field(default_factory=Pages)
    chart_of: Callable[[Incident], Chart] | None = None

    def carry(self, notification: Notification, now: datetime) -> Delivery:
        if notification.receiver.channel == TASK_CHANNEL:
            return self._carry_task(notification, now)
        channel = self.channel_of(notification.receiver)
        return channel.send(message_of(notification, self.pages, self._chart(notification)), now)

    def _chart(self, notification: Notification) -> Chart | None:
        if self.chart_of is None or len(notification.incidents) != 1:
            return None
        try:
            return self.chart_of(notification.incidents[0])
        except Exception:  # noqa: BLE001  the chart is an extra, and the alert must not wait for it
            return None

    def _carry_task(self, notification: Notification, now: datetime) -> Delivery:
        if len(notification.incidents) != 1:
            return Refused(f"a task is about one incident, not {len(notification.incidents)}")
        [incident] = notification.incidents
        template = template_of(notification.receiver.options)
        tracker = self.tracker_of(notification.receiver)
        known = next((row for row in self.store.tasks(incident.id) if row.tracker == tracker.name), None)
        message = message_of(notification, self.pages)
        task = task_of(notification, message, template)
        if notification.state == "resolved":
            if known is None or known.state == "closed":
                return Sent()
            closed = tracker.close(TaskRef(known.tracker, known.task_id, known.url), task.body, now)
            if isinstance(closed, Sent):
                self.store.keep_task(replace(known, state="closed", updated_at=now, closed_at=now))
            return closed
        reference = tracker.ensure(task, now)
        if not isinstance(reference, TaskRef):
            return reference
        row = TaskRow(
            incident.id,
            tracker.name,
            reference.id,
            reference.url,
            "open",
            task.title,
            task.body,
            task.priority,
            template.assignee,
            json.dumps(task.labels),
            known.opened_at if known else now,
            now,
        )
        self.store.keep_task(row)
        return tracker.comment(reference, task.body, now) if known else Sent(reference.id)


def template_of(options: Mapping[str, Any]) -> TaskTemplate:
    """The task template in a receiver's options."""
    return TaskTemplate(
        tracker=str(options.get("tracker") or "ledger"),
        priority=options.get("priority") or "medium",
        assignee=str(options.get("assignee") or ""),
        labels=tuple(str(label) for label in options.get("labels") or ()),
    )
