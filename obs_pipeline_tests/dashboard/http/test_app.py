"""The HTTP application: who gets in, what is answered, and what becomes of faults."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from obs_pipeline.dashboard.access import ROLES, RateLimit, create_token
from obs_pipeline.dashboard.actions import ACTIONS
from obs_pipeline.dashboard.answer_cache import CacheUnusable
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline.dashboard.http.gate import OPEN
from obs_pipeline.dashboard.http.openapi import openapi
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.dashboard.served import INPUTS, LATENESS, NOW, Served, running, serve

GENEROUS = RateLimit(per_minute=1_000_000, burst=1_000_000)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


def app_of(served: Served, service: Service | None = None, limit: RateLimit = GENEROUS):
    return http_app(
        service or served.service, served.gate, clock=lambda: NOW, hosts=["testserver", "127.0.0.1"], limit=limit
    )


@pytest.fixture(scope="module")
def client(served: Served) -> TestClient:
    # Not as a context manager: leaving it would close the service that other tests of the module ask too.
    return TestClient(app_of(served), raise_server_exceptions=False)


def as_(served: Served, role: str, org: str = "acme") -> dict[str, str]:
    return {"Authorization": f"Bearer {served.tokens[role, org]}"}


@pytest.mark.parametrize("org", ["acme", "globex"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_role_gets_what_it_may_of_its_own_organisation(served: Served, client: TestClient, name, role, org):
    answered = client.post(f"/api/{name}", json=INPUTS[name], headers=as_(served, role, org))
    if ROLES.index(role) < ROLES.index(QUESTIONS[name].role):
        assert answered.status_code == 403
    elif org == "globex" and name in ("explain_anomaly", "why_notified"):
        assert answered.status_code == 422
    else:
        assert answered.status_code == 200
        other = "globex" if org == "acme" else "inc-acme"
        assert other not in answered.text
    if org == "globex" and name == "get_effective_policy" and answered.status_code == 200:
        assert answered.json()["fields"] == []


BESIDE = (
    ("GET", "/openapi.json", None, "viewer"),
    ("GET", "/readyz", None, "viewer"),
    ("GET", "/api/whoami", None, "viewer"),
    ("GET", "/api/views", None, "viewer"),
    ("PUT", "/api/views/matrix", {"a": 1}, "editor"),
    ("DELETE", "/api/views/matrix", None, "editor"),
    ("GET", "/metrics", None, "analyst"),
    ("GET", "/api/dashboard_export_data/file", None, "analyst"),
    ("POST", "/api/dashboard_export_data/file", {"timeframe": "week"}, "analyst"),
    ("GET", "/api/deeds", None, "admin"),
)
"""Method, path, body and least role of what is served beside questions and actions."""


@pytest.mark.parametrize("org", ["acme", "globex"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path", "body", "least"), BESIDE)
def test_every_role_reaches_what_it_may_beside_the_questions(client, served, method, path, body, least, role, org):
    if method == "DELETE":
        client.put(path, json={}, headers=as_(served, "editor", org))
    answered = client.request(method, path, json=body, headers=as_(served, role, org))
    assert answered.status_code == (200 if ROLES.index(role) >= ROLES.index(least) else 403)
    if method != "PUT":
        assert ("secret-agent" if org == "acme" else "agent-0,") not in answered.text


def test_no_endpoint_is_left_out_of_the_matrices(served: Served):
    known = {path for _, path, _, _ in BESIDE} | {f"/api/{name}" for name in (*QUESTIONS, *ACTIONS)} | OPEN
    paths = {route.path.replace("{name:path}", "matrix") for route in app_of(served).routes}
    assert paths - known == {"/mcp"}


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}])
def test_without_a_token_that_counts_nothing_is_open_but_the_empty_page_and_the_pulse(served: Served, header):
    app = app_of(served)
    client = TestClient(app)
    for route in app.routes:
        path = route.path.replace("{name:path}", "x")
        for method in route.methods or ("POST",):
            status = client.request(method, path, headers=header).status_code
            assert status == (200 if path in OPEN else 401), path
    for path in ("/nothing", "/mcp", "/mcp/", "/api/", "//api/whoami", "/.well-known/oauth-protected-resource"):
        assert client.post(path, headers=header).status_code == 401


def test_a_host_name_that_is_not_ours_is_refused_everywhere(served: Served, client: TestClient):
    for path in ("/", "/healthz", "/mcp", "/api/whoami"):
        headers = {**as_(served, "admin"), "Host": "evil.example"}
        assert client.get(path, headers=headers).status_code == 400


def test_a_query_asks_like_a_body(served: Served, client: TestClient):
    headers = as_(served, "viewer")
    asked = client.get("/api/dashboard_get_anomalies?timeframe=week&limit=2", headers=headers)
    assert (
        asked.json()
        == client.post("/api/dashboard_get_anomalies", json=INPUTS["dashboard_get_anomalies"], headers=headers).json()
    )
    assert client.get("/api/dashboard_get_anomalies?limit=2&limit=3", headers=headers).status_code == 422


def test_an_answer_that_a_browser_has_already_is_not_sent_again(served: Served, client: TestClient):
    path, headers = "/api/dashboard_get_metrics?timeframe=week", as_(served, "viewer")
    first = client.get(path, headers=headers)
    again = client.get(path, headers={**headers, "If-None-Match": f'"other", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    other = client.get(path, headers={**headers, "If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)
    # Another caller of the same address is answered for itself.
    theirs = client.get(path, headers={**as_(served, "viewer", "globex"), "If-None-Match": first.headers["ETag"]})
    assert (theirs.status_code, theirs.json() == first.json()) == (200, False)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b'{"timeframe": "year"}', b'{"x": 1}', b'"' + b"x" * 70_000, b"[" * 60_000]
)
def test_a_bad_body_is_refused_with_its_reason(served: Served, client: TestClient, body: bytes):
    answered = client.post("/api/dashboard_get_metrics", content=body, headers=as_(served, "viewer"))
    assert answered.status_code == 422
    assert answered.json()["error"]


@pytest.mark.parametrize("at", [-1, 2**53, 2**63, 10**30, True, 1.5, "1"])
def test_a_cursor_that_was_tampered_with_is_refused(served: Served, client: TestClient, at: object):
    headers = as_(served, "analyst")
    given = client.post("/api/dashboard_export_data", json={"limit": 1}, headers=headers).json()["next_cursor"]
    _, mark = json.loads(base64.urlsafe_b64decode(given))
    cursor = base64.urlsafe_b64encode(json.dumps([at, mark]).encode()).decode()
    answered = client.post("/api/dashboard_export_data", json={"limit": 1, "cursor": cursor}, headers=headers)
    assert (answered.status_code, "cursor" in answered.json()["error"]) == (422, True)


def test_a_token_that_asks_too_often_waits_and_the_others_do_not(served: Served):
    client = TestClient(app_of(served, limit=RateLimit(per_minute=1, burst=2)))
    asked = [client.get("/api/whoami", headers=as_(served, "viewer")) for _ in range(3)]
    assert [one.status_code for one in asked] == [200, 200, 429]
    assert int(asked[2].headers["Retry-After"]) > 0
    assert client.get("/api/whoami", headers=as_(served, "admin")).status_code == 200


def test_views_are_saved_by_editors_and_shared_within_the_organisation(served: Served, client: TestClient):
    assert client.put("/api/views/mine", json={"agent": "a"}, headers=as_(served, "analyst")).status_code == 403
    assert client.put("/api/views/mine", json={"agent": "a"}, headers=as_(served, "editor")).status_code == 200

    def views(org: str) -> dict[str, object]:
        found = client.get("/api/views", headers=as_(served, "viewer", org)).json()["views"]
        return {view["name"]: view["content"] for view in found}

    assert views("acme")["mine"] == {"agent": "a"}
    assert "mine" not in views("globex")


ODD_NAMES = ["Q1/costs", "50 % “off”", "mañana 🚀", "a?b#c", "x" * 200]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_view_of_any_name_is_deleted_by_editors_of_its_organisation_and_logged(served, client, name: str):
    path, editor = f"/api/views/{quote(name, safe='')}", as_(served, "editor")
    assert client.put(path, json={"agent": "a"}, headers=editor).json() == {"saved": name}
    assert client.delete(path, headers=as_(served, "analyst")).status_code == 403
    assert client.delete(path, headers=as_(served, "editor", "globex")).status_code == 404
    assert client.delete(path, headers=editor).json() == {"deleted": name}
    assert name not in [one["name"] for one in client.get("/api/views", headers=editor).json()["views"]]
    assert client.delete(path, headers=editor).status_code == 404
    newest = client.get("/api/deeds", headers=as_(served, "admin")).json()["deeds"][0]
    assert (newest["action"], newest["subject"], newest["actor"]) == ("delete_view", name, "editor of acme")
    assert newest["detail"] == {"owner": "editor of acme", "content": {"agent": "a"}}


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_view_needs_a_name_of_a_bounded_length(served: Served, client: TestClient, name: str):
    refused = client.put(f"/api/views/{name}", json={}, headers=as_(served, "editor"))
    assert refused.status_code == 422
    assert "name" in refused.json()["error"]


def test_metrics_tell_how_this_process_answers(served: Served, client: TestClient):
    client.get("/api/list_entities", headers=as_(served, "viewer"))
    text = client.get("/metrics", headers=as_(served, "analyst")).text
    assert 'obs_request_seconds_bucket{le="0.05",route="list_entities"}' in text
    for name in ("obs_cache_lookups_total", "obs_lake_refresh_seconds_count", "obs_cache_up 1.0", "obs_lake_up 1.0"):
        assert name in text
    assert client.get("/metrics", headers=as_(served, "viewer")).status_code == 403


def test_what_the_ledger_says_of_all_is_told_to_who_sees_all(served: Served, client: TestClient):
    token, _ = create_token(AccessStore(served.ledger), NOW, name="prometheus", role="analyst")
    text = client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).text
    for name in (
        "obs_ledger_up 1.0",
        "obs_messages_waiting 0.0",
        'obs_incidents{status="open"} 2.0',
        "obs_batch_pending_days",
    ):
        assert name in text
    assert "obs_incidents" not in client.get("/metrics", headers=as_(served, "admin")).text


def test_the_page_says_how_to_build_it_or_is_the_built_one(served: Served, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("obs_pipeline.dashboard.http.app.WIDGET", tmp_path / "index.html")
    # Not entered: leaving it would close the service that others ask too.
    client = TestClient(http_app(served.service, served.gate, clock=lambda: NOW), base_url="http://localhost")
    assert "make widget" in client.get("/").text
    (tmp_path / "index.html").write_text("<script>1</script><p>built</p>")
    for coding in ("gzip", "identity"):
        answered = client.get("/", headers={"Accept-Encoding": coding})
        assert answered.text == "<script>1</script><p>built</p>"
        assert "connect-src 'self'" in answered.headers["Content-Security-Policy"]
        assert "unsafe" not in answered.headers["Content-Security-Policy"]
    again = client.get("/", headers={"If-None-Match": answered.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_caller_is_told_what_it_may_ask_and_do(served: Served, client: TestClient):
    may = {
        role: set(client.get("/api/whoami", headers=as_(served, role)).json()["may"]) for role in ("viewer", "editor")
    }
    assert "dashboard_export_data" not in may["viewer"]
    assert may["editor"] - may["viewer"] >= {"dashboard_export_data", "save_view"}


def test_a_missing_lake_is_unavailable_with_the_reason_until_it_is_there(served: Served, tmp_path: Path):
    service = Service(Snapshot(Lake(str(tmp_path / "lake"))), served.ledger, lateness=LATENESS)
    client = TestClient(app_of(served, service))
    headers = as_(served, "viewer")
    for path in ("/readyz", "/api/dashboard_get_metrics"):
        answered = client.get(path, headers=headers)
        assert (answered.status_code, "batch" in answered.json()["error"]) == (503, True)
    assert client.get("/healthz").status_code == 200
    shutil.copytree(served.lake.root, tmp_path / "lake")
    assert client.get("/readyz", headers=headers).status_code == 200
    served.service.count = lambda _hit: None


def test_a_locked_ledger_does_not_keep_readers_waiting(served: Served, client: TestClient):
    with served.ledger.begin():
        assert client.get("/readyz", headers=as_(served, "viewer")).status_code == 200


def test_a_ledger_that_cannot_be_read_is_unavailable_with_the_reason(served: Served, tmp_path: Path):
    (tmp_path / "ledger.db").write_bytes(b"this is no database, whatever its name says" * 100)
    service = Service(Snapshot(served.lake), Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), lateness=LATENESS)
    answered = TestClient(app_of(served, service)).get("/readyz", headers=as_(served, "viewer"))
    assert answered.status_code == 503
    assert "ledger" in answered.json()["error"]


def test_a_cache_that_cannot_be_used_is_said_at_the_start(served: Served):
    with pytest.raises(CacheUnusable, match="nonsense"):
        Service(Snapshot(served.lake), served.ledger, lateness=LATENESS, cache_url="nonsense://127.0.0.1")


def test_answers_to_anything_are_as_described_and_never_a_fault(tmp_path: Path):
    served = serve(tmp_path)
    service = Service(Snapshot(served.lake), served.ledger, lateness=LATENESS, writes=lambda: NOW)
    app = app_of(served, service)
    headers = as_(served, "admin")
    schema = schemathesis.openapi.from_dict(openapi("0", ACTIONS))
    with running(app) as base:
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=8,
                deadline=None,
                phases=[Phase.generate],
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.as_strategy())
            def holds(case) -> None:
                # An id or cursor that nobody gave out is valid by its shape, and rightly refused.
                case.call_and_validate(base_url=base, headers=headers, excluded_checks=[positive_data_acceptance])

            holds()
