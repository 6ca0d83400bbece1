"""Observations from Langfuse's public API, page by page along its cursor.

Here: the requests, their retries and what an answer must look like. What an observation means is in the mapping ``langfuse``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.pulling.pages import Page, PullFailed

_PATH: Final = "/api/public/v2/observations"
_FIELDS: Final = "core,basic,time,model,usage,metadata,trace_context"
_ATTEMPTS: Final = 4
_MOST_ROWS: Final = 1_000
_WORTH_REPEATING: Final = (429, 500, 502, 503, 504)


def observations(
    source: PulledSource, start: datetime, end: datetime, *, wait: Callable[[float], None] = time.sleep
) -> Iterator[Page]:
    """The observations that began in a span of time. ``wait`` sleeps that many seconds between attempts."""
    import httpx2

    asked: dict[str, str | int] = {
        "fromStartTime": f"{start.isoformat(timespec='milliseconds')}Z",
        "toStartTime": f"{end.isoformat(timespec='milliseconds')}Z",
        "limit": min(source.batch_rows, _MOST_ROWS),
        "fields": _FIELDS,
    }
    seen: set[str] = set()
    with httpx2.Client(
        base_url=source.url, auth=(source.user or "", source.password() or ""), timeout=source.timeout_seconds
    ) as client:
        while True:
            content = _answer(lambda: client.get(_PATH, params=asked), wait)
            yield [json.dumps(row, ensure_ascii=False) for row in content["data"]]
            cursor = (content.get("meta") or {}).get("cursor")
            if not cursor:
                return
            if cursor in seen:
                raise PullFailed("Langfuse gave the same page again; nothing after it can be reached.")
            seen.add(cursor)
            asked["cursor"] = cursor


def _answer(get: Callable[[], Any], wait: Callable[[float], None]) -> dict[str, Any]:
    """The JSON of a whole answer, after some attempts."""
    import httpx2

    said = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            wait(0.5 * 2**attempt)
        try:
            reply = get()
            if reply.status_code == 200:
                content = reply.json()
                if isinstance(content, dict) and isinstance(content.get("data"), list):
                    return content
                raise PullFailed("Langfuse answered without a list of data; its API may have changed.")
            said = f"it answered {reply.status_code}"
            if reply.status_code not in _WORTH_REPEATING:
                break
        except json.JSONDecodeError:
            said = "its answer broke off"
        except httpx2.HTTPError as error:
            said = f"{type(error).__name__}: {error}"
    raise PullFailed(f"The observations cannot be read: {said}.")
