"""The policy folder: what is read, with which lines, and how everything malformed is refused without a crash."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.policy.files import load_policies
from obs_pipeline.policy.problems import PolicyError
from obs_pipeline.yaml_positions import MAX_BYTES, Problem, parse_documents, read_documents

GOOD = """\
# whose
id: bot
name: Bot
scope: agent
org: acme
project: web
scope_id: bot
budgets:
  cost:
    limit: 12.50
    period: daily
    increases:
      - {from: 2026-05-01, until: 2026-05-04, limit: 20, reason: launch}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "policies"
    (root / "agents").mkdir(parents=True)
    return root


def put(folder: Path, text: str | bytes, name: str = "agents/bot.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(folder: Path) -> list[str]:
    return [str(problem) for problem in load_policies(folder).problems]


def test_a_policy_is_read_with_the_lines_of_its_fields(folder):
    put(folder, GOOD)
    [source] = load_policies(folder, strict=True).policies
    assert source.policy.budgets.cost[0].limit == Decimal("12.50")
    assert str(source.ref) == "bot (agents/bot.yaml:2)"
    assert source.line_of("scope_id") == 7
    assert source.line_of("budgets", "cost", 0, "period") == 11
    assert source.line_of("budgets", "cost", 0, "increases", 0, "until") == 13
    assert source.line_of("alerts", "thresholds", 1) == 2


def test_a_file_may_hold_a_list_or_several_documents(folder):
    put(folder, "# one\n" + GOOD + "---\n" + GOOD.replace("bot", "ant"), "org.yaml")
    listed = [{**parse_documents(GOOD.encode(), is_json=False)[0].value, "id": name} for name in ("b", "c")]
    put(folder, json.dumps(listed, default=float, indent=1), "projects/two.json")
    loaded = load_policies(folder, strict=True)
    assert [policy.policy.id for policy in loaded.policies] == ["bot", "ant", "b", "c"]
    assert [policy.ref.line for policy in loaded.policies[:2]] == [3, 17]
    assert loaded.policies[3].line_of("id") > loaded.policies[3].ref.line > loaded.policies[2].ref.line
    assert set(loaded.digests) == {"org.yaml", "projects/two.json"}


def test_files_of_other_rooms_are_left_alone(folder):
    put(folder, "routes: []", "routes.yaml")
    put(folder, "- {}", "tests/agents.yaml")
    put(folder, "read me", "agents/README.md")
    put(folder, "half written", "agents/.bot.yaml")
    assert load_policies(folder, strict=True).policies == ()


@pytest.mark.parametrize(
    ("change", "line", "field", "message", "mend"),
    [
        (("scope_id", "scopeId"), 7, "scopeId", "is not a field of this schema", "did you mean scope_id?"),
        (
            ("    period", "    perod"),
            11,
            "budgets.cost.0.perod",
            "is not a field of this schema",
            "did you mean period?",
        ),
        (
            ("name: Bot", "colour: red"),
            3,
            "colour",
            "is not a field of this schema",
            "use one of id, name, scope, scope_id, org, project, budgets, rate_limits, alerts, inheritance,"
            " priority, calendar, metadata",
        ),
        (
            ("period: daily", "period: yearly"),
            11,
            "budgets.cost.0.period",
            "is 'yearly'",
            "write one of 'hourly', 'daily', 'weekly' or 'monthly'",
        ),
        (
            ("limit: 12.50", "limit: much"),
            10,
            "budgets.cost.0.limit",
            "is 'much': input should be a valid decimal",
            "write a number",
        ),
        (("org: acme\n", ""), 2, "org", "a policy of scope agent must name its organisation", "correct it"),
        (
            ("name: Bot", "name: 7"),
            3,
            "name",
            "is 7: input should be a valid string",
            "write text, in quotes if it looks like a number",
        ),
        (
            ("limit: 20", "limit: 2"),
            12,
            "budgets.cost.0.increases",
            "an increase must be above the limit it raises, 12.50",
            "correct it",
        ),
        (("name: Bot\n", ""), 2, "name", "is missing", "add it"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_a_way_out(folder, change, line, field, message, mend):
    put(folder, GOOD.replace(*change))
    loaded = load_policies(folder)
    assert Problem("agents/bot.yaml", line, field, message, mend) in loaded.problems
    assert loaded.policies == ()


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: [1,\nb: }", 2, "is not YAML"),
        ("a:\n\tb: 1", 2, "is not YAML"),
        ("id: a\nid: b", 2, "states 'id' twice (first in line 1)"),
        ("a: 1\nb: {c: 1, c: 2}", 2, "states 'c' twice"),
        (BOMB, 6, "holds more than 200,000 values once its anchors are written out"),
        ("a: &x\n  - *x", 2, "inside itself, a cycle"),
        ("a: *x", 1, "which nothing above defines"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", 2, "carries the tag"),
        ("a: &x {b: 1}\nc:\n  <<: *x", 3, "merges another mapping"),
        ("? [a]\n: 1", 1, "has a key that is not a word"),
        ("[" * 500_000, 1, "is nested more than 32 deep"),
        ("{a: " * 200_000, 1, "is nested more than 32 deep"),
        (b"a: 1\nb: \xff", 2, "is not UTF-8 text"),
        (b"a: 1\nb: \x00", 2, "holds a character that text may not have"),
        ("", 1, "holds no policy"),
        ("# nothing\n---\n", 1, "holds no policy"),
        ("[]", 1, "holds no policy"),
        ("just text", 1, "write a mapping of fields"),
        ("- 1\n- two", 2, "write a mapping of fields"),
        ("a: " + "9" * 900_000, 1, "is not a field"),
    ],
)
def test_malformed_yaml_is_a_problem_with_its_line(folder, text, line, said):
    put(folder, text)
    loaded = load_policies(folder)
    assert any(problem.line == line and said in str(problem) for problem in loaded.problems), loaded.problems
    assert loaded.policies == ()


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('{"id": 1,\n}', 2, "is not JSON"),
        ('{"id": 1,\n"id": 2}', 2, "states 'id' twice"),
        ('{"\\ud83d": 1, "\\ud83d": 2}', 1, "twice"),
        ('{"id": NaN}', 1, "which is no number"),
        ("[" * 500_000, 1, "is nested more than 32 deep"),
        ('{"id": ' + "9" * 100_000 + "}", 1, "id: is "),
        ("", 1, "holds no policy"),
        ('{"name": "\\ud83d"}', 1, "name"),
    ],
)
def test_malformed_json_is_a_problem_with_its_line(folder, text, line, said):
    put(folder, text, "agents/bot.json")
    found = load_policies(folder).problems
    assert any(problem.line == line and said in str(problem) for problem in found), found


def test_json_keeps_its_lines_and_exact_numbers_whatever_only_json_allows(folder):
    text = (
        '{\n\t"id": "bot", "name": "\\ud83d\\ude80",\n\t"scope": "org", "scope_id": "acme",'
        '\n\t"budgets": {"cost":\n\t\t{"limit": 1.10, "period": "daily"}}}'
    )
    put(folder, text, "org.json")
    [source] = load_policies(folder, strict=True).policies
    assert source.policy.budgets.cost[0].limit == Decimal("1.10")
    assert source.policy.name == "\N{ROCKET}"
    assert source.line_of("budgets", "cost", 0, "limit") == 5


def test_a_word_that_older_yaml_takes_for_false_stays_a_word():
    [document] = parse_documents(
        b"a: no\nb: on\nc: 010\nd: 2026-05-01\ne: 1_000\nf: 0x1F\ng: 1e3\nh: .5\ni: ~", is_json=False
    )
    assert document.value == {
        "a": "no",
        "b": "on",
        "c": 10,
        "d": "2026-05-01",
        "e": 1000,
        "f": "0x1F",
        "g": Decimal(1000),
        "h": Decimal("0.5"),
        "i": None,
    }


def test_an_anchor_may_be_used_where_it_stays_small(folder):
    put(
        folder,
        GOOD + "alerts:\n  thresholds: &usual [50, 80]\nrate_limits: {}\n---\n" + GOOD.replace("id: bot", "id: ant", 1),
    )
    assert len(load_policies(folder, strict=True).policies) == 2


def test_a_file_of_fifty_megabytes_is_refused_unread(folder, monkeypatch):
    path = put(folder, GOOD)
    os.truncate(path, 50_000_000)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("it was opened"))
    [problem] = problems(folder)
    assert f"has 50,000,000 bytes, more than the {MAX_BYTES:,} a policy file may have; split it" in problem


