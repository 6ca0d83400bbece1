"""The band chart, read back as XML."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.detection.pictures.band_chart import Mark, band_chart_svg

START = datetime(2025, 5, 1)
NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def days(count: int) -> list[datetime]:
    return [START + timedelta(days=n) for n in range(count)]


def draw(observed, marks=(), *, spread=1.0, title="agent", **options) -> ElementTree.Element:
    times = days(len(observed))
    expected = [NAN if value is None else value * 0.5 for value in observed]
    lower = [value - spread for value in expected]
    upper = [value + spread for value in expected]
    return ElementTree.fromstring(
        band_chart_svg(times, observed, expected, lower, upper, marks, title, "USD", **options)
    )


def of_class(svg: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [one for one in svg.iter() if name in (one.get("class") or "").split()]


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(one.itertext()) for one in svg.iter(f"{SVG}text")]


def numbers(path: str) -> list[float]:
    return [float(one) for one in re.findall(r"-?\d+\.?\d*", path)]


def test_every_anomaly_is_marked_in_its_severity_at_its_value():
    times = days(5)
    marks = [Mark(times[1], "info"), Mark(times[3], "critical"), (times[4], "warning")]
    svg = draw([1.0, 2.0, 3.0, 9.0, 4.0], marks)
    assert len(of_class(svg, "anomaly")) == 3
    assert [len(of_class(svg, severity)) for severity in ("info", "warning", "critical")] == [1, 1, 1]
    tooltip = of_class(svg, "critical")[0].find(f"{SVG}title")
    assert tooltip.text == "critical 2025-05-04 00:00"


def test_an_anomaly_outside_the_chart_or_on_a_gap_is_left_out():
    svg = draw([1.0, NAN, 3.0], [Mark(days(2)[1], "info"), Mark(START - timedelta(days=3), "info")])
    assert of_class(svg, "anomaly") == []


def test_the_line_and_the_band_break_at_gaps():
    svg = draw([1.0, 2.0, NAN, None, 3.0, 4.0, 5.0])
    (line,) = of_class(svg, "observed")
    assert line.get("d").count("M") == 2
    assert line.get("d").count("L") == 3
    assert len(of_class(svg, "band")) == 2


def test_a_lone_value_and_its_band_can_be_seen():
    svg = draw([NAN, 2.0, NAN])
    assert of_class(svg, "observed")[0].get("d").endswith("h0")
    xs = numbers(of_class(svg, "band")[0].get("d"))[::2]
    assert max(xs) > min(xs)


@given(
    values=st.lists(
        st.one_of(st.none(), st.floats(-1e9, 1e12), st.sampled_from([NAN, float("inf"), 0.0, 1e-9])), max_size=30
    ),
    log=st.sampled_from([None, True, False]),
)
def test_any_values_give_a_drawing_inside_its_frame(values, log):
    times = days(len(values))
    svg = ElementTree.fromstring(
        band_chart_svg(times, values, values, values, values, [Mark(t, "info") for t in times], "t", "u", log=log)
    )
    points = numbers("".join(one.get("d", "").replace("h0", "") for one in of_class(svg, "observed")))
    assert all(0 <= x <= 640 for x in points[::2])
    assert all(0 <= y <= 180 for y in points[1::2])


def test_a_larger_value_is_drawn_higher():
    for log in (True, False):
        ys = numbers(of_class(draw([1.0, 5.0, 50.0], log=log), "observed")[0].get("d").replace("h0", ""))[1::2]
        assert ys[0] > ys[1] > ys[2]


def test_one_huge_spike_makes_the_axis_logarithmic_and_ordinary_values_do_not():
    assert "10k" in texts(draw([1.0] * 20 + [9990.0], spread=0.1))
    assert {"0", "5", "10"} <= set(texts(draw([1.0, 4.0, 9.0, 0.001], spread=0.0)))


@pytest.mark.parametrize("observed", [[0.0, 0.0, 0.0], [], [NAN], [7.0]])
def test_flat_and_empty_series_have_a_chart_too(observed):
    assert draw(observed, spread=0.0).tag == f"{SVG}svg"


def test_the_legend_counts_what_is_marked():
    times = days(4)
    labels = texts(draw([1.0] * 4, [Mark(times[0], "warning"), Mark(times[1], "warning"), Mark(times[2], "critical")]))
    assert {"observed", "usual", "2 warning", "critical"} <= set(labels)
    assert not any("info" in label for label in labels)


def test_the_dates_name_days_over_weeks_and_hours_over_a_day():
    assert {"1 May", "14 May"} <= set(texts(draw([1.0] * 14)))
    hours = [START + timedelta(hours=n) for n in range(24)]
    chart = band_chart_svg(hours, [1.0] * 24, [1.0] * 24, [0.0] * 24, [2.0] * 24, [], "t", "u")
    assert {"00:00", "23:00"} <= set(texts(ElementTree.fromstring(chart)))


def test_names_are_escaped_and_long_ones_shortened():
    svg = draw([1.0, 2.0], title="<script>&'\" " + "x" * 100)
    assert svg.find(f"{SVG}title").text.startswith("<script>&'\" xxx")
    assert any(label.startswith("<script>") and "…" in label for label in texts(svg))


def test_the_picture_refers_to_nothing_outside_itself():
    chart = band_chart_svg(days(3), [1.0] * 3, [1.0] * 3, [0.0] * 3, [2.0] * 3, [], "t", "u")
    assert "http" not in chart.replace("http://www.w3.org/2000/svg", "")
    assert "href" not in chart
    assert "<style" not in chart


def test_sixty_points_are_drawn_in_a_few_milliseconds_at_most():
    times, values = days(60), [float(n % 7) for n in range(60)]

    def once() -> float:
        started = time.perf_counter()
        band_chart_svg(times, values, values, values, values, [Mark(times[5], "info")], "t", "u")
        return time.perf_counter() - started

    assert min(once() for _ in range(20)) < 0.003
