"""From deviation and money at stake to severity, score and confidence.

Holds the three verdicts as functions over arrays. No baselines, no wording.

``stake`` is always the excess over the baseline divided by the metric's materiality floor: 1 is the smallest amount
worth reporting, 10 ten times that, whatever the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.config import Grain, NewAgentCeiling, PriceContradiction, Thresholds

Floats = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int8]

SCORE_BANDS: Final = (0.0, 20.0, 50.0, 80.0, 100.0)
"""Scores of no anomaly, info, warning and critical lie between neighbouring marks, so a graver anomaly ranks first."""

LARGEST_CONFIDENCE: Final = 0.95

CEILING_CONFIDENCE: Final = 0.5
"""Of a new agent that spends more than its ceiling nothing is known that would tell a fault from a plan."""

RULES: Final[Mapping[str, tuple[float, float]]] = {
    "windows": (-2.41, 1.17),
    "model": (-0.12, 0.69),
    "ensemble": (-0.63, 0.75),
}
"""Offset and slope by which the logit of what Bayes says becomes that of what was right, for methods that compare windows, for
the usage model and for the ensemble: learned on the alarms of fifteen fleets of three kinds (``reliability_bench --fit``)."""

RULE_OF: Final[Mapping[str, str]] = {"usage_model": "model", "ensemble": "ensemble"}
"""The rule of each method that has a calibrated surprise; of the others it is that of windows."""

INCIDENT_RATE: Final[dict[Grain, float]] = {"day": 3e-3, "hour": 4e-4}
"""Assumed share of values of one series that belong to a real incident: about one incident a year and series."""

TAIL: Final[dict[Grain, tuple[float, float]]] = {"day": (3e-3, 3.0), "hour": (5e-4, 3.0)}
"""Share of ordinary material values beyond three sigmas, and the power with which it falls further out. Between what a
simulated fleet of steady and bursty agents shows (half of it) and what one real, very bursty sample does (twice)."""

_HALF_WAY: Final = 6.0  # evidence at which a score reaches the middle of its band
_LEARNING_HALF: Final = 7.0  # known values in the history at which the odds are halved


def severity_ranks(deviation: Floats, stake: Floats, thresholds: Thresholds) -> Ranks:
    """0 none, 1 info, 2 warning, 3 critical: by sigmas, and none below the materiality floor (``stake`` < 1)."""
    sigmas = np.abs(deviation)
    ranks = np.zeros(np.shape(sigmas), dtype=np.int8)
    for mark in (thresholds.info, thresholds.warning, thresholds.critical):
        ranks += (sigmas >= mark).astype(np.int8)
    return np.where(stake >= 1, ranks, 0).astype(np.int8)


def price_ranks(overcharge: Floats, marks: PriceContradiction | NewAgentCeiling) -> Ranks:
    """0, 2 (warning) or 3 (critical) by USD alone: those above list price, or those of a new agent."""
    warning, critical = overcharge >= marks.warning, overcharge >= marks.critical
    return np.where(critical, 3, np.where(warning, 2, 0)).astype(np.int8)


def scores(deviation: Floats, stake: Floats, ranks: Ranks) -> Floats:
    """0–100, rising with the deviation, with the stake and with the severity.

    ``evidence = log2(1 + |deviation|) * (1 + log10(1 + stake))`` places it within the band of its severity: twice
    the sigmas or ten times the money move it by about the same step.
    """
    evidence = np.log2(1 + np.abs(np.nan_to_num(deviation))) * (1 + np.log10(1 + np.nan_to_num(stake)))
    marks = np.array(SCORE_BANDS)
    floor, ceiling = marks[ranks], marks[ranks + 1]
    placed: Floats = floor + (ceiling - floor) * evidence / (evidence + _HALF_WAY)
    return placed


def confidences(deviation: Floats, points: npt.ArrayLike, grain: Grain) -> Floats:
    """What Bayes says of the share of such deviations that are real, 0 … 1.

    It has two assumed rates per tested value: real incidents (:data:`INCIDENT_RATE`) and ordinary values that
    get this far, a power of the deviation (:data:`TAIL`), because usage has fat tails and five sigmas are far less
    rare than a normal distribution says. A short history is trusted less: the odds are multiplied by ``n / (n + 7)``.
    """
    sigmas = np.maximum(np.abs(deviation), 1.0)
    at_three, power = TAIL[grain]
    false_alarms = at_three * (sigmas / 3) ** -power
    n = np.asarray(points, dtype=np.float64)
    odds = INCIDENT_RATE[grain] / false_alarms * n / (n + _LEARNING_HALF)
    shares: Floats = odds / (1 + odds)
    return shares


def logit(shares: Floats) -> Floats:
    """The logarithm of the odds, of shares held a thousandth away from nothing and certainty."""
    kept = np.clip(shares, 1e-3, 1 - 1e-3)
    odds: Floats = np.log(kept / (1 - kept))
    return odds


def told(shares: Floats, rule: str) -> Floats:
    """What is told as confidence of what Bayes says, by one of :data:`RULES`; it rises with it."""
    offset, slope = RULES[rule]
    return np.minimum(1 / (1 + np.exp(-(offset + slope * logit(shares)))), LARGEST_CONFIDENCE)


def price_confidences(observed: Floats, overcharge: Floats) -> Floats:
    """The share of the cost that the list price does not explain, 0 … :data:`LARGEST_CONFIDENCE`."""
    shares = overcharge / np.maximum(observed, np.maximum(overcharge, 1e-9))
    return np.clip(shares, 0.0, LARGEST_CONFIDENCE)
