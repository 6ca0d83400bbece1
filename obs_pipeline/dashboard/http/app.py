"""The application: questions under ``/api``, MCP under ``/mcp``, the page at ``/``, saved views, health and metrics.

Here: what is served, what stands before it and what an error becomes. A route's own work is in its family's module.

Errors are ``{"error": …}``, with the reason; ``gate.refusal`` says which has which status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from obs_pipeline.dashboard.access import Gate, RateLimit
from obs_pipeline.dashboard.http.gate import GateMiddleware, principal_of, refusal
from obs_pipeline.dashboard.http.health_routes import health_routes
from obs_pipeline.dashboard.http.measures import LedgerFigures, Measures, MeasuringMiddleware
from obs_pipeline.dashboard.http.openapi import openapi
from obs_pipeline.dashboard.http.question_routes import question_routes
from obs_pipeline.dashboard.http.view_routes import view_routes
from obs_pipeline.dashboard.mcp_server import mcp_server
from obs_pipeline.dashboard.page import WIDGET, PageFile
from obs_pipeline.dashboard.service import Service
from obs_pipeline.errors import ObsError


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
    """The whole application. ``clock`` is UTC without a zone; ``hosts`` are the names it may be called by, without port;
    ``more_routes`` are served too."""
    measures = Measures()
    service.count, service.snapshot.copied = measures.looked_up, measures.copied
    protocol = _mcp_app(service, version)

    @asynccontextmanager
    async def living(_app: Starlette) -> AsyncIterator[None]:
        async with protocol.router.lifespan_context(protocol):
            yield
        await service.close()

    limited = limit or RateLimit(per_minute=600, burst=200)
    return Starlette(
        routes=[
            Route("/", partial(_page, PageFile(WIDGET))),
            Route("/openapi.json", partial(_told, openapi(version, service.actions))),
            *health_routes(service, measures, LedgerFigures(service.ledger, clock)),
            *view_routes(service.ledger, clock),
            *question_routes(service),
            *more_routes,
            *protocol.routes,
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
            Middleware(MeasuringMiddleware, measures=measures),
            Middleware(GateMiddleware, gate=gate, limit=limited, clock=clock),
        ],
        exception_handlers={ObsError: _refuse, HTTPException: _http_error},
        lifespan=living,
    )


def _mcp_app(service: Service, version: str) -> Starlette:
    server = mcp_server(service, lambda context: principal_of(context.request_context.request), version)
    return server.streamable_http_app(
        json_response=True,
        stateless_http=True,
        # The check of the Host header stands before everything, so the transport need not check again.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )


async def _told(content: dict[str, Any], _request: Request) -> Response:
    return JSONResponse(content)


async def _page(file: PageFile, request: Request) -> Response:
    sent = file.page()
    if request.headers.get("if-none-match") == sent.etag:
        return Response(status_code=304, headers=dict(sent.headers))
    if "gzip" in request.headers.get("accept-encoding", ""):
        return HTMLResponse(sent.packed, headers={**sent.headers, "Content-Encoding": "gzip"})
    return HTMLResponse(sent.html, headers=dict(sent.headers))


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ObsError)
    return refusal(error)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
