"""``obs-pipeline policies``: put the policy files into force, and what was in force before.

Belongs here: the commands that write the ledger or read its history, and how they look. Questions that only read the
files are in ``policy_questions``. No planning, no hashing: that is ``policy.sync`` and ``policy.audit``.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import errors, out, print_json, text
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.policy.applied import FieldEdit
    from obs_pipeline.policy.audit import HistoryStep
    from obs_pipeline.policy.diff import PolicyDiff
    from obs_pipeline.policy.sync import Order, PolicyChange, SyncReport
    from obs_pipeline.storage.policy_store import AuditEntry, PolicyStore, Revision

app: Final = typer.Typer(
    name="policies",
    help="Budget policies as code: check them, put them into force, see what holds and what ever held.",
    no_args_is_help=True,
)
audit: Final = typer.Typer(
    name="audit",
    help="Who changed which policy when, and proof that nothing of it was altered. Without a command: the list.",
    invoke_without_command=True,
)
app.add_typer(audit)

_SHOWN: Final = 40
_NEEDS_ATTENTION: Final = 3
_LONGEST_NAME: Final = 200
_FORMATS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]
_MARK: Final = {"create": "[green]+ create[/]", "update": "[yellow]~ update[/]", "delete": "[red]- delete[/]"}

Folder = Annotated[Path | None, typer.Option("--folder", help="The policy folder (default: OBS_POLICIES).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
Force = Annotated[
    bool, typer.Option("--force", help="Apply in spite of conflicts; still checked, and written to the audit log.")
]
Author = Annotated[str | None, typer.Option("--author", help="Who does it (default: the account).")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many, the newest first.")]


def _moment(name: str, says: str) -> Any:
    return typer.Option(name, formats=_FORMATS, help=f"{says} (UTC).")


Since = Annotated[datetime | None, _moment("--since", "From this moment on")]
Until = Annotated[datetime | None, _moment("--until", "Before this moment")]
OfPolicy = Annotated[str | None, typer.Option("--policy", help="Only this policy.")]


@app.command()
def sync(
    folder: Folder = None,
    dry_run: DryRun = False,
    projects: Annotated[str, typer.Option("--projects", help="Only these projects and their agents: a,b.")] = "",
    force: Force = False,
    author: Author = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Put the policy files into force, all of them or none.

    Files that are in force already change nothing. Exits with 2 if a file cannot be used, with 3 if conflicts stop it,
    with 4 if someone else changed the policies at the same moment; what was in force then stays in force.
    """
    from obs_pipeline.policy.sync import sync_folder

    chosen = tuple(dict.fromkeys(name for each in projects.split(",") if (name := each.strip())))
    if projects and not chosen:
        raise ObsError("--projects: name at least one project, as in --projects atlas,beacon.")
    with _store() as store:
        root = folder or open_workspace().settings.policies
        _finish(store, sync_folder(root, store, _order(author, reason, chosen, force, dry_run), utc_now), as_json)


