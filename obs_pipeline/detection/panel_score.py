"""Scores for any panel of series: how odd each point is to its own past, from no training data and no look ahead.

Holds the way from values and times to scores, severities and confidences. The views and the tails are compiled
elsewhere; no settings, no files, no usage metrics, no wording.

How a score comes about
-----------------------
1. Eight views (:mod:`obs_pipeline.detection.views`) compare a point with its past.
2. Each view's residual becomes a tail probability by the past of that view of that series; of their −log10 the cubic mean
   is taken, and added to it a third of how rarely that mean itself got this far, as series are unlike each other: that is
   ``T``. With an exposure, ``T`` is at most the exact Gamma-Poisson surprise of the count.
3. Both are damped by ``n / (n + 60)`` while fewer values are known, and echoes of an incident keep nine tenths.
4. ``S = −log10 P(an ordinary half day reaches this T)``, by a table measured on simulated series without incidents.
   ``S`` decides the severity, orders all points, and gives ``score`` (0–100, strictly rising with it).
5. Hours of what is never negative are judged by the usage model instead, over all series of the table together
   (:mod:`obs_pipeline.detection.hourly`); ``S`` is its surprise and a fifth of that of the view ``motion``,
   while fewer than 30 series are there, the mean of that and of the ``S`` of the views. Both only as far as the series' own
   past bears the model out; for the rest ``S`` stays that of the views.
6. ``confidence = r / (r + 10^−S) · n / (n + n₀)``: the share of such alarms that are right if this share ``r`` of half
   days holds an incident (one in 644 unless set), less while young (``n₀`` = three days of points).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.calibration import ECHO_SHARE as USAGE_ECHO_SHARE
from obs_pipeline.detection.calibration import SMALL_FLEET
from obs_pipeline.detection.hourly import HourlyScores
from obs_pipeline.detection.hourly import judge as judge_hours
from obs_pipeline.detection.panel_config import PanelConfig
from obs_pipeline.detection.ragged import (
    COUNTER_AFTER,
    Calendar,
    Ragged,
    calendar_of,
    counter_points,
    counters_of,
    increments_of,
    known_before,
    lowest_so_far,
    window_sums,
)
from obs_pipeline.detection.rates import count_surprises, running_rates
from obs_pipeline.detection.surprise import ECHO_SHARE, LARGEST_SURPRISE, keep_onsets, mean_and_leader, tail_surprises
from obs_pipeline.detection.views import VIEWS, view_residuals

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[int], None]

SURPRISE_OF_HALF_DAYS: Final = (
    (0.0, 1.313, 2.378, 2.836, 3.397, 4.319, 4.895, 1.35 * LARGEST_SURPRISE),
    (0.0, 0.301, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0),
)
"""``T``, and −log10 of the share of half days whose largest ``T`` is at least that: 22 kinds of made series without
anomalies, each as much as the others, in their own steps and an hour apart."""

_SCORE_MARKS: Final = ((0.0, 1.5, 2.0, 2.75, 5.0, 10.0), (0.0, 20.0, 50.0, 80.0, 95.0, 100.0))
_WORTH_A_TAIL: Final = 0.5  # surprises below it need no exact tail to be found harmless
_YOUNG: Final = 60.0
_OWN_SHARE: Final = 0.35
_OWN_UNIT: Final = 3.0  # a mean surprise of one is as far as a residual of three deviations
_MOTION: Final = VIEWS.index("motion")
_MOTION_SHARE: Final = 0.2  # of its surprise, on top of that of the usage model
_SEVERAL: Final = 6
_PORTION: Final = 250_000
LARGEST_VALUE: Final = 1e100
"""What is larger counts as this, on either side of zero: its square would be infinite."""


class PanelScores(NamedTuple):
    """One entry per value, in the shape of the values.

    ``surprise`` is ``S``; ``severity`` 0 none, 1 info, 2 warning, 3 critical; ``view`` a position in
    :data:`~obs_pipeline.detection.views.VIEWS`, the view surprised most, the one after the last of them where the usage
    model had the say, −1 for an unknown value. ``expected``,
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
    whole = Ragged(values, starts, times, exposure)
    counted = _counted(whole)
    outlook = _Outlook.empty(values.size)
    for chosen, part in ((~counted, replace(whole, exposure=None)), (counted, whole)):
        if chosen.any():
            for column, found in zip(outlook, _judge(part.select(chosen), config, progress), strict=True):
                column[chosen] = found
    return _verdict(outlook, config)


def _counted(series: Ragged) -> npt.NDArray[np.bool_]:
    """Which values are counts: those since the first exposure of their series, until one of them is no whole number."""
    if series.exposure is None:
        return np.zeros(series.values.size, dtype=bool)
    exposed = np.isfinite(series.exposure)
    broken = exposed & np.isfinite(series.values) & (series.values != np.rint(series.values))
    seen = lowest_so_far(np.where(exposed, 0.0, np.nan), series.starts) == 0
    counted: npt.NDArray[np.bool_] = seen & (lowest_so_far(np.where(broken, 0.0, np.nan), series.starts) > 0)
    return counted


class _Outlook(NamedTuple):
    """What is said of each point: ``odd`` is the surprise ``S``, ``motion`` that of the view of this name, ``past`` the
    number of known values before, ``half_day`` the points of half a day."""

    expected: Floats
    lower: Floats
    upper: Floats
    odd: Floats
    motion: Floats
    view: Ints
    past: Floats
    half_day: Ints

    @classmethod
    def empty(cls, size: int) -> _Outlook:
        return cls(*(np.zeros(size, dtype=np.int64 if name in ("view", "half_day") else float) for name in cls._fields))


