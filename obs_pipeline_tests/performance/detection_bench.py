"""How well the detectors find labelled incidents in two made-up fleets: ``make bench-detection``.

``python -m obs_pipeline_tests.performance.detection_bench [--seeds N] [--agents A] [--write-default | --tables]``

An *alarm* is a 12-hour block of one series whose largest score reaches the mark; it is false when no hour of it lies
in an incident of the agent or in the day after it. An incident is *found* when a series it shows in reaches the mark
during it. AUPRC is the area under precision (found / (found + false alarms)) over the share found, as the mark falls.
Four weeks are for learning; what follows is judged. Every detector is causal. The usage model is calibrated at the
start of each judged week from the four weeks before it, unlabelled, incidents included.
Prints a table and writes ``bench-results/detection.json``; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from obs_pipeline.cli.console import progress
from obs_pipeline.detection import calibration, usage_model
from obs_pipeline_tests.performance.fleets import FLEETS, LEARNING_WEEKS, METRICS, WEEK, Fleet

Floats = npt.NDArray[np.float64]
Scores = Mapping[str, Floats]

RATES: Final = (1.0, 0.25, 0.1, 0.05, 0.02)
RESULT: Final = Path(__file__).resolve().parents[2] / "bench-results" / "detection.json"
DEFAULT_SEED: Final = 1_000
KINDS: Final[Mapping[str, usage_model.Kind]] = {
    "calls": "amount",
    "cost": "amount",
    "tokens": "amount",
    "unit_cost": "ratio",
    "errors": "failures",
    "latency": "ratio",
}
_MODEL: Final = "usage model"
_BY_KIND: Final = ("z-score, 28 days", "Holt-Winters (statsmodels)", _MODEL, "usage model, joint test")
_BY_KIND_AT: Final = 0.1
BATCH_METRICS: Final = ("cost", "tokens", "errors", "latency")
console = Console(highlight=False, width=150)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--agents", type=int, default=120)
    parser.add_argument("--only", choices=sorted(DETECTORS), help="one detector alone")
    parser.add_argument("--write-default", action="store_true", help="make the shipped calibration and stop")
    parser.add_argument(
        "--tables", action="store_true", help="print the last result as the tables of the page and stop"
    )
    chosen = parser.parse_args(arguments)
    if chosen.tables:
        print(tables(json.loads(RESULT.read_text())))
        return
    if chosen.write_default:
        calibration.save(*_default_tables(chosen.agents))
        return
    detectors = _chosen(chosen.only)
    results: dict[str, dict[str, Any]] = {fleet: {} for fleet in FLEETS}
    with progress() as bar:
        task = bar.add_task("", total=len(FLEETS) * len(detectors) * chosen.seeds)
        for fleet, make in FLEETS.items():
            for name, detect in detectors:
                bar.update(task, description=f"{fleet}: {name}")
                results[fleet][name] = measure(make, chosen.seeds, chosen.agents, _told(detect, bar, task))
    for fleet, rows in results.items():
        console.print(_table(fleet, rows))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"seeds": chosen.seeds, "agents": chosen.agents, "fleets": results}, indent=1) + "\n")


def _told(detect: Callable[[Fleet], Scores], bar: Progress, task: TaskID) -> Callable[[Fleet], Scores]:
    """The same detector, which moves the bar by each fleet it has judged."""

    def judged(fleet: Fleet) -> Scores:
        scores = detect(fleet)
        bar.advance(task)
        return scores

    return judged


def zscore(days: int) -> Callable[[Fleet], Scores]:
    """|value − mean| / deviation of the trailing days; errors as a ratio, as a textbook would."""

    def scores(fleet: Fleet) -> Scores:
        return {metric: _standardised(_plain(fleet, metric), days * 24) for metric in METRICS}

    return scores


def iqr(fleet: Fleet) -> Scores:
    """Distance outside the quartiles of the trailing week, in interquartile ranges."""
    import pandas as pd

    found = {}
    for metric in METRICS:
        values = _plain(fleet, metric)
        rolling = pd.DataFrame(values.T).shift(1).rolling(7 * 24, min_periods=24)
        low, high = rolling.quantile(0.25).to_numpy().T, rolling.quantile(0.75).to_numpy().T
        outside = np.maximum(low - values, values - high)
        found[metric] = np.nan_to_num(np.maximum(outside, 0.0) / np.maximum(high - low, 1e-12), nan=0.0)
    return found


def holt_winters(fleet: Fleet) -> Scores:
    """statsmodels' exponential smoothing with a day's season on roots, its one-step errors standardised over 28 days.

    The smoothing weights are fixed (0.1), the start is taken from the first days: nothing later is seen.
    """
    return {metric: _standardised(_smoothing_errors(_plain(fleet, metric)), 28 * 24) for metric in METRICS}


def usage(fleet: Fleet) -> Scores:
    """The usage model, calibrated weekly on the fleet's own trailing weeks."""
    return {metric: _rung(_surprises(fleet, metric, None), usage_residuals(fleet, metric).age) for metric in METRICS}


