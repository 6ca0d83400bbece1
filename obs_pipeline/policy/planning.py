"""What bringing policies into force would change, and what speaks against it: pure, nothing is read or written.

Belongs here: the difference between what is wanted and what is in force, and the conflicts it would leave. Doing it is
``sync``'s business, how it is kept is the ledger's.

What stops a plan
-----------------
- A conflict between the policies that would be in force, and a folder without a policy while some are in force.
  ``force`` lifts both.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final, Literal

from pydantic import BaseModel

from obs_pipeline.errors import ObsError
from obs_pipeline.policy.applied import Applied, FieldEdit, content_of, digest_of, edits, set_digest, sourced
from obs_pipeline.policy.effective import Conflict
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve_all
from obs_pipeline.policy.schema import BudgetPolicy, Place, Scope, place_of
from obs_pipeline.storage.policy_store import PolicyVersion

ChangeAction = Literal["create", "update", "delete"]
Kind = Literal["sync", "rollback"]

_PLACES_AT_A_TIME: Final = 5_000
_RAISES: Final = '"increases":[{'
"""How a content that has a dated raise says so."""


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


def plan_sync(
    wanted: Sequence[SourcedPolicy],
    applied: Applied,
    at: datetime,
    projects: Collection[str] = (),
    force: bool = False,
    same: Mapping[str, PolicyVersion] | None = None,
) -> SyncPlan:
    """What bringing ``wanted`` into force changes; their order is irrelevant. Conflicts are those at ``at`` (UTC).

    With ``projects`` only the policies of these projects and their agents are looked at, and only conflicts that one
    of them is part of.

    ``same`` are policies that are wanted as well, in force as they are, and had no conflict when they were applied: of
    them only those are looked at that a change reaches. The plan is the one for all of them.

    Raises:
        SyncError: a project that no policy is for, neither wanted nor in force.
    """
    chosen, same = _chosen(wanted, applied, projects), same or {}
    live = applied.in_force
    changes = tuple(sorted(_changes(chosen, applied, live, projects, same), key=lambda change: change.id))
    after = _digests_after(live, changes)
    reached = tuple(_reached(same, chosen, changes)) if changes else ()
    resulting = _resulting((*chosen, *reached), live, changes, everything=not projects) if changes else ()
    conflicts = conflicts_in(resulting, at)
    if projects:
        concerned = {source.policy.id for source in chosen}
        conflicts = tuple(each for each in conflicts if any(ref.id in concerned for ref in each.policies))
    total = len(wanted) + len(same)
    guards = tuple(_guards(total, live, projects))
    return SyncPlan(applied.revision, total, len(after), set_digest(after), changes, conflicts, guards, force)


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
    same: Collection[str],
) -> Iterator[PolicyChange]:
    wanted = {source.policy.id: source for source in chosen}
    for name, source in wanted.items():
        before = applied.versions.get(name)
        content = content_of(source.policy)
        if before is None or not _says(before, content, source):
            version = 1 if before is None else before.version + 1
            yield PolicyChange(name, before, content, source.ref.file, source.ref.line, version)
    for name, before in live.items():
        if name not in wanted and name not in same and (not projects or project_of(sourced(before)) in projects):
            yield PolicyChange(name, before, None, before.file, before.line, before.version + 1)


class _Written(BaseModel):
    """As much of a content as tells the place; reading only this is several times quicker."""

    scope: Scope
    scope_id: str
    org: str | None = None
    project: str | None = None

    @property
    def place(self) -> Place:
        return place_of(self.scope, self.scope_id, self.org, self.project)


def _reached(
    same: Mapping[str, PolicyVersion], chosen: Iterable[SourcedPolicy], changes: Iterable[PolicyChange]
) -> Iterator[SourcedPolicy]:
    """Those of ``same`` in a chain with something that changed. Dated raises change by themselves."""
    if not same:
        return
    places = {name: _Written.model_validate_json(version.content or "").place for name, version in same.items()}
    moving = {source.policy.place for source in chosen}
    moving |= {
        sourced(change.before).policy.place
        for change in changes
        if change.before is not None and change.before.content is not None
    }
    moving |= {places[name] for name, version in same.items() if _RAISES in (version.content or "")}
    above = {step for place in moving for step in place.chain}
    for name, place in places.items():
        if place in above or not moving.isdisjoint(place.chain):
            yield sourced(same[name])


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


def _guards(wanted: int, live: Mapping[str, PolicyVersion], projects: Collection[str]) -> Iterator[str]:
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


def _parsed(content: str | None) -> dict[str, Any] | None:
    if content is None:
        return None
    parsed: dict[str, Any] = json.loads(content)
    return parsed
