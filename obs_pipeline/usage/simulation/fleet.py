"""The agents of a simulated fleet: who they are, how often they call by hour, and what one call looks like.

Holds the healthy world only. Incidents and deploys are laid over it elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from obs_pipeline.usage.simulation.catalogue import CHOSEN, PROJECTS, ROLES, TEAMS, numbered_names
from obs_pipeline.usage.simulation.config import SimulationConfig, Stream

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

WEEK: Final = 168
KINDS: Final = ("steady", "office_hours", "batch", "bursty", "sparse", "new")
STEADY, OFFICE, BATCH, BURSTY, SPARSE, NEW = range(len(KINDS))
KIND_SHARE: Final = np.array([0.26, 0.24, 0.15, 0.12, 0.13, 0.10])
TYPICAL_CALLS: Final = np.array([260.0, 220.0, 300.0, 200.0, 3.0, 180.0])
CALLS_SPREAD: Final = np.array([0.9, 0.9, 0.8, 0.8, 0.7, 0.8])
EVENNESS: Final = np.array([25.0, 12.0, 30.0, 3.0, 3.0, 10.0])
"""Shape of the gamma that multiplies an hour's rate: the larger, the closer to plain Poisson."""

WANDER: Final = np.array([0.06, 0.08, 0.08, 0.15, 0.15, 0.12])
"""Daily innovation of the log level."""

OFFICE_ZONES: Final = np.array([-8, -5, 0, 1, 2, 5, 9])
MANY_AGENTS: Final = 200


@dataclass(frozen=True)
class Fleet:
    """Arrays over agents (axis 0). Rates are calls a day; tokens are logs of medians; latencies milliseconds."""

    names: list[str]
    kind: Codes
    org: Codes
    project: Codes
    team: Codes
    project_names: list[str]
    team_names: list[str]
    calls_a_day: Floats
    profile: Floats
    """(agents, 168) from Monday 00:00 UTC, mean 1."""
    growth_a_week: Floats
    """Growth of the log rate."""
    wander: Floats
    """(agents, days + 1), the log level at each midnight."""
    first_hour: Integers
    """When an agent starts, in hours from the first midnight; 0 unless new."""
    burst_chance: Floats
    models: Codes
    """(agents, 3), most used first."""
    model_count: Codes
    model_steps: npt.NDArray[np.float32]
    """(agents, 2), cumulative share of the first and of the first two models."""
    users: Codes
    """People who call through the agent; 0 where it runs unattended."""
    session_minutes: Codes
    pace: Floats
    """Share of an hour over which its calls are spread."""
    log_input: npt.NDArray[np.float32]
    input_spread: npt.NDArray[np.float32]
    log_output: npt.NDArray[np.float32]
    embedding_share: npt.NDArray[np.float32]
    tool_share: npt.NDArray[np.float32]
    cache_hits: npt.NDArray[np.float32]
    cache_depth: npt.NDArray[np.float32]
    reasoning_share: npt.NDArray[np.float32]
    saved_share: npt.NDArray[np.float32]
    """0 where the agent does not report saved tokens."""
    error_rate: npt.NDArray[np.float32]
    first_token_ms: npt.NDArray[np.float32]
    ms_a_token: npt.NDArray[np.float32]
    stream_share: npt.NDArray[np.float32]
    reports_cost: Flags

    @property
    def size(self) -> int:
        return len(self.names)

    def expected_calls(self, agents: Integers, hours: Integers, first_weekday: int) -> Floats:
        """Expected calls in whole hours counted from the first midnight; shapes broadcast.

        Rhythm, growth, wandering level and the start of new agents are in it; chance, deploys and incidents are not.
        """
        day, hour = np.divmod(hours, 24)
        part = hour / 24
        level = self.wander[agents, day] * (1 - part) + self.wander[agents, day + 1] * part
        level = level + self.growth_a_week[agents] * hours / WEEK
        age = hours - self.first_hour[agents]
        ramp = np.where(self.first_hour[agents] > 0, 1 - 0.8 * np.exp(-np.maximum(age, 0) / 72), 1.0) * (age >= 0)
        rhythm = self.profile[agents, (hours + 24 * first_weekday) % WEEK]
        rate: Floats = self.calls_a_day[agents] / 24 * rhythm * np.exp(level) * ramp
        return rate

    def chance(self, rng: np.random.Generator) -> Floats:
        """What chance multiplies each (agent, hour) of a day by: gamma noise, and Pareto bursts that die away."""
        shape = EVENNESS[self.kind][:, None]
        noise = rng.standard_gamma(np.broadcast_to(shape, (self.size, 24))) / shape
        starts = rng.random((self.size, 24)) < self.burst_chance[:, None]
        burst = np.where(starts, np.minimum(rng.pareto(1.5, (self.size, 24)) * 3, 60), 0)
        for hours_later, left in ((1, 0.5), (2, 0.2)):
            burst[:, hours_later:] += left * burst[:, :-hours_later]
        product: Floats = noise * (1 + burst)
        return product


