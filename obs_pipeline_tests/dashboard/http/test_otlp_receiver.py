"""The receiver over HTTP: what exporters send is taken, answered as the protocol asks, and survives the death of the server."""

from __future__ import annotations

import gzip
import json
import secrets
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.testclient import TestClient

from obs_pipeline.dashboard.access import Gate, RateLimit, create_token
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline.dashboard.http.otlp_receiver import receiving_routes
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.receiving.receiver import Receiver
from obs_pipeline.usage.receiving.spool import SpoolLimits
from obs_pipeline.usage.settling import settle
from obs_pipeline.usage.tables import USAGE_EVENTS
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.usage.receiving.requests import api_request, as_json, as_protobuf, of_logs, of_spans, span

NOW = datetime(2026, 11, 24, 12)
PROTOBUF, JSON = "application/x-protobuf", "application/json"


@dataclass
class Served:
    client: TestClient
    tokens: dict[str, str]
    receiver: Receiver
    landing: Path

    def send(
        self, body: bytes, kind: str = PROTOBUF, role: str = "collector", path: str = "traces", **headers: str
    ) -> Any:
        shown = {"Authorization": f"Bearer {self.tokens[role]}", "Content-Type": kind} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.client.post(f"/v1/{path}", content=body, headers=shown)

    def landed(self) -> str:
        self.receiver._spool.roll(everything=True)
        return "".join(path.read_text() for path in sorted(self.landing.rglob("*.jsonl")))


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    store = AccessStore(ledger)
    roles = ("viewer", "analyst", "editor", "admin", "collector")
    tokens = {role: create_token(store, NOW, name=role, role=role)[0] for role in roles}
    tokens["acme"] = create_token(store, NOW, name="acme", role="collector", org="acme")[0]
    limits = getattr(request, "param", SpoolLimits())
    service = Service(
        Snapshot(Lake(str(tmp_path / "lake")), scratch=tmp_path / "scratch"), ledger, lateness=timedelta(1)
    )
    with Receiver(tmp_path / "spool", tmp_path / "landing", tmp_path / "mappings", lambda: NOW, limits) as receiver:
        routes = receiving_routes(receiver, longest_body=10_000)
        limit = RateLimit(per_minute=600, burst=30)
        app = http_app(service, Gate(store), clock=lambda: NOW, hosts=["testserver"], limit=limit, more_routes=routes)
        yield Served(TestClient(app), tokens, receiver, tmp_path / "landing")
    ledger.close()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("encode", "kind"), [(as_protobuf, PROTOBUF), (as_json, JSON + "; charset=utf-8")])
def test_spans_are_taken_in_either_encoding_packed_or_not(served: Served, encode: Any, kind: str, packed: bool):
    body = encode(of_spans(span(1), **{"organization.id": "acme"}))
    answered = served.send(
        gzip.compress(body) if packed else body, kind, **({"Content_Encoding": "gzip"} if packed else {})
    )
    assert answered.status_code == 200
    assert answered.headers["content-type"].partition(";")[0] == kind.partition(";")[0]
    assert answered.content in (b"", b"{}")
    assert f"{1:016x}" in served.landed()


@pytest.mark.parametrize(("encode", "kind"), [(as_protobuf, PROTOBUF), (as_json, JSON)])
def test_logs_of_claude_code_are_taken(served: Served, encode: Any, kind: str):
    assert served.send(encode(of_logs(api_request(1))), kind, path="logs").status_code == 200
    assert (served.landing / "claude_code_otel").exists() or "api_request" in served.landed()
    assert "api_request" in served.landed()


def test_what_is_refused_is_named_in_the_answer(served: Served):
    spans = of_spans(span(1), {**span(2), "traceId": "00" * 16})
    told = served.send(as_json(spans), JSON).json()["partialSuccess"]
    assert told == {"rejectedSpans": "1", "errorMessage": "a span without a trace id of 16 bytes"}
    partial = ExportTraceServiceResponse.FromString(served.send(as_protobuf(spans)).content).partial_success
    assert (partial.rejected_spans, partial.error_message) == (1, told["errorMessage"])


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("analyst", 403), ("editor", 200), ("admin", 200)])
def test_sending_needs_a_role_that_may_write(served: Served, role: str, status: int):
    assert served.send(b"", role=role).status_code == status


def test_without_a_token_nothing_is_taken(served: Served):
    assert served.client.post("/v1/traces", content=b"").status_code == 401


