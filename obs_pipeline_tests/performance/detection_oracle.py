"""The bound no detector can pass: a judge that knows the generator's law, and lacks only what chance will do.

It knows each agent's true mean of every hour (deploys included), its dispersion, the law of its bursts and switches,
and how each kind of incident looks; it does not know the draws. Hour by hour it weighs, with the hours so far alone,
every incident that may have begun against none (a likelihood ratio, mixed over begin, length and size), which no test
beats at the same false alarms (Neyman and Pearson, Phil. Trans. A 231, 1933), up to the coarseness of its grid.
What it misses, nobody can find. Bursts and switches are states that it filters (Baum and Petrie, Annals of
Mathematical Statistics 37, 1966). Numbers of the detectors themselves are in ``detection_bench``.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from obs_pipeline_tests.performance.fleets import LEARNING_WEEKS, RECIPES, WEEK, Fleet

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CALLS_KINDS: Final = ("spike", "off_hours_spike", "runaway", "drop_to_zero")
STEP_KINDS: Final = ("token_bloat", "error_step", "latency_step")
LEADS: Final = {
    "calls": CALLS_KINDS,
    "unit_cost": ("token_bloat",),
    "errors": ("error_step",),
    "latency": ("latency_step",),
}
SIZES: Final = {
    "spike": (3.5, 5.0, 7.0, 9.0),
    "off_hours_spike": (0.75, 1.0, 1.3),
    "runaway": (3.3, 4.0, 4.7),
    "drop_to_zero": (1e-6,),
    "token_bloat": (1.8, 2.3, 2.9, 3.6),
    "error_step": (0.13, 0.2, 0.3, 0.43),
    "latency_step": (1.8, 2.3, 2.9, 3.6),
}
RUNAWAY_HOURS: Final = (52, 64, 76, 88)
_BURST_POINTS: Final = 33
_PARETO_POINTS: Final = 24
_NEVER: Final = -1e300
_FLAT, _RAMP, _LEVEL = range(3)


def oracle(fleet: Fleet) -> dict[str, Floats]:
    """The log odds that an incident is under way, hour by hour, at the metric that shows it best; the rest is zero."""
    agents, hours = fleet.calls.shape
    steps = {kind: np.stack([_step_ratio(fleet, kind, size) for size in SIZES[kind]]) for kind in STEP_KINDS}
    weights = {kind: _weights(fleet, kind) for kind in RECIPES}
    odds = np.zeros((len(LEADS), agents, hours))
    for agent in range(agents):
        ratios, still_on, ages, groups = [], [], [], []
        for group, kinds in enumerate(LEADS.values()):
            for kind in kinds:
                weight = weights[kind][agent]
                if kind in CALLS_KINDS:
                    found = _calls_ratios(fleet, kind, agent, weight.size)
                else:
                    found = _step_ratios(steps[kind][:, agent], weight.size)
                shapes = found.shape[1] // weight.size
                ratios.append(found)
                still_on.append(np.tile(weight / shapes, shapes))
                ages.append(np.tile(np.arange(weight.size), shapes))
                groups.append(np.full(found.shape[1], group))
        _forward(
            np.concatenate(ratios, axis=1), np.concatenate(still_on), np.concatenate(ages), np.concatenate(groups),
            LEARNING_WEEKS * WEEK, odds[:, agent],
        )  # fmt: skip
    leading, total = odds.argmax(axis=0), np.logaddexp.reduce(odds)
    # Shifted so that no evidence at all is still above the zero of the metrics that do not lead.
    lifted = np.maximum(np.nan_to_num(total, neginf=_NEVER) + 60.0, 0.0)
    scores = {metric: np.where(leading == at, lifted, 0.0) for at, metric in enumerate(LEADS)}
    return scores | {"cost": np.zeros_like(total)}


def _step_ratios(steps: Floats, longest: int) -> Floats:
    """(begin, size × age): the log likelihood ratio of the hours from its begin on to that age."""
    sizes, hours = steps.shape
    sums = np.concatenate([np.zeros((sizes, 1)), np.cumsum(steps, axis=1)], axis=1)
    until = np.minimum(np.arange(hours)[:, None] + np.arange(longest) + 1, hours)
    ratios = sums[:, until] - sums[:, :hours, None]
    return np.asarray(ratios.transpose(1, 0, 2).reshape(hours, -1), dtype=np.float64)


@numba.njit(cache=True)
def _forward(ratios: Floats, still_on: Floats, ages: Ints, groups: Ints, first: int, odds: Floats) -> None:
    """Weighs what is on against none and against what was on and is over, from hour to hour."""
    hours, columns = ratios.shape
    none = np.zeros(hours + 1)  # log evidence that nothing is on at the end of the hour before
    odds[:, :first] = -1e300
    on = np.zeros(len(odds))
    for t in range(first, hours):
        high = none[t]
        for c in range(columns):
            s = t - ages[c]
            if s >= first and still_on[c] > 0.0:
                high = max(high, none[s] + ratios[s, c])
        on[:] = 0.0
        over = 0.0
        for c in range(columns):
            s = t - ages[c]
            if s < first or still_on[c] <= 0.0:
                continue
            evidence = math.exp(none[s] + ratios[s, c] - high)
            on[groups[c]] += still_on[c] * evidence
            after = still_on[c + 1] if c + 1 < columns and ages[c + 1] == ages[c] + 1 else 0.0
            over += (still_on[c] - after) * evidence
        for group in range(len(on)):
            odds[group, t] = math.log(on[group] + 1e-300) + high - none[t]
        none[t + 1] = high + math.log(math.exp(none[t] - high) + over)


def _step_ratio(fleet: Fleet, kind: str, size: float) -> Floats:
    """The log likelihood ratio of single hours, given their calls."""
    from scipy import stats
    from scipy.special import betaln

    calls, truth = fleet.calls, fleet.truth
    some = np.maximum(np.nan_to_num(calls), 1.0)
    if kind == "token_bloat":
        ratio = 1.5 * some * (fleet.values["cost"] / some / truth.unit_cost * (1 - 1 / size) - np.log(size))
    elif kind == "error_step":
        failed, usual = np.nan_to_num(fleet.values["errors"]), np.clip(truth.errors, 1e-6, 0.95)
        raised = np.clip(truth.errors + size, 1e-6, 0.95)

        def log_likelihood(rate: Floats) -> Floats:
            alpha, beta = rate * 80, (1 - rate) * 80
            likelihood: Floats = betaln(failed + alpha, some - failed + beta) - betaln(alpha, beta)
            return likelihood

        ratio = log_likelihood(raised) - log_likelihood(usual)
    else:
        scatter = np.sqrt(0.06**2 + 0.35**2 / some)
        off = np.log(fleet.values["latency"] / truth.latency)
        ratio = stats.t.logpdf((off - np.log(size)) / scatter, 5) - stats.t.logpdf(off / scatter, 5)
    return np.asarray(np.where(np.nan_to_num(calls) > 0, ratio, 0.0), dtype=np.float64)


def _weights(fleet: Fleet, kind: str) -> Floats:
    """How often an incident of this kind begins that is still on after so many hours, (agents, ages).

    Only lengths that touch enough of the agent's calls are ever drawn.
    """
    shortest, longest = RECIPES[kind].hours
    first = LEARNING_WEEKS * WEEK
    usual = fleet.truth.usual
    rate = np.quantile(usual, 0.95, axis=1)
    lengths = np.arange(shortest, longest + 1)
    possible = rate[:, None] * lengths > RECIPES[kind].calls
    still_on = np.array([[(lengths > age)] for age in range(longest)]).transpose(1, 0, 2)[0]
    per_hour = 1.0 / (len(RECIPES) * max(usual.shape[1] - first, 1))
    return np.asarray((possible[:, None, :] & still_on[None]).mean(axis=2) * per_hour, dtype=np.float64)


def _calls_ratios(fleet: Fleet, kind: str, agent: int, longest: int) -> Floats:
    """(begin, shape × age): as :func:`_step_ratios`, with the chance factor filtered."""
    truth = fleet.truth
    states, starts, leave, other = _chance(fleet.kinds[agent], truth.luck[agent])
    peak = float(np.quantile(truth.usual[agent], 0.95))
    if kind == "off_hours_spike":
        shapes = [(_LEVEL, size * peak, 0.0) for size in SIZES[kind]]
    elif kind == "runaway":
        shapes = [(_RAMP, size, float(length)) for size in SIZES[kind] for length in RUNAWAY_HOURS]
    else:
        shapes = [(_FLAT, size, 0.0) for size in SIZES[kind]]
    hours = fleet.calls.shape[1]
    ratios = np.full((hours, len(shapes), longest), _NEVER)
    _filter(
        fleet.calls[agent], truth.usual[agent] / truth.luck[agent], 1.0 / float(truth.dispersion[agent, 0]),
        states, starts, leave, other, fleet.kinds[agent] == "bursty", 0.25 * peak, np.array(shapes),
        LEARNING_WEEKS * WEEK, 2 if kind == "runaway" else 1, ratios,
    )  # fmt: skip
    return ratios.reshape(hours, -1)


def _chance(kind: str, luck: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The states of an agent's chance factor: factors, where one is at first, rate of leaving, where one goes.

    The last is (2, states): from the first state, and from all others.
    """
    if kind == "bursty":
        points = np.linspace(-3.2, 3.2, _BURST_POINTS) * 1.1
        prior = np.exp(-0.5 * (points / 1.1) ** 2)
        prior /= prior.sum()
        return np.exp(points), prior, np.ones(_BURST_POINTS), np.stack([prior, prior])
    if kind == "pareto":
        shares = (np.arange(_PARETO_POINTS) + 0.5) / _PARETO_POINTS
        factors = np.concatenate([[0.7], 0.7 + (1 - shares) ** (-1 / 1.7) - 1])
        entered = np.concatenate([[0.0], np.full(_PARETO_POINTS, 1 / _PARETO_POINTS)])
        back = np.eye(len(factors))[0]
        leave = np.full(len(factors), 0.4)
        leave[0] = 0.03
        return factors, 0.93 * back + 0.07 * entered, leave, np.stack([entered, back])
    if kind == "switching":
        factors = np.array([1.0, float(luck.min())])
        return factors, np.full(2, 0.5), np.full(2, 1 / 40), np.array([[0.0, 1.0], [1.0, 0.0]])
    return np.ones(1), np.ones(1), np.zeros(1), np.ones((2, 1))


