"""The questions over HTTP: JSON under ``/api``, MCP under ``/mcp``, the widget at ``/``, health and metrics.

Here: routes, who shows a token, what an error becomes, and the OpenAPI description made from the list of questions. One gate
stands before every route, the MCP server's own among them: what is open is named in ``OPEN``, everything else needs a token.

Errors are ``{"error": …}``: 401 no token that counts, 403 the role does not suffice, 422 a bad input, 429 too many requests,
503 nothing to answer from now, with the reason.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import AccessDenied, Gate, NotKnown, Principal, RateLimit, TooMany, digest_of
from obs_pipeline.dashboard.actions import ACTIONS, Action, deed
from obs_pipeline.dashboard.mcp_server import mcp_server
from obs_pipeline.dashboard.measures import CONTENT_TYPE, LedgerFigures, Measures
from obs_pipeline.dashboard.page import WIDGET, PageFile
from obs_pipeline.dashboard.service import QUESTIONS, UNAVAILABLE, Question, Service
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.access_log import AccessLog
from obs_pipeline.storage.access_store import LONGEST_NAME, AccessStore, SavedView

OPEN: Final = frozenset({"/", "/healthz"})
"""What is served without a token: a page without data, and that the process lives."""

_LONGEST_BODY: Final = 64 * 1024
_PRINCIPAL: Final = "obs_principal"
_RECEIVING: Final = {"/v1/traces", "/v1/logs"}


class GateMiddleware:
    """Finds who asks, before every route; measures and, for each token, limits the rate."""

    def __init__(
        self, app: ASGIApp, gate: Gate, limit: RateLimit, clock: Callable[[], datetime], measures: Measures
    ) -> None:
        self._app = app
        self._gate = gate
        self._limit = limit
        self._clock = clock
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Blanks around a value are not part of it; not every server takes them away.
        scope = {**scope, "headers": [(name, value.strip(b" \t")) for name, value in scope["headers"]]}
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = await self._let_in(scope)
            await (refused or self._app)(scope, receive, noted)
        finally:
            self._measures.served(_route_name(scope["path"]), status, time.perf_counter() - started)

    async def _let_in(self, scope: Scope) -> Response | None:
        if scope["path"] in OPEN:
            return None
        try:
            token = bearer(Request(scope).headers.get("authorization"))
            principal = self._gate.just_seen(token, self._clock())
            if principal is None:
                principal = await anyio.to_thread.run_sync(self._gate.principal, token, self._clock())
            self._limit.take(digest_of(token or ""), self._clock())
        except ObsError as error:
            return refusal(error)
        scope.setdefault("state", {})[_PRINCIPAL] = principal
        return None


def bearer(header: str | None) -> str | None:
    """The token of an ``Authorization`` header."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def refusal(error: ObsError) -> JSONResponse:
    """What an error becomes."""
    told = {"error": str(error)}
    if isinstance(error, NotKnown):
        return JSONResponse(told, 401, headers={"WWW-Authenticate": "Bearer"})
    if isinstance(error, TooMany):
        return JSONResponse(told, 429, headers={"Retry-After": str(error.retry_after)})
    if isinstance(error, UNAVAILABLE):
        return JSONResponse(told, 503, headers={"Retry-After": "5"})
    return JSONResponse(told, 403 if isinstance(error, AccessDenied) else 422)


