"""What happens to a simulated fleet: the faults a detector should find, and the harmless deploys it should not.

Plans when, to whom and how strongly, as values. What a fault does to single calls is in ``events``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from obs_pipeline.usage.simulation.catalogue import DEAREST, MODELS, WINDOW, RateCard
from obs_pipeline.usage.simulation.config import SimulationConfig, Stream
from obs_pipeline.usage.simulation.fleet import OFFICE, WEEK, Codes, Fleet, Floats, Integers

FAULT_KINDS: Final = (
    "spike",
    "off_hours_spike",
    "drift",
    "drop_to_zero",
    "retry_storm",
    "error_step",
    "latency_step",
    "runaway_context",
    "mispriced_call",
    "model_swap",
)
(
    SPIKE,
    OFF_HOURS_SPIKE,
    DRIFT,
    DROP_TO_ZERO,
    RETRY_STORM,
    ERROR_STEP,
    LATENCY_STEP,
    RUNAWAY_CONTEXT,
    MISPRICED_CALL,
    MODEL_SWAP,
) = range(len(FAULT_KINDS))
MORE_CALLS: Final = (SPIKE, OFF_HOURS_SPIKE, DRIFT, RETRY_STORM)
"""Kinds whose magnitude multiplies the number of calls."""

ERROR_TYPES: Final = ("rate_limit", "server_error", "timeout", "bad_request", "content_filter")
TIMEOUT: Final = ERROR_TYPES.index("timeout")

QUIET_DAYS: Final = 7
"""No fault before this day, nor this soon after an agent's start: a detector may learn first."""

APART_HOURS: Final = 72
SERIES_WEEKS_A_FAULT: Final = 46
METRICS_AN_AGENT: Final = 4
LEAST_OF_A_KIND: Final = 2
AGENT_WEEKS_A_DEPLOY: Final = 12
ATTEMPTS: Final = 80


@dataclass(frozen=True)
class Recipe:
    """Ranges a fault is drawn from, and how many calls it must be expected to touch to be worth a label."""

    metrics: str
    hours: tuple[int, int]
    magnitude: tuple[float, float]
    calls: float


