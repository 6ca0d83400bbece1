"""``obs-pipeline policies`` history, applied: what came into force when, and what was in force."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.cli.policies.ledger import MOST_SHOWN, AsJson, Limit, moment, more, open_store, show_edits
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.policy.audit import HistoryStep
    from obs_pipeline.storage.policy_store import PolicyStore, Revision


def history(
    policy_id: Annotated[str | None, typer.Argument(help="One policy; the revisions if left out.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """What came into force when, by whom and why; for one policy, what each version changed."""
    from obs_pipeline.policy.audit import history as steps_of
    from obs_pipeline.policy.planning import SyncError

    with open_store() as store:
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


def applied(
    at: Annotated[datetime | None, moment("--at", "What was in force then; now if left out")] = None,
    revision: Annotated[int | None, typer.Option("--revision", min=1, help="What was in force as of it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Which policies are in force, or were at a moment or as of a revision."""
    from obs_pipeline.policy.applied import applied_at

    with open_store() as store:
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
    for each in versions[:MOST_SHOWN]:
        where = f"{each.file}:{each.line}"
        table.add_row(text(each.policy_id), str(each.version), str(each.revision), text(where))
    out.print(table)
    more(len(versions))


def _revision(store: PolicyStore, at: datetime | None, number: int | None) -> Revision | None:
    if number is None:
        return store.head() if at is None else store.revision_at(at)
    if at is not None:
        raise ObsError("Name a moment with --at or a revision with --revision, not both.")
    found = store.revision(number)
    if found is None:
        raise ObsError(f"There is no revision {number}; obs-pipeline policies history lists them.")
    return found


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
        show_edits(step.fields)
