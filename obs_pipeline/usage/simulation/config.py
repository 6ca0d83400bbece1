"""What a simulation is asked for and what it answers, and its random streams. No world, no files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import IntEnum
from typing import Final

import numpy as np

from obs_pipeline.errors import ObsError

LIMITS: Final = {
    "agents": (1, 15_000),
    "days": (1, 3_660),
    "seed": (0, 2**32 - 1),
    "events_per_file": (1, 10**9),
}
"""What each number of a config may be; the identifiers of events and sessions have room for these."""


class SimulationError(ObsError):
    """The simulation cannot be run as asked."""


class Stream(IntEnum):
    """The independent random streams of one seed, so that adding a draw to one leaves the others alone."""

    FLEET = 1
    DEPLOYS = 2
    FAULTS = 3
    NOISE = 4
    COUNTS = 5
    EVENTS = 6


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """A fleet and a period, fully determined by its values: the same config writes the same tables.

    ``start`` is the first UTC day. ``events`` is the total to aim for (``None``: the agents' natural rates).
    ``events_per_file`` splits a day over several files. ``faults=False`` gives a fleet without incidents.
    """

    start: date
    agents: int = 50
    days: int = 60
    seed: int = 0
    events: int | None = None
    events_per_file: int = 2_000_000
    faults: bool = True

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise SimulationError(f"{name} is {value}; give a whole number from {least} to {most}.")
        if self.events is not None and self.events < 1:
            raise SimulationError(f"events is {self.events}; give 1 or more, or leave it out.")

    @property
    def hours(self) -> int:
        return self.days * 24

    @property
    def midnight(self) -> datetime:
        """The first instant, UTC without a zone."""
        return datetime.combine(self.start, time.min)

    def at(self, hour: int) -> datetime:
        """The instant ``hour`` hours after the first one, UTC without a zone."""
        return self.midnight + timedelta(hours=hour)

    def random(self, stream: Stream, *position: int) -> np.random.Generator:
        """A generator for one stream at one position (a day, an hour), independent of every other."""
        return np.random.default_rng([self.seed, stream, *position])


@dataclass(frozen=True, kw_only=True)
class SimulationSummary:
    """What was written. ``bytes`` counts the Parquet files."""

    events: int
    files: int
    days: int
    agents: int
    faults: int
    bytes: int
