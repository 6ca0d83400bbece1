"""What detection says: an anomaly, the tables of anomalies and baselines, the result of a batch.

Holds plain types, their Arrow schemas and the identity of an anomaly. No statistics, no wording.

Times are UTC without a zone. ``cost`` is USD, ``tokens`` tokens, ``errors`` a share of calls (0 … 1), ``latency``
the p95 in milliseconds. The timestamp of an anomaly is the start of its day or hour.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal, get_args

import pyarrow as pa

from obs_pipeline.detection.config import Grain, HourMethod, Metric

Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""From mild to grave; a severity's rank is its position here plus one, zero meaning none."""

State = Literal["learning", "ok", "borrowed"]
STATES: Final[tuple[State, ...]] = get_args(State)
Rule = HourMethod | Literal["list_price", "level_shift", "new_agent_ceiling"]
"""What raised an anomaly: a detector, the contradiction between reported cost and list price, a lasting change of
level that was learned on this day, or a new agent's spend above the ceiling."""

TIME: Final = pa.timestamp("us")

BASELINE_SCHEMA: Final = pa.schema(
    [
        pa.field("dt", pa.date32(), nullable=False),
        pa.field("grain", pa.string(), nullable=False),
        pa.field("time", TIME, nullable=False),
        pa.field("org", pa.string()),
        pa.field("project", pa.string()),
        pa.field("agent", pa.string()),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("observed", pa.float64(), nullable=False),
        pa.field("expected", pa.float64()),
        pa.field("lower", pa.float64()),
        pa.field("upper", pa.float64()),
        pa.field("deviation", pa.float64()),
        pa.field("points", pa.int32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
    ]
)
"""One row per series, grain and time whose value is known. Expected, band and deviation are null while
learning; those of a new agent may be borrowed from others."""

ANOMALY_SCHEMA: Final = pa.schema(
    [
        pa.field("dt", pa.date32(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("timestamp", TIME, nullable=False),
        pa.field("org", pa.string()),
        pa.field("project", pa.string()),
        pa.field("agent", pa.string()),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("grain", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("baseline", pa.float64()),
        pa.field("observed", pa.float64(), nullable=False),
        pa.field("deviation", pa.float64()),
        pa.field("lower", pa.float64()),
        pa.field("upper", pa.float64()),
        pa.field("method", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("context", pa.string(), nullable=False),
    ]
)
"""One row per anomaly; ``context`` is a JSON object as text."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One abnormal value of one agent's metric, and why it is thought so.

    ``deviation`` is in sigmas, negative for a drop; it and the band are None when the agent is still learning and
    the anomaly stands on the list price alone. ``score`` (0–100) orders anomalies, worst first; ``confidence``
    (0–1) is the estimated share of such alarms that are real.
    """

    id: str
    timestamp: datetime
    org: str | None
    project: str | None
    agent: str | None
    metric: Metric
    grain: Grain
    severity: Severity
    score: float
    confidence: float
    baseline: float | None
    observed: float
    deviation: float | None
    lower: float | None
    upper: float | None
    method: Rule
    reason: str
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dt(self) -> date:
        """The UTC day it belongs to."""
        return self.timestamp.date()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one run of the batch did."""

    days: tuple[date, ...]
    events: int
    anomalies: Mapping[Severity, int]
    quarantined: int
    duplicates: int
    unpriced: int
    provisional_days: tuple[date, ...]
    duration: timedelta


def anomaly_id(
    org: str | None, project: str | None, agent: str | None, metric: Metric, grain: Grain, timestamp: datetime
) -> str:
    """A stable name for the anomaly of this series at this time: the same on every run and machine."""
    identity = json.dumps([org, project, agent, metric, grain, timestamp.isoformat()], ensure_ascii=False)
    return "an-" + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def anomalies_to_table(anomalies: Sequence[Anomaly]) -> pa.Table:
    """The anomalies as a table of :data:`ANOMALY_SCHEMA`, in the given order."""
    columns = {
        name: [getattr(anomaly, name) for anomaly in anomalies] for name in ANOMALY_SCHEMA.names if name != "context"
    }
    columns["context"] = [
        json.dumps(dict(anomaly.context), ensure_ascii=False, sort_keys=True) for anomaly in anomalies
    ]
    return pa.table(columns, schema=ANOMALY_SCHEMA)


def anomalies_from_table(table: pa.Table) -> list[Anomaly]:
    """The rows of a table of :data:`ANOMALY_SCHEMA`, in its order."""
    rows = table.select([name for name in ANOMALY_SCHEMA.names if name != "dt"]).to_pylist()
    return [Anomaly(**{**row, "context": json.loads(row["context"])}) for row in rows]


def worst_anomalies(anomalies: Sequence[Anomaly], count: int) -> list[Anomaly]:
    """The ``count`` worst, worst first, one for each agent and day: the best-placed speaks for its siblings.

    One incident shows in several metrics and in both grains; listing it once leaves room for the others.
    """
    ranked = sorted(anomalies, key=lambda one: (-one.score, one.timestamp, one.id))
    speakers: dict[tuple[Any, ...], Anomaly] = {}
    for anomaly in ranked:
        speakers.setdefault((anomaly.org, anomaly.project, anomaly.agent, anomaly.dt), anomaly)
    return list(speakers.values())[:count]
