"""Scores for any panel of series: how odd each point is to its own past, from no training data and no look ahead.

Holds the way from values and times to scores, severities and confidences. The views and the tails are compiled
elsewhere; no settings, no files, no usage metrics, no wording.

How a score comes about
-----------------------
1. Eight views (:mod:`obs_pipeline.detection.views`) compare a point with its past.
2. Each view's residual becomes a tail probability by the past of that view of that series; the mean of their −log10
   is ``T``. With an exposure, ``T`` is at most the exact Gamma-Poisson surprise of the count.
3. ``T`` is damped by ``n / (n + 10)`` while fewer values are known, and echoes of an incident keep three quarters.
4. ``S = −log10 P(an ordinary half day reaches this T)``, by a table measured on simulated series without incidents.
   ``S`` decides the severity, orders all points, and gives ``score`` (0–100, strictly rising with it).
5. ``confidence = r / (r + 10^−S) · n / (n + n₀)``: the share of such alarms that are right if this share ``r`` of half
   days holds an incident (one in 644 unless set), less while young (``n₀`` = three days of points).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.panel_config import PanelConfig
from obs_pipeline.detection.ragged import (
    COUNTER_AFTER,
    Calendar,
    Ragged,
    calendar_of,
    counters_of,
    increments_of,
    known_before,
    window_sums,
)
from obs_pipeline.detection.rates import count_surprises, running_rates
from obs_pipeline.detection.surprise import LARGEST_SURPRISE, keep_onsets, mean_and_leader, tail_surprises
from obs_pipeline.detection.views import VIEWS, view_residuals

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[int], None]

SURPRISE_OF_HALF_DAYS: Final = (
    (0.0, 0.892, 1.52, 1.959, 2.507, 3.209, 4.144, LARGEST_SURPRISE),
    (0.0, 0.301, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0),
)
"""``T``, and −log10 of the share of half days whose largest ``T`` is at least that: 22 kinds of simulated series."""

_SCORE_MARKS: Final = ((0.0, 1.5, 2.0, 2.75, 5.0), (0.0, 20.0, 50.0, 80.0, 100.0))
_WORTH_A_TAIL: Final = 0.5  # surprises below it need no exact tail to be found harmless
_YOUNG: Final = 10.0
_PORTION: Final = 250_000
_LARGEST_VALUE: Final = 1e100


class PanelScores(NamedTuple):
    """One entry per value, in the shape of the values.

    ``surprise`` is ``S``; ``severity`` 0 none, 1 info, 2 warning, 3 critical; ``view`` a position in
    :data:`~obs_pipeline.detection.views.VIEWS`, the view surprised most, −1 for an unknown value. ``expected``,
    ``lower`` and ``upper`` are in the unit of the values and NaN before the first known value. All else is finite;
    an unknown value has a surprise, score and confidence of zero.
    """

    expected: Floats
    lower: Floats
    upper: Floats
    surprise: Floats
    score: Floats
    confidence: Floats
    severity: npt.NDArray[np.int8]
    view: Ints


def score_panel(
    values: npt.ArrayLike,
    *,
    step: float,
    first: float = 0.0,
    exposure: npt.ArrayLike | None = None,
    config: PanelConfig | None = None,
) -> PanelScores:
    """Score a panel (series, time) with a fixed ``step`` in seconds that begins at ``first``, seconds since 1970 UTC.

    NaN is unknown. ``exposure`` is the trials behind each count, in the same shape.
    """
    panel = np.asarray(values, dtype=np.float64)
    count, length = panel.shape
    scores = score_series(
        panel.reshape(-1),
        np.arange(count + 1, dtype=np.int64) * length,
        times=np.tile(first + step * np.arange(length), count),
        exposure=None if exposure is None else np.asarray(exposure, dtype=np.float64).reshape(-1),
        config=config,
    )
    return PanelScores._make(column.reshape(panel.shape) for column in scores)


def score_series(
    values: Floats,
    starts: Ints,
    *,
    times: Floats | None,
    exposure: Floats | None = None,
    config: PanelConfig | None = None,
    progress: Progress | None = None,
) -> PanelScores:
    """Score ragged series: ``values`` of all of them in a row, series ``i`` from ``starts[i]`` up to ``starts[i + 1]``.

    ``times`` are seconds since 1970 UTC, not falling within a series, or None when only the order is known. The step of
    a series is the median distance of its times so far. ``progress`` is told how many values are done, now and then.
    """
    config = config or PanelConfig()
    if values.size == 0:
        nothing = np.zeros(0)
        return PanelScores._make([nothing] * 6 + [np.zeros(0, np.int8), np.zeros(0, np.int64)])
    whole = Ragged(values, starts, times, exposure)
    portions = whole.portions(_PORTION)
    with ThreadPoolExecutor(config.workers) as pool:
        done = []
        for portion, scores in zip(portions, pool.map(lambda one: _score(one, config), portions), strict=True):
            done.append(scores)
            if progress is not None:
                progress(portion.values.size)
    return PanelScores._make(np.concatenate(columns) for columns in zip(*done, strict=True))


class _Outlook(NamedTuple):
    """What the views say of each point: ``surprise`` is ``T``."""

    expected: Floats
    spread: Floats
    surprise: Floats
    view: Ints


def _score(series: Ragged, config: PanelConfig) -> PanelScores:
    calendar = calendar_of(series)
    known = np.isfinite(series.values)
    if series.exposure is not None:
        known &= np.isfinite(series.exposure) & (series.exposure > 0)
    values = np.where(known, np.clip(series.values, -_LARGEST_VALUE, _LARGEST_VALUE), np.nan)
    series = Ragged(values, series.starts, series.times, series.exposure)
    outlook = _counts(series, calendar, config) if series.exposure is not None else _plain(series, calendar, config)
    lower, upper = outlook.expected - config.band * outlook.spread, outlook.expected + config.band * outlook.spread
    if series.exposure is not None:
        lower = np.maximum(lower, 0.0)
    return _verdict(series, calendar, outlook, lower, upper, config)


def _plain(series: Ragged, calendar: Calendar, config: PanelConfig) -> _Outlook:
    if not config.counters:
        return _look(series.values, series.starts, series, calendar, config)
    counters = counters_of(series)
    base, increments = increments_of(series)
    counted = counters[series.owner] & (series.place >= COUNTER_AFTER)
    # What a counter was before it showed to be one is a series of its own.
    split = series.starts[:-1][counters] + COUNTER_AFTER
    starts = np.sort(np.concatenate([series.starts, split]))
    outlook = _look(np.where(counted, increments, series.values), starts, series, calendar, config)
    return outlook._replace(expected=outlook.expected + np.where(counted, base, 0.0))


def _counts(series: Ragged, calendar: Calendar, config: PanelConfig) -> _Outlook:
    assert series.exposure is not None
    counts = series.values
    trials = np.where(np.isfinite(series.exposure) & (series.exposure > 0), series.exposure, np.nan)
    rates = running_rates(counts, trials, series.starts, np.maximum(14.0 * calendar.half_day, 100.0))
    share = rates.shape / np.where(rates.exposure > 0, rates.exposure, np.nan)
    expected = trials * share
    # Poisson counts have this scale in common, whatever their size (Anscombe, Biometrika 35, 1948).
    stable = 2.0 * (np.sqrt(np.maximum(counts, 0.0) + 0.375) - np.sqrt(expected + 0.375))
    outlook = _look(stable, series.starts, series, calendar, config)
    first = np.maximum(series.starts[:-1][series.owner], np.arange(counts.size) - calendar.half_day + 1)
    odd = np.flatnonzero(outlook.surprise > _WORTH_A_TAIL)
    single = count_surprises(counts[odd], trials[odd], rates.at(odd))
    sums, exposures = window_sums(counts, first)[odd], window_sums(trials, first)[odd]
    limited = outlook.surprise.copy()
    limited[odd] = np.minimum(limited[odd], np.maximum(single, count_surprises(sums, exposures, rates.at(first[odd]))))
    spread = np.sqrt(expected * (1.0 + trials / np.where(rates.exposure > 0, rates.exposure, np.nan)))
    return outlook._replace(expected=expected, spread=spread, surprise=limited)


def _look(values: Floats, starts: Ints, series: Ragged, calendar: Calendar, config: PanelConfig) -> _Outlook:
    """Views, tails and their mean. ``starts`` may cut the series further."""
    residuals = np.empty((len(VIEWS), values.size))
    surprises = np.empty_like(residuals)
    expected, spread, means = np.empty(values.size), np.empty(values.size), np.empty(values.size)
    leaders = np.empty(values.size, dtype=np.int64)
    view_residuals(
        values, starts, calendar.day, calendar.week, calendar.fine, calendar.per_day, config.cycles, residuals, expected,
        spread,
    )  # fmt: skip
    tail_surprises(residuals, starts, surprises)
    mean_and_leader(surprises, means, leaders)
    past = known_before(values, starts)
    return _Outlook(expected, spread, means * past / (past + _YOUNG), leaders)


def _verdict(
    series: Ragged, calendar: Calendar, outlook: _Outlook, lower: Floats, upper: Floats, config: PanelConfig
) -> PanelScores:
    unknown = np.isnan(series.values)
    odd = np.where(unknown, 0.0, outlook.surprise)
    onsets = np.empty_like(odd)
    keep_onsets(odd, series.starts, calendar.half_day, onsets)
    surprise = np.interp(onsets, *SURPRISE_OF_HALF_DAYS)
    marks = (config.marks.info, config.marks.warning, config.marks.critical)
    return PanelScores(
        expected=outlook.expected,
        lower=lower,
        upper=upper,
        surprise=surprise,
        score=np.interp(surprise, *_SCORE_MARKS),
        confidence=np.where(unknown, 0.0, _confidence(surprise, series, calendar, config.incident_rate)),
        severity=np.searchsorted(marks, surprise, side="right").astype(np.int8),
        view=np.where(unknown, -1, outlook.view),
    )


def _confidence(surprise: Floats, series: Ragged, calendar: Calendar, rate: float) -> Floats:
    past = known_before(series.values, series.starts)
    three_days = 6.0 * calendar.half_day
    return rate / (rate + 10.0**-surprise) * past / (past + three_days)
