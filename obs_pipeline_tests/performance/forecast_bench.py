"""How good the forecasts are, by replay: the sample and two simulated fleets, three horizons, several methods.

Run as ``make bench-forecasts``. Every method sees only the days before the day it speaks of. Prints the tables of
docs/detection.md: coverage and width of the 80 % interval, its interval score (Gneiting and Raftery, JASA 102, 2007) and
the error of its middle. No test: it measures.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import numpy as np

from obs_pipeline.detection import forecasts
from obs_pipeline.detection.forecasts import COVERAGE, Floats, Ints
from obs_pipeline_tests.command_line import SAMPLE
from obs_pipeline_tests.performance import fleets

HORIZONS = (1, 7, 30)
FIRST_ORIGIN = 126
EVERY = 3
MOST = 20.0
"""No width, score or error counts more than so many times the usual spend: one call of ten thousand dollars would else
decide the tables of the sample."""
EDGE = 1.2815515655446004
ETS_SCOPES, ETS_EVERY, ETS_PATHS = 24, 14, 200

Interval = tuple[Floats, Floats, Floats]
"""Middle, lower and upper end, (scope,)."""


class Case(NamedTuple):
    """Daily spend, (scope, day), the kind of each scope, the weekday of the first day."""

    name: str
    spend: Floats
    kinds: Ints
    first_weekday: int


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--without-statsmodels", action="store_true", help="Leave out the slow one.")
    options = asked.parse_args()
    for case in _cases():
        print(f"\n{case.name}: {case.spend.shape[0]} scopes, {case.spend.shape[1]} days\n")
        print("| method | " + " | ".join(f"{h} d: coverage | width | score | error" for h in HORIZONS) + " |")
        print("|---|" + "---|" * (4 * len(HORIZONS)))
        learned = forecasts.learn(case.spend, case.first_weekday)
        for name, method in METHODS.items():
            _row(name, case, [_measured(case, learned, method, horizon) for horizon in HORIZONS])
        if not options.without_statsmodels:
            few = _few(case)
            _row(f"exponential smoothing (statsmodels), {few.spend.shape[0]} scopes", few, _exponential(few))
            learned = forecasts.learn(few.spend, few.first_weekday)
            origins = range(FIRST_ORIGIN, few.spend.shape[1], ETS_EVERY)
            rows = [_measured(few, learned, METHODS["weekday profile, conformal"], h, origins) for h in HORIZONS]
            _row("weekday profile, conformal, the same scopes and days", few, rows)
    _speed()


def _cases() -> Iterator[Case]:
    yield _sample()
    for name, make in fleets.FLEETS.items():
        fleet = make(1, agents=120, weeks=30)
        agents = np.nan_to_num(fleet.values["cost"]).reshape(120, -1, 24).sum(axis=2)
        projects = agents.reshape(15, 8, -1).sum(axis=1)
        yield _case(f"Simulated fleet, {name}", agents, projects, 0)


def _sample() -> Case:
    first, last = date(2024, 8, 13), date(2026, 4, 25)
    names: dict[str, int] = {}
    spend = np.zeros((64, (last - first).days + 1))
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as file:
        for line in file:
            event = json.loads(line)
            agent = str(event["properties"].get("edit_format"))
            day = (datetime.fromtimestamp(event["time"], UTC).date() - first).days
            cost = float(event["properties"].get("cost") or 0)
            # The one call of ten thousand dollars is in it, as it is in the lake.
            spend[names.setdefault(agent, len(names)), day] += cost
    agents = spend[: len(names)]
    return _case("Sample", agents, agents.sum(axis=0, keepdims=True), first.weekday())


def _case(name: str, agents: Floats, projects: Floats, first_weekday: int) -> Case:
    spend = np.concatenate([agents, projects, projects.sum(axis=0, keepdims=True)])
    kinds = np.repeat([2, 1, 0], [len(agents), len(projects), 1])
    return Case(name, spend, kinds, first_weekday)


def _few(case: Case) -> Case:
    dearest = np.argsort(-case.spend.sum(axis=1))[:ETS_SCOPES]
    return Case(case.name, case.spend[dearest], case.kinds[dearest], case.first_weekday)


# ---- methods: (case, learned, origin, horizon) → interval --------------------------------------------------------------


def _run_rate(case: Case, _learned: Any, origin: int, horizon: int) -> Interval:
    """The mean of the last seven days goes on; days are independent and normal, their spread that of 28 days."""
    middle = case.spend[:, origin - 7 : origin].mean(axis=1) * horizon
    reach = EDGE * case.spend[:, origin - 28 : origin].std(axis=1) * np.sqrt(horizon)
    return middle, np.maximum(middle - reach, 0), middle + reach


def _run_rate_conformal(case: Case, _learned: Any, origin: int, horizon: int) -> Interval:
    """The same middle, its interval from its own misses of the last 56 days, in units of itself."""
    total = np.concatenate([np.zeros((len(case.spend), 1)), np.cumsum(case.spend, axis=1)], axis=1)
    origins = np.arange(max(7, origin - horizon - 55), origin - horizon + 1)
    means = (total[:, origins] - total[:, origins - 7]) / 7 * horizon
    actual = total[:, origins + horizon] - total[:, origins]
    spread = np.sqrt(horizon) * case.spend[:, origin - 28 : origin].std(axis=1) + 1e-12
    ends = forecasts.bounds(
        _alike((actual - means) / spread[:, None]), case.kinds, np.ones(len(case.spend), dtype=bool)
    )
    middle = case.spend[:, origin - 7 : origin].mean(axis=1) * horizon
    return middle, np.maximum(middle + ends[:, 0] * spread, 0), middle + ends[:, 1] * spread


def _alike(missed: Floats) -> forecasts.Missed:
    return forecasts.Missed(missed, np.ones(missed.shape, dtype=bool), np.zeros(missed.shape))


def _profile_normal(case: Case, learned: forecasts.Learned, origin: int, horizon: int) -> Interval:
    """The middle of the product, days independent and normal."""
    at = np.array([origin])
    middle = forecasts.ahead(learned, at, horizon).sum(axis=-1)[:, 0]
    reach = EDGE * np.sqrt(learned.variance[:, origin] * horizon)
    return middle, np.maximum(middle - reach, 0), middle + reach


def _profile_conformal(case: Case, learned: forecasts.Learned, origin: int, horizon: int) -> Interval:
    """The product."""
    at = np.array([origin])
    middle = forecasts.ahead(learned, at, horizon).sum(axis=-1)
    unit = forecasts.units(learned, at, horizon, middle)[:, 0]
    ends = forecasts.bounds_ahead(learned, horizon, origin, case.kinds)
    low, high = (middle[:, 0] + end * unit for end in ends.T)
    return middle[:, 0], np.maximum(low, 0), np.maximum(high, 0)


METHODS: dict[str, Callable[[Case, Any, int, int], Interval]] = {
    "run rate, normal": _run_rate,
    "run rate, conformal": _run_rate_conformal,
    "weekday profile, normal": _profile_normal,
    "weekday profile, conformal": _profile_conformal,
}


# ---- measures ---------------------------------------------------------------------------------------------------------


def _measured(
    case: Case, learned: forecasts.Learned, method: Callable[..., Interval], horizon: int, origins: Any = None
) -> list[float]:
    chosen = origins or range(FIRST_ORIGIN, case.spend.shape[1] - horizon + 1, EVERY)
    rows = [
        _judged(case, learned, origin, horizon, method(case, learned, origin, horizon))
        for origin in chosen
        if origin + horizon <= case.spend.shape[1]
    ]
    return _summed(rows)


def _judged(case: Case, learned: forecasts.Learned, origin: int, horizon: int, told: Interval) -> Floats:
    """(measure, scope) for the scopes that have a forecast: covered, width, score, error."""
    middle, low, high = told
    actual = case.spend[:, origin : origin + horizon].sum(axis=1)
    outside = np.maximum(low - actual, 0) + np.maximum(actual - high, 0)
    score = high - low + 2 / (1 - COVERAGE) * outside
    # In units of what the scope spends in such a time, or every table would speak of the dearest scope alone.
    usual = case.spend.mean(axis=1) * horizon
    fit = (learned.age[:, origin] >= forecasts.LEAST_DAYS) & ~np.isnan(low) & (usual > 0)
    by_scope = np.array([outside == 0, (high - low), score, np.abs(actual - middle)])[:, fit]
    by_scope[1:] = np.minimum(by_scope[1:] / usual[fit], MOST)
    return by_scope


def _summed(rows: list[Floats]) -> list[float]:
    return [float(value) for value in np.concatenate(rows, axis=1).mean(axis=1)]


def _row(name: str, _case_of: Case, by_horizon: list[list[float]]) -> None:
    cells = [f"{row[0]:.2f} | {row[1]:.2f} | {row[2]:.2f} | {row[3]:.2f}" for row in by_horizon]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _exponential(case: Case) -> list[list[float]]:
    """Additive errors, damped trend, weekly season, refitted at every origin; the interval from simulated paths."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    learned = forecasts.learn(case.spend, case.first_weekday)
    rows: dict[int, list[Floats]] = {horizon: [] for horizon in HORIZONS}
    for origin in range(FIRST_ORIGIN, case.spend.shape[1], ETS_EVERY):
        ends = np.full((len(HORIZONS), 3, len(case.spend)), np.nan)
        for scope in np.flatnonzero(learned.age[:, origin] >= forecasts.LEAST_DAYS):
            history = case.spend[scope, max(0, origin - forecasts.HISTORY_DAYS) : origin]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = ETSModel(
                    history + 1e-9, error="add", trend="add", damped_trend=True, seasonal="add", seasonal_periods=7
                )
                fit = model.fit(disp=False, maxiter=50)
                paths = fit.simulate(max(HORIZONS), anchor="end", repetitions=ETS_PATHS, rng=np.random.default_rng(1))
            sums = np.cumsum(np.maximum(np.asarray(paths).reshape(max(HORIZONS), -1), 0), axis=0)
            for place, horizon in enumerate(HORIZONS):
                ends[place, :, scope] = np.quantile(sums[horizon - 1], [0.5, 0.1, 0.9])
        for place, horizon in enumerate(HORIZONS):
            if origin + horizon <= case.spend.shape[1]:
                rows[horizon].append(_judged(case, learned, origin, horizon, tuple(ends[place])))  # type: ignore[arg-type]
    return [_summed(rows[horizon]) for horizon in HORIZONS]


def _speed() -> None:
    chance = np.random.default_rng(1)
    spend = chance.gamma(0.5, 2.0, (10_500, forecasts.HISTORY_DAYS))
    started = time.perf_counter()
    learned = forecasts.learn(spend, 0)
    kinds = np.repeat([2, 1, 0], [10_000, 499, 1])
    at = np.array([spend.shape[1]])
    for horizon in (1, 5, 20):
        forecasts.units(learned, at, horizon, forecasts.ahead(learned, at, horizon).sum(axis=-1))
        forecasts.bounds_ahead(learned, horizon, spend.shape[1], kinds)
    print(f"\n10,500 scopes x {spend.shape[1]} days, three windows: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
