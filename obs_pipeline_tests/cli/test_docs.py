"""Every command the documentation tells to type is typed, in order, and ends as the text says.

A block is ```` ```console ````; a command line begins with ``$ obs-pipeline``; a comment ``# exits with N`` is its exit code.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from obs_pipeline.settings import project_root
from obs_pipeline_tests.command_line import PROGRAM, CommandLine

ROOT = project_root()
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"#\s*exits with (\d+)")
NOT_RUN = ("ui",)
"""Commands that do not end by themselves."""


def commands(page: Path) -> Iterator[tuple[list[str], int]]:
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ obs-pipeline"):
                said = EXIT_CODE.search(line)
                words = shlex.split(line.removeprefix("$ obs-pipeline"), comments=True)
                if words and words[0] not in NOT_RUN:
                    yield words, int(said[1]) if said else 0


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if any(commands(page))]


def test_the_readme_has_commands_to_run():
    assert ROOT / "README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_page_works_as_written(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for folder in ("sample_data", "policies"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    assert PROGRAM.exists()
    obs = CommandLine(tmp_path / ".obs", {"OBS_POLICIES": str(tmp_path / "policies")})
    for words, code in commands(page):
        obs(*words, exits_with=code)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], ids=lambda page: page.name)
def test_links_to_files_of_the_project_lead_somewhere(page: Path):
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []
