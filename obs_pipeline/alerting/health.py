"""Is alerting itself well: how long delivery takes, what fails, what is stuck, who has fallen silent.

Holds the figures and the judgement, from rows of the ledger; pure. Percentiles are nearest-rank: values that occurred.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from obs_pipeline.storage.alert_tables import DeliveryRow, FeedbackRow, OutboxRow

WINDOW: Final = timedelta(days=7)
QUICK: Final = timedelta(minutes=5)
"""Delivery is well while 95 of 100 messages are sent within this of their decision."""

LEAST_SUCCESS: Final = 0.95
SILENT_AFTER: Final = timedelta(minutes=15)
_TRIED: Final = frozenset({"sent", "retry", "refused"})
SENSOR: Final = "delivery_sensor"
"""Who beats whenever the daemon looks for due messages."""


@dataclass(frozen=True)
class Percentiles:
    """Seconds; None where nothing was sent."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class ChannelHealth:
    """One channel over the window. ``success`` is the share of attempts that were taken; None without attempts."""

    channel: str
    attempts: int
    sent: int
    refused: int
    success: float | None
    delivery: Percentiles


@dataclass(frozen=True)
class AlertHealth:
    """The whole of it. ``silent`` are those whose heartbeat is old, with its age; ``false_positives`` is a share of
    the incidents that somebody judged, None when nobody did."""

    delivery: Percentiles
    channels: tuple[ChannelHealth, ...]
    waiting: int
    oldest_waiting: timedelta
    parked: tuple[OutboxRow, ...]
    silent: Mapping[str, timedelta | None]
    false_positives: float | None

    @property
    def is_quick(self) -> bool:
        late = self.delivery.p95 is not None and self.delivery.p95 > QUICK.total_seconds()
        return not late and self.oldest_waiting <= QUICK

    @property
    def failing(self) -> tuple[str, ...]:
        """Channels whose success is below ``LEAST_SUCCESS``."""
        return tuple(one.channel for one in self.channels if one.success is not None and one.success < LEAST_SUCCESS)


def health(
    outbox: Sequence[OutboxRow],
    attempts: Sequence[DeliveryRow],
    heartbeats: Mapping[str, datetime],
    feedback: Sequence[FeedbackRow],
    now: datetime,
) -> AlertHealth:
    """The figures of the last ``WINDOW`` at ``now`` (UTC without a zone); messages that wait or are parked count
    whatever their age."""
    sent = [row for row in outbox if row.sent_at is not None and row.sent_at > now - WINDOW]
    waiting = [row for row in outbox if row.state == "due"]
    # A message that was put off, or released by a person, was not tried.
    tried = [one for one in attempts if one.outcome in _TRIED and one.at > now - WINDOW]
    names = sorted({one.channel for one in tried} | {row.channel for row in sent})
    return AlertHealth(
        delivery=_delivery(sent),
        channels=tuple(_channel(name, sent, tried) for name in names),
        waiting=len(waiting),
        oldest_waiting=max((now - row.decided_at for row in waiting), default=timedelta()),
        parked=tuple(row for row in outbox if row.state == "parked"),
        silent=_silent(heartbeats, now),
        false_positives=_false_positives(feedback),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of all do not exceed."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def _delivery(sent: Sequence[OutboxRow]) -> Percentiles:
    seconds = [(row.sent_at - row.decided_at).total_seconds() for row in sent if row.sent_at is not None]
    return Percentiles(percentile(seconds, 0.50), percentile(seconds, 0.95), percentile(seconds, 0.99))


def _channel(name: str, sent: Sequence[OutboxRow], tried: Sequence[DeliveryRow]) -> ChannelHealth:
    outcomes = [one.outcome for one in tried if one.channel == name]
    taken = outcomes.count("sent")
    return ChannelHealth(
        channel=name,
        attempts=len(outcomes),
        sent=taken,
        refused=outcomes.count("refused"),
        success=taken / len(outcomes) if outcomes else None,
        delivery=_delivery([row for row in sent if row.channel == name]),
    )


def _silent(heartbeats: Mapping[str, datetime], now: datetime) -> dict[str, timedelta | None]:
    if SENSOR not in heartbeats:
        return {SENSOR: None}
    age = now - heartbeats[SENSOR]
    return {SENSOR: age} if age > SILENT_AFTER else {}


def _false_positives(feedback: Sequence[FeedbackRow]) -> float | None:
    last: defaultdict[str, str] = defaultdict(str)
    for one in feedback:
        last[one.incident_id] = one.verdict
    return sum(verdict == "false_positive" for verdict in last.values()) / len(last) if last else None
