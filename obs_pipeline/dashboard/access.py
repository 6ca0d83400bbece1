"""Who may ask what: roles, tokens, JWTs of an identity provider, and the rate limit of each token.

Here: plain decisions over values that are passed in, the clock among them. Not how a request carries its token, and not the
filtering of rows: a ``Principal`` says which rows are its own, the snapshot applies that in one place.

Only the SHA-256 of a token is kept. A token has 256 random bits, so a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

from obs_pipeline.errors import ObsError
from obs_pipeline.storage.access_store import AccessStore, TokenRow

Role = Literal["viewer", "analyst", "editor", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""From the least to the most; each may do all that the ones before it may."""

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
    """Who asks. ``org`` None sees every organisation; ``projects`` empty sees every project of it."""

    name: str
    role: Role
    org: str | None = None
    projects: tuple[str, ...] = ()

    def require(self, role: Role) -> None:
        """
        Raises:
            AccessDenied: this role is below ``role``.
        """
        if ROLES.index(self.role) < ROLES.index(role):
            raise AccessDenied(f"This needs the role {role}; the token of {self.name} has the role {self.role}.")

    def sees(self, org: str | None, project: str | None) -> bool:
        """Whether rows of this organisation and project are its own."""
        return self.org in (None, org) and (not self.projects or project in self.projects)


LOCAL: Final = Principal("local", "admin")
"""Whoever runs a command on the machine that holds the files."""


@dataclass(frozen=True, slots=True)
class JwtRules:
    """How tokens of an identity provider are checked. ``keys`` is a JWKS address or, for tests, a key itself.

    The claims ``obs_role``, ``obs_org`` and ``obs_projects`` say what the bearer may see; one without an organisation is
    refused: nothing that an identity provider says gives every organisation.
    """

    issuer: str
    audience: str
    keys: Any
    algorithms: Sequence[str] = ("RS256", "ES256")


class Gate:
    """Tells who shows a token."""

    def __init__(self, store: AccessStore, jwt: JwtRules | None = None) -> None:
        self._store = store
        self._jwt = jwt
        self._key_client: Any = None

    def principal(self, token: str | None, now: datetime) -> Principal:
        """
        Raises:
            NotKnown: there is no token, or it does not count (any more).
        """
        if not token or len(token) > _LONGEST:
            raise NotKnown("Show a token: Authorization: Bearer obs_…  (obs-pipeline tokens create makes one).")
        if self._jwt is not None and token.count(".") == 2:
            return self._bearer_of_jwt(token, self._jwt)
        row = self._store.by_digest(digest_of(token))
        if row is None or not row.usable_at(now) or row.role not in ROLES:
            raise NotKnown("This token is not known, has expired or was revoked.")
        return Principal(row.name, row.role, row.org, row.projects)

    def _bearer_of_jwt(self, token: str, rules: JwtRules) -> Principal:
        import jwt

        try:
            claims = jwt.decode(
                token,
                self._key(token, rules),
                algorithms=list(rules.algorithms),
                audience=rules.audience,
                issuer=rules.issuer,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise NotKnown(f"The identity provider's token does not count: {error}.") from None
        return principal_of_claims(claims)

    def _key(self, token: str, rules: JwtRules) -> Any:
        if not (isinstance(rules.keys, str) and rules.keys.startswith(("http://", "https://"))):
            return rules.keys
        if self._key_client is None:
            import jwt

            self._key_client = jwt.PyJWKClient(rules.keys, timeout=5)
        return self._key_client.get_signing_key_from_jwt(token).key


def principal_of_claims(claims: Mapping[str, Any]) -> Principal:
    """
    Raises:
        NotKnown: the claims name no organisation or no role of ours.
    """
    role, org, projects = claims.get("obs_role", "viewer"), claims.get("obs_org"), claims.get("obs_projects", [])
    if role not in ROLES or not isinstance(org, str) or not org:
        raise NotKnown("The identity provider's token needs the claims obs_org and obs_role (viewer … admin).")
    if not isinstance(projects, list) or not all(isinstance(project, str) for project in projects):
        raise NotKnown("The claim obs_projects must be a list of names.")
    return Principal(str(claims["sub"]), role, org, tuple(projects))


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
    if role not in ROLES:
        raise AccessDenied(f"{role!r} is not a role; choose one of {', '.join(ROLES)}.")
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
