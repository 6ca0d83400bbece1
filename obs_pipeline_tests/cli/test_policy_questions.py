"""The reading commands of ``obs-pipeline policies``: what they say, and how they end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from obs_pipeline.cli.policies import app
from obs_pipeline.errors import ObsError
from obs_pipeline.settings import Settings, get_settings, project_root
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.aggregates import build_hourly
from obs_pipeline_tests.usage_files import MONDAY, landed_lake, usage_rows

Run = Callable[..., Result]
ORG = """
id: acme
name: Acme
scope: org
scope_id: acme
priority: 100
budgets:
  cost: {{limit: {limit}, period: daily}}
alerts: {{thresholds: [50], channels: [widget]}}
"""


@pytest.fixture
def policies(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy folder of one's own: the shipped one, in a git repository."""
    folder = tmp_path / "repository" / "policies"
    shutil.copytree(project_root() / "policies", folder)
    monkeypatch.setenv("OBS_POLICIES", str(folder))
    get_settings.cache_clear()
    return folder


@pytest.fixture
def run(policies: Path) -> Run:
    def invoke(*words: object, exits_with: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
        code = result.exception.exit_code if isinstance(result.exception, ObsError) else result.exit_code
        assert code == exits_with, (result.output, result.exception)
        return result

    return invoke


def answer(result: Result) -> Any:
    return json.loads(result.stdout)


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def spoil(policies: Path) -> None:
    (policies / "agents" / "bad.yaml").write_text("id: bad\nname: Bad\nscope: agent\nscopeId: x\n")


def test_files_in_order_are_said_to_be(run: Run):
    assert answer(run("validate", "--json")) == {"policies": 11, "cases": 11, "problems": []}
    assert "In order" in run("validate").stdout


def test_a_problem_names_file_and_line_and_exits_with_2(run: Run, policies: Path):
    spoil(policies)
    said = run("validate", exits_with=2).stdout
    assert "agents/bad.yaml:4: scopeId: is not a field of this schema; did you mean scope_id?" in said
    found = answer(run("validate", "--json", exits_with=2))["problems"]
    assert {problem["file"] for problem in found} == {"agents/bad.yaml"}


def test_a_broken_test_case_is_a_problem_too(run: Run, policies: Path):
    (policies / "tests" / "bad.yaml").write_text("name: nothing expected\nfor: {org: acme}\nat: 2026-05-01\n")
    assert "tests/bad.yaml:3: at" in run("validate", exits_with=2).stdout


@pytest.mark.parametrize("command", ["lint", "test", "effective", "litellm"])
def test_other_commands_refuse_files_that_are_not_in_order(run: Run, policies: Path, command: str):
    spoil(policies)
    words = [command, "--org", "acme"] if command == "effective" else [command]
    assert "agents/bad.yaml:4" in str(run(*words, exits_with=2).exception)


def test_lint_exits_with_2_on_an_error_and_on_warnings_only_when_asked(run: Run, policies: Path):
    assert "Nothing to say" in run("lint").stdout
    (policies / "projects" / "more.yaml").write_text(
        "{id: more, name: More, scope: project, org: acme, scope_id: more,"
        " budgets: {cost: {limit: 9000, period: daily}}}"
    )
    warned = run("lint", "--at", "2026-06-01").stdout
    assert "projects/more.yaml:1: warning child-exceeds-parent" in warned
    run("lint", "--strict", exits_with=2)
    (policies / "projects" / "wish.yaml").write_text(
        "{id: wish, name: Wish, scope: project, org: aider-sample, scope_id: wish, inheritance: override,"
        " budgets: {cost: {limit: 9000, period: daily}}}"
    )
    rules = [finding["rule"] for finding in answer(run("lint", "--json", exits_with=2))]
    assert "override-refused" in rules


def test_test_cases_run_and_a_failing_one_says_what_differs(run: Run, policies: Path):
    assert "All 11 cases hold." in run("test").stdout
    (policies / "tests" / "wrong.yaml").write_text(
        "name: more than there is\nfor: {org: acme}\nat: 2026-05-01T12:00:00Z\n"
        "expect: {limits: [{kind: cost, period: daily, limit: 1, decided_by: org.yaml}]}\n"
    )
    said = run("test", exits_with=2).stdout
    assert "tests/wrong.yaml:1: more than there is" in said
    assert "the daily cost limit is 2,000 by acme (org.yaml:24), expected 1" in said
    assert [case["name"] for case in answer(run("test", "--json", exits_with=2)) if case["differences"]] == [
        "more than there is"
    ]


def test_effective_tells_every_field_with_the_chain_that_decided_it(run: Run):
    found = answer(run("effective", "--org", "acme", "--project", "atlas", "--agent", "support-triage", "--json"))
    fields = {field["field"]: field for field in found["fields"]}
    daily = fields["budgets.cost.daily (USD)"]
    assert daily["value"] == "150"
    assert daily["decided_by"] == ["acme.atlas.support-triage (agents/acme.yaml:3)"]
    assert [(step["scope"], step["value"], step["outcome"]) for step in daily["trail"]] == [
        ("org", "2000", "replaced"),
        ("project", "3000", "yields"),
        ("agent", "150", "decides"),
    ]
    assert daily["trail"][0]["replaced_by"] == "acme.atlas (projects/acme-atlas.yaml:2)"
    assert set(fields) == {
        "budgets.cost.daily (USD)", "budgets.cost.monthly (USD)", "budgets.calls.hourly",
        "rate_limits.calls_per_minute", "rate_limits.burst_allowance", "alerts.thresholds", "alerts.channels",
        "calendar.time_zone", "calendar.week_start",
    }  # fmt: skip


def test_an_agent_is_known_by_its_name_alone_and_at_an_instant(run: Run):
    assert "aider-sample/aider/diff" in run("effective", "diff").stdout
    during = run("effective", "diff", "--at", "2027-01-12").stdout
    assert "migration week" in during
    assert "migration week" not in run("effective", "diff", "--at", "2027-01-18").stdout


def test_ignored_fields_and_conflicts_are_shown(run: Run, policies: Path):
    (policies / "agents" / "more.yaml").write_text(
        "[{id: idle, name: Idle, scope: agent, org: acme, project: atlas, scope_id: idle, inheritance: inherit,"
        " budgets: {cost: {limit: 1, period: daily}}},"
        " {id: wish, name: Wish, scope: agent, org: aider-sample, project: aider, scope_id: wish,"
        " inheritance: override, budgets: {cost: {limit: 99, period: daily}}}]"
    )
    assert "ignored idle (agents/more.yaml:1): budgets.cost.daily (USD)" in run("effective", "idle").stdout
    said = run("effective", "wish").stdout
    assert "conflict aider-sample (org.yaml:5) limits budgets.cost.daily (USD) to 25" in said
    found = answer(run("effective", "wish", "--json"))
    assert {conflict["kind"] for conflict in found["conflicts"]} == {"refused_override"}


def test_a_name_that_means_nobody_or_several_is_refused_with_a_way_out(run: Run, policies: Path):
    assert "No policy and no usage mentions an agent named nobody" in str(
        run("effective", "nobody", exits_with=2).exception
    )
    (policies / "agents" / "twin.yaml").write_text(
        "{id: twin, name: Twin, scope: agent, org: acme, project: beacon, scope_id: support-triage}"
    )
    said = str(run("effective", "support-triage", exits_with=2).exception)
    assert "acme/atlas/support-triage, acme/beacon/support-triage. Add --org and --project" in said
    assert "Name an agent" in str(run("effective", exits_with=2).exception)
    assert run("effective", "support-triage", "--project", "beacon").exit_code == 0


def test_diff_compares_a_folder_or_a_git_revision_with_the_files(run: Run, policies: Path, tmp_path: Path):
    git(policies.parent, "init", "-q")
    git(policies.parent, "add", ".")
    git(policies.parent, "commit", "-qm", "first")
    before = tmp_path / "before"
    shutil.copytree(policies, before)
    org = policies / "org.yaml"
    org.write_text(org.read_text().replace("{limit: 25, period: daily}", "{limit: 12, period: daily}"))
    for base in ("HEAD", before):
        found = answer(run("diff", base, "--json"))
        assert found["policies"] == [{"id": "aider-sample", "edit": "edited"}]
        assert {change["direction"] for change in found["changes"]} == {"tighter"}
        assert ("aider-sample", "25", "12") in {
            (change["place"], change["before"], change["after"]) for change in found["changes"]
        }
    said = run("diff", "HEAD").stdout
    assert "tighter budgets.cost.daily (USD): 25 → 12 by aider-sample (org.yaml:5)" in said
    assert "looser budgets.cost.daily (USD): 12 → 25" in run("diff", policies, "--head", before).stdout
    assert "What holds is the same for everyone." in run("diff", policies).stdout


@pytest.mark.parametrize("base", ["nowhere", "--upload-pack=x", "HEAD", "applied"])
def test_a_base_that_is_not_there_is_refused(run: Run, base: str):
    said = str(run("diff", "--", base, exits_with=2).exception)
    assert "revision" in said
    assert "folder" in said


@pytest.fixture
def lake(settings: Settings, tmp_path: Path) -> Lake:
    settings.home.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        filled = landed_lake(settings.home, connection, usage_rows(3))
        build_hourly(connection, filled, DayRange(MONDAY.date(), MONDAY.date().replace(day=4)))
    assert filled.root == settings.lake
    return filled


def test_replay_tells_what_each_side_would_have_done(run: Run, policies: Path, lake: Lake, tmp_path: Path):
    before = tmp_path / "before"
    before.mkdir()
    (before / "org.yaml").write_text(ORG.format(limit=100))
    shutil.rmtree(policies)
    policies.mkdir()
    (policies / "org.yaml").write_text(ORG.format(limit="0.000000050"))
    found = answer(run("replay", before, "--days", "3", "--json"))
    assert (found["from"], found["to"]) == ("2026-03-02T00:00:00", "2026-03-05T00:00:00")
    assert found["totals"]["present"]["calls_blocked"] == 0
    assert found["totals"]["proposed"]["exceeded"] == 3
    [change] = found["changes"]
    assert (change["place"], change["kind"], change["period"]) == ("acme", "cost", "daily")
    assert Decimal(change["proposed"]["cost_blocked"]) > 0
    said = run("replay", before, "--days", "3").stdout
    assert "acme daily cost" in said
    assert "0 → 3" in said


def test_replay_without_usage_says_how_to_get_some(run: Run, policies: Path):
    assert "no usage to replay" in str(run("replay", policies, exits_with=2).exception)


def test_status_shows_where_the_budgets_stand(run: Run, policies: Path, lake: Lake):
    rows = answer(run("status", "--at", "2026-03-03T12:00", "--json"))
    assert all(row["set_at"] == row["scope"] for row in rows)
    [budget] = [row for row in rows if (row["place"], row["period"]) == ("acme", "daily")]
    assert budget["state"] == "ok"
    assert Decimal(budget["spent"]) > 0
    assert "Budgets by files" in run("status", "--at", "2026-03-03T12:00").stdout
    everything = answer(run("status", "--at", "2026-03-03T12:00", "--all", "--json"))
    assert {row["scope"] for row in everything} == {"org", "project", "agent"}


def test_lint_knows_which_places_usage_mentions(run: Run, lake: Lake):
    said = run("lint").stdout
    assert "unknown-scope" in said
    assert "no usage mentions agent acme/atlas/support-triage" in said


def test_the_schema_is_printed_or_written(run: Run, tmp_path: Path):
    printed = answer(run("schema"))
    assert "BudgetPolicy" in printed["$defs"]
    run("schema", "--out", tmp_path / "schema.json")
    assert json.loads((tmp_path / "schema.json").read_text()) == printed


def test_litellm_requests_are_printed_with_what_is_lost(run: Run):
    found = answer(run("litellm", "--at", "2026-06-01"))
    assert found["requests"][0]["path"] == "/team/new"
    assert {"place": "acme", "field": "budgets.cost.daily (USD)"}.items() <= found["untranslated"][0].items()


def test_asking_for_an_effective_policy_loads_neither_dagster_nor_pandas(policies: Path):
    code = (
        "import sys; from obs_pipeline.cli.main import app;"
        "app(['policies', 'effective', 'architect', '--json'], standalone_mode=False);"
        "print([name for name in ('dagster', 'pandas', 'scipy', 'statsmodels') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_what_was_applied_stays_in_force_while_the_files_are_edited(run: Run, policies: Path):
    run("sync")
    org = policies / "org.yaml"
    org.write_text(org.read_text().replace("{limit: 2_000, period: daily}", "{limit: 1_000, period: daily}"))

    def daily(*words: str) -> str:
        fields = answer(run("effective", "--org", "acme", *words, "--json"))["fields"]
        return str(next(field["value"] for field in fields if field["field"] == "budgets.cost.daily (USD)"))

    assert (daily(), daily("--applied")) == ("1000", "2000")
    changes = answer(run("diff", "applied", "--json"))["changes"]
    assert {(change["before"], change["after"]) for change in changes} == {("2000", "1000")}
