"""Bills in Dagster: pulled and compared in one run, what a failing seller does, and when the schedule has nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
import yaml

from obs_pipeline.clock import utc_now
from obs_pipeline.defs import billing_assets
from obs_pipeline.defs.partitions import range_tags
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.settings import Settings
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import RECONCILIATION, USAGE_DAILY
from obs_pipeline_tests.usage.billing.bills import calls
from obs_pipeline_tests.usage.billing.seller import Seller, openai_results, seller

LAST = utc_now().date() - timedelta(days=1)
DAYS = DayRange(LAST - timedelta(days=9), LAST)
LONG_AGO = DAYS.first


@pytest.fixture
def server() -> Iterator[Seller]:
    with seller(openai_results) as opened:
        opened.days_a_page = 31
        yield opened


@pytest.fixture
def billed(settings: Settings, server: Seller, tmp_path: Path) -> Settings:
    """Settings with one bill that answers, and calls of the first day that come to what is billed for them."""
    policies, key = tmp_path / "policies", tmp_path / "key"
    policies.mkdir()
    key.write_text("sk-admin-1")
    bill = {"kind": "openai_costs", "url": server.url, "key_file": str(key), "since": DAYS.first, "restated_days": 2}
    (policies / "bills.yaml").write_text(yaml.safe_dump({"bills": {"openai": bill}, "tolerance": {"usd": "0.001"}}))
    day = LONG_AGO.day
    row = calls(Decimal(day) / 100, (100 * day, 0), dt=LONG_AGO)
    Lake(settings.lake).append(USAGE_DAILY, pa.Table.from_pylist([row], USAGE_DAILY.schema))
    return settings.model_copy(update={"policies": policies})


def run(settings: Settings, days: DayRange = DAYS) -> dg.ExecuteInProcessResult:
    defs = dg.Definitions(
        assets=[billing_assets.billed_buckets, billing_assets.reconciliation],
        jobs=[billing_assets.reconcile_bills],
        resources=resources_from(settings),
        executor=dg.in_process_executor,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def(billing_assets.JOB).execute_in_process(instance=instance, tags=range_tags(days))


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {
        f"{one.asset_key.to_user_string()}.{one.check_name}": one.passed for one in result.get_asset_check_evaluations()
    }


def lines(settings: Settings, connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    Lake(settings.lake).view(connection, RECONCILIATION)
    return connection.sql("SELECT * FROM reconciliation ORDER BY dt").to_arrow_table().to_pylist()


def test_one_run_pulls_the_bills_and_says_for_every_day_how_it_compares(
    billed: Settings, connection: duckdb.DuckDBPyConnection
):
    found = checks(run(billed))
    assert [name for name, passed in found.items() if not passed] == ["reconciliation.within_tolerance"]
    rows = lines(billed, connection)
    assert [row["dt"] for row in rows] == DAYS.days()
    assert (rows[0]["gap"], rows[0]["calls"]) == (0, 10)
    assert all(row["missing"] == row["billed"] and row["calls"] == 0 for row in rows[1:-2])
    assert all(row["late"] == row["billed"] for row in rows[-1:]), "the seller may still correct it"


def test_a_seller_that_fails_leaves_its_days_uncompared_and_is_told(
    billed: Settings, server: Seller, connection: duckdb.DuckDBPyConnection
):
    server.faults = [(401, b"")]
    result = run(billed)
    assert result.success
    assert not checks(result)["billed_buckets.bills_are_read"]
    assert lines(billed, connection) == []
    assert checks(run(billed))["billed_buckets.bills_are_read"]
    assert len(lines(billed, connection)) == len(DAYS)


def test_without_a_bill_nothing_is_compared_and_every_check_passes(settings: Settings, tmp_path: Path):
    result = run(settings.model_copy(update={"policies": tmp_path}))
    assert set(checks(result).values()) == {True}
    assert not (Path(settings.lake) / RECONCILIATION.name).exists()


def tick(settings: Settings) -> Any:
    at = datetime(2026, 3, 10, 6, tzinfo=UTC)
    context = dg.build_schedule_context(
        scheduled_execution_time=at, resources={"limits": resources_from(settings)["limits"]}
    )
    return billing_assets.reconcile_schedule(context)


def test_the_schedule_asks_for_the_last_month_of_days(billed: Settings):
    asked = tick(billed)
    last = date(2026, 3, 9)
    assert range_tags(DayRange(last - timedelta(days=30), last)).items() <= dict(asked.tags).items()


@pytest.mark.parametrize(("text", "told"), [(None, "No bill is configured"), ("bills: [1]", "bills.yaml: bills")])
def test_the_schedule_has_nothing_to_do_without_a_bill(settings: Settings, tmp_path: Path, text: str | None, told: str):
    if text is not None:
        (tmp_path / "bills.yaml").write_text(text)
    asked = tick(settings.model_copy(update={"policies": tmp_path}))
    assert told in (asked.skip_message or "")