@app.command()
def rollback(
    policy_id: Annotated[str | None, typer.Argument(help="One policy; with VERSION.")] = None,
    version: Annotated[int | None, typer.Argument(help="The version to bring back.", min=1)] = None,
    to_revision: Annotated[
        int | None, typer.Option("--to-revision", min=0, help="Bring back everything as of this revision.")
    ] = None,
    dry_run: DryRun = False,
    force: Force = False,
    author: Author = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Bring back an earlier version of a policy, or with --to-revision everything as of then, as a new revision.

    The files stay as they are: mend them too, or the next sync applies them again.
    """
    from obs_pipeline.policy.rollback import roll_back, roll_back_policy

    order = _order(author, reason, (), force, dry_run)
    with _store() as store:
        if to_revision is not None and policy_id is None:
            report = roll_back(store, to_revision, order, utc_now)
        elif policy_id is not None and version is not None and to_revision is None:
            report = roll_back_policy(store, policy_id, version, order, utc_now)
        else:
            raise ObsError("Name a policy and its version, or a revision with --to-revision.")
        _finish(store, report, as_json)
    if report.outcome == "applied" and not as_json:
        out.print("The files are as they were: mend them too, or the next sync applies them again.")


@app.command()
def history(
    policy_id: Annotated[str | None, typer.Argument(help="One policy; the revisions if left out.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """What came into force when, by whom and why; for one policy, what each version changed."""
    from obs_pipeline.policy.audit import history as steps_of
    from obs_pipeline.policy.sync import SyncError

    with _store() as store:
        if policy_id is None:
            _show_revisions(store.revisions(limit), as_json)
            return
        versions = store.versions_of(policy_id)
        if not versions:
            raise SyncError(f"No policy {policy_id!r} was ever in force.")
        steps = steps_of(versions, {one.revision: one for one in store.revisions()})[::-1][:limit]
    if as_json:
        print_json([asdict(step) for step in steps])
        return
    for step in steps:
        _show_step(step)


@app.command()
def applied(
    at: Annotated[datetime | None, _moment("--at", "What was in force then; now if left out")] = None,
    revision: Annotated[int | None, typer.Option("--revision", min=1, help="What was in force as of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which policies are in force, or were at a moment or as of a revision."""
    from obs_pipeline.policy.applied import applied_at

    with _store() as store:
        found = _revision(store, at, revision)
        versions = [] if found is None else list(applied_at(store, found.revision).in_force.values())
    if as_json:
        print_json(
            {
                "revision": None if found is None else asdict(found),
                "policies": [{**asdict(each), "content": json.loads(each.content or "")} for each in versions],
            }
        )
        return
    if found is None:
        out.print("No policy was in force. [dim]obs-pipeline policies sync puts the files into force.[/]")
        return
    table = Table("policy", "version", "since revision", "from", title=f"Revision {found.revision}")
    for each in versions[:_SHOWN]:
        where = f"{each.file}:{each.line}"
        table.add_row(text(each.policy_id), str(each.version), str(each.revision), text(where))
    out.print(table)
    _more(len(versions))


@audit.callback()
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


@audit.command("list")
def list_entries(
    since: Since = None,
    until: Until = None,
    policy: OfPolicy = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Who did what when, the newest first."""
    with _store() as store:
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
        told = (text(entry.actor), entry.action, text(entry.subject), str(entry.revision), text(_said(entry)))
        table.add_row(str(entry.entry), when, *told)
    out.print(table)


@audit.command()
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
        with _store() as store:
            verdict = verify_log(store.audit(), store.versions(), store.revisions(), expect)
    if as_json:
        print_json({**asdict(verdict), "holds": verdict.holds})
    elif verdict.holds:
        out.print(f"[green]The audit log holds:[/] {verdict.entries} entries, the last with digest {verdict.head}.")
    else:
        out.print(f"[bold red]The audit log is broken:[/] {text(verdict.broken)}", soft_wrap=True)
    if not verdict.holds:
        raise typer.Exit(_NEEDS_ATTENTION)


@audit.command()
def export(
    file: Annotated[Path | None, typer.Option("--out", "-o", help="Write it here instead of printing it.")] = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Every entry as a JSON line, with its digest; a whole export can be verified without the ledger."""
    from obs_pipeline.policy.audit import exported

    with _store() as store:
        lines = exported(store.audit(since, until))
    if file is None:
        print(lines, end="")  # noqa: T201
    else:
        file.write_text(lines, encoding="utf-8")
        out.print(f"Written to {text(file)}.")


@contextmanager
def _store() -> Iterator[PolicyStore]:
    from obs_pipeline.storage.policy_store import PolicyStore

    ledger = open_workspace().ledger
    try:
        yield PolicyStore(ledger)
    finally:
        ledger.close()


def _order(author: str | None, reason: str, projects: tuple[str, ...], force: bool, dry_run: bool) -> Order:
    from obs_pipeline.policy.sync import Order

    who = author or _account()
    if len(who) > _LONGEST_NAME or not who.isprintable():
        raise ObsError(f"--author: write a name of at most {_LONGEST_NAME} printable characters.")
    return Order(who, reason.encode("utf-8", "replace").decode(), projects, force, dry_run)


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _revision(store: PolicyStore, at: datetime | None, number: int | None) -> Revision | None:
    if number is None:
        return store.head() if at is None else store.revision_at(at)
    if at is not None:
        raise ObsError("Name a moment with --at or a revision with --revision, not both.")
    found = store.revision(number)
    if found is None:
        raise ObsError(f"There is no revision {number}; obs-pipeline policies history lists them.")
    return found


def _finish(store: PolicyStore, report: SyncReport, as_json: bool) -> None:
    """Show how it ended, and end with the code for it."""
    effect = _effect(store, report) if report.dry_run and report.changes else None
    if as_json:
        print_json(_plain_report(report, effect))
    else:
        _show_report(report, effect)
    if report.outcome == "refused":
        raise typer.Exit(ObsError.exit_code if report.errors else _NEEDS_ATTENTION)


def _effect(store: PolicyStore, report: SyncReport) -> PolicyDiff:
    from obs_pipeline.policy.applied import applied_now
    from obs_pipeline.policy.diff import diff
    from obs_pipeline.policy.sync import after_changes

    before = applied_now(store)
    return diff(before.policies(), after_changes(before, report.changes), utc_now())


def _plain_report(report: SyncReport, effect: PolicyDiff | None) -> dict[str, Any]:
    told = {name: getattr(report, name) for name in ("outcome", "revision", "total", "synced", "skipped", "forced")}
    return {
        **told,
        "dry_run": report.dry_run,
        "duration": report.duration,
        "errors": [asdict(problem) for problem in report.errors],
        "conflicts": [asdict(conflict) for conflict in report.conflicts],
        "guards": report.guards,
        "changes": [
            {
                "policy": change.id,
                "action": change.action,
                "version": change.version,
                "file": change.file,
                "line": change.line,
                "fields": [asdict(edit) for edit in change.fields],
            }
            for change in report.changes
        ],
        "effect": [] if effect is None else [_plain_effect(each) for each in effect.fields],
    }


def _plain_effect(change: Any) -> dict[str, Any]:
    return {
        "place": str(change.place),
        "field": str(change.field),
        "direction": change.direction,
        "before": change.before,
        "after": change.after,
    }


def _show_report(report: SyncReport, effect: PolicyDiff | None) -> None:
    for problem in report.errors:
        errors.print(f"[bold red]error:[/] {text(problem)}", highlight=False, soft_wrap=True)
    for change in report.changes[:_SHOWN]:
        _show_change(change)
    _more(len(report.changes))
    if effect is not None:
        _show_effect(effect)
    for conflict in report.conflicts:
        out.print(f"[red]conflict[/] {text(conflict.message)}; {text(conflict.mend)}", soft_wrap=True)
    for guard in report.guards:
        out.print(f"[red]guard[/] {text(guard)}", soft_wrap=True)
    out.print(_ending(report), soft_wrap=True)


def _ending(report: SyncReport) -> str:
    seconds = report.duration.total_seconds()
    if report.outcome == "unchanged":
        return f"Nothing to do: {report.total} policies are in force as revision {report.revision} ({seconds:.1f} s)."
    if report.outcome == "planned":
        return f"Would change {report.synced} and leave {report.skipped}. Nothing was applied."
    if report.outcome == "refused":
        how = "Mend the files." if report.errors else "Mend them, or say --force."
        stays = f"revision {report.revision} stays in force" if report.revision else "nothing is in force yet"
        return f"[bold red]Refused:[/] nothing was applied, {stays}. {how}"
    forced = " in spite of conflicts" if report.forced else ""
    done = f"{report.synced} policies changed, {report.skipped} left as they are ({seconds:.1f} s)"
    return f"[green]Revision {report.revision} is in force[/]{forced}: {done}."


def _show_change(change: PolicyChange) -> None:
    where = f"{change.file}:{change.line}"
    out.print(
        f"{_MARK[change.action]} {text(change.id)} [dim]version {change.version}, {text(where)}[/]", soft_wrap=True
    )
    if change.action == "update":
        _show_edits(change.fields)


def _show_edits(edits: Iterable[FieldEdit]) -> None:
    for edit in edits:
        before, after = (_shown(value) for value in (edit.before, edit.after))
        out.print(f"    {text(edit.field)}: {text(before)} → {text(after)}", highlight=False, soft_wrap=True)


def _show_effect(effect: PolicyDiff) -> None:
    if not effect.fields:
        out.print("What holds is the same for everyone.")
        return
    table = Table("whose", "what", "before", "after", "", title="What holds differently", title_justify="left")
    for change in effect.fields[:_SHOWN]:
        shown = (text(_shown(value)) for value in (change.before, change.after))
        table.add_row(text(change.place), str(change.field), *shown, change.direction)
    out.print(table)
    _more(len(effect.fields))


def _show_revisions(revisions: list[Revision], as_json: bool) -> None:
    if as_json:
        print_json([asdict(revision) for revision in revisions])
        return
    if not revisions:
        out.print("No policy was ever in force. [dim]obs-pipeline policies sync puts the files into force.[/]")
        return
    table = Table("revision", "when (UTC)", "what", "who", "why", "policies")
    for one in revisions:
        kind = f"{one.kind}, forced" if one.forced else one.kind
        when = f"{one.applied_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(one.revision), when, kind, text(one.author), text(one.reason), f"{one.policies:,}")
    out.print(table)


def _show_step(step: HistoryStep) -> None:
    what = "removed" if step.removed else f"from {step.file}:{step.line}"
    why = f": {step.reason}" if step.reason else ""
    told = f"revision {step.revision}, {step.at:%Y-%m-%d %H:%M:%S} UTC, {step.author}{why}; {what}"
    out.print(f"[bold]version {step.version}[/] {text(told)}", highlight=False, soft_wrap=True)
    if not step.removed:
        _show_edits(step.fields)


def _plain_entry(entry: AuditEntry) -> dict[str, Any]:
    return {**asdict(entry), "detail": json.loads(entry.detail)}


def _said(entry: AuditEntry) -> str:
    detail = json.loads(entry.detail)
    if entry.action == "update":
        return "; ".join(f"{field}: {_shown(before)} → {_shown(after)}" for field, before, after in detail["fields"])
    if entry.action == "force":
        return "; ".join(detail["overruled"]) or "nothing had to be overruled"
    return str(detail.get("reason") or "")


def _shown(value: object) -> str:
    if value is None:
        return "—"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _more(count: int) -> None:
    if count > _SHOWN:
        out.print(f"[dim]{_SHOWN} of {count:,} shown; --json has them all.[/]")
