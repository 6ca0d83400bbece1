"""Policies of another time or place, by the name a person types: a folder, a git revision, or what was applied.

Reads only. Git is asked through its own command, and a revision is unpacked into a folder that is gone afterwards.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from obs_pipeline.errors import ObsError
from obs_pipeline.policy.applied import applied_now
from obs_pipeline.policy.files import load_policies
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.policy_store import PolicyStore

APPLIED: Final = "applied"


class UnknownVersion(ObsError):
    """There are no policies under that name."""


def policies_of(name: str, folder: Path, ledger: Ledger) -> tuple[SourcedPolicy, ...]:
    """The policies of ``name``: ``applied``, a folder, or a git revision of ``folder``.

    Raises:
        UnknownVersion: there is no such thing.
        PolicyError: what is there cannot be used as it is.
    """
    if name == APPLIED:
        applied = applied_now(PolicyStore(ledger))
        if not applied.revision:
            raise UnknownVersion("No policies were applied yet. Name a git revision or a folder to compare with.")
        return applied.policies()
    if Path(name).is_dir():
        return load_policies(Path(name), strict=True).policies
    return _of_revision(name, folder)


def _of_revision(revision: str, folder: Path) -> tuple[SourcedPolicy, ...]:
    verified = _git(folder, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}", wanted=revision)
    # Asked from within a folder, git packs what is below it, with names that begin there.
    archive = _git(folder, "archive", "--format=tar", verified.decode().strip(), wanted=revision)
    with tempfile.TemporaryDirectory() as unpacked:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(unpacked, filter="data")
        return load_policies(Path(unpacked), strict=True).policies


def _git(folder: Path, *words: str, wanted: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        raise UnknownVersion(
            f"{wanted} is neither a folder nor a git revision that holds {folder.name}/. "
            "Name a folder, a commit, a branch or a tag, or 'applied'."
        ) from None
