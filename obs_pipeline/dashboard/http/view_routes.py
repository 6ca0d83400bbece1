"""Saved views under ``/api/views``: what an organisation's viewers share, its editors save and delete, each with its deed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from obs_pipeline.dashboard.access import Principal
from obs_pipeline.dashboard.actions import deed
from obs_pipeline.dashboard.http.gate import principal_of
from obs_pipeline.dashboard.http.inputs import body_of
from obs_pipeline.dashboard.questions import BadQuestion
from obs_pipeline.storage.access_log import AccessLog
from obs_pipeline.storage.access_store import LONGEST_NAME, AccessStore, SavedView
from obs_pipeline.storage.ledger import Ledger


def view_routes(ledger: Ledger, clock: Callable[[], datetime]) -> list[Route]:
    """The routes of saved views. ``clock`` is UTC without a zone."""
    views = _Views(AccessStore(ledger), AccessLog(ledger), clock)
    return [
        Route("/api/views", views.list, methods=["GET"]),
        Route("/api/views/{name:path}", views.save, methods=["PUT"]),
        Route("/api/views/{name:path}", views.delete, methods=["DELETE"]),
    ]


@dataclass(frozen=True, slots=True)
class _Views:
    store: AccessStore
    log: AccessLog
    clock: Callable[[], datetime]

    async def list(self, request: Request) -> Response:
        principal = principal_of(request)
        principal.require("viewer")
        found = await anyio.to_thread.run_sync(self.store.views, principal.org or "")
        return JSONResponse(
            {"views": [{"name": one.name, "owner": one.owner, "content": one.content} for one in found]}
        )

    async def save(self, request: Request) -> Response:
        principal, name = principal_of(request), request.path_params["name"]
        principal.require("editor")
        if not 0 < len(name) <= LONGEST_NAME:
            raise BadQuestion(f"name: a view's name has 1 to {LONGEST_NAME} characters.")
        await anyio.to_thread.run_sync(self._keep, principal, name, await body_of(request))
        return JSONResponse({"saved": name})

    async def delete(self, request: Request) -> Response:
        principal, name = principal_of(request), request.path_params["name"]
        principal.require("editor")
        if not await anyio.to_thread.run_sync(self._forget, principal, name):
            raise HTTPException(404, f"There is no saved view {name[:LONGEST_NAME]!r}.")
        return JSONResponse({"deleted": name})

    def _keep(self, who: Principal, name: str, content: Mapping[str, Any]) -> None:
        self.log.add(deed(who, "save_view", name, {}, self.clock()))
        self.store.save_view(SavedView(who.org or "", name, who.name[:LONGEST_NAME], content, self.clock()))

    def _forget(self, who: Principal, name: str) -> bool:
        held = self.store.view(who.org or "", name)
        if held is None:
            return False
        # What goes is kept in the log, where whoever misses it finds it.
        self.log.add(deed(who, "delete_view", name, {"owner": held.owner, "content": held.content}, self.clock()))
        return self.store.forget_view(held.org, held.name)