def usage_shipped(fleet: Fleet) -> Scores:
    """The usage model with the shipped calibration."""
    tables = calibration.shipped()
    return {metric: _rung(_surprises(fleet, metric, tables), usage_residuals(fleet, metric).age) for metric in METRICS}


def usage_joint(fleet: Fleet) -> Scores:
    """The usage model with the joint test over an agent's metrics: the surprise stands at the metric that leads."""
    joint = _joint(fleet)
    rung = _rung(joint.surprise, usage_residuals(fleet, "calls").age)
    return {metric: np.where(joint.leading == at, rung, 0.0) for at, metric in enumerate(METRICS)}


DETECTORS: Final[Mapping[str, Callable[[Fleet], Scores]]] = {
    "z-score, 7 days": zscore(7),
    "z-score, 28 days": zscore(28),
    "IQR, 7 days": iqr,
    "Holt-Winters (statsmodels)": holt_winters,
    "usage model, shipped calibration": usage_shipped,
    "usage model": usage,
    "usage model, joint test": usage_joint,
}


def _chosen(only: str | None) -> list[tuple[str, Callable[[Fleet], Scores]]]:
    return [(name, detect) for name, detect in DETECTORS.items() if only in (None, name)]


def usage_residuals(fleet: Fleet, metric: str) -> usage_model.Scored:
    trials = None if KINDS[metric] == "amount" else fleet.calls
    return usage_model.score(KINDS[metric], fleet.values[metric], trials)


def _surprises(fleet: Fleet, metric: str, tables: calibration.Calibration | None) -> Floats:
    """S of each judged hour, NaN before; without tables calibrated weekly on the four weeks before."""
    scored = usage_residuals(fleet, metric)
    found = np.full(fleet.calls.shape, np.nan)
    for past, week in _weeks(fleet):
        tails = (
            calibration.fit(_part(scored, past), calibration.shipped()[metric]) if tables is None else tables[metric]
        )
        assert tails is not None, "the fleet is too small to learn from"
        found[:, week] = calibration.surprise(tails, _part(scored, week))[0]
    return found


def _joint(fleet: Fleet) -> calibration.Joint:
    alone = np.stack([_surprises(fleet, metric, None) for metric in METRICS])
    return calibration.joint_surprise(alone, calibration.shipped_joint(METRICS))


def _rung(surprises: Floats, age: Floats) -> Floats:
    """What is left to ring with: onsets, less what is asked more of young series."""
    return np.nan_to_num(calibration.onsets(surprises) - calibration.raised_mark(age), nan=0.0, neginf=0.0)


def _weeks(fleet: Fleet) -> Iterator[tuple[slice, slice]]:
    """The judged weeks, each with the weeks before that it is calibrated on."""
    for start in range(LEARNING_WEEKS * WEEK, fleet.calls.shape[1], WEEK):
        yield slice(start - LEARNING_WEEKS * WEEK, start), slice(start, start + WEEK)


