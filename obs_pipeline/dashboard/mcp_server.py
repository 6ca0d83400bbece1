"""The questions as MCP tools, over stdio and streamable HTTP, on the official SDK.

Here: turning the list of questions into typed tools, and errors into what a model can act on. Who asks over HTTP was found
before a request comes here and travels with it; over stdio it is whoever runs the command.

A client that shows MCP Apps is told of the widget beside the dashboard's questions; for the others the text is enough. The page
holds no data of its own, so it may be kept for everyone.

The structured part is the whole answer; the text beside it is one sentence, so that the numbers do not reach a model twice.
This module imports the SDK, which takes about a second: import it where a server starts.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from mcp.server.apps import APP_MIME_TYPE, Apps
from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resources import FileResource
from mcp.server.mcpserver.tools.base import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field
from pydantic.fields import FieldInfo

from obs_pipeline.dashboard.access import Principal
from obs_pipeline.dashboard.actions import Action
from obs_pipeline.dashboard.catalogue import QUESTIONS, Question
from obs_pipeline.dashboard.page import WIDGET
from obs_pipeline.dashboard.service import Kept, Service
from obs_pipeline.errors import ObsError

LARGEST_ANSWER: Final = 20_000
"""Tokens of an answer's JSON, as :func:`tokens_in` counts them. Pages are made shorter to keep to it."""

# What tokenizers keep together at least: letters of a word, three digits, two signs. Other scripts count by their bytes.
_TOKEN: Final = re.compile(rb"[A-Za-z]{1,6}|[0-9]{1,3}|[^A-Za-z0-9\s]{1,2}")

APP_URI: Final = "ui://cost-dashboard/app.html"
"""The widget, for clients that show MCP Apps."""

MAY: Final = "obs-pipeline/may"
"""Beside every answer, for the widget and not for the model: what its caller may ask and do."""

_SHOWN: Final = frozenset(
    {
        "dashboard_get_metrics",
        "dashboard_get_trends",
        "dashboard_get_anomalies",
        "list_entities",
        "get_budget_status",
        "list_incidents",
        "explain_anomaly",
    }
)
"""The questions whose answer the widget shows; the others are asked for a sentence or a file."""

_READS: Final = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_CHANGES: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
_INSTRUCTIONS: Final = (
    "Cost, tokens, errors and latency of AI agents. Days are UTC; a timeframe ends with the last computed day. Money is USD. "
    "Say what the coverage says: unpriced calls are not in the cost, provisional days may still change."
)


def mcp_server(
    service: Service, principal_of: Callable[[Context[Any, Any]], Principal], version: str = ""
) -> MCPServer[Any]:
    """A server of every question. ``principal_of`` tells who is behind a call."""
    every: list[Question | Action] = [*QUESTIONS.values(), *service.actions.values()]
    shown = WIDGET.exists()
    tools = [_tool(service, question, principal_of, shown=shown) for question in every]
    return MCPServer(
        "obs-pipeline",
        version=version,
        instructions=_INSTRUCTIONS,
        tools=tools,
        extensions=[_app(WIDGET)] if shown else [],
        cache_hints={"resources/read": CacheHint(ttl_ms=30_000, scope="public")},
        log_level="WARNING",
    )


def _app(page: Path) -> Apps:
    apps = Apps()
    apps.add_resource(
        FileResource(
            uri=APP_URI,
            name="cost-dashboard",
            title="Cost dashboard",
            description="Spending, tokens, budgets, anomalies and incidents, to be looked through.",
            mime_type=APP_MIME_TYPE,
            # It draws its own cards, and needs no more than the strictest policy of a frame.
            meta={"ui": {"prefersBorder": False}},
            path=page,
            encoding="utf-8",
        )
    )
    return apps


def _tool(
    service: Service,
    question: Question | Action,
    principal_of: Callable[[Context[Any, Any]], Principal],
    *,
    shown: bool,
) -> Tool:
    tool = Tool.from_function(
        _asking(service, question, principal_of),
        name=question.name,
        title=question.title,
        description=question.description,
        annotations=_CHANGES if isinstance(question, Action) else _READS,
        meta={"ui": {"resourceUri": APP_URI}} if shown and question.name in _SHOWN else None,
    )
    # A misspelt filter that is left aside would answer for the whole fleet as if it were one agent.
    inputs = tool.fn_metadata.arg_model
    inputs.model_config["extra"] = "forbid"
    inputs.model_rebuild(force=True)
    tool.parameters["additionalProperties"] = False
    return tool


def _asking(
    service: Service, question: Question | Action, principal_of: Callable[[Context[Any, Any]], Principal]
) -> Callable[..., Any]:
    async def ask(ctx: Context[Any, Any], **values: Any) -> CallToolResult:
        try:
            caller = principal_of(ctx)
            if isinstance(question, Action):
                done = await service.act(question, values, caller)
                told, text = question.told(done), done.model_dump_json()
            else:
                _mark, told, text = await _fitting(service, question, values, caller)
        except ObsError as error:
            raise ToolError(str(error)) from None
        return CallToolResult(
            content=[TextContent(type="text", text=told)],
            structured_content=json.loads(text),
            _meta={MAY: service.may(caller)},
        )

    # The SDK reads a tool's inputs and answer from its signature.
    inputs = [
        inspect.Parameter(
            field.alias or name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.get_default(),
            annotation=Annotated[field.annotation, *_limits(field)],
        )
        for name, field in question.asked.model_fields.items()
    ]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Context)
    answers = Annotated[CallToolResult, question.answer]
    signature = inspect.Signature([context, *inputs], return_annotation=answers)
    ask.__signature__ = signature  # type: ignore[attr-defined]
    ask.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()} | {"return": answers}
    ask.__name__ = question.name
    return ask


async def _fitting(service: Service, question: Question, values: Mapping[str, Any], caller: Principal) -> Kept:
    """An answer that a model can take in: of a list, as many rows as fit, with a cursor to the others.

    Raises:
        ToolError: it is no list, and too long.
    """
    kept = await service.kept(question, values, caller)
    rows = values.get("limit", 0)
    # No text has more tokens than bytes, so most need not be counted.
    while len(kept.json.encode()) > LARGEST_ANSWER and (size := tokens_in(kept.json)) > LARGEST_ANSWER:
        if rows <= 1:
            raise ToolError(
                f"This answer has some {size:,} tokens, more than fit; ask for less: a shorter timeframe, days instead of "
                "hours, or one agent."
            )
        rows = min(max(rows * LARGEST_ANSWER // size, 1), rows - 1)
        kept = await service.kept(question, {**values, "limit": rows}, caller)
    return kept


def tokens_in(text: str) -> int:
    """How many tokens a text has for a model, rather too many than too few."""
    return len(_TOKEN.findall(text.encode("utf-8", "surrogatepass")))


def _limits(field: FieldInfo) -> list[Any]:
    return [*field.metadata, Field(description=field.description)]
