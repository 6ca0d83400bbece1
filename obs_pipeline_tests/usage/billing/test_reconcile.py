"""Captured against billed: every term where it belongs, and always exactly the gap."""

from __future__ import annotations

import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import DayRange
from obs_pipeline.usage.billing.configured import Tolerance
from obs_pipeline.usage.billing.lines import BillLine
from obs_pipeline.usage.billing.reconcile import TERMS, build_reconciliation, outside_tolerance, reconciled, summed
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.tables import RECONCILIATION
from obs_pipeline_tests.usage.billing.bills import DAY, a_lake, calls, charged, keep, used

PRICES = PriceBook.load()
NEXT_DAY = date(2026, 3, 2)
DAYS = DayRange(DAY, NEXT_DAY)


def compared(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    rows: list[dict[str, Any]],
    lines: list[BillLine],
    provisional: tuple[date, ...] = (),
    **named: Any,
) -> list[dict[str, Any]]:
    lake = a_lake(folder, rows)
    keep(connection, lake, lines, **named)
    return reconciled(connection, lake, DAYS, PRICES, provisional).to_pylist()


def terms(line: dict[str, Any]) -> dict[str, str]:
    """The terms that are not zero, shortly written."""
    return {name: f"{line[name].normalize():f}" for name in TERMS if line[name]}


@pytest.mark.parametrize(
    ("rows", "lines", "expected"),
    [
        pytest.param([calls("1")], [charged("1"), used(800, 200)], {}, id="the same"),
        pytest.param([calls("1")], [charged("2"), used(1600, 400)], {"missing": "1"}, id="half of the tokens captured"),
        pytest.param([], [charged("2"), used(1600, 400)], {"missing": "2"}, id="nothing captured"),
        pytest.param([calls("1")], [charged("1.2"), used(800, 200)], {"mispriced": "0.2"}, id="another price"),
        pytest.param([calls("1")], [charged("0.8"), used(800, 200)], {"mispriced": "-0.2"}, id="a lower price"),
        pytest.param([calls("2", (1600, 400))], [charged("1"), used(800, 200)], {"surplus": "-1"}, id="captured twice"),
        pytest.param(
            [calls("0", unpriced_calls=10, cost_bound=Decimal("1.5"))],
            [charged("1"), used(800, 200)],
            {"unpriced": "1"},
            id="calls without a price, within their bound",
        ),
        pytest.param(
            [calls("0", unpriced_calls=10, cost_bound=Decimal("0.7"))],
            [charged("1"), used(800, 200)],
            {"unpriced": "0.7", "mispriced": "0.3"},
            id="calls without a price, beyond their bound",
        ),
        pytest.param([calls("1")], [charged("1.2")], {"unexplained": "0.2"}, id="a bill without tokens"),
        pytest.param([], [charged("1.2")], {"missing": "1.2"}, id="a bill without tokens for calls nobody captured"),
        pytest.param(
            [calls("1")],
            [
                charged("0.6", meter="input", item="in"),
                charged("0.8", meter="output", item="out"),
                used(800, 400),
            ],
            {"missing": "0.4"},
            id="each kind of tokens at its own price",
        ),
        pytest.param(
            [calls("1")],
            [
                charged("0.1", meter="input", item="in"),
                charged("0.1", meter="cache_read", item="cached"),
                charged("0.8", meter="output", item="out"),
                used(800, 200, cache_read_tokens=400),
            ],
            {},
            id="a source that does not tell cached input apart",
        ),
    ],
)
def test_a_gap_is_explained_by_its_cause(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    lines: list[BillLine],
    expected: dict[str, str],
):
    (line,) = compared(connection, tmp_path, rows, lines)
    assert terms(line) == expected
    assert sum(line[name] for name in TERMS) == line["gap"] == line["billed"] - line["captured"]


