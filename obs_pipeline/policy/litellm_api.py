"""The management API of a LiteLLM proxy over HTTP: one request, its attempts, and what an answer means.

Knows addresses, the master key and status codes; what to ask for is the target's business. The key is sent in the
``Authorization`` header and is in no message, no ``repr`` and no log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    import httpx2

TIMEOUT_SECONDS: Final = 10.0
ATTEMPTS: Final = 4
_LONGEST_WAIT_SECONDS: Final = 30.0
_SHOWN: Final = 300
_WORTH_REPEATING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_ENTRY: Final = frozenset({401, 403})


class Unreachable(ObsError):
    """The proxy gives no answer that can be used. ``for_all``: it will give none to any other request either."""

    def __init__(self, message: str, *, for_all: bool = False) -> None:
        self.for_all = for_all
        super().__init__(message)


class RefusedRequest(ObsError):
    """The proxy refuses one request; others may go through."""

    def __init__(self, status: int, said: str) -> None:
        self.status = status
        super().__init__(f"it answered {status}: {said}")


class ManagementApi:
    """A proxy at ``url``. ``wait`` sleeps that many seconds between attempts.

    Raises:
        Unreachable: ``url`` is not an address.
    """

    def __init__(
        self,
        url: str,
        master_key: SecretStr,
        *,
        timeout: float = TIMEOUT_SECONDS,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise Unreachable("OBS_LITELLM_URL must be an address like https://proxy.example:4000, without a password.")
        self.url = url.rstrip("/")
        self._key = master_key
        self._timeout = timeout
        self._wait = wait

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a body; every request sent here may be sent twice.

        Raises:
            Unreachable: no answer after several attempts, or the key is refused.
            RefusedRequest: the proxy will not have this one.
        """
        return self._ask("POST", path, json=body)

    def get(self, path: str, **params: str) -> Any:
        """Ask for something; raises as ``post`` does."""
        return self._ask("GET", path, params=params)

    def close(self) -> None:
        """Let go of connections; the next request opens them again."""
        opened: httpx2.Client | None = self.__dict__.pop("_client", None)
        if opened is not None:
            opened.close()

    @cached_property
    def _client(self) -> httpx2.Client:
        import httpx2

        key = {"Authorization": f"Bearer {self._key.get_secret_value()}"}
        # No redirects: the key must not follow to an address nobody chose.
        return httpx2.Client(
            base_url=self.url,
            headers=key,
            timeout=self._timeout,
            follow_redirects=False,
            verify=self.url.startswith("https:"),
        )

    def _ask(self, method: str, path: str, **sent: Any) -> Any:
        import httpx2

        said, pause, nobody = "", 0.0, False
        for attempt in range(ATTEMPTS):
            if attempt:
                self._wait(pause or 0.5 * 2**attempt)
            pause, nobody = 0.0, False
            try:
                answer = self._client.request(method, path, **sent)
                if answer.status_code in _NO_ENTRY:
                    raise Unreachable(
                        f"the proxy does not accept the master key ({answer.status_code}); set OBS_LITELLM_MASTER_KEY "
                        "to the key of a proxy admin",
                        for_all=True,
                    )
                if answer.is_success:
                    return answer.json()
                said = f"it answered {answer.status_code}: {self._shown(answer.text)}"
                if answer.status_code not in _WORTH_REPEATING:
                    raise RefusedRequest(answer.status_code, self._shown(answer.text))
                pause = _seconds(answer.headers.get("Retry-After", ""))
            except json.JSONDecodeError:
                said = "its answer is not JSON"
            except httpx2.HTTPError as error:
                said, nobody = f"no answer ({type(error).__name__})", isinstance(error, httpx2.ConnectError)
        raise Unreachable(f"the proxy at {self.url} cannot be used: {said}", for_all=nobody)

    def _shown(self, text: str) -> str:
        with suppress(ValueError):
            text = _reason(json.loads(text))
        line = " ".join(text.replace(self._key.get_secret_value(), "***").split())
        return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _reason(told: Any) -> str:
    """What an error says, from within the wrappings that the proxy's handlers put around it."""
    wrapped = [told[name] for name in ("error", "detail", "message") if name in told] if isinstance(told, dict) else []
    return _reason(wrapped[0]) if wrapped else str(told)


def _seconds(told: str) -> float:
    return min(float(told), _LONGEST_WAIT_SECONDS) if told.isdecimal() else 0.0
