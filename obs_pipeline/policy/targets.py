"""Where policies are put into force: the one interface, and what each target answers.

The ledger is the first and default target: a plan is in force once the ledger has it, whole or not at all. Every other
target follows, and is brought to the state of the ledger: what it did not take yet stays pending and is tried again
with the next sync. How a target is reached is its own module's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from obs_pipeline.policy.planning import SyncPlan
from obs_pipeline.storage.target_store import TargetState


@dataclass(frozen=True, slots=True)
class TargetOutcome:
    """How far a target has come.

    ``revision`` is the newest one it holds entirely (0: none), ``changed`` how many settings it took this time,
    ``pending`` how many it still has to take and why (``failure``). ``waiting`` names what the target has no place
    for yet, such as an agent without a key.
    """

    target: str
    revision: int
    changed: int
    pending: int = 0
    failure: str = ""
    waiting: tuple[str, ...] = ()


class Target(Protocol):
    """A place where policies are in force."""

    @property
    def name(self) -> str:
        """How it is called in reports."""

    def apply(self, plan: SyncPlan) -> TargetOutcome:
        """Bring the target to the state that the plan leads to; doing it twice changes nothing.

        A follower does not raise where it cannot be reached, but answers with what is pending.
        """


@dataclass(frozen=True, slots=True)
class Behind:
    """A follower that does not hold what is in force, and why as far as it is known."""

    target: str
    holds: int
    revision: int
    pending: int
    failure: str

    def __str__(self) -> str:
        count = f"{self.pending:,} settings wait" if self.pending else "its settings wait"
        why = f" because {self.failure}" if self.failure else ""
        return f"{self.target} holds revision {self.holds} of {self.revision}: {count}{why}"


def behind(followers: Collection[str], states: Iterable[TargetState], revision: int) -> Iterator[Behind]:
    """Which of ``followers`` do not hold ``revision``, by what the ledger knows of them; nobody is asked."""
    known = {state.target: state for state in states}
    for name in followers:
        state = known.get(name)
        if state is None:
            if revision:
                yield Behind(name, 0, revision, 0, "")
        elif state.pending or state.revision != revision:
            yield Behind(name, state.revision, revision, state.pending, state.failure)
