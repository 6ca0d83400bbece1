"""Pulled sources in Dagster: when they are pulled, what becomes of a pull that fails, and how each source is told to be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import yaml

from obs_pipeline.clock import utc_now
from obs_pipeline.defs import source_assets
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.defs.source_assets import source_definitions, unread_by_pulls
from obs_pipeline.settings import Settings
from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.aggregates import build_hourly
from obs_pipeline.usage.inbox import Inbox
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.pulling.configured import pulled_sources
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_HOURLY
from obs_pipeline.usage.watermark import unread_days
from obs_pipeline_tests.usage.pulling.test_langfuse_api import Langfuse, langfuse  # noqa: F401

NOW = utc_now().replace(minute=0, second=0, microsecond=0)
YESTERDAY = NOW.replace(hour=0) - timedelta(days=1)


@pytest.fixture
def configured(settings: Settings, langfuse: Langfuse, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Settings:  # noqa: F811
    """Settings with two sources: ``desk`` answers, ``gone`` does not exist."""
    policies = tmp_path / "policies"
    policies.mkdir()
    desk = {
        "kind": "langfuse_api", "url": langfuse.url, "since": YESTERDAY.date(),
        "timeout_seconds": 5, "window_hours": 24, "overlap_minutes": 0,
    }  # fmt: skip
    gone = {**desk, "kind": "litellm_table", "url": "postgresql://127.0.0.1:1/x"}
    (policies / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": {"desk": desk, "gone": gone}}))
    monkeypatch.setattr(source_assets, "RETRY", dg.RetryPolicy(max_retries=1, delay=0))
    return settings.model_copy(update={"policies": policies})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def definitions(settings: Settings) -> dg.Definitions:
    found = source_definitions(pulled_sources(settings.policies / "sources.yaml"))
    return dg.Definitions(
        assets=found.assets,
        asset_checks=found.checks,
        jobs=found.jobs,
        sensors=found.sensors,
        resources=resources_from(settings),
        executor=dg.in_process_executor,
    )


def page(*hours: int) -> tuple[int, bytes]:
    """Calls that began at these hours of yesterday."""
    rows = [
        {
            "id": f"o{hour}", "projectId": "p", "type": "GENERATION", "name": "bot", "providedModelName": "gpt-4o",
            "startTime": (YESTERDAY + timedelta(hours=hour, minutes=5)).isoformat() + "Z",
            "endTime": (YESTERDAY + timedelta(hours=hour, minutes=6)).isoformat() + "Z",
            "usageDetails": {"input": 10, "output": 5}, "totalCost": 0.5,
        }
        for hour in hours
    ]  # fmt: skip
    return 200, json.dumps({"data": rows, "meta": {"cursor": None}}).encode()


def look(defs: dg.Definitions, instance: dg.DagsterInstance, settings: Settings, cursor: str | None = None) -> Any:
    sensor = defs.resolve_sensor_def("due_sources_sensor")
    resources = {name: one for name, one in resources_from(settings).items() if name in sensor.required_resource_keys}
    return sensor.evaluate_tick(
        dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources, definitions=defs)
    )


def run(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("pull_sources").execute_in_process(instance=instance, raise_on_error=False)


def test_without_a_configured_source_there_is_nothing_of_it():
    found = source_definitions({})
    assert (found.assets, found.jobs, found.sensors, found.checks, found.keys) == ([], [], [], [], [])


def test_what_is_due_is_pulled_in_one_run_and_its_checks_with_it(configured: Settings, instance: dg.DagsterInstance):
    defs = definitions(configured)
    tick = look(defs, instance, configured)
    (request,) = tick.run_requests
    assert [key.to_user_string() for key in request.asset_selection] == ["sources/desk", "sources/gone"]
    assert {one.asset_key.path[1]: one.passed for one in tick.asset_events} == {"desk": False, "gone": False}
    assert look(defs, instance, configured, tick.cursor).asset_events == []


def test_a_source_that_fails_is_tried_again_and_stops_no_other(
    configured: Settings,
    instance: dg.DagsterInstance,
    langfuse: Langfuse,  # noqa: F811
):
    langfuse.replies = [page(1, 2), page()]
    done = run(definitions(configured), instance)
    assert not done.success
    outcome = {
        event.step_key: event.event_type_value
        for event in done.all_events
        if event.is_step_failure or event.is_step_success
    }
    assert outcome["sources__desk"] == "STEP_SUCCESS"
    assert outcome["sources__gone"] == "STEP_FAILURE"
    assert any(event.is_step_restarted for event in done.all_events)
    (told,) = [
        event.asset_check_evaluation_data
        for event in done.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    assert told.metadata["health"].value in ("alive", "silent")
    (made,) = done.asset_materializations_for_node("sources__desk")
    assert made.metadata["rows"].value == 2


def test_a_change_of_health_is_told_without_a_run_and_only_once(
    configured: Settings,
    instance: dg.DagsterInstance,
    langfuse: Langfuse,  # noqa: F811
):
    defs = definitions(configured)
    first = look(defs, instance, configured)
    langfuse.replies = [page(23), page()]
    run(defs, instance)
    second = look(defs, instance, configured, first.cursor)
    told = {one.asset_key.path[1]: one for one in second.asset_events}
    assert told["gone"].metadata["health"].value == "failed"
    assert "cannot be read" in told["gone"].description
    assert second.run_requests == []
    assert look(defs, instance, configured, second.cursor).asset_events == []


def test_a_file_that_cannot_be_used_is_said_and_stops_nothing_else(configured: Settings, instance: dg.DagsterInstance):
    defs = definitions(configured)
    (configured.policies / "sources.yaml").write_text("sources: {desk: {kind: csv}}")
    assert "sources.desk.kind" in look(defs, instance, configured).skip_message


def test_a_source_that_was_added_later_is_named(configured: Settings, instance: dg.DagsterInstance):
    defs = definitions(configured)
    path = configured.policies / "sources.yaml"
    content = yaml.safe_load(path.read_text())
    for source in content["sources"].values():
        source["every_minutes"] = 7 * 24 * 60
    content["sources"]["newcomer"] = content["sources"]["desk"]
    path.write_text(yaml.safe_dump(content))
    assert "newcomer" in look(defs, instance, configured).skip_message


def test_the_hours_of_a_failed_pull_are_unknown_and_the_day_is_not_final(
    configured: Settings,
    instance: dg.DagsterInstance,
    langfuse: Langfuse,  # noqa: F811
):
    """Two days are asked for; the first comes, the second does not."""
    langfuse.replies = [page(*range(24)), *[(500, b"")] * 8]
    path = configured.policies / "sources.yaml"
    content = yaml.safe_load(path.read_text())
    del content["sources"]["gone"]
    path.write_text(yaml.safe_dump(content))
    assert not run(definitions(configured), instance).success
    ledger, lake, today = Ledger(configured.ledger), Lake(configured.lake), YESTERDAY.date() + timedelta(days=1)
    inbox, days = Inbox(configured.landing, configured.policies / "sources"), DayRange(YESTERDAY.date(), today)
    with engine.connect() as connection:
        landing = Landing(lake, ledger, PriceBook.load(None), connection, configured.scratch, date(2020, 1, 1))
        inbox.take_in(landing, inbox.waiting(), utc_now)
        lake.view(connection, USAGE_EVENTS)
        build_hourly(connection, lake, days)
        lake.view(connection, USAGE_HOURLY)
        query = "SELECT dt, hour, source, org, project, agent, calls FROM usage_hourly"
        hours = connection.sql(query).to_arrow_table()
    assert hours.num_rows == 24
    assert {row["dt"] for row in hours.to_pylist()} == {YESTERDAY.date()}
    limits = resources_from(configured)["limits"]
    assert unread_by_pulls(ledger, limits, days) == [today]
    assert SourcePositions(ledger).get("desk").position == (YESTERDAY + timedelta(days=1)).isoformat()
    ledger.close()


@pytest.mark.parametrize(
    ("read_up_to", "unread"),
    [(None, [1, 2]), (datetime(2026, 5, 2), [2]), (datetime(2026, 5, 2, 23), [2]), (datetime(2026, 5, 3), [])],
)
def test_a_day_counts_as_read_once_its_end_was_reached(read_up_to: datetime | None, unread: list[int]):
    days = [date(2026, 4, 30), date(2026, 5, 1), date(2026, 5, 2)]
    found = unread_days(days, {"gateway": date(2026, 5, 1)}, {"gateway": read_up_to})
    assert found == [date(2026, 5, day) for day in unread]
