"""Observations from Langfuse's public API, page by page along its cursor.

Here: the requests and the cursor. What an observation means is in the mapping ``langfuse``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.pulling.http_answers import Wait, sleep, whole_answer
from obs_pipeline.usage.pulling.pages import Page, PullFailed

_PATH: Final = "/api/public/v2/observations"
_FIELDS: Final = "core,basic,time,model,usage,metadata,trace_context"
_MOST_ROWS: Final = 1_000


def observations(source: PulledSource, start: datetime, end: datetime, *, wait: Wait = sleep) -> Iterator[Page]:
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
            content = whole_answer(
                lambda: client.get(_PATH, params=asked),
                wait,
                who="Langfuse",
                what="The observations",
                key="user (its public key) and password_file (its secret key)",
            )
            yield [json.dumps(row, ensure_ascii=False) for row in content["data"]]
            cursor = (content.get("meta") or {}).get("cursor")
            if not cursor:
                return
            if cursor in seen:
                raise PullFailed("Langfuse gave the same page again; nothing after it can be reached.")
            seen.add(cursor)
            asked["cursor"] = cursor
