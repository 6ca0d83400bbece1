"""Bringing policies into force: read the folder, plan, hand the plan to the targets, report.

What would change is planned by ``planning``; writing it is the targets' business, the ledger's first.

What stops a sync
-----------------
- Any problem in the folder: what is in force stays in force. ``force`` does not lift this.
- What stops the plan; ``force`` lifts that, and the audit log says so.
- Another change since the plan was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from obs_pipeline.policy.applied import applied_now
from obs_pipeline.policy.effective import Conflict
from obs_pipeline.policy.files import LoadedPolicies, file_digests, load_policies
from obs_pipeline.policy.ledger_target import LedgerTarget
from obs_pipeline.policy.planning import Order, PolicyChange, SyncPlan, plan_sync
from obs_pipeline.policy.remembered import RememberedFiles, fingerprint
from obs_pipeline.policy.targets import Target, TargetOutcome
from obs_pipeline.storage.policy_store import PolicyStore, PolicyVersion, Revision
from obs_pipeline.yaml_positions import Problem

Outcome = Literal["applied", "unchanged", "planned", "refused"]


@dataclass(frozen=True, slots=True)
class SyncReport:
    """How a sync or rollback ended. Of ``total`` policies ``synced`` changed (deleted ones come on top) and
    ``skipped`` were left as they are. ``revision`` is what is in force now; 0 if nothing ever was. ``targets`` are
    those that were written to, the ledger first."""

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
    targets: tuple[TargetOutcome, ...] = ()

    @property
    def pending(self) -> int:
        """How many settings targets still have to take."""
        return sum(target.pending for target in self.targets)


def sync_folder(
    folder: Path, store: PolicyStore, order: Order, clock: Callable[[], datetime], followers: Sequence[Target] = ()
) -> SyncReport:
    """Bring the policies of ``folder`` into force, or say why not. ``clock`` tells the time in UTC.

    Files that are as they were when they were last applied are not parsed again, and a folder that is all of the
    revision in force is not planned either. ``followers`` are brought to what is in force then, changed or not.

    Raises:
        ConcurrentChange: another change came between; nothing was applied.
        SyncError: an unknown project.
    """
    started = clock()
    head = store.head()
    if head is not None and not order.projects and head.files_digest == fingerprint(file_digests(folder)):
        return _finish(_nothing_to_do(head), order, "unchanged", [], followers, clock, started)
    applied = applied_now(store)
    remembered = RememberedFiles(store, applied)
    loaded, same = _loaded(folder, remembered, whole=head is not None and not order.projects and _settled(head))
    if loaded.problems:
        total = len(loaded.policies) + len(same)
        refused = SyncPlan(applied.revision, total, 0, "", (), (), (), order.force)
        return _report(refused, order, "refused", applied.revision, clock() - started, errors=loaded.problems)
    plan = plan_sync(loaded.policies, applied, started, order.projects, order.force, same)
    whole = "" if order.projects else fingerprint(loaded.digests)
    report = carry_out(plan, order, LedgerTarget(store, order, clock, "sync", whole), followers, clock, started)
    if whole and report.outcome in ("applied", "unchanged") and not order.dry_run:
        remembered.remember(loaded.policies, loaded.digests, plan.changes)
    return report


def _settled(head: Revision) -> bool:
    """Whether a revision was all of a folder and had no conflict, so that only a change can bring one."""
    return bool(head.files_digest) and not head.forced


def _loaded(
    folder: Path, remembered: RememberedFiles, *, whole: bool
) -> tuple[LoadedPolicies, Mapping[str, PolicyVersion]]:
    """What has to be parsed of a folder, and what the rest of it says."""
    if whole:
        loaded = load_policies(folder, known=remembered.knows)
        if not any(source.policy.id in remembered.same for source in loaded.policies):
            return loaded, remembered.same
    # An id that two files claim is told with the lines of both, so both are read.
    return load_policies(folder), {}


def carry_out(
    plan: SyncPlan,
    order: Order,
    ledger: LedgerTarget,
    followers: Sequence[Target],
    clock: Callable[[], datetime],
    started: datetime,
) -> SyncReport:
    """Apply a plan as far as its order allows, the ledger first, and report."""
    outcome = outcome_of(plan, order)
    done = [ledger.apply(plan)] if outcome == "applied" else []
    return _finish(plan, order, outcome, done, followers, clock, started)


def outcome_of(plan: SyncPlan, order: Order) -> Outcome:
    """What becomes of a plan."""
    if plan.is_stopped:
        return "refused"
    if not plan.changes:
        return "unchanged"
    return "planned" if order.dry_run else "applied"


def _finish(
    plan: SyncPlan,
    order: Order,
    outcome: Outcome,
    done: Sequence[TargetOutcome],
    followers: Sequence[Target],
    clock: Callable[[], datetime],
    started: datetime,
) -> SyncReport:
    follow = outcome in ("applied", "unchanged") and not order.dry_run
    followed = [follower.apply(plan) for follower in followers] if follow else []
    revision = done[0].revision if done else plan.base
    return _report(plan, order, outcome, revision, clock() - started, (*done, *followed))


def _nothing_to_do(head: Revision) -> SyncPlan:
    return SyncPlan(head.revision, head.policies, head.policies, head.digest, (), (), (), False)


def _report(
    plan: SyncPlan,
    order: Order,
    outcome: Outcome,
    revision: int,
    duration: timedelta,
    targets: tuple[TargetOutcome, ...] = (),
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
        targets,
    )