def _part(scored: usage_model.Scored, hours: slice) -> usage_model.Scored:
    cut = {name: getattr(scored, name)[..., hours] for name in scored._fields if name != "state"}
    return scored._replace(**cut)


def _default_tables(agents: int) -> tuple[calibration.Calibration, Path, Mapping[str, calibration.JointTails]]:
    """Tables of fleets of seeds that no measurement uses, their incidents left out, and where they belong.

    Four designed fleets teach the tables of single metrics and how their surprises go together. Where these are borrowed, as in a
    small fleet, they fit less well: how they go together then is learned from as many of the other kind too.
    """
    ours, others = (
        [_with_tokens(make(DEFAULT_SEED + index, agents)) for index in range(4)] for make in FLEETS.values()
    )
    scored = {metric: _together(ours, metric) for metric in KINDS}
    tables = {metric: tails for metric in KINDS if (tails := calibration.fit(scored[metric])) is not None}
    theirs = {metric: _together(others, metric) for metric in KINDS}
    joint = {}
    for metrics in (METRICS, BATCH_METRICS):
        names = "+".join(sorted(metrics))
        joint[names] = _joint_tails(tables, scored, metrics)
        both = {metric: _concatenated([scored[metric], theirs[metric]]) for metric in metrics}
        joint[calibration.BORROWED + names] = _joint_tails(tables, both, metrics)
    return tables, calibration.SHIPPED_FILE, joint


def _together(fleets: Sequence[Fleet], metric: str) -> usage_model.Scored:
    return _concatenated([_without_incidents(usage_residuals(fleet, metric), fleet) for fleet in fleets])


def _concatenated(parts: Sequence[usage_model.Scored]) -> usage_model.Scored:
    axes = (0, 0, 1, 0, 0, 0)
    joined = (np.concatenate(arrays, axis) for arrays, axis in zip(zip(*parts, strict=True), axes, strict=True))
    return usage_model.Scored(*joined)


def _joint_tails(
    tables: calibration.Calibration, scored: Mapping[str, usage_model.Scored], metrics: Sequence[str]
) -> calibration.JointTails:
    surprises = np.stack([calibration.surprise(tables[metric], scored[metric])[0] for metric in metrics])
    age = np.max([np.nan_to_num(scored[metric].age) for metric in metrics], axis=0)
    tails = calibration.fit_joint(surprises, age)
    assert tails is not None
    return tails


def _with_tokens(fleet: Fleet) -> Fleet:
    """The fleet with tokens, which scatter as its costs do and half of it together with them."""
    calls = np.nan_to_num(fleet.calls)
    own = np.random.default_rng(len(fleet.incidents)).gamma(np.maximum(calls, 1) * 1.5) / 1.5 * (calls > 0)
    tokens = 1000.0 * np.sqrt(own * fleet.values["cost"] / fleet.truth.unit_cost)
    return replace(fleet, values={**fleet.values, "tokens": tokens})


def _without_incidents(scored: usage_model.Scored, fleet: Fleet) -> usage_model.Scored:
    residuals = scored.residuals.copy()
    for incident in fleet.incidents:
        residuals[:, incident.agent, incident.start : incident.end + 24] = np.nan
    return scored._replace(residuals=residuals)


def _plain(fleet: Fleet, metric: str) -> Floats:
    values = fleet.values[metric]
    calls = np.where(fleet.calls > 0, fleet.calls, np.nan)
    plain: Floats = values / calls if metric == "errors" else values
    return plain


def _standardised(values: Floats, hours: int) -> Floats:
    import pandas as pd

    rolling = pd.DataFrame(values.T).shift(1).rolling(hours, min_periods=24)
    mean, deviation = rolling.mean().to_numpy().T, rolling.std().to_numpy().T
    # The running sums leave a dust of rounding behind where nothing ever varied.
    least = 1e-6 * np.abs(mean) + 1e-12
    sigmas: Floats = np.nan_to_num(np.abs(values - mean) / np.maximum(deviation, least), nan=0.0)
    return sigmas