def build_fleet(config: SimulationConfig) -> Fleet:
    """Draw the fleet of a config."""
    rng = config.random(Stream.FLEET)
    n = config.agents
    kind = _kinds(n, rng)
    names = _agent_names(n, rng)
    projects = max(1, round(n / 8))
    teams = max(1, min(len(TEAMS) * 4, round(projects / 3)))
    project = (rng.permutation(n) % projects).astype(np.int32)
    orgs = 2 if n >= MANY_AGENTS else 1
    rate = TYPICAL_CALLS[kind] * np.exp(CALLS_SPREAD[kind] * rng.standard_normal(n))
    fast_growing = rng.random(n) < 0.12
    growth = np.where(fast_growing, rng.uniform(0.05, 0.14, n), rng.normal(0.008, 0.012, n))
    steps = rng.standard_normal((n, config.days + 1)) * WANDER[kind][:, None]
    model_count = rng.choice([1, 2, 3], size=n, p=[0.5, 0.35, 0.15]).astype(np.int32)
    first_hour = np.where(kind == NEW, rng.integers(config.hours * 3 // 10, config.hours * 7 // 10 + 1, n), 0)

    def between(low: float, high: float) -> npt.NDArray[np.float32]:
        return rng.uniform(low, high, n).astype(np.float32)

    def only(share: float, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.where(rng.random(n) < share, values, np.float32(0))

    return Fleet(
        names=names,
        kind=kind,
        org=(project % 10 >= 7).astype(np.int32) * np.int32(orgs - 1),
        project=project,
        team=(project % teams).astype(np.int32),
        project_names=numbered_names(PROJECTS, projects),
        team_names=numbered_names(TEAMS, teams),
        calls_a_day=np.clip(rate, np.where(kind == SPARSE, 0.4, 30), np.where(kind == SPARSE, 8, 5000)),
        profile=_profiles(kind, rng),
        growth_a_week=growth,
        wander=_wandering(steps),
        first_hour=first_hour,
        burst_chance=np.where(kind == BURSTY, rng.uniform(0.02, 0.06, n), 0.0),
        models=rng.random((n, CHOSEN)).argsort(axis=1)[:, :3].astype(np.int32),
        model_count=model_count,
        model_steps=_model_steps(model_count, rng),
        users=np.where(kind == BATCH, 0, rng.integers(1, 40, n)).astype(np.int32),
        session_minutes=rng.choice([10, 30, 60], size=n).astype(np.int32),
        pace=np.where(kind == BATCH, 0.6, 1.0),
        log_input=between(6.2, 9.4),
        input_spread=between(0.4, 0.9),
        log_output=between(4.6, 6.8),
        embedding_share=only(0.3, between(0.05, 0.35)),
        tool_share=between(0.0, 0.4),
        cache_hits=only(0.7, between(0.3, 0.9)),
        cache_depth=between(0.4, 0.9),
        reasoning_share=between(0.2, 0.7),
        saved_share=only(0.25, between(0.05, 0.3)),
        error_rate=between(0.003, 0.02),
        first_token_ms=between(250, 900),
        ms_a_token=between(6, 25),
        stream_share=only(0.7, between(0.6, 1.0)),
        reports_cost=rng.random(n) < 0.75,
    )


def _kinds(n: int, rng: np.random.Generator) -> Codes:
    """Each kind's share of the fleet, and at least one of each where there is room."""
    edges = (np.cumsum(KIND_SHARE) * n).round().astype(int)
    kinds = np.searchsorted(edges, np.arange(n), side="right").clip(max=len(KINDS) - 1)
    if n >= len(KINDS):
        kinds[: len(KINDS)] = np.arange(len(KINDS))
    return rng.permutation(kinds).astype(np.int32)


def _agent_names(n: int, rng: np.random.Generator) -> list[str]:
    digits = max(2, len(str(n // len(ROLES) + 1)))
    names = [f"{ROLES[i % len(ROLES)]}-{i // len(ROLES) + 1:0{digits}d}" for i in range(n)]
    return [names[i] for i in rng.permutation(n)]


def _profiles(kind: Codes, rng: np.random.Generator) -> Floats:
    """(agents, 168) relative rates from Monday 00:00 UTC, each of mean 1."""
    n = len(kind)
    hour_of_week = np.arange(WEEK)
    hour, weekend = hour_of_week % 24, hour_of_week // 24 >= 5
    zone = np.where(kind == OFFICE, rng.choice(OFFICE_ZONES, n), 0)[:, None]
    local = hour_of_week[None, :] + zone
    local_hour, local_weekend = local % 24, (local % WEEK) // 24 >= 5

    depth = np.where(np.isin(kind, (BURSTY, SPARSE)), 0.2, rng.uniform(0.2, 0.6, n))[:, None]
    quiet_weekend = np.where(weekend[None, :], rng.uniform(0.6, 1.0, (n, 1)), 1.0)
    wave = (1 + depth * np.sin(2 * np.pi * (hour[None, :] - rng.uniform(0, 24, (n, 1))) / 24)) * quiet_weekend

    at_work = (local_hour >= 8) & (local_hour < 18) & ~local_weekend
    shape = np.sin(np.pi * (local_hour - 7) / 12).clip(0.3, 1) * np.where(local_hour == 12, 0.7, 1.0)
    office = np.where(at_work, shape, rng.uniform(0.01, 0.04, (n, 1)))

    run_count = rng.integers(1, 5, (n, 1))
    order = rng.random((n, 24)).argsort(axis=1).argsort(axis=1)
    runs = np.tile((order < run_count).astype(float), (1, 7))
    batch = runs * np.where(weekend[None, :] & (rng.random((n, 1)) < 0.5), 0.0, 1.0)

    profile = np.where((kind == OFFICE)[:, None], office, np.where((kind == BATCH)[:, None], batch, wave))
    normal: Floats = profile / profile.mean(axis=1, keepdims=True)
    return normal


def _wandering(steps: Floats) -> Floats:
    """A level that drifts and returns: first-order autoregression along axis 1."""
    path = steps.copy()
    for day in range(1, path.shape[1]):
        path[:, day] += 0.9 * path[:, day - 1]
    return path


def _model_steps(model_count: Codes, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    first = np.where(model_count == 1, 1.0, rng.uniform(0.5, 0.85, len(model_count)))
    second = np.where(model_count == 3, first + (1 - first) * 0.7, 1.0)
    return np.stack([first, second], axis=1).astype(np.float32)
