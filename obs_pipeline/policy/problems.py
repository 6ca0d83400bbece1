"""What is wrong with a policy folder, as values, and the one error that carries them.

Holds how several problems read; the shape of one is shared with every file of the folder. Finding problems belongs to
the modules that read and check.
"""

from __future__ import annotations

from collections.abc import Sequence

from obs_pipeline.errors import ObsError
from obs_pipeline.yaml_positions import Problem

__all__ = ["PolicyError", "Problem"]


class PolicyError(ObsError):
    """The policy folder cannot be used as it is; ``problems`` lists everything found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(str(self.problems[0]))
        else:
            listed = "".join(f"\n  {problem}" for problem in self.problems)
            super().__init__(f"{len(self.problems)} problems in the policy folder:{listed}")