def test_on_a_provisional_day_what_is_missing_is_late(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    (line,) = compared(connection, tmp_path, [calls("1")], [charged("2"), used(1600, 400)], (DAY,))
    assert (terms(line), line["provisional"]) == ({"late": "1"}, True)


def test_calls_that_a_bill_does_not_know_are_surplus(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    rows = [calls("1"), calls("3", model="gpt-4.1")]
    first, second = compared(connection, tmp_path, rows, [charged("1"), used(800, 200)])
    assert (first["model"], terms(first)) == ("gpt-4.1", {"surplus": "-3"})
    assert (second["model"], terms(second)) == ("gpt-4o", {})


def test_a_charge_for_something_else_than_tokens_is_missing(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    lines = [charged("1"), used(800, 200), charged("0.03", None, item="web search")]
    found = compared(connection, tmp_path, [calls("1")], lines)
    assert {line["model"]: terms(line) for line in found} == {"gpt-4o": {}, None: {"missing": "0.03"}}


def test_days_and_sellers_without_a_bill_are_not_compared(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    rows = [calls("1"), calls("9", dt=NEXT_DAY), calls("9", provider="anthropic", model="claude-sonnet-4-20250514")]
    found = compared(connection, tmp_path, rows, [charged("1"), used(800, 200)])
    assert [(line["dt"], line["provider"]) for line in found] == [(DAY, "openai")]


def test_a_bill_of_usage_alone_charges_nothing_and_compares_nothing(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    assert compared(connection, tmp_path, [calls("1")], [used(800, 200)]) == []


@pytest.mark.parametrize(
    ("said", "billed"),
    [
        (("openai", "gpt-4o"), "gpt-4o-2024-08-06"),
        (("azure_ai", "openai/gpt-4o"), None),
        (("litellm", "openai/gpt-4o-2024-11-20"), "gpt-4o-2024-08-06"),
        ((None, "openai/gpt-4o"), "gpt-4o"),
        (("openai", "GPT-4o-latest"), "gpt-4o"),
    ],
)
def test_models_meet_under_their_sellers_name(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, said: tuple[str | None, str], billed: str | None
):
    rows = [calls("1", provider=said[0], model=said[1])]
    found = compared(connection, tmp_path, rows, [charged("1", billed or "gpt-4o"), used(800, 200, billed or "gpt-4o")])
    if billed is None:
        assert [terms(line) for line in found] == [{"missing": "1"}], "another seller's calls are not on this bill"
    else:
        assert [terms(line) for line in found] == [{}]


def test_projects_are_told_apart_where_the_bill_names_ours(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    rows = [calls("1"), calls("2", project="beacon")]
    lines = [
        charged("1", project="proj_1"),
        charged("2.5", project="beacon"),
        used(800, 200, project="proj_1"),
        used(800, 200, project="beacon"),
    ]
    found = compared(connection, tmp_path, rows, lines, projects={"proj_1": "atlas"})
    assert {line["project"]: terms(line) for line in found} == {"atlas": {}, "beacon": {"mispriced": "0.5"}}


def test_projects_are_one_where_the_bill_names_none_of_ours(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    rows = [calls("1"), calls("2", project="beacon")]
    lines = [charged("3", project="proj_1"), used(1600, 400, project="proj_1")]
    (line,) = compared(connection, tmp_path, rows, lines)
    assert (line["project"], terms(line), line["calls"]) == (None, {}, 20)


def test_a_bill_of_one_organisation_is_for_its_calls_alone(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    rows = [calls("1"), calls("7", org="other")]
    (line,) = compared(connection, tmp_path, rows, [charged("1"), used(800, 200)], org="acme")
    assert (line["org"], terms(line)) == ("acme", {})


def test_what_is_kept_is_what_is_compared_and_keeping_it_again_changes_nothing(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
):
    lake = a_lake(tmp_path, [calls("1")])
    keep(connection, lake, [charged("2"), used(1600, 400)])
    for _ in range(2):
        lines = build_reconciliation(connection, lake, DAYS, PRICES, ())
        lake.view(connection, RECONCILIATION)
        assert connection.sql("SELECT * FROM reconciliation").to_arrow_table().to_pylist() == lines.to_pylist()


def test_lines_are_summed_to_days_projects_and_models(connection: duckdb.DuckDBPyConnection, tmp_path: Path):
    lake = a_lake(tmp_path, [calls("1"), calls("1", dt=NEXT_DAY), calls("5", model="o3")])
    keep(connection, lake, [charged("2"), used(1600, 400), charged("1", dt=NEXT_DAY), used(800, 200, dt=NEXT_DAY)])
    lines = reconciled(connection, lake, DAYS, PRICES, ())
    days = summed(connection, lines, "day")
    assert [(row["day"], row["gap"]) for row in days] == [(DAY, Decimal(-4)), (NEXT_DAY, Decimal(0))]
    models = summed(connection, lines, "model")
    assert [(row["model"], row["surplus"], row["missing"]) for row in models] == [
        ("o3", Decimal(-5), Decimal(0)),
        ("gpt-4o", Decimal(0), Decimal(1)),
    ]
    (project,) = summed(connection, lines, "project")
    assert project["gap"] == sum(row["gap"] for row in days) == sum(row["gap"] for row in models)


@pytest.mark.parametrize(
    ("share", "usd", "provisional", "found"),
    [
        ("0.02", "1", (), 1),
        ("0.5", "0", (), 0),
        ("0", "1.2", (), 0),
        ("0", "1.199999999", (), 1),
        ("0.02", "1", (DAY,), 0),
    ],
)
def test_a_day_is_outside_the_tolerance_by_more_than_share_and_amount(
    connection: duckdb.DuckDBPyConnection,
    tmp_path: Path,
    share: str,
    usd: str,
    provisional: tuple[date, ...],
    found: int,
):
    lake = a_lake(tmp_path, [calls("1.2")])
    keep(connection, lake, [charged("2.4"), used(1600, 400)])
    lines = reconciled(connection, lake, DAYS, PRICES, provisional)
    tolerance = Tolerance(share=Decimal(share), usd=Decimal(usd))
    offences = outside_tolerance(connection, lines, tolerance)
    assert [row["off"] for row in offences] == [Decimal("1.2")] * found


MONEY = st.decimals(0, 1_000_000, places=9)
TOKENS = st.integers(0, 10**12)
MODELS = st.sampled_from(["gpt-4o", "gpt-4o-2024-08-06", "o3", None])
PROJECTS = st.sampled_from(["atlas", "beacon", None])
CALLS = st.builds(
    lambda cost, tokens, model, project, bound: calls(
        cost, tokens, model=model, project=project, cost_bound=bound, unpriced_calls=int(bound is not None)
    ),
    MONEY,
    st.tuples(st.none() | TOKENS, st.none() | TOKENS),
    MODELS,
    PROJECTS,
    st.none() | MONEY,
)
CHARGES = st.builds(
    lambda cost, model, project, meter, item: charged(cost, model, project=project, meter=meter, item=item),
    st.decimals(-1_000, 1_000_000, places=9),
    MODELS,
    PROJECTS,
    st.sampled_from(["input", "cache_read", "cache_write", "output", None]),
    st.sampled_from(["a", "b"]),
)
USES = st.builds(
    lambda tokens, model, project: used(*tokens, model, project=project), st.tuples(TOKENS, TOKENS), MODELS, PROJECTS
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(CALLS, max_size=5), st.lists(CHARGES, min_size=1, max_size=5), st.lists(USES, max_size=4), st.booleans()
)
def test_the_terms_of_every_line_come_to_its_gap_and_the_lines_to_both_sums(
    rows: list[dict[str, Any]], charges: list[BillLine], uses: list[BillLine], late: bool
):
    with tempfile.TemporaryDirectory() as folder, engine.connect() as connection:
        found = compared(connection, Path(folder), rows, [*charges, *uses], (DAY,) if late else ())
    for line in found:
        assert sum(line[name] for name in TERMS) == line["gap"] == line["billed"] - line["captured"]
        assert not (line["missing"] or line["surplus"]) if late else not line["late"]
        assert line["missing"] >= 0
        assert line["surplus"] <= 0 or any(charge.amount < 0 for charge in charges if charge.amount is not None)
    assert sum(line["captured"] for line in found) == sum(row["cost"] for row in rows)
    assert sum(line["billed"] for line in found) == sum(charge.amount or 0 for charge in charges)