def test_a_duplicate_id_is_told_at_both_places_and_neither_policy_is_taken(folder):
    put(folder, GOOD)
    put(folder, GOOD, "projects/other.yaml")
    loaded = load_policies(folder)
    assert [(problem.file, problem.line, problem.field) for problem in loaded.problems] == [
        ("agents/bot.yaml", 2, "id"),
        ("projects/other.yaml", 2, "id"),
    ]
    assert "agents/bot.yaml:2" in loaded.problems[1].message
    assert loaded.policies == ()


def test_a_link_that_leads_out_of_the_folder_is_refused(folder, tmp_path):
    outside = put(tmp_path, GOOD, "outside.yaml")
    (folder / "agents" / "bot.yaml").symlink_to(outside)
    assert "leads out of the policy folder" in problems(folder)[0]


def test_a_link_within_the_folder_is_read(folder):
    put(folder, GOOD, "shared/bot.yaml")
    (folder / "agents" / "bot.yaml").symlink_to(folder / "shared" / "bot.yaml")
    assert len(load_policies(folder, strict=True).policies) == 1


@pytest.mark.parametrize("where", ["agents/more", "projects"])
def test_a_link_to_a_folder_is_refused_rather_than_skipped(folder, tmp_path, where):
    put(tmp_path, GOOD, "elsewhere/bot.yaml")
    (folder / where).symlink_to(tmp_path / "elsewhere")
    loaded = load_policies(folder)
    assert [(problem.file, loaded.policies) for problem in loaded.problems] == [(where, ())]


