"""What is zero, what is unknown, and what adds up, between usage rows and arrays."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from obs_pipeline.detection.panel import Panel, build_panel
from obs_pipeline_tests.detection.series_rows import daily, hourly, row

DAY = date(2025, 3, 1)
LOOKBACK = 3


def at(day: int, hour: int = 0) -> datetime:
    return datetime(2025, 3, 1) + timedelta(days=day, hours=hour)


def panel_of(rows, grain="day", days=4, silence=6, latency_calls=1) -> Panel:
    table = hourly(rows)
    last = DAY + timedelta(days=days - 1)
    return build_panel(
        table if grain == "hour" else daily(table),
        grain,
        DAY,
        last,
        silence_hours=silence,
        latency_calls=latency_calls,
    )


def window(panel: Panel, name: str = "cost") -> list[list[list[float]]]:
    """[series][point] → look-back and tested value of the last day, NaN as None."""
    found = panel.windows(panel.spread(panel.sums[name]), LOOKBACK, slice(0, panel.series.num_rows), idle_is_zero=True)
    whole = np.concatenate([found.history[:, :, -1], found.observed[:, :, -1, None]], axis=-1)
    return [[[None if np.isnan(value) else value for value in point] for point in series] for series in whole.tolist()]


def test_rows_of_one_cell_are_added_exactly_whatever_their_order():
    rows = [row(at(0), cost=cost) for cost in ("1000000000.1", "0.000000001", "0.2", "-1000000000")]
    sums = {tuple(panel_of(order).sums["cost"]) for order in (rows, rows[::-1], rows[2:] + rows[:2])}
    assert sums == {(0.300000001,)}


def test_series_are_ordered_by_name_with_nulls_first_and_never_mixed():
    rows = [
        row(at(0), agent="b", cost=1),
        row(at(0), agent=None, cost=2),
        row(at(0), agent="a", project=None, cost=3),
        row(at(0), agent="b", org="other", cost=4),
    ]
    panel = panel_of(rows)
    assert panel.series.to_pylist() == [
        {"org": "o", "project": None, "agent": "a"},
        {"org": "o", "project": "p", "agent": None},
        {"org": "o", "project": "p", "agent": "b"},
        {"org": "other", "project": "p", "agent": "b"},
    ]
    assert panel.sums["cost"].tolist() == [3, 2, 1, 4]


def test_a_day_without_rows_is_zero_when_its_source_was_alive_and_unknown_when_not():
    rows = [row(at(0), cost=5), row(at(2), agent="z"), row(at(3), cost=7)]
    assert window(panel_of(rows))[0] == [[5, None, 0, 7]]


def test_another_source_says_nothing_about_a_series():
    rows = [row(at(0), cost=5), row(at(2), agent="z", source="other"), row(at(3), cost=7)]
    assert window(panel_of(rows))[0] == [[5, None, None, 7]]


def test_a_series_of_two_sources_is_idle_while_either_is_alive():
    rows = [
        row(at(0), cost=5),
        row(at(0), cost=1, source="other"),
        row(at(1), agent="z", source="other"),
        row(at(2), agent="z"),
        row(at(3), cost=7),
    ]
    assert window(panel_of(rows))[0] == [[6, 0, 0, 7]]


def test_before_its_first_row_in_the_window_a_series_is_unknown():
    rows = [*(row(at(day), agent="z") for day in range(4)), row(at(2), cost=5)]
    assert window(panel_of(rows))[0] == [[None, None, 5, 0]]


def test_a_source_stays_alive_for_the_hours_of_silence_and_no_longer():
    rows = [row(at(3, 2), cost=5)]
    observed = [point[-1] for point in window(panel_of(rows, "hour", silence=3))[0]]
    assert observed[:2] == [None, None]
    # Seen today only: the source is not yet known to be the one of this series, so its silence says nothing.
    assert observed[2] == 5
    assert observed[3:] == [None] * 21
    known = [row(at(0, 0), cost=1), *rows]
    observed = [point[-1] for point in window(panel_of(known, "hour", silence=3))[0]]
    assert observed[1:8] == [None, 5, 0, 0, 0, None, None]


def test_silence_is_measured_across_the_start_of_the_window():
    before = row(at(-1, 22), agent="z")
    rows = [before, row(at(0, 1), agent="z"), row(at(0, 0), cost=1), row(at(3, 0), cost=1)]
    alive = panel_of(rows, "hour", silence=2).alive
    source = 1
    assert alive[source, :4, 0].tolist() == [True, True, True, True]
    assert panel_of([before, rows[-1]], "hour", silence=2).alive[source, :3, 0].tolist() == [True, False, False]


def test_rows_outside_the_window_are_ignored():
    rows = [row(at(-1), agent="old", cost=1), row(at(0), cost=2), row(at(4), agent="new", cost=3)]
    panel = panel_of(rows)
    assert panel.series["agent"].to_pylist() == ["a"]
    assert panel.sums["cost"].tolist() == [2]


def test_a_cell_whose_cost_nobody_knows_is_unknown_and_not_zero():
    rows = [row(at(0), cost=None), row(at(1), cost=1)]
    assert window(panel_of(rows))[0] == [[None, 1, None, None]]


def test_tokens_are_input_and_output_and_unknown_only_when_both_are():
    rows = [
        row(at(0), input_tokens=5, output_tokens=2),
        row(at(1), input_tokens=None, output_tokens=3),
        row(at(2), input_tokens=None, output_tokens=None),
    ]
    assert panel_of(rows).sums["tokens"].tolist()[:2] == [7, 3]
    assert np.isnan(panel_of(rows).sums["tokens"][2])


def test_latency_is_the_p95_of_all_calls_of_a_cell_and_unknown_below_the_minimum():
    rows = [
        row(at(0), calls=90, latency_ms=100),
        row(at(0), calls=10, latency_ms=5000),
        row(at(1), calls=9, latency_ms=100),
    ]
    p95 = panel_of(rows, latency_calls=10).sums["latency"]
    assert p95[0] == pytest.approx(5000, rel=0.06)
    assert np.isnan(p95[1])


@pytest.mark.parametrize("grain", ["day", "hour"])
def test_no_rows_make_an_empty_panel(grain):
    panel = panel_of([], grain)
    assert panel.shape[0] == 0
    assert panel.at("cost", np.array([], dtype=np.int64)).size == 0


def test_dictionary_encoded_and_large_strings_are_read_like_plain_ones():
    table = daily(hourly([row(at(0), cost=1), row(at(1), agent=None, cost=2)]))
    encoded = table.set_column(
        table.column_names.index("agent"), "agent", table["agent"].dictionary_encode()
    ).set_column(table.column_names.index("org"), "org", table["org"].cast(pa.large_string()))
    last = DAY + timedelta(days=3)
    plain, other = (build_panel(one, "day", DAY, last, silence_hours=6, latency_calls=1) for one in (table, encoded))
    assert plain.series.equals(other.series)


def course(panel: Panel, tested: int = 1) -> list[float | None]:
    values = panel.course("cost", slice(0, 1), tested=tested, idle_is_zero=True)[0]
    return [None if np.isnan(value) else value for value in values.tolist()]


def test_the_course_of_a_series_is_zero_where_it_was_idle_and_unknown_before_it_began():
    heartbeat = [row(at(day), agent="z") for day in range(4)]
    panel = panel_of([*heartbeat, row(at(1), cost=5), row(at(3), cost=7)])
    assert course(panel) == [None, 5, 0, 7]


def test_a_source_that_a_series_gets_later_says_nothing_of_the_days_before():
    heartbeat = [row(at(day), agent="z", source="t") for day in range(4)]
    panel = panel_of([*heartbeat, row(at(0), cost=5), row(at(2), cost=6, source="t")])
    assert course(panel) == [5, None, 6, 0]


def test_the_course_leaves_out_what_is_not_to_be_learned_but_for_the_tested_days():
    panel = panel_of([row(at(day), cost=day + 1) for day in range(4)])
    masked = replace(panel, masked=np.ones(panel.shape, dtype=bool))
    assert course(masked) == [None, None, None, 4]
    assert course(masked, tested=0) == [None] * 4


def test_the_days_between_are_those_of_a_panel_of_these_days_alone():
    rows = [row(at(0), agent="gone"), row(at(1), cost=3), row(at(2), agent="b", cost=4), row(at(3), agent="later")]
    whole = panel_of(rows)
    part, there = whole.between(1, 2)
    alone = build_panel(daily(hourly(rows)), "day", at(1).date(), at(2).date(), silence_hours=6, latency_calls=1)
    assert part.series == alone.series == whole.series.take(pa.array(there))
    assert (part.first_day, part.days) == (alone.first_day, alone.days)
    assert part.cells.tolist() == alone.cells.tolist()
    assert part.sums["cost"].tolist() == alone.sums["cost"].tolist()
    assert course(part) == course(alone)
