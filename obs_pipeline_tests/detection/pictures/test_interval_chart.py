"""The picture of forecasts: well formed, escaped, and to scale."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from obs_pipeline.detection.pictures.interval_chart import Outlook, interval_chart_svg

KNOWN = Outlook("agent", 10, 30, 20, 50, 40, "will be used up")
UNKNOWN = Outlook("<b>new</b>", 1, None, None, None, None, "not enough history")


def lefts(svg: str, kind: str) -> list[float]:
    return [float(x) for x in re.findall(rf"class='{kind}' x='([\d.]+)'", svg)]


def test_each_scope_has_its_spend_and_only_known_ones_an_interval():
    svg = interval_chart_svg([KNOWN, UNKNOWN], "Month")
    ElementTree.fromstring(svg)
    assert len(lefts(svg, "spent")) == 2
    assert len(lefts(svg, "interval")) == 1
    assert "not enough history" in svg


def test_texts_are_escaped_and_there_is_no_background():
    svg = interval_chart_svg([UNKNOWN], "<script>")
    assert "<b>" not in svg
    assert "<script>" not in svg
    assert "#fff" not in svg


def test_a_budget_far_away_does_not_flatten_everything_else():
    near, far = (interval_chart_svg([KNOWN._replace(limit=limit)], "") for limit in (45, 1e9))
    assert lefts(far, "interval")[0] > 170
    assert lefts(near, "interval")[0] > lefts(far, "interval")[0]


def test_nothing_is_a_picture_too():
    ElementTree.fromstring(interval_chart_svg([], ""))
    ElementTree.fromstring(interval_chart_svg([Outlook("x", 0, None, None, None, 0, "")], ""))