def http_app(
    service: Service,
    gate: Gate,
    *,
    clock: Callable[[], datetime],
    hosts: Sequence[str] = ("127.0.0.1", "localhost"),
    limit: RateLimit | None = None,
    version: str = "",
    more_routes: Sequence[Route] = (),
) -> Starlette:
    """The whole application. ``hosts`` are the names it may be called by, without port; ``more_routes`` are served too."""
    measures, widget = Measures(), PageFile(WIDGET)
    service.count, service.snapshot.copied = measures.looked_up, measures.copied
    figures = LedgerFigures(service.ledger, clock)
    mcp = mcp_server(service, lambda context: principal_of(context.request_context.request), version)
    # The Host check stands before everything, so the transport need not check again.
    from mcp.server.transport_security import TransportSecuritySettings

    protocol = mcp.streamable_http_app(
        json_response=True,
        stateless_http=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    described = openapi(version, service.actions)
    views, log = AccessStore(service.ledger), AccessLog(service.ledger)

    async def ask(request: Request) -> Response:
        question = QUESTIONS[request.path_params["name"]]
        values = await _body(request) if request.method == "POST" else _query(request)
        kept = await service.kept(question, values, principal_of(request))
        headers = {"ETag": f'"{kept.mark}"', "Cache-Control": "private, no-cache", "Vary": "Authorization"}
        if request.method != "POST" and headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(kept.json, media_type="application/json", headers=headers)

    async def export(request: Request) -> Response:
        values = await _body(request) if request.method == "POST" else _query(request)
        parts = service.export(values, principal_of(request))
        head = await anyio.to_thread.run_sync(next, parts)
        assert isinstance(head, q.Export)
        name = f"usage-{head.first_day}-{head.last_day}.{head.format}"
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Total-Rows": str(head.total),
            "X-Total-Cost": f"{head.total_cost:f}",
        }
        text = (part for part in parts if isinstance(part, str))
        return StreamingResponse(text, media_type=head.media_type, headers=headers)

    async def saved(request: Request) -> Response:
        principal = principal_of(request)
        principal.require("viewer")
        found = await anyio.to_thread.run_sync(views.views, principal.org or "")
        return JSONResponse(
            {"views": [{"name": one.name, "owner": one.owner, "content": one.content} for one in found]}
        )

    async def save(request: Request) -> Response:
        principal, name = principal_of(request), request.path_params["name"]
        principal.require("editor")
        if not 0 < len(name) <= LONGEST_NAME:
            raise q.BadQuestion(f"name: a view's name has 1 to {LONGEST_NAME} characters.")
        content = await _body(request)

        def keep() -> None:
            log.add(deed(principal, "save_view", name, {}, clock()))
            views.save_view(SavedView(principal.org or "", name, principal.name[:LONGEST_NAME], content, clock()))

        await anyio.to_thread.run_sync(keep)
        return JSONResponse({"saved": name})

    async def delete(request: Request) -> Response:
        principal, name = principal_of(request), request.path_params["name"]
        principal.require("editor")

        def forget() -> bool:
            held = views.view(principal.org or "", name)
            if held is None:
                return False
            # What goes is kept in the log, where whoever misses it finds it.
            log.add(deed(principal, "delete_view", name, {"owner": held.owner, "content": held.content}, clock()))
            return views.forget_view(held.org, held.name)

        if not await anyio.to_thread.run_sync(forget):
            raise HTTPException(404, f"There is no saved view {name[:LONGEST_NAME]!r}.")
        return JSONResponse({"deleted": name})

    async def whoami(request: Request) -> Response:
        one = principal_of(request)
        saving = ["save_view", "delete_view"] if one.may("editor") else []
        told = {"name": one.name, "role": one.role, "org": one.org, "projects": list(one.projects)}
        return JSONResponse({**told, "may": [*service.may(one), *saving]})

    async def act(request: Request) -> Response:
        action = ACTIONS[request.path_params["name"]]
        done = await service.act(action, await _body(request), principal_of(request))
        return Response(done.model_dump_json(), media_type="application/json")

    async def deeds(request: Request) -> Response:
        principal = principal_of(request)
        principal.require("admin")
        rows = await anyio.to_thread.run_sync(log.rows, q.PAGE, principal.org)
        return JSONResponse({"deeds": [{**asdict(row), "at": f"{row.at.isoformat()}Z"} for row in rows]})

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_request: Request) -> Response:
        # A cache that is away is found here before a question finds it.
        await service.cache.get("ready")
        await anyio.to_thread.run_sync(service.ready)
        return JSONResponse({"ready": True, "degraded": service.degraded()})

    async def told(request: Request) -> Response:
        principal = principal_of(request)
        principal.require("analyst")
        measures.cache_up.set(service.cache.problem is None)
        measures.cache_faults.set(service.cache.faults)
        measures.lake_up.set(service.snapshot.readable)
        text = measures.text()
        # The ledger's figures name sources and channels of every organisation.
        if principal.org is None:
            text += await anyio.to_thread.run_sync(figures.text)
        return Response(text, media_type=CONTENT_TYPE)

    async def description(_request: Request) -> Response:
        return JSONResponse(described)

    async def page(request: Request) -> Response:
        sent = widget.page()
        if request.headers.get("if-none-match") == sent.etag:
            return Response(status_code=304, headers=dict(sent.headers))
        if "gzip" in request.headers.get("accept-encoding", ""):
            return HTMLResponse(sent.packed, headers={**sent.headers, "Content-Encoding": "gzip"})
        return HTMLResponse(sent.html, headers=dict(sent.headers))

    @asynccontextmanager
    async def living(_app: Starlette) -> AsyncIterator[None]:
        async with protocol.router.lifespan_context(protocol):
            yield
        await service.close()

    questions = [Route(f"/api/{name}", _named(ask, name), methods=["GET", "POST"]) for name in QUESTIONS]
    return Starlette(
        routes=[
            Route("/", page),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", told),
            Route("/openapi.json", description),
            Route("/api/whoami", whoami),
            Route("/api/views", saved, methods=["GET"]),
            Route("/api/views/{name:path}", save, methods=["PUT"]),
            Route("/api/views/{name:path}", delete, methods=["DELETE"]),
            Route("/api/deeds", deeds),
            Route("/api/dashboard_export_data/file", export, methods=["GET", "POST"]),
            *questions,
            *(Route(f"/api/{name}", _named(act, name), methods=["POST"]) for name in ACTIONS),
            *more_routes,
            *protocol.routes,
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(
                GateMiddleware,
                gate=gate,
                limit=limit or RateLimit(per_minute=600, burst=200),
                clock=clock,
                measures=measures,
            ),
        ],
        exception_handlers={ObsError: _refuse, HTTPException: _http_error},
        lifespan=living,
    )


