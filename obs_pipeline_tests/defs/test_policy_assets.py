"""The policy assets: what they write for each day, what their checks say, and when they run by themselves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from obs_pipeline.definitions import defs
from obs_pipeline.defs import policy_assets
from obs_pipeline.defs.partitions import range_tags
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.settings import Settings, get_settings
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_hourly
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_HOURLY
from obs_pipeline_tests.usage_files import MONDAY, landed_lake, rows_of, usage_rows

DAYS = DayRange(MONDAY.date(), MONDAY.date() + timedelta(days=2))
ORG = """
id: acme
name: Acme
scope: org
scope_id: acme
calendar: {time_zone: Asia/Kolkata}
budgets:
  cost: {limit: 1, period: daily}
  calls:
    - {limit: 9, period: daily}
    - {limit: 90, period: hourly}
alerts: {thresholds: [50], channels: [widget]}
"""
AGENT = """
id: one
name: One
scope: agent
org: acme
project: atlas
scope_id: agent-1
budgets:
  calls: {limit: 20, period: monthly, increases: [
    {from: 2026-03-03, until: 2026-03-04, limit: 40, reason: a launch}]}
"""


@pytest.fixture
def home(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Three days of usage, and policies of one organisation and one of its agents."""
    folder = tmp_path / "policies"
    (folder / "agents").mkdir(parents=True)
    (folder / "org.yaml").write_text(ORG)
    (folder / "agents" / "one.yaml").write_text(AGENT)
    monkeypatch.setenv("OBS_POLICIES", str(folder))
    get_settings.cache_clear()
    settings.home.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        build_hourly(connection, landed_lake(settings.home, connection, usage_rows(3, per_day=96)), DAYS)
    return get_settings()


def run(home: Settings, days: DayRange = DAYS) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def("budgets").execute_in_process(
            instance=instance, tags=range_tags(days), resources=resources_from(home), raise_on_error=False
        )


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {one.check_name: bool(one.passed) for one in result.get_asset_check_evaluations()}


def rows(home: Settings, table: str, **equal: object) -> list[dict[str, Any]]:
    from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES

    wanted = {one.name: one for one in (BUDGET_STATUS, EFFECTIVE_POLICIES)}[table]
    with duckdb.connect() as connection:
        found = rows_of(connection, Lake(home.lake), wanted)
    return [row for row in found if all(row[name] == value for name, value in equal.items())]


def events(home: Settings, start: datetime, end: datetime) -> list[dict[str, Any]]:
    with duckdb.connect() as connection:
        found = rows_of(connection, Lake(home.lake), USAGE_EVENTS)
    return [event for event in found if start <= event["event_time"] < end]


def test_every_day_says_what_held_and_who_decided_it(home: Settings):
    result = run(home)
    assert result.success
    monthly = rows(home, "effective_policies", field="budgets.calls.monthly", agent="agent-1", project="atlas")
    assert {row["dt"].day: (row["amount"], row["decided_by"], row["files"]) for row in monthly} == {
        2: (40, "one", "agents/one.yaml"),  # in Kolkata the third of March has begun by the end of this day
        3: (20, "one", "agents/one.yaml"),
        4: (20, "one", "agents/one.yaml"),
    }
    daily = rows(home, "effective_policies", field="budgets.cost.daily (USD)", scope="agent", dt=DAYS.first)
    assert {row["set_at"] for row in daily} == {"org"}
    assert {(row["project"], row["agent"]) for row in daily} == {
        ("atlas", "agent-0"), ("atlas", "agent-1"), (None, "agent-0"), (None, "agent-1"),
    }  # fmt: skip


def test_spend_is_the_sum_of_the_events_of_the_window_even_where_it_begins_within_an_hour(home: Settings):
    run(home)
    [row] = rows(home, "budget_status", dt=date(2026, 3, 3), scope="org", kind="cost")
    assert (row["window_start"], row["judged_at"]) == (
        datetime(2026, 3, 3, 18, 30),
        datetime(2026, 3, 3, 23, 59, 59, 999999),
    )
    window = events(home, row["window_start"], row["judged_at"])
    assert row["spent"] == sum((event["cost"] or Decimal(0) for event in window), Decimal(0))
    [calls] = rows(home, "budget_status", dt=date(2026, 3, 3), scope="org", kind="calls", period="daily")
    assert (calls["spent"], calls["state"], calls["crossed"]) == (len(window), "exceeded", 50)