def _judge(series: Ragged, config: PanelConfig, progress: Progress | None) -> _Outlook:
    """The views of each series, and for hours the usage model over all of them. All are counts, or none is."""
    known = np.isfinite(series.values)
    if series.exposure is not None:
        known &= np.isfinite(series.exposure) & (series.exposure > 0)
    values = np.where(known, np.clip(series.values, -LARGEST_VALUE, LARGEST_VALUE), np.nan)
    series = replace(series, values=values)
    portions = series.portions(_PORTION)
    with ThreadPoolExecutor(config.workers) as pool:
        done = []
        for portion, found in zip(portions, pool.map(lambda one: _look_at(one, config), portions), strict=True):
            done.append(found)
            if progress is not None:
                progress(portion.values.size)
    outlook = _Outlook._make(np.concatenate(columns) for columns in zip(*done, strict=True))
    hours = judge_hours(series, config.band) if config.usage_model else None
    return outlook if hours is None else _with_usage(outlook, hours, series)


def _with_usage(outlook: _Outlook, hours: HourlyScores, series: Ragged) -> _Outlook:
    """The usage model's word where it has one, as far as it fits the series: all of it in a fleet, half in fewer series.

    A series almost alone that is never idle and no count may be anything, so that there only the views are heard.
    """
    said = ~np.isnan(hours.surprise)
    odd = np.where(said, hours.surprise + _MOTION_SHARE * outlook.motion, 0.0)
    kept = np.empty_like(odd)
    keep_onsets(odd, series.starts, outlook.half_day, USAGE_ECHO_SHARE, kept)
    idles = (lowest_so_far(series.values, series.starts) <= 0) | (series.exposure is not None)
    share = np.select([~said, hours.fleet >= SMALL_FLEET, idles | (hours.fleet >= _SEVERAL)], [0.0, 1.0, 0.5], 0.0)
    weight = np.where(said, share * hours.fit, 0.0)
    odd = np.maximum(kept - hours.asked, 0.0)
    outlook = outlook._replace(odd=np.where(said, weight * odd + (1 - weight) * outlook.odd, outlook.odd))
    shown = {
        "expected": hours.expected,
        "lower": hours.lower,
        "upper": hours.upper,
        "view": np.full(odd.size, len(VIEWS)),
    }
    heard = said & (share >= 0.5) & (hours.fit >= 0.5)
    return outlook._replace(**{name: np.where(heard, column, getattr(outlook, name)) for name, column in shown.items()})


class _Looked(NamedTuple):
    """What the views say of each point: ``surprise`` is ``T``."""

    expected: Floats
    spread: Floats
    surprise: Floats
    motion: Floats
    view: Ints


def _look_at(series: Ragged, config: PanelConfig) -> _Outlook:
    calendar = calendar_of(series)
    looked = _counts(series, calendar, config) if series.exposure is not None else _plain(series, calendar, config)
    lower, upper = looked.expected - config.band * looked.spread, looked.expected + config.band * looked.spread
    unknown = np.isnan(series.values)
    onsets = np.empty_like(lower)
    keep_onsets(np.where(unknown, 0.0, looked.surprise), series.starts, calendar.half_day, ECHO_SHARE, onsets)
    return _Outlook(
        expected=looked.expected,
        lower=lower if series.exposure is None else np.maximum(lower, 0.0),
        upper=upper,
        odd=np.interp(onsets, *SURPRISE_OF_HALF_DAYS),
        motion=np.nan_to_num(looked.motion),
        view=np.where(unknown, -1, looked.view),
        past=known_before(series.values, series.starts),
        half_day=calendar.half_day,
    )


def _plain(series: Ragged, calendar: Calendar, config: PanelConfig) -> _Looked:
    if not config.counters:
        return _look(series.values, series.starts, series, calendar, config)
    counters = counters_of(series)
    base, increments = increments_of(series)
    counted = counter_points(series, counters)
    # What a counter was before it showed to be one is a series of its own.
    split = series.starts[:-1][counters] + COUNTER_AFTER
    starts = np.sort(np.concatenate([series.starts, split]))
    outlook = _look(np.where(counted, increments, series.values), starts, series, calendar, config)
    return outlook._replace(expected=outlook.expected + np.where(counted, base, 0.0))


def _counts(series: Ragged, calendar: Calendar, config: PanelConfig) -> _Looked:
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


def _look(values: Floats, starts: Ints, series: Ragged, calendar: Calendar, config: PanelConfig) -> _Looked:
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
    old = past / (past + _YOUNG)
    odd = means * old
    own = np.empty((1, values.size))
    tail_surprises(np.where(np.isnan(values), np.nan, _OWN_UNIT * odd)[None], starts, own)
    return _Looked(expected, spread, odd + _OWN_SHARE * old * np.nan_to_num(own[0]), surprises[_MOTION], leaders)


def _verdict(outlook: _Outlook, config: PanelConfig) -> PanelScores:
    marks = (config.marks.info, config.marks.warning, config.marks.critical)
    rate, past, three_days = config.incident_rate, outlook.past, 6.0 * outlook.half_day
    confidence = rate / (rate + 10.0**-outlook.odd) * past / np.maximum(past + three_days, 1.0)
    return PanelScores(
        expected=outlook.expected,
        lower=outlook.lower,
        upper=outlook.upper,
        surprise=outlook.odd,
        score=np.interp(outlook.odd, *_SCORE_MARKS),
        confidence=np.where(outlook.view < 0, 0.0, confidence),
        severity=np.searchsorted(marks, outlook.odd, side="right").astype(np.int8),
        view=outlook.view,
    )
