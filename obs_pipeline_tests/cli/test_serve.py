"""``serve`` and ``tokens`` as a person runs them."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline_tests.command_line import PROGRAM, CommandLine


def status(address: str, token: str | None = None) -> int:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answered:
            return int(answered.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def wait_for(address: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            status(address)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"nothing answers at {address}")


def test_a_token_is_made_listed_and_revoked(obs: CommandLine):
    made = json.loads(obs("tokens", "create", "ci", "--role", "analyst", "--org", "acme", "--json").stdout)
    assert made["token"].startswith("obs_")
    (listed,) = json.loads(obs("tokens", "list", "--json").stdout)
    assert (listed["id"], listed["role"], listed["org"], listed["usable"]) == (made["id"], "analyst", "acme", True)
    assert made["token"] not in obs("tokens", "list").stdout
    obs("tokens", "revoke", made["id"])
    assert not json.loads(obs("tokens", "list", "--json").stdout)[0]["usable"]
    obs("tokens", "revoke", made["id"], exits_with=2)


def test_a_role_that_is_none_is_refused(obs: CommandLine):
    assert "viewer" in obs("tokens", "create", "x", "--role", "owner", exits_with=2).stderr


def test_nothing_is_served_to_another_address_without_a_token(obs: CommandLine):
    refused = obs("serve", "--host", "0.0.0.0", "--port", "0", exits_with=2)
    assert "tokens create" in refused.stderr
    assert AccessStore(obs.ledger).tokens() == []


def test_the_first_start_shows_a_token_once_and_a_restart_knows_it(obs: CommandLine):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address, shown = f"http://127.0.0.1:{port}", []
    for _start in range(2):
        server = subprocess.Popen(
            [PROGRAM, "serve", "--port", port],
            env=obs.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(f"{address}/healthz")
            token = shown[0][-1] if shown else _token(server)
            assert status(f"{address}/") == 200
            assert status(f"{address}/api/whoami") == 401
            assert status(f"{address}/api/whoami", token) == 200
            assert status(f"{address}/api/dashboard_get_metrics", token) == 503
        finally:
            server.terminate()
            rest, _ = server.communicate(timeout=30)
        shown.append([line for line in rest.splitlines() if line.startswith("obs_")] or [token])
        if _start:
            assert "obs_" not in rest


def _token(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("obs_"):
            return line.strip()
    raise AssertionError("no token was shown")
