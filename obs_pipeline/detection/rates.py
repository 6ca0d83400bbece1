"""Counts behind which there are trials or an exposure: errors of requests, failures of hours.

Holds the running rate of each series and the exact tail of a count. No views, no marks, no files. Series are ragged: one
flat array, and ``starts`` with one more entry than there are series; every result depends on the past alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PRIOR_RATE: Final = 0.01
PRIOR_TRIALS: Final = 60.0
"""The prior is worth this much exposure, but no more than twice the first exposure that is seen."""

LEAST_COUNT: Final = 2.0
"""Fewer than these are never surprisingly many."""

_SMALLEST: Final = 1e-300


class Rates(NamedTuple):
    """The rate before each point is Gamma distributed: ``shape`` counts in ``exposure``."""

    shape: Floats
    exposure: Floats

    def at(self, positions: Ints) -> Rates:
        """The rates at some positions."""
        return Rates(self.shape[positions], self.exposure[positions])


@numba.njit(cache=True, nogil=True)
def _running(counts: Floats, trials: Floats, starts: Ints, keep: Floats, shape: Floats, exposure: Floats) -> None:
    for series in range(starts.size - 1):
        a = b = weight = 0.0
        for i in range(starts[series], starts[series + 1]):
            k, n = counts[i], trials[i]
            known = not np.isnan(k) and n > 0.0
            if known and weight == 0.0:
                weight = min(PRIOR_TRIALS, 2.0 * n)
            shape[i] = a + PRIOR_RATE * weight
            exposure[i] = b + weight
            if known:
                usual = n * shape[i] / exposure[i]
                most = usual + 4.0 * np.sqrt(usual * (1.0 + n / exposure[i])) + 1.0
                a = keep[i] * a + min(k, most)
                b = keep[i] * b + n


def running_rates(counts: Floats, trials: Floats, starts: Ints, half_lives: Floats) -> Rates:
    """The rate of each series before each point; ``half_lives`` in points, for each point; zeros before any exposure."""
    rates = Rates(np.zeros_like(counts), np.zeros_like(counts))
    _running(counts, trials, starts, 0.5 ** (1.0 / half_lives), *rates)
    return rates


def count_surprises(counts: Floats, trials: Floats, rates: Rates) -> Floats:
    """−log10 of the two-sided tail of each count, Gamma-Poisson: with a rate that is itself only estimated.

    ``P(K ≥ k) = I(n / (n + b); k, a)`` for shape ``a`` and exposure ``b`` of the rate. Heavier than the binomial tail, so
    that a high rate is not alarmed about for that alone. Zero where anything is unknown.
    """
    from scipy.special import betainc, betaincc

    known = (trials > 0) & (rates.exposure > 0) & ~np.isnan(counts)
    k, n = np.where(known, counts, 0.0), np.where(known, trials, 1.0)
    a, b = np.where(known, rates.shape, 1.0), np.where(known, rates.exposure, 1.0)
    share = n / (n + b)
    above = np.where(k >= LEAST_COUNT, betainc(np.maximum(k, 1.0), a, share), 1.0)
    below = betaincc(k + 1.0, a, share)
    tail = np.minimum(1.0, 2.0 * np.minimum(above, below))
    return np.where(known, -np.log10(np.maximum(tail, _SMALLEST)), 0.0)
