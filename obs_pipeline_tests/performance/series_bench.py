"""How good the command ``detect`` is on series unlike a fleet of agents, beside three simple detectors.

Run as ``python -m obs_pipeline_tests.performance.series_bench`` or in ``make bench-detection``. Scores come from the call
the command makes: for every series as a table of its own, for every family as a table, for all in one, and for all in one
as if the values were an hour apart. No detector sees ahead. The families that the detector was chosen by and those held
out from that choice are told apart. Prints the tables of docs/detection.md and writes ``bench-results/series.json``;
nothing is asserted.

Measures, all without the first 15 % of each series:

1. ``NAB``: the score of Lavin and Ahmad, "Evaluating real-time anomaly detection algorithms – the Numenta anomaly
   benchmark" (ICMLA 2015), standard profile. One threshold for all series, the best. A window is centred on the beginning
   of its anomaly, so that what sees nothing before it reaches 93 at most.
2. ``AP``: mean over series of the average precision of the points; the odd points are the positives.
3. ``F1``: mean over series of the best F1 of the points, each series at its own threshold; no point adjustment.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from obs_pipeline.detection.panel_config import PanelConfig
from obs_pipeline.detection.panel_score import score_series
from obs_pipeline_tests.performance.made_series import DAY, FAMILIES, HELD_OUT, HOUR, Floats, Series, as_hours, made

WORLDS: Final = {"chosen by": FAMILIES, "held out": HELD_OUT}
RESULT: Final = Path(__file__).resolve().parents[2] / "bench-results" / "series.json"
PROBATION: Final = 0.15
FALSE_ALARM: Final = 0.11
STEEPNESS: Final = 5.0
FARTHEST: Final = 3.0
"""A false alarm more than so many window lengths after the last window costs all there is to cost."""

_POINTS: Final = 200
_FLOOR: Final = 1e-6

Detector = Callable[[Sequence[Series]], list[Floats]]


class Gains(NamedTuple):
    """What lowering the threshold to ``scores`` adds to the sum of the benchmark, one entry per point after probation, from
    −``windows`` on, the sum of a detector that never detects."""

    scores: Floats
    gains: Floats
    windows: int


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--each", type=int, default=6, help="Series of each family.")
    options = asked.parse_args()
    results = {}
    for world, families in WORLDS.items():
        everything = list(made(options.seed, options.each, families))
        results[world] = {name: measured(everything, detector) for name, detector in DETECTORS.items()}
        _print(world, results[world])
    RESULT.parent.mkdir(exist_ok=True)
    told = {"seed": options.seed, "each": options.each, "detectors": results}
    RESULT.write_text(json.dumps(told, indent=1) + "\n")


def measured(everything: Sequence[Series], detector: Detector) -> dict[str, Any]:
    """All measures of one detector, overall and by family."""
    began = time.process_time()
    scores = detector(everything)
    seconds = time.process_time() - began
    gains = [window_gains(one, score) for one, score in zip(everything, scores, strict=True)]
    threshold, overall = best_threshold(gains)
    points = [point_measures(one, score) for one, score in zip(everything, scores, strict=True)]
    families = {}
    for family in dict.fromkeys(one.family for one in everything):
        of = [place for place, one in enumerate(everything) if one.family == family]
        precision, f1 = np.mean([points[place] for place in of], axis=0)
        nab = nab_score([gains[place] for place in of], threshold)
        families[family] = {"nab": nab, "average_precision": float(precision), "best_f1": float(f1)}
    precision, f1 = np.mean(points, axis=0)
    return {
        "nab": overall,
        "average_precision": float(precision),
        "best_f1": float(f1),
        "threshold": threshold,
        "cpu_seconds": seconds,
        "families": families,
    }


def reward(position: Floats) -> Floats:
    """The scaled sigmoid: some 1 at the beginning of a window (−1), 0 at its end, −1 long after it, where the unit is the
    length of the window."""
    scaled: Floats = 2.0 / (1.0 + np.exp(STEEPNESS * np.minimum(position, 50.0))) - 1.0
    return np.where(position > FARTHEST, -1.0, scaled)


def window_gains(series: Series, scores: Floats) -> Gains:
    """A window is worth what its earliest detection is worth, −1 without one; each detection outside costs."""
    size, tried = scores.size, int(PROBATION * scores.size)
    first, end = series.windows[:, 0], series.windows[:, 1]
    place = np.arange(size)
    owner = np.searchsorted(first, place, side="right") - 1
    inside = (owner >= 0) & (place < end[owner])
    length = (end - first)[owner]
    after = np.where(owner >= 0, (place - end[owner] + 1) / (length - 1), np.inf)
    gains = FALSE_ALARM * reward(after)
    worth = reward((place - end[owner]) / length) / reward(np.array(-1.0))
    for window in range(first.size):
        points = np.flatnonzero(inside & (owner == window))
        points = points[np.argsort(-scores[points], kind="stable")]
        gains[points] = np.diff(np.maximum.accumulate(worth[points]), prepend=-1.0)
    return Gains(scores[tried:], gains[tried:], first.size)


def nab_score(gains: Sequence[Gains], threshold: float) -> float:
    """0 for a detector that never detects, 100 for one that detects the beginning of each window and nothing else."""
    added = sum(float(one.gains[one.scores >= threshold].sum()) for one in gains)
    return 100.0 * added / (2.0 * sum(one.windows for one in gains))


def best_threshold(gains: Sequence[Gains]) -> tuple[float, float]:
    """The threshold, one for all series, with the largest score, and that score; infinite if none is above 0."""
    scores = np.concatenate([one.scores for one in gains])
    order = np.argsort(-scores, kind="stable")
    sums = np.cumsum(np.concatenate([one.gains for one in gains])[order])
    whole = np.append(np.diff(scores[order]) != 0, True)  # equal scores are detected together
    sums = np.where(whole, sums, -np.inf)
    best = int(np.argmax(sums))
    if sums[best] <= 0:
        return float("inf"), 0.0
    return float(scores[order[best]]), 100.0 * float(sums[best]) / (2.0 * sum(one.windows for one in gains))


def point_measures(series: Series, scores: Floats) -> tuple[float, float]:
    """Average precision and best F1; points of the same score are found together."""
    tried = int(PROBATION * scores.size)
    odd, scores = series.anomalous[tried:], scores[tried:]
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(odd[order])[last]
    precision = found / (np.flatnonzero(last) + 1.0)
    recall = found / odd.sum()
    average = float((np.diff(recall, prepend=0.0) * precision).sum())
    return average, float((2 * found / (np.flatnonzero(last) + 1.0 + odd.sum())).max())


def _table(series: Sequence[Series], config: PanelConfig) -> list[Floats]:
    """The scores of one table, series by series."""
    ends = np.cumsum([0, *(one.values.size for one in series)]).astype(np.int64)
    values, times = (
        np.concatenate(column) for column in zip(*((one.values, one.times) for one in series), strict=True)
    )
    return np.split(score_series(values, ends, times=times, config=config).score, ends[1:-1])


def _tables(key: Callable[[int, Series], object], config: PanelConfig) -> Detector:
    """Series with the same key, which follow each other, stand in one table."""

    def scores(everything: Sequence[Series]) -> list[Floats]:
        groups = groupby(enumerate(everything), lambda pair: key(*pair))
        tables = [[one for _, one in group] for _, group in groups]
        return [found for table in tables for found in _table(table, config)]

    return scores


def _hours_apart(detector: Detector) -> Detector:
    return lambda everything: detector([as_hours(one) for one in everything])


def _each(detector: Callable[[Series], Floats]) -> Detector:
    return lambda everything: [detector(one) for one in everything]


def _span(series: Series) -> int:
    """28 days of hours, of anything quicker 200 points."""
    return int(28 * DAY / HOUR) if series.period >= HOUR else _POINTS


def _distance(values: Floats, middle: Floats, spread: Floats) -> Floats:
    return np.nan_to_num(np.abs(values - middle) / np.maximum(spread, _FLOOR * (1.0 + np.abs(middle))))


def _moving_z(series: Series) -> Floats:
    import pandas as pd

    past = pd.Series(series.values).shift(1).rolling(_span(series), min_periods=20)
    return _distance(series.values, past.mean().to_numpy(), past.std().to_numpy())


def _quartiles(series: Series) -> Floats:
    """How many interquartile ranges beyond the nearer quartile."""
    import pandas as pd

    past = pd.Series(series.values).shift(1).rolling(_span(series), min_periods=20)
    low, high = past.quantile(0.25).to_numpy(), past.quantile(0.75).to_numpy()
    return _distance(series.values, np.clip(series.values, low, high), high - low)


def _holt(series: Series, level_share: float = 0.2, slope_share: float = 0.02, spread_share: float = 0.02) -> Floats:
    """The error of a level and a slope, both exponentially weighted, in units of its own moving size."""
    values = series.values.tolist()
    scores = np.zeros(len(values))
    level, slope, square = values[0], 0.0, 0.0
    for place, value in enumerate(values):
        if value != value:
            continue
        error = value - level - slope
        if place >= 20:
            scores[place] = abs(error) / max(square**0.5, _FLOOR * (1.0 + abs(level)))
        before, level = level, level + slope + level_share * error
        slope += slope_share * (level - before - slope)
        square += max(spread_share, 1.0 / (place + 1)) * (error * error - square)
    return scores


_USUAL: Final = PanelConfig(workers=1)

DETECTORS: Final[dict[str, Detector]] = {
    "`detect`, a file per series": _tables(lambda place, series: place, _USUAL),
    "`detect`, a file per family": _tables(lambda place, series: series.family, _USUAL),
    "`detect`, all in one file": _tables(lambda place, series: None, _USUAL),
    "`detect`, all in one file, as hours": _hours_apart(_tables(lambda place, series: None, _USUAL)),
    "`detect`, `usage_model: false`": _tables(lambda place, series: None, PanelConfig(workers=1, usage_model=False)),
    "moving z-score": _each(_moving_z),
    "Holt's residual": _each(_holt),
    "interquartile ranges": _each(_quartiles),
}


_BY_FAMILY: Final = (
    "`detect`, all in one file",
    "`detect`, all in one file, as hours",
    "moving z-score",
    "Holt's residual",
)


def _print(world: str, results: dict[str, dict[str, Any]]) -> None:
    print(f"\n<!-- families {world} -->\n| detector | NAB | AP | F1 | CPU s |\n|---|---|---|---|---|")
    for name, one in results.items():
        print(
            f"| {name} | {one['nab']:.1f} | {one['average_precision']:.3f} | {one['best_f1']:.3f}"
            f" | {one['cpu_seconds']:.1f} |"
        )
    print("\n| NAB / AP | " + " | ".join(_BY_FAMILY) + " |\n|---|" + "---|" * len(_BY_FAMILY))
    for family in WORLDS[world]:
        cells = [results[name]["families"][family] for name in _BY_FAMILY]
        print(f"| {family} | " + " | ".join(f"{c['nab']:.0f} / {c['average_precision']:.2f}" for c in cells) + " |")


if __name__ == "__main__":
    main()
