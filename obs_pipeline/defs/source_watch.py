"""Which sources have fallen silent, as findings.

Looked at by every batch, by every run that delivers, and by the sensor that asks for one, so that a silence is noticed within
a minute of its time.
"""

from datetime import datetime, timedelta
from pathlib import Path

from obs_pipeline.alerting.passes import Findings
from obs_pipeline.alerting.signals import stale_source
from obs_pipeline.defs.resources import BatchLimits
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.rhythm import Silence
from obs_pipeline.usage.source_silences import source_silences


def silent_sources(ledger: Ledger, limits: BatchLimits, now: datetime) -> Findings:
    """A finding for each source that is silent for too long; the others are reported over."""
    silences = all_silences(ledger, limits, now)
    stale = [one for one in silences if one.is_stale(now)]
    signals = [stale_source(one.source, one.since, one.last_event, now) for one in stale]
    return Findings(signals, over={one.source for one in silences} - {one.source for one in stale})


def all_silences(ledger: Ledger, limits: BatchLimits, now: datetime) -> list[Silence]:
    """Every source with how long it has been silent, by the settings."""
    least, unknown = timedelta(hours=limits.stale_after_hours), timedelta(hours=limits.freshness_hours)
    return source_silences(ledger, Path(limits.policies), least, unknown, now)
