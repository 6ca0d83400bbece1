"""A policy as the ledger keeps it: its content as JSON, the digest of that, and the way back.

Two policies with one content are one version. Deciding what to apply, and the history of it, happen elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.schema import BudgetPolicy, Place
from obs_pipeline.storage.policy_store import PolicyStore, PolicyVersion


@dataclass(frozen=True, slots=True)
class Applied:
    """What is in force as of ``revision`` (0: nothing yet), by policy id. Removed policies are among the versions."""

    revision: int
    versions: Mapping[str, PolicyVersion]

    @property
    def in_force(self) -> dict[str, PolicyVersion]:
        return {name: version for name, version in self.versions.items() if version.content is not None}

    def policies(self) -> tuple[SourcedPolicy, ...]:
        """Everything in force, ready to be resolved."""
        return tuple(sourced(version) for version in self.in_force.values())


NOTHING = Applied(0, {})


def applied_at(store: PolicyStore, revision: int) -> Applied:
    """What was in force as of a revision."""
    return Applied(revision, {version.policy_id: version for version in store.latest(revision)})


def applied_now(store: PolicyStore) -> Applied:
    """What is in force."""
    head = store.head()
    return NOTHING if head is None else applied_at(store, head.revision)


def applied_to(store: PolicyStore, revision: int, place: Place) -> tuple[SourcedPolicy, ...]:
    """The policies of a place and of those above it, as of a revision: all that decides what holds there.

    Takes a few rows from the ledger, however many policies there are.
    """
    asked = [
        (step.scope_id, None if step.scope == "org" else step.org, step.project if step.scope == "agent" else None)
        for step in place.chain
    ]
    found = (sourced(version) for version in store.latest_at(revision, asked) if version.content is not None)
    return tuple(source for source in found if source.policy.place in place.chain)


def agents_named(store: PolicyStore, revision: int, name: str) -> tuple[Place, ...]:
    """The agents of this name that have a policy of their own as of a revision."""
    found = [sourced(version) for version in store.latest_named(revision, name) if version.content is not None]
    return tuple(dict.fromkeys(source.policy.place for source in found if source.policy.place.agent == name))


def content_of(policy: BudgetPolicy) -> str:
    """The policy as canonical JSON: every field in the order of the schema, money as exact text."""
    return policy.model_dump_json(exclude_none=True)


def digest_of(content: str) -> str:
    return sha256(content.encode()).hexdigest()


def set_digest(digests: Mapping[str, str]) -> str:
    """One digest of many, whatever their order: of policies by id, or of files by name."""
    whole = sha256()
    for name in sorted(digests):
        whole.update(f"{len(name)}:{name}{digests[name]}\n".encode())
    return whole.hexdigest()


def sourced(version: PolicyVersion) -> SourcedPolicy:
    """A version as a policy again, at the file and line where it was read. It must not be a removal."""
    return SourcedPolicy.of(BudgetPolicy.model_validate_json(version.content or ""), version.file, version.line)


@dataclass(frozen=True, slots=True)
class FieldEdit:
    """One field that two contents of a policy differ in; ``None`` where it is not stated."""

    field: str
    before: Any
    after: Any


def edits(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> tuple[FieldEdit, ...]:
    """Every field that differs between two contents, as dotted names. Limits are named by their period."""
    old, new = dict(_flat(before or {})), dict(_flat(after or {}))
    names = [*old, *(name for name in new if name not in old)]
    return tuple(FieldEdit(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, below in value.items():
        yield from _flat_field(f"{prefix}{name}", below)


def _flat_field(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from _flat(value, f"{name}.")
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        yield from _flat_list(name, value)
    elif value != []:
        yield name, value


def _flat_list(name: str, values: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for position, value in enumerate(values):
        yield from _flat(value, f"{name}.{value.get('period', position)}.")
