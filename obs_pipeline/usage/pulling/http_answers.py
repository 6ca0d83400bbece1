"""One whole answer of an HTTP API that lists what it has under ``data``: attempts, waits, and what counts as an answer.

Nothing here knows which API it is, or follows its pages.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from obs_pipeline.usage.pulling.pages import PullFailed

Wait = Callable[[float], None]
"""Sleeps that many seconds between attempts."""

sleep: Final[Wait] = time.sleep
_ATTEMPTS: Final = 4
_REFUSED: Final = (401, 403)
_WORTH_REPEATING: Final = (429, 500, 502, 503, 504)


def whole_answer(
    get: Callable[[], Any], wait: Wait, *, who: str, what: str, key: str, parse: Callable[[bytes], Any] = json.loads
) -> dict[str, Any]:
    """The JSON object that ``get`` was answered with, after some attempts.

    ``who``, ``what`` and ``key`` are for the message: who answers, what was to be read, which fields hold the credentials.

    Raises:
        PullFailed: it was not answered, not to the end, or without a list of data.
    """
    import httpx2

    said, mend = "", "Check url, and that it can be reached from here."
    for attempt in range(_ATTEMPTS):
        if attempt:
            wait(0.5 * 2**attempt)
        try:
            reply = get()
            if reply.status_code == 200:
                content = parse(reply.content)
                if isinstance(content, dict) and isinstance(content.get("data"), list):
                    return content
                raise PullFailed(f"{who} answered without a list of data; its API may have changed.")
            said = f"it answered {reply.status_code}"
            mend = (
                f"Check {key}." if reply.status_code in _REFUSED else "Check url." if reply.status_code == 404 else ""
            )
            if reply.status_code not in _WORTH_REPEATING:
                break
        except (json.JSONDecodeError, UnicodeDecodeError):
            said, mend = "its answer broke off", ""
        except httpx2.HTTPError as error:
            said = f"{type(error).__name__}: {error}"
    raise PullFailed(f"{what} cannot be read: {said}. {mend}".rstrip())
