"""Going back: an earlier revision, or an earlier version of one policy, as a new revision.

Nothing is undone: the change back is planned, checked and written like any other. The files are not touched, so
whoever goes back must mend them too, or the next sync brings the newer state in again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from obs_pipeline.policy.applied import NOTHING, applied_at, applied_now, sourced
from obs_pipeline.policy.ledger_target import LedgerTarget
from obs_pipeline.policy.planning import Order, SyncError, plan_sync
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.sync import SyncReport, carry_out
from obs_pipeline.policy.targets import Target
from obs_pipeline.storage.policy_store import PolicyStore


def roll_back(
    store: PolicyStore, revision: int, order: Order, clock: Callable[[], datetime], followers: Sequence[Target] = ()
) -> SyncReport:
    """Bring everything that was in force as of ``revision`` into force again. ``clock`` tells UTC.

    Raises:
        SyncError: there is no such revision.
        ConcurrentChange: another change came between; nothing was applied.
    """
    started = clock()
    then = NOTHING if revision == 0 else applied_at(store, revision)
    if revision and store.revision(revision) is None:
        head = store.head()
        newest = 0 if head is None else head.revision
        raise SyncError(f"There is no revision {revision}; the newest is {newest} (obs-pipeline policies history).")
    plan = plan_sync(then.policies(), applied_now(store), started, force=order.force)
    return carry_out(plan, order, LedgerTarget(store, order, clock, "rollback"), followers, clock, started)


def roll_back_policy(
    store: PolicyStore,
    policy_id: str,
    version: int,
    order: Order,
    clock: Callable[[], datetime],
    followers: Sequence[Target] = (),
) -> SyncReport:
    """Bring ``version`` of one policy into force again; a version that is a removal removes it.

    Raises:
        SyncError: there is no such policy or version.
        ConcurrentChange: another change came between; nothing was applied.
    """
    started = clock()
    versions = {each.version: each for each in store.versions_of(policy_id)}
    if not versions:
        raise SyncError(f"No policy {policy_id!r} was ever in force; obs-pipeline policies history lists what was.")
    if version not in versions:
        raise SyncError(f"Policy {policy_id} has versions 1 to {max(versions)}, not {version}.")
    now = applied_now(store)
    others = [sourced(each) for name, each in now.in_force.items() if name != policy_id]
    back: list[SourcedPolicy] = [sourced(versions[version])] if versions[version].content is not None else []
    plan = plan_sync([*others, *back], now, started, force=order.force)
    return carry_out(plan, order, LedgerTarget(store, order, clock, "rollback"), followers, clock, started)
