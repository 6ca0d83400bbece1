"""What alerting talks about: signals, incidents, routes, notifications, and how a delivery ends.

Holds frozen values and their identities. No decision is taken here, nothing is read, kept or sent.

Times are UTC without a zone. ``began_at`` and ``last_seen_at`` are times of the data (when usage was abnormal);
``opened_at``, ``updated_at`` and ``resolved_at`` are times of the alerting clock (when it was noticed). Cost effects are
exact USD.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, get_args

Severity = Literal["info", "warning", "critical"]
Status = Literal["open", "acknowledged", "resolved"]
Kind = Literal["anomaly", "budget", "run_failure", "failed_check", "refused_file", "stale_source", "sync_conflict"]
State = Literal["firing", "resolved", "digest"]
Outcome = Literal[
    "sent", "waiting", "inhibited", "silenced", "muted", "held", "nothing_new", "no_receiver", "not_matched"
]

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""From mild to grave."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

LABELS: Final = ("org", "project", "team", "agent", "metric", "kind", "severity", "direction", "source")
"""What routes, silences and groups may name. A label that an incident lacks is the empty string."""

TASK_CHANNEL: Final = "task"
"""The channel of a receiver whose messages become tasks: ``options`` is then a tracker's name and a task template."""


def rank(severity: Severity) -> int:
    """0 for info, 1 for warning, 2 for critical."""
    return SEVERITIES.index(severity)


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that was found wrong, over ``begins_at <= t < ends_at`` of the data.

    ``id`` is stable: the same finding on a later run has the same id, and then replaces the earlier one. Signals with a
    ``subject`` (a budget window, a source, a run) belong to that subject's incident; those without, anomalies, are
    correlated by scope and time. ``level`` is how far it went (a severity's rank, or the percentage of a budget that was
    crossed): rising levels are told, others are not. ``open_ended`` marks what lasts until it is reported over.
    ``page`` is the path of Dagster's page on it.
    """

    id: str
    kind: Kind
    severity: Severity
    begins_at: datetime
    ends_at: datetime
    headline: str
    org: str = ""
    project: str = ""
    team: str = ""
    agent: str = ""
    metric: str = ""
    subject: str = ""
    direction: Literal["", "rise", "drop"] = ""
    source: str = ""
    level: float = 0.0
    score: float = 0.0
    confidence: float = 1.0
    observed: float | None = None
    expected: float | None = None
    cost_effect: Decimal | None = None
    open_ended: bool = False
    page: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """What belongs together and is told together. Its numbers are those of its worst signal.

    Labels above the scope it is rooted at are filled, those below are empty: an incident of a whole project names no
    agent, ``agents`` lists those it touches. ``metric`` is that of the worst signal. ``revision`` counts corrections of
    what was said before (late data, a changed price), ``episode`` how often it was reopened. ``merged_into`` names the
    incident that it became part of; then it is resolved and nobody is told so.
    """

    id: str
    kind: Kind
    severity: Severity
    status: Status
    opened_at: datetime
    updated_at: datetime
    began_at: datetime
    last_seen_at: datetime
    headline: str
    org: str = ""
    project: str = ""
    team: str = ""
    agent: str = ""
    metric: str = ""
    subject: str = ""
    direction: str = ""
    source: str = ""
    resolved_at: datetime | None = None
    resolution: str = ""
    acknowledged_by: str = ""
    level: float = 0.0
    score: float = 0.0
    confidence: float = 1.0
    observed: float | None = None
    expected: float | None = None
    cost_effect: Decimal | None = None
    signal_ids: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    explanation: tuple[str, ...] = ()
    revision: int = 0
    correction: str = ""
    episode: int = 0
    merged_into: str = ""
    page: str = ""

    @property
    def active(self) -> bool:
        return self.status != "resolved"

    @property
    def labels(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in LABELS}

    @property
    def scope(self) -> str:
        """``org/project/agent`` as far as it is known, or the source."""
        return "/".join(part for part in (self.org, self.project, self.agent) if part) or self.source

    @property
    def fingerprint(self) -> str:
        """The same for incidents of the same place and kind, at whatever time."""
        return digest(self.kind, self.org, self.project, self.agent, self.subject)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where messages go: a channel and its options. Options hold names of secrets, never secrets."""

    name: str
    channel: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskTemplate:
    """How the task of an incident is written, and where: ``options`` are those of the tracker."""

    tracker: str = "ledger"
    priority: Literal["low", "medium", "high", "critical"] = "medium"
    assignee: str = ""
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The most messages that a route sends in any 60 minutes and any 24 hours. ``None`` is no limit."""

    per_hour: int | None = None
    per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Escalation:
    """Who else is told when nobody acknowledged for ``after`` since the first message."""

    after: timedelta
    receivers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """One node of the routes file, with everything that it inherits filled in.

    An incident that reaches a node goes to the first child that means it, to further ones where those before say
    ``continues``, and to the node itself where no child does. ``group_by`` names labels, or ``incident`` for one message
    an incident. ``mute_times`` are names of quiet times. ``line`` is where it is written.
    """

    name: str
    line: int
    matchers: Mapping[str, tuple[str, ...]]
    continues: bool
    receivers: tuple[Receiver, ...]
    group_by: tuple[str, ...]
    group_wait: timedelta
    group_interval: timedelta
    repeat_interval: timedelta | None
    digest_interval: timedelta
    mute_times: tuple[str, ...]
    rate_limit: RateLimit
    escalation: Escalation | None
    create_task: TaskTemplate | None
    children: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Notification:
    """One message for one receiver, decided and waiting in the outbox.

    ``key`` is the idempotency key: the same decision taken twice has the same key. ``thread`` is the same for all that
    is said to one receiver about one group. ``incidents`` are those that the message is about, as they were when it was
    decided; for a ``digest`` those that were held back, open or over. ``reason`` is why it is sent, readable as it is.
    Where the receiver's channel is :data:`TASK_CHANNEL`, there is one incident, and ``firing`` means open a task or
    comment on it, ``resolved`` close it.
    """

    key: str
    route: str
    receiver: Receiver
    incidents: tuple[Incident, ...]
    state: State
    reason: str
    decided_at: datetime
    group: Mapping[str, str] = field(default_factory=dict)
    thread: str = ""

    @property
    def severity(self) -> Severity:
        """The gravest of its incidents."""
        return max((one.severity for one in self.incidents), key=rank, default="info")


@dataclass(frozen=True, slots=True)
class Sent:
    """The channel took it; ``remote_id`` is its name there (a message's ``ts``, an issue's number), if it has one."""

    remote_id: str | None = None


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The channel did not take it but may later; ``seconds`` is what it asked to wait, ``None`` if it did not say."""

    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The channel will never take this message; ``reason`` says why, without secrets."""

    reason: str


Delivery = Sent | RetryAfter | Refused


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A task in a tracker."""

    tracker: str
    id: str
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """What one route decided about one incident, and why. ``stage`` is the stage that decided.

    ``by`` names what decided where it has a name: a silence, an inhibiting incident, a quiet time. ``until`` is when
    that ends, where it is known.
    """

    incident_id: str
    route: str
    outcome: Outcome
    stage: str
    reason: str
    at: datetime
    by: str = ""
    until: datetime | None = None
    keys: tuple[str, ...] = ()


def digest(*parts: object) -> str:
    """A short stable name for the parts: 16 hexadecimal digits."""
    text = json.dumps(parts, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
