"""The ledger as a target: the one transaction that puts a plan into force, with its audit entries.

Belongs here: what is written when a plan is applied. What to apply is planned elsewhere, and how a chain of entries is
computed is the audit's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from obs_pipeline.policy.applied import digest_of
from obs_pipeline.policy.audit import Draft, chained, revision_detail
from obs_pipeline.policy.planning import Kind, Order, PolicyChange, SyncError, SyncPlan
from obs_pipeline.policy.targets import TargetOutcome
from obs_pipeline.storage.policy_store import ConcurrentChange, PolicyStore, Revision

LEDGER: Final = "ledger"


@dataclass(frozen=True)
class LedgerTarget:
    """What is in force here: budgets are judged by it, and every other target is brought to it.

    ``clock`` tells UTC; ``files_digest`` says which folder the plan is all of.
    """

    store: PolicyStore
    order: Order
    clock: Callable[[], datetime]
    kind: Kind = "sync"
    files_digest: str = ""
    name: str = LEDGER

    def apply(self, plan: SyncPlan) -> TargetOutcome:
        """The whole plan as a new revision, or nothing of it; raises as ``apply_plan`` does."""
        revision = apply_plan(self.store, plan, self.order, self.clock(), self.kind, self.files_digest)
        return TargetOutcome(self.name, revision.revision, len(plan.changes))


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
