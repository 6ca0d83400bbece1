"""Whether ``confidence`` is true: ``python -m obs_pipeline_tests.performance.reliability_bench [--seeds 3]``.

Fleets are judged with the default settings: those of ``simulate``, which go through the whole batch as files of events,
and both kinds of ``fleets``, of which one is made of series that nothing here was designed for. Each alarm after the first
four weeks, of any severity, is held against the labels; how many were right, by the confidence of its worst anomaly, is
printed as a table for docs/detection.md, and the Brier score beside it. ``--fit`` prints the two numbers of each rule in
``scoring`` as the fleets of :data:`LEARNED_ON` would have them; the seeds that are asked by default are others.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, get_args
from unittest import mock

import numpy as np

from obs_pipeline.detection import scoring
from obs_pipeline.detection.backtest import Incident, alarms_of, evaluate, read_incidents
from obs_pipeline.detection.batch import detection_of
from obs_pipeline.detection.config import AnomalyDetectionConfig, GrainMethods, Method
from obs_pipeline.detection.detectors import DETECTORS
from obs_pipeline.detection.known import NOTHING
from obs_pipeline.detection.models import anomalies_from_table
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.performance import fleet_lake
from obs_pipeline_tests.performance.fleets import FLEETS

START: Final = date(2026, 1, 5)
LEARNING: Final = 28
SIMULATED: Final = "simulated"
LEARNED_ON: Final[Mapping[str, Sequence[int]]] = {
    SIMULATED: (5, 7, 11),
    "designed": range(101, 107),
    "foreign": range(101, 107),
}
HELD_OUT: Final[Mapping[str, Sequence[int]]] = {
    SIMULATED: (3, 13),
    "designed": range(201, 207),
    "foreign": range(201, 207),
}
EDGES: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)


class Told(NamedTuple):
    """One alarm: the confidence and the method of its worst anomaly, whether it was right, and of what kind of fleet."""

    confidence: float
    method: str
    right: bool
    fleet: str


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--agents", type=int, default=40)
    asked.add_argument("--weeks", type=int, default=14)
    asked.add_argument("--fleet", choices=[SIMULATED, *FLEETS], help="one kind alone")
    asked.add_argument("--seeds", type=int, nargs="+", help="these instead of those held out")
    asked.add_argument(
        "--homes", type=Path, help="a folder with fleet<seed>/home and fleet<seed>/fleet already computed"
    )
    asked.add_argument("--days", choices=get_args(Method), help="the method for days, if not the default")
    asked.add_argument("--fit", action="store_true")
    options = asked.parse_args()
    told: list[Told] = []
    for name, seeds in (LEARNED_ON if options.fit else HELD_OUT).items():
        if options.fleet in (None, name):
            for seed in options.seeds or seeds:
                told += _told(name, seed, options)
    if options.fit:
        for rule in scoring.RULES:
            offset, slope = fitted([one for one in told if _rule(one.method) == rule])
            print(f"{rule}: offset {offset:.2f}, slope {slope:.2f}")
        return
    for name in dict.fromkeys(one.fleet for one in told):
        some = [one for one in told if one.fleet == name]
        print(f"\n{name.capitalize()}, {len(some)} alarms, Brier score {_brier(some):.3f}\n", *table(some), sep="\n")
    print(f"\nAll, {len(told)} alarms, Brier score {_brier(told):.3f}\n", *table(told), sep="\n")


def _told(name: str, seed: int, options: argparse.Namespace) -> list[Told]:
    with tempfile.TemporaryDirectory() as folder:
        lake, truth = labelled_lake(name, seed, options, Path(folder))
        with mock.patch.multiple(scoring, **(_AS_BAYES_SAYS if options.fit else _AS_TOLD)):
            return told_of(lake, span_of(options.weeks), truth, name, config_of(options.days))


def span_of(weeks: int) -> DayRange:
    """The days of which alarms are held against the labels."""
    return DayRange(START + timedelta(days=LEARNING), START + timedelta(days=7 * weeks - 1))


def labelled_lake(name: str, seed: int, options: argparse.Namespace, folder: Path) -> tuple[Lake, Sequence[Incident]]:
    """A fleet's usage, computed in ``folder`` unless it is among the homes, and what is wrong with it."""
    if name == SIMULATED:
        place = (options.homes or folder) / f"fleet{seed}"
        if options.homes is None:
            _compute(place, options.agents, 7 * options.weeks, seed)
        return CommandLine(place / "home").lake, read_incidents(place / "fleet" / "labels.csv")
    fleet = FLEETS[name](seed, options.agents, options.weeks)
    return fleet_lake.write(fleet, folder, START), fleet_lake.incidents(fleet, START)


