"""Reading the policy folder: every policy with its file and line, and everything wrong with the folder.

Decides which files hold policies and reads them. What a policy may say is the schema's business; what several
policies mean together is decided by resolution.

Policies live in ``org.yaml`` and under ``orgs/``, ``projects/`` and ``agents/``; a file holds one policy, a list of
policies, or several YAML documents. Every other file of the folder belongs to someone else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from obs_pipeline.policy.problems import PolicyError
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.schema import BudgetPolicy
from obs_pipeline.policy.validation import problems_of
from obs_pipeline.yaml_positions import MAX_BYTES, SUFFIXES, Document, FieldPath, Problem, read_documents

FOLDERS: Final = ("orgs", "projects", "agents")
ORG_STEM: Final = "org"

Known = Callable[[str, str], bool]
"""Answers for a file's name and the digest of its bytes whether it is known already, so that it need not be parsed."""


@dataclass(frozen=True, slots=True)
class LoadedPolicies:
    """What a folder holds. With any problem it must not be applied: ``policies`` is then only what could be read.

    ``digests`` maps every policy file to the SHA-256 of its bytes.
    """

    policies: tuple[SourcedPolicy, ...]
    problems: tuple[Problem, ...]
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One policy or test case as written, before anyone judged it. ``lines`` are distances from ``line``."""

    value: Any
    line: int
    lines: Mapping[FieldPath, int]


def load_policies(folder: Path, *, strict: bool = False, known: Known | None = None) -> LoadedPolicies:
    """Every policy of ``folder`` in file order. Bad content becomes problems.

    With ``strict`` any problem raises ``PolicyError``, which lists them all. Files that are ``known`` are left out,
    but for their digests.
    """
    reader = _Reader(folder, known)
    reader.read_all()
    loaded = reader.loaded()
    if strict and loaded.problems:
        raise PolicyError(loaded.problems)
    return loaded


def policy_paths(folder: Path, refuse: Callable[[OSError], None]) -> Iterator[Path]:
    """Every file of ``folder`` that is to hold policies, and links to folders. ``refuse`` as for ``files_below``."""
    for suffix in SUFFIXES:
        if os.path.lexists(path := folder / f"{ORG_STEM}{suffix}"):
            yield path
    for name in FOLDERS:
        below = folder / name
        if below.is_symlink():
            yield below
        elif os.path.lexists(below):
            yield from files_below(below, refuse)


def file_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of every policy file by its name; nothing is parsed, and what cannot be read has none."""
    return {name_in(folder, path): _digest(path) for path in policy_paths(folder, _left_to_the_reader)}


def _left_to_the_reader(_error: OSError) -> None:
    """A folder that cannot be listed gives other digests, and then the reader says what is wrong with it."""


def _digest(path: Path) -> str:
    try:
        # What the reader would refuse was never applied, so there is nothing to compare it with.
        usual = path.is_file() and path.stat().st_size <= MAX_BYTES
        return sha256(path.read_bytes()).hexdigest() if usual else ""
    except OSError:
        return ""


def files_below(folder: Path, refuse: Callable[[OSError], None]) -> Iterator[Path]:
    """Every YAML and JSON file below ``folder``, sorted. ``refuse`` hears of a folder that cannot be listed.

    A link to a folder is not followed but listed, so that whoever reads it says why it was left out.
    """
    for base, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        linked = [name for name in folders if (Path(base) / name).is_symlink()]
        written = [name for name in files if name.lower().endswith(SUFFIXES)]
        yield from (Path(base) / name for name in sorted(written + linked) if not name.startswith("."))


