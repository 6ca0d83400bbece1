"""``obs-pipeline serve``, ``mcp`` and ``tokens``: the dashboard's data over HTTP and MCP, and who may ask for it."""

from __future__ import annotations

import ipaddress
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.ledger import Ledger

if TYPE_CHECKING:
    from obs_pipeline.dashboard.identity import Identity
    from obs_pipeline.dashboard.service import Service
    from obs_pipeline.dashboard.snapshot import Reader
    from obs_pipeline.detection.explanations import Explanation
    from obs_pipeline.detection.models import Anomaly
    from obs_pipeline.settings import Settings

tokens = typer.Typer(name="tokens", help="Access tokens of the dashboard.", no_args_is_help=True)

_LOOK_AGAIN: Final = 0.1
"""Seconds for which a look at tokens, lake and ledger serves all who ask."""
_LOCKED: Final = 3.0
"""Seconds a ledger that another process holds locked is waited for before the answer is that it is."""
_PATIENCE: Final = 0.02
"""Seconds a question waits for a new version of the lake; while it is copied, the one before answers."""


class NotServed(ObsError):
    """The dashboard is not served as it was asked for."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8770,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A host name it may be called by, beside the address.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Where answers are kept: mem:// or redis://host:port/0 (OBS_CACHE_URL).")
    ] = None,
    writes: Annotated[
        bool | None, typer.Option(help="Let editors acknowledge, silence and label (OBS_DASHBOARD_WRITES).")
    ] = None,
    jwt_issuer: Annotated[
        str | None, typer.Option(help="Issuer of OIDC tokens that count too (OBS_JWT_ISSUER).")
    ] = None,
    jwt_audience: Annotated[str | None, typer.Option(help="Their audience (OBS_JWT_AUDIENCE).")] = None,
    jwt_keys: Annotated[
        str | None, typer.Option(help="Address or file of the issuer's key set, a JWKS (OBS_JWT_KEYS).")
    ] = None,
    per_minute: Annotated[int, typer.Option(min=1, help="Requests a minute with one token.")] = 600,
) -> None:
    """Serve the **dashboard**: the page at `/`, JSON under `/api`, MCP under `/mcp`; take in OTLP under `/v1`.

    Stop it with Ctrl-C.

    At the first start on this machine's own address a token is made and shown once.
    """
    import uvicorn

    from obs_pipeline.dashboard.access import Gate, RateLimit
    from obs_pipeline.dashboard.http.app import http_app
    from obs_pipeline.dashboard.http.otlp_receiver import receiving_routes
    from obs_pipeline.storage.access_store import AccessStore
    from obs_pipeline.usage.receiving.receiver import Receiver

    workspace = open_workspace()
    workspace = replace(workspace, ledger=Ledger(workspace.settings.ledger, patience=_LOCKED))
    identity = _identity(workspace.settings, jwt_issuer, jwt_audience, jwt_keys)
    store = AccessStore(workspace.ledger)
    first = _make_sure_of_a_token(store, host) if identity is None else None
    gate = Gate(store, identity.principal if identity else None, look_again=_LOOK_AGAIN)
    allowed = workspace.settings.dashboard_writes if writes is None else writes
    service = _service(workspace, cache or workspace.settings.cache_url, allowed)
    hosts = ["127.0.0.1", "localhost", "[::1]", host, *(name or [])]
    limit = RateLimit(per_minute, burst=max(per_minute // 3, 10))
    settings, at = workspace.settings, f"http://{host}:{port}"
    # The server raises a signal that ended it once more; by default that would end this before the receiver is closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with Receiver(settings.spool, settings.landing, settings.policies / "sources", utc_now) as receiver:
        routes = receiving_routes(receiver)
        app = http_app(service, gate, clock=utc_now, hosts=hosts, limit=limit, version=_version(), more_routes=routes)
        out.print(f"The dashboard is at [bold]{at}/[/], its numbers at {at}/api.")
        out.print(f"Assistants connect to {at}/mcp, exporters of OTLP to {at}.")
        if first:
            out.print(f"Opened with that token: {at}/#token={first}", highlight=False, soft_wrap=True)
        uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, server_header=False)


def mcp() -> None:
    """Answer an assistant over **MCP** on standard input and output, as whoever runs this command."""
    from obs_pipeline.dashboard.access import LOCAL
    from obs_pipeline.dashboard.mcp_server import mcp_server

    workspace = open_workspace()
    service = _service(workspace, "mem://", workspace.settings.dashboard_writes)
    mcp_server(service, lambda _context: LOCAL, _version()).run("stdio")


@tokens.callback()
def about_tokens() -> None:
    """Access tokens of the dashboard."""


@tokens.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Whose or what it is for.", min=1)],
    role: Annotated[str, typer.Option(help="viewer, analyst, editor or admin; collector only sends.")] = "viewer",
    org: Annotated[str | None, typer.Option(help="The organisation it sees (default: every one).")] = None,
    project: Annotated[list[str] | None, typer.Option(help="Only this project of it; may be repeated.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3660, help="It expires after so many days.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Make a **token**. It is shown now and never again; only its digest is kept."""
    from obs_pipeline.dashboard.access import create_token
    from obs_pipeline.storage.access_store import AccessStore

    store = AccessStore(open_workspace().ledger)
    valid_for = None if days is None else timedelta(days=days)
    token, row = create_token(
        store, utc_now(), name=name[:200], role=role, org=org, projects=project or [], valid_for=valid_for
    )
    if as_json:
        print_json({"id": row.id, "name": row.name, "role": row.role, "org": row.org, "token": token})
        return
    out.print(f"Token {row.id} for {text(row.name)}, {row.role} of {text(row.org or 'every organisation')}:")
    out.print(token, highlight=False, soft_wrap=True)


