"""Whether the process lives and can answer, and its figures: ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

from functools import partial

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from obs_pipeline.dashboard.http.gate import principal_of
from obs_pipeline.dashboard.http.measures import CONTENT_TYPE, LedgerFigures, Measures
from obs_pipeline.dashboard.service import Service


def health_routes(service: Service, measures: Measures, figures: LedgerFigures) -> list[Route]:
    """The routes that watch; ``measures`` are this process's own, ``figures`` the ledger's."""
    return [
        Route("/healthz", _alive),
        Route("/readyz", partial(_ready, service)),
        Route("/metrics", partial(_metrics, service, measures, figures)),
    ]


async def _alive(_request: Request) -> Response:
    return JSONResponse({"alive": True})


async def _ready(service: Service, _request: Request) -> Response:
    # A cache that is away is found here before a question finds it.
    await service.cache.get("ready")
    await anyio.to_thread.run_sync(service.ready)
    return JSONResponse({"ready": True, "degraded": service.degraded()})


async def _metrics(service: Service, measures: Measures, figures: LedgerFigures, request: Request) -> Response:
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
