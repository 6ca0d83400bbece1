"""The MCP server, asked by the SDK's own client over both transports."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openapi_schema_validator
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from obs_pipeline.dashboard.access import LOCAL, Principal, RateLimit
from obs_pipeline.dashboard.catalogue import QUESTIONS, Question, checked_inputs
from obs_pipeline.dashboard.http.app import http_app
from obs_pipeline.dashboard.mcp_server import LARGEST_ANSWER, mcp_server, tokens_in
from obs_pipeline_tests.command_line import PROGRAM, CommandLine
from obs_pipeline_tests.dashboard.served import FOUND, INPUTS, NOW, Served, running, serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def served(home: Path) -> Served:
    return serve(home)


@pytest.fixture(scope="module")
def address(served: Served) -> Iterator[str]:
    limit = RateLimit(per_minute=1_000_000, burst=1_000_000)
    app = http_app(served.service, served.gate, clock=lambda: NOW, limit=limit)
    with running(app) as base:
        yield f"{base}/mcp"


@asynccontextmanager
async def over_http(address: str, token: str, mode: str = "auto") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(address, http_client=http), mode=mode) as client,  # type: ignore[arg-type]
    ):
        yield client


async def assert_every_tool_answers(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == set(QUESTIONS)
    for name, tool in tools.items():
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        called = await client.call_tool(name, INPUTS[name])
        assert not called.is_error, called.content
        openapi_schema_validator.OAS31Validator(tool.output_schema).validate(called.structured_content)
        (text,) = called.content
        assert 0 < len(text.text) <= 600
        assert tokens_in(json.dumps(called.structured_content)) < LARGEST_ANSWER


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_every_tool_answers_over_http(served: Served, address: str, mode: str):
    async with over_http(address, served.tokens["admin", "acme"], mode) as client:
        await assert_every_tool_answers(client)


async def test_every_tool_answers_over_standard_input_and_output(served: Served, home: Path):
    obs = CommandLine(home)
    async with Client(StdioServerParameters(command=str(PROGRAM), args=["mcp"], env=obs.environment)) as client:
        await assert_every_tool_answers(client)


async def test_over_http_a_caller_sees_its_own_organisation(served: Served, address: str):
    for org, other in (("acme", "globex"), ("globex", "acme")):
        async with over_http(address, served.tokens["viewer", org]) as client:
            found = await client.call_tool("list_entities", {"level": "agent"})
            text = json.dumps(found.structured_content)
            assert ("secret-agent" in text) == (org == "globex")
            assert other not in text
            denied = await client.call_tool("dashboard_export_data", {})
            assert denied.is_error
            assert "role analyst" in denied.content[0].text


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("dashboard_get_metrics", {"timeframe": "year"}, "timeframe"),
        ("dashboard_get_metrics", {"agentid": "agent-0"}, "agentid"),
        ("dashboard_get_anomalies", {"limit": 0}, "limit"),
        ("dashboard_get_anomalies", {"cursor": "junk"}, "cursor"),
        ("explain_anomaly", {"anomalyId": FOUND[-1].id}, "no anomaly"),
        ("dashboard_get_trends", {"metric": "latency"}, "agentId"),
    ],
)
async def test_a_bad_input_is_answered_with_what_is_wrong(served: Served, name, values, says):
    async with Client(mcp_server(served.service, lambda _context: Principal("a", "admin", "acme"))) as client:
        called = await client.call_tool(name, values)
        assert called.is_error
        assert says in called.content[0].text


async def test_pages_are_followed_by_their_cursors_to_the_end(served: Served):
    async with Client(mcp_server(served.service, lambda _context: LOCAL)) as client:
        seen, cursor = [], None
        while True:
            page = (
                await client.call_tool("dashboard_get_anomalies", {"limit": 1, "cursor": cursor})
            ).structured_content
            seen += [one["id"] for one in page["anomalies"]]
            cursor = page["next_cursor"]
            if not page["has_more"]:
                break
        assert sorted(seen) == sorted(one.id for one in FOUND)


@pytest.mark.parametrize("name", ["list_entities", "dashboard_export_data", "dashboard_get_anomalies"])
async def test_a_page_too_long_for_a_model_is_made_shorter_and_leads_to_the_rest(served, monkeypatch, name: str):
    question = QUESTIONS[name]
    values = {"timeframe": "month", "limit": 50}
    whole = json.loads(service_answer(served, question, values))
    most = tokens_in(json.dumps(whole)) * 2 // 3
    monkeypatch.setattr("obs_pipeline.dashboard.mcp_server.LARGEST_ANSWER", most)
    async with Client(mcp_server(served.service, lambda _context: LOCAL)) as client:
        pages, cursor = [], None
        while not pages or pages[-1]["has_more"]:
            called = await client.call_tool(name, {**values, "cursor": cursor})
            assert not called.is_error, called.content
            pages.append(called.structured_content)
            assert tokens_in(json.dumps(pages[-1], separators=(",", ":"))) <= most
            assert pages[-1]["total"] == whole["total"]
            cursor = pages[-1]["next_cursor"]
    assert len(pages) > 1
    assert sum(map(rows_in, pages)) == rows_in(whole) == whole["total"]


def service_answer(served: Served, question: Question, values: dict[str, object]) -> str:
    return served.service.answer(question, checked_inputs(question, values), LOCAL).model_dump_json()


def rows_in(page: dict[str, Any]) -> int:
    if "content" in page:
        return len(page["content"].splitlines()) - 1
    return len(page.get("entities", page.get("anomalies")))


@given(st.text(max_size=20_000))
def test_no_text_has_more_tokens_than_are_counted_for_its_words(text: str):
    assert len(text.split()) <= tokens_in(text) <= len(text.encode("utf-8", "surrogatepass"))


def test_numbers_ids_and_other_scripts_are_counted_as_tokenizers_split_them():
    for unit, least in (
        ('{"time":"2026-06-01T00:00:00Z","value":0.123}', 20),
        ("an-0f3c9b2e", 6),
        ("日本語", 3),
        ("🚀", 2),
    ):
        assert tokens_in(unit * 5_000) >= least * 5_000


async def test_an_answer_too_long_for_a_model_says_to_ask_for_less(served: Served, monkeypatch):
    monkeypatch.setattr("obs_pipeline.dashboard.mcp_server.LARGEST_ANSWER", 100)
    async with Client(mcp_server(served.service, lambda _context: LOCAL)) as client:
        called = await client.call_tool("dashboard_get_metrics", {})
        assert called.is_error
        assert "less" in called.content[0].text


def test_the_commands_start_without_the_sdk():
    import subprocess

    code = "import sys, obs_pipeline.cli.main; sys.exit(any(name in sys.modules for name in ('mcp', 'starlette', 'uvicorn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_the_widget_is_served_and_linked_for_clients_that_show_it(served: Served, tmp_path: Path, monkeypatch):
    from obs_pipeline.dashboard import mcp_server as module

    page = tmp_path / "index.html"
    page.write_text("<p>tokens ✓</p>", encoding="utf-8")
    monkeypatch.setattr(module, "WIDGET", page)
    async with Client(mcp_server(served.service, lambda _context: LOCAL)) as client:
        (resource,) = (await client.list_resources()).resources
        assert (str(resource.uri), resource.mime_type) == (module.APP_URI, "text/html;profile=mcp-app")
        read = await client.read_resource(resource.uri)
        (content,) = read.contents
        assert (content.mime_type, content.text) == ("text/html;profile=mcp-app", "<p>tokens ✓</p>")
        assert (read.ttl_ms, read.cache_scope) == (30_000, "public")
        linked = {tool.name: (tool.meta or {}).get("ui") for tool in (await client.list_tools()).tools}
        assert linked["dashboard_get_metrics"] == {"resourceUri": module.APP_URI}
        assert linked["dashboard_export_data"] is None
        called = await client.call_tool("dashboard_get_metrics", INPUTS["dashboard_get_metrics"])
        assert "tokens" in called.content[0].text
        assert set(QUESTIONS) <= set(called.meta[module.MAY])


async def test_a_widget_that_was_not_built_is_not_spoken_of(served: Served, tmp_path: Path, monkeypatch):
    from obs_pipeline.dashboard import mcp_server as module

    monkeypatch.setattr(module, "WIDGET", tmp_path / "missing.html")
    async with Client(mcp_server(served.service, lambda _context: LOCAL)) as client:
        assert (await client.list_resources()).resources == []
        assert all((tool.meta or {}).get("ui") is None for tool in (await client.list_tools()).tools)