@numba.njit(cache=True)
def _seen(x: float, mean: float, k: float) -> float:
    """log of the negative binomial's probability, without what does not depend on the mean."""
    mean = max(mean, 1e-9)
    return x * math.log(mean / (mean + k)) - k * math.log(1.0 + mean / k)


@numba.njit(cache=True)
def _moved(belief: Floats, hour: int, bursty: bool, leave: Floats, other: Floats) -> None:
    if len(belief) == 1 or (bursty and hour % 3 != 0):
        return
    first = belief[0] * leave[0]
    rest = 0.0
    for z in range(1, len(belief)):
        rest += belief[z] * leave[z]
    for z in range(len(belief)):
        belief[z] = belief[z] * (1.0 - leave[z]) + first * other[0, z] + rest * other[1, z]


@numba.njit(cache=True)
def _taken(belief: Floats, logs: Floats) -> float:
    """Weighs the belief by what was seen and returns the log of how likely that was."""
    highest = float(logs.max())
    if highest <= -1e290:
        return -1e300
    total = 0.0
    for z in range(len(belief)):
        belief[z] *= math.exp(logs[z] - highest)
        total += belief[z]
    if total <= 0.0:
        return -1e300
    for z in range(len(belief)):
        belief[z] /= total
    return highest + math.log(total)


