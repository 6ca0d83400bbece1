"""What unchanged policy files say, taken from the ledger, so that only changed files are parsed.

Belongs here: which file said which applied versions. A file is known by the digest of its bytes and by the program that
read it; whatever differs is left to the reader of files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from obs_pipeline.policy.applied import Applied, digest_of, set_digest
from obs_pipeline.policy.planning import PolicyChange
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.schema import policy_json_schema
from obs_pipeline.storage.policy_store import PolicyStore, PolicyVersion, ReadFile


class RememberedFiles:
    """The files of the last whole sync. ``same`` collects what known files say: versions in force, by policy id."""

    def __init__(self, store: PolicyStore, applied: Applied) -> None:
        self._store = store
        self._applied = applied
        self._files = {each.file: each for each in store.read_files(reader_digest())}
        self.same: dict[str, PolicyVersion] = {}

    def knows(self, file: str, digest: str) -> bool:
        """Whether a file with these bytes says what is in force already; if so, it is in ``same`` from here on."""
        known = self._files.get(file)
        if known is None or known.digest != digest:
            return False
        said = {name: (version, line) for name, version, line in json.loads(known.said)}
        kept = {name: version for name in said if (version := self._applied.versions.get(name)) is not None}
        # What another sync or a rollback has changed since is something else than what the file says.
        if len(kept) != len(said) or any(kept[name].version != said[name][0] for name in said):
            return False
        if any(version.content is None for version in kept.values()):
            return False
        self.same |= {name: replace(version, file=file, line=said[name][1]) for name, version in kept.items()}
        return True

    def remember(
        self, policies: Iterable[SourcedPolicy], digests: Mapping[str, str], changes: Iterable[PolicyChange]
    ) -> None:
        """Keep what every file said, once all of it is in force. ``policies`` are those of the parsed files."""
        versions = {name: each.version for name, each in self._applied.versions.items()}
        versions |= {change.id: change.version for change in changes}
        said: dict[str, list[tuple[str, int, int]]] = {}
        for source in policies:
            said.setdefault(source.ref.file, []).append((source.policy.id, versions[source.policy.id], source.ref.line))
        now = (ReadFile(file, digests[file], reader_digest(), json.dumps(each)) for file, each in said.items())
        changed = [each for each in now if self._files.get(each.file) != each]
        gone = self._files.keys() - digests.keys()
        if changed or gone:
            self._store.remember_files(changed, gone)


def fingerprint(digests: Mapping[str, str]) -> str:
    """One digest for a whole folder as this program reads it."""
    return digest_of(f"{reader_digest()}{set_digest(digests)}")


@cache
def reader_digest() -> str:
    """Which program reads: a newer one may read the same bytes in another way."""
    return digest_of(json.dumps(policy_json_schema(), sort_keys=True))
