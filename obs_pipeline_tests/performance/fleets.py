"""Two made-up fleets with labels, hour by hour, for measuring detectors; neither goes through the pipeline.

``designed`` has the six kinds of agents, the incidents and the harmless changes that the usage model was built for.
``foreign`` has none of its assumptions: Pareto bursts, cycles that are no day, levels that wander. All arrays are
(agents, hours), hour zero is a Monday midnight. The same seed gives the same fleet. No detector lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

METRICS: Final = ("calls", "cost", "unit_cost", "errors", "latency")
DESIGNED_KINDS: Final = ("steady", "office", "batch", "bursty", "sparse", "new")
FOREIGN_KINDS: Final = ("pareto", "cycle", "wandering", "switching")
WEEK: Final = 168
LEARNING_WEEKS: Final = 4
"""No incident before; detectors are judged from here on."""
AGENT_WEEKS_AN_INCIDENT: Final = 46 / len(METRICS)
AGENT_WEEKS_A_DEPLOY: Final = 12
ATTEMPTS: Final = 40


@dataclass(frozen=True)
class Recipe:
    """Hours, factor (for errors: the added rate), the metrics it shows in, and the calls it must touch for a label."""

    hours: tuple[int, int]
    factor: tuple[float, float]
    metrics: tuple[str, ...]
    calls: float


RECIPES: Final[Mapping[str, Recipe]] = {
    "spike": Recipe((1, 6), (3, 10), ("calls", "cost"), 8),
    "off_hours_spike": Recipe((1, 4), (0.7, 1.4), ("calls", "cost"), 10),
    "runaway": Recipe((48, 96), (3, 5), ("calls", "cost"), 30),
    "token_bloat": Recipe((6, 48), (1.7, 4), ("cost", "unit_cost"), 25),
    "drop_to_zero": Recipe((6, 48), (0, 0), ("calls", "cost"), 10),
    "error_step": Recipe((6, 72), (0.1, 0.5), ("errors",), 25),
    "latency_step": Recipe((6, 72), (1.7, 4), ("latency",), 25),
}


@dataclass(frozen=True)
class Incident:
    """One labelled fault of one agent over the hours ``[start, end)``, visible in ``metrics``."""

    agent: int
    kind: str
    start: int
    end: int
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """What the generator knows and no detector may: the law of every hour, deploys included, incidents not.

    ``usual`` are calls per hour, ``luck`` the chance factor within them (bursts, switches), which nobody can foresee;
    ``dispersion`` is 1/k of the negative binomial, (agents, 1).
    """

    usual: Floats
    luck: Floats
    dispersion: Floats
    unit_cost: Floats
    errors: Floats
    latency: Floats


@dataclass(frozen=True)
class Fleet:
    """``values`` by metric, NaN where unknown (no calls, or before an agent's first hour)."""

    values: Mapping[str, Floats]
    kinds: tuple[str, ...]
    incidents: tuple[Incident, ...]
    truth: Truth

    @property
    def calls(self) -> Floats:
        return self.values["calls"]


@dataclass
class _Life:
    """What an agent would do without chance: rates by hour, changed in place by deploys and incidents."""

    calls: Floats
    unit_cost: Floats
    errors: Floats
    latency: Floats
    dispersion: Floats
    born: npt.NDArray[np.int64]


class Rates(NamedTuple):
    """Calls per hour, the share of their scatter that no Poisson explains (1/k of a negative binomial), and the chance
    factor that is already in them."""

    calls: Floats
    dispersion: float
    luck: Floats | float = 1.0


def designed(seed: int, agents: int = 120, weeks: int = 12) -> Fleet:
    """The fleet the usage model was built for."""
    chance = np.random.default_rng([1, seed])
    kinds = tuple(DESIGNED_KINDS[index % len(DESIGNED_KINDS)] for index in range(agents))
    return _live(chance, kinds, weeks * WEEK, _designed_rates)


def foreign(seed: int, agents: int = 120, weeks: int = 12) -> Fleet:
    """The fleet no detector here was built for."""
    chance = np.random.default_rng([2, seed])
    kinds = tuple(FOREIGN_KINDS[index % len(FOREIGN_KINDS)] for index in range(agents))
    return _live(chance, kinds, weeks * WEEK, _foreign_rates)


FLEETS: Final[Mapping[str, Callable[..., Fleet]]] = {"designed": designed, "foreign": foreign}


def _live(
    chance: np.random.Generator,
    kinds: tuple[str, ...],
    hours: int,
    rates: Callable[[np.random.Generator, str, int], Rates],
) -> Fleet:
    drawn = [rates(chance, kind, hours) for kind in kinds]
    life = _Life(
        calls=np.stack([one.calls for one in drawn]),
        unit_cost=np.repeat(np.exp(chance.normal(-4, 1.5, (len(kinds), 1))), hours, axis=1),
        errors=np.repeat(chance.beta(1, 60, (len(kinds), 1)), hours, axis=1),
        latency=np.repeat(np.exp(chance.normal(7, 0.8, (len(kinds), 1))), hours, axis=1),
        dispersion=np.array([one.dispersion for one in drawn])[:, None],
        born=np.array([_birth(chance, kind, hours) for kind in kinds]),
    )
    _deploy(chance, life)
    truth = Truth(
        usual=life.calls.copy(),
        luck=np.stack([np.broadcast_to(one.luck, hours) for one in drawn]),
        dispersion=life.dispersion,
        unit_cost=life.unit_cost.copy(),
        errors=life.errors.copy(),
        latency=life.latency.copy(),
    )
    incidents = _strike(chance, life, truth.usual, kinds)
    return Fleet(_observe(chance, life), kinds, incidents, truth)


def _birth(chance: np.random.Generator, kind: str, hours: int) -> int:
    return int(chance.integers(LEARNING_WEEKS * WEEK - WEEK, hours - 3 * WEEK)) if kind == "new" else 0


def _drift(chance: np.random.Generator, hours: int, step: float, memory: float) -> Floats:
    """A logarithm that wanders and comes back (an AR(1) with that memory in hours)."""
    from scipy.signal import lfilter

    kept = np.exp(-1 / memory)
    return np.asarray(lfilter([1.0], [1.0, -kept], chance.normal(0, step, hours)), dtype=np.float64)


def _designed_rates(chance: np.random.Generator, kind: str, hours: int) -> Rates:
    clock = np.arange(hours)
    hour, day = clock % 24, clock // 24 % 7
    level = np.exp(chance.normal(3.5, 1.0)) * np.exp(
        _drift(chance, hours, 0.02, 72) + chance.normal(0, 0.02) * clock / WEEK
    )
    if kind == "office":
        middle, width = chance.normal(14, 1.5), chance.uniform(2.5, 4)
        shape = np.exp(-0.5 * ((hour - middle) / width) ** 2) * np.where(day < 5, 1.0, chance.uniform(0.02, 0.2))
        return Rates(3 * level * (shape + 0.01), chance.uniform(0.03, 0.15))
    if kind == "batch":
        runs = np.isin(hour, chance.integers(0, 24, chance.integers(1, 4)))
        return Rates(level * np.where(runs, 10.0, 0.03), chance.uniform(0.02, 0.1))
    if kind == "bursty":
        burst = np.repeat(np.exp(chance.normal(0, 1.1, hours // 3 + 1)), 3)[:hours]
        return Rates(level * burst * (1 + 0.3 * np.sin(2 * np.pi * hour / 24)), chance.uniform(0.3, 0.8), burst)
    if kind == "sparse":
        return Rates(np.full(hours, chance.uniform(0.05, 0.6)) * np.where(day < 5, 1.2, 0.5), 0.5)
    swing = chance.uniform(0.1, 0.5)
    return Rates(
        level * (1 + swing * np.sin(2 * np.pi * (hour - chance.uniform(0, 24)) / 24)), chance.uniform(0.01, 0.1)
    )


def _foreign_rates(chance: np.random.Generator, kind: str, hours: int) -> Rates:
    clock = np.arange(hours)
    level = np.exp(chance.normal(3.0, 1.0))
    if kind == "pareto":
        bursts = np.zeros(hours)
        for start in np.flatnonzero(chance.random(hours) < 0.03):
            length = int(chance.geometric(0.4))
            bursts[start : start + length] += chance.pareto(1.7)
        return Rates(level * (0.7 + bursts), 0.2, 0.7 + bursts)
    if kind == "cycle":
        period = chance.choice([7.0, 10.5, 17.0, 31.0, 42.0, 60.0])
        wave = np.exp(chance.uniform(0.5, 1.5) * np.sin(2 * np.pi * (clock + chance.uniform(0, period)) / period))
        return Rates(level * wave, 0.08)
    if kind == "wandering":
        return Rates(level * np.exp(np.clip(np.cumsum(chance.normal(0, 0.03, hours)), -3, 3)), 0.05)
    switches = np.cumsum(chance.random(hours) < 1 / 40) % 2
    state = np.where(switches, 1.0, chance.uniform(0.05, 0.4))
    return Rates(level * state, 0.1, state)


def _deploy(chance: np.random.Generator, life: _Life) -> None:
    """Lasting, harmless changes: a little more or less of everything."""
    agents, hours = life.calls.shape
    for agent in range(agents):
        for _ in range(chance.poisson(hours / WEEK / AGENT_WEEKS_A_DEPLOY)):
            when = int(chance.integers(hours))
            life.calls[agent, when:] *= np.exp(chance.normal(0, 0.3))
            life.unit_cost[agent, when:] *= np.exp(chance.normal(0, 0.12))
            life.latency[agent, when:] *= np.exp(chance.normal(0, 0.12))


def _strike(chance: np.random.Generator, life: _Life, usual: Floats, kinds: tuple[str, ...]) -> tuple[Incident, ...]:
    agents, hours = usual.shape
    first = LEARNING_WEEKS * WEEK
    incidents: list[Incident] = []
    busy = np.zeros(usual.shape, dtype=bool)
    for _ in range(round(agents * (hours - first) / WEEK / AGENT_WEEKS_AN_INCIDENT)):
        kind = str(chance.choice(list(RECIPES)))
        for _ in range(ATTEMPTS):
            agent = int(chance.integers(agents))
            length = int(chance.integers(RECIPES[kind].hours[0], RECIPES[kind].hours[1] + 1))
            start = int(chance.integers(max(first, life.born[agent] + 3 * 24), hours - length))
            span = slice(start, start + length)
            if busy[agent, max(0, start - 96) : start + length + 96].any():
                continue
            if not _worth_it(kind, usual[agent], span):
                continue
            _hit(chance, life, kind, agent, span, usual)
            busy[agent, span] = True
            incidents.append(Incident(agent, kind, start, start + length, RECIPES[kind].metrics))
            break
    return tuple(incidents)


def _worth_it(kind: str, usual: Floats, span: slice) -> bool:
    """Whether enough calls are touched for anyone to care, and an hour off the peak really is one."""
    touched, peak = float(usual[span].sum()), float(np.quantile(usual, 0.95))
    if kind == "off_hours_spike":
        return float(usual[span].max()) < 0.25 * peak and peak * (span.stop - span.start) > RECIPES[kind].calls
    return touched > RECIPES[kind].calls


def _hit(chance: np.random.Generator, life: _Life, kind: str, agent: int, span: slice, usual: Floats) -> None:
    factor = float(chance.uniform(*RECIPES[kind].factor))
    length = span.stop - span.start
    if kind == "off_hours_spike":
        life.calls[agent, span] = factor * np.quantile(usual[agent], 0.95)
    elif kind == "runaway":
        life.calls[agent, span] *= factor ** (np.arange(1, length + 1) / length)
    elif kind in ("spike", "drop_to_zero"):
        life.calls[agent, span] *= factor
    elif kind == "token_bloat":
        life.unit_cost[agent, span] *= factor
    elif kind == "error_step":
        life.errors[agent, span] += factor
    else:
        life.latency[agent, span] *= factor


def _observe(chance: np.random.Generator, life: _Life) -> dict[str, Floats]:
    """Draw what is counted: negative-binomial calls, gamma costs, beta-binomial errors, log-normal latencies."""
    shape = life.calls.shape
    share = np.broadcast_to(life.dispersion, shape)
    calls = chance.poisson(life.calls * chance.gamma(1 / share, share)).astype(np.float64)
    some = calls > 0
    cost = np.where(some, chance.gamma(np.maximum(calls, 1) * 1.5) / 1.5 * life.unit_cost, 0.0)
    rate = np.clip(life.errors, 1e-6, 0.95)
    errors = chance.binomial(calls.astype(np.int64), chance.beta(rate * 80, (1 - rate) * 80)).astype(np.float64)
    scatter = np.sqrt(0.06**2 + 0.35**2 / np.maximum(calls, 1))
    latency = life.latency * np.exp(scatter * chance.standard_t(5, shape))
    unborn = np.arange(shape[1]) < life.born[:, None]
    known = np.where(unborn, np.nan, 1.0)
    active = np.where(some, known, np.nan)
    return {
        "calls": calls * known,
        "cost": cost * known,
        "unit_cost": cost / np.maximum(calls, 1) * active,
        "errors": errors * known,
        "latency": latency * active,
    }