@tokens.command("list")
def list_tokens(as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False) -> None:
    """List the **tokens**, revoked and expired ones too."""
    from obs_pipeline.storage.access_store import AccessStore

    now = utc_now()
    shown = ("id", "name", "role", "org", "projects", "created_at", "expires_at", "revoked_at")
    rows = [
        {**{name: getattr(row, name) for name in shown}, "usable": row.usable_at(now)}
        for row in AccessStore(open_workspace().ledger).tokens()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("id", "name", "role", "organisation", "projects", "usable")
    for row in rows:
        projects = ", ".join(row["projects"]) or "all"
        table.add_row(
            row["id"],
            text(row["name"]),
            row["role"],
            text(row["org"] or "every one"),
            text(projects),
            "yes" if row["usable"] else "no",
        )
    out.print(table)


@tokens.command("revoke")
def revoke(token_id: Annotated[str, typer.Argument(help="Its id, as listed.")]) -> None:
    """Revoke a **token**: from now on it opens nothing."""
    from obs_pipeline.storage.access_store import AccessStore

    if not AccessStore(open_workspace().ledger).revoke(token_id, utc_now()):
        raise NotServed(f"There is no token {token_id} that still counts; see obs-pipeline tokens list.")
    out.print(f"Revoked {text(token_id)}.")


def _identity(settings: Settings, issuer: str | None, audience: str | None, keys: str | None) -> Identity | None:
    from obs_pipeline.dashboard.identity import Claims, Identity, IdentityRules

    issuer, keys = issuer or settings.jwt_issuer, keys or settings.jwt_keys
    if issuer is None and keys is None:
        return None
    if issuer is None or keys is None:
        raise NotServed("Name both --jwt-issuer and --jwt-keys, or neither.")
    names = (settings.jwt_org_claim, settings.jwt_role_claim, settings.jwt_projects_claim)
    return Identity(IdentityRules(issuer, audience or settings.jwt_audience, keys, Claims(*names, settings.jwt_roles)))


def _make_sure_of_a_token(store: object, host: str) -> str | None:
    """The token, if there was none that counts and this made one."""
    from obs_pipeline.dashboard.access import create_token
    from obs_pipeline.storage.access_store import AccessStore

    assert isinstance(store, AccessStore)
    if any(row.usable_at(utc_now()) for row in store.tokens()):
        return None
    if not _is_loopback(host):
        raise NotServed(
            f"Nothing is served to {host} without a token. Make one first: obs-pipeline tokens create NAME --org ORG"
        )
    token, _row = create_token(store, utc_now(), name="first start", role="admin")
    out.print("A token for this machine, shown once (obs-pipeline tokens create makes others):")
    out.print(token, highlight=False, soft_wrap=True)
    return token


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _service(workspace: Workspace, cache: str, writes: bool) -> Service:
    from obs_pipeline.dashboard.service import Service
    from obs_pipeline.dashboard.snapshot import Snapshot

    settings = workspace.settings
    snapshot = Snapshot(
        workspace.lake,
        memory_limit=settings.engine_memory,
        threads=settings.engine_threads,
        scratch=settings.scratch / "dashboard",
        look_again=_LOOK_AGAIN,
    )
    lateness = timedelta(hours=settings.allowed_lateness_hours)
    return Service(
        snapshot,
        workspace.ledger,
        lateness=lateness,
        cache_url=cache,
        look_again=_LOOK_AGAIN,
        patience=_PATIENCE,
        writes=utc_now if writes else None,
        explain=partial(_explanation, workspace),
    )


def _explanation(workspace: Workspace, reader: Reader, anomaly: Anomaly) -> Explanation:
    """By the look-back and the prices of now."""
    from obs_pipeline.dashboard.explaining import explained_from
    from obs_pipeline.detection.batch import settings_in
    from obs_pipeline.detection.explanations import list_rates

    lookback_days = settings_in(workspace.settings.policies).lookback_days
    return explained_from(reader, anomaly, lookback_days, partial(list_rates, workspace.prices()))


def _version() -> str:
    from importlib.metadata import version

    return version("obs-pipeline")
