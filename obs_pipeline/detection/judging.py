"""One metric of every series against its own past: windows → floor → detector, back in the metric's own unit.

Holds how panel, metric rules and detectors fit together, in chunks that bound memory. No severities, no wording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection import metrics
from obs_pipeline.detection.borrowing import borrow
from obs_pipeline.detection.config import AnomalyDetectionConfig, Grain, Metric
from obs_pipeline.detection.detectors import (
    DETECTORS,
    LARGEST_DEVIATION,
    Detector,
    active_share,
    burst_spread,
    never_idle,
)
from obs_pipeline.detection.known import Planned
from obs_pipeline.detection.level_shift import Shift, find_shift, forgotten
from obs_pipeline.detection.panel import Panel, Windows

if TYPE_CHECKING:
    from obs_pipeline.detection.usage_judging import HourVerdict, Ordinary

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BURST_WEIGHT: Final = 1.2
"""How much of the size of its bursts an idle series takes for its spread: a warning is then some 13 times the usual
burst (``(3 * 1.2) ** 2`` on the root scale)."""

RHYTHM_HOURS: Final = 168
"""Hours with usage in the look-back from which on an agent has a course that the usage model can learn."""

LENDERS: Final[Mapping[str, tuple[str, ...]]] = {"project": ("org", "project"), "fleet": ()}
"""Whom a new agent borrows from, in this order, and the levels at which these are alike."""

_FOUND: Final = ("expected", "due", "lower", "upper", "deviation", "confidence")
_DAYS_AT_ONCE: Final = 7
"""Tested days of which those series are looked at together that are compared with windows on any of them."""

_CHUNK_VALUES: Final = 250_000
"""Look-back values looked at in one go: enough for numpy, little for memory."""


@dataclass(frozen=True)
class Judged:
    """Arrays of (series, point, tested day): observed, expected and band in the metric's own unit.

    ``deviation`` is in sigmas, ``points`` the known values of the look-back, ``exposure`` the calls behind the observed
    value; ``drops`` says where the series is active so regularly that a drop would be unusual, ``never_idle`` where
    nothing at all would be. Observed is NaN where unknown; expected, band and deviation are NaN there and while learning.
    ``confidence`` is None for detectors that have none of their own. ``due`` is what the excess is counted from: the
    expected value, or the
    nearest that a planned event allows. ``shift``, of days alone, is the lasting change of level that was learned.
    ``by_windows`` says which values a model left to z-scores of windows; None where there is no model.
    ``borrowed`` is a place in :data:`LENDERS` where a new agent is compared with others, −1 elsewhere; None for nowhere.
    """

    observed: Floats
    expected: Floats
    due: Floats
    lower: Floats
    upper: Floats
    deviation: Floats
    points: Ints
    drops: Bools
    never_idle: Bools
    exposure: Floats
    shift: Shift | None = None
    confidence: Floats | None = None
    by_windows: Bools | None = None
    borrowed: Ints | None = None


def judge(
    panel: Panel,
    metric: Metric,
    grain: Grain,
    config: AnomalyDetectionConfig,
    planned: Planned | None = None,
    verdict: HourVerdict | None = None,
) -> Judged:
    """Compare every known value of the days after the panel's look-back with the days before it.

    ``planned`` says what the calendar expects of those days, ``verdict`` what the usage
    model says of the metric, from :func:`by_model`.
    """
    method = config.method.of(grain)
    if verdict is not None:
        judged = _judge_by_model(panel, metric, config, planned, verdict)
    elif method == "ensemble":
        judged = _judge_together(panel, metric, grain, config, planned)
    else:
        judged = _judge_windows(panel, metric, grain, config, DETECTORS[method], planned)
    return _with_borrowed(judged, panel, metric, grain, config)


def ordinary_weeks(hours: Panel, config: AnomalyDetectionConfig, tested: int) -> Ordinary:
    """What the usage model is to take for ordinary on the last ``tested`` days of a panel of hours that holds
    :meth:`~obs_pipeline.detection.config.AnomalyDetectionConfig.lookback_of` days before them; nothing where it is not
    the method."""
    if config.method.of("hour") != "usage_model":
        return {}
    from obs_pipeline.detection.usage_judging import learn_ordinary

    return learn_ordinary(hours, config.metrics, config.lookback_days, tested)


def by_model(
    panel: Panel,
    grain: Grain,
    config: AnomalyDetectionConfig,
    tested: int,
    ordinary: Ordinary,
    chosen: Ints | None = None,
) -> Mapping[Metric, HourVerdict]:
    """What the usage model says of all metrics of the last ``tested`` days of a panel as for :func:`ordinary_weeks`, with what
    that found; nothing where it is not the method. Of ``chosen`` series alone, if some are given."""
    if config.method.of(grain) != "usage_model":
        return {}
    from obs_pipeline.detection.usage_judging import judge_hours

    budget, width = config.false_alarms_per_agent_week, config.thresholds.info
    return judge_hours(panel, config.metrics, config.lookback_days, width, budget, tested, ordinary, chosen)


def _judge_by_model(
    panel: Panel, metric: Metric, config: AnomalyDetectionConfig, planned: Planned | None, verdict: HourVerdict
) -> Judged:
    """What the usage model says of the hours; see :func:`_left_to_windows` for those it says nothing of."""
    plain = _looked_up(panel, metric, config)
    known = ~np.isnan(plain.observed) & (plain.points >= config.minimum_data_points)
    found: dict[str, Any] = {name: np.where(known, array, np.nan) for name, array in verdict._asdict().items()}
    judged = replace(plain, **found, due=found["expected"], by_windows=_left_to_windows(panel, config, planned))
    return _with_windows(judged, panel, metric, "hour", config, planned)


def _judge_together(
    panel: Panel, metric: Metric, grain: Grain, config: AnomalyDetectionConfig, planned: Planned | None
) -> Judged:
    """What the ensemble says; planned events are compared by z-score, as their multiples are no matter of rarity."""
    from obs_pipeline.detection import calibration, ensemble
    from obs_pipeline.detection.usage_judging import Marks, sigmas

    judged = _judge_windows(panel, metric, grain, config, ensemble.detector(metric, grain), None)
    reached = Marks(*ensemble.marks(config.false_alarms_per_agent_week, len(config.metrics), grain))
    surprise: Floats = np.abs(judged.deviation)
    lived = np.asarray(24.0 * judged.points, dtype=np.float64)
    told = replace(
        judged,
        deviation=np.sign(judged.deviation) * sigmas(surprise, reached),
        confidence=calibration.confidence(surprise, lived),
        by_windows=None if planned is None else planned.cells,
    )
    return _with_windows(told, panel, metric, grain, config, planned)


def _left_to_windows(panel: Panel, config: AnomalyDetectionConfig, planned: Planned | None) -> Bools:
    """The hours, (series, point, tested day), that are compared with the same hour of the days before even so.

    Those of agents without a rhythm: an agent used now and then has no course to learn, and its first large hour would be
    taken for one. And those of planned events, which the model would take for its own course.
    """
    rhythm = _has_rhythm(panel, config.lookback_days)
    left = np.repeat(~rhythm[:, None, :], panel.points, axis=1)
    return left if planned is None else left | planned.cells


def _has_rhythm(panel: Panel, lookback: int) -> Bools:
    """(series, tested day): used in at least :data:`RHYTHM_HOURS` hours of the look-back."""
    count, points, days = panel.shape
    owner_day = panel.cells // (points * days) * days + panel.cells % days
    hours = np.bincount(owner_day, minlength=count * days).reshape(count, days)
    seen: Bools = _of_lookback(hours, lookback) >= RHYTHM_HOURS
    return seen


def _with_windows(
    judged: Judged,
    panel: Panel,
    metric: Metric,
    grain: Grain,
    config: AnomalyDetectionConfig,
    planned: Planned | None,
) -> Judged:
    """The verdicts with those of the windows where these decide; only the series and the weeks concerned are looked at
    again."""
    by_windows = judged.by_windows
    if by_windows is None or not by_windows.any():
        return judged
    whole: dict[str, Any] = {name: np.where(by_windows, np.nan, getattr(judged, name)) for name in _FOUND}
    tested = by_windows.shape[-1]
    for first in range(0, tested, _DAYS_AT_ONCE):
        days = slice(first, min(first + _DAYS_AT_ONCE, tested))
        at = np.flatnonzero(by_windows[..., days].any(axis=(1, 2)))
        near, there = panel.of(at).between(first, config.lookback_days + days.stop - 1)
        if there.size == 0:
            continue
        at = at[there]
        expected = None if planned is None else planned.of(at, days)
        windows = _judge_windows(near, metric, grain, config, DETECTORS["zscore"], expected)
        chosen = by_windows[at, :, days]
        for name, array in whole.items():
            stated = getattr(windows, name)
            if stated is not None:
                array[at, :, days] = np.where(chosen, stated, array[at, :, days])
    return replace(judged, **whole)


def days_used(panel: Panel, lookback: int) -> Ints:
    """(series, tested day): on how many days of the look-back the agent was used."""
    count, points, days = panel.shape
    used = np.zeros((count, days), dtype=np.int64)
    used[panel.cells // (points * days), panel.cells % days] = 1
    days_of: Ints = _of_lookback(used, lookback)
    return days_of


def calls_before(panel: Panel, lookback: int) -> tuple[Floats, Floats]:
    """(series, point, tested day): mean and smallest number of calls at this time of those days of the look-back that had any."""
    calls = np.nan_to_num(panel.spread(panel.sums["calls"]))
    mean: Floats = _of_lookback(calls, lookback) / np.maximum(_of_lookback(calls > 0, lookback), 1)
    windows = np.lib.stride_tricks.sliding_window_view(np.where(calls > 0, calls, np.inf), lookback + 1, axis=-1)
    smallest: Floats = np.min(windows[..., :-1], axis=-1)
    return mean, np.where(np.isinf(smallest), 0.0, smallest)


def largest_before(panel: Panel, name: str, lookback: int) -> Floats:
    """(series, tested day): the largest sum of any day or hour of the look-back; zero without any."""
    highest = np.max(np.nan_to_num(panel.spread(panel.sums[name])), axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(highest, lookback + 1, axis=-1)
    largest: Floats = np.max(windows[..., :-1], axis=-1)
    return largest


def _with_borrowed(
    judged: Judged, panel: Panel, metric: Metric, grain: Grain, config: AnomalyDetectionConfig
) -> Judged:
    """The verdicts with what new agents borrow: of their project, or else of all agents."""
    rule, lookback = metrics.RULES[metric], config.lookback_days
    new = days_used(panel, lookback) < config.minimum_data_points
    wanted = np.isnan(judged.expected) & ~np.isnan(judged.observed) & new[:, None, :]
    if not wanted.any():
        return judged
    forward, back, width = rule.scale.forward, rule.scale.back, config.thresholds.info
    with np.errstate(divide="ignore", invalid="ignore"):
        level = forward(judged.expected)
        spread = (forward(judged.upper) - level) / width
        grid = forward(panel.spread(metrics.cell_values(panel, metric, config)))
        level = np.where(np.isfinite(level) & np.isfinite(spread), level, np.nan)
    known = ~np.isnan(grid)
    n = _of_lookback(known.astype(np.float64), lookback)
    own = _of_lookback(np.where(known, grid, 0.0), lookback) / np.maximum(n, 1)
    expected, scatter, lender = (
        np.full(judged.observed.shape, np.nan),
        np.full(judged.observed.shape, np.nan),
        np.full(judged.observed.shape, -1),
    )
    for place, levels in enumerate(LENDERS.values()):
        found = borrow(_groups(panel, levels), level, spread, own, n)
        here = wanted & np.isnan(expected) & ~np.isnan(found.expected)
        expected, scatter = np.where(here, found.expected, expected), np.where(here, found.spread, scatter)
        lender = np.where(here, place, lender)
    scatter = np.maximum(scatter, metrics.noise(metric, grain, judged.exposure, config))
    lent = lender >= 0
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.clip((forward(judged.observed) - expected) / scatter, -LARGEST_DEVIATION, LARGEST_DEVIATION)
    usual = np.where(lent, back(expected), judged.expected)
    return replace(
        judged,
        expected=usual,
        due=np.where(lent, usual, judged.due),
        lower=np.where(lent, np.maximum(back(expected - width * scatter), 0.0), judged.lower),
        upper=np.where(lent, np.minimum(back(expected + width * scatter), rule.largest), judged.upper),
        deviation=np.where(lent, deviation, judged.deviation),
        drops=judged.drops & ~lent,
        confidence=None if judged.confidence is None else np.where(lent, np.nan, judged.confidence),
        borrowed=lender,
    )


def _of_lookback(values: Any, lookback: int) -> Any:
    """Sums over the look-back of each tested day, along the last axis.

    Each is added up by itself: a difference of running sums would depend on where these begin.
    """
    return np.lib.stride_tricks.sliding_window_view(values, lookback + 1, axis=-1)[..., :-1].sum(axis=-1)


def _groups(panel: Panel, levels: Sequence[str]) -> Ints:
    """The number of the group of each series: of those that are alike at these levels."""
    if not levels:
        return np.zeros(panel.shape[0], dtype=np.int64)
    names = [tuple(one.values()) for one in panel.series.select(list(levels)).to_pylist()]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _looked_up(panel: Panel, metric: Metric, config: AnomalyDetectionConfig) -> Judged:
    """What needs no detector: the values, how much is known of their past, and whether a drop would be unusual."""
    rule, lookback = metrics.RULES[metric], config.lookback_days
    grid = panel.spread(metrics.cell_values(panel, metric, config))
    parts: list[tuple[Any, ...]] = []
    for series in _chunks(panel, lookback):
        history, observed = panel.windows(grid, lookback, series, idle_is_zero=rule.idles)
        regular = never = np.zeros(observed.shape, dtype=bool)
        if rule.idles:
            regular = np.nan_to_num(active_share(history)) >= config.regular_share
            never = never_idle(history)
        parts.append((observed, (~np.isnan(history)).sum(axis=-1), regular, never))
    observed, points, drops, never_idles = map(np.concatenate, zip(*parts, strict=True))
    nothing = np.full(observed.shape, np.nan)
    return Judged(
        observed=observed,
        expected=nothing,
        due=nothing,
        lower=nothing,
        upper=nothing,
        deviation=nothing,
        points=points,
        drops=drops,
        never_idle=never_idles,
        exposure=panel.spread(panel.sums[rule.exposure])[..., lookback:],
    )


def _judge_windows(
    panel: Panel,
    metric: Metric,
    grain: Grain,
    config: AnomalyDetectionConfig,
    detector: Detector,
    planned: Planned | None,
) -> Judged:
    rule, lookback = metrics.RULES[metric], config.lookback_days
    grid = rule.scale.forward(panel.spread(metrics.cell_values(panel, metric, config)))
    exposure = panel.spread(panel.sums[rule.exposure])[..., lookback:]
    least = metrics.noise(metric, grain, exposure, config)
    parts: list[tuple[Any, ...]] = []
    for series in _chunks(panel, lookback):
        windows = panel.windows(grid, lookback, series, idle_is_zero=rule.idles)
        bursts, drops = _bursts(windows, config.regular_share) if rule.idles else _no_bursts(windows)
        never = never_idle(windows.history) if rule.idles else drops
        floor = np.maximum(least[series], bursts)
        history, shift = _settled(windows.history, floor, rule, grain, config)
        baseline = detector(
            history,
            windows.observed,
            config.minimum_data_points,
            floor=floor,
            relative=rule.relative_spread,
            width=config.thresholds.info,
        )
        parts.append((windows.observed, *baseline, drops, never, *shift))
    observed, expected, spread, lower, upper, deviation, points, drops, never_idles, *moved = map(
        np.concatenate, zip(*parts, strict=True)
    )
    unknown = np.isnan(observed)
    back = rule.scale.back
    usual = np.where(unknown, np.nan, back(expected))
    judged = Judged(
        observed=back(observed),
        expected=usual,
        due=usual,
        lower=np.where(unknown, np.nan, np.maximum(back(lower), 0.0)),
        upper=np.where(unknown, np.nan, np.minimum(back(upper), rule.largest)),
        deviation=deviation,
        points=points,
        drops=drops,
        never_idle=never_idles,
        exposure=exposure,
        shift=_in_unit(Shift(*moved), back) if moved else None,
    )
    return judged if planned is None else _as_planned(judged, planned, rule.scale, expected, spread)


def _settled(
    history: Floats,
    floor: Floats,
    rule: metrics.MetricRule,
    grain: Grain,
    config: AnomalyDetectionConfig,
) -> tuple[Floats, Shift | tuple[()]]:
    """The history without what lies before a lasting change of level, and that change, by the band of the method, or of the
    z-score where that has none.

    Hours are left alone: the band of the same hour of 28 days widens by itself within a few days.
    """
    if grain == "hour":
        return history, ()
    detector = DETECTORS.get(config.method.of(grain), DETECTORS["zscore"])
    shift = find_shift(
        history,
        detector,
        after=config.settles_after,
        min_points=config.minimum_data_points,
        floor=floor,
        relative=rule.relative_spread,
        width=config.thresholds.info,
    )
    return np.where(forgotten(shift.days, history.shape[-1]), np.nan, history), shift


def _in_unit(shift: Shift, back: Callable[[Floats], Floats]) -> Shift:
    return shift._replace(before=back(shift.before), since=back(shift.since))


def _as_planned(judged: Judged, planned: Planned, scale: metrics.Scale, expected: Floats, spread: Floats) -> Judged:
    """The verdicts with what the calendar expects: less deviation, a wider band. ``expected`` and ``spread`` are those
    of the windows, on the metric's scale."""
    on = planned.cells
    excused, nearest = planned.judged(judged.observed, judged.expected)
    excess = scale.forward(excused) - expected
    with np.errstate(divide="ignore", invalid="ignore"):
        sigmas = np.where(excess == 0, 0.0, excess / spread)
        lower, upper = judged.lower * planned.least, judged.upper * planned.most
    return replace(
        judged,
        due=nearest,
        deviation=np.where(on, np.clip(sigmas, -LARGEST_DEVIATION, LARGEST_DEVIATION), judged.deviation),
        lower=np.where(on, lower, judged.lower),
        upper=np.where(on, np.where(np.isfinite(upper), upper, np.fmax(judged.upper, judged.observed)), judged.upper),
    )


def _chunks(panel: Panel, lookback: int) -> Iterator[slice]:
    """Slices of series small enough to hold all their windows at once; at least one, even of no series."""
    count, points, days = panel.shape
    size = max(1, _CHUNK_VALUES // (points * (days - lookback) * (lookback + 1)))
    for start in range(0, max(count, 1), size):
        yield slice(start, min(start + size, count))


def _bursts(windows: Windows, regular_share: float) -> tuple[Floats, Bools]:
    """The spread that a series borrows from the size of its bursts, and where it is regularly active.

    Bursts are taken from all points of the day together, and count the more, the rarer the series is active at
    this point of the day.
    """
    history = windows.history
    count, points, tested, lookback = history.shape
    of_series = history.transpose(0, 2, 1, 3).reshape(count, tested, points * lookback)
    active = np.nan_to_num(active_share(history))
    return BURST_WEIGHT * burst_spread(of_series)[:, None, :] * (1 - active), active >= regular_share


def _no_bursts(windows: Windows) -> tuple[Floats, Bools]:
    shape = windows.observed.shape
    return np.zeros(shape), np.zeros(shape, dtype=bool)
