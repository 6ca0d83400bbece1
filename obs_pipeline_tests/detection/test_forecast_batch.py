"""Forecasts of days from the lake: windows, exact spend so far, budgets, and what is said where nothing can be."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from obs_pipeline.detection.forecast_batch import BUDGET_SCHEMA, WINDOW_SCHEMA, forecast_days
from obs_pipeline.detection.tables import FORECASTS
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_HOURLY

DAY = date(2025, 5, 14)
MIDNIGHT = datetime(2025, 5, 15)
MONTH = (datetime(2025, 5, 1), datetime(2025, 6, 1))


def used(day: date, cost: Any, hour: int = 10, agent: str | None = "a", project: str | None = "p", **more: Any):
    at = datetime(day.year, day.month, day.day, hour)
    plain = {"dt": day, "hour": at, "source": "s", "org": "acme", "project": project, "agent": agent}
    counts = {"calls": 1, "errors": 0, "unpriced_calls": 0, "mispriced_calls": 0, "latency_calls": 0}
    return {**dict.fromkeys(USAGE_HOURLY.schema.names), **plain, **counts, "cost": Decimal(str(cost)), **more}


def every_day(days: int, cost: Any = 2, last: date = DAY, **more: Any) -> list[dict[str, Any]]:
    return [used(last - timedelta(days=n), cost, **more) for n in range(days)]


def windows(
    as_of: datetime = MIDNIGHT, day: date = DAY, month: tuple[datetime, datetime] = MONTH
) -> list[dict[str, Any]]:
    midnight = datetime(as_of.year, as_of.month, as_of.day)
    monday = midnight - timedelta(days=midnight.weekday())
    spans = {
        "day": (midnight, midnight + timedelta(days=1)),
        "week": (monday, monday + timedelta(days=7)),
        "month": month,
    }
    return [
        {"dt": day, "as_of": as_of, "org": "acme", "period": name, "window_start": start, "window_end": end}
        for name, (start, end) in spans.items()
    ]


def budget(limit: Any, period: str = "month", **where: str) -> dict[str, Any]:
    place = {"scope": "agent", "org": "acme", "project": "p", "agent": "a", **where}
    return {"dt": DAY, **place, "period": period, "limit_amount": Decimal(str(limit)), "files": "a.yaml"}


def made(folder: Path, rows: list[dict[str, Any]], asked=None, budgets=(), days: DayRange | None = None):
    """Forecasts by (scope name, period)."""
    lake = Lake(str(folder / "lake"))
    everything = DayRange(date(2024, 1, 1), date(2026, 1, 1))
    hourly = pa.Table.from_pylist(rows, schema=USAGE_HOURLY.schema)
    lake.replace(USAGE_HOURLY, everything, lambda _: hourly)
    lake.replace(USAGE_DAILY, everything, lambda _: hourly.select(USAGE_DAILY.schema.names))
    with connect(threads=1) as connection:
        forecast_days(
            connection,
            lake,
            days or DayRange(DAY, DAY),
            pa.Table.from_pylist(windows() if asked is None else asked, schema=WINDOW_SCHEMA),
            pa.Table.from_pylist(list(budgets), schema=BUDGET_SCHEMA),
        )
        lake.view(connection, FORECASTS)
        found = connection.sql("SELECT * FROM forecasts ORDER BY dt").to_arrow_table().to_pylist()
    return {(one["agent"] or one["project"] or one["org"], one["period"]): one for one in found}


def test_a_steady_agent_is_forecast_to_the_end_of_each_period(tmp_path):
    found = made(tmp_path, every_day(120))
    assert {name for name, _ in found} == {"a", "p", "acme"}
    for name in ("a", "p", "acme"):
        month = found[name, "month"]
        assert (month["spent"], month["state"]) == (Decimal(28), "ok")
        assert month["forecast"] == pytest.approx(62)
        assert found[name, "week"]["forecast"] == pytest.approx(14)
        assert found[name, "day"]["forecast"] == pytest.approx(2)
        assert month["lower"] <= month["forecast"] <= month["upper"]


def test_spend_so_far_is_exact_to_the_nano_dollar(tmp_path):
    rows = [*every_day(60, "0.000000001"), used(DAY, "0.1"), used(DAY, "0.2", project="q")]
    found = made(tmp_path, rows)
    assert found["p", "month"]["spent"] == Decimal("0.100000014")
    assert found["acme", "month"]["spent"] == Decimal("0.300000014")


def test_a_day_under_way_is_forecast_from_the_hour_of_the_run(tmp_path):
    rows = [
        one for day in range(60) for hour in (6, 18) for one in every_day(1, 1, DAY - timedelta(days=day), hour=hour)
    ]
    noon = datetime(2025, 5, 14, 12)
    found = made(tmp_path, [one for one in rows if one["hour"] < noon], windows(noon))
    assert found["a", "day"]["spent"] == Decimal(1)
    assert found["a", "day"]["forecast"] == pytest.approx(2, rel=0.05)


def test_a_window_of_another_time_zone_counts_its_own_hours(tmp_path):
    late, early = used(date(2025, 4, 30), 7, hour=23), used(date(2025, 4, 30), 100, hour=21)
    local = windows(month=(datetime(2025, 4, 30, 22), datetime(2025, 5, 31, 22)))
    found = made(tmp_path, [*every_day(60), late, early], local)
    assert found["a", "month"]["spent"] == Decimal(14 * 2 + 7)


@pytest.mark.parametrize(
    ("limit", "said", "on"),
    [
        (20, "used up", None),
        (0, "used up", None),
        (39, "will be used up", date(2025, 5, 20)),
        (500, "holds", None),
    ],
)
def test_a_budget_is_used_up_when_the_forecast_reaches_it(tmp_path, limit, said, on):
    month = made(tmp_path, every_day(120), budgets=[budget(limit)])["a", "month"]
    assert month["budget"] == said
    assert (None if month["exhausted_at"] is None else month["exhausted_at"].date()) == on
    assert month["files"] == "a.yaml"
    assert month["limit_amount"] == limit


def test_only_the_period_that_is_limited_has_a_budget(tmp_path):
    found = made(tmp_path, every_day(120), budgets=[budget(40)])
    assert found["a", "week"]["budget"] is None
    assert found["acme", "month"]["budget"] is None


@pytest.mark.parametrize(
    ("rows", "state"),
    [
        (every_day(1), "not enough history"),
        (every_day(13), "not enough history"),
        (every_day(60, 0), "no spend"),
        (every_day(60, -1), "credits only"),
        (every_day(60, 0, unpriced_calls=3), "no spend"),
    ],
)
def test_where_nothing_can_be_foreseen_it_is_said_and_no_number_given(tmp_path, rows, state):
    month = made(tmp_path, rows, budgets=[budget(100)])["a", "month"]
    assert month["state"] == state
    assert (month["forecast"], month["lower"], month["upper"], month["exhausted_at"]) == (None,) * 4
    assert month["budget"] == "unknown"


def test_no_usage_at_all_is_no_rows_and_no_error(tmp_path):
    assert made(tmp_path, [], budgets=[budget(100)]) == {}


def test_unpriced_calls_are_counted_beside_the_spend(tmp_path):
    found = made(tmp_path, [*every_day(60), used(DAY, 0, unpriced_calls=7)])
    assert found["a", "month"]["unpriced_calls"] == 7
    assert found["a", "month"]["state"] == "ok"


def test_who_was_not_used_for_long_and_has_no_budget_is_left_out(tmp_path):
    gone = every_day(60, 1, DAY - timedelta(days=50), agent="gone")
    assert not any(name == "gone" for name, _ in made(tmp_path, [*every_day(60), *gone]))


def test_credits_in_a_window_are_part_of_its_spend(tmp_path):
    month = made(tmp_path, [*every_day(120), used(DAY, -5)])["a", "month"]
    assert month["spent"] == Decimal(23)
    assert month["lower"] >= 23


def test_a_day_comes_out_the_same_alone_and_in_a_range(tmp_path):
    rows = [one for n in range(150) for one in every_day(1, n % 5 + 0.3, DAY - timedelta(days=n), agent=f"a{n % 3}")]
    asked = [
        one
        for n in range(20)
        for one in windows(MIDNIGHT - timedelta(days=n), DAY - timedelta(days=n))
        if one["window_start"] >= MONTH[0] or one["period"] != "month"
    ]
    range_rows = made(tmp_path / "range", rows, asked, days=DayRange(DAY - timedelta(days=19), DAY))
    alone = made(tmp_path / "alone", rows)
    assert {key: one for key, one in range_rows.items() if one["dt"] == DAY} == alone