@numba.njit(cache=True)
def _filter(
    x: Floats, base: Floats, k: float, states: Floats, starts: Floats, leave: Floats, other: Floats,
    bursty: bool, quiet: float, shapes: Floats, first: int, stride: int, ratios: Floats,
) -> None:  # fmt: skip
    hours, n = len(x), len(states)
    beliefs = np.empty((hours + 1, n))
    normal = np.zeros(hours)
    belief = starts.copy()
    logs = np.empty(n)
    for t in range(hours):
        _moved(belief, t, bursty, leave, other)
        beliefs[t] = belief
        if math.isnan(x[t]):
            continue
        for z in range(n):
            logs[z] = _seen(x[t], base[t] * states[z], k)
        normal[t] = _taken(belief, logs)
    for s in range(first, hours, stride):
        for which in range(len(shapes)):
            sort, size, length = int(shapes[which, 0]), shapes[which, 1], shapes[which, 2]
            belief[:] = beliefs[s]
            ratio = 0.0
            for age in range(ratios.shape[2]):
                t = s + age
                if t >= hours or math.isnan(x[t]) or (sort == 1 and age >= length):
                    break
                if age > 0:
                    _moved(belief, t, bursty, leave, other)
                for z in range(n):
                    usual = base[t] * states[z]
                    if sort == 0:
                        logs[z] = _seen(x[t], usual * size, k)
                    elif sort == 1:
                        logs[z] = _seen(x[t], usual * size ** ((age + 1) / length), k)
                    else:
                        logs[z] = _seen(x[t], size, k) if usual < quiet else -1e300
                seen = _taken(belief, logs)
                if seen <= -1e290:
                    break
                ratio += seen - normal[t]
                ratios[s, which, age] = ratio
