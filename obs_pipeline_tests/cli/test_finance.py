"""``export focus`` and ``report chargeback`` as commands."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from obs_pipeline.usage.tables import USAGE_HOURLY
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.dashboard.test_focus import CREDIT, NAMELESS, an_hour

ROWS = [an_hour(), CREDIT, NAMELESS, an_hour(datetime(2026, 4, 1)), an_hour(org="other", team="sales")]
COST = 3 * Decimal("0.123456789") - 5


@pytest.fixture
def computed(obs: CommandLine) -> CommandLine:
    obs.lake.append(USAGE_HOURLY, pa.Table.from_pylist(ROWS, USAGE_HOURLY.schema))
    return obs


def test_a_month_is_exported_the_same_as_parquet_and_as_csv(computed: CommandLine, tmp_path: Path):
    for name in ("march.parquet", "march.csv"):
        told = json.loads(computed("export", "focus", "--month", "2026-03", "-o", tmp_path / name, "--json").stdout)
        assert (told["rows"], Decimal(told["billed_cost"])) == (4, COST)
    assert pc.sum(pq.read_table(tmp_path / "march.parquet")["BilledCost"]).as_py() == COST
    with (tmp_path / "march.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == COST
    assert rows[0]["ChargePeriodStart"] == "2026-03-01T00:00:00Z"
    assert not list(tmp_path.glob(".*"))


def test_an_export_to_a_name_that_says_no_format_is_refused(computed: CommandLine, tmp_path: Path):
    said = computed("export", "focus", "--month", "2026-03", "-o", tmp_path / "march.xlsx", exits_with=2).stderr
    assert ".parquet or .csv" in said
    assert not list(tmp_path.glob("march*"))


def test_a_month_is_charged_back_and_the_lines_come_to_its_cost(computed: CommandLine, tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("unattributed: calls\nmargin: {default: 0.1}\n")
    command = ("report", "chargeback", "--month", "2026-03", "--rules", rules, "-o", tmp_path / "lines.csv", "--json")
    told = json.loads(computed(*command).stdout)
    assert Decimal(told["cost"]) == COST
    assert sum(Decimal(line["own"]) + Decimal(line["shared"]) for line in told["lines"]) == COST
    assert sum(Decimal(line["total"]) for line in told["lines"]) == Decimal(told["total"])
    assert {line["team"] for line in told["lines"]} == {"care", "sales"}
    with (tmp_path / "lines.csv").open() as file:
        assert sum(Decimal(row["total"]) for row in csv.DictReader(file)) == Decimal(told["total"])


@pytest.mark.parametrize("org", [None, "acme", "other"])
def test_the_export_and_the_report_of_a_month_come_to_the_same_cost(
    computed: CommandLine, tmp_path: Path, org: str | None
):
    whose = ("--org", org) if org else ()
    asked = ("--month", "2026-03", *whose, "--json")
    exported = json.loads(computed("export", "focus", "-o", tmp_path / "march.parquet", *asked).stdout)
    charged = json.loads(computed("report", "chargeback", *asked).stdout)
    assert Decimal(exported["billed_cost"]) == Decimal(charged["cost"]) != 0


def test_a_report_of_one_organisation_says_so(computed: CommandLine):
    shown = computed("report", "chargeback", "--month", "2026-03", "--org", "other").stdout
    assert "of other" in shown
    assert "sales" in shown
    assert "care" not in shown


def test_a_month_that_is_none_is_told(computed: CommandLine):
    assert "YYYY-MM" in computed("report", "chargeback", "--month", "soon", exits_with=2).stderr