@pytest.mark.parametrize("path", ["/api/list_entities", "/api/views", "/metrics"])
def test_a_collector_reads_nothing(served: Served, path: str):
    answered = served.client.get(path, headers={"Authorization": f"Bearer {served.tokens['collector']}"})
    assert answered.status_code == 403


def test_a_collector_of_an_organisation_sends_for_it(served: Served):
    assert (
        served.send(as_json(of_spans(span(1), **{"organization.id": "globex"})), JSON, role="acme").status_code == 200
    )
    assert "acme" in served.landed()
    assert "globex" not in served.landed()


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "status"),
    [
        (b"\xff\xff", PROTOBUF, "", 400),
        (b"[1]", JSON, "", 400),
        (b"not gzip", JSON, "gzip", 400),
        (gzip.compress(b"{}" * 100, mtime=0)[:-9], JSON, "gzip", 400),
        (b" " * 10_001, JSON, "", 413),
        (gzip.compress(b" " * 10_001, mtime=0), JSON, "gzip", 413),
        (b"{}", "text/plain", "", 415),
        (b"{}", JSON, "br", 415),
    ],
)
def test_what_is_not_taken_is_answered_so_that_it_is_not_sent_again(
    served: Served, body: bytes, kind: str, encoding: str, status: int
):
    answered = served.send(body, kind, **({"Content_Encoding": encoding} if encoding else {}))
    assert answered.status_code == status
    assert "retry-after" not in answered.headers
    if kind == PROTOBUF:
        assert answered.content[:2] == b"\x08\x03"
    else:
        assert answered.json()["message"]


@pytest.mark.parametrize("served", [SpoolLimits(most_waiting=-1)], indirect=True)
@pytest.mark.parametrize(
    ("body", "kind"), [(as_protobuf(of_spans(span(1))), PROTOBUF), (as_json(of_spans(span(1))), JSON)]
)
def test_when_nothing_can_be_stored_the_sender_is_told_when_to_try_again(served: Served, body: bytes, kind: str):
    answered = served.send(body, kind)
    assert answered.status_code == 503
    assert int(answered.headers["retry-after"]) > 0


def test_too_many_requests_are_told_when_to_try_again(served: Served):
    answers = [served.send(b"") for _ in range(31)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0


def post(address: str, token: str, body: bytes) -> int:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": PROTOBUF}
    request = urllib.request.Request(f"{address}/v1/traces", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answered:
            return int(answered.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def started(obs: CommandLine, port: int) -> subprocess.Popen[bytes]:
    server = obs.start("serve", "--port", port, "--per-minute", 1_000_000)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.05)
    server.kill()
    raise AssertionError("the server did not start")


def test_what_was_acknowledged_before_the_server_was_killed_is_counted_once(tmp_path: Path):
    obs = CommandLine(tmp_path / "home")
    token = json.loads(obs("tokens", "create", "fleet", "--role", "collector", "--org", "acme", "--json").stdout)[
        "token"
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, since = f"http://127.0.0.1:{port}", 1_770_000_000_000_000_000
    bodies = [as_protobuf(of_spans(span(1, trace=secrets.token_hex(16), start=since + n * 10**9))) for n in range(120)]
    left = list(bodies)
    lock, enough = threading.Lock(), threading.Event()
    acknowledged: list[bytes] = []

    def send_all(_: int) -> None:
        """As an exporter does: what was not acknowledged is sent again."""
        while True:
            with lock:
                if not left:
                    return
                body = left.pop()
            if post(address, token, body) == 200:
                with lock:
                    acknowledged.append(body)
                    if len(acknowledged) > 40:
                        enough.set()
            else:
                with lock:
                    left.append(body)
                time.sleep(0.1)

    server = started(obs, port)
    with ThreadPoolExecutor(4) as senders:
        sending = [senders.submit(send_all, n) for n in range(4)]
        enough.wait(60)
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = started(obs, port)
        for one in sending:
            one.result()
    for body in bodies[:20]:
        assert post(address, token, body) == 200
    server.terminate()
    server.wait(30)
    assert not list((tmp_path / "home" / "spool").glob("*/*.jsonl"))
    obs("ingest", tmp_path / "home" / "landing" / "otlp", "--mapping", "otlp")
    day = date(2026, 2, 2)
    with duckdb.connect() as connection:
        settle(connection, obs.lake, DayRange(day, day), PriceBook.load(None), 0.05)
        obs.lake.view(connection, USAGE_EVENTS)
        found = connection.execute("SELECT count(*), count(DISTINCT event_id), min(org) FROM usage_events").fetchall()
    assert found == [(120, 120, "acme")]
