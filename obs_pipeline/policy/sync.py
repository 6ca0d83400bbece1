"""Bringing policies into force: what would change, whether it may, and the one transaction that does it.

Planning is pure. Applying writes a new revision with its versions and audit entries, all or nothing, and only if what
was planned against is still in force. Reading files, resolving and hashing are other modules' business.

What stops a sync
-----------------
- Any problem in the folder: what is in force stays in force. ``force`` does not lift this.
- A conflict between the policies that would be in force, and a folder without a policy while some are in force.
  ``force`` lifts both, and the audit log says so.
- Another change since the plan was made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from obs_pipeline.errors import ObsError
from obs_pipeline.policy.applied import (
    Applied,
    FieldEdit,
    applied_now,
    content_of,
    digest_of,
    edits,
    set_digest,
    sourced,
)
from obs_pipeline.policy.audit import Draft, chained, revision_detail
from obs_pipeline.policy.documents import MAX_BYTES, SUFFIXES
from obs_pipeline.policy.effective import Conflict
from obs_pipeline.policy.files import FOLDERS, ORG_STEM, files_below, load_policies, name_in
from obs_pipeline.policy.problems import Problem
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve_all
from obs_pipeline.policy.schema import BudgetPolicy, Place, policy_json_schema
from obs_pipeline.storage.policy_store import ConcurrentChange, PolicyStore, PolicyVersion, Revision

ChangeAction = Literal["create", "update", "delete"]
Outcome = Literal["applied", "unchanged", "planned", "refused"]
Kind = Literal["sync", "rollback"]

_PLACES_AT_A_TIME: Final = 5_000


class SyncError(ObsError):
    """A sync or rollback was asked for something that is not there."""


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """One policy that a sync creates, updates or deletes. ``content`` is ``None`` where it is deleted."""

    id: str
    before: PolicyVersion | None
    content: str | None
    file: str
    line: int
    version: int

    @property
    def action(self) -> ChangeAction:
        if self.content is None:
            return "delete"
        return "create" if self.before is None or self.before.content is None else "update"

    @property
    def fields(self) -> tuple[FieldEdit, ...]:
        """Every field that differs, before and after."""
        return edits(_parsed(None if self.before is None else self.before.content), _parsed(self.content))

    def row(self, revision: int) -> PolicyVersion:
        """The version to be kept once the change is applied."""
        digest = "" if self.content is None else digest_of(self.content)
        return PolicyVersion(self.id, self.version, revision, self.content, digest, self.file, self.line)


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What would change against revision ``base``, and what speaks against it.

    ``total`` policies were given; those neither changed nor left out by ``projects`` are unchanged. ``digest`` and
    ``in_force`` describe what would be in force afterwards.
    """

    base: int
    total: int
    in_force: int
    digest: str
    changes: tuple[PolicyChange, ...]
    conflicts: tuple[Conflict, ...]
    guards: tuple[str, ...]
    force: bool

    @property
    def is_stopped(self) -> bool:
        """Whether conflicts or guards keep it from being applied."""
        return bool(self.changes) and not self.force and bool(self.conflicts or self.guards)

    @property
    def forced(self) -> bool:
        """Whether only ``force`` lets it be applied."""
        return self.force and bool(self.conflicts or self.guards)

    def count(self, action: ChangeAction) -> int:
        return sum(change.action == action for change in self.changes)


@dataclass(frozen=True, slots=True)
class Order:
    """What someone asked for: who, why, and how far it may go. No ``projects`` means everything."""

    author: str
    reason: str = ""
    projects: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class SyncReport:
    """How a sync or rollback ended. Of ``total`` policies ``synced`` changed (deleted ones come on top) and
    ``skipped`` were left as they are. ``revision`` is what is in force now; 0 if nothing ever was."""

    outcome: Outcome
    revision: int
    total: int
    synced: int
    skipped: int
    errors: tuple[Problem, ...]
    conflicts: tuple[Conflict, ...]
    guards: tuple[str, ...]
    changes: tuple[PolicyChange, ...]
    forced: bool
    dry_run: bool
    duration: timedelta


