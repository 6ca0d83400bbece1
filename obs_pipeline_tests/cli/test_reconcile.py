"""``reconcile``, and bills among the sources, as a person types them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from obs_pipeline.usage.tables import BILLED_BUCKETS, USAGE_DAILY
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.usage.billing.bills import calls
from obs_pipeline_tests.usage.billing.seller import openai_results, seller

BILL = "day,provider,project,model,cost,input_tokens,output_tokens\n"


@pytest.fixture
def computed(tmp_path: Path) -> CommandLine:
    policies = tmp_path / "policies"
    policies.mkdir()
    obs = CommandLine(tmp_path / "home", {"OBS_POLICIES": str(policies)})
    rows = [calls("1"), calls("2", project="beacon", model="o3")]
    obs.lake.append(USAGE_DAILY, pa.Table.from_pylist(rows, USAGE_DAILY.schema))
    return obs


def a_bill(folder: Path, *lines: str) -> Path:
    path = folder / "bill.csv"
    path.write_text(BILL + "".join(f"{line}\n" for line in lines))
    return path


def test_a_bill_is_taken_in_and_compared_by_day_model_and_project(computed: CommandLine, tmp_path: Path):
    bill = a_bill(tmp_path, "2026-03-01,openai,atlas,gpt-4o,2,1600,400", "2026-03-01,openai,beacon,o3,2,800,200")
    told = json.loads(computed("reconcile", "--billed", bill, "--json").stdout)
    (day,) = told["rows"]
    assert (told["kept"], day["day"], Decimal(day["gap"])) == (["openai"], "2026-03-01", Decimal(1))
    assert Decimal(day["late"]) + Decimal(day["missing"]) == 1
    for by, names in (("model", {"gpt-4o", "o3"}), ("project", {"atlas", "beacon"})):
        rows = json.loads(computed("reconcile", "--by", by, "--json").stdout)["rows"]
        assert {row[by] for row in rows} == names
        assert sum(Decimal(row["gap"]) for row in rows) == 1
    shown = computed("reconcile", "--by", "model").stdout
    assert "gpt-4o" in shown
    assert "gap $1.00 =" in shown


def test_taking_a_file_in_again_replaces_what_it_said(computed: CommandLine, tmp_path: Path):
    for cost in ("2", "5", "5"):
        computed("reconcile", "--billed", a_bill(tmp_path, f"2026-03-01,openai,,gpt-4o,{cost},,"))
        rows = json.loads(computed("reconcile", "--json").stdout)["rows"]
        assert [Decimal(row["billed"]) for row in rows] == [Decimal(cost)]
    assert sum(computed.lake.rows_per_day(BILLED_BUCKETS).values()) == 1


def test_a_day_outside_the_tolerance_needs_attention(computed: CommandLine, tmp_path: Path):
    # Nothing landed, so nothing is late: what is captured was put into the lake by hand.
    bill = a_bill(tmp_path, "2026-03-02,openai,,gpt-4o,9,800,200")
    shown = computed("reconcile", "--billed", bill, "--strict", exits_with=3).stdout
    assert "1 outside the tolerance" in shown
    (Path(computed.variables["OBS_POLICIES"]) / "bills.yaml").write_text("tolerance: {usd: 100}\n")
    assert "within the tolerance" in computed("reconcile", "--strict").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "No bill is known"),
        (("--billed", "none.csv"), "no such file"),
        (("--by", "agent"), "agent"),
    ],
)
def test_what_cannot_be_compared_is_told(computed: CommandLine, words: tuple[str, ...], told: str):
    assert told in computed("reconcile", *words, exits_with=2).stderr


def test_a_bill_of_another_currency_without_a_rate_is_refused(computed: CommandLine, tmp_path: Path):
    path = tmp_path / "bill.csv"
    path.write_text("day,provider,amount,currency\n2026-03-01,openai,2,EUR\n")
    assert "EUR has no rate on 2026-03-01" in computed("reconcile", "--billed", path, exits_with=2).stderr
    rates = {"rates": [{"currency": "EUR", "from": "2026-01-01", "usd": "1.5"}]}
    (Path(computed.variables["OBS_POLICIES"]) / "currencies.yaml").write_text(yaml.safe_dump(rates))
    told = json.loads(computed("reconcile", "--billed", path, "--json").stdout)
    assert Decimal(told["rows"][0]["billed"]) == 3


@pytest.mark.parametrize("name", ["bills.yaml", "currencies.yaml", "sources.yaml"])
def test_the_doctor_names_a_file_that_cannot_be_used_and_does_not_miss_one(computed: CommandLine, name: str):
    def found() -> dict[str, str]:
        said = computed("doctor", "--json", exits_with=3).stdout
        return {one["what"]: one["state"] for one in json.loads(said)}

    assert name not in found()
    (Path(computed.variables["OBS_POLICIES"]) / name).write_text("nonsense: true\n")
    assert found()[name] == "broken"


def test_configured_bills_are_pulled_and_listed_with_the_sources(computed: CommandLine, tmp_path: Path):
    policies = Path(computed.variables["OBS_POLICIES"])
    since = datetime.now(UTC).date() - timedelta(days=3)
    key = tmp_path / "key"
    key.write_text("sk-admin-1")
    with seller(openai_results) as server:
        bill: dict[str, Any] = {"kind": "openai_costs", "url": server.url, "key_file": str(key), "since": since}
        gone = {**bill, "url": "http://127.0.0.1:1"}
        (policies / "bills.yaml").write_text(yaml.safe_dump({"bills": {"openai": bill, "gone": gone}}))
        assert "openai: 6 lines of bills" in computed("sources", "pull", "openai").stdout
        tried = json.loads(computed("sources", "test", "openai", "--json").stdout)["lines"]
        assert {line["dt"] for line in tried} == {str(since + timedelta(days=1)), str(since + timedelta(days=2))}
        assert "gpt-4o-2024-08-06" in computed("sources", "test", "openai").stdout
        days = ("--from", since, "--until", since + timedelta(days=1))
        assert "openai: 2 lines of bills" in computed("sources", "backfill", "openai", *days).stdout
        assert "cannot be read" in computed("sources", "backfill", "gone", *days, exits_with=3).stderr
        assert "they name: gone, openai" in computed("sources", "test", "other", exits_with=2).stderr
        said = computed("sources", "pull", exits_with=3)
        assert "gone failed" in said.stderr
        assert "sk-admin" not in said.stderr + said.stdout
    listed = {row["bill"]: row for row in json.loads(computed("sources", "list", "--json").stdout)}
    assert listed["openai"]["read_until"] == datetime.now(UTC).date().isoformat()
    assert "cannot be read" in listed["gone"]["failure"]
    assert "openai_costs" in computed("sources", "list").stdout
    rows = json.loads(computed("reconcile", "--json").stdout)["rows"]
    assert len(rows) == 3
    assert all(row["provisional"] and Decimal(row["late"]) == Decimal(row["billed"]) for row in rows)
