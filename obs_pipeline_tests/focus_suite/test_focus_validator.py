"""The FOCUS export of a month that has everything in it, judged by ``focus-validator`` and added up again."""

from __future__ import annotations

import csv
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from obs_pipeline.storage.lake import Lake
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.dashboard.test_focus import CORRECTION, CREDIT, NAMELESS, a_lake, an_hour
from obs_pipeline_tests.focus_suite.validator import PROGRAM, VERDICTS, as_text, verdicts

pytestmark = pytest.mark.slow

CANNOT_HOLD = {"InvoiceId-C-005-C :: Nullability"}
"""The rules for 1.2 ask of every row that ``InvoiceId`` be null (C-004-C), and that it be not (C-005-C)."""

ELSEWHERE = an_hour(org="globex", project='p "q",\n', team="ünï", provider="anthropic", model="claude-sonnet-4-5")
MARCH = [
    *(an_hour(), CREDIT, CORRECTION, NAMELESS, ELSEWHERE),
    an_hour(agent="unpriced", cost=Decimal(0), list_cost=None, unpriced_calls=3),
    an_hour(agent="idle", calls=1, input_tokens=None, output_tokens=None, cost=Decimal(0), list_cost=Decimal(0)),
    an_hour(agent="cached", cost=Decimal(0), list_cost=Decimal("0.5")),
    an_hour(agent="dear", cost=Decimal("999999999.123456789"), list_cost=Decimal("999999999.123456789")),
    an_hour(agent="corrected", cost=Decimal("-0.5"), list_cost=Decimal("-0.5")),
    an_hour(datetime(2026, 3, 31, 23), agent="tiny", cost=Decimal("0.000000001")),
]
APRIL = [an_hour(datetime(2026, 4, 1)), {**ELSEWHERE, "hour": datetime(2026, 4, 30, 23), "dt": date(2026, 4, 30)}]
ASKED = [("2026-03", None), ("2026-03", "acme"), ("2026-03", "globex"), ("2026-04", None)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return a_lake(tmp_path_factory.mktemp("focus"), *MARCH, *APRIL)


@pytest.fixture
def obs(tmp_path: Path, lake: Lake) -> CommandLine:
    return CommandLine(tmp_path / "home", {"OBS_LAKE_URI": str(lake.root)})


def costs(month: str, org: str | None) -> list[Decimal]:
    rows: list[dict[str, Any]] = MARCH if month == "2026-03" else APRIL
    return sorted(row["cost"] for row in rows if org is None or row["org"] == org)


@pytest.mark.parametrize(("month", "org"), ASKED)
def test_the_file_read_back_adds_up_to_the_cost_of_the_month_to_the_last_digit(
    obs: CommandLine, tmp_path: Path, month: str, org: str | None
):
    only = ("--org", org) if org else ()
    expected = costs(month, org)
    for name in ("charges.parquet", "charges.csv"):
        path = tmp_path / name
        said = json.loads(obs("export", "focus", "--month", month, "-o", path, "--json", *only).stdout)
        assert (said["rows"], Decimal(str(said["billed_cost"]))) == (len(expected), sum(expected))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            assert pc.sum(table["BilledCost"]).as_py() == sum(expected)
            read = [row["BilledCost"] for row in table.to_pylist()]
        else:
            with path.open(newline="", encoding="utf-8") as file:
                read = [Decimal(row["BilledCost"]) for row in csv.DictReader(file)]
        assert sorted(read) == expected


@pytest.mark.skipif(not PROGRAM.exists(), reason="make test-focus sets focus-validator up")
@pytest.mark.parametrize("name", ["charges.parquet", "charges.csv"])
@pytest.mark.parametrize(("month", "org"), ASKED)
def test_every_rule_holds_but_the_one_that_contradicts_another(
    obs: CommandLine, tmp_path: Path, month: str, org: str | None, name: str
):
    path = tmp_path / name
    obs("export", "focus", "--month", month, "-o", path, *(("--org", org) if org else ()))
    found = verdicts(path)
    assert len(found) > 100
    assert {rule for rule, verdict in found.items() if verdict == "fails"} == CANNOT_HOLD
    if (month, org, path.suffix) == ("2026-03", None, ".parquet"):
        VERDICTS.write_text(as_text(found))


@pytest.mark.skipif(not PROGRAM.exists(), reason="make test-focus sets focus-validator up")
@pytest.mark.parametrize("invoice", ["INV-1", None, ""])
def test_whatever_the_invoice_is_called_a_rule_of_it_fails(obs: CommandLine, tmp_path: Path, invoice: str | None):
    """The proof that no file can pass: should a newer validator let one, ``CANNOT_HOLD`` goes."""
    path = tmp_path / "charges.parquet"
    obs("export", "focus", "--month", "2026-03", "--org", "globex", "-o", path)
    table = pq.read_table(path)
    at = table.schema.get_field_index("InvoiceId")
    column = pa.array([invoice] * table.num_rows, pa.string())
    pq.write_table(table.set_column(at, table.schema.field(at), column), path)
    failing = {rule.split(" ")[0] for rule, verdict in verdicts(path).items() if verdict == "fails"}
    assert failing & {"InvoiceId-C-004-C", "InvoiceId-C-005-C"}