RECIPES: Final = {
    SPIKE: Recipe("cost+tokens", (1, 6), (4, 20), 15),
    OFF_HOURS_SPIKE: Recipe("cost+tokens", (1, 4), (0.6, 1.2), 10),
    DRIFT: Recipe("cost+tokens", (48, 96), (3.5, 5), 40),
    DROP_TO_ZERO: Recipe("cost+tokens", (6, 48), (0, 0), 10),
    RETRY_STORM: Recipe("errors+cost+tokens", (1, 6), (5, 15), 15),
    ERROR_STEP: Recipe("errors", (6, 72), (0.15, 0.6), 30),
    LATENCY_STEP: Recipe("latency", (6, 72), (2, 5), 25),
    RUNAWAY_CONTEXT: Recipe("cost+tokens+latency", (3, 12), (0.9, 0.97), 12),
    MISPRICED_CALL: Recipe("cost", (1, 1), (3, 6), 0.05),
    MODEL_SWAP: Recipe("cost", (12, 72), (0, 0), 30),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One labelled incident on one agent, over the whole hours ``[start, end)`` from the first midnight.

    ``magnitude`` is the factor on what it affects: calls (spikes, the end of a drift, storms; 0 for a drop), error
    rate, latency, input tokens at the end of a runaway, reported over list price, new over old price of a model.
    """

    kind: int
    agent: int
    start: int
    end: int
    magnitude: float
    model: int
    error_rate: float = 0.0
    error_type: int = 0

    @property
    def metrics(self) -> str:
        extra = "+latency" if self.error_rate > 0 and self.error_type == TIMEOUT else ""
        return RECIPES[self.kind].metrics + extra


@dataclass(frozen=True)
class Deploy:
    """A harmless change that lasts: more or fewer calls, or longer or shorter prompts, from ``hour`` on."""

    agent: int
    hour: int
    calls: float
    tokens: float


@dataclass
class Calendar:
    """Keeps incidents and deploys of one agent apart."""

    taken: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def is_free(self, agent: int, start: int, end: int) -> bool:
        return all(
            end + APART_HOURS <= other_start or other_end + APART_HOURS <= start
            for other_start, other_end in self.taken.get(agent, ())
        )

    def take(self, agent: int, start: int, end: int) -> None:
        self.taken.setdefault(agent, []).append((start, end))


@dataclass(frozen=True)
class Incidents:
    faults: list[Fault]
    deploys: list[Deploy]

    def active(self, agents: int, first_hour: int) -> Codes:
        """(agents, 24): the index of the fault that holds in each hour of the day from ``first_hour``, or -1."""
        index = np.full((agents, 24), -1, dtype=np.int32)
        for number, fault in enumerate(self.faults):
            if fault.start < first_hour + 24 and fault.end > first_hour:
                index[fault.agent, max(0, fault.start - first_hour) : fault.end - first_hour] = number
        return index

    def more_calls(self, active: Codes, first_hour: int) -> Floats:
        """(agents, 24): what the faults multiply the expected calls by."""
        factor = np.ones(active.shape)
        agents, hours = np.nonzero(active >= 0)
        faults = [self.faults[number] for number in active[agents, hours]]
        factor[agents, hours] = [
            _calls_factor(fault, first_hour + int(hour)) for fault, hour in zip(faults, hours, strict=True)
        ]
        return factor

    def deployed(self, agents: int, first_hour: int) -> tuple[Floats, Floats, Codes]:
        """(agents, 24) each: the factors of all deploys so far on calls and on tokens, and how many there were."""
        calls, tokens = np.ones((agents, 24)), np.ones((agents, 24))
        releases = np.zeros((agents, 24), dtype=np.int32)
        for deploy in self.deploys:
            if deploy.hour < first_hour + 24:
                since = (deploy.agent, slice(max(0, deploy.hour - first_hour), None))
                calls[since] *= deploy.calls
                tokens[since] *= deploy.tokens
                releases[since] += 1
        return calls, tokens, releases


def _calls_factor(fault: Fault, hour: int) -> float:
    if fault.kind == DROP_TO_ZERO:
        return 0.0
    if fault.kind == DRIFT:
        return float(fault.magnitude ** ((hour + 1 - fault.start) / (fault.end - fault.start)))
    return fault.magnitude if fault.kind in MORE_CALLS else 1.0


def plan_incidents(config: SimulationConfig, fleet: Fleet, scale: Floats, rates: RateCard) -> Incidents:
    """Deploys and faults of a config; ``scale`` multiplies each agent's natural rate.

    Faults come about one in 46 series-weeks (four series an agent) and at least two of each kind, as far as the
    period has room for them: none in its first week, and three days between any two things on one agent.
    """
    calendar = Calendar()
    deploys = _plan_deploys(config, fleet, calendar)
    faults = _plan_faults(config, fleet, scale, rates, calendar) if config.faults else []
    return Incidents(sorted(faults, key=lambda fault: (fault.start, fault.agent)), deploys)


def _plan_deploys(config: SimulationConfig, fleet: Fleet, calendar: Calendar) -> list[Deploy]:
    rng = config.random(Stream.DEPLOYS)
    deploys = []
    for _ in range(round(config.agents * config.days / 7 / AGENT_WEEKS_A_DEPLOY)):
        agent, hour = int(rng.integers(config.agents)), int(rng.integers(config.hours))
        factor = float(rng.uniform(1.3, 1.9) if rng.random() < 0.6 else rng.uniform(0.5, 0.75))
        calls, tokens = (factor, 1.0) if rng.random() < 0.5 else (1.0, factor)
        if hour > fleet.first_hour[agent] and calendar.is_free(agent, hour, hour):
            calendar.take(agent, hour, hour)
            deploys.append(Deploy(agent, hour, calls, tokens))
    return sorted(deploys, key=lambda deploy: (deploy.hour, deploy.agent))


def _plan_faults(
    config: SimulationConfig, fleet: Fleet, scale: Floats, rates: RateCard, calendar: Calendar
) -> list[Fault]:
    rng = config.random(Stream.FAULTS)
    series_weeks = METRICS_AN_AGENT * config.agents * config.days / 7
    wanted = max(round(series_weeks / SERIES_WEEKS_A_FAULT), LEAST_OF_A_KIND * len(FAULT_KINDS))
    faults = []
    for number in range(wanted):
        for _ in range(ATTEMPTS):
            fault = _draw(number % len(FAULT_KINDS), config, fleet, scale, rates, rng)
            if fault and calendar.is_free(fault.agent, fault.start, fault.end):
                calendar.take(fault.agent, fault.start, fault.end)
                faults.append(fault)
                break
    return faults


def _draw(
    kind: int,
    config: SimulationConfig,
    fleet: Fleet,
    scale: Floats,
    rates: RateCard,
    rng: np.random.Generator,
) -> Fault | None:
    """One fault of a kind at a random place, or ``None`` where it would not show."""
    recipe = RECIPES[kind]
    agent = int(rng.integers(fleet.size))
    length = int(rng.integers(recipe.hours[0], recipe.hours[1] + 1))
    earliest = QUIET_DAYS * 24 + int(fleet.first_hour[agent])
    latest = config.hours - length
    if latest < earliest or not _suits(kind, fleet, agent):
        return None
    start = int(rng.integers(earliest, latest + 1))
    hours = np.arange(start, start + length)
    weekday = config.start.weekday()
    rhythm = fleet.profile[agent, (hours + 24 * weekday) % WEEK]
    size = float(rng.uniform(*recipe.magnitude))
    error_type = int(rng.integers(3))
    model = int(fleet.models[agent, 0])
    error_rate = 0.0
    if kind == OFF_HOURS_SPIKE:
        peak = float(fleet.profile[agent].max())
        if rhythm.max() > 0.15 * peak:
            return None
        size *= peak / float(rhythm.mean())
    elif kind == RETRY_STORM:
        error_rate = float(rng.uniform(0.5, 0.7))
    elif kind == ERROR_STEP:
        error_rate, size = size, size / float(fleet.error_rate[agent])
    elif kind == RUNAWAY_CONTEXT:
        size *= float(WINDOW[model]) / float(np.exp(fleet.log_input[agent]))
    elif kind == MISPRICED_CALL:
        size = float(round(10**size))
    elif kind == MODEL_SWAP:
        dearest = DEAREST[MODELS[model].provider]
        size, model = rates.typical(dearest) / rates.typical(model), dearest
        if size < 2.5:
            return None
    seen = fleet.expected_calls(np.array([agent]), hours, weekday).sum() * scale[agent]
    if seen * (size if kind in MORE_CALLS else 1) < recipe.calls:
        return None
    return Fault(
        kind=kind,
        agent=agent,
        start=start,
        end=start + length,
        magnitude=size,
        model=model,
        error_rate=error_rate,
        error_type=error_type,
    )


def _suits(kind: int, fleet: Fleet, agent: int) -> bool:
    if kind == OFF_HOURS_SPIKE:
        return bool(fleet.kind[agent] == OFFICE)
    if kind == MISPRICED_CALL:
        return bool(fleet.reports_cost[agent])
    return True


@dataclass(frozen=True)
class FaultArrays:
    """The faults as columns, to be taken by the fault index of each call."""

    kind: Integers
    start: Integers
    end: Integers
    magnitude: Floats
    model: Integers
    error_rate: Floats
    error_type: Integers

    @classmethod
    def of(cls, faults: list[Fault]) -> FaultArrays:
        def whole(name: str) -> Integers:
            return np.array([getattr(fault, name) for fault in faults], dtype=np.int64)

        def real(name: str) -> Floats:
            return np.array([getattr(fault, name) for fault in faults], dtype=np.float64)

        return cls(
            kind=whole("kind"),
            start=whole("start"),
            end=whole("end"),
            magnitude=real("magnitude"),
            model=whole("model"),
            error_rate=real("error_rate"),
            error_type=whole("error_type"),
        )
