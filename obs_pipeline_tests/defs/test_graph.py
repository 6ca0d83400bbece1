"""The graph: what is committed as its snapshot, and what every asset owes its readers."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from obs_pipeline.definitions import defs
from obs_pipeline.defs.checks import CHECKS
from obs_pipeline.tables import ALL_TABLES
from obs_pipeline_tests.defs.graph_snapshot import SNAPSHOT, graph

SPECS = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
WITHOUT_ASSET = {"usage_duplicates"}
"""Written by settling beside usage_events, which tells of it."""


def test_the_graph_is_the_committed_one():
    committed = json.loads(SNAPSHOT.read_text())
    assert graph(defs) == committed, "the graph has changed; if that is meant: make snapshot"


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_asset_has_a_group_kinds_an_owner_and_a_description(name: str):
    spec = SPECS[name]
    assert spec.group_name not in (None, "default")
    assert spec.kinds
    assert spec.owners
    assert spec.description
    assert len(spec.description) > 20


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_table_of_the_lake_has_an_asset_that_declares_its_columns(table):
    if table.name in WITHOUT_ASSET:
        assert table.name not in SPECS
        return
    declared = SPECS[table.name].metadata["dagster/column_schema"]
    assert [column.name for column in declared.columns] == table.schema.names


def test_every_asset_is_a_table_or_the_beginning_or_the_end_of_the_flow():
    assert set(SPECS) == {table.name for table in ALL_TABLES} - WITHOUT_ASSET | {
        "usage_files",
        "policies",
        "incidents",
        "computed_days",
        "alert_health",
    }


def test_days_count_as_computed_after_everything_else():
    before = {dep.asset_key.to_user_string() for dep in SPECS["computed_days"].deps}
    leaves = set(SPECS) - {dep.asset_key.to_user_string() for spec in SPECS.values() for dep in spec.deps}
    assert leaves == {"computed_days", "alert_health", "reconciliation"}
    assert {"incidents", "mart_spend", "mart_leaderboard", "mart_data_quality"} <= before


def test_the_checks_of_the_graph_are_the_listed_ones():
    declared: dict[str, dict[str, bool]] = {}
    for asset in defs.assets or ():
        assert isinstance(asset, dg.AssetsDefinition)
        for spec in asset.check_specs:
            declared.setdefault(spec.asset_key.to_user_string(), {})[spec.name] = spec.blocking
            assert spec.description
    assert declared == {asset: {guard.name: guard.blocking for guard in guards} for asset, guards in CHECKS.items()}


def test_money_and_rows_are_guarded_by_blocking_checks():
    blocking = {(asset, guard.name) for asset, guards in CHECKS.items() for guard in guards if guard.blocking}
    assert {
        ("usage_events", "rows_in_equal_rows_out"),
        ("usage_hourly", "money_and_calls_conserved"),
        ("usage_daily", "money_and_calls_conserved"),
        ("mart_spend", "money_and_calls_conserved"),
        ("mart_leaderboard", "money_and_calls_conserved"),
    } <= blocking
