"""The policies the project ships: they load, pass their own cases, and follow their own advice."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from obs_pipeline.policy.cases import load_cases, run_cases
from obs_pipeline.policy.files import load_policies
from obs_pipeline.policy.lint import lint

FOLDER = Path(__file__).parents[2] / "policies"
LOADED = load_policies(FOLDER)
CASES = load_cases(FOLDER)


def test_every_file_is_in_order():
    assert (LOADED.problems, CASES.problems) == ((), ())
    assert {policy.policy.place.org for policy in LOADED.policies} == {"aider-sample", "acme"}


@pytest.mark.parametrize("case", CASES.cases, ids=lambda case: case.case.name)
def test_every_case_holds(case):
    [result] = run_cases([case], LOADED.policies)
    assert result.differences == ()


def test_every_policy_is_covered_by_a_case():
    mentioned = {limit.decided_by for case in CASES.cases for limit in case.case.expect.limits}
    silent = {policy.ref.file for policy in LOADED.policies if policy.policy.inheritance == "inherit"}
    assert {policy.ref.file for policy in LOADED.policies} - silent == mentioned


def test_there_is_nothing_to_lint():
    assert [str(finding) for finding in lint(LOADED.policies, datetime(2026, 6, 1))] == []
