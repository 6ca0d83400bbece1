"""What happens by itself: when a run is asked for, for which days, and what becomes of one that fails."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from obs_pipeline.alerting.models import Incident
from obs_pipeline.alerting.records import incident_of
from obs_pipeline.definitions import defs
from obs_pipeline.defs import automation
from obs_pipeline.defs.batch import BatchFailed, BatchInterrupted, run_daily_batch, steps
from obs_pipeline.defs.instance import open_instance
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.settings import Settings
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.lake import DayRange
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline.storage.locks import exclusive
from obs_pipeline.usage.due_days import LOOKBACK_DAYS
from obs_pipeline.usage.receiving.spool import Spool, SpoolLimits
from obs_pipeline.usage.tables import USAGE_EVENTS
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl

MONDAY = date(2026, 3, 2)
NOW = datetime(2026, 3, 20)


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings.ledger)
    yield opened
    opened.close()


def look(
    sensor: dg.SensorDefinition, instance: dg.DagsterInstance, settings: Settings, cursor: str | None = None
) -> Any:
    resources = {name: one for name, one in resources_from(settings).items() if name in sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources, definitions=defs)
    return sensor.evaluate_tick(context)


def under_way(
    instance: dg.DagsterInstance,
    job: str,
    tags: dict[str, str] | None = None,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
) -> dg.DagsterRun:
    run = instance.create_run_for_job(defs.resolve_job_def(job), status=status, tags=tags or {})
    return run


# -- the daily schedule --------------------------------------------------------------------------------------------------


def test_the_daily_schedule_asks_for_the_day_before_its_tick():
    tick = datetime(2026, 3, 3, 2, tzinfo=UTC)
    (request,) = automation.daily_schedule.evaluate_tick(
        dg.build_schedule_context(scheduled_execution_time=tick, repository_def=defs.get_repository_def())
    ).run_requests
    assert request.partition_key == "2026-03-02"
    assert request.run_key == "daily:2026-03-02"


def test_the_daily_schedule_runs_at_the_set_hour_in_utc(settings: Settings):
    assert automation.daily_schedule.cron_schedule == "0 2 * * *"
    assert automation.daily_schedule.execution_timezone == "UTC"


# -- the landing sensor --------------------------------------------------------------------------------------------------


def test_a_file_is_asked_for_once_it_has_stopped_growing_and_not_twice(
    settings: Settings, instance: dg.DagsterInstance
):
    sensor = automation.landing_sensor
    assert look(sensor, instance, settings).run_requests == []
    path = write_jsonl(settings.landing / "a.jsonl", usage_rows(1))
    first = look(sensor, instance, settings, "{}")
    assert first.run_requests == []
    with path.open("a") as file:
        file.write("more\n")
    grown = look(sensor, instance, settings, first.cursor)
    assert grown.run_requests == []
    still = look(sensor, instance, settings, grown.cursor)
    assert len(still.run_requests) == 1
    under_way(instance, "land_usage")
    assert look(sensor, instance, settings, still.cursor).run_requests == []


def test_a_file_whose_time_changed_is_looked_at_again(settings: Settings, instance: dg.DagsterInstance):
    path = write_jsonl(settings.landing / "a.jsonl", usage_rows(1))
    first = look(automation.landing_sensor, instance, settings)
    os.utime(path, (1, 1))
    assert look(automation.landing_sensor, instance, settings, first.cursor).run_requests == []


def test_a_file_still_growing_does_not_hold_up_a_whole_one(settings: Settings, instance: dg.DagsterInstance):
    write_jsonl(settings.landing / "whole.jsonl", usage_rows(1))
    first = look(automation.landing_sensor, instance, settings)
    write_jsonl(settings.landing / "growing.jsonl", usage_rows(1))
    assert len(look(automation.landing_sensor, instance, settings, first.cursor).run_requests) == 1


def test_what_a_dead_server_had_received_is_moved_on_by_the_next_look(settings: Settings, instance: dg.DagsterInstance):
    gone = Spool(settings.spool, settings.landing, SpoolLimits(), lambda: NOW)
    gone.append("otlp", [b'{"resourceSpans":[]}\n'])
    gone._lock_file.release()
    look(automation.landing_sensor, instance, settings)
    (moved,) = (settings.landing / "otlp").iterdir()
    assert moved.read_bytes() == b'{"resourceSpans":[]}\n'


# -- touched days --------------------------------------------------------------------------------------------------------


def land(ledger: Ledger, name: str, *days: date) -> None:
    ledger.start_landing(LandedFile(name, "gateway", name, 1, 0, None), "m", NOW)
    landed = [LandedDay(day, 1, 0, datetime.combine(day, datetime.min.time()), None) for day in days]
    ledger.finish_landing(name, len(days), landed, NOW)


def settle_all(ledger: Ledger) -> None:
    seen = ledger.newest_landing_per_day()
    ledger.note_seen(seen)
    ledger.mark_settled((min(seen), max(seen)), NOW)


def asked(result: Any) -> list[tuple[str, str]]:
    tags = [request.tags for request in result.run_requests]
    return [(t["dagster/asset_partition_range_start"], t["dagster/asset_partition_range_end"]) for t in tags]


def test_days_that_no_batch_has_seen_are_asked_for_in_one_run(
    settings: Settings, instance: dg.DagsterInstance, ledger: Ledger
):
    sensor = automation.touched_days_sensor
    assert look(sensor, instance, settings).run_requests == []
    land(ledger, "f1", *(MONDAY + timedelta(days=n) for n in range(5)))
    assert asked(look(sensor, instance, settings)) == [("2026-03-02", "2026-03-06")]
    settle_all(ledger)
    assert look(sensor, instance, settings).run_requests == []


def test_a_late_event_asks_for_its_day_and_the_days_whose_baseline_it_is_part_of(
    settings: Settings, instance: dg.DagsterInstance, ledger: Ledger
):
    land(ledger, "f1", *(MONDAY + timedelta(days=n) for n in range(60)))
    settle_all(ledger)
    land(ledger, "f2", MONDAY + timedelta(days=10))
    (days,) = asked(look(automation.touched_days_sensor, instance, settings))
    first, last = map(date.fromisoformat, days)
    assert first == MONDAY + timedelta(days=10)
    assert last >= MONDAY + timedelta(days=10 + LOOKBACK_DAYS)
    assert last <= MONDAY + timedelta(days=11 + LOOKBACK_DAYS)


def test_nothing_is_asked_for_while_a_batch_is_under_way(
    settings: Settings, instance: dg.DagsterInstance, ledger: Ledger
):
    land(ledger, "f1", MONDAY)
    under_way(instance, "daily_batch")
    assert look(automation.touched_days_sensor, instance, settings).run_requests == []


@pytest.mark.parametrize("begun", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_a_command_that_was_killed_does_not_block_the_sensor_for_ever(
    settings: Settings, instance: dg.DagsterInstance, ledger: Ledger, begun: dg.DagsterRunStatus
):
    land(ledger, "f1", MONDAY)
    killed = under_way(instance, "daily_batch", {"obs-pipeline/started_by": "command line"}, begun)
    with exclusive(settings.scratch, "batch"):
        assert look(automation.touched_days_sensor, instance, settings).run_requests == []
    assert len(look(automation.touched_days_sensor, instance, settings).run_requests) == 1
    closed = instance.get_run_by_id(killed.run_id)
    assert closed is not None
    assert closed.status == dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("stopped", ["report_run_failed", "report_run_canceled"])
def test_days_that_a_batch_left_waiting_are_asked_for_again_after_a_while(
    settings: Settings,
    instance: dg.DagsterInstance,
    ledger: Ledger,
    stopped: str,
    monkeypatch: pytest.MonkeyPatch,
):
    land(ledger, "f1", MONDAY)
    sensor = automation.touched_days_sensor
    (first,) = look(sensor, instance, settings).run_requests
    getattr(instance, stopped)(under_way(instance, "daily_batch"))
    assert look(sensor, instance, settings).run_requests == []
    monkeypatch.setattr(automation, "PAUSE_AFTER_FAILURE_SECONDS", -1)
    (again,) = look(sensor, instance, settings).run_requests
    # A run key that was asked for once is never run again.
    assert first.run_key is again.run_key is None


# -- failures ------------------------------------------------------------------------------------------------------------


FAILING = {"now": True}


@dg.op
def break_down() -> None:
    if FAILING["now"]:
        raise RuntimeError("broken on purpose") from ValueError("what the reader need not know")


@dg.job
def doomed() -> None:
    break_down()


def run_doomed(instance: dg.DagsterInstance, *, fails: bool) -> dg.ExecuteInProcessResult:
    FAILING["now"] = fails
    return doomed.execute_in_process(instance=instance, raise_on_error=False)


def report(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance, settings: Settings) -> None:
    """Let the sensor that is meant for it look at a run."""
    kinds = {dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS}
    event = next(event for event in result.all_events if event.event_type in kinds)
    context = dg.build_run_status_sensor_context(
        sensor_name="any",
        dagster_instance=instance,
        dagster_run=instance.get_run_by_id(result.run_id),
        dagster_event=event,
        resources={name: resources_from(settings)[name] for name in ("ledger", "limits")},
    )
    if event.event_type == dg.DagsterEventType.RUN_FAILURE:
        automation.failed_run_alert(context.for_run_failure())
    else:
        automation.good_run_report(context)


def incidents_in(ledger: Ledger) -> list[Incident]:
    return [incident_of(row) for row in AlertStore(ledger).incidents()]


def test_a_failed_run_of_any_job_is_one_incident_until_its_next_good_run(
    settings: Settings, instance: dg.DagsterInstance, ledger: Ledger
):
    failed = run_doomed(instance, fails=True)
    for _ in range(2):
        report(failed, instance, settings)
    report(run_doomed(instance, fails=True), instance, settings)
    [incident] = incidents_in(ledger)
    assert (incident.kind, incident.severity, incident.status) == ("run_failure", "critical", "open")
    assert incident.headline == "The job doomed failed: break_down: RuntimeError: broken on purpose"
    assert len(incident.signal_ids) == 1
    report(run_doomed(instance, fails=False), instance, settings)
    [incident] = incidents_in(ledger)
    assert (incident.status, incident.resolution) == ("resolved", "a later run went well")


def test_a_failure_that_is_looked_at_after_the_next_good_run_wakes_nobody(
    settings: Settings, instance: dg.DagsterInstance, ledger: Ledger
):
    failed, good = run_doomed(instance, fails=True), run_doomed(instance, fails=False)
    report(good, instance, settings)
    report(failed, instance, settings)
    assert [incident.status for incident in incidents_in(ledger)] == ["resolved"]
    assert AlertStore(ledger).outbox() == []


def test_a_file_that_cannot_be_landed_is_an_incident_until_it_lands_while_the_others_land(
    settings: Settings, instance: dg.DagsterInstance, ledger: Ledger
):
    write_jsonl(settings.landing / "good.jsonl", usage_rows(1))
    write_jsonl(settings.landing / "nobody" / "bad.jsonl", usage_rows(2))
    result = defs.resolve_job_def("land_usage").execute_in_process(
        instance=instance, resources=resources_from(settings)
    )
    assert result.success
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert (metadata["files"].value, metadata["refused"].value, metadata["rows"].value) == (1, 1, 24)
    assert "good.jsonl" in str(metadata["landed"].value)
    assert (settings.home / "refused" / "nobody" / "bad.jsonl.reason.txt").is_file()
    assert (settings.home / "landed" / "good.jsonl").is_file()
    [incident] = incidents_in(ledger)
    assert (incident.kind, incident.status) == ("refused_file", "open")
    assert incident.headline.startswith("The file bad.jsonl could not be taken in: there is no mapping")
    write_jsonl(settings.landing / "bad.jsonl", usage_rows(2))
    defs.resolve_job_def("land_usage").execute_in_process(instance=instance, resources=resources_from(settings))
    [incident] = incidents_in(ledger)
    assert (incident.status, incident.resolution) == ("resolved", "the file was taken in")


def test_a_day_without_any_usage_is_computed_without_complaint(settings: Settings):
    heard: list[str] = []
    run = run_daily_batch(settings, DayRange(MONDAY, MONDAY), lambda step, _chunk, _days: heard.append(step))
    assert [check for check in run.failed_checks if check.blocking] == []
    assert {"usage_events+usage_rejected", "usage_daily", "incidents", "mart_spend"} <= set(heard)
    assert len(heard) == len(set(heard)) == len(steps())
    with open_instance(settings) as instance:
        keys = instance.get_materialized_partitions(dg.AssetKey("mart_spend"))
    assert keys == {"2026-03-02"}


def test_a_batch_that_fails_names_the_doctor(settings: Settings, ledger: Ledger):
    land(ledger, "f1", MONDAY)
    with pytest.raises(BatchFailed, match=r"rows_in_equal_rows_out .* obs-pipeline doctor"):
        run_daily_batch(settings, DayRange(MONDAY, MONDAY))


def test_a_batch_whose_records_cannot_be_kept_says_where(settings: Settings):
    (settings.dagster_home / "history" / "runs.db").mkdir(parents=True)
    with pytest.raises(BatchFailed, match=r"dagster cannot be kept: unable to open .* free space"):
        run_daily_batch(settings, DayRange(MONDAY, MONDAY))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_batch_that_somebody_stops_says_so_and_wakes_nobody(
    settings: Settings, number: signal.Signals, ledger: Ledger
):
    def stop(step: str, _chunk: DayRange, _days: DayRange) -> None:
        if step == "usage_twins":
            signal.raise_signal(number)

    with pytest.raises(BatchInterrupted, match="stopped") as stopped:
        run_daily_batch(settings, DayRange(MONDAY, MONDAY), stop)
    assert stopped.value.exit_code == 130
    assert [incident.kind for incident in incidents_in(ledger) if incident.kind == "run_failure"] == []


def test_maintenance_keeps_every_row(settings: Settings, instance: dg.DagsterInstance):
    resources = resources_from(settings)
    for number in range(2):
        write_jsonl(settings.landing / f"{number}.jsonl", usage_rows(1, start=datetime(2026, 3, 2 + number)))
        defs.resolve_job_def("land_usage").execute_in_process(instance=instance, resources=resources)
    lake = resources["lake"].open()
    before = lake.rows_per_day(USAGE_EVENTS)
    assert defs.resolve_job_def("maintain_lake").execute_in_process(instance=instance, resources=resources).success
    assert lake.rows_per_day(USAGE_EVENTS) == before
    assert sum(before.values()) == 48


def test_the_sensors_remember_as_plain_json(settings: Settings, instance: dg.DagsterInstance, tmp_path: Path):
    write_jsonl(settings.landing / "a.jsonl", usage_rows(1))
    cursor = look(automation.landing_sensor, instance, settings).cursor
    assert json.loads(cursor).keys() == {"a.jsonl"}