def _smoothing_errors(values: Floats) -> Floats:
    import pandas as pd
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    filled = pd.DataFrame(np.sqrt(values).T).ffill().fillna(0.0).to_numpy().T
    errors = np.full(values.shape, np.nan)
    for series, known in enumerate(filled):
        season = known[: 7 * 24].reshape(-1, 24).mean(axis=0)
        model = ExponentialSmoothing(
            known, seasonal="add", seasonal_periods=24, initialization_method="known",
            initial_level=season.mean(), initial_seasonal=season - season.mean(),
        )  # fmt: skip
        with np.errstate(divide="ignore"):  # its information criteria, of a series without any error
            fitted = model.fit(smoothing_level=0.1, smoothing_seasonal=0.1, optimized=False)
        errors[series] = known - fitted.fittedvalues
    return np.where(np.isnan(values), np.nan, errors)


def measure(make: Callable[..., Fleet], seeds: int, agents: int, detect: Callable[[Fleet], Scores]) -> dict[str, Any]:
    """All figures of one detector on one sort of fleet, pooled over the seeds."""
    reached: list[float] = []
    kinds: list[str] = []
    homes: list[str] = []
    false: list[Floats] = []
    courses: list[Floats] = []
    weeks, seconds, points = 0.0, 0.0, 0
    for seed in range(seeds):
        fleet = make(seed, agents)
        started = time.perf_counter()
        scores = detect(fleet)
        seconds += time.perf_counter() - started
        points += sum(score.size for score in scores.values())
        normal = _normal_hours(fleet)
        for metric in METRICS:
            blocks, lived = _normal_blocks(scores[metric], normal)
            false.append(blocks)
            weeks += lived
        for incident in fleet.incidents:
            course = np.max(
                [scores[m][incident.agent, incident.start : incident.end] for m in incident.metrics], axis=0
            )
            courses.append(course)
            reached.append(float(course.max()))
            kinds.append(incident.kind)
            homes.append(fleet.kinds[incident.agent])
    return _figures(np.array(reached), np.concatenate(false), courses, kinds, homes, weeks) | {
        "points_per_second": round(points / seconds)
    }


def _normal_hours(fleet: Fleet) -> npt.NDArray[np.bool_]:
    """Judged hours of living agents that lie in no incident nor in the day after one."""
    normal = ~np.isnan(fleet.calls)
    normal[:, : LEARNING_WEEKS * WEEK] = False
    for incident in fleet.incidents:
        normal[incident.agent, incident.start : incident.end + 24] = False
    return normal


