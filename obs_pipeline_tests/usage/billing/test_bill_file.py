"""Bills as files: saved answers, FOCUS and tables say the same; what no bill says is refused with its reason."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from obs_pipeline.dashboard.focus import focus_rows, month_of
from obs_pipeline.storage.lake import Lake
from obs_pipeline.usage.billing.bill_file import read_bill_file
from obs_pipeline.usage.billing.lines import BillRefused
from obs_pipeline.usage.currencies import NoRate, Rate, RateBook
from obs_pipeline.usage.tables import USAGE_HOURLY
from obs_pipeline_tests.dashboard.test_focus import an_hour

DAY = date(2026, 3, 1)
MIDNIGHT = 1_772_323_200
NO_RATES = RateBook()


def openai_page(*results: dict[str, Any], start: int = MIDNIGHT, days: int = 1) -> dict[str, Any]:
    bucket = {"object": "bucket", "start_time": start, "end_time": start + days * 86_400, "results": list(results)}
    return {"object": "page", "data": [bucket], "has_more": False, "next_page": None}


def openai_cost(value: Any = "0.06", item: str | None = "gpt-4o-2024-08-06, input", **changed: Any) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": value, "currency": "usd"},
        "line_item": item,
        "project_id": "proj_abc",
    } | changed


OPENAI_USAGE = {
    "object": "organization.usage.completions.result",
    "input_tokens": 1000,
    "output_tokens": 500,
    "input_cached_tokens": 800,
    "num_model_requests": 5,
    "project_id": "proj_abc",
    "user_id": None,
    "api_key_id": None,
    "model": "gpt-4o-2024-08-06",
    "batch": False,
}
ANTHROPIC_COST = {
    "amount": "123.78912",
    "context_window": "0-200k",
    "cost_type": "tokens",
    "currency": "USD",
    "description": "Claude Sonnet 4 Usage - Input Tokens",
    "model": "claude-sonnet-4-20250514",
    "service_tier": "standard",
    "token_type": "uncached_input_tokens",
    "workspace_id": "wrkspc_01",
}
ANTHROPIC_USAGE = {
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "cache_read_input_tokens": 200,
    "model": "claude-sonnet-4-20250514",
    "output_tokens": 500,
    "server_tool_use": {"web_search_requests": 10},
    "uncached_input_tokens": 1500,
    "workspace_id": "wrkspc_01",
}


def anthropic_page(*results: dict[str, Any]) -> dict[str, Any]:
    bucket = {"starting_at": "2026-03-01T00:00:00Z", "ending_at": "2026-03-02T00:00:00Z", "results": list(results)}
    return {"data": [bucket], "has_more": False, "next_page": None}


def saved(folder: Path, content: Any, name: str = "bill.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_openais_answers_are_lines_with_model_meter_and_inclusive_tokens(tmp_path: Path):
    pages = [
        openai_page(openai_cost(), openai_cost(0.02, "gpt-4o-2024-08-06, cached input"), openai_cost(1, "Web search")),
        openai_page(OPENAI_USAGE),
    ]
    (bill,) = read_bill_file(saved(tmp_path, pages), NO_RATES, org="acme", projects={"proj_abc": "atlas"})
    costs = [(line.model, line.meter, line.cost) for line in bill.lines if line.kind == "cost"]
    assert costs == [
        (None, None, Decimal(1)),
        ("gpt-4o-2024-08-06", "cache_read", Decimal("0.02")),
        ("gpt-4o-2024-08-06", "input", Decimal("0.06")),
    ]
    (usage,) = [line for line in bill.lines if line.kind == "usage"]
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens, usage.requests) == (1000, 800, 500, 5)
    assert {(line.dt, line.org, line.project) for line in bill.lines} == {(DAY, "acme", "atlas")}


def test_anthropics_amounts_are_cents_and_its_input_is_added_up(tmp_path: Path):
    pages = [anthropic_page(ANTHROPIC_COST), anthropic_page(ANTHROPIC_USAGE)]
    text = "\n".join(map(json.dumps, pages))
    (bill,) = read_bill_file(saved(tmp_path, text, "bill.jsonl"), NO_RATES)
    cost, usage = bill.lines
    assert (cost.cost, cost.meter, bill.provider) == (Decimal("1.2378912"), "input", "anthropic")
    assert (usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens) == (3200, 200, 1500)


def test_two_sellers_in_one_file_are_two_bills(tmp_path: Path):
    pages = [openai_page(openai_cost()), anthropic_page(ANTHROPIC_COST)]
    assert [bill.provider for bill in read_bill_file(saved(tmp_path, pages), NO_RATES)] == ["anthropic", "openai"]


def test_a_float_amount_keeps_the_digits_it_is_written_with(tmp_path: Path):
    text = json.dumps(openai_page(openai_cost(0))).replace('"value": 0', '"value": 0.8958740000000000')
    (bill,) = read_bill_file(saved(tmp_path, text), NO_RATES)
    assert bill.lines[0].cost == Decimal("0.895874")


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (openai_page(openai_cost("-1")), "below zero"),
        (openai_page(openai_cost("1e12")), "something else than money"),
        (openai_page(openai_cost("NaN")), "finite"),
        (openai_page(openai_cost("n/a")), "amount.value"),
        (openai_page(openai_cost(amount=None)), "amount"),
        (openai_page({key: value for key, value in openai_cost().items() if key != "project_id"}), "project_id"),
        (openai_page(openai_cost(), days=2), "not within one UTC day"),
        (openai_page({**OPENAI_USAGE, "input_tokens": -1}), "input_tokens"),
        (openai_page({**OPENAI_USAGE, "output_tokens": "500"}), "output_tokens"),
        (anthropic_page({**ANTHROPIC_COST, "amount": "-1"}), "below zero"),
        ([openai_page(openai_cost()), openai_page(openai_cost())], "twice"),
        ({"data": [{"results": [{"cost": 1}]}]}, "not as a known billing API"),
        ({"daily_costs": []}, "not as a known billing API"),
        ("{", "cannot be read"),
        ([], "no line of a bill"),
    ],
)
def test_what_no_bill_says_is_refused_with_its_reason(tmp_path: Path, page: Any, told: str):
    with pytest.raises(BillRefused) as error:
        read_bill_file(saved(tmp_path, page), NO_RATES)
    assert told in str(error.value)


def test_an_amount_in_another_currency_needs_its_rate_of_the_day(tmp_path: Path):
    page = openai_page(openai_cost("2", amount={"value": "2", "currency": "eur"}))
    path = saved(tmp_path, page)
    with pytest.raises(NoRate, match="EUR has no rate on 2026-03-01"):
        read_bill_file(path, NO_RATES)
    rates = [
        {"currency": "EUR", "from": "2026-03-01", "usd": "1.25"},
        {"currency": "EUR", "from": "2026-03-02", "usd": 9},
    ]
    (bill,) = read_bill_file(path, RateBook(map(Rate.model_validate, rates)))
    assert (bill.lines[0].amount, bill.lines[0].currency, bill.lines[0].cost) == (Decimal(2), "EUR", Decimal("2.5"))


TABLE = """day,provider,project,model,cost,input_tokens,output_tokens
2026-03-01,OpenAI,atlas,gpt-4o,1.25,800,200
2026-03-01,OpenAI,atlas,gpt-4o,0.25,80,20
2026-03-02,anthropic,,claude-sonnet-4,3,,
"""


def test_a_table_is_summed_to_a_line_a_day_and_model(tmp_path: Path):
    anthropic, openai = read_bill_file(saved(tmp_path, TABLE, "bill.csv"), NO_RATES)
    cost, usage = openai.lines
    assert (cost.cost, cost.project, usage.input_tokens, usage.output_tokens) == (Decimal("1.5"), "atlas", 880, 220)
    assert anthropic.covers == {("cost", date(2026, 3, 2))}, "without tokens nothing is known of them"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("day,provider,cost\n2026-03-01,openai,-1\n", "below zero"),
        ("day,provider,cost\n2026-03-01,openai,free\n", "free is no amount"),
        ("day,provider,cost\n2026-03-01,openai,\n", "no amount"),
        ("day,provider,cost\nsoon,openai,1\n", "soon, all: that is no day"),
        ("day,provider,cost\n2026-03-01,,1\n", "names no provider"),
        ("day,provider,amount,currency\n2026-03-01,openai,1,\n", "names no currency"),
        ("day,provider,cost,input_tokens\n2026-03-01,openai,1,-1\n", "input_tokens is no count"),
        ("day,provider\n2026-03-01,openai\n", "is no bill"),
        ("", "bill.csv"),
    ],
)
def test_a_table_that_is_no_bill_is_refused_with_its_reason(tmp_path: Path, text: str, told: str):
    with pytest.raises(BillRefused) as error:
        read_bill_file(saved(tmp_path, text, "bill.csv"), NO_RATES)
    assert told in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(BillRefused, match="no such file"):
        read_bill_file(tmp_path / "none.json", NO_RATES)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_our_own_export_is_a_bill_that_says_what_it_was_made_of(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, suffix: str
):
    lake = Lake(str(tmp_path / "lake"))
    hours = [an_hour(), an_hour(datetime(2026, 3, 2, 5)), an_hour(calls=0, cost=Decimal(-5), input_tokens=None)]
    lake.append(USAGE_HOURLY, pa.Table.from_pylist(hours, USAGE_HOURLY.schema))
    table = focus_rows(connection, lake, month_of("2026-03")).read_all()
    path = tmp_path / f"march.{suffix}"
    if suffix == "csv":
        # As the command writes it: times with a Z.
        times = pc.strftime(table["ChargePeriodStart"].cast(pa.timestamp("s", "UTC")), "%Y-%m-%dT%H:%M:%SZ")
        named = table.set_column(table.schema.get_field_index("ChargePeriodStart"), "ChargePeriodStart", times)
        pa.csv.write_csv(named, path)
    else:
        pq.write_table(table, path)
    (bill,) = read_bill_file(path, NO_RATES)
    assert sum(line.cost or 0 for line in bill.lines) == Decimal("0.246913578") - 5
    usage = [line for line in bill.lines if line.kind == "usage" and line.requests]
    assert [(line.model, line.project, line.input_tokens) for line in usage] == [("gpt-4o", "atlas", 1000)] * 2
