"""What each metric is made of, on which scale it is judged, and how much of its scatter is only noise.

Holds everything in which cost, tokens, errors and latency differ. No windows, no thresholds, no wording.

Scales
------
Cost and tokens are sums of a random number of calls: their scatter grows with the square root of their size, so they
are judged as square roots, which also keeps one burst among idle days from being a hundred sigmas. Error rates are
judged as square roots as well, because the square root of a rate out of *n* calls scatters by ``1 / (2 sqrt n)``
whatever the rate (variance-stabilising transform of the binomial at small rates). Latency is judged as a logarithm.
Baselines and bands are carried back to the metric's own unit, so a band is wider above than below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection.config import AnomalyDetectionConfig, Grain, Metric
from obs_pipeline.detection.panel import Panel

Floats = npt.NDArray[np.float64]

LEAST_RELATIVE_SPREAD: Final = 0.05
"""Nobody's spread on the square-root scale is taken for less than this share of its level (some 10 % of the value):
flat histories are short, not infinitely reliable."""
LATENCY_SPREAD: Final = 0.1
"""The same for latency: 10 %, twice the error of its histogram buckets."""

_LARGEST_EXPONENT: Final = 700.0


def _root(values: Floats) -> Floats:
    return np.sign(values) * np.sqrt(np.abs(values))


def _square(roots: Floats) -> Floats:
    return np.sign(roots) * roots**2


@dataclass(frozen=True)
class Scale:
    """The scale a metric is judged on, and the way back. Both rise strictly."""

    forward: Callable[[Floats], Floats]
    back: Callable[[Floats], Floats]


def _exponential(logarithms: Floats) -> Floats:
    return np.exp(np.minimum(logarithms, _LARGEST_EXPONENT))


ROOT: Final = Scale(_root, _square)
LOGARITHM: Final = Scale(np.log, _exponential)


@dataclass(frozen=True)
class MetricRule:
    """How one metric is judged.

    ``sum_name`` is its value per cell, ``exposure`` the sum that says how many calls stand behind it.
    ``idles``: times without rows count as zero; bursts and drops to zero are then part of its life. ``largest`` is
    the largest value it can take.
    """

    scale: Scale
    sum_name: str
    exposure: str
    idles: bool
    relative_spread: float
    largest: float = np.inf


RULES: Final[Mapping[Metric, MetricRule]] = {
    "cost": MetricRule(ROOT, "cost", "calls", True, LEAST_RELATIVE_SPREAD),
    "tokens": MetricRule(ROOT, "tokens", "calls", True, LEAST_RELATIVE_SPREAD),
    "errors": MetricRule(ROOT, "errors", "calls", False, 0.0, largest=1.0),
    "latency": MetricRule(LOGARITHM, "latency", "latency_calls", False, 0.0),
}


def cell_values(panel: Panel, metric: Metric, config: AnomalyDetectionConfig) -> Floats:
    """The metric in its own unit, one value per occupied cell of the panel; NaN where it means nothing."""
    rule = RULES[metric]
    values, calls = panel.sums[rule.sum_name], panel.sums[rule.exposure]
    if metric == "errors":
        enough = calls >= config.minimum_calls.errors
        return np.where(enough, values / np.where(enough, calls, 1.0), np.nan)
    return values


def noise(metric: Metric, grain: Grain, exposure: Floats, config: AnomalyDetectionConfig) -> Floats:
    """The least spread a value may be judged with, on the metric's scale, given the calls behind the tested value.

    Cost and tokens: so wide that, after a history of nothing, the smallest material amount is just a ``warning``.
    Errors: the binomial noise of the tested rate. Latency: a p95 out of *n* calls is uncertain by about
    ``1 / sqrt n`` of its value (order statistics of a log-normal whose sigma is a half).
    """
    calls = np.maximum(np.nan_to_num(exposure), 1.0)
    if metric == "errors":
        return 0.5 / np.sqrt(calls)
    if metric == "latency":
        return np.maximum(LATENCY_SPREAD, 1 / np.sqrt(calls))
    smallest = RULES[metric].scale.forward(np.array(config.materiality.floor(metric, grain)))
    return np.full(exposure.shape, smallest / config.thresholds.warning)


def excess(metric: Metric, observed: Floats, expected: Floats, exposure: Floats) -> Floats:
    """How much more (or, negative, less) than expected: USD, tokens, failed calls or milliseconds."""
    difference = observed - expected
    return difference * np.nan_to_num(exposure) if metric == "errors" else difference
