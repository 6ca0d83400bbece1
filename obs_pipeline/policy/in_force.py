"""Which policies hold, now and in the past: the revisions applied, or the files while none was applied.

The one seam between the files and the ledger's record of what was synced. Who asks for limits asks here, so that a
file that is being edited, or is broken, changes nothing before it is applied.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from obs_pipeline.policy.applied import applied_at
from obs_pipeline.policy.files import LoadedPolicies, load_policies
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.storage.policy_store import PolicyStore, Revision

FILES: Final = "files"


@dataclass(frozen=True, slots=True)
class InForce:
    """The policies that hold, and their ``origin``: ``files``, or the revision by its number."""

    policies: tuple[SourcedPolicy, ...]
    origin: str


def revision_holding(store: PolicyStore, at: datetime | None) -> Revision | None:
    """The revision that holds at ``at`` (UTC; now if ``None``). What came before the first is judged by the first."""
    return store.head() if at is None else store.revision_at(at) or store.revision(1)


class PoliciesOverTime:
    """What held when. ``files`` are the policy files as they are now, whoever holds."""

    def __init__(self, folder: Path, store: PolicyStore) -> None:
        self.files: LoadedPolicies = load_policies(folder)
        self._store = store
        self._revisions = store.revisions()[::-1]
        self._known: dict[int, InForce] = {}

    def now(self) -> InForce:
        """The revision last applied, even one without policies; before the first, what can be read of the files."""
        return self._revision(len(self._revisions) - 1)

    def at(self, moment: datetime) -> InForce:
        """What held at ``moment`` (UTC). Days before the first revision are judged by the first."""
        applied = [revision.applied_at for revision in self._revisions]
        return self._revision(max(bisect_right(applied, moment) - 1, 0))

    def _revision(self, position: int) -> InForce:
        if not self._revisions:
            return InForce(self.files.policies, FILES)
        if position not in self._known:
            number = self._revisions[position].revision
            self._known[position] = InForce(applied_at(self._store, number).policies(), f"revision {number}")
        return self._known[position]
