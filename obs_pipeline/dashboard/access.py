"""Who may ask what: roles, tokens, and the rate limit of each token.

Here: plain decisions over values that are passed in, the clock among them. Not how a request carries its token, and not the
filtering of rows: a ``Principal`` says which rows are its own, the snapshot applies that in one place.

Only the SHA-256 of a token is kept. A token has 256 random bits, so a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

from obs_pipeline.errors import ObsError
from obs_pipeline.storage.access_store import AccessStore, TokenRow

ReadingRole = Literal["viewer", "analyst", "editor", "admin"]
Role = Literal["collector"] | ReadingRole
ROLES: Final[tuple[ReadingRole, ...]] = get_args(ReadingRole)
"""From the least to the most; each may do all that the ones before it may."""

COLLECTOR: Final = "collector"
"""Beside them: it may send usage, and read nothing."""
_GRANTED: Final[tuple[Role, ...]] = (COLLECTOR, *ROLES)

_PREFIX: Final = "obs_"
_LONGEST: Final = 8192
_BUCKETS: Final = 10_000


class AccessDenied(ObsError):
    """The caller is known and may not do this."""


class NotKnown(ObsError):
    """The caller showed no token, or one that does not count."""


class TooMany(ObsError):
    """The caller asks more often than it may. ``retry_after`` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many requests with this token; ask again in {retry_after} s.")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``org`` None sees every organisation; ``projects`` empty sees every project of it. ``token`` is the id of the
    token that was shown, or whose word was taken for it."""

    name: str
    role: Role
    org: str | None = None
    projects: tuple[str, ...] = ()
    token: str = field(default="", compare=False)

    def may(self, role: ReadingRole) -> bool:
        return self.role != COLLECTOR and ROLES.index(self.role) >= ROLES.index(role)

    def require(self, role: ReadingRole) -> None:
        """
        Raises:
            AccessDenied: this role is below ``role``.
        """
        if not self.may(role):
            raise AccessDenied(f"This needs the role {role}; the token of {self.name} has the role {self.role}.")

    def require_sending(self) -> None:
        """
        Raises:
            AccessDenied: this role may not send usage.
        """
        if self.role != COLLECTOR:
            self.require("editor")

    def sees(self, org: str | None, project: str | None) -> bool:
        """Whether rows of this organisation and project are its own."""
        return self.org in (None, org) and (not self.projects or project in self.projects)


LOCAL: Final = Principal("local", "admin", token="local")
"""Whoever runs a command on the machine that holds the files."""


class Gate:
    """Tells who shows a token. ``look_again`` is for how many seconds a look at the ledger serves the same token; ``of_jwt``
    tells whom the token of an identity provider names, if there is one."""

    def __init__(
        self, store: AccessStore, of_jwt: Callable[[str], Principal] | None = None, look_again: float = 0.0
    ) -> None:
        self._look_again = timedelta(seconds=look_again)
        self._seen: dict[str, tuple[datetime, Principal]] = {}
        self._store = store
        self._of_jwt = of_jwt

    def just_seen(self, token: str | None, now: datetime) -> Principal | None:
        """Who showed this token a moment ago, without a look at the ledger."""
        seen, principal = self._seen.get(digest_of(token or ""), (now, None))
        return principal if now - seen < self._look_again else None

    def principal(self, token: str | None, now: datetime) -> Principal:
        """
        Raises:
            NotKnown: there is no token, or it does not count (any more).
        """
        principal = self._principal(token, now)
        if len(self._seen) >= _BUCKETS:
            self._seen.clear()
        self._seen[digest_of(token or "")] = (now, principal)
        return principal

    def _principal(self, token: str | None, now: datetime) -> Principal:
        if not token or len(token) > _LONGEST:
            raise NotKnown("Show a token: Authorization: Bearer obs_…  (obs-pipeline tokens create makes one).")
        if self._of_jwt is not None and token.count(".") == 2:
            return self._of_jwt(token)
        row = self._store.by_digest(digest_of(token))
        if row is None or not row.usable_at(now) or row.role not in _GRANTED:
            raise NotKnown("This token is not known, has expired or was revoked.")
        return Principal(row.name, row.role, row.org, row.projects, row.id)


def create_token(
    store: AccessStore,
    now: datetime,
    *,
    name: str,
    role: str,
    org: str | None = None,
    projects: Sequence[str] = (),
    valid_for: timedelta | None = None,
) -> tuple[str, TokenRow]:
    """A new token and its record. The token is shown here and never again.

    Raises:
        AccessDenied: there is no such role, or projects are named without their organisation.
    """
    if role not in _GRANTED:
        raise AccessDenied(f"{role!r} is not a role; choose one of {', '.join(_GRANTED)}.")
    if projects and org is None:
        raise AccessDenied("Projects belong to an organisation: name it too (--org).")
    token = _PREFIX + secrets.token_urlsafe(32)
    expires = None if valid_for is None else now + valid_for
    row = TokenRow(secrets.token_hex(4), name, digest_of(token), role, org, tuple(projects), now, expires)
    store.add(row)
    return token, row


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class RateLimit:
    """A bucket for each token: ``per_minute`` requests refill it evenly, ``burst`` is what it holds."""

    def __init__(self, per_minute: int, burst: int) -> None:
        self._per_second = per_minute / 60
        self._burst = float(burst)
        self._left: dict[str, tuple[float, datetime]] = {}
        self._lock = threading.Lock()

    def take(self, name: str, now: datetime) -> None:
        """
        Raises:
            TooMany: the bucket is empty.
        """
        with self._lock:
            left, since = self._left.get(name, (self._burst, now))
            left = min(self._burst, left + max((now - since).total_seconds(), 0) * self._per_second)
            if left < 1:
                raise TooMany(int((1 - left) / self._per_second) + 1)
            if len(self._left) >= _BUCKETS:
                self._left.clear()
            self._left[name] = (left - 1, now)
