"""Which days are provisional: late calls, a source that is behind, a bill that is still corrected."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from obs_pipeline.dashboard.unsettled import StillToCome, unsettled_days
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.billing.configured import PulledBill
from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.tables import USAGE_HOURLY
from obs_pipeline_tests.dashboard.test_focus import an_hour

DAYS = DayRange(date(2026, 3, 1), date(2026, 3, 5))
NOW = datetime(2026, 3, 6, 9)
PATIENT = timedelta(hours=24)
BILL = PulledBill(kind="openai_costs", key_file=Path("key"), since=date(2026, 1, 1), restated_days=2)
DESK = PulledSource(kind="langfuse_api", url="http://desk", since=date(2026, 3, 2))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def unsettled(connection: duckdb.DuckDBPyConnection, lake: Lake, ledger: Ledger, awaited: StillToCome) -> list[int]:
    return sorted(day.day for day in unsettled_days(connection, lake, ledger, DAYS, awaited, NOW))


def test_a_bill_is_corrected_for_some_days(connection: duckdb.DuckDBPyConnection, tmp_path: Path, ledger: Ledger):
    lake = Lake(str(tmp_path / "lake"))
    assert unsettled(connection, lake, ledger, StillToCome(PATIENT)) == []
    assert unsettled(connection, lake, ledger, StillToCome(PATIENT, bills=[BILL])) == [4, 5]


def test_a_source_that_is_behind_leaves_days_unknown(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, ledger: Ledger
):
    lake, awaited = Lake(str(tmp_path / "lake")), StillToCome(PATIENT, {"desk": DESK})
    assert unsettled(connection, lake, ledger, awaited) == [2, 3, 4, 5]
    SourcePositions(ledger).advance("desk", datetime(2026, 3, 4, 12).isoformat(), 0, NOW)
    assert unsettled(connection, lake, ledger, awaited) == [4, 5]


def test_late_calls_may_change_the_days_after_the_watermark(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, ledger: Ledger
):
    lake = Lake(str(tmp_path / "lake"))
    hours = [an_hour(datetime(2026, 3, day)) for day in range(1, 6)]
    lake.append(USAGE_HOURLY, pa.Table.from_pylist(hours, USAGE_HOURLY.schema))
    ledger.start_landing(LandedFile("f", "litellm", "f.jsonl", 1, 0, None), "mapping", NOW)
    newest = datetime(2026, 3, 5, 10)
    ledger.finish_landing("f", 1, [LandedDay(newest.date(), 1, 0, newest, newest)], NOW)
    assert unsettled(connection, lake, ledger, StillToCome(PATIENT)) == [4, 5]
