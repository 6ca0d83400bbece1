"""Test cases as data: what passes, and in which words a case says what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from obs_pipeline.policy.cases import load_cases, run_cases
from obs_pipeline.policy.problems import PolicyError
from obs_pipeline_tests.policy.trees import AGENT, ORG, cost, policy

CASE = """\
- name: the bot is held by its own limit
  for: {org: acme, project: web, agent: bot}
  at: 2026-05-06T12:00:00Z
  expect:
    limits:
      - {kind: cost, period: daily, limit: 5, decided_by: agent.yaml}
      - {kind: calls, period: hourly, limit: 7, decided_by: org.yaml}
    rate_limits:
      calls_per_minute: {limit: 3, decided_by: agent.yaml}
    thresholds: [80, 50]
    channels: [slack]
"""
TREE = [
    policy(
        ORG,
        budgets={"cost": cost(10), "calls": cost(7, "hourly")},
        alerts={"thresholds": [50], "channels": ["slack"]},
    ),
    policy(AGENT, budgets={"cost": cost(5)}, rate_limits={"calls_per_minute": 3}, alerts={"thresholds": [80]}),
]


def put(folder: Path, text: str, name: str = "cases.yaml") -> Path:
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / name).write_text(text)
    return folder


def differences(tmp_path, *change):
    loaded = load_cases(put(tmp_path, CASE.replace(*change)), strict=True)
    [result] = run_cases(loaded.cases, TREE)
    return list(result.differences)


def test_a_case_that_holds_passes(tmp_path):
    [result] = run_cases(load_cases(put(tmp_path, CASE)).cases, TREE)
    assert (result.name, result.file, result.line) == ("the bot is held by its own limit", "tests/cases.yaml", 1)
    assert result.passed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("limit: 5", "limit: 6"), "the daily cost limit is 5 by agent (agent.yaml:1), expected 6"),
        (
            ("5, decided_by: agent.yaml", "5, decided_by: org.yaml"),
            "the daily cost limit is decided by agent.yaml, expected org.yaml",
        ),
        (("period: hourly", "period: weekly"), "no weekly calls limit holds, expected 7"),
        (("limit: 3", "limit: 4"), "calls_per_minute is 3 by agent (agent.yaml:1), expected 4"),
        (("calls_per_minute", "calls_per_hour"), "no calls_per_hour holds, expected 3"),
        (("[80, 50]", "[80]"), "the thresholds are 50, 80, expected 80"),
        (("[slack]", "[]"), "the channels are slack, expected none"),
        (("    thresholds", "    conflicts: [twins]\n    thresholds"), "the conflicts are none, expected twins"),
    ],
)
def test_a_case_that_does_not_hold_says_what_differs(tmp_path, change, said):
    assert any(said in text for text in differences(tmp_path, *change))


def test_a_limit_nobody_expected_fails_the_case(tmp_path):
    line = "      - {kind: calls, period: hourly, limit: 7, decided_by: org.yaml}\n"
    assert differences(tmp_path, line, "") == [
        "the hourly calls limit 7 of org (org.yaml:1) holds, expected none",
    ]


def test_a_rate_limit_nobody_expected_fails_only_where_rate_limits_are_stated(tmp_path):
    stated = "    rate_limits:\n      calls_per_minute: {limit: 3, decided_by: agent.yaml}\n"
    assert differences(tmp_path, stated, "    rate_limits: {}\n") == [
        "calls_per_minute 3 of agent (agent.yaml:1) holds, expected none"
    ]
    assert differences(tmp_path, stated, "") == []


def test_a_conflict_nobody_expected_fails_the_case(tmp_path):
    [case] = load_cases(put(tmp_path, CASE)).cases
    [result] = run_cases([case], [*TREE, policy(AGENT, id="twin")])
    assert result.differences == ("the conflicts are twins, expected none",)


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("expect:", "expects:"), 4, "did you mean expect?"),
        (("at: 2026-05-06T12:00:00Z", "at: 2026-05-06"), 3, "an instant is wanted"),
        (("at: 2026-05-06T12:00:00Z", "at: 2026-05-06T12:00:00"), 3, "must carry its zone"),
        (("kind: calls", "kind: call"), 7, "write one of 'cost', 'tokens' or 'calls'"),
        (("for: {org: acme,", "for: {orgs: acme,"), 2, "did you mean org?"),
        (("- name", "- 7\n- name"), 1, "write a mapping of fields"),
    ],
)
def test_a_malformed_case_is_a_problem_with_its_line(tmp_path, change, line, said):
    loaded = load_cases(put(tmp_path, CASE.replace(*change)))
    assert any(problem.line == line and said in str(problem) for problem in loaded.problems), loaded.problems
    with pytest.raises(PolicyError):
        load_cases(tmp_path, strict=True)


def test_an_empty_or_broken_file_is_a_problem_and_a_missing_folder_is_none(tmp_path):
    assert load_cases(tmp_path).cases == ()
    put(put(tmp_path, "# later", "a.yaml"), "a: [", "b.yaml")
    assert [problem.file for problem in load_cases(tmp_path).problems] == ["tests/a.yaml", "tests/b.yaml"]