@pytest.mark.parametrize("target", ["nowhere.yaml", "loop.yaml"])
def test_a_link_that_leads_nowhere_is_refused(folder, target):
    (folder / "agents" / "loop.yaml").symlink_to(folder / "agents" / target)
    assert "is a link that leads nowhere" in problems(folder)[0]


def test_a_pipe_or_folder_named_like_a_policy_does_not_hang_the_reader(folder):
    os.mkfifo(folder / "agents" / "pipe.yaml")
    (folder / "org.yaml").mkdir()
    assert [text.split(";")[0] for text in problems(folder)] == [
        "agents/pipe.yaml:1: is not a regular file",
        "org.yaml:1: is not a regular file",
    ]


def test_a_file_that_cannot_be_read_is_a_problem(folder, monkeypatch):
    path = put(folder, GOOD)

    def refuse(self, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert read_documents(path, "agents/bot.yaml")[2].message == "cannot be read: Permission denied"


def test_a_folder_that_cannot_be_listed_is_a_problem_and_not_an_empty_one(folder):
    put(folder, "not a folder", "projects")
    assert problems(folder) == ["projects:1: cannot be listed: Not a directory; make it a readable folder"]


def test_a_missing_folder_is_a_problem(tmp_path):
    assert "is not a folder" in problems(tmp_path / "none")[0]


def test_one_bad_file_does_not_hide_the_problems_of_the_next(folder):
    put(folder, "a: [", "agents/a.yaml")
    put(folder, GOOD.replace("scope:", "scoop:"), "agents/b.yaml")
    with pytest.raises(PolicyError) as caught:
        load_policies(folder, strict=True)
    assert {problem.file for problem in caught.value.problems} == {"agents/a.yaml", "agents/b.yaml"}
    assert "problems in the policy folder:\n  agents/a.yaml:" in str(caught.value)


def test_a_single_problem_is_a_one_line_error(folder):
    put(folder, GOOD.replace("name: Bot\n", ""))
    with pytest.raises(PolicyError, match=r"^agents/bot\.yaml:2: name: is missing; add it$"):
        load_policies(folder, strict=True)


def test_a_file_of_a_thousand_mistakes_reports_the_first_twenty(folder):
    put(folder, "\n".join(f"wrong_{number}: 1" for number in range(1000)))
    assert len(problems(folder)) == 21


def test_a_long_list_in_one_file_is_read(folder):
    put(folder, "".join(f"- {{id: p{n}, name: n, scope: org, scope_id: o{n}}}\n" for n in range(8000)), "org.yaml")
    assert len(load_policies(folder, strict=True).policies) == 8000


def test_the_digest_changes_with_the_bytes(folder):
    put(folder, GOOD)
    before = load_policies(folder).digests
    put(folder, GOOD + "# a comment\n")
    after = load_policies(folder).digests
    assert before.keys() == after.keys()
    assert before != after


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="ab:-{}[]&*!?|>'\"#%@,\n \t1.0~<", max_size=80).map(str.encode),
        st.tuples(st.integers(0, len(GOOD)), st.text(max_size=5)).map(
            lambda cut: (GOOD[: cut[0]] + cut[1] + GOOD[cut[0] + len(cut[1]) :]).encode("utf-8", "replace")
        ),
    ),
    st.sampled_from([".yaml", ".json"]),
)
def test_no_content_whatever_raises(tmp_path_factory, content, suffix):
    folder = tmp_path_factory.mktemp("fuzz")
    put(folder, content, f"agents/bot{suffix}")
    loaded = load_policies(folder)
    assert loaded.problems or loaded.policies
