"""``focus-validator`` in an environment of its own: what it says of a file, rule by rule.

``python -m obs_pipeline_tests.focus_suite.validator FILE``: each rule of FOCUS 1.2 that applies to it, and whether it holds.
Needs what ``make test-focus`` sets up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, Literal
from xml.etree import ElementTree

from obs_pipeline.settings import project_root

ENVIRONMENT: Final = Path(os.environ.get("OBS_FOCUS_VALIDATOR", project_root() / ".venv-focus"))
PROGRAM: Final = ENVIRONMENT / "bin" / "focus-validator"
VERDICTS: Final = ENVIRONMENT / "verdicts.txt"
Verdict = Literal["holds", "fails"]


def verdicts(path: Path) -> dict[str, Verdict]:
    """Each rule of FOCUS 1.2 that applies to a file, by its id and what it checks."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        asked = ["--data-file", path.absolute(), "--validate-version", "1.2", "--block-download"]
        told = ["--output-type", "unittest", "--output-destination", report]
        # It finds the rules it ships beside the folder that it is started in, and exits with 1 when one fails.
        (packages,) = ENVIRONMENT.glob("lib/python3.*/site-packages")
        done = subprocess.run(
            [PROGRAM, *map(str, [*asked, *told])],
            cwd=packages,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if not report.exists():
            raise RuntimeError(f"focus-validator wrote no report:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        cases = ElementTree.parse(report).getroot().iter("testcase")
    return {
        case.attrib["name"]: "holds" if case.find("failure") is None else "fails"
        for case in cases
        if case.find("skipped") is None
    }


def as_text(found: dict[str, Verdict]) -> str:
    """A rule a line, those that fail first, and how many there are."""
    ordered = sorted(found.items(), key=lambda one: (one[1] != "fails", one[0]))
    failing = sum(verdict == "fails" for verdict in found.values())
    lines = [f"{verdict}  {rule}" for rule, verdict in ordered]
    return "\n".join([*lines, f"{len(found)} rules apply, {failing} fail"]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_text(verdicts(Path(sys.argv[1]))))
