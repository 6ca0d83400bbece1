"""A planned simulation: the fleet, its incidents and the number of calls of every agent in every hour.

Everything here is a function of the config, so any day can be made on its own and in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from obs_pipeline.usage.simulation.catalogue import rate_card
from obs_pipeline.usage.simulation.config import SimulationConfig, Stream
from obs_pipeline.usage.simulation.fleet import SPARSE, Codes, Fleet, Floats, Integers, build_fleet
from obs_pipeline.usage.simulation.incidents import (
    MISPRICED_CALL,
    FaultArrays,
    Incidents,
    plan_incidents,
)


@dataclass(frozen=True)
class DayPlan:
    """One day, (agents, 24) each: calls, the fault that holds or -1, and the deploys' effect on tokens and release."""

    number: int
    first_hour: int
    calls: Integers
    fault: Codes
    tokens: Floats
    release: Codes


@dataclass(frozen=True)
class World:
    config: SimulationConfig
    fleet: Fleet
    incidents: Incidents
    faults: FaultArrays
    scale: Floats
    """(agents,), what brings the natural rates to the number of events asked for."""

    def date_of(self, day: int) -> date:
        return self.config.start + timedelta(days=day)

    def plan(self, day: int) -> DayPlan:
        """The calls of a day, drawn."""
        first_hour = day * 24
        fault = self.incidents.active(self.fleet.size, first_hour)
        _, tokens, release = self.incidents.deployed(self.fleet.size, first_hour)
        rate = intensity(self.config, self.fleet, self.incidents, day) * self.scale[:, None]
        calls = self.config.random(Stream.COUNTS, day).poisson(rate)
        if self.incidents.faults:
            must_happen = (fault >= 0) & (self.faults.kind[fault] == MISPRICED_CALL)
            calls = np.where(must_happen, np.maximum(calls, 1), calls)
        return DayPlan(day, first_hour, calls, fault, tokens, release)


def build_world(config: SimulationConfig) -> World:
    """Plan a simulation."""
    fleet = build_fleet(config)
    everyone = np.arange(fleet.size)[:, None]
    days = np.arange(config.days)
    weekday = config.start.weekday()
    natural = np.sum(
        [fleet.expected_calls(everyone, d * 24 + np.arange(24)[None, :], weekday).sum(axis=1) for d in days], axis=0
    )
    incidents = plan_incidents(config, fleet, _scale(config, fleet, natural), rate_card(config.start))
    drawn = np.sum([intensity(config, fleet, incidents, int(d)).sum(axis=1) for d in days], axis=0)
    return World(config, fleet, incidents, FaultArrays.of(incidents.faults), _scale(config, fleet, drawn))


def intensity(config: SimulationConfig, fleet: Fleet, incidents: Incidents, day: int) -> Floats:
    """(agents, 24) expected calls given the day's luck, deploys and faults, before scaling."""
    first_hour = day * 24
    everyone, hours = np.arange(fleet.size)[:, None], first_hour + np.arange(24)[None, :]
    calm = fleet.expected_calls(everyone, hours, config.start.weekday())
    chance = fleet.chance(config.random(Stream.NOISE, day))
    faulty = incidents.more_calls(incidents.active(fleet.size, first_hour), first_hour)
    deployed, _, _ = incidents.deployed(fleet.size, first_hour)
    # A labelled surge must be there to be found, so bad luck may not cancel it.
    rate: Floats = calm * np.where(faulty > 1, np.maximum(chance, 1), chance) * faulty * deployed
    return rate


def _scale(config: SimulationConfig, fleet: Fleet, totals: Floats) -> Floats:
    """(agents,) factors that bring ``totals`` to the target; sparse agents stay sparse when a fleet grows busy."""
    if config.events is None:
        return np.ones(fleet.size)
    sparse = fleet.kind == SPARSE
    quiet, busy = float(totals[sparse].sum()), float(totals[~sparse].sum())
    if config.events <= quiet + busy or busy == 0:
        return np.full(fleet.size, config.events / (quiet + busy))
    return np.where(sparse, 1.0, (config.events - quiet) / busy)
