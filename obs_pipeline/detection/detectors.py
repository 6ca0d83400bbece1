"""The detectors: arrays in, arrays out. History and the tested value are separate arguments, so no value can be
part of its own baseline and no detector can look ahead.

Holds trailing windows, the baselines of each method, and the spread that bursts suggest. Knows nothing of metrics,
money, files or settings; every result depends on its own window alone, so any split of series or days gives the
same numbers.

Shapes: ``history`` is (..., window), ``observed`` and every result are (...). NaN means unknown; infinities count as
enormous. Deviations are in sigmas and limited to ±:data:`LARGEST_DEVIATION`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

LARGEST_DEVIATION: Final = 1e6
WINSORISED_SHARE: Final = 0.05
"""Share of the history, rounded up to whole values, that is pulled in at either end before mean and spread."""

SHRUNK_VISITS: Final = 1.5
SMOOTHINGS: Final = tuple((alpha, gamma) for alpha in (0.05, 0.15, 0.35) for gamma in (0.0, 0.15, 0.35, 0.7))
"""Smoothing of the level and of the weekly season that are tried."""

LEVEL_VALUES: Final = 3
"""How many of the last values are taken together for a level, which may be a new one."""

_LARGEST_VALUE: Final = 1e100  # its square still fits a float
_UNSURE: Final = (
    1.35  # variance of a value about its forecast: its own, that of the slope two weeks on, that of its weekday
)
_FLAT_DAYS: Final = 14.0 * (14.0**2 - 1) / 12.0  # what a flat line through two weeks adds to the sum of squares of ages
_NORMAL_MAD: Final = 1.4826022185056018
_NORMAL_IQR: Final = 1.3489795003921634  # interquartile range of the standard normal distribution


class Baseline(NamedTuple):
    """What was to be expected, and how far the observed value is from it. NaN while learning.

    ``lower`` and ``upper`` are ``expected`` ∓ ``width`` spreads; ``n`` counts the known values of the history.
    """

    expected: Floats
    spread: Floats
    lower: Floats
    upper: Floats
    deviation: Floats
    n: Ints


Detector = Callable[..., Baseline]


def trailing(values: Floats, window: int) -> Floats:
    """The ``window`` values before each value, shape (..., time, window); before the first value all is unknown."""
    unknown = np.full((*values.shape[:-1], window), np.nan)
    padded = np.concatenate([unknown, values], axis=-1)
    views = np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1)
    return views[..., : values.shape[-1], :]


def zscore(
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> Baseline:
    """Distance from the mean of the history in standard deviations, both winsorised.

    The top and bottom ``ceil(5 %)`` of the known values take the value of their inner neighbour, so one outlier in
    the history widens nothing and the days after it are judged as before. The spread is the winsorised standard
    deviation divided by the share left untouched (Yuen, Biometrika 61, 1974), times ``sqrt(1 + 1/n)`` for the
    uncertainty of the mean, and never below ``floor`` nor below ``relative`` × |expected|.
    """
    from obs_pipeline.detection.window_stats import winsorised

    mean, spread, n = winsorised(history, WINSORISED_SHARE, _LARGEST_VALUE)
    return _compare(observed, mean, spread, n, min_points, floor, relative, width)


def iqr(
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> Baseline:
    """Distance from the median of the history; the spread is the interquartile range in units of a normal sigma.

    Quartiles interpolate linearly between order statistics. Floors as in :func:`zscore`.
    """
    ordered, n = _ordered(history)
    median = _quantile(ordered, n, 0.5)
    ranges = _quantile(ordered, n, 0.75) - _quantile(ordered, n, 0.25)
    spread = ranges / _NORMAL_IQR * np.sqrt(1 + 1 / np.maximum(n, 1))
    return _compare(observed, median, spread, n, min_points, floor, relative, width)


def robust_zscore(
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> Baseline:
    """Distance from the median; the spread is the median absolute deviation in units of a normal sigma.

    Where more than half of the history is alike that is zero, and everything else would ring for ever: there the spread is
    the root mean square of the deviations, which every other value widens. Floors as in :func:`zscore`.
    """
    ordered, n = _ordered(history)
    median = _quantile(ordered, n, 0.5)
    spread = _robust_spread(history, median, n) * np.sqrt(1 + 1 / np.maximum(n, 1))
    return _compare(observed, median, spread, n, min_points, floor, relative, width)


def seasonal_profile(
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> Baseline:
    """Distance from a line through the history, drawn to be flat, plus what its weekday usually lies above or below it.

    The history is of days, or of one hour of them, the last of them yesterday: for hours the profile is one of the hour of
    the week. A weekday's offset is the mean of what it leaves, shrunk as by :data:`SHRUNK_VISITS` visits of none; the slope as
    by two weeks without any. Values are pulled in as in :func:`zscore`, and so are the residuals that make the spread.
    """
    whole, n = _ordered(history)
    middle = np.nan_to_num(_quantile(whole, n, 0.5))  # so that a flat history leaves exactly nothing
    values = np.clip(history, -_LARGEST_VALUE, _LARGEST_VALUE) - middle[..., None]
    kept = _pulled_in(values)
    window = kept.shape[-1]
    ages = np.arange(-window, 0.0)
    known = ~np.isnan(kept)
    offsets = np.zeros(kept.shape)
    for _ in range(2):  # the second line is drawn without the weekdays that bent the first
        level, slope = _line(kept - offsets, ages, known)
        rest = np.where(known, kept - level[..., None] - slope[..., None] * ages, 0.0)
        for weekday in range(min(7, window)):
            same = slice(weekday, None, 7)
            visits = known[..., same].sum(axis=-1)
            offsets[..., same] = (rest[..., same].sum(axis=-1) / (visits + SHRUNK_VISITS))[..., None]
    expected = middle + level + (offsets[..., -7] if window >= 7 else 0.0)
    rest = _pulled_in(values - level[..., None] - slope[..., None] * ages - offsets)
    squares = np.where(known, rest**2, 0.0).sum(axis=-1)
    pulled = np.ceil(WINSORISED_SHARE * n) / np.maximum(n, 1)
    spread = np.sqrt(squares / np.maximum(n - 1, 1) * (_UNSURE + 1 / np.maximum(n, 1))) / np.maximum(
        1 - 2 * pulled, 0.3
    )
    return _compare(observed, expected, spread, n, min_points, floor, relative, width)


def forecast_residual(
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> Baseline:
    """Distance from a forecast by exponential smoothing with an additive weekly season (Holt-Winters without a trend).

    The recursion is rolled over the history, of days as in :func:`seasonal_profile`, for each pair of
    :data:`SMOOTHINGS`, and the pair with the smallest squared errors one day ahead forecasts; these errors make the
    spread. One step counts at most three winsorised deviations, so an outlier does not carry the forecast away.
    """
    history = np.clip(history, -_LARGEST_VALUE, _LARGEST_VALUE)
    ordered, n = _ordered(history)
    median = _quantile(ordered, n, 0.5)
    kept = _pulled_in(history - median[..., None])
    step = 3 * np.maximum(np.sqrt(np.nanmean(np.where(n[..., None] > 0, kept**2, 0.0), axis=-1)), floor)
    best = np.full(n.shape, np.inf)
    expected = np.full(n.shape, np.nan)
    for smoothing in SMOOTHINGS:
        ahead, errors = _smoothed(history, median, step, *smoothing)
        better = errors < best
        best, expected = np.where(better, errors, best), np.where(better, ahead, expected)
    spread = np.sqrt(np.where(np.isfinite(best), best, 0.0) * (1 + 1 / np.maximum(n, 1)))
    return _compare(observed, expected, spread, n, min_points, floor, relative, width)


def change_of_level(
    history: Floats,
    observed: Floats,
    min_points: int,
    *,
    floor: npt.ArrayLike = 0.0,
    relative: float = 0.0,
    width: float = 2.0,
) -> Baseline:
    """Distance of the mean of the last :data:`LEVEL_VALUES` values, the observed one among them, from the mean of those before.

    In spreads of such a mean; unknown where one of these values is. Expected and band are those of a single value.
    """
    older = history[..., : max(history.shape[-1] - LEVEL_VALUES + 1, 0)]
    newer = np.concatenate([history[..., older.shape[-1] :], observed[..., None]], axis=-1)
    newer = np.clip(newer, -_LARGEST_VALUE, _LARGEST_VALUE)
    # The mean of a constant must be that, not that give or take one rounding.
    mean = np.clip(newer.mean(axis=-1), newer.min(axis=-1), newer.max(axis=-1))
    level = zscore(older, mean, min_points, floor=floor, relative=relative, width=width)
    sigmas = np.sqrt(LEVEL_VALUES) * level.deviation
    return level._replace(deviation=np.clip(sigmas, -LARGEST_DEVIATION, LARGEST_DEVIATION))


DETECTORS: Final[dict[str, Detector]] = {
    "zscore": zscore,
    "iqr": iqr,
    "robust_zscore": robust_zscore,
    "seasonal_profile": seasonal_profile,
    "forecast_residual": forecast_residual,
}


def _robust_spread(history: Floats, median: Floats, n: Ints) -> Floats:
    """The median absolute deviation in sigmas; the root mean square of the deviations where that is zero."""
    with np.errstate(invalid="ignore"):
        away, _ = _ordered(np.minimum(np.abs(history - median[..., None]), _LARGEST_VALUE))
    middle = _quantile(away, n, 0.5) * _NORMAL_MAD
    squares = np.where(np.isnan(away), 0.0, away**2).sum(axis=-1)
    return np.where(middle > 0, middle, np.sqrt(squares / np.maximum(n, 1)))


def _pulled_in(history: Floats) -> Floats:
    """The history with its top and bottom twentieth at the value of their inner neighbours."""
    _, lowest, highest = _inner(*_ordered(history))
    return np.clip(history, lowest[..., None], highest[..., None])


def _inner(ordered: Floats, n: Ints) -> tuple[Ints, Floats, Floats]:
    """How many values are pulled in at either end, and the lowest and the highest of the others."""
    pulled = np.minimum(np.ceil(WINSORISED_SHARE * n).astype(np.int64), np.maximum(n - 1, 0) // 2)
    lowest = np.clip(_at(ordered, pulled), -_LARGEST_VALUE, _LARGEST_VALUE)
    highest = np.clip(_at(ordered, n - 1 - pulled), -_LARGEST_VALUE, _LARGEST_VALUE)
    return pulled, lowest, highest


def _line(values: Floats, ages: Floats, known: Bools) -> tuple[Floats, Floats]:
    """Level at age zero and slope of a line through the known values, the slope shrunk towards none."""
    count = np.maximum(known.sum(axis=-1), 1)
    at = np.where(known, ages, 0.0)
    middle = at.sum(axis=-1) / count
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=-1) / count
    away = np.where(known, ages - middle[..., None], 0.0)
    slope = (away * filled).sum(axis=-1) / ((away**2).sum(axis=-1) + _FLAT_DAYS)
    return mean - slope * middle, slope


def _smoothed(history: Floats, start: Floats, step: Floats, alpha: float, gamma: float) -> tuple[Floats, Floats]:
    """The forecast after the history, and the mean squared error one day ahead in it; the first week only teaches."""
    window = history.shape[-1]
    level = np.nan_to_num(start)
    season = np.zeros((7, *level.shape))
    squares, count = np.zeros(level.shape), np.zeros(level.shape)
    for day in range(window):
        weekday = (day - window) % 7
        value = history[..., day]
        known = ~np.isnan(value)
        error = np.where(known, np.clip(value - level - season[weekday], -step, step), 0.0)
        level = level + alpha * error
        season[weekday] += gamma * (1 - alpha) * error
        if day >= 7:
            squares += error**2
            count += known
    return level + season[0], squares / np.maximum(count, 1)


def active_share(history: Floats) -> Floats:
    """The share of known values that are not zero; NaN without known values."""
    from obs_pipeline.detection.window_stats import counts

    known, active, *_ = counts(history)
    return np.where(known > 0, active / np.maximum(known, 1), np.nan)


def never_idle(history: Floats) -> Bools:
    """Where nothing at all would be news: active on every known day of two weeks or more, or on each same weekday of four.

    The history is of days, the last of them yesterday.
    """
    from obs_pipeline.detection.window_stats import counts

    days, _, active_days, weeks, active_weeks = counts(history)
    never: Bools = ((days >= 14) & (days == active_days)) | ((weeks >= 4) & (weeks == active_weeks))
    return never


def burst_spread(history: Floats) -> Floats:
    """The root mean square of the values that are not zero, its top ``ceil(5 %)`` pulled in; zero without any.

    How large the bursts of a series usually are. A series that is mostly idle has a history of zeros whose spread
    says nothing about the size of its next, perfectly normal burst; this does.
    """
    from obs_pipeline.detection.window_stats import root_mean_square

    return root_mean_square(history, WINSORISED_SHARE, _LARGEST_VALUE)


def _ordered(history: Floats) -> tuple[Floats, Ints]:
    """Known values in rising order, unknown ones last, and how many are known."""
    return np.sort(history, axis=-1), (~np.isnan(history)).sum(axis=-1)


def _at(ordered: Floats, positions: Ints) -> Floats:
    """The order statistic at each position; NaN where there is none."""
    inside = np.clip(positions, 0, ordered.shape[-1] - 1)
    return np.take_along_axis(ordered, inside[..., None], axis=-1)[..., 0]


def _quantile(ordered: Floats, n: Ints, share: float) -> Floats:
    position = share * np.maximum(n - 1, 0)
    below = np.floor(position).astype(np.int64)
    left = np.clip(_at(ordered, below), -_LARGEST_VALUE, _LARGEST_VALUE)
    right = np.clip(_at(ordered, np.minimum(below + 1, n - 1)), -_LARGEST_VALUE, _LARGEST_VALUE)
    return left + (right - left) * (position - below)


def _compare(
    observed: Floats,
    expected: Floats,
    own_spread: Floats,
    n: Ints,
    min_points: int,
    floor: npt.ArrayLike,
    relative: float,
    width: float,
) -> Baseline:
    learned = n >= min_points
    expected = np.where(learned, expected, np.nan)
    spread = np.maximum(np.maximum(own_spread, floor), relative * np.abs(expected))
    distance = np.clip(observed, -_LARGEST_VALUE, _LARGEST_VALUE) - expected
    # A flat history and no floor: anything else than its value is as far off as can be.
    with np.errstate(over="ignore"):
        sigmas = np.divide(distance, spread, out=np.sign(distance) * LARGEST_DEVIATION, where=spread > 0)
    return Baseline(
        expected=expected,
        spread=spread,
        lower=expected - width * spread,
        upper=expected + width * spread,
        deviation=np.clip(sigmas, -LARGEST_DEVIATION, LARGEST_DEVIATION),
        n=n,
    )
