"""The questions as MCP tools, over stdio and streamable HTTP, on the official SDK.

Here: turning the list of questions into typed tools, and errors into what a model can act on. Who asks over HTTP was found
before a request comes here and travels with it; over stdio it is whoever runs the command.

The structured part is the whole answer; the text beside it is one sentence, so that the numbers do not reach a model twice.
This module imports the SDK, which takes about a second: import it where a server starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools.base import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field
from pydantic.fields import FieldInfo

from obs_pipeline.dashboard.access import Principal
from obs_pipeline.dashboard.service import QUESTIONS, Question, Service
from obs_pipeline.errors import ObsError

LARGEST_ANSWER: Final = 60_000
"""Characters of JSON: below 20,000 tokens at three characters a token, which numbers and names come to."""

_READS: Final = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
_INSTRUCTIONS: Final = (
    "Cost, tokens, errors and latency of AI agents. Days are UTC; a timeframe ends with the last computed day. Money is USD. "
    "Say what the coverage says: unpriced calls are not in the cost, provisional days may still change."
)


def mcp_server(
    service: Service, principal_of: Callable[[Context[Any, Any]], Principal], version: str = ""
) -> MCPServer[Any]:
    """A server of every question. ``principal_of`` tells who is behind a call."""
    tools = [_tool(service, question, principal_of) for question in QUESTIONS.values()]
    return MCPServer("obs-pipeline", version=version, instructions=_INSTRUCTIONS, tools=tools, log_level="WARNING")


def _tool(service: Service, question: Question, principal_of: Callable[[Context[Any, Any]], Principal]) -> Tool:
    tool = Tool.from_function(
        _asking(service, question, principal_of),
        name=question.name,
        title=question.title,
        description=question.description,
        annotations=_READS,
    )
    # A misspelt filter that is left aside would answer for the whole fleet as if it were one agent.
    inputs = tool.fn_metadata.arg_model
    inputs.model_config["extra"] = "forbid"
    inputs.model_rebuild(force=True)
    tool.parameters["additionalProperties"] = False
    return tool


def _asking(
    service: Service, question: Question, principal_of: Callable[[Context[Any, Any]], Principal]
) -> Callable[..., Any]:
    async def ask(ctx: Context[Any, Any], **values: Any) -> CallToolResult:
        try:
            answer = await service.ask(question, values, principal_of(ctx))
        except ObsError as error:
            raise ToolError(str(error)) from None
        content = answer.model_dump(mode="json")
        size = len(answer.model_dump_json())
        if size > LARGEST_ANSWER:
            raise ToolError(
                f"This answer has {size:,} characters, more than fit; ask for less: a smaller limit, a shorter timeframe, "
                "days instead of hours, or one agent."
            )
        return CallToolResult(
            content=[TextContent(type="text", text=question.told(answer))], structured_content=content
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


def _limits(field: FieldInfo) -> list[Any]:
    return [*field.metadata, Field(description=field.description)]