def principal_of(request: Any) -> Principal:
    """Who was found to be behind a request; without that, nobody gets in."""
    found = None if request is None else request.scope.get("state", {}).get(_PRINCIPAL)
    if not isinstance(found, Principal):
        raise NotKnown("This request came without a token.")
    return found


def openapi(version: str, actions: Mapping[str, Action] | None = None) -> dict[str, Any]:
    """The OpenAPI 3.1 description of the questions, and of the actions where there are some."""
    from pydantic.json_schema import models_json_schema

    every: list[Question | Action] = [*QUESTIONS.values(), *(actions or {}).values()]
    asked = [(question.asked, "validation") for question in every]
    answered = [(question.answer, "serialization") for question in every]
    refs, definitions = models_json_schema(
        [*asked, *answered],  # type: ignore[list-item]
        ref_template="#/components/schemas/{model}",
    )
    error = {
        "description": "It says what is wrong.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    paths = {
        f"/api/{question.name}": {
            "post": {
                "operationId": question.name,
                "summary": question.description,
                "description": f"Needs the role {question.role}."
                + (" The same inputs may be sent as a query with GET." if question.name in QUESTIONS else ""),
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": refs[question.asked, "validation"]}},
                },
                "responses": {
                    "200": {
                        "description": "The answer.",
                        "content": {"application/json": {"schema": refs[question.answer, "serialization"]}},
                    },
                    **dict.fromkeys(("401", "403", "422", "429", "503"), error),
                },
            }
        }
        for question in every
    }
    told = paths["/api/dashboard_export_data"]["post"]
    rows = {"text/csv": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}
    file = {
        "200": {"description": "The file.", "content": rows},
        **dict.fromkeys(("401", "403", "422", "429", "503"), error),
    }
    paths["/api/dashboard_export_data/file"] = {
        "post": {
            **told,
            "operationId": "dashboard_export_file",
            "summary": "All rows behind the totals as one CSV or JSON file; limit and cursor do not apply.",
            "responses": file,
        }
    }
    schemas = {
        **definitions["$defs"],
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "obs-pipeline", "version": version or "0"},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


def _named(ask: Callable[[Request], Awaitable[Response]], name: str) -> Callable[[Request], Awaitable[Response]]:
    async def named(request: Request) -> Response:
        request.scope["path_params"] = {"name": name}
        return await ask(request)

    return named


def _route_name(path: str) -> str:
    """A label of few values: an unknown path is not a label of its own."""
    name = path.removeprefix("/api/")
    if (
        name in QUESTIONS
        or name in ACTIONS
        or path in {"/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/mcp"} | _RECEIVING
    ):
        return name
    return "other"


def _query(request: Request) -> Mapping[str, str]:
    names = [name for name, _ in request.query_params.multi_items()]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise q.BadQuestion(f"{sorted(repeated)[0]}: it is named more than once.")
    return dict(request.query_params)


async def _body(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_BODY:
            raise q.BadQuestion(f"body: it is longer than {_LONGEST_BODY} bytes.")
    try:
        values = json.loads(bytes(body) or b"{}")
    except (ValueError, RecursionError):
        raise q.BadQuestion("body: it is not JSON.") from None
    if not isinstance(values, dict):
        raise q.BadQuestion("body: send a JSON object.")
    return values


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ObsError)
    return refusal(error)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
