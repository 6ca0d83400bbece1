"""Tokens of an identity provider (OpenID Connect): whether one counts, and whom it names.

Here: the provider's keys, kept and fetched anew when they were rotated, the checks of a token, and the way from its claims to
a role, an organisation and projects of ours. Nothing that a provider says gives every organisation: a token that names none
opens nothing. Not who may do what with a role.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from obs_pipeline.dashboard.access import COLLECTOR, ROLES, NotKnown, Principal, Role
from obs_pipeline.errors import ObsError

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
"""Signatures with a key pair alone: one by a shared secret could be made with the public key."""

_GRANTED: Final[tuple[Role, ...]] = (COLLECTOR, *ROLES)
_KEPT: Final = 3600.0
_AT_MOST_EVERY: Final = 10.0
_LEEWAY: Final = 30
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class IdentityUnusable(ObsError):
    """The identity provider cannot be used as it is configured; the message says what to mend."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Which claims say what. A name with dots is a way into objects: ``realm_access.roles``.

    ``roles`` are what values of the role claim mean here; without any, the values are our roles themselves. Of several the
    highest counts.
    """

    org: str = "obs_org"
    role: str = "obs_role"
    projects: str = "obs_projects"
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """Whose tokens count: issuer and audience as they stand in them, and the keys' address or file (a JWKS)."""

    issuer: str
    audience: str
    keys: str
    claims: Claims = Claims()


class KeySet:
    """A provider's public keys by their id. One a process; safe across threads.

    They are read anew after an hour, and when a token names one that is not there, which is how rotation shows; never more
    often than every ten seconds, so that nobody can make this ask the provider at will. Keys that are held stay in use while
    the provider is away.
    """

    def __init__(self, where: str, ticks: Callable[[], float] = time.monotonic) -> None:
        self._where = where
        self._ticks = ticks
        self._lock = threading.Lock()
        self._keys: dict[str | None, Any] = {}
        self._read = self._tried = -math.inf

    def key(self, name: str | None) -> Any:
        """
        Raises:
            NotKnown: there is no such key, or the keys cannot be read.
        """
        with self._lock:
            now = self._ticks()
            old = now - self._read >= _KEPT
            if (old or name not in self._keys) and now - self._tried >= _AT_MOST_EVERY:
                self._tried = now
                self._keys, self._read = self._fetched(), now
            if name not in self._keys:
                raise NotKnown("The identity provider's token is signed with a key that the provider does not publish.")
            return self._keys[name]

    def _fetched(self) -> dict[str | None, Any]:
        import jwt

        try:
            found = jwt.PyJWKSet.from_dict(json.loads(_text(self._where)))
        except (OSError, ValueError, jwt.PyJWTError, AttributeError, TypeError) as error:
            if self._keys:
                return self._keys
            raise NotKnown(f"The identity provider's keys at {self._where} cannot be read: {error}.") from None
        keys: dict[str | None, Any] = {
            one.key_id: one for one in found.keys if one.public_key_use in (None, "sig") and one.key_type != "oct"
        }
        if len(keys) == 1:
            keys[None] = next(iter(keys.values()))
        return keys


class Identity:
    """Checks tokens by the rules.

    Raises:
        IdentityUnusable: the keys would be fetched without TLS, or a role is named that does not exist.
    """

    def __init__(self, rules: IdentityRules, ticks: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(rules.keys)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise IdentityUnusable(f"The keys at {rules.keys} would come without TLS; name an https address or a file.")
        if unknown := set(rules.claims.roles.values()) - set(_GRANTED):
            raise IdentityUnusable(f"{sorted(unknown)[0]!r} is not a role; choose one of {', '.join(_GRANTED)}.")
        self._rules = rules
        self._keys = KeySet(rules.keys, ticks)

    def principal(self, token: str) -> Principal:
        """
        Raises:
            NotKnown: the token does not count, or names no organisation or role.
        """
        import jwt

        rules = self._rules
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError("it is not signed with a key pair")
            claims = jwt.decode(
                token,
                self._keys.key(header.get("kid")),
                algorithms=ALGORITHMS,
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise NotKnown(f"The identity provider's token does not count: {error}.") from None
        return principal_of(claims, rules.claims)


def principal_of(claims: Mapping[str, Any], names: Claims) -> Principal:
    """
    Raises:
        NotKnown: the claims name no organisation, or no role of ours.
    """
    org, projects = _claim(claims, names.org), _claim(claims, names.projects)
    if not isinstance(org, str) or not org:
        raise NotKnown(f"The identity provider's token needs the claim {names.org}: the organisation.")
    projects = [] if projects is None else projects
    if not isinstance(projects, list) or not all(isinstance(project, str) and project for project in projects):
        raise NotKnown(f"The claim {names.projects} must be a list of names.")
    role = _role(_claim(claims, names.role), names)
    return Principal(str(claims["sub"]), role, org, tuple(projects), str(claims["iss"])[:200])


def _role(said: Any, names: Claims) -> Role:
    if said is None and not names.roles:
        return "viewer"
    values: Sequence[Any] = said if isinstance(said, list) else [said]
    meant = {names.roles.get(value) if names.roles else value for value in values if isinstance(value, str)}
    found = [role for role in _GRANTED if role in meant]
    if not found:
        raise NotKnown(f"The claim {names.role} names no role here ({', '.join(names.roles or _GRANTED)}).")
    return found[-1]


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or, where there is none, by the way of its parts."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _text(where: str) -> str:
    if not where.startswith(("http://", "https://")):
        return Path(where).read_text(encoding="utf-8")
    import httpx2

    try:
        answered = httpx2.get(where, timeout=5, follow_redirects=False)
        answered.raise_for_status()
    except httpx2.HTTPError as error:
        raise OSError(str(error)) from None
    return answered.text
