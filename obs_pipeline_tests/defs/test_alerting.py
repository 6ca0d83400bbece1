"""The sensor sees what is due, the job sends it, the asset says how well that goes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from obs_pipeline.alerting.health import SENSOR
from obs_pipeline.alerting.models import Receiver, Trace
from obs_pipeline.alerting.passes import Findings, run_pass
from obs_pipeline.alerting.records import incident_row, outbox_row, trace_row
from obs_pipeline.alerting.routes import load_routes
from obs_pipeline.alerting.signals import failed_run
from obs_pipeline.clock import utc_now
from obs_pipeline.defs.alerting import (
    alert_health,
    deliver_alerts,
    due_alerts_sensor,
)
from obs_pipeline.defs.incident_chart import incident_chart
from obs_pipeline.defs.instance import open_instance
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.detection.tables import BASELINES
from obs_pipeline.settings import Settings, project_root
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import DeliveryRow
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.loopback import Answer, Request, http_server
from obs_pipeline_tests.alerting.notifications import incident, notification

DAY = timedelta(days=1)


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


def send(settings: Settings, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    resources = resources_from(settings)
    needed = ("ledger", "limits", "lake", "engine")
    return deliver_alerts.execute_in_process(
        resources={name: resources[name] for name in needed}, instance=instance, raise_on_error=False
    )


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
    assert send(settings).success
    [row] = store.messages([key])
    assert (row.state, row.attempts) == ("due", 1)
    assert "the variable OBS_TEST_HOOK is not set" in row.detail


def test_a_secret_is_in_no_log_no_reason_no_metadata_and_no_file(
    settings: Settings,
    store: AlertStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    secrets = {
        "OBS_TEST_HOOK": "very-secret-path",
        "OBS_TEST_TOKEN": "xoxb-very-secret-token",
        "OBS_TEST_GITHUB": "ghp_very_secret_key",
        "OBS_TEST_PAGER": "very-secret-pager",
        "OBS_TEST_SMTP": "very-secret-password",
    }

    def echo(request: Request) -> Answer:
        # The worst that another side can do: it says what it was sent.
        said = f"{request.path} {request.headers} {request.body!r}"
        return Answer(403, {"ok": False, "error": said, "message": said})

    with http_server(echo) as server:
        address = server.url.removeprefix("http://")
        values = {
            "OBS_TEST_HOOK": f"{server.url}/services/{secrets['OBS_TEST_HOOK']}",
            "OBS_TEST_TOKEN": secrets["OBS_TEST_TOKEN"],
            "OBS_TEST_GITHUB": secrets["OBS_TEST_GITHUB"],
            "OBS_TEST_PAGER": f"json://user:{secrets['OBS_TEST_PAGER']}@{address}/",
            "OBS_TEST_SMTP": f"smtp://obs:{secrets['OBS_TEST_SMTP']}@{address}",
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        github = {"tracker": "github", "repository": "acme/ops", "token": "OBS_TEST_GITHUB", "base_url": server.url}
        bot = {"token": "OBS_TEST_TOKEN", "channel": "#ops", "base_url": f"{server.url}/"}
        mail = {"to": "ops@example.org", "from": "obs@example.org", "server": "OBS_TEST_SMTP"}
        keys = [
            put(store, Receiver("hook", "slack", {"webhook": "OBS_TEST_HOOK"})),
            put(store, Receiver("bot", "slack", bot)),
            put(store, Receiver("tasks", "task", github)),
            put(store, Receiver("pager", "apprise", {"url": "OBS_TEST_PAGER"})),
            put(store, Receiver("mail", "email", mail)),
        ]
        with open_instance(settings) as instance:
            assert send(settings, instance).success
    rows = {row.receiver: row for row in store.messages(keys)}
    assert all(row.state in ("due", "parked") and row.detail for row in rows.values())
    assert {request.path.split("/")[1] for request in server.requests} >= {"services", "chat.postMessage", "repos", ""}
    said = caplog.text + "".join(capfd.readouterr())
    written = [path for path in settings.home.rglob("*") if path.is_file()]
    for secret in secrets.values():
        assert secret not in said
        assert all(secret not in row.detail for row in rows.values())
        assert [path for path in written if secret.encode() in path.read_bytes()] == []


def test_the_job_forgets_what_is_old_but_nothing_that_is_open_waits_or_is_parked(settings: Settings, store: AlertStore):
    now, widget = utc_now(), Receiver("board", "widget")
    old, recent = now - timedelta(days=91), now - timedelta(days=89)
    shipped = load_routes(settings.policies / "routes.yaml")
    run_pass(store, shipped, old, Findings([failed_run("x", "r", old - DAY, "")]))
    run_pass(store, shipped, old + timedelta(minutes=5))
    kept = {"open": next(row.key for row in store.outbox() if row.channel == "widget")}
    for row in store.outbox():
        store.record_sent(DeliveryRow(row.key, row.channel, "w", 1, "sent", old, 1, ""), None)
    with store.deciding(now) as deciding:
        cases = [
            ("old", "resolved", "sent", old),
            ("recent", "resolved", "sent", recent),
        ]
        cases += [("parked", "resolved", "parked", old), ("waiting", "resolved", "due", old)]
        for number, (name, status, state, at) in enumerate(cases):
            about = incident(number, opened_at=at, updated_at=at, last_seen_at=at, status=status)
            row = replace(
                outbox_row(notification(about, receiver=widget, at=at)), state=state, next_attempt_at=now + DAY
            )
            kept[name] = row.key
            deciding.keep_incidents([incident_row(about)])
            deciding.enqueue([row])
            deciding.add_traces([trace_row(Trace(about.id, "root", "sent", "send", "new", at, keys=(row.key,)))])
    store.record_sent(DeliveryRow(kept["old"], "widget", "w", 1, "sent", old, 1, ""), None)
    assert send(settings).success
    left = {name for name, key in kept.items() if store.messages([key])}
    assert left == {"recent", "open", "parked", "waiting"}
    traced = {number for number in range(4) if store.traces(f"incident-{number}")}
    assert traced == {1}
    [opened] = store.incidents(("open",))
    assert any(row.at < recent for row in store.traces(opened.id))
    assert kept["old"] not in {delivery.key for delivery in store.deliveries(old - DAY)}


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
