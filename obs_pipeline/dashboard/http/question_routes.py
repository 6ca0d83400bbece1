"""Questions and actions under ``/api``: one address each, the export as a file, and what a caller may ask and do.

Nothing is decided here: the service answers and acts. The log of deeds is read here because that is where actions leave them.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from obs_pipeline.dashboard.actions import ACTIONS, Action
from obs_pipeline.dashboard.catalogue import QUESTIONS, Question
from obs_pipeline.dashboard.http.gate import principal_of
from obs_pipeline.dashboard.http.inputs import body_of, inputs_of
from obs_pipeline.dashboard.questions import PAGE, Export
from obs_pipeline.dashboard.service import Service
from obs_pipeline.storage.access_log import AccessLog


def question_routes(service: Service) -> list[Route]:
    """A route for each question and action, and those beside them."""
    return [
        Route("/api/whoami", partial(_whoami, service)),
        Route("/api/deeds", partial(_deeds, AccessLog(service.ledger))),
        Route("/api/dashboard_export_data/file", partial(_export, service), methods=["GET", "POST"]),
        *(
            Route(f"/api/{name}", partial(_ask, service, question), methods=["GET", "POST"])
            for name, question in QUESTIONS.items()
        ),
        *(Route(f"/api/{name}", partial(_act, service, action), methods=["POST"]) for name, action in ACTIONS.items()),
    ]


async def _ask(service: Service, question: Question, request: Request) -> Response:
    kept = await service.kept(question, await inputs_of(request), principal_of(request))
    headers = {"ETag": f'"{kept.mark}"', "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    if request.method != "POST" and headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(kept.json, media_type="application/json", headers=headers)


async def _act(service: Service, action: Action, request: Request) -> Response:
    done = await service.act(action, await body_of(request), principal_of(request))
    return Response(done.model_dump_json(), media_type="application/json")


async def _export(service: Service, request: Request) -> Response:
    parts = service.export(await inputs_of(request), principal_of(request))
    head = await anyio.to_thread.run_sync(next, parts)
    assert isinstance(head, Export)
    name = f"usage-{head.first_day}-{head.last_day}.{head.format}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Total-Rows": str(head.total),
        "X-Total-Cost": f"{head.total_cost:f}",
    }
    text = (part for part in parts if isinstance(part, str))
    return StreamingResponse(text, media_type=head.media_type, headers=headers)


async def _whoami(service: Service, request: Request) -> Response:
    one = principal_of(request)
    saving = ["save_view", "delete_view"] if one.may("editor") else []
    told = {"name": one.name, "role": one.role, "org": one.org, "projects": list(one.projects)}
    return JSONResponse({**told, "may": [*service.may(one), *saving]})


async def _deeds(log: AccessLog, request: Request) -> Response:
    principal = principal_of(request)
    principal.require("admin")
    rows = await anyio.to_thread.run_sync(log.rows, PAGE, principal.org)
    return JSONResponse({"deeds": [{**asdict(row), "at": f"{row.at.isoformat()}Z"} for row in rows]})
