"""The audit log's hash chain: how it is computed, and whether it still holds; and the history of one policy.

Each entry's digest is the SHA-256 of the digest before and the entry's own canonical JSON, so an entry cannot be
altered, removed, put in or moved without breaking every digest after it. The entries name the digest of every policy
version and of every revision, so these are proven with them. What a chain cannot prove by itself is that its end was
not cut off together with everything it tells of: for that, keep the digest of the last entry elsewhere and ask
whether the chain still has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Literal

from obs_pipeline.errors import ObsError
from obs_pipeline.policy.applied import FieldEdit, digest_of, edits
from obs_pipeline.storage.policy_store import AuditEntry, PolicyVersion, Revision

Action = Literal["create", "update", "delete", "sync", "force", "rollback"]

START: Final = "0" * 64
"""What the first entry has as the digest before it."""

_OF_A_POLICY: Final = ("create", "update", "delete")
_OF_A_REVISION: Final = ("sync", "rollback")


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be written down, before it has its place in the chain. ``at`` is UTC."""

    at: datetime
    actor: str
    action: Action
    subject: str
    revision: int
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Broken:
    """The first thing that does not hold. ``entry`` is its number in the log, if it is an entry."""

    entry: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.entry is None else f"entry {self.entry}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many entries the log has, the digest of the last, and the first thing broken."""

    entries: int
    head: str
    broken: Broken | None

    @property
    def holds(self) -> bool:
        return self.broken is None


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """One version of a policy: who brought it, when (UTC), why, and what it changed."""

    version: int
    revision: int
    author: str
    at: datetime
    reason: str
    removed: bool
    file: str
    line: int
    fields: tuple[FieldEdit, ...]


