"""Whether the likely cause that ``explain`` names is the fault that was put in: simulated fleets with labels.

Run as ``python -m obs_pipeline_tests.performance.cause_bench``. Each fleet goes through the whole pipeline, as a user's
files do; every labelled fault is asked for its worst anomaly (its agent, its metrics, its hours or days), and that for
its cause. Prints the table of docs/detection.md. No test: it takes minutes.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, time
from functools import partial
from pathlib import Path

from obs_pipeline.dashboard import queries
from obs_pipeline.detection.explanations import explain_anomalies, list_rates
from obs_pipeline.detection.models import Anomaly
from obs_pipeline.storage.engine import connect
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline_tests.command_line import CommandLine

NOT_FOUND = "(not found)"
RIGHT = {
    "spike": {"more calls"},
    "off_hours_spike": {"more calls"},
    "drift": {"more calls"},
    "drop_to_zero": {"fewer calls"},
    "retry_storm": {"retry storm"},
    "error_step": {"failing calls"},
    "latency_step": {"slower answers"},
    "runaway_context": {"runaway context"},
    "mispriced_call": {"mispriced call"},
    "model_swap": {"model swap"},
}
"""What should be named for each kind of fault."""


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--agents", type=int, default=60)
    asked.add_argument("--days", type=int, default=49)
    asked.add_argument("--seeds", type=int, default=4)
    options = asked.parse_args()
    pairs: Counter[tuple[str, str]] = Counter()
    for seed in range(1, options.seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            pairs.update(_judged(Path(folder), options.agents, options.days, seed))
    _print(pairs)


def _judged(folder: Path, agents: int, days: int, seed: int) -> Iterator[tuple[str, str]]:
    """(kind of fault, cause named) for every label."""
    obs = CommandLine(folder / "home")
    obs("simulate", "-o", folder / "sim", "--agents", agents, "--days", days, "--seed", seed, "--start", "2025-09-01")
    obs("ingest", folder / "sim" / "usage")
    obs("batch", "--all")
    with (folder / "sim" / "labels.csv").open(encoding="utf-8") as file:
        labels = list(csv.DictReader(file))
    with connect(threads=2) as connection:
        found = queries.anomalies(connection, obs.lake, limit=1_000_000)
        worst = [_worst(found, label) for label in labels]
        chosen = [one for one in worst if one is not None]
        rates = partial(list_rates, PriceBook.load(None))
        causes = {one.anomaly.id: one.cause for one in explain_anomalies(connection, obs.lake, chosen, 28, rates)}
    for label, anomaly in zip(labels, worst, strict=True):
        yield label["kind"], NOT_FOUND if anomaly is None else causes[anomaly.id].name


def _worst(found: list[Anomaly], label: dict[str, str]) -> Anomaly | None:
    start, end = (datetime.fromisoformat(label[name]).replace(tzinfo=None) for name in ("start", "end"))
    where = (label["org"], label["project"], label["agent"])
    metrics = label["metrics"].split("+")
    first_day = datetime.combine(start.date(), time())
    fitting = (
        one
        for one in found
        if (one.org, one.project, one.agent) == where
        and one.metric in metrics
        and (start if one.grain == "hour" else first_day) <= one.timestamp < end
    )
    # An hour says more precisely what happened than its day; of equals the first, the list is worst first.
    return min(fitting, key=lambda one: (one.grain == "day", -one.score), default=None)


def _print(pairs: Counter[tuple[str, str]]) -> None:
    causes = sorted({cause for _, cause in pairs}, key=lambda cause: (cause == NOT_FOUND, cause))
    print("| fault | " + " | ".join(causes) + " | right of those found |")
    print("|---|" + "---|" * (len(causes) + 1))
    for kind in RIGHT:
        counts = [pairs[kind, cause] for cause in causes]
        named = sum(counts) - pairs[kind, NOT_FOUND]
        right = sum(pairs[kind, cause] for cause in RIGHT[kind])
        cells = " | ".join(str(count) if count else "" for count in counts)
        print(f"| {kind.replace('_', ' ')} | {cells} | {right} of {named} |")
    named = sum(count for (_, cause), count in pairs.items() if cause != NOT_FOUND)
    right = sum(count for (kind, cause), count in pairs.items() if cause in RIGHT[kind])
    print(f"\n{right} of {named} causes right; {sum(pairs.values())} faults, {sum(pairs.values()) - named} not found.")


if __name__ == "__main__":
    main()
