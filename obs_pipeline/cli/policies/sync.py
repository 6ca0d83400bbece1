"""``obs-pipeline policies`` sync, rollback: put policies into force, and how that ended.

No planning and no sending: that is ``policy.sync`` and the targets.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import errors, out, print_json, text
from obs_pipeline.cli.policies.ledger import MOST_SHOWN, NEEDS_ATTENTION, AsJson, more, said, show_edits
from obs_pipeline.cli.policies.targets import followers
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.policy.diff import PolicyDiff
    from obs_pipeline.policy.planning import Order, PolicyChange
    from obs_pipeline.policy.sync import SyncReport
    from obs_pipeline.policy.targets import TargetOutcome
    from obs_pipeline.storage.policy_store import PolicyStore

_LONGEST_NAME: Final = 200
_MARK: Final = {"create": "[green]+ create[/]", "update": "[yellow]~ update[/]", "delete": "[red]- delete[/]"}

Folder = Annotated[Path | None, typer.Option("--folder", help="The policy folder (default: OBS_POLICIES).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
Force = Annotated[
    bool, typer.Option("--force", help="Apply in spite of conflicts; still checked, and written to the audit log.")
]
Author = Annotated[str | None, typer.Option("--author", help="Who does it (default: the account).")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]


def sync(
    folder: Folder = None,
    dry_run: DryRun = False,
    projects: Annotated[str, typer.Option("--projects", help="Only these projects and their agents: a,b.")] = "",
    force: Force = False,
    resend: Annotated[
        bool, typer.Option("--resend", help="Send a LiteLLM proxy everything again, also what it took before.")
    ] = False,
    author: Author = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Put the policy files into force, all of them or none.

    Files that are in force already change nothing. Exits with 2 if a file cannot be used, with 3 if conflicts stop it,
    with 4 if someone else changed the policies at the same moment; what was in force then stays in force. A LiteLLM
    proxy that OBS_LITELLM_URL names is brought to the same state; exits with 3 if it does not take all of it.
    """
    from obs_pipeline.policy.sync import sync_folder
    from obs_pipeline.storage.policy_store import PolicyStore

    chosen = tuple(dict.fromkeys(name for each in projects.split(",") if (name := each.strip())))
    if projects and not chosen:
        raise ObsError("--projects: name at least one project, as in --projects atlas,beacon.")
    workspace, order = open_workspace(), _order(author, reason, chosen, force, dry_run)
    store, root = PolicyStore(workspace.ledger), folder or workspace.settings.policies
    report = sync_folder(root, store, order, utc_now, followers(workspace, resend=resend))
    _raise_or_end_incident(workspace, report)
    _finish(store, report, as_json)


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
    from obs_pipeline.storage.policy_store import PolicyStore

    order = _order(author, reason, (), force, dry_run)
    workspace = open_workspace()
    store, targets = PolicyStore(workspace.ledger), followers(workspace)
    if to_revision is not None and policy_id is None:
        report = roll_back(store, to_revision, order, utc_now, targets)
    elif policy_id is not None and version is not None and to_revision is None:
        report = roll_back_policy(store, policy_id, version, order, utc_now, targets)
    else:
        raise ObsError("Name a policy and its version, or a revision with --to-revision.")
    _finish(store, report, as_json)
    if report.outcome == "applied" and not as_json:
        out.print("The files are as they were: mend them too, or the next sync applies them again.")


def _order(author: str | None, reason: str, projects: tuple[str, ...], force: bool, dry_run: bool) -> Order:
    from obs_pipeline.policy.planning import Order

    who = author or _account()
    if len(who) > _LONGEST_NAME or not who.isprintable():
        raise ObsError(f"--author: write a name of at most {_LONGEST_NAME} printable characters.")
    return Order(who, reason.encode("utf-8", "replace").decode(), projects, force, dry_run)


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _raise_or_end_incident(workspace: Workspace, report: SyncReport) -> None:
    """A sync that conflicts stopped is an incident until one goes through."""
    from obs_pipeline.storage.alert_store import AlertStore

    if report.dry_run or report.errors:
        return
    stopped = report.outcome == "refused" and report.conflicts
    if not stopped and not AlertStore(workspace.ledger).incidents(("open", "acknowledged"), limit=1):
        return
    from obs_pipeline.alerting.passes import Findings, tell
    from obs_pipeline.alerting.signals import SYNC, sync_conflict

    now, messages = utc_now(), [conflict.message for conflict in report.conflicts]
    findings = Findings([sync_conflict(messages, now)]) if stopped else Findings(over={SYNC})
    tell(workspace.ledger, workspace.settings.policies, findings, now)


def _finish(store: PolicyStore, report: SyncReport, as_json: bool) -> None:
    """Show how it ended, and end with the code for it."""
    effect = _effect(store, report) if report.dry_run and report.changes else None
    if as_json:
        print_json(_plain_report(report, effect))
    else:
        _show_report(report, effect)
    if report.outcome == "refused":
        raise typer.Exit(ObsError.exit_code if report.errors else NEEDS_ATTENTION)
    if report.pending:
        raise typer.Exit(NEEDS_ATTENTION)


def _effect(store: PolicyStore, report: SyncReport) -> PolicyDiff:
    from obs_pipeline.policy.applied import applied_now
    from obs_pipeline.policy.diff import diff
    from obs_pipeline.policy.planning import after_changes

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
        "targets": [asdict(target) for target in report.targets],
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
    for change in report.changes[:MOST_SHOWN]:
        _show_change(change)
    more(len(report.changes))
    if effect is not None:
        _show_effect(effect)
    for conflict in report.conflicts:
        out.print(f"[red]conflict[/] {text(conflict.message)}; {text(conflict.mend)}", soft_wrap=True)
    for guard in report.guards:
        out.print(f"[red]guard[/] {text(guard)}", soft_wrap=True)
    out.print(_ending(report), soft_wrap=True)
    for target in report.targets:
        _show_target(target)


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
        show_edits(change.fields)


def _show_effect(effect: PolicyDiff) -> None:
    if not effect.fields:
        out.print("What holds is the same for everyone.")
        return
    table = Table("whose", "what", "before", "after", "", title="What holds differently", title_justify="left")
    for change in effect.fields[:MOST_SHOWN]:
        shown = (text(said(value)) for value in (change.before, change.after))
        table.add_row(text(change.place), str(change.field), *shown, change.direction)
    out.print(table)
    more(len(effect.fields))


def _show_target(target: TargetOutcome) -> None:
    from obs_pipeline.policy.ledger_target import LEDGER

    if target.target == LEDGER:
        return
    if target.waiting:
        waiting = ", ".join(target.waiting[:6]) + (" …" if len(target.waiting) > 6 else "")
        out.print(f"[yellow]{target.target} has no[/] {text(waiting)}: limited once there is one.", soft_wrap=True)
    if target.pending:
        why = f"{target.pending:,} settings pending: {text(target.failure)}. The next sync goes on."
        out.print(f"[bold red]{target.target}[/] took {target.changed:,} settings, {why}", soft_wrap=True)
    elif not target.changed:
        out.print(f"{target.target} holds revision {target.revision} already.")
    else:
        out.print(f"{target.target} took {target.changed:,} settings and holds revision {target.revision}.")