def name_in(folder: Path, path: Path) -> str:
    """The path as problems and provenance name it: relative, with forward slashes, printable."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def read_entries(folder: Path, path: Path) -> tuple[tuple[Entry, ...], bytes, Problem | None]:
    """What ``path`` holds, entry by entry, its bytes, or why it is refused."""
    file = name_in(folder, path)
    problem = _misled(folder, path, file) if path.is_symlink() else None
    if problem is not None:
        return (), b"", problem
    documents, content, problem = read_documents(path, file)
    return tuple(entry for document in documents for entry in _entries(document)), content, problem


def _misled(folder: Path, path: Path, file: str) -> Problem | None:
    try:
        target = path.resolve(strict=True)
        inside = target.is_relative_to(folder.resolve(strict=True))
    except (OSError, RuntimeError):
        return Problem(file, 1, "", "is a link that leads nowhere", "remove it or mend its target")
    if not inside:
        return Problem(file, 1, "", "is a link that leads out of the policy folder", "copy the file in")
    if target.is_dir():
        return Problem(file, 1, "", "is a link to a folder", "move the files here")
    return None


def _entries(document: Document) -> Iterator[Entry]:
    if not isinstance(document.value, list):
        distances = {path: line - document.line for path, line in document.lines.items()}
        yield Entry(document.value, document.line, distances)
        return
    below: list[dict[FieldPath, int]] = [{} for _ in document.value]
    for path, line in document.lines.items():
        if path and isinstance(path[0], int):
            below[path[0]][path[1:]] = line
    for value, lines in zip(document.value, below, strict=True):
        first = lines.get((), document.line)
        yield Entry(value, first, {path: line - first for path, line in lines.items()})


class _Reader:
    def __init__(self, folder: Path, known: Known | None) -> None:
        self._folder = folder
        self._known = known
        self._policies: list[SourcedPolicy] = []
        self._problems: list[Problem] = []
        self._digests: dict[str, str] = {}
        self._shapes: dict[tuple[tuple[FieldPath, int], ...], Mapping[FieldPath, int]] = {}

    def read_all(self) -> None:
        if not self._folder.is_dir():
            self._problems.append(Problem(".", 1, "", f"{self._folder} is not a folder", "name the policy folder"))
        for path in policy_paths(self._folder, self._not_listed):
            if not self._is_known(path):
                self._read(path)

    def _is_known(self, path: Path) -> bool:
        # Links are always read, as their target decides whether they may be.
        if self._known is None or path.is_symlink():
            return False
        file, digest = name_in(self._folder, path), _digest(path)
        known = self._known(file, digest)
        if known:
            self._digests[file] = digest
        return known

    def _not_listed(self, error: OSError) -> None:
        file = name_in(self._folder, Path(error.filename))
        message = f"cannot be listed: {error.strerror}"
        self._problems.append(Problem(file, 1, "", message, "make it a readable folder"))

    def _read(self, path: Path) -> None:
        file = name_in(self._folder, path)
        entries, content, problem = read_entries(self._folder, path)
        self._digests[file] = sha256(content).hexdigest()
        if problem is None and not entries:
            problem = Problem(file, 1, "", "holds no policy", "write one or delete the file")
        if problem is not None:
            self._problems.append(problem)
        for entry in entries:
            self._take(entry, file)

    def _take(self, entry: Entry, file: str) -> None:
        try:
            policy = BudgetPolicy.model_validate(entry.value)
        except ValidationError as error:
            self._problems.extend(problems_of(error, BudgetPolicy, file, entry.line, entry.lines))
            return
        # Generated folders hold thousands of policies of one layout, which then share one table of lines.
        shared = self._shapes.setdefault(tuple(entry.lines.items()), entry.lines)
        self._policies.append(SourcedPolicy.of(policy, file, entry.line, shared))

    def loaded(self) -> LoadedPolicies:
        by_id: dict[str, list[SourcedPolicy]] = {}
        for policy in self._policies:
            by_id.setdefault(policy.policy.id, []).append(policy)
        twice = [same for same in by_id.values() if len(same) > 1]
        problems = [*self._problems, *(problem for same in twice for problem in _named_twice(same))]
        return LoadedPolicies(
            tuple(same[0] for same in by_id.values() if len(same) == 1),
            tuple(sorted(problems, key=lambda problem: (problem.file, problem.line))),
            self._digests,
        )


def _named_twice(policies: list[SourcedPolicy]) -> Iterator[Problem]:
    places = [f"{policy.ref.file}:{policy.ref.line}" for policy in policies]
    for position, policy in enumerate(policies):
        other = places[1] if position == 0 else places[0]
        yield Problem(
            policy.ref.file,
            policy.line_of("id"),
            "id",
            f"{policy.policy.id!r} is also the id of the policy in {other}",
            "give every policy an id of its own",
        )
