"""Detection over a lake: a share of the agents at a time is as good as all at once."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from obs_pipeline.detection import batch, usage_judging
from obs_pipeline.detection.config import AnomalyDetectionConfig, MinimumCalls
from obs_pipeline.detection.detect import Detection
from obs_pipeline.detection.known import NOTHING
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_daily
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_HOURLY
from obs_pipeline_tests.detection.series_rows import row
from obs_pipeline_tests.performance import detection_day

FIRST = date(2026, 1, 5)
DAYS = DayRange(FIRST, FIRST + timedelta(days=9))
TESTED = DayRange(DAYS.last, DAYS.last)
CONFIG = AnomalyDetectionConfig(
    lookback_days=8, minimum_data_points=4, minimum_calls=MinimumCalls(errors=2, latency=2), source_silence_hours=3
)


def hours() -> pa.Table:
    """Five agents of one source, each busy every hour but for agent 0, of which nothing is heard on the last day."""
    agents = [None, "a1", "a2", "a3", "a0"]
    rows = [
        row(
            datetime(2026, 1, 5) + timedelta(days=day, hours=hour),
            agent=agent,
            source="gateway",
            calls=30,
            cost=9 + (day * 5 + hour + number) % 4,
            input_tokens=1_000_000,
            latency_ms=200 + number,
        )
        for day in range(len(DAYS))
        for hour in range(24)
        for number, agent in enumerate(agents)
        if (agent, day) != ("a0", len(DAYS) - 1)
    ]
    columns = []
    for field in USAGE_HOURLY.schema:
        nothing = 0 if pa.types.is_integer(field.type) or pa.types.is_decimal(field.type) else None
        columns.append(pa.array([one.get(field.name, nothing) for one in rows], field.type))
    return pa.table(columns, schema=USAGE_HOURLY.schema)


@pytest.fixture
def lake(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    lake.replace(USAGE_HOURLY, DAYS, lambda _version: hours())
    build_daily(connection, lake, DAYS)
    lake.replace(USAGE_EVENTS, DAYS, lambda _version: USAGE_EVENTS.schema.empty_table())
    return lake


def detected(connection: duckdb.DuckDBPyConnection, lake: Lake) -> Detection:
    return batch.detection_of(connection, lake, TESTED, CONFIG, NOTHING)


@pytest.mark.parametrize("share", [1, 2, 3])
def test_a_share_of_the_agents_at_a_time_finds_what_all_at_once_do(
    share: int, lake: Lake, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    whole = detected(connection, lake)
    monkeypatch.setattr(batch, "SERIES_AT_ONCE", share)
    parts = detected(connection, lake)
    for table in ("baselines", "anomalies"):
        one, other = getattr(whole, table), getattr(parts, table)
        assert one.num_rows
        assert sorted(map(str, one.to_pylist())) == sorted(map(str, other.to_pylist()))


def test_a_large_fleet_is_calibrated_on_the_same_few_agents_as_a_whole_and_in_shares(
    tmp_path: Path, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    tested = DayRange(detection_day.LAST - timedelta(days=1), detection_day.LAST)
    detection_day.write_history(tmp_path, agents=40, days=tested.widened(before=35))
    lake, config = Lake(str(tmp_path / "lake")), AnomalyDetectionConfig()
    found = {}
    for teachers, share in [(35, 100), (35, 12), (600, 100)]:
        monkeypatch.setattr(usage_judging, "TEACHERS", teachers)
        monkeypatch.setattr(batch, "SERIES_AT_ONCE", share)
        rows = batch.detection_of(connection, lake, tested, config, NOTHING).baselines.to_pylist()
        found[teachers, share] = sorted(map(str, rows))
    assert found[35, 100] == found[35, 12] != found[600, 100]


def test_an_agent_alone_in_its_share_is_idle_when_its_source_is_heard_of_through_others(
    lake: Lake, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch, "SERIES_AT_ONCE", 1)
    silent = [one for one in detected(connection, lake).anomalies.to_pylist() if one["agent"] == "a0"]
    assert {one["observed"] for one in silent} == {0.0}
    assert {one["grain"] for one in silent} == {"day", "hour"}


def test_as_many_days_are_judged_at_once_as_their_agents_allow(
    lake: Lake, connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch, "DAYS_AT_ONCE", 2)
    monkeypatch.setattr(batch, "SHARES_HELD", 2)
    lengths = []
    for share in (100, 5, 4, 2, 1):
        monkeypatch.setattr(batch, "SERIES_AT_ONCE", share)
        pieces = batch.days_at_once(connection, lake, DAYS)
        assert [day for piece in pieces for day in piece.days()] == DAYS.days()
        lengths.append([len(piece) for piece in pieces])
    assert lengths == [[10], [2, 2, 2, 2, 2], [2, 2, 2, 2, 2], [1] * 10, [1] * 10]
