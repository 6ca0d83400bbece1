"""Severity, score and confidence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.detection import scoring
from obs_pipeline.detection.config import PriceContradiction, Thresholds

SIGMAS = st.floats(0, 1e6)
STAKES = st.floats(0, 1e12)


def verdict(deviation: float, stake: float) -> tuple[int, float]:
    sigmas, stakes = np.array([deviation]), np.array([stake])
    ranks = scoring.severity_ranks(sigmas, stakes, Thresholds())
    return int(ranks[0]), float(scoring.scores(sigmas, stakes, ranks)[0])


@pytest.mark.parametrize(
    ("deviation", "stake", "rank"),
    [
        (1.99, 5, 0),
        (2, 1, 1),
        (-2, 1, 1),
        (3, 1, 2),
        (4.99, 1e9, 2),
        (5, 1, 3),
        (500, 0.99, 0),
        (np.nan, 5, 0),
        (5, np.nan, 0),
    ],
)
def test_severity_needs_both_the_sigmas_and_a_material_amount(deviation, stake, rank):
    assert scoring.severity_ranks(np.array([deviation]), np.array([stake]), Thresholds()).tolist() == [rank]


@given(deviation=SIGMAS, stake=STAKES, more_sigmas=SIGMAS, more_stake=STAKES)
def test_more_sigmas_or_more_at_stake_never_lowers_the_score_or_the_severity(deviation, stake, more_sigmas, more_stake):
    rank, score = verdict(deviation, stake)
    higher_rank, higher_score = verdict(deviation + more_sigmas, stake + more_stake)
    assert higher_rank >= rank
    assert higher_score >= score
    assert 0 <= score <= 100


def test_a_graver_anomaly_always_ranks_before_a_milder_one():
    marks = scoring.SCORE_BANDS
    for rank, (least, most) in enumerate(itertools.pairwise(marks)):
        ends = scoring.scores(np.array([0.0, 1e6]), np.array([0.0, 1e15]), np.array([rank, rank]))
        assert least <= ends[0] < ends[1] <= most


def test_money_at_stake_separates_equal_deviations():
    assert verdict(6, 1000)[1] > verdict(6, 10)[1] > verdict(6, 1)[1]


@pytest.mark.parametrize("grain", ["day", "hour"])
def test_confidence_rises_with_sigmas_and_with_history_and_never_claims_certainty(grain):
    sigmas = np.array([2.0, 3.0, 5.0, 20.0, 100.0])
    full, short = (scoring.confidences(sigmas, points, grain) for points in (28, 7))
    assert np.all(np.diff(full) >= 0)
    assert np.all(short < full)
    assert full[1] < 0.5
    assert full.max() <= 1
    assert scoring.told(full, "windows").max() == scoring.LARGEST_CONFIDENCE


@pytest.mark.parametrize("rule", list(scoring.RULES))
def test_what_is_told_rises_with_what_bayes_says_and_never_claims_certainty(rule):
    shares = np.linspace(0, 1, 101)
    told = scoring.told(shares, rule)
    assert np.all(np.diff(told) >= 0)
    assert told.min() > 0
    assert told.max() <= scoring.LARGEST_CONFIDENCE
    offset, slope = scoring.RULES[rule]
    assert scoring.logit(told)[50] == pytest.approx(offset + slope * 0)


def test_the_price_marks_are_inclusive_and_skip_info():
    marks = PriceContradiction(warning=1, critical=10)
    assert scoring.price_ranks(np.array([0, 0.99, 1, 9.99, 10]), marks).tolist() == [0, 0, 2, 2, 3]


def test_confidence_in_an_overcharge_is_its_share_of_the_cost():
    found = scoring.price_confidences(np.array([9990.04, 10.0]), np.array([9990.0, 2.0]))
    assert found == pytest.approx([scoring.LARGEST_CONFIDENCE, 0.2])