def plan_sync(
    wanted: Sequence[SourcedPolicy],
    applied: Applied,
    at: datetime,
    projects: Collection[str] = (),
    force: bool = False,
) -> SyncPlan:
    """What bringing ``wanted`` into force changes; their order is irrelevant. Conflicts are those at ``at`` (UTC).

    With ``projects`` only the policies of these projects and their agents are looked at, and only conflicts that one
    of them is part of.

    Raises:
        SyncError: a project that no policy is for, neither wanted nor in force.
    """
    chosen = _chosen(wanted, applied, projects)
    live = applied.in_force
    changes = tuple(sorted(_changes(chosen, applied, live, projects), key=lambda change: change.id))
    after = _digests_after(live, changes)
    resulting = _resulting(chosen, live, changes, everything=not projects) if changes else ()
    conflicts = conflicts_in(resulting, at)
    if projects:
        concerned = {source.policy.id for source in chosen}
        conflicts = tuple(each for each in conflicts if any(ref.id in concerned for ref in each.policies))
    guards = tuple(_guards(wanted, live, projects))
    return SyncPlan(applied.revision, len(wanted), len(after), set_digest(after), changes, conflicts, guards, force)


def _chosen(wanted: Sequence[SourcedPolicy], applied: Applied, projects: Collection[str]) -> tuple[SourcedPolicy, ...]:
    if not projects:
        return tuple(wanted)
    known = {project for source in wanted if (project := project_of(source)) is not None}
    if not known.issuperset(projects):
        known |= {project for source in applied.policies() if (project := project_of(source)) is not None}
    for project in projects:
        if project not in known:
            close = get_close_matches(project, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "name projects as the policies do."
            raise SyncError(f"--projects: no policy is for a project {project!r}; {hint}")
    return tuple(source for source in wanted if project_of(source) in projects)


def project_of(source: SourcedPolicy) -> str | None:
    """The project that a policy is for or inside of."""
    return source.policy.place.project


def _changes(
    chosen: Iterable[SourcedPolicy],
    applied: Applied,
    live: Mapping[str, PolicyVersion],
    projects: Collection[str],
) -> Iterator[PolicyChange]:
    wanted = {source.policy.id: source for source in chosen}
    for name, source in wanted.items():
        before = applied.versions.get(name)
        content = content_of(source.policy)
        if before is None or not _says(before, content, source):
            version = 1 if before is None else before.version + 1
            yield PolicyChange(name, before, content, source.ref.file, source.ref.line, version)
    for name, before in live.items():
        if name not in wanted and (not projects or project_of(sourced(before)) in projects):
            yield PolicyChange(name, before, None, before.file, before.line, before.version + 1)


def _says(before: PolicyVersion, content: str, source: SourcedPolicy) -> bool:
    if before.content is None:
        return False
    # 100 and 100.00 are written differently and mean the same.
    return before.content == content or sourced(before).policy == source.policy


def _digests_after(live: Mapping[str, PolicyVersion], changes: Iterable[PolicyChange]) -> dict[str, str]:
    digests = {name: version.digest for name, version in live.items()}
    for change in changes:
        if change.content is None:
            del digests[change.id]
        else:
            digests[change.id] = digest_of(change.content)
    return digests


def _resulting(
    chosen: tuple[SourcedPolicy, ...],
    live: Mapping[str, PolicyVersion],
    changes: Iterable[PolicyChange],
    *,
    everything: bool,
) -> tuple[SourcedPolicy, ...]:
    if everything:
        return chosen
    replaced = {source.policy.id for source in chosen} | {change.id for change in changes}
    return (*chosen, *(sourced(version) for name, version in live.items() if name not in replaced))


def after_changes(applied: Applied, changes: Iterable[PolicyChange]) -> tuple[SourcedPolicy, ...]:
    """Everything that would be in force once the changes are applied."""
    changed = {change.id: change.row(applied.revision + 1) for change in changes}
    after = {**applied.versions, **changed}
    return tuple(sourced(version) for version in after.values() if version.content is not None)


def _guards(
    wanted: Sequence[SourcedPolicy], live: Mapping[str, PolicyVersion], projects: Collection[str]
) -> Iterator[str]:
    if live and not wanted and not projects:
        yield (
            f"no policy is wanted while {len(live)} are in force, so this would remove them all; "
            "check that the folder is the right one"
        )


def conflicts_in(policies: Sequence[SourcedPolicy], at: datetime) -> tuple[Conflict, ...]:
    """Every conflict between policies at any place, each told once."""
    suspects = sorted(_may_conflict(policies), key=_by_project)
    if not suspects:
        return ()
    indexed, places = PolicySet(policies), iter(suspects)
    found: dict[Conflict, None] = {}
    # A slice at a time: what a hundred thousand places resolve to would not fit into memory with their trails.
    while some := tuple(islice(places, _PLACES_AT_A_TIME)):
        for effective in resolve_all(some, indexed, at).values():
            found |= dict.fromkeys(effective.conflicts)
    return tuple(found)


def _may_conflict(policies: Iterable[SourcedPolicy]) -> Iterator[Place]:
    """The places that can bring a conflict at all: twins, an override, or two currencies in one chain.

    Resolving only these is what makes a large sync quick; below them their conflicts are merely repeated.
    """
    by_place: dict[Place, list[BudgetPolicy]] = {}
    for source in policies:
        by_place.setdefault(source.policy.place, []).append(source.policy)
    currencies = {
        place: frozenset(limit.currency for each in stated for limit in each.budgets.cost)
        for place, stated in by_place.items()
    }
    several = len(frozenset[str]().union(*currencies.values())) > 1
    for place, stated in by_place.items():
        if len(stated) > 1 or stated[0].inheritance == "override" or (several and _mixed(place, currencies)):
            yield place


def _mixed(place: Place, currencies: Mapping[Place, frozenset[str]]) -> bool:
    return len(frozenset[str]().union(*(currencies.get(step, ()) for step in place.chain))) > 1


def _by_project(place: Place) -> tuple[str, ...]:
    return tuple(part or "" for part in place)


def apply_plan(
    store: PolicyStore, plan: SyncPlan, order: Order, at: datetime, kind: Kind = "sync", files_digest: str = ""
) -> Revision:
    """Put a plan into force as a new revision, whole or not at all.

    ``at`` (UTC) is written into the revision and the audit log; ``files_digest`` says which folder this is all of.

    Raises:
        ConcurrentChange: what the plan was made against is no longer in force.
        SyncError: the plan is stopped by conflicts or changes nothing.
    """
    if plan.is_stopped or not plan.changes:
        raise SyncError("This plan cannot be applied: " + ("it has conflicts." if plan.changes else "it is empty."))
    number = plan.base + 1
    unsigned = Revision(
        number,
        kind,
        order.author,
        order.reason,
        at,
        plan.forced,
        plan.in_force,
        plan.digest,
        files_digest,
        audit_entry=0,
        audit_digest="",
    )
    with store.writing() as writing:
        now = writing.head()
        if now != plan.base:
            raise ConcurrentChange(
                f"Revision {now} came into force after this was planned against revision {plan.base}; nothing was "
                "applied. Look at what changed (obs-pipeline policies history) and run the command again."
            )
        entries = list(chained(writing.last_entry(), _drafts(plan, unsigned)))
        revision = replace(unsigned, audit_entry=entries[-1].entry, audit_digest=entries[-1].digest)
        writing.add(revision, (change.row(number) for change in plan.changes), entries)
    return revision


def _drafts(plan: SyncPlan, revision: Revision) -> Iterator[Draft]:
    at, author, number = revision.applied_at, revision.author, revision.revision
    for change in plan.changes:
        yield Draft(at, author, change.action, change.id, number, _change_detail(change))
    if plan.force:
        overruled = [conflict.message for conflict in plan.conflicts] + list(plan.guards)
        yield Draft(at, author, "force", "", number, {"overruled": overruled})
    action: Kind = "rollback" if revision.kind == "rollback" else "sync"
    yield Draft(at, author, action, "", number, revision_detail(revision))


def _change_detail(change: PolicyChange) -> dict[str, Any]:
    # Contents are with the versions; their digests are here, so the chain covers them without keeping them twice.
    before = change.before
    detail: dict[str, Any] = {
        "before": None if before is None else {"version": before.version, "digest": before.digest},
        "after": {
            "version": change.version,
            "digest": "" if change.content is None else digest_of(change.content),
        },
        "file": change.file,
        "line": change.line,
    }
    if change.action == "update":
        detail["fields"] = [[edit.field, edit.before, edit.after] for edit in change.fields]
    return detail


def sync_folder(folder: Path, store: PolicyStore, order: Order, clock: Callable[[], datetime]) -> SyncReport:
    """Bring the policies of ``folder`` into force, or say why not. ``clock`` tells the time in UTC.

    A folder whose files are those of the revision in force is not read any further.

    Raises:
        ConcurrentChange: another change came between; nothing was applied.
        SyncError: an unknown project.
    """
    started = clock()
    head = store.head()
    if head is not None and not order.projects and head.files_digest == _fingerprint(_file_digests(folder)):
        return _report(_nothing_to_do(head), order, "unchanged", head.revision, clock() - started)
    loaded = load_policies(folder)
    if loaded.problems:
        number = 0 if head is None else head.revision
        refused = SyncPlan(number, len(loaded.policies), 0, "", (), (), (), order.force)
        return _report(refused, order, "refused", number, clock() - started, loaded.problems)
    plan = plan_sync(loaded.policies, applied_now(store), started, order.projects, order.force)
    files_digest = "" if order.projects else _fingerprint(loaded.digests)
    return carry_out(store, plan, order, clock, started, "sync", files_digest)


def carry_out(
    store: PolicyStore,
    plan: SyncPlan,
    order: Order,
    clock: Callable[[], datetime],
    started: datetime,
    kind: Kind,
    files_digest: str = "",
) -> SyncReport:
    """Apply a plan as far as its order allows, and report."""
    outcome: Outcome = "applied"
    if plan.is_stopped:
        outcome = "refused"
    elif not plan.changes:
        outcome = "unchanged"
    elif order.dry_run:
        outcome = "planned"
    revision = plan.base
    if outcome == "applied":
        revision = apply_plan(store, plan, order, clock(), kind, files_digest).revision
    return _report(plan, order, outcome, revision, clock() - started)


def _nothing_to_do(head: Revision) -> SyncPlan:
    return SyncPlan(head.revision, head.policies, head.policies, head.digest, (), (), (), False)


def _report(
    plan: SyncPlan,
    order: Order,
    outcome: Outcome,
    revision: int,
    duration: timedelta,
    errors: tuple[Problem, ...] = (),
) -> SyncReport:
    written = sum(change.content is not None for change in plan.changes)
    goes = outcome in ("applied", "planned")
    return SyncReport(
        outcome,
        revision,
        plan.total,
        len(plan.changes) if goes else 0,
        plan.total - (written if goes else 0),
        errors,
        plan.conflicts,
        plan.guards,
        plan.changes,
        plan.forced and outcome == "applied",
        order.dry_run,
        duration,
    )


def _fingerprint(digests: Mapping[str, str]) -> str:
    # A newer program may read the same bytes in another way.
    return sha256(f"{_schema_digest()}{set_digest(digests)}".encode()).hexdigest()


@cache
def _schema_digest() -> str:
    return digest_of(json.dumps(policy_json_schema(), sort_keys=True))


def _file_digests(folder: Path) -> dict[str, str]:
    return {name_in(folder, path): _bytes_digest(path) for path in _policy_files(folder)}


def _policy_files(folder: Path) -> Iterator[Path]:
    for suffix in SUFFIXES:
        if os.path.lexists(path := folder / f"{ORG_STEM}{suffix}"):
            yield path
    for name in FOLDERS:
        below = folder / name
        yield from (below,) if below.is_symlink() else files_below(below, _left_to_the_reader)


def _left_to_the_reader(_error: OSError) -> None:
    """A folder that cannot be listed gives another fingerprint, and then the reader says what is wrong with it."""


def _bytes_digest(path: Path) -> str:
    try:
        # What the reader would refuse was never applied, so there is nothing to compare it with.
        usual = path.is_file() and path.stat().st_size <= MAX_BYTES
        return sha256(path.read_bytes()).hexdigest() if usual else "refused"
    except OSError:
        return "refused"


def _parsed(content: str | None) -> dict[str, Any] | None:
    if content is None:
        return None
    parsed: dict[str, Any] = json.loads(content)
    return parsed