def canonical(value: Mapping[str, Any]) -> str:
    """JSON that has one spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def chained(last: AuditEntry | None, drafts: Iterable[Draft]) -> Iterator[AuditEntry]:
    """The drafts as entries that follow ``last``."""
    before, previous = (0, START) if last is None else (last.entry, last.digest)
    for number, draft in enumerate(drafts, before + 1):
        detail = canonical(draft.detail)
        digest = _digest(number, draft.at, draft.actor, draft.action, draft.subject, draft.revision, detail, previous)
        yield AuditEntry(
            number, draft.at, draft.actor, draft.action, draft.subject, draft.revision, detail, previous, digest
        )
        previous = digest


def _digest(
    number: int, at: datetime, actor: str, action: str, subject: str, revision: int, detail: str, previous: str
) -> str:
    told = [number, _instant(at), actor, action, subject, revision, detail]
    return sha256((previous + json.dumps(told, separators=(",", ":"))).encode()).hexdigest()


def digest_of_entry(entry: AuditEntry) -> str:
    """The digest that an entry must have for what it says."""
    return _digest(
        entry.entry,
        entry.at,
        entry.actor,
        entry.action,
        entry.subject,
        entry.revision,
        entry.detail,
        entry.previous,
    )


def verify(
    entries: Sequence[AuditEntry],
    versions: Iterable[PolicyVersion] | None = None,
    revisions: Iterable[Revision] | None = None,
    expected: str | None = None,
) -> Verdict:
    """Whether the whole log holds, and with it every applied version and revision where they are given.

    ``entries`` in the order of their numbers. ``expected`` is the digest of an entry seen before: the log must still
    have it, so that a log that was cut short or written anew is found.
    """
    broken = (
        _broken_chain(entries)
        or (None if versions is None else _broken_versions(entries, versions))
        or (None if revisions is None else _broken_revisions(entries, revisions))
        or _missing(entries, expected)
    )
    return Verdict(len(entries), entries[-1].digest if entries else START, broken)


def _broken_chain(entries: Sequence[AuditEntry]) -> Broken | None:
    previous = START
    for number, entry in enumerate(entries, 1):
        if entry.entry != number:
            return Broken(number, f"is missing; the next one there is {entry.entry}")
        if entry.previous != previous:
            return Broken(number, "does not follow the entry before it")
        if entry.digest != digest_of_entry(entry):
            return Broken(number, "says something else than when it was written")
        previous = entry.digest
    return None


def _broken_versions(entries: Sequence[AuditEntry], versions: Iterable[PolicyVersion]) -> Broken | None:
    told = dict(_told_versions(entries))
    for version in versions:
        name = f"version {version.version} of policy {version.policy_id}"
        entry, revision, digest = told.pop((version.policy_id, version.version), (None, 0, ""))
        if entry is None:
            return Broken(None, f"{name} is in the ledger, but the audit log never tells of it")
        if (version.revision, version.digest) != (revision, digest) or not _is_its_content(version):
            return Broken(entry, f"tells of {name}, which says something else in the ledger")
    for (policy, number), (entry, _, _) in told.items():
        return Broken(entry, f"tells of version {number} of policy {policy}, which is no longer in the ledger")
    return None


def _is_its_content(version: PolicyVersion) -> bool:
    return version.digest == ("" if version.content is None else digest_of(version.content))


def _told_versions(entries: Iterable[AuditEntry]) -> Iterator[tuple[tuple[str, int], tuple[int, int, str]]]:
    for entry in entries:
        if entry.action in _OF_A_POLICY:
            after = json.loads(entry.detail).get("after", {})
            yield (entry.subject, after.get("version", 0)), (entry.entry, entry.revision, after.get("digest", ""))


def _broken_revisions(entries: Sequence[AuditEntry], revisions: Iterable[Revision]) -> Broken | None:
    told = {entry.revision: entry for entry in entries if entry.action in _OF_A_REVISION}
    for revision in sorted(revisions, key=lambda each: each.revision):
        entry = told.pop(revision.revision, None)
        if entry is None:
            return Broken(None, f"revision {revision.revision} is in the ledger, but the audit log never tells of it")
        said = (entry.actor, entry.at, entry.action, entry.detail, entry.entry, entry.digest)
        kept = (revision.author, revision.applied_at, revision.kind, canonical(revision_detail(revision)))
        if said != (*kept, revision.audit_entry, revision.audit_digest):
            return Broken(entry.entry, f"tells of revision {revision.revision}, which says something else")
    for number, entry in told.items():
        return Broken(entry.entry, f"tells of revision {number}, which is no longer in the ledger")
    return None


def revision_detail(revision: Revision) -> dict[str, Any]:
    """What the audit log says of a revision as a whole."""
    return {
        "reason": revision.reason,
        "forced": revision.forced,
        "policies": revision.policies,
        "digest": revision.digest,
        "files_digest": revision.files_digest,
    }


def _missing(entries: Iterable[AuditEntry], expected: str | None) -> Broken | None:
    if expected is None or any(entry.digest == expected for entry in entries):
        return None
    return Broken(None, f"no entry has the digest {expected}: the log was cut short, or written anew")


def history(versions: Iterable[PolicyVersion], revisions: Mapping[int, Revision]) -> tuple[HistoryStep, ...]:
    """The versions of one policy, oldest first, each with what it changed against the one before."""
    steps: list[HistoryStep] = []
    before: Mapping[str, Any] | None = None
    for version in sorted(versions, key=lambda each: each.version):
        after = None if version.content is None else json.loads(version.content)
        by = revisions[version.revision]
        steps.append(
            HistoryStep(
                version.version,
                version.revision,
                by.author,
                by.applied_at,
                by.reason,
                after is None,
                version.file,
                version.line,
                edits(before, after),
            )
        )
        before = after
    return tuple(steps)


class ExportError(ObsError):
    """An exported audit log cannot be read; the message names the file and the line."""


def exported(entries: Iterable[AuditEntry]) -> str:
    """The entries as JSON lines, each with everything its digest covers."""
    return "".join(json.dumps({**asdict(entry), "at": _instant(entry.at)}) + "\n" for entry in entries)


def read_export(lines: str, name: str) -> tuple[AuditEntry, ...]:
    """The entries of an export called ``name``.

    Raises:
        ExportError: a line is not an entry.
    """
    return tuple(_read_line(line, f"{name}:{number}") for number, line in enumerate(lines.splitlines(), 1))


def _read_line(line: str, where: str) -> AuditEntry:
    try:
        told = json.loads(line)
        return AuditEntry(**{**told, "at": datetime.fromisoformat(told["at"])})
    except (ValueError, TypeError, KeyError):
        raise ExportError(
            f"{where}: not an entry of an audit log; export it again with policies audit export."
        ) from None


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")
