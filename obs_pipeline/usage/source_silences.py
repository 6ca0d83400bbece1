"""How long each source has been silent: what landed and what was pulled, held against how long each may be silent.

Asks the ledger and ``sources.yaml``, and leaves the judgement to ``rhythm``. Times are UTC without a zone.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from obs_pipeline.errors import ObsError
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.inbox import resolve_mapping
from obs_pipeline.usage.pulling.configured import PulledSource, SourcesInvalid, pulled_sources, stated_patience
from obs_pipeline.usage.rhythm import HABIT, Heard, Patience, Silence, silences_of_landing, silences_of_pulling


def source_silences(
    ledger: Ledger, policies: Path, least: timedelta, unknown: timedelta, now: datetime
) -> list[Silence]:
    """Every source that was ever heard of. What pulls bring is judged by the pulls alone. ``least`` and ``unknown`` are
    those of ``rhythm.Patience``."""
    pulled, stated = _configured(policies / "sources.yaml")
    patience = Patience(least, unknown, stated)
    positions = SourcePositions(ledger)
    good = {name: at for name in pulled if (at := positions.get(name).pulled_at) is not None}
    fed = {_lands_as(source, policies / "sources") for source in pulled.values()}
    heard = [Heard(*landing) for landing in ledger.landings(now - HABIT) if landing[0] not in fed]
    return [*silences_of_landing(heard, patience, now), *silences_of_pulling(good, patience)]


def _configured(path: Path) -> tuple[dict[str, PulledSource], dict[str, timedelta]]:
    try:
        return pulled_sources(path), stated_patience(path)
    except SourcesInvalid:
        # Pulling says what is wrong with the file; the sources that land are watched all the same.
        return {}, {}


def _lands_as(source: PulledSource, mappings: Path) -> str:
    try:
        return resolve_mapping(source.mapping_name, mappings).source
    except ObsError:
        return source.mapping_name
