"""What a caller sent, as names and values, from a query or a JSON body. What the values may be, the questions know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from obs_pipeline.dashboard.questions import BadQuestion

_LONGEST_BODY: Final = 64 * 1024


async def inputs_of(request: Request) -> Mapping[str, Any]:
    """The body of a POST, the query of anything else.

    Raises:
        BadQuestion: as :func:`body_of`, or the query names an input more than once.
    """
    return await body_of(request) if request.method == "POST" else _query(request)


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request; without a body an empty one.

    Raises:
        BadQuestion: it is too long, no JSON or no object.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_BODY:
            raise BadQuestion(f"body: it is longer than {_LONGEST_BODY} bytes.")
    try:
        values = json.loads(bytes(body) or b"{}")
    except (ValueError, RecursionError):
        raise BadQuestion("body: it is not JSON.") from None
    if not isinstance(values, dict):
        raise BadQuestion("body: send a JSON object.")
    return values


def _query(request: Request) -> Mapping[str, str]:
    names = [name for name, _ in request.query_params.multi_items()]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise BadQuestion(f"{sorted(repeated)[0]}: it is named more than once.")
    return dict(request.query_params)