def _normal_blocks(scores: Floats, normal: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    shape = (len(scores), -1, calibration.BLOCK)
    whole = normal.reshape(shape).all(axis=-1)
    return scores.reshape(shape).max(axis=-1)[whole], float(whole.sum()) / calibration.BLOCKS_A_WEEK


def _figures(
    reached: Floats, false: Floats, courses: list[Floats], kinds: list[str], homes: list[str], weeks: float
) -> dict[str, Any]:
    rising = np.sort(false)
    marks = {rate: _mark(rising, rate * weeks) for rate in RATES}
    found = {rate: reached > mark for rate, mark in marks.items()}
    delays = [int(np.argmax(course > marks[0.1])) for course, seen in zip(courses, found[0.1], strict=True) if seen]
    return {
        "incidents": len(reached),
        "series_weeks": round(weeks),
        "auprc": _auprc(reached, rising),
        "recall": {str(rate): float(seen.mean()) for rate, seen in found.items()},
        "marks": {str(rate): mark for rate, mark in marks.items()},
        "median_delay_hours": float(np.median(delays)) if delays else None,
        "late_delay_hours": float(np.quantile(delays, 0.9)) if delays else None,
        "by_incident": {str(rate): _by(kinds, found[rate]) for rate in RATES},
        "by_agent": {str(rate): _by(homes, found[rate]) for rate in RATES},
        "at_marks": {
            str(mark): {
                "false_per_series_week": float((rising >= mark).sum() / weeks),
                "recall": float((reached >= mark).mean()),
                "precision": float((reached >= mark).sum() / max((reached >= mark).sum() + (rising >= mark).sum(), 1)),
            }
            for mark in (1.5, 2.0, 2.5, 2.75, 3.0, 5.0)
        },
    }


def _mark(rising: Floats, allowed: float) -> float:
    """The score that no more than ``allowed`` normal blocks exceed."""
    return float(rising[max(len(rising) - 1 - int(allowed), 0)])


def _by(names: list[str], found: npt.NDArray[np.bool_]) -> dict[str, float]:
    labels = np.array(names)
    return {name: float(found[labels == name].mean()) for name in sorted(set(names))}


def _auprc(reached: Floats, rising: Floats) -> float:
    marks = np.sort(reached)[::-1]
    share = np.arange(1, len(marks) + 1)
    alarms = len(rising) - np.searchsorted(rising, marks, side="left")
    return float(np.mean(share / (share + alarms)))


def tables(figures: Mapping[str, Any]) -> str:
    """The tables of ``docs/detection.md`` from what :func:`main` wrote, in Markdown and in the order of the page."""
    fleets = figures["fleets"]
    parts = []
    for fleet, rows in fleets.items():
        heads = ["detector", "AUPRC", *(f"recall at {rate:g}" if rate == RATES[0] else f"{rate:g}" for rate in RATES)]
        body = [
            [
                name,
                f"{row['auprc']:.2f}",
                *(f"{row['recall'][str(rate)]:.2f}" for rate in RATES),
                f"{row['median_delay_hours']:.0f}",
                f"{row['late_delay_hours']:.0f}",
            ]
            for name, row in rows.items()
        ]
        parts.append(_markdown(fleet, [*heads, "median delay (h)", "late delay (h)"], body))
    for fleet, rows in fleets.items():
        for kind in ("by_incident", "by_agent"):
            chosen = {name: rows[name][kind][str(_BY_KIND_AT)] for name in _BY_KIND if name in rows}
            names = sorted({key for one in chosen.values() for key in one})
            body = [[name, *(f"{one.get(key, 0):.2f}" for key in names)] for name, one in chosen.items()]
            parts.append(_markdown(fleet, ["detector", *(name.replace("_", " ") for name in names)], body))
    told = {fleet: rows[_MODEL]["at_marks"] for fleet, rows in fleets.items() if _MODEL in rows}
    settled = np.array([1e9])
    body = [
        [
            mark,
            *(f"{one[mark]['false_per_series_week']:.3f}" for one in told.values()),
            *(f"{one[mark]['precision']:.2f}" for one in told.values()),
            f"{calibration.confidence(np.array([float(mark)]), settled)[0]:.2f}",
        ]
        for mark in ("1.5", "2.0", "2.5", "2.75", "3.0")
    ]
    alarms, right = ([f"{what}, {fleet}" for fleet in told] for what in ("false alarms per series-week", "precision"))
    parts.append(_markdown("marks of the usage model", ["S", *alarms, *right, "what `confidence` says"], body))
    return "\n".join(parts)


def _markdown(title: str, heads: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *body]
    return f"<!-- {title} -->\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _table(fleet: str, rows: Mapping[str, dict[str, Any]]) -> Table:
    table = Table(title=f"{fleet} fleet: recall at false alarms per series-week")
    for heading in ("detector", "AUPRC", *map(str, RATES), "delay h", "points/s"):
        table.add_column(heading, justify="left" if heading == "detector" else "right")
    for name, row in rows.items():
        recall = [f"{row['recall'][str(rate)]:.2f}" for rate in RATES]
        table.add_row(
            name, f"{row['auprc']:.2f}", *recall, f"{row['median_delay_hours']}", f"{row['points_per_second']:,}"
        )
    return table


if __name__ == "__main__":
    main()
