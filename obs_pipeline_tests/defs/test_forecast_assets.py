"""The forecasts asset and the pictures of explained anomalies: what they write and tell of each day."""

from __future__ import annotations

import base64
import re
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import dagster as dg
import duckdb
import pytest

from obs_pipeline.defs import forecast_assets
from obs_pipeline.defs.day_explanations import day_explanations
from obs_pipeline.defs.forecast_assets import forecasts
from obs_pipeline.defs.partitions import range_tags
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.detection.forecasts import Replay
from obs_pipeline.detection.tables import ANOMALIES, FORECASTS
from obs_pipeline.settings import Settings, get_settings
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_daily, build_hourly
from obs_pipeline_tests.detection.test_explanations import NOON, anomaly, event, explained, hourly
from obs_pipeline_tests.usage_files import MONDAY, landed_lake, usage_rows

FIRST = MONDAY.date()
LAST = FIRST + timedelta(days=29)
ORG = """
id: acme
name: Acme
scope: org
scope_id: acme
budgets:
  cost: {limit: 100, period: monthly}
"""


@pytest.fixture
def home(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Thirty days of usage, and an organisation with a budget."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "org.yaml").write_text(ORG)
    monkeypatch.setenv("OBS_POLICIES", str(tmp_path / "policies"))
    get_settings.cache_clear()
    settings.home.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        lake = landed_lake(settings.home, connection, usage_rows(30, per_day=24))
        build_hourly(connection, lake, DayRange(FIRST, LAST))
        build_daily(connection, lake, DayRange(FIRST, LAST))
    return get_settings()


def run(home: Settings, first: date, last: date) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [forecasts],
            instance=instance,
            resources=resources_from(home),
            tags=range_tags(DayRange(first, last)),
        )


def rows(home: Settings, day: date) -> dict[tuple[str, str], dict]:
    with duckdb.connect() as connection:
        Lake(home.lake).view(connection, FORECASTS, DayRange(day, day))
        found = connection.sql("SELECT * FROM forecasts").to_arrow_table().to_pylist()
    return {(row["agent"] or row["project"] or row["org"], row["period"]): row for row in found}


def test_each_day_has_forecasts_checks_a_table_and_a_picture(home: Settings):
    result = run(home, LAST - timedelta(days=2), LAST)
    assert result.success
    assert {one.check_name: one.passed for one in result.get_asset_check_evaluations()} == {
        "unique_keys": True,
        "schema": True,
        "interval_coverage": True,
    }
    told = rows(home, LAST)
    assert told["acme", "month"]["state"] == "ok"
    assert told["acme", "month"]["limit_amount"] == 100
    assert told["acme", "month"]["budget"] == "holds"
    assert rows(home, LAST - timedelta(days=2))
    by_day = {one.partition: one.metadata for one in result.asset_materializations_for_node("forecasts")}
    shown = by_day[LAST.isoformat()]
    assert "acme" in str(shown["rows"].value)
    ElementTree.fromstring(svgs(str(shown["month"].value))[0])


def svgs(markdown: str) -> list[str]:
    return [base64.b64decode(one).decode() for one in re.findall(r"base64,([\w+/=]+)", markdown)]


def test_a_young_organisation_is_told_so(home: Settings):
    run(home, FIRST + timedelta(days=3), FIRST + timedelta(days=3))
    assert {row["state"] for row in rows(home, FIRST + timedelta(days=3)).values()} == {"not enough history"}


@pytest.mark.parametrize(
    ("replay", "offences"),
    [(Replay(1000, 800), 0), (Replay(1000, 640), 1), (Replay(1000, 960), 1), (Replay(99, 0), 0), (Replay(0, 0), 0)],
)
def test_intervals_that_hold_too_rarely_or_too_often_are_an_offence(replay: Replay, offences: int):
    assert forecast_assets._coverage(replay).offences == offences


def test_the_worst_anomalies_of_a_day_are_told_with_cause_and_picture(tmp_path: Path):
    agents = [f"a{n}" for n in range(5)]
    usual = [one for n, agent in enumerate(agents) for one in hourly(10, first=100 * n, agent=agent)]
    now = [event(1000 + 10 * n + k, NOON, agent=agent) for n, agent in enumerate(agents) for k in range(5)]
    asked = [anomaly(agent=agent, score=60.0 + n) for n, agent in enumerate(agents)]
    explained(tmp_path, [*usual, *now], *asked)
    with connect(threads=1) as connection:
        lake, day = Lake(str(tmp_path / "lake")), NOON.date()
        lake.view(connection, ANOMALIES)
        ((told_day, metadata),) = day_explanations(connection, lake, DayRange(day, day), 28, lambda *_: {})
    assert told_day == day
    table = str(metadata["likely_causes"].value)
    assert [agent for agent in agents if f"| {agent} |" in table] == ["a2", "a3", "a4"]
    assert table.count("more calls") == 3
    pictures = svgs(str(metadata["deviation_split"].value))
    assert len(pictures) == 3
    for one in pictures:
        ElementTree.fromstring(one)
