"""Who is behind a request, found before every route: one gate, the MCP server's own routes among those behind it.

What is open is named in ``OPEN``, everything else needs a token. Here too: what a refusal looks like. Which tokens count and
how often each may ask is ``access``'s business; which role a route needs, the route's own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from obs_pipeline.dashboard.access import AccessDenied, Gate, NotKnown, Principal, RateLimit, TooMany, digest_of
from obs_pipeline.dashboard.service import UNAVAILABLE
from obs_pipeline.errors import ObsError

OPEN: Final = frozenset({"/", "/healthz"})
"""What is served without a token: a page without data, and that the process lives."""

_PRINCIPAL: Final = "obs_principal"


class GateMiddleware:
    """Finds who asks and, for each token, limits the rate. ``clock`` is UTC without a zone."""

    def __init__(self, app: ASGIApp, gate: Gate, limit: RateLimit, clock: Callable[[], datetime]) -> None:
        self._app = app
        self._gate = gate
        self._limit = limit
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Blanks around a value are not part of it; not every server takes them away.
        scope = {**scope, "headers": [(name, value.strip(b" \t")) for name, value in scope["headers"]]}
        await (await self._refused(scope) or self._app)(scope, receive, send)

    async def _refused(self, scope: Scope) -> Response | None:
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


def principal_of(request: Any) -> Principal:
    """Who was found to be behind a request; without that, nobody gets in.

    Raises:
        NotKnown: the request did not come through the gate, or came to what is open.
    """
    found = None if request is None else request.scope.get("state", {}).get(_PRINCIPAL)
    if not isinstance(found, Principal):
        raise NotKnown("This request came without a token.")
    return found


def bearer(header: str | None) -> str | None:
    """The token of an ``Authorization`` header."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def refusal(error: ObsError) -> JSONResponse:
    """What an error becomes: 401 no token that counts, 403 the role does not suffice, 422 a bad input, 429 too many requests,
    503 nothing to answer from now."""
    told = {"error": str(error)}
    if isinstance(error, NotKnown):
        return JSONResponse(told, 401, headers={"WWW-Authenticate": "Bearer"})
    if isinstance(error, TooMany):
        return JSONResponse(told, 429, headers={"Retry-After": str(error.retry_after)})
    if isinstance(error, UNAVAILABLE):
        return JSONResponse(told, 503, headers={"Retry-After": "5"})
    return JSONResponse(told, 403 if isinstance(error, AccessDenied) else 422)
