"""What people say of an incident once they know: whether it was real.

Holds how a verdict on an incident becomes verdicts on the anomalies it is made of, from which the detection learns. What
a verdict changes there is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from obs_pipeline.alerting import records
from obs_pipeline.alerting.models import Signal
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import FeedbackRow
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, AnomalyLabels, Verdict

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Said:
    """A verdict, whose it is and when it was given (UTC without a zone)."""

    verdict: Verdict
    author: str
    note: str
    at: datetime


def give_feedback(alerts: AlertStore, labels: AnomalyLabels, incident_id: str, said: Said) -> None:
    """Keep what was said of an incident, and of each of its anomalies."""
    with alerts.looking() as held:
        signals = [records.signal_of(row) for row in held.signals([incident_id])]
    alerts.add_feedback(FeedbackRow(incident_id, said.author, said.verdict, said.note, said.at))
    labels.add(labels_of(signals, said))


def labels_of(signals: Iterable[Signal], said: Said) -> list[AnomalyLabel]:
    """The verdict on each anomaly among the signals; budgets, runs and sources have none."""
    return [
        AnomalyLabel(
            anomaly_id=one.id,
            verdict=said.verdict,
            org=one.org or None,
            project=one.project or None,
            agent=one.agent or None,
            metric=one.metric,
            grain="hour" if one.ends_at - one.begins_at < _DAY else "day",
            timestamp=one.begins_at,
            author=said.author,
            note=said.note,
            at=said.at,
            ends=one.ends_at,
        )
        for one in signals
        if one.kind == "anomaly"
    ]
