"""The sensor sees what is due, the job sends it, the asset says how well that goes."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from obs_pipeline.alerting.health import SENSOR
from obs_pipeline.alerting.models import Receiver
from obs_pipeline.alerting.records import incident_row, outbox_row
from obs_pipeline.clock import utc_now
from obs_pipeline.defs.alerting import (
    alert_health,
    deliver_alerts,
    due_alerts_sensor,
    environment_value,
)
from obs_pipeline.defs.incident_chart import incident_chart
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.detection.tables import BASELINES
from obs_pipeline.settings import Settings, project_root
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.loopback import http_server
from obs_pipeline_tests.alerting.notifications import incident, notification


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    policies = tmp_path / "policies"
    policies.mkdir()
    shutil.copy(project_root() / "policies/routes.yaml", policies)
    return Settings(home=tmp_path / ".obs", policies=policies)


@pytest.fixture
def store(settings: Settings) -> AlertStore:
    return AlertStore(Ledger(settings.ledger))


def put(store: AlertStore, receiver: Receiver) -> str:
    now = utc_now()
    told = notification(incident(opened_at=now, updated_at=now, last_seen_at=now), receiver=receiver, at=now)
    with store.deciding(now) as deciding:
        deciding.keep_incidents([incident_row(told.incidents[0])])
        deciding.enqueue([outbox_row(told)])
    return told.key


def look(settings: Settings, instance: dg.DagsterInstance):
    resources = resources_from(settings)
    with dg.build_sensor_context(instance, resources={name: resources[name] for name in ("ledger", "limits")}) as tick:
        return due_alerts_sensor(tick)


def send(settings: Settings) -> dg.ExecuteInProcessResult:
    resources = resources_from(settings)
    needed = ("ledger", "limits", "lake", "engine")
    return deliver_alerts.execute_in_process(resources={name: resources[name] for name in needed})


def test_nothing_due_asks_for_no_run_and_leaves_a_heartbeat(settings: Settings, store: AlertStore):
    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(look(settings, instance), dg.SkipReason)
    assert SENSOR in store.heartbeats()


def test_a_due_message_asks_for_one_run_at_a_time(settings: Settings, store: AlertStore):
    put(store, Receiver("ops", "slack", {"webhook": "OBS_TEST_HOOK"}))
    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(look(settings, instance), dg.RunRequest)
        instance.create_run_for_job(deliver_alerts, status=dg.DagsterRunStatus.STARTED)
        assert look(settings, instance).skip_message == "Messages are being sent."


def test_the_job_sends_by_the_secret_that_the_environment_holds(
    settings: Settings, store: AlertStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    key = put(store, Receiver("ops", "slack", {"webhook": "OBS_TEST_HOOK"}))
    with http_server() as server:
        monkeypatch.setenv("OBS_TEST_HOOK", f"{server.url}/services/very-secret-path")
        assert send(settings).success
    assert [request.path for request in server.requests] == ["/services/very-secret-path"]
    [row] = store.messages([key])
    assert row.state == "sent"
    assert "very-secret-path" not in caplog.text


def test_a_secret_that_is_not_set_is_said_and_tried_again(settings: Settings, store: AlertStore):
    key = put(store, Receiver("ops", "slack", {"webhook": "OBS_TEST_HOOK"}))
    assert environment_value("OBS_TEST_HOOK") is None
    assert send(settings).success
    [row] = store.messages([key])
    assert (row.state, row.attempts) == ("due", 1)
    assert "the variable OBS_TEST_HOOK is not set" in row.detail


def test_health_is_told_and_judged(settings: Settings, store: AlertStore):
    put(store, Receiver("ops", "slack", {}))
    assert send(settings).success
    resources = {"ledger": resources_from(settings)["ledger"]}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([alert_health], instance=instance, resources=resources)
    passed = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert passed == {
        "delivery_is_quick": True,
        "channels_succeed": False,
        "nothing_is_parked": True,
        "the_daemon_is_alive": False,
    }
    store.beat(SENSOR, utc_now() - timedelta(minutes=1))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([alert_health], instance=instance, resources=resources)
    assert {one.check_name: one.passed for one in result.get_asset_check_evaluations()}["the_daemon_is_alive"]


def test_a_message_about_an_agent_has_a_picture_of_its_series(settings: Settings):
    now = utc_now().replace(minute=0, second=0, microsecond=0)
    hours = [now - timedelta(hours=n) for n in range(72, -1, -1)]
    rows = [
        {
            "dt": hour.date(),
            "grain": "hour",
            "time": hour,
            "org": "acme",
            "project": "web",
            "agent": "bot-1",
            "metric": "cost",
            "observed": 31.0 if hour == now else 10.0,
            "expected": 10.0,
            "lower": 7.0,
            "upper": 14.0,
            "points": 100,
            "state": "ready",
        }
        for hour in hours
    ]
    lake = Lake(settings.lake)
    lake.append(BASELINES, pa.Table.from_pylist(rows, schema=BASELINES.schema))
    with resources_from(settings)["engine"].get_connection() as connection:
        chart = incident_chart(connection, lake, incident(began_at=now, last_seen_at=now))
        none = incident_chart(connection, lake, incident(agent=""))
    assert chart.series == (10.0,) * 23 + (31.0,)
    assert chart.picture.data.startswith(b"\x89PNG")
    assert none.picture is None