_AS_TOLD: Final = {"RULES": scoring.RULES}
_AS_BAYES_SAYS: Final = {"RULES": dict.fromkeys(scoring.RULES, (0.0, 1.0)), "LARGEST_CONFIDENCE": 1.0}


def _compute(place: Path, agents: int, days: int, seed: int) -> None:
    obs = CommandLine(place / "home")
    size = ("--agents", agents, "--days", days, "--seed", seed)
    obs("simulate", *size, "--start", START.isoformat(), "--out", place / "fleet")
    obs("ingest", *sorted((place / "fleet").rglob("*.parquet")))
    obs("batch", "--all")


def config_of(days: Method | None) -> AnomalyDetectionConfig:
    """The defaults, with another method for days if one is named."""
    return AnomalyDetectionConfig() if days is None else AnomalyDetectionConfig(method=GrainMethods(day=days))


def told_of(
    lake: Lake, span: DayRange, truth: Sequence[Incident], name: str, config: AnomalyDetectionConfig
) -> list[Told]:
    """The alarms of these days of a fleet's lake, judged anew."""
    with connect() as connection:
        found = detection_of(connection, lake, span, config, NOTHING).anomalies
    return [
        Told(
            one.worst.confidence,
            one.worst.method,
            evaluate(one.anomalies, "info", truth, 1, complete=True).right > 0,
            name,
        )
        for one in alarms_of(anomalies_from_table(found), "info")
    ]


def _brier(told: Sequence[Told]) -> float:
    return float(np.mean([(one.confidence - one.right) ** 2 for one in told]))


def table(told: Sequence[Told]) -> list[str]:
    """Lines of Markdown: what was said, how often, and how often rightly."""
    said = np.array([one.confidence for one in told])
    right = np.array([one.right for one in told])
    lines = ["| confidence | alarms | right | share | said, on average |", "|---|---|---|---|---|"]
    for low, high in pairwise(EDGES):
        here = (said >= low) & ((said < high) | (high == EDGES[-1]))
        if here.any():
            share, mean = right[here].mean(), said[here].mean()
            lines.append(f"| {low:g} to {high:g} | {here.sum()} | {right[here].sum()} | {share:.2f} | {mean:.2f} |")
    return lines


def _rule(method: str) -> str | None:
    """The rule that the confidence of a method went through."""
    if method in scoring.RULE_OF:
        return scoring.RULE_OF[method]
    return "windows" if method in DETECTORS else None


def fitted(told: Sequence[Told]) -> tuple[float, float]:
    """Offset and slope of the logit that make what was right likeliest (Platt, 1999), held to a weak prior of (0, 1).

    ``told`` says what Bayes does. Each kind of fleet weighs the same, however often it rang.
    """
    from scipy.optimize import minimize

    raw = scoring.logit(np.array([one.confidence for one in told]))
    right = np.array([one.right for one in told], dtype=float)
    alarms = Counter(one.fleet for one in told)
    weights = np.array([len(told) / len(alarms) / alarms[one.fleet] for one in told])

    def loss(numbers: np.ndarray) -> float:
        at = numbers[0] + numbers[1] * raw
        missed = np.sum(weights * (np.logaddexp(0, at) - right * at))
        return float(missed + 0.5 * (numbers[1] - 1) ** 2 + 0.1 * numbers[0] ** 2)

    found = minimize(loss, np.array([0.0, 1.0]))
    return float(found.x[0]), float(found.x[1])


if __name__ == "__main__":
    main()
