"""How many values a second one core judges: ``python -m obs_pipeline_tests.performance.detector_speed``.

Each detector of the batch over windows of 28 days, the usage model over nine weeks of hours, and the whole of ``detect``
over many series and over a long one. Made-up values, in memory: what reading and writing take is in ``bench``, which
prints this too. Nothing is asserted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from obs_pipeline.detection import usage_model
from obs_pipeline.detection.detectors import DETECTORS, trailing
from obs_pipeline.detection.panel_score import score_panel

SERIES: Final = 1_000
DAYS: Final = 200
LOOKBACK: Final = 28
WEEKS: Final = 9
LONG: Final = 1_000_000
REPEATS: Final = 3
HOUR: Final = 3600.0


def values_per_second() -> dict[str, float]:
    """Values judged a second of the processor, the fastest of a few runs: by detector, model, and shape of a table."""
    random = np.random.default_rng(7)
    days = random.gamma(4.0, 25.0, (SERIES, DAYS))
    hours = random.poisson(30.0, (SERIES, WEEKS * 168)).astype(np.float64)
    windows = trailing(days, LOOKBACK)
    pace = {
        f"{name}, windows of {LOOKBACK}": _pace(days.size, partial(detector, windows, days, 7))
        for name, detector in DETECTORS.items()
    }
    pace["usage model, amounts"] = _pace(hours.size, lambda: usage_model.score("amount", hours))
    pace["detect, 1,000 series of an hour's step"] = _pace(hours.size, lambda: score_panel(hours, step=HOUR))
    minutes = random.normal(100.0, 5.0, (1, LONG))
    pace["detect, one series of a million minutes"] = _pace(LONG, lambda: score_panel(minutes, step=60.0))
    return pace


def _pace(values: int, work: Callable[[], object]) -> float:
    work()  # compiled, and warm
    took = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return values / min(took)


def table_of(pace: Mapping[str, float]) -> Table:
    """Millions of values a second."""
    table = Table("", title="Values judged a second of one core", title_justify="left")
    table.add_column("million", justify="right")
    for name, one in pace.items():
        table.add_row(name, f"{one / 1e6:.2f}")
    return table


if __name__ == "__main__":
    Console(highlight=False).print(table_of(values_per_second()))