def test_a_budget_stands_where_its_policy_is_written_and_nowhere_below(home: Settings):
    run(home)
    assert {(row["scope"], row["set_at"]) for row in rows(home, "budget_status")} == {
        ("org", "org"),
        ("agent", "agent"),
    }


def test_all_checks_pass_and_a_second_run_writes_the_same(home: Settings):
    first = run(home)
    assert verdicts(first) == dict.fromkeys(verdicts(first), True)
    before = {table: rows(home, table) for table in ("effective_policies", "budget_status")}
    assert all(before.values())
    run(home, DayRange(DAYS.last, DAYS.last))
    assert {table: rows(home, table) for table in before} == before


def test_the_story_and_the_files_behind_it_are_in_the_metadata(home: Settings):
    result = run(home)
    [made] = result.asset_materializations_for_node("effective_policies")[-1:]
    assert made.metadata["in_force"].value == "files"
    assert "agents/one.yaml" in str(made.metadata["held"].value)
    observed = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    assert any(event.asset_key == dg.AssetKey("policies") for event in observed)


def test_broken_files_contradictions_and_strangers_fail_their_checks_and_stop_nothing(home: Settings):
    (home.policies / "agents" / "bad.yaml").write_text("id: bad")
    (home.policies / "agents" / "more.yaml").write_text(
        "[{id: wish, name: W, scope: agent, org: acme, project: atlas, scope_id: agent-0, inheritance: override,"
        " budgets: {cost: {limit: 99, period: daily}}},"
        " {id: stranger, name: S, scope: agent, org: acme, project: atlas, scope_id: nobody}]"
    )
    (home.policies / "tests").mkdir()
    (home.policies / "tests" / "wrong.yaml").write_text(
        "{name: none, for: {org: acme}, at: '2026-03-03T00:00:00Z', expect: {limits: []}}"
    )
    result = run(home)
    assert result.success
    failed = {name for name, passed in verdicts(result).items() if not passed}
    assert failed == {"files_are_in_order", "cases_hold", "no_conflicts", "no_unknown_scopes"}
    assert rows(home, "budget_status")


def test_agents_without_any_limit_fail_a_check(home: Settings):
    shutil.rmtree(home.policies)
    home.policies.mkdir()
    result = run(home)
    assert result.success
    assert not verdicts(result)["every_agent_has_a_limit"]
    assert rows(home, "budget_status") == []


def test_spend_that_is_not_the_sum_of_usage_fails_the_run(home: Settings, monkeypatch: pytest.MonkeyPatch):
    (home.policies / "org.yaml").write_text(ORG.replace("Asia/Kolkata", "UTC"))
    real = policy_assets.build_status

    def wrong(connection, lake, found):
        real(connection, lake, found)
        lake.delete(USAGE_HOURLY, "dt = '2026-03-03' AND agent = 'agent-0'")

    monkeypatch.setattr(policy_assets, "build_status", wrong)
    result = run(home)
    assert not verdicts(result)["spend_is_the_sum_of_usage"]


@pytest.fixture
def instance(home: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def look(instance: dg.DagsterInstance, home: Settings, cursor: str | None = None) -> Any:
    sensor = policy_assets.policies_sensor
    resources = {name: one for name, one in resources_from(home).items() if name in sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources, definitions=defs)
    return sensor.evaluate_tick(context)


def test_the_sensor_observes_edited_files_and_has_todays_budgets_judged_again(
    home: Settings, instance: dg.DagsterInstance
):
    first = look(instance, home)
    assert (len(first.asset_events), len(first.run_requests)) == (1, 1)
    again = look(instance, home, first.cursor)
    assert (list(again.asset_events), list(again.run_requests or [])) == ([], [])
    (home.policies / "org.yaml").write_text(ORG.replace("limit: 1,", "limit: 2,"))
    edited = look(instance, home, first.cursor)
    assert edited.asset_events[0].data_version != first.asset_events[0].data_version
    assert edited.run_requests[0].run_key != first.run_requests[0].run_key


def test_files_edited_after_a_revision_was_applied_are_observed_and_change_nothing(
    home: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    class Head:
        revision = 7

    monkeypatch.setattr(policy_assets.PolicyStore, "head", lambda _self: Head)
    first = look(instance, home)
    (home.policies / "org.yaml").write_text(ORG.replace("limit: 1,", "limit: 2,"))
    edited = look(instance, home, first.cursor)
    assert (len(edited.asset_events), list(edited.run_requests or [])) == (1, [])
