"""The FOCUS export: nothing lost, nothing added, every charge in its month and of one kind."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from obs_pipeline.dashboard.focus import FOCUS_SCHEMA, NoSuchMonth, focus_rows, month_of
from obs_pipeline.storage.lake import Lake
from obs_pipeline.usage.tables import USAGE_HOURLY

MARCH = month_of("2026-03")
FIRST_HOUR = datetime(2026, 3, 1)


def an_hour(hour: datetime = FIRST_HOUR, **changed: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(USAGE_HOURLY.schema.names) | {
        "source": "litellm",
        "org": "acme",
        "project": "atlas",
        "team": "care",
        "agent": "triage",
        "provider": "openai",
        "model": "gpt-4o",
        "operation": "chat",
        "calls": 3,
        "errors": 0,
        "input_tokens": 1_000,
        "output_tokens": 200,
        "cost": Decimal("0.123456789"),
        "list_cost": Decimal("0.13"),
        "unpriced_calls": 0,
        "mispriced_calls": 0,
        "latency_calls": 0,
    }
    return row | {"dt": hour.date(), "hour": hour} | changed


def a_lake(folder: Path, *rows: dict[str, Any]) -> Lake:
    lake = Lake(str(folder / "lake"))
    lake.append(USAGE_HOURLY, pa.Table.from_pylist(list(rows), USAGE_HOURLY.schema))
    return lake


def exported(
    connection: duckdb.DuckDBPyConnection, folder: Path, *rows: dict[str, Any], org: str | None = None
) -> list[dict[str, Any]]:
    table = focus_rows(connection, a_lake(folder, *rows), MARCH, org=org).read_all()
    assert table.schema == FOCUS_SCHEMA
    return table.to_pylist()


CREDIT = an_hour(calls=0, cost=Decimal("-5"), list_cost=None, input_tokens=None, output_tokens=None)
CORRECTION = CREDIT | {"cost": Decimal("0.000000001")}
NAMELESS = an_hour(org=None, project=None, team=None, agent=None, provider=None, model=None, operation=None)


def test_the_charges_of_a_month_come_to_its_cost_to_the_nano_dollar(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    rows = exported(connection, tmp_path, an_hour(), CREDIT, CORRECTION, NAMELESS)
    expected = 2 * Decimal("0.123456789") - 5 + Decimal("0.000000001")
    for column in ("BilledCost", "EffectiveCost", "ContractedCost", "PricingCurrencyEffectiveCost"):
        assert sum(row[column] for row in rows) == expected


def test_only_the_hours_of_the_month_are_in_it(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    hours = [datetime(2026, 2, 28, 23), datetime(2026, 3, 1), datetime(2026, 3, 31, 23), datetime(2026, 4, 1)]
    rows = exported(connection, tmp_path, *(an_hour(hour) for hour in hours))
    assert [row["ChargePeriodStart"] for row in rows] == [hour.replace(tzinfo=UTC) for hour in hours[1:3]]
    assert {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in rows} == {
        (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
    }


def test_one_organisation_can_be_asked_for(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    rows = exported(connection, tmp_path, an_hour(), an_hour(org="other"), NAMELESS, org="other")
    assert [row["BillingAccountId"] for row in rows] == ["other"]


@pytest.mark.parametrize(
    ("row", "category", "unit", "quantity"),
    [
        (an_hour(), "Usage", "Tokens", 1_200),
        (an_hour(input_tokens=None, output_tokens=None), "Usage", "Requests", 3),
        (CREDIT, "Credit", None, None),
        (CORRECTION, "Adjustment", None, None),
    ],
    ids=["tokens", "calls without tokens", "credit", "correction"],
)
def test_a_charge_has_its_category_and_what_it_is_counted_in(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    row: dict[str, Any],
    category: str,
    unit: str | None,
    quantity: int | None,
):
    (charge,) = exported(connection, tmp_path, row)
    assert (charge["ChargeCategory"], charge["ConsumedUnit"], charge["ConsumedQuantity"]) == (category, unit, quantity)
    assert charge["PricingUnit"] == unit
    assert (charge["SkuId"] is None) == (unit is None)


def test_a_unit_price_times_the_quantity_is_the_cost(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    (charge,) = exported(connection, tmp_path, an_hour())
    for price, cost in (("ContractedUnitPrice", "ContractedCost"), ("ListUnitPrice", "ListCost")):
        assert charge[price] * float(charge["PricingQuantity"]) == pytest.approx(float(charge[cost]), abs=1e-12)


def test_what_the_source_did_not_tell_is_named_so_or_null(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    (charge,) = exported(connection, tmp_path, NAMELESS)
    named = ("BillingAccountId", "ProviderName", "InvoiceIssuerName")
    assert {charge[name] for name in named} == {"unattributed"}
    assert {charge[name] for name in ("SubAccountId", "SubAccountType", "ResourceId", "ResourceType")} == {None}


def test_calls_without_a_price_are_told_beside_their_cost_of_zero(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    (charge,) = exported(connection, tmp_path, an_hour(cost=Decimal(0), list_cost=None, unpriced_calls=3))
    assert (charge["BilledCost"], charge["ListCost"], charge["x_UnpricedCalls"]) == (0, 0, 3)


def test_tags_are_a_json_object(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    (charge,) = exported(connection, tmp_path, an_hour(team='the "best"'))
    assert json.loads(charge["Tags"]) == {"operation": "chat", "source": "litellm", "team": 'the "best"'}


def test_a_month_without_usage_is_empty_but_has_its_columns(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    assert exported(connection, tmp_path, an_hour(datetime(2026, 5, 1))) == []


def test_a_lake_without_the_table_is_empty(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    table = focus_rows(connection, Lake(str(tmp_path / "lake")), MARCH).read_all()
    assert pc.count(table["BilledCost"]).as_py() == 0


def test_the_last_month_of_a_year_ends_with_it():
    december = month_of("2026-12")
    assert (december.after, december.days.last) == (date(2027, 1, 1), date(2026, 12, 31))


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "26-01", "2026-01-01", "march"])
def test_what_is_no_month_is_refused(text: str):
    with pytest.raises(NoSuchMonth, match="YYYY-MM"):
        month_of(text)
