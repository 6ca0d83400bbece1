"""Every detector of days, or of hours, and the ensemble of them on labelled fleets:
``python -m obs_pipeline_tests.performance.ensemble_bench [--grain hour] [--write-tables]``.

Prints a table for docs/detection.md: how well the deviations order the days of an agent, its metrics taken together by the
largest, once they matter (materiality); without any threshold. A false alarm is a normal day of an agent that reaches a mark,
an incident is found when one of the days that it touches reaches it. For hours both are counted by half days.

``--alarms`` holds against the labels what people are rung for, of severity warning and of info: each method for days through the
whole detection, hours by the usage model or left out (``--days-alone``), on the fleets that ``reliability_bench`` asks.

``--write-tables`` learns the shipped tables of the ensemble on the designed fleets of :data:`LEARNED_ON`, on days without
incidents; the foreign kind is not learned from.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, get_args

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection import ensemble, judging, metrics
from obs_pipeline.detection.backtest import Incident, evaluate
from obs_pipeline.detection.batch import detection_of
from obs_pipeline.detection.config import GRAINS, METRICS, AnomalyDetectionConfig, Grain, GrainMethods, Method, Metric
from obs_pipeline.detection.detectors import DETECTORS, Baseline, change_of_level
from obs_pipeline.detection.judging import Judged
from obs_pipeline.detection.known import NOTHING
from obs_pipeline.detection.models import Severity, anomalies_from_table
from obs_pipeline.detection.panel import Panel, build_panel
from obs_pipeline.storage.engine import connect, load_sql
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_HOURLY
from obs_pipeline_tests.performance import fleet_lake
from obs_pipeline_tests.performance.fleets import FLEETS
from obs_pipeline_tests.performance.reliability_bench import HELD_OUT, START, labelled_lake, span_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEARNED_ON: Final[Mapping[Grain, Sequence[int]]] = {"day": range(301, 307), "hour": (301, 302)}
ORDERED: Final = (501, 502, 503, 504)
ALLOWED: Final = (1.0, 0.2, 0.1, 0.05, 0.02)
"""False alarms per agent-week."""

BY_Z: Final = AnomalyDetectionConfig(method=GrainMethods(day="ensemble", hour="ensemble"))


@dataclass(frozen=True)
class Labelled:
    """A fleet's usage and what is wrong with it: ``incident`` (series, block) is the number of one, or −1. Blocks are days, or
    half days of hours, after the look-back; what touches a block is in it."""

    panel: Panel
    incident: npt.NDArray[np.int64]
    incidents: int

    @property
    def normal(self) -> Bools:
        return self.incident < 0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--agents", type=int, default=40)
    asked.add_argument("--weeks", type=int, default=14)
    asked.add_argument("--grain", choices=GRAINS, default="day")
    asked.add_argument("--seeds", type=int, nargs="+", default=ORDERED)
    asked.add_argument("--write-tables", action="store_true")
    asked.add_argument("--alarms", action="store_true")
    asked.add_argument("--days-alone", action="store_true")
    asked.add_argument("--homes", type=Path, help="as for reliability_bench")
    asked.add_argument("--methods", choices=get_args(Method), nargs="+", default=get_args(Method))
    options = asked.parse_args()
    if options.write_tables:
        tables = {}
        for grain, seeds in LEARNED_ON.items():
            some = list(fleets("designed", grain, seeds, options))
            tables |= {f"{metric}:{grain}": learned(metric, grain, some) for metric in METRICS}
        ensemble.save(tables, ensemble.SHIPPED_FILE)
        return
    if options.alarms:
        print_alarms(options)
        return
    print("| detector | AUPRC |", " | ".join(f"recall at {one:g}" for one in ALLOWED), "|")
    print("|---" * (2 + len(ALLOWED)) + "|")
    for kind in FLEETS:
        some = list(fleets(kind, options.grain, options.seeds, options))
        for name in [*ensemble.VOICES, "ensemble"]:
            auprc, recall = measured(some, [strongest(one, options.grain, name) for one in some])
            print(f"| {kind}: `{name}` | {auprc:.3f} |", " | ".join(f"{one:.2f}" for one in recall), "|", flush=True)


def print_alarms(options: argparse.Namespace) -> None:
    """A table of false alarms per agent and 30 days, precision and recall, by kind of fleet and method for days."""
    print("| fleets | days by | from | false a month | precision | recall |")
    print("|---|---|---|---|---|---|")
    span = span_of(options.weeks)
    for kind, seeds in HELD_OUT.items():
        counts: dict[tuple[str, Severity], Counter[str]] = defaultdict(Counter)
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                lake, truth = labelled_lake(kind, seed, options, Path(folder))
                held = [one for one in truth if one.ends.date() > span.first]
                for method in options.methods:
                    grains = ("day",) if options.days_alone else GRAINS
                    config = AnomalyDetectionConfig(method=GrainMethods(day=method), grains=grains)
                    with connect() as connection:
                        found = anomalies_from_table(detection_of(connection, lake, span, config, NOTHING).anomalies)
                    for least in ("warning", "info"):
                        report = evaluate(found, least, held, len(span), complete=True)
                        counts[method, least].update(
                            false=report.false, right=report.right, found=report.found, incidents=report.incidents
                        )
        months = len(seeds) * options.agents * len(span) / 30
        for (method, least), one in counts.items():
            precision, recall = one["right"] / max(one["right"] + one["false"], 1), one["found"] / one["incidents"]
            print(f"| {kind} | `{method}` | {least} | {one['false'] / months:.2f} | {precision:.2f} | {recall:.2f} |")


def fleets(kind: str, grain: Grain, seeds: Sequence[int], options: argparse.Namespace) -> Iterator[Labelled]:
    """The fleets of one kind with their labels."""
    for seed in seeds:
        fleet = FLEETS[kind](seed, options.agents, options.weeks)
        with tempfile.TemporaryDirectory() as folder:
            lake = fleet_lake.write(fleet, Path(folder), START)
            panel = _panel(lake, grain, options.weeks)
        yield _labelled(panel, fleet_lake.incidents(fleet, START), grain)


def learned(metric: Metric, grain: Grain, fleets: Sequence[Labelled]) -> ensemble.Tails:
    """The tables of one metric, of what is ordinary in these fleets: no incident, and enough of a past."""
    sigmas, ordinary = [], []
    for fleet in fleets:
        sigmas.append(np.stack([judged(fleet, metric, grain, name).deviation for name in ensemble.VOICES]))
        days = fleet.normal.reshape(len(fleet.normal), -1, _a_day(grain)).all(axis=2)
        ordinary.append(days)
    return ensemble.fit(np.concatenate(sigmas, axis=1), np.concatenate(ordinary), grain)


def judged(fleet: Labelled, metric: Metric, grain: Grain, name: str) -> Judged:
    """What one detector says of one metric, deviations in its own unit."""
    detector = {**DETECTORS, "change_of_level": change_of_level, "ensemble": ensemble_of(metric, grain)}[name]
    return judging._judge_windows(fleet.panel, metric, grain, BY_Z, detector, None)


def ensemble_of(metric: Metric, grain: Grain):
    """The ensemble, whose tables may not be there yet."""

    def heard(*values: object, **options: object) -> Baseline:
        return ensemble.detector(metric, grain)(*values, **options)

    return heard


def strongest(fleet: Labelled, grain: Grain, name: str) -> Floats:
    """(series, block): the largest deviation of any metric that matters."""
    found = np.zeros(fleet.incident.shape)
    for metric in METRICS:
        one = judged(fleet, metric, grain, name)
        sizes = np.where(_material(one, metric, grain), np.abs(np.nan_to_num(one.deviation)), 0.0)
        series, _, days = sizes.shape
        blocks = sizes.transpose(0, 2, 1).reshape(series, days * _a_day(grain), -1)
        found = np.maximum(found, blocks.max(axis=2))
    return found


def measured(fleets: Sequence[Labelled], strengths: Sequence[Floats]) -> tuple[float, list[float]]:
    """Area under precision and recall of incidents, and recall at each of :data:`ALLOWED`."""
    normal = np.sort(np.concatenate([some[one.normal] for one, some in zip(fleets, strengths, strict=True)]))[::-1]
    weeks = sum(one.normal.sum() for one in fleets) / (7 * fleets[0].incident.shape[1] / _days(fleets[0]))
    best = np.array(
        [
            some[one.incident == number].max(initial=0.0)
            for one, some in zip(fleets, strengths, strict=True)
            for number in range(one.incidents)
            if (one.incident == number).any()
        ]
    )
    area, last = 0.0, 0.0
    for mark in np.unique(best[best > 0])[::-1]:
        recall, right = float((best >= mark).mean()), int((best >= mark).sum())
        area += (recall - last) * right / (right + int((normal >= mark).sum()))
        last = recall
    marks = [normal[min(int(rate * weeks), normal.size - 1)] for rate in ALLOWED]
    return area, [float((best > max(mark, 0.0)).mean()) for mark in marks]


def _material(one: Judged, metric: Metric, grain: Grain) -> Bools:
    excess = metrics.excess(metric, one.observed, one.expected, one.exposure)
    usual = metrics.excess(metric, one.expected, np.zeros(1), one.exposure)
    with np.errstate(invalid="ignore"):
        counts = (excess > 0) | one.drops
        large = np.abs(excess) >= np.maximum(BY_Z.materiality.floor(metric, grain), 0.25 * np.abs(usual))
    found: Bools = counts & large
    return found


def _a_day(grain: Grain) -> int:
    return 1 if grain == "day" else 2


def _days(fleet: Labelled) -> int:
    return fleet.panel.days - BY_Z.lookback_days


def _panel(lake: Lake, grain: Grain, weeks: int) -> Panel:
    days = DayRange(START, START + timedelta(days=7 * weeks - 1))
    with connect() as connection:
        lake.view(connection, USAGE_HOURLY, days)
        lake.view(connection, USAGE_DAILY, days)
        query = "series_daily" if grain == "day" else "series_hourly"
        usage = connection.sql(load_sql("obs_pipeline.detection", query)).to_arrow_table()
    quiet, calls = BY_Z.source_silence_hours, BY_Z.minimum_calls.latency
    return build_panel(usage, grain, days.first, days.last, silence_hours=quiet, latency_calls=calls)


def _labelled(panel: Panel, truth: Sequence[Incident], grain: Grain) -> Labelled:
    place = {row["agent"]: number for number, row in enumerate(panel.series.to_pylist())}
    length = timedelta(days=1) / _a_day(grain)
    incident = np.full((len(place), panel.days * _a_day(grain)), -1)
    start = np.datetime64(START, "us").item()
    for number, one in enumerate(truth):
        if one.series[2] in place:
            first, last = (one.begins - start) // length, (one.ends - timedelta(microseconds=1) - start) // length
            incident[place[one.series[2]], first : last + 1] = number
    return Labelled(panel, incident[:, BY_Z.lookback_days * _a_day(grain) :], len(truth))


if __name__ == "__main__":
    main()
