"""What an HTTP answer means for a message, and keeping secrets out of what is written down about it.

Holds the judgement of a status and its headers and the one exchange that task trackers share. Which requests are made
belongs to ``channels`` and ``trackers``.

- Worth another try: no answer, a broken connection, 408, 425, 429, 5xx, and 403 where a limit was reached.
- Not worth one: every other 4xx, and a redirect. A person has to change something.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote

import httpx2
from pydantic import SecretStr

from obs_pipeline.alerting.models import Refused, RetryAfter

TIMEOUT_SECONDS: Final = 5.0
LONGEST_WAIT_SECONDS: Final = 24 * 3600.0
_DETAIL: Final = 300
_SHORTEST_PIECE: Final = 6
_TRY_AGAIN: Final = frozenset({408, 425, 429})

Json = dict[str, Any]


class Unanswered(Exception):
    """An exchange that brought no result; ``outcome`` says whether to try again."""

    def __init__(self, outcome: RetryAfter | Refused) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def outcome_of(status: int, headers: Mapping[str, str], detail: str, now: datetime) -> RetryAfter | Refused | None:
    """What an answer means; None for success. ``now`` is UTC without a zone, for a ``Retry-After`` that is a date."""
    if 200 <= status < 300:
        return None
    lowered = {name.lower(): value for name, value in headers.items()}
    wait = retry_after_seconds(lowered.get("retry-after"), now)
    limited = status == 403 and (wait is not None or lowered.get("x-ratelimit-remaining") == "0")
    reason = f"HTTP {status}: {detail}" if detail else f"HTTP {status}"
    if status in _TRY_AGAIN or status >= 500 or limited:
        return RetryAfter(reason=reason, seconds=wait)
    return Refused(reason)


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """A ``Retry-After`` header in seconds, at most a day; None when absent or unreadable. ``now``: UTC, no zone."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (until - now.replace(tzinfo=UTC)).total_seconds()
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS) if seconds == seconds else None


def scrubbed(text: str, secrets: Iterable[SecretStr]) -> str:
    """``text`` on one line, shortened, with every secret in it, and every long part of one, replaced by stars."""
    for piece in pieces_of(secrets):
        text = text.replace(piece, "***")
    line = " ".join(text.split())
    return line if len(line) <= _DETAIL else line[: _DETAIL - 1] + "…"


def pieces_of(secrets: Iterable[SecretStr]) -> list[str]:
    """The secrets and the parts they are made of (an address has several), the longest first."""
    values = [secret.get_secret_value() for secret in secrets]
    words = {word for value in values for word in re.split(r"[/:@?&=#,;\s]+", value)}
    long = {word for word in words | {unquote(word) for word in words} if len(word) >= _SHORTEST_PIECE}
    return sorted({value for value in values if value} | long, key=lambda piece: (-len(piece), piece))


@dataclass(frozen=True)
class Service:
    """A JSON service. ``secret_headers`` hold full header values; they are in no ``repr`` and no reason."""

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, SecretStr] = field(default_factory=dict)
    basic: tuple[str, SecretStr] | None = None
    timeout: float = TIMEOUT_SECONDS

    @cached_property
    def _client(self) -> httpx2.Client:
        # One client, because each loads the trusted certificates; no connection is kept, because nobody closes it.
        return httpx2.Client(timeout=self.timeout, limits=httpx2.Limits(max_keepalive_connections=0))

    def exchange(self, method: str, path: str, now: datetime, json: Json | None = None, **params: str | int) -> Any:
        """Send, and answer the decoded JSON (None for an empty answer). ``now`` is UTC without a zone.

        Raises:
            Unanswered: it brought no result, and what that means.
        """
        secrets = [*self.secret_headers.values(), *([self.basic[1]] if self.basic else [])]
        headers = {**self.headers, **{name: value.get_secret_value() for name, value in self.secret_headers.items()}}
        auth = (self.basic[0], self.basic[1].get_secret_value()) if self.basic else None
        url = self.base_url.rstrip("/") + path
        try:
            # No redirects: the secret must not follow to an address nobody chose.
            answer = self._client.request(method, url, headers=headers, auth=auth, json=json, params=params or None)
            outcome = outcome_of(answer.status_code, answer.headers, scrubbed(answer.text, secrets), now)
            if outcome is None:
                return answer.json() if answer.content.strip() else None
        except httpx2.TransportError as error:
            raise Unanswered(RetryAfter(reason=f"no answer ({type(error).__name__})", seconds=None)) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            raise Unanswered(Refused(f"the address cannot be used ({type(error).__name__})")) from None
        except ValueError:
            raise Unanswered(RetryAfter(reason="the answer is not JSON", seconds=None)) from None
        raise Unanswered(outcome)
