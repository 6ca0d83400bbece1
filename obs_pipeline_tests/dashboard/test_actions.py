"""What may be changed through the dashboard, by whom, and what is kept of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from mcp import Client
from starlette.testclient import TestClient

from obs_pipeline.alerting import records
from obs_pipeline.dashboard.access import LOCAL, ROLES, Gate, Principal, RateLimit, create_token
from obs_pipeline.dashboard.actions import ACTIONS
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline.dashboard.http.openapi import openapi
from obs_pipeline.dashboard.mcp_server import mcp_server
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline.storage.access_log import AccessLog, access_log
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline.storage.ledger import Ledger, LedgerError
from obs_pipeline_tests.alerting.cases import incident
from obs_pipeline_tests.dashboard.served import FOUND, LATENESS, NOW, Served, serve

Post = Callable[..., object]
OURS, THEIRS = FOUND[0].id, FOUND[-1].id
INPUTS: dict[str, dict[str, object]] = {
    "acknowledge_incident": {"incidentId": "inc-acme"},
    "resolve_incident": {"incidentId": "inc-acme", "reason": "a deploy", "verdict": "real"},
    "silence": {"agentId": "agent-*", "hours": 2, "reason": "load test"},
    "end_silence": {"silenceId": "si-none"},
    "label_anomaly": {"anomalyId": OURS, "verdict": "planned", "note": "load test"},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Served:
    made = serve(tmp_path_factory.mktemp("served"))
    with AlertStore(made.ledger).deciding(NOW) as ledger:
        ledger.keep_incidents(
            records.incident_row(incident(f"inc-{org}", org=org, agent="agent-0")) for org in ("acme", "globex")
        )
    made.ledger.close()
    return made


@pytest.fixture
def served(made: Served, tmp_path: Path) -> Served:
    """The same lake, with a ledger that this test may change."""
    shutil.copy(Path(made.lake.root).parent / "ledger.db", tmp_path)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    return replace(made, ledger=ledger, gate=Gate(AccessStore(ledger)))


def service_of(served: Served, *, writes: bool = True) -> Service:
    return Service(Snapshot(served.lake), served.ledger, lateness=LATENESS, writes=(lambda: NOW) if writes else None)


def client_of(served: Served, *, writes: bool = True) -> TestClient:
    limit = RateLimit(per_minute=10**6, burst=10**6)
    app = http_app(service_of(served, writes=writes), served.gate, clock=lambda: NOW, hosts=["testserver"], limit=limit)
    return TestClient(app, raise_server_exceptions=False)


def as_(served: Served, role: str, org: str = "acme") -> dict[str, str]:
    return {"Authorization": f"Bearer {served.tokens[role, org]}"}


def log_of(served: Served) -> list[tuple[str, str, str]]:
    return [(row.actor, row.action, row.subject) for row in AccessLog(served.ledger).rows(100)]


def test_an_editor_acknowledges_and_it_is_seen_at_once_and_logged(served: Served):
    client, headers = client_of(served), as_(served, "editor")
    assert client.post("/api/list_incidents", json={}, headers=headers).json()["incidents"][0]["status"] == "open"
    done = client.post("/api/acknowledge_incident", json=INPUTS["acknowledge_incident"], headers=headers)
    assert done.status_code == 200
    assert done.json()["acknowledged_by"] == "editor of acme"
    shown = client.post("/api/list_incidents", json={}, headers=headers).json()["incidents"]
    assert [one["status"] for one in shown] == ["acknowledged"]
    (row,) = AccessLog(served.ledger).rows(10)
    assert (row.at, row.actor, row.role, row.org) == (NOW, "editor of acme", "editor", "acme")
    assert (row.action, row.subject, row.detail) == ("acknowledge_incident", "inc-acme", {"incidentId": "inc-acme"})
    assert row.token == next(one.id for one in AccessStore(served.ledger).tokens() if one.name == "editor of acme")


def test_an_incident_is_resolved_with_a_verdict_and_cannot_be_resolved_twice(served: Served):
    client, headers = client_of(served), as_(served, "editor")
    done = client.post("/api/resolve_incident", json=INPUTS["resolve_incident"], headers=headers).json()
    assert done["incident"]["status"] == "resolved"
    assert "a deploy" in done["resolution"]
    (said,) = AlertStore(served.ledger).feedback()
    assert (said.incident_id, said.verdict, said.author) == ("inc-acme", "real", "editor of acme")
    again = client.post("/api/resolve_incident", json=INPUTS["resolve_incident"], headers=headers)
    assert (again.status_code, "is over" in again.json()["error"]) == (422, True)


def test_a_silence_reaches_no_further_than_its_maker(served: Served):
    client = client_of(served)
    made = client.post("/api/silence", json=INPUTS["silence"], headers=as_(served, "editor")).json()
    assert made["matchers"] == {"agent": ["agent-*"], "org": ["acme"]}
    assert made["hides"] == 1
    (row,) = AlertStore(served.ledger).silences(NOW)
    assert row.ends_at == NOW + timedelta(hours=2)
    ending = {"silenceId": made["id"]}
    assert client.post("/api/end_silence", json=ending, headers=as_(served, "editor", "globex")).status_code == 422
    assert client.post("/api/end_silence", json=ending, headers=as_(served, "editor")).status_code == 200
    assert AlertStore(served.ledger).silences(NOW) == []
    other = {**INPUTS["silence"], "orgId": "globex"}
    assert client.post("/api/silence", json=other, headers=as_(served, "editor")).status_code == 403


@pytest.mark.parametrize(
    ("inputs", "status"),
    [
        ({"agentId": "agent-0"}, 200),
        ({"projectId": "atlas"}, 200),
        ({"projectId": "other"}, 403),
        ({"projectId": "*"}, 403),
        ({}, 422),
        ({"agentId": "agent-0", "hours": 24 * 91}, 422),
        ({"agentId": "agent-0", "reason": " "}, 422),
    ],
)
def test_one_bound_to_projects_silences_those_alone(served: Served, inputs, status):
    token, _ = create_token(
        AccessStore(served.ledger), NOW, name="p", role="editor", org="acme", projects=["atlas", "b"]
    )
    body = {"hours": 1, "reason": "quiet", **inputs}
    done = client_of(served).post("/api/silence", json=body, headers={"Authorization": f"Bearer {token}"})
    assert done.status_code == status
    if status == 200:
        assert set(done.json()["matchers"]["project"]) <= {"atlas", "b"}
        assert done.json()["matchers"]["org"] == ["acme"]


@pytest.mark.parametrize("org", ["acme*", "!acme", "a?me"])
def test_an_organisation_named_like_a_pattern_cannot_silence_others(served: Served, org: str):
    token, _ = create_token(AccessStore(served.ledger), NOW, name="p", role="editor", org=org)
    done = client_of(served).post("/api/silence", json=INPUTS["silence"], headers={"Authorization": f"Bearer {token}"})
    assert done.status_code == 422
    assert AlertStore(served.ledger).silences(NOW) == []


def test_a_label_is_kept_with_the_value_it_is_about(served: Served):
    client = client_of(served)
    done = client.post("/api/label_anomaly", json=INPUTS["label_anomaly"], headers=as_(served, "editor"))
    assert done.status_code == 200
    (kept,) = AnomalyLabels(served.ledger).standing()
    assert (kept.anomaly_id, kept.verdict, kept.agent, kept.metric) == (OURS, "planned", "agent-0", "cost")
    assert (kept.timestamp, kept.author, kept.at) == (FOUND[0].timestamp, "editor of acme", NOW)


@pytest.mark.parametrize("org", ["acme", "globex"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ACTIONS)
def test_every_role_changes_what_it_may_of_its_own_organisation(served: Served, name, role, org):
    client = client_of(served)
    done = client.post(f"/api/{name}", json=INPUTS[name], headers=as_(served, role, org))
    if role in ("viewer", "analyst"):
        assert done.status_code == 403
    elif name == "end_silence" or (org == "globex" and name != "silence"):
        assert done.status_code == 422
    else:
        assert done.status_code == 200
    changed = done.status_code == 200
    assert len(log_of(served)) == int(changed)
    assert (AlertStore(served.ledger).incident("inc-globex") or incident()).status == "open"


def test_nothing_is_changed_unless_it_was_allowed(served: Served):
    client, headers = client_of(served, writes=False), as_(served, "admin")
    for name, inputs in INPUTS.items():
        done = client.post(f"/api/{name}", json=inputs, headers=headers)
        assert (done.status_code, "--writes" in done.json()["error"]) == (403, True)
    assert log_of(served) == []
    assert not set(ACTIONS) & set(client.get("/api/whoami", headers=headers).json()["may"])
    assert not any("acknowledge" in path for path in client.get("/openapi.json", headers=headers).json()["paths"])
    assert any("acknowledge" in path for path in openapi("0", ACTIONS)["paths"])


def test_nothing_is_changed_by_following_a_link(served: Served):
    client = client_of(served)
    for name in ACTIONS:
        assert client.get(f"/api/{name}?incidentId=inc-acme", headers=as_(served, "admin")).status_code == 405
    assert log_of(served) == []


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("viewer", {"dashboard_get_metrics"}, {"dashboard_export_data", "save_view", "acknowledge_incident"}),
        ("analyst", {"dashboard_export_data", "why_notified"}, {"save_view", "acknowledge_incident"}),
        ("editor", {"save_view", *ACTIONS}, set()),
        ("admin", {"save_view", *QUESTIONS, *ACTIONS}, set()),
    ],
)
def test_a_caller_is_told_what_it_may_do(served: Served, role, may, may_not):
    told = client_of(served).get("/api/whoami", headers=as_(served, role)).json()["may"]
    assert may <= set(told)
    assert not may_not & set(told)


def test_the_log_is_read_by_admins_of_its_organisation_and_never_changed(served: Served):
    client = client_of(served)
    client.post("/api/acknowledge_incident", json=INPUTS["acknowledge_incident"], headers=as_(served, "editor"))
    assert client.get("/api/deeds", headers=as_(served, "editor")).status_code == 403
    (deed,) = client.get("/api/deeds", headers=as_(served, "admin")).json()["deeds"]
    assert (deed["actor"], deed["subject"]) == ("editor of acme", "inc-acme")
    assert client.get("/api/deeds", headers=as_(served, "admin", "globex")).json()["deeds"] == []
    for change in (sa.update(access_log).values(actor="nobody"), sa.delete(access_log)):
        with pytest.raises((LedgerError, sa.exc.IntegrityError)), served.ledger.begin() as connection:
            connection.execute(change)
    assert len(log_of(served)) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_assistant_may_change_what_its_caller_may(served: Served, anyio_backend: str):
    caller = Principal("bot", "editor", "acme")
    async with Client(mcp_server(service_of(served), lambda _context: caller)) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {*QUESTIONS, *ACTIONS}
        for name in ACTIONS:
            assert tools[name].annotations.read_only_hint is False
        done = await client.call_tool("acknowledge_incident", INPUTS["acknowledge_incident"])
        assert not done.is_error
        assert done.content[0].text == "inc-acme is acknowledged."
        refused = await client.call_tool("acknowledge_incident", {"incidentId": "inc-globex"})
        assert refused.is_error
    async with Client(mcp_server(service_of(served, writes=False), lambda _context: LOCAL)) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(QUESTIONS)
    assert log_of(served) == [("bot", "acknowledge_incident", "inc-acme")]
