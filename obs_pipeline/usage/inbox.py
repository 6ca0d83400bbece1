"""The landing folder: which files wait in it, by which mapping each is read, and where a file goes afterwards.

A file dropped into ``landing/`` is read by the mapping that its content or its folder names: files of a subfolder
``landing/NAME/`` by the mapping NAME (built in, or ``policies/sources/NAME.yaml``), others by the canonical one.
Landed files move to ``landed/``; files that cannot be read move to ``refused/`` with the reason beside them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from obs_pipeline.errors import ObsError
from obs_pipeline.storage.lake import LakeError
from obs_pipeline.storage.ledger import LedgerError
from obs_pipeline.usage.landing import FileChanged, Landing, LandingReport
from obs_pipeline.usage.sources.mapping import SourceMapping, load_mapping

DEFAULT_MAPPING: Final = "canonical"
_IGNORED_SUFFIXES: Final = (".part", ".tmp", ".crdownload", ".swp")


@dataclass(frozen=True)
class Refusal:
    """A file that could not be landed at all."""

    name: str
    reason: str


@dataclass(frozen=True)
class Inbox:
    """The landing folder and the folder with the operator's mappings."""

    landing: Path
    mappings: Path

    def waiting(self) -> list[Path]:
        """Complete-looking files, in order of name. Hidden and temporary files are left alone."""
        if not self.landing.is_dir():
            return []
        return sorted(path for path in self.landing.rglob("*") if path.is_file() and not self._is_ignored(path))

    def fingerprint(self) -> dict[str, list[int]]:
        """Size and modification time (ns) of every waiting file: unchanged between two looks means fully written."""
        found = {}
        for path in self.waiting():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found[str(path.relative_to(self.landing))] = [status.st_size, status.st_mtime_ns]
        return found

    def mapping_of(self, path: Path) -> SourceMapping:
        """The mapping a waiting file is read by."""
        folder = path.relative_to(self.landing).parts[0] if path.parent != self.landing else DEFAULT_MAPPING
        return resolve_mapping(folder, self.mappings)

    def take_in(
        self, landing: Landing, paths: Sequence[Path], now: Callable[[], datetime]
    ) -> tuple[list[LandingReport], list[Refusal]]:
        """Land files and clear them away. A file that cannot be read does not stop the others; one that is still written to
        waits on.

        Raises:
            LakeError, LedgerError: nothing can be landed; the files stay where they are.
        """
        reports, refusals = [], []
        for path in paths:
            if not path.exists():
                continue
            try:
                report = landing.land(path, self.mapping_of(path), now=now())
            except FileChanged:
                continue
            except (LakeError, LedgerError):
                raise
            except ObsError as error:
                refusals.append(Refusal(path.name, str(error)))
                self._clear(path, "refused").with_suffix(path.suffix + ".reason.txt").write_text(f"{error}\n")
                continue
            reports.append(report)
            self._clear(path, "landed")
        return reports, refusals

    def _clear(self, path: Path, folder: str) -> Path:
        target = self.landing.parent / folder / path.relative_to(self.landing)
        target.parent.mkdir(parents=True, exist_ok=True)
        while target.exists():
            target = target.with_name("again-" + target.name)
        return Path(shutil.move(path, target))

    def _is_ignored(self, path: Path) -> bool:
        parts = path.relative_to(self.landing).parts
        return any(part.startswith(".") for part in parts) or path.suffix in _IGNORED_SUFFIXES


def resolve_mapping(name_or_path: str, mappings: Path) -> SourceMapping:
    """A mapping by path, by a name under ``policies/sources/``, or by a built-in name."""
    own = mappings / f"{name_or_path}.yaml"
    if own.is_file():
        return load_mapping(own)
    return load_mapping(name_or_path)
