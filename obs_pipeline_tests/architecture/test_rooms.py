"""The rules that keep the rooms apart, and the habits every module has."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import obs_pipeline

PACKAGE = Path(obs_pipeline.__file__).parent
PROJECT = PACKAGE.parent
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.stat().st_size]


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    outcome = subprocess.run([lint, "--no-cache"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_belongs_in_it(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_there_is_no_room_for_everything(name: str):
    assert not list(PACKAGE.rglob(f"{name}*"))


def test_only_the_settings_read_the_environment():
    readers = {"environ", "getenv", "EnvVar"}
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in readers:
                found.add(path.relative_to(PACKAGE).as_posix())
    # Two hand an environment to Dagster's processes; neither takes a setting from it.
    assert found <= {"settings.py", "defs/instance.py", "cli/ui.py"}


@pytest.mark.parametrize("room", ["usage", "detection", "policy", "dashboard"])
def test_a_domain_room_never_reads_the_clock(room: str):
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                call = ast.unparse(node.func)
                assert call not in {"datetime.now", "datetime.utcnow", "date.today", "time.time"}, f"{path}: {call}"
