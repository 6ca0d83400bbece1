"""Tokens of an identity provider, signed with keys made here and checked by a key set that a local server publishes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from obs_pipeline.dashboard.access import Gate, NotKnown, Principal
from obs_pipeline.dashboard.identity import Claims, Identity, IdentityRules, IdentityUnusable
from obs_pipeline.storage.access_store import AccessStore
from obs_pipeline.storage.ledger import Ledger

NOON = datetime(2026, 3, 2, 12)
ISSUER = "https://idp.example"
ONE = rsa.generate_private_key(65537, 2048)
OTHER = rsa.generate_private_key(65537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())


def published(**keys: Any) -> dict[str, Any]:
    """The key set of some private keys by their ids."""
    found = []
    for name, key in keys.items():
        algorithm: Any = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
        found.append({**json.loads(algorithm.to_jwk(key.public_key())), "kid": name, "use": "sig"})
    return {"keys": found}


class Provider:
    """Publishes a key set on the loopback address; ``asked`` counts how often it was read."""

    def __init__(self) -> None:
        self.keys = published(one=ONE, curve=CURVE)
        self.status = 200
        self.asked = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                body = json.dumps(provider.keys).encode()
                self.send_response(provider.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Ticks:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


def signed(key: Any = ONE, kid: str | None = "one", algorithm: str = "RS256", **changed: object) -> str:
    claims = {"iss": ISSUER, "aud": "obs", "sub": "ann", "exp": datetime.now(UTC) + timedelta(minutes=5)}
    claims |= {"obs_org": "acme", "obs_role": "analyst", "obs_projects": ["atlas"]}
    kept = {name: value for name, value in (claims | changed).items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={} if kid is None else {"kid": kid})


def identity(keys: str, ticks: Ticks | None = None, claims: Claims = Claims()) -> Identity:  # noqa: B008
    return Identity(IdentityRules(ISSUER, "obs", keys, claims), ticks or Ticks())


def test_a_token_counts_by_the_key_that_the_provider_publishes(provider: Provider, tmp_path: Path):
    gate = Gate(AccessStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")), identity(provider.url).principal)
    ann = Principal("ann", "analyst", "acme", ("atlas",))
    assert gate.principal(signed(), NOON) == ann
    assert gate.principal(signed(CURVE, "curve", "ES256"), NOON) == ann
    assert gate.principal(signed(), NOON).token == ISSUER


def test_the_keys_may_lie_in_a_file(tmp_path: Path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(published(one=ONE)))
    assert identity(str(path)).principal(signed()).org == "acme"
    assert identity(str(path)).principal(signed(kid=None)).org == "acme", "of one key no name is needed"


def test_keys_are_fetched_once_for_many_tokens_and_again_after_an_hour(provider: Provider):
    ticks = Ticks()
    checks = identity(provider.url, ticks)
    for _ in range(20):
        checks.principal(signed())
    assert provider.asked == 1
    ticks.now += 3600
    checks.principal(signed())
    assert provider.asked == 2


def test_a_rotated_key_is_found_and_the_old_one_ends(provider: Provider):
    ticks = Ticks()
    checks = identity(provider.url, ticks)
    checks.principal(signed())
    provider.keys = published(two=OTHER)
    ticks.now += 10
    assert checks.principal(signed(OTHER, "two")).name == "ann"
    with pytest.raises(NotKnown):
        checks.principal(signed())


def test_unknown_keys_cannot_make_this_ask_the_provider_at_will(provider: Provider):
    checks = identity(provider.url)
    for number in range(20):
        with pytest.raises(NotKnown, match="does not publish"):
            checks.principal(signed(OTHER, f"made-up-{number}"))
    assert provider.asked == 1


def test_keys_stay_in_use_while_the_provider_is_away_and_are_fetched_when_it_is_back(provider: Provider):
    ticks = Ticks()
    checks = identity(provider.url, ticks)
    provider.status = 500
    with pytest.raises(NotKnown, match="cannot be read"):
        checks.principal(signed())
    provider.status = 200
    ticks.now += 10
    checks.principal(signed())
    provider.status = 500
    ticks.now += 7200
    assert checks.principal(signed()).name == "ann"


def forged() -> str:
    """Signed with the public key as if that were a shared secret."""
    import base64
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    secret = ONE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": ISSUER, "aud": "obs", "sub": "eve", "exp": 4e9, "obs_org": "acme", "obs_role": "admin"}
    head = part({"alg": "HS256", "typ": "JWT", "kid": "one"}) + b"." + part(claims)
    mac = base64.urlsafe_b64encode(hmac.new(secret, head, hashlib.sha256).digest()).rstrip(b"=")
    return (head + b"." + mac).decode()


def do_not_count() -> dict[str, tuple[str, str]]:
    """Tokens made now, as some are about to end or to begin, and what is said of each."""
    later, before = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (5, -5))
    return {
        "another key": (signed(OTHER), "does not count"),
        "another issuer": (signed(iss="https://evil.example"), "does not count"),
        "another audience": (signed(aud="other"), "does not count"),
        "no audience": (signed(aud=None), "does not count"),
        "no end": (signed(exp=None), "does not count"),
        "no subject": (signed(sub=None), "does not count"),
        "expired": (signed(exp=before), "does not count"),
        "not yet": (signed(nbf=later), "does not count"),
        "no key named": (signed(kid=None), "does not publish"),
        "no organisation": (signed(obs_org=None), "obs_org"),
        "an empty organisation": (signed(obs_org=""), "obs_org"),
        "several organisations": (signed(obs_org=["acme"]), "obs_org"),
        "a role that is none": (signed(obs_role="owner"), "obs_role"),
        "a role that is no name": (signed(obs_role=7), "obs_role"),
        "projects that are no list": (signed(obs_projects="atlas"), "obs_projects"),
        "projects that are no names": (signed(obs_projects=[1]), "obs_projects"),
        "no signature": (
            jwt.encode({"sub": "ann", "obs_org": "acme"}, "", algorithm="none", headers={"kid": "one"}),
            "key pair",
        ),
        "the public key as a secret": (forged(), "key pair"),
        "nonsense": ("a.b.c", "does not count"),
        "nothing": ("..", "does not count"),
    }


@pytest.mark.parametrize("name", do_not_count())
def test_a_forged_foreign_or_unbound_token_does_not_count(provider: Provider, name: str):
    token, says = do_not_count()[name]
    with pytest.raises(NotKnown, match=says):
        identity(provider.url).principal(token)


@pytest.mark.parametrize(
    ("said", "roles", "role"),
    [
        ({"obs_role": None}, {}, "viewer"),
        ({"obs_role": "collector"}, {}, "collector"),
        ({"obs_role": ["viewer", "editor", "other"]}, {}, "editor"),
        ({"obs_role": ["fin-ops", "everyone"]}, {"fin-ops": "analyst", "everyone": "viewer"}, "analyst"),
        ({"obs_role": None, "realm_access": {"roles": ["fin-ops"]}}, {"fin-ops": "admin"}, "admin"),
        ({"obs_role": ["admin"]}, {"fin-ops": "analyst"}, None),
        ({"obs_role": None}, {"fin-ops": "analyst"}, None),
    ],
)
def test_the_provider_s_groups_become_our_roles(provider: Provider, said, roles, role):
    name = "realm_access.roles" if "realm_access" in said else "obs_role"
    checks = identity(provider.url, claims=Claims(role=name, roles=roles))
    if role is None:
        with pytest.raises(NotKnown):
            checks.principal(signed(**said))
    else:
        assert checks.principal(signed(**said)).role == role


def test_claims_may_have_other_names(provider: Provider):
    claims = Claims(org="https://acme.example/tenant", projects="teams")
    told = {"https://acme.example/tenant": "globex", "teams": ["a", "b"], "obs_org": None}
    found = identity(provider.url, claims=claims).principal(signed(**told))
    assert (found.org, found.projects) == ("globex", ("a", "b"))


def test_what_cannot_be_safe_is_refused_at_the_start():
    with pytest.raises(IdentityUnusable, match="TLS"):
        identity("http://idp.example/jwks")
    with pytest.raises(IdentityUnusable, match="owner"):
        identity("keys.json", claims=Claims(roles={"x": "owner"}))
