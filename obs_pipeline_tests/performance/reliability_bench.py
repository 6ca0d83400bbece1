"""Whether ``confidence`` is true: ``python -m obs_pipeline_tests.performance.reliability_bench [--seeds 3 5]``.

Simulated fleets go through the whole batch with the default settings. Each alarm after the first four weeks, of any
severity, is held against the labels; how many were right, by the confidence of its worst anomaly, is printed as a table
for docs/detection.md, and the Brier score beside it. ``--fit`` prints the two numbers of each rule in ``scoring`` as these
fleets would have them; the seeds that they were learned on are those of :data:`LEARNED_ON`, others are held out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from obs_pipeline.detection import scoring
from obs_pipeline.detection.backtest import alarms_of, evaluate, read_incidents
from obs_pipeline.detection.batch import detection_of
from obs_pipeline.detection.config import CALIBRATED, AnomalyDetectionConfig
from obs_pipeline.detection.detectors import DETECTORS
from obs_pipeline.detection.known import NOTHING
from obs_pipeline.detection.models import anomalies_from_table
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange
from obs_pipeline_tests.command_line import CommandLine

START: Final = date(2026, 1, 5)
LEARNING: Final = 28
LEARNED_ON: Final = (5, 7, 11)
HELD_OUT: Final = (3,)
EDGES: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)


class Told(NamedTuple):
    """One alarm: the confidence and the method of its worst anomaly, and whether it was right."""

    confidence: float
    method: str
    right: bool


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--agents", type=int, default=40)
    asked.add_argument("--days", type=int, default=98)
    asked.add_argument("--seeds", type=int, nargs="+", default=HELD_OUT)
    asked.add_argument(
        "--homes", type=Path, help="a folder with fleet<seed>/home and fleet<seed>/fleet already computed"
    )
    asked.add_argument("--fit", action="store_true")
    options = asked.parse_args()
    told: list[Told] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            place = (options.homes or Path(folder)) / f"fleet{seed}"
            if options.homes is None:
                _compute(place, options.agents, options.days, seed)
            told += told_of(place, options.days)
    if options.fit:
        for rule in scoring.RULES:
            print(
                rule, *(f"{number:.2f}" for number in _fitted([one for one in told if _rule(one.method) == rule], rule))
            )
        return
    print(*table(told), sep="\n")
    print(f"\nBrier score {np.mean([(one.confidence - one.right) ** 2 for one in told]):.3f}, {len(told)} alarms")


def _compute(place: Path, agents: int, days: int, seed: int) -> None:
    obs = CommandLine(place / "home")
    size = ("--agents", agents, "--days", days, "--seed", seed)
    obs("simulate", *size, "--start", START.isoformat(), "--out", place / "fleet")
    obs("ingest", *sorted((place / "fleet").rglob("*.parquet")))
    obs("batch", "--all")


def told_of(place: Path, days: int) -> list[Told]:
    """The alarms of a fleet that went through the batch, after its first four weeks."""
    span = DayRange(START + timedelta(days=LEARNING), START + timedelta(days=days - 1))
    with connect() as connection:
        lake = CommandLine(place / "home").lake
        found = detection_of(connection, lake, span, AnomalyDetectionConfig(), NOTHING).anomalies
    truth = read_incidents(place / "fleet" / "labels.csv")
    return [
        Told(one.worst.confidence, one.worst.method, evaluate(one.anomalies, "info", truth, 1, complete=True).right > 0)
        for one in alarms_of(anomalies_from_table(found), "info")
    ]


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
    if method in CALIBRATED:
        return "model"
    return "windows" if method in DETECTORS else None


def _fitted(told: Sequence[Told], rule: str) -> tuple[float, float]:
    """Offset and slope of the logit that make what was right likeliest (Platt, 1999), held to a weak prior of (0, 1).

    What is told already went through the rule in force, which is undone first.
    """
    from scipy.optimize import minimize

    raw = scoring.logit(np.array([one.confidence for one in told]))
    offset, slope = scoring.RULES[rule]
    raw = (raw - offset) / slope
    right = np.array([one.right for one in told], dtype=float)

    def loss(numbers: np.ndarray) -> float:
        at = numbers[0] + numbers[1] * raw
        return float(np.sum(np.logaddexp(0, at) - right * at) + 0.5 * (numbers[1] - 1) ** 2 + 0.1 * numbers[0] ** 2)

    found = minimize(loss, np.array([0.0, 1.0]))
    return float(found.x[0]), float(found.x[1])


if __name__ == "__main__":
    main()
