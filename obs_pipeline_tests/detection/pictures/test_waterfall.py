"""The waterfall: a well-formed picture whose steps meet and whose texts are escaped."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from obs_pipeline.detection.decomposition import split_deviation
from obs_pipeline.detection.pictures.waterfall import waterfall_svg
from obs_pipeline.detection.usage_sums import Group
from obs_pipeline_tests.detection.test_decomposition import GPT, RATES, calls


def drawn(before, after, title="agent", cause="more calls") -> str:
    groups = [Group(False, GPT, None, before), Group(True, GPT, None, after)]
    return waterfall_svg(split_deviation("cost", groups, before.charged, 1, RATES), title, cause)


def bars(svg: str) -> list[tuple[float, float]]:
    found = re.findall(r"class='bar' x='([\d.]+)' y='\d+' width='([\d.]+)'", svg)
    return [(float(left), float(left) + float(width)) for left, width in found]


def test_the_steps_lead_from_expected_to_observed():
    rising = bars(drawn(calls(10), calls(30, tokens=2000)))
    assert len(rising) == 4
    for (_, end), (start, _) in pairwise(rising[:-1]):
        assert start == pytest.approx(end, abs=1)
    assert rising[-1][1] == pytest.approx(rising[-2][1], abs=1)


def test_terms_too_small_to_see_are_one_bar():
    svg = drawn(calls(10), calls(30, credits=Decimal("-0.00000001")))
    assert "all others" in svg
    assert "credits" not in svg


def test_texts_are_escaped_and_nothing_is_loaded_from_elsewhere():
    svg = drawn(calls(1), calls(2), title="<script>alert('x')</script>", cause="<b>&")
    ElementTree.fromstring(svg)
    assert "<script" not in svg
    assert "&lt;script&gt;" in svg
    assert "href" not in svg


def test_there_is_no_background_so_that_it_reads_on_dark_pages():
    svg = drawn(calls(1), calls(2))
    assert "fill='#fff'" not in svg
    assert "style" not in svg


def test_nothing_at_all_is_a_picture_too():
    ElementTree.fromstring(waterfall_svg(split_deviation("cost", [], 0, 1), "", ""))
