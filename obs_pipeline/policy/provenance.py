"""Where a policy came from: the file and line that everything decided by it is traced back to.

Plain values only. Reading files and deciding limits happen elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from obs_pipeline.policy.schema import BudgetPolicy, Scope
from obs_pipeline.yaml_positions import FieldPath


@dataclass(frozen=True, slots=True, order=True)
class PolicyRef:
    """Enough of a policy to name it in a reason. ``file`` is relative to the policy folder, ``line`` counts from 1."""

    id: str
    file: str
    line: int
    scope: Scope
    priority: int

    def __str__(self) -> str:
        return f"{self.id} ({self.file}:{self.line})"


@dataclass(frozen=True, slots=True)
class SourcedPolicy:
    """A policy and where it is written. ``lines`` holds each field's distance in lines from the policy's first."""

    policy: BudgetPolicy
    ref: PolicyRef
    lines: Mapping[FieldPath, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls, policy: BudgetPolicy, file: str, line: int = 1, lines: Mapping[FieldPath, int] | None = None
    ) -> SourcedPolicy:
        ref = PolicyRef(policy.id, file, line, policy.scope, policy.priority)
        return cls(policy, ref, lines or {})

    def line_of(self, *path: str | int) -> int:
        """The line of a field, or of the nearest field around it that is written out."""
        return self.ref.line + nearest_line(self.lines, path)


def nearest_line(lines: Mapping[FieldPath, int], path: FieldPath) -> int:
    """The line of ``path``. A position the file does not write, as for a single budget, is stepped over."""
    reached: FieldPath = ()
    for part in path:
        if (*reached, part) in lines:
            reached = (*reached, part)
        elif isinstance(part, str):
            break
    return lines.get(reached, 0)
