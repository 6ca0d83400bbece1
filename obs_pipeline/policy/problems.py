"""The error that carries everything that is wrong with a policy folder, and how several problems read together.

The shape of one problem is that of every YAML file (``yaml_positions``); finding them belongs to the modules that read and check.
"""

from __future__ import annotations

from collections.abc import Sequence

from obs_pipeline.errors import ObsError
from obs_pipeline.yaml_positions import Problem


class PolicyError(ObsError):
    """The policy folder cannot be used as it is; ``problems`` lists everything found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(str(self.problems[0]))
        else:
            listed = "".join(f"\n  {problem}" for problem in self.problems)
            super().__init__(f"{len(self.problems)} problems in the policy folder:{listed}")
