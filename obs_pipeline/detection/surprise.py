"""How rarely a series itself goes as far as it does now: tail probabilities learnt from the past of each series.

Holds the running tail of each view and the rule that separates onsets from their echoes, both compiled. No forecasts,
no severities, no files.

Series are ragged: one flat array, and ``starts`` with one more entry than there are series. Every result depends on
its position and on earlier positions of its own series alone.
"""

from __future__ import annotations

import math
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LARGEST_SURPRISE: Final = 8.0
ECHO_SHARE: Final = 0.9
"""What is left of a surprise that does not beat those of the half day before it."""

_BINS: Final = 112
_BINS_PER_E: Final = 8.0
_LOWEST: Final = 0.02  # residuals below it share the first bin
_PSEUDO: Final = 20.0  # values of an imagined ordinary past, so that a new series is not surprised by everything
_TAIL_SHARE: Final = 0.01  # the share of the past that the shape of the tail is read from, but
_TAIL_LEAST: Final = 8.0  # no fewer values than this,
_TAIL_FROM: Final = 2.0  # and no residual below this
_PRIOR_WEIGHT: Final = 10.0
_PRIOR_POWER: Final = 4.0  # tails fall with this power of the residual until the series says otherwise
_RENEWALS: Final = 24.0
_ODD: Final = 2.0  # what surprises more than this is likelier an incident than usual, and
_ODD_TEACHES: Final = 0.3  # teaches that much less; what comes often enough is learnt all the same
_LONGEST_PAST: Final = 2000.0  # values after which the weight of the past is halved, so that it can become another
_BOTH_SIDES: Final = math.log10(2.0)
_LN_10: Final = math.log(10.0)


@numba.njit(cache=True, nogil=True)
def _bin_of(size: float) -> float:
    """A fractional position on the logarithmic scale of residuals."""
    if size <= _LOWEST:
        return 0.0
    return float(min(1.0 + math.log(size / _LOWEST) * _BINS_PER_E, _BINS - 1.001))


@numba.njit(cache=True, nogil=True)
def _beyond(counts: Floats, position: float) -> float:
    """How many values lie beyond a position, those of its own bin spread evenly over it."""
    b = int(position)
    further = 0.0
    for j in range(b + 1, _BINS):
        further += counts[j]
    return float(further + (b + 1.0 - position) * counts[b])


@numba.njit(cache=True, nogil=True)
def _tail_of(counts: Floats, total: float) -> tuple[float, float]:
    """Where the tail begins (a whole position) and the power with which it falls.

    The power is the estimate of Hill (Annals of Statistics 3, 1975) from the outermost values, pulled towards a prior.
    """
    outermost = max(_TAIL_LEAST, _TAIL_SHARE * total)
    lowest = int(_bin_of(_TAIL_FROM))
    edge = _BINS - 1
    beyond = float(counts[edge])
    logs = 0.5 * counts[edge]
    while edge > lowest and beyond < outermost:
        edge -= 1
        logs += beyond + 0.5 * counts[edge]
        beyond += counts[edge]
    return float(edge), (_PRIOR_WEIGHT + beyond) / (_PRIOR_WEIGHT / _PRIOR_POWER + logs / _BINS_PER_E)


@numba.njit(cache=True, nogil=True)
def _surprise(counts: Floats, total: float, position: float, edge: float, power: float) -> float:
    """−log10 of the two-sided tail: within the past the share of it that went there, beyond that a Pareto tail."""
    beyond = _beyond(counts, min(position, edge))
    further = power * max(0.0, position - edge) / (_BINS_PER_E * _LN_10)
    surprise = math.log10((total + 2.0) / (beyond + 1.0)) - _BOTH_SIDES + further
    return float(min(LARGEST_SURPRISE, max(0.0, surprise)))


@numba.njit(cache=True, nogil=True)
def tail_surprises(residuals: Floats, starts: Ints, surprises: Floats) -> None:
    """Fill ``surprises`` (view, position) with −log10 of how rarely this view of this series got this far, each
    direction for itself; NaN where the residual is, and 0 … :data:`LARGEST_SURPRISE` otherwise.

    Shares of the past are exact to a bin; the shape of a tail is renewed whenever the past has grown by a 24th, and soon
    after a surprise. The past fades, and what is odd weighs less in it, so that a surprise beyond 2 is half a decade or so
    too large.
    """
    views = residuals.shape[0]
    counts = np.zeros((2 * views, _BINS))
    edge, power = np.zeros(2 * views), np.zeros(2 * views)
    total, due = np.zeros(views), np.zeros(views)
    for series in range(starts.size - 1):
        counts[:], total[:], due[:] = 0.0, 0.0, 0.0
        for i in range(starts[series], starts[series + 1]):
            for v in range(views):
                residual = residuals[v, i]
                if math.isnan(residual):
                    surprises[v, i] = math.nan
                    continue
                past = total[v] + _PSEUDO
                if total[v] >= due[v]:
                    for side in (2 * v, 2 * v + 1):
                        edge[side], power[side] = _tail_of(counts[side], past)
                    due[v] = total[v] + max(1.0, total[v] / _RENEWALS)
                side = 2 * v if residual >= 0.0 else 2 * v + 1
                position = _bin_of(abs(residual))
                surprise = _surprise(counts[side], past, position, edge[side], power[side])
                surprises[v, i] = surprise
                counts[side, int(position)] += _ODD_TEACHES if surprise > _ODD else 1.0
                total[v] += 1.0
                if surprise > _ODD:
                    due[v] = min(due[v], total[v] + 2.0)
                if total[v] > _LONGEST_PAST:
                    counts[2 * v : 2 * v + 2] *= 0.5
                    total[v] *= 0.5
                    due[v] = 0.0


@numba.njit(cache=True, nogil=True)
def mean_and_leader(surprises: Floats, means: Floats, leaders: Ints) -> None:
    """The cubic mean over the views that can tell, 0 where none can, and which of them is surprised most.

    Between the mean, which drowns what a few views see, and the largest, which rings whenever any one of them does.
    """
    for i in range(means.size):
        total, known, leader = 0.0, 0, 0
        for v in range(surprises.shape[0]):
            one = surprises[v, i]
            if not math.isnan(one):
                total += one * one * one
                known += 1
                if not one <= surprises[leader, i]:
                    leader = v
        means[i] = (total / known) ** (1.0 / 3.0) if known else 0.0
        leaders[i] = leader


@numba.njit(cache=True, nogil=True)
def keep_onsets(surprises: Floats, starts: Ints, half_day: Ints, share: float, kept: Floats) -> None:
    """Fill ``kept``: an onset keeps itself, any other value keeps ``share`` of itself, so that one incident is loudest where
    it begins or grows.

    An onset is above all of the ``half_day`` positions before it in its series. ``half_day`` is as known at each position.
    A queue of falling maxima gives each window its largest value in constant time.
    """
    queue = np.zeros(surprises.size, dtype=np.int64)
    for series in range(starts.size - 1):
        head = tail = 0
        for i in range(starts[series], starts[series + 1]):
            while head < tail and queue[head] < i - half_day[i]:
                head += 1
            value = surprises[i]
            kept[i] = value if head == tail or value > surprises[queue[head]] else share * value
            while head < tail and surprises[queue[tail - 1]] <= value:
                tail -= 1
            queue[tail] = i
            tail += 1
