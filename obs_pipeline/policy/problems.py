"""What is wrong with a policy folder, as values, and the one error that carries them.

Holds the shape of a problem and how it reads. Finding problems belongs to the modules that read and check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from obs_pipeline.errors import ObsError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in one file. ``line`` counts from 1; ``field`` is dotted and empty for the whole file."""

    file: str
    line: int
    field: str
    message: str
    mend: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: {self.field}" if self.field else f"{self.file}:{self.line}"
        return f"{where}: {self.message}; {self.mend}"


class PolicyError(ObsError):
    """The policy folder cannot be used as it is; ``problems`` lists everything found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(str(self.problems[0]))
        else:
            listed = "".join(f"\n  {problem}" for problem in self.problems)
            super().__init__(f"{len(self.problems)} problems in the policy folder:{listed}")
