"""What people's verdicts are worth: ``python -m obs_pipeline_tests.performance.feedback_bench``.

A simulated fleet is computed; every alarm of its first weeks is judged as its labels say, as somebody with time and
knowledge would; the weeks after are replayed with and without these verdicts, and again with a third of them. Prints a
table for docs/detection.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from obs_pipeline.detection.backtest import Backtest, Incident, alarms_of, evaluate, read_incidents
from obs_pipeline.detection.batch import detection_of
from obs_pipeline.detection.config import AnomalyDetectionConfig, GrainMethods
from obs_pipeline.detection.known import NOTHING, Known
from obs_pipeline.detection.models import Anomaly, anomalies_from_table
from obs_pipeline.storage.anomaly_labels import AnomalyLabel
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange
from obs_pipeline_tests.command_line import CommandLine

START = date(2026, 1, 5)
LEARNING = 28
JUDGED = 42


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--agents", type=int, default=60)
    asked.add_argument("--days", type=int, default=112)
    asked.add_argument("--seed", type=int, default=7)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        obs = CommandLine(Path(folder) / "home")
        fleet = Path(folder) / "fleet"
        size = ("--agents", options.agents, "--days", options.days, "--seed", options.seed)
        obs("simulate", *size, "--start", START.isoformat(), "--out", fleet)
        obs("ingest", *sorted(fleet.rglob("*.parquet")))
        obs("batch", "--all")
        truth = read_incidents(fleet / "labels.csv")
        print("| hours judged by | verdicts | alarms a week | false | precision | recall |")
        print("|---|---|---|---|---|---|")
        for hour in ("zscore", "usage_model"):
            for name, report in _reports(obs, truth, options.days, hour):
                shares = f"{report.precision or 0:.2f} | {report.recall or 0:.2f}"
                print(f"| {hour} | {name} | {report.alarms_per_week:.1f} | {report.false} | {shares} |", flush=True)


def _reports(obs: CommandLine, truth: Sequence[Incident], days: int, hour: str) -> list[tuple[str, Backtest]]:
    config = AnomalyDetectionConfig(method=GrainMethods(hour=hour))  # type: ignore[arg-type]
    first = DayRange(START + timedelta(days=LEARNING), START + timedelta(days=LEARNING + JUDGED - 1))
    then = DayRange(first.last + timedelta(days=1), START + timedelta(days=days - 1))
    held = [one for one in truth if one.ends.date() > then.first]
    verdicts = _judged(_replayed(obs, first, config, NOTHING), truth)
    told = {"none": (), "a third": verdicts[::3], "all": verdicts}
    return [
        (
            f"{name} ({len(some)})",
            evaluate(_replayed(obs, then, config, Known((), tuple(some))), "warning", held, len(then), complete=True),
        )
        for name, some in told.items()
    ]


def _replayed(obs: CommandLine, days: DayRange, config: AnomalyDetectionConfig, known: Known) -> list[Anomaly]:
    with connect() as connection:
        return anomalies_from_table(detection_of(connection, obs.lake, days, config, known).anomalies)


def _judged(anomalies: Sequence[Anomaly], truth: Sequence[Incident]) -> list[AnomalyLabel]:
    """One verdict an alarm, on its worst anomaly."""
    return [
        AnomalyLabel(
            one.worst.id,
            "real" if evaluate(one.anomalies, "info", truth, 1, complete=True).right else "false_positive",
            *one.series,
            one.worst.metric,
            one.worst.grain,
            one.worst.timestamp,
            "labels",
            "",
            one.ends,
        )
        for one in alarms_of(anomalies, "warning")
    ]


if __name__ == "__main__":
    main()
