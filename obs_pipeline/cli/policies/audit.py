"""``obs-pipeline policies audit``: who changed which policy when, proof that nothing was altered, and who may write."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.cli.policies.ledger import NEEDS_ATTENTION, AsJson, Limit, moment, open_store, said

if TYPE_CHECKING:
    from obs_pipeline.storage.policy_store import AuditEntry

app: Final = typer.Typer(
    name="audit",
    help="Who changed which policy when, and proof that nothing of it was altered. Without a command: the list.",
    invoke_without_command=True,
)

Since = Annotated[datetime | None, moment("--since", "From this moment on")]
Until = Annotated[datetime | None, moment("--until", "Before this moment")]
OfPolicy = Annotated[str | None, typer.Option("--policy", help="Only this policy.")]


@app.callback()
def audit_log(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    policy: OfPolicy = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Who changed which policy when, and proof that nothing of it was altered. Without a command: the list."""
    if context.invoked_subcommand is None:
        list_entries(since, until, policy, limit, as_json)


@app.command("list")
def list_entries(
    since: Since = None,
    until: Until = None,
    policy: OfPolicy = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Who did what when, the newest first."""
    with open_store() as store:
        entries = store.audit(since, until, policy)[::-1][:limit]
    if as_json:
        print_json([_plain_entry(entry) for entry in entries])
        return
    if not entries:
        out.print("The audit log has nothing there.")
        return
    table = Table("entry", "when (UTC)", "who", "did", "policy", "revision", "what")
    for entry in entries:
        when = f"{entry.at:%Y-%m-%d %H:%M:%S}"
        told = (text(entry.actor), entry.action, text(entry.subject), str(entry.revision), text(_what(entry)))
        table.add_row(str(entry.entry), when, *told)
    out.print(table)


@app.command()
def verify(
    expect: Annotated[
        str | None, typer.Option("--expect", help="The digest of an entry seen before; the log must still have it.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Verify an export instead of the ledger.")] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that no entry, version or revision was altered, removed, put in or moved. Exits with 3 if one was.

    Keep the digest it prints elsewhere: with --expect it proves next time that the end was not cut off either.
    """
    from obs_pipeline.policy.audit import read_export
    from obs_pipeline.policy.audit import verify as verify_log

    if file is not None:
        verdict = verify_log(read_export(file.read_text(encoding="utf-8"), str(file)), expected=expect)
    else:
        with open_store() as store:
            verdict = verify_log(store.audit(), store.versions(), store.revisions(), expect)
    if as_json:
        print_json({**asdict(verdict), "holds": verdict.holds})
    elif verdict.holds:
        out.print(f"[green]The audit log holds:[/] {verdict.entries} entries, the last with digest {verdict.head}.")
    else:
        out.print(f"[bold red]The audit log is broken:[/] {text(verdict.broken)}", soft_wrap=True)
    if not verdict.holds:
        raise typer.Exit(NEEDS_ATTENTION)


@app.command()
def export(
    file: Annotated[Path | None, typer.Option("--out", "-o", help="Write it here instead of printing it.")] = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Every entry as a JSON line, with its digest; a whole export can be verified without the ledger."""
    from obs_pipeline.policy.audit import exported

    with open_store() as store:
        lines = exported(store.audit(since, until))
    if file is None:
        print(lines, end="")  # noqa: T201
    else:
        file.write_text(lines, encoding="utf-8")
        out.print(f"Written to {text(file)}.")


@app.command("grants")
def show_grants(
    role: Annotated[str, typer.Argument(help="The database role that obs-pipeline connects as.")],
    schema: Annotated[str, typer.Option("--schema", help="Where the ledger's tables are.")] = "public",
) -> None:
    """The SQL that lets a PostgreSQL role do its work and only add to the audit log; for the owner of the tables to run.

    The role can neither change nor remove an entry then, nor give itself the right to. Run it again after an upgrade.
    """
    from obs_pipeline.storage.grants import grants

    print("\n".join(("BEGIN;", *grants(role, schema), "COMMIT;")))  # noqa: T201


def _plain_entry(entry: AuditEntry) -> dict[str, Any]:
    return {**asdict(entry), "detail": json.loads(entry.detail)}


def _what(entry: AuditEntry) -> str:
    detail = json.loads(entry.detail)
    if entry.action == "update":
        return "; ".join(f"{field}: {said(before)} → {said(after)}" for field, before, after in detail["fields"])
    if entry.action == "force":
        return "; ".join(detail["overruled"]) or "nothing had to be overruled"
    return str(detail.get("reason") or "")
