"""An anomaly taken apart by the events behind it, of the versions that a reader is pinned to. Only reads."""

from __future__ import annotations

from obs_pipeline.dashboard.snapshot import Reader
from obs_pipeline.detection.explanations import Explanation, RatesAt, compared_days, explain_from, questions_of
from obs_pipeline.detection.models import Anomaly
from obs_pipeline.usage.tables import USAGE_EVENTS


def explained_from(reader: Reader, anomaly: Anomaly, lookback_days: int, rates_at: RatesAt) -> Explanation:
    """Why it differs, as far as the reader's caller may see. ``lookback_days`` is how many days the detector learned from.

    Every event of these days is looked at: its cost grows with their number, whichever agent the anomaly is of.
    """
    days = compared_days([anomaly], lookback_days)
    reader.show(USAGE_EVENTS, days)
    between = f"dt BETWEEN DATE '{days.first}' AND DATE '{days.last}'"
    reader.name("known_anomalies", f"SELECT * FROM anomalies WHERE {between}")
    reader.give("questions", questions_of([anomaly], lookback_days))
    (found,) = explain_from(reader.rows, [anomaly], lookback_days, rates_at)
    return found
