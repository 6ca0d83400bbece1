"""What people's verdicts are worth: ``python -m obs_pipeline_tests.performance.feedback_bench [--seeds 301 302 303]``.

Fleets of both kinds are judged with the default settings; the alarms of the first six weeks after four of learning are judged
as their labels say, as somebody with time and knowledge would: with ``obs-pipeline label`` on the worst anomaly of each, or
with ``alerts resolve``, which speaks of all of them. The six weeks after are replayed with and without these verdicts. Prints
a table for docs/detection.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path

from obs_pipeline.detection.backtest import Alarm, Incident, alarms_of, evaluate
from obs_pipeline.detection.batch import detection_of
from obs_pipeline.detection.config import AnomalyDetectionConfig, GrainMethods
from obs_pipeline.detection.incidents import ends_of
from obs_pipeline.detection.known import NOTHING, Known
from obs_pipeline.detection.models import Anomaly, anomalies_from_table
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, Verdict
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline_tests.performance import fleet_lake
from obs_pipeline_tests.performance.fleets import FLEETS

START = date(2026, 1, 5)
LEARNING = 28
JUDGED = 42
FIRST = DayRange(START + timedelta(days=LEARNING), START + timedelta(days=LEARNING + JUDGED - 1))
THEN = DayRange(FIRST.last + timedelta(days=1), FIRST.last + timedelta(days=JUDGED))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--agents", type=int, default=40)
    asked.add_argument("--seeds", type=int, nargs="+", default=(301, 302, 303))
    asked.add_argument("--hours", choices=["usage_model", "zscore"], help="the method for hours, if not the default")
    options = asked.parse_args()
    config = AnomalyDetectionConfig()
    if options.hours is not None:
        config = AnomalyDetectionConfig(method=GrainMethods(hour=options.hours))
    print(f"Hours by {config.method.hour}, days by {config.method.day}.\n")
    print("| fleet | verdicts | alarms a week | false | precision | recall |")
    print("|---|---|---|---|---|---|")
    for kind in FLEETS:
        sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for seed in options.seeds:
            for name, counts in _counts(kind, seed, options.agents, config):
                sums[name].update(counts)
        for name, count in sums.items():
            alarms = count["right"] + count["false"]
            weekly = alarms / (len(options.seeds) * len(THEN) / 7)
            shares = f"{count['right'] / max(alarms, 1):.2f} | {count['found'] / max(count['incidents'], 1):.2f}"
            print(f"| {kind} | {name} ({count['labels']}) | {weekly:.1f} | {count['false']} | {shares} |", flush=True)


def _counts(kind: str, seed: int, agents: int, config: AnomalyDetectionConfig) -> Iterator[tuple[str, Counter[str]]]:
    fleet = FLEETS[kind](seed, agents, len(THEN) // 7 + len(FIRST) // 7 + LEARNING // 7)
    truth = fleet_lake.incidents(fleet, START)
    held = [one for one in truth if one.ends.date() > THEN.first]
    with tempfile.TemporaryDirectory() as folder:
        lake = fleet_lake.write(fleet, Path(folder), START)
        alarms = alarms_of(_replayed(lake, FIRST, config, NOTHING), "warning")
        of_worst = [_label(one.worst, _verdict(one, truth)) for one in alarms]
        of_all = [_label(each, _verdict(one, truth)) for one in alarms for each in one.anomalies]
        said = {"none": [], "a third, on the worst": of_worst[::3], "on the worst": of_worst, "on the incident": of_all}
        for name, labels in said.items():
            found = _replayed(lake, THEN, config, Known((), tuple(labels)))
            report = evaluate(found, "warning", held, len(THEN), complete=True)
            yield (
                name,
                Counter(
                    labels=len(labels),
                    right=report.right,
                    false=report.false,
                    found=report.found,
                    incidents=report.incidents,
                ),
            )


def _replayed(lake: Lake, days: DayRange, config: AnomalyDetectionConfig, known: Known) -> list[Anomaly]:
    with connect() as connection:
        return anomalies_from_table(detection_of(connection, lake, days, config, known).anomalies)


def _verdict(alarm: Alarm, truth: Sequence[Incident]) -> Verdict:
    return "real" if evaluate(alarm.anomalies, "info", truth, 1, complete=True).right else "false_positive"


def _label(one: Anomaly, verdict: Verdict) -> AnomalyLabel:
    return AnomalyLabel(
        anomaly_id=one.id,
        verdict=verdict,
        org=one.org,
        project=one.project,
        agent=one.agent,
        metric=one.metric,
        grain=one.grain,
        timestamp=one.timestamp,
        author="labels",
        note="",
        at=ends_of(one),
        ends=ends_of(one),
    )


if __name__ == "__main__":
    main()
