"""``obs-pipeline policies``: the commands that write, and those that tell what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from obs_pipeline.settings import Settings, project_root
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.policy_store import PolicyStore
from obs_pipeline_tests.cli.test_main import Run, Said, assert_one_message, run  # noqa: F401


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "policies"
    monkeypatch.setenv("OBS_POLICIES", str(folder))
    write(folder, limit=5)
    return folder


@pytest.fixture
def obs(run: Run, folder: Path) -> Run:  # noqa: F811
    return lambda *words: run("policies", *words)


def write(folder: Path, limit: int) -> None:
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    (folder / "org.yaml").write_text("id: acme\nname: Acme\nscope: org\nscope_id: acme\npriority: 10\n")
    (folder / "agents" / "bots.yaml").write_text(
        "".join(
            f"- id: {name}\n  name: Bot\n  scope: agent\n  scope_id: {name}\n  org: acme\n  project: {project}\n"
            f"  budgets:\n    cost: {{limit: {limit}, period: daily}}\n"
            for name, project in (("bot", "web"), ("cat", "app"))
        )
    )


def add_twin(folder: Path) -> None:
    twin = "id: twin\nname: T\nscope: agent\nscope_id: bot\norg: acme\nproject: web\n"
    (folder / "agents" / "twin.yaml").write_text(twin)


def told(said: Said):
    assert said.code == 0, said
    return json.loads(said.out)


def test_a_sync_and_what_it_leaves_behind(obs: Run):
    report = told(obs("sync", "--author", "ann", "--reason", "launch", "--json"))
    assert {name: report[name] for name in ("outcome", "revision", "total", "synced", "skipped", "dry_run")} == {
        "outcome": "applied",
        "revision": 1,
        "total": 3,
        "synced": 3,
        "skipped": 0,
        "dry_run": False,
    }
    assert [(each["policy"], each["action"]) for each in report["changes"]] == [
        ("acme", "create"),
        ("bot", "create"),
        ("cat", "create"),
    ]
    (revision,) = told(obs("history", "--json"))
    assert (revision["author"], revision["reason"], revision["policies"]) == ("ann", "launch", 3)
    held = told(obs("applied", "--json"))
    assert [(each["policy_id"], each["file"], each["line"]) for each in held["policies"]][1:] == [
        ("bot", "agents/bots.yaml", 1),
        ("cat", "agents/bots.yaml", 9),
    ]
    assert told(obs("sync", "--json"))["outcome"] == "unchanged"
    assert "Nothing to do: 3 policies are in force as revision 1" in obs("sync").flat


def test_without_a_name_the_account_is_the_author(obs: Run):
    obs("sync")
    (revision,) = told(obs("history", "--json"))
    assert revision["author"]


@pytest.mark.parametrize("author", ["a" * 201, "two\nlines"])
def test_an_author_that_is_no_name_is_refused(obs: Run, author: str):
    assert_one_message(obs("sync", "--author", author), "--author")


def test_a_dry_run_shows_each_edit_and_what_it_does_to_each_agent(obs: Run, folder: Path):
    obs("sync")
    write(folder, limit=9)
    report = told(obs("sync", "--dry-run", "--json"))
    assert (report["outcome"], report["dry_run"]) == ("planned", True)
    assert report["changes"][0]["fields"] == [{"field": "budgets.cost.daily.limit", "before": "5", "after": "9"}]
    assert report["effect"][1] == {
        "place": "acme/web/bot",
        "field": "budgets.cost.daily (USD)",
        "direction": "looser",
        "before": "5",
        "after": "9",
    }
    said = obs("sync", "--dry-run")
    assert said.code == 0
    for words in ("~ update bot", "budgets.cost.daily.limit: 5 → 9", "acme/web/bot", "looser", "Nothing was applied"):
        assert words in said.flat
    assert len(told(obs("history", "--json"))) == 1


def test_only_chosen_projects(obs: Run, folder: Path):
    obs("sync")
    write(folder, limit=9)
    report = told(obs("sync", "--projects", "web, web", "--json"))
    assert [each["policy"] for each in report["changes"]] == ["bot"]
    assert_one_message(obs("sync", "--projects", "wev"), "did you mean web?")
    assert_one_message(obs("sync", "--projects", ","), "at least one project")


def test_a_conflict_is_told_with_its_mend_and_needs_force(obs: Run, folder: Path):
    add_twin(folder)
    said = obs("sync")
    assert said.code == 3
    assert "conflict" in said.flat
    assert "merge them into one policy" in said.flat
    assert "nothing was applied, nothing is in force yet. Mend them, or say --force." in said.flat
    assert obs("sync", "--json").code == 3
    assert told(obs("history", "--json")) == []
    assert "in spite of conflicts" in obs("sync", "--force").flat
    (forced,) = [each for each in told(obs("audit", "list", "--json")) if each["action"] == "force"]
    assert "twin" in forced["detail"]["overruled"][0]
    assert "sync, forced" in obs("history").flat


def test_a_broken_file_is_named_and_what_was_in_force_stays(obs: Run, folder: Path):
    obs("sync")
    (folder / "agents" / "broken.yaml").write_text("id: x\nname: X\nscop: org\n")
    said = obs("sync", "--force")
    assert said.code == 2
    assert "agents/broken.yaml:3: scop" in said.flat
    assert "revision 1 stays in force" in said.flat
    refused = obs("sync", "--json")
    assert refused.code == 2
    assert json.loads(refused.out)["errors"][0]["file"] == "agents/broken.yaml"


def test_the_history_of_a_policy(obs: Run, folder: Path):
    obs("sync", "--author", "ann")
    write(folder, limit=9)
    obs("sync", "--author", "bob", "--reason", "busier")
    newest, oldest = told(obs("history", "bot", "--json"))
    assert (newest["version"], newest["author"], newest["reason"]) == (2, "bob", "busier")
    assert newest["fields"] == [{"field": "budgets.cost.daily.limit", "before": "5", "after": "9"}]
    assert oldest["version"] == 1
    assert "budgets.cost.daily.limit: 5 → 9" in obs("history", "bot").flat
    assert_one_message(obs("history", "nobody"), "'nobody' was ever in force")


def test_a_rollback_of_one_policy_and_of_everything(obs: Run, folder: Path):
    obs("sync")
    write(folder, limit=9)
    obs("sync")
    report = told(obs("rollback", "bot", 1, "--author", "ann", "--json"))
    assert (report["revision"], [each["policy"] for each in report["changes"]]) == (3, ["bot"])
    said = obs("rollback", "--to-revision", 1, "--reason", "too loose")
    assert "Revision 4 is in force" in said.flat
    assert "mend them too" in said.flat
    assert [each["kind"] for each in told(obs("history", "--json"))] == ["rollback", "rollback", "sync", "sync"]
    assert obs("rollback", "--to-revision", 2, "--dry-run").flat.endswith("Nothing was applied.")
    assert len(told(obs("history", "--json"))) == 4
    assert_one_message(obs("rollback", "bot"), "--to-revision")
    assert_one_message(obs("rollback", "bot", 1, "--to-revision", 1), "--to-revision")
    assert_one_message(obs("rollback", "--to-revision", 99), "no revision 99")


def test_what_was_in_force_at_a_moment(obs: Run, folder: Path):
    obs("sync")
    first = told(obs("history", "--json"))[0]["applied_at"]
    write(folder, limit=9)
    obs("sync")

    def limit(*words: object) -> str:
        held = told(obs("applied", *words, "--json"))["policies"]
        return held[1]["content"]["budgets"]["cost"][0]["limit"]

    assert (limit(), limit("--revision", 1), limit("--at", first)) == ("9", "5", "5")
    assert told(obs("applied", "--at", "2020-01-01", "--json")) == {"revision": None, "policies": []}
    assert "agents/bots.yaml:1" in obs("applied").flat
    assert_one_message(obs("applied", "--revision", 9), "no revision 9")
    assert_one_message(obs("applied", "--revision", 1, "--at", "2020-01-01"), "not both")


def test_the_audit_log_by_policy_and_span(obs: Run, folder: Path):
    obs("sync", "--author", "ann")
    write(folder, limit=9)
    obs("sync", "--author", "bob")
    entries = told(obs("audit", "list", "--policy", "bot", "--json"))
    assert [(each["action"], each["actor"]) for each in entries] == [("update", "bob"), ("create", "ann")]
    assert told(obs("audit", "--policy", "bot", "--json")) == entries
    assert told(obs("audit", "list", "--since", "2999-01-01", "--json")) == []
    assert told(obs("audit", "list", "--until", "2020-01-01", "--json")) == []
    assert "budgets.cost.daily.limit: 5 → 9" in obs("audit", "list").flat
    assert "nothing there" in obs("audit", "list", "--policy", "nobody").flat


def test_the_audit_log_holds_until_someone_alters_it(obs: Run, folder: Path, settings: Settings):
    obs("sync")
    before = told(obs("audit", "verify", "--json"))
    assert (before["holds"], before["entries"]) == (True, 4)
    write(folder, limit=9)
    obs("sync")
    assert "holds: 7 entries" in obs("audit", "verify", "--expect", before["head"]).flat
    ledger = Ledger(settings.ledger)
    with ledger.begin() as connection:
        connection.execute(sa.text("DROP TRIGGER audit_log_no_update"))
        connection.execute(sa.text("UPDATE audit_log SET actor = 'eve' WHERE entry = 5"))
    ledger.close()
    said = obs("audit", "verify")
    assert said.code == 3
    assert "entry 5: says something else than when it was written" in said.flat
    assert json.loads(obs("audit", "verify", "--json").out)["broken"]["entry"] == 5


def test_a_log_written_anew_lacks_the_digest_seen_before(obs: Run):
    obs("sync")
    said = obs("audit", "verify", "--expect", "0" * 64)
    assert said.code == 3
    assert "cut short" in said.flat


def test_an_export_is_verified_without_the_ledger(obs: Run, tmp_path: Path):
    obs("sync")
    file = tmp_path / "audit.jsonl"
    assert "Written" in obs("audit", "export", "--out", file).flat
    assert obs("audit", "export").out == file.read_text()
    assert told(obs("audit", "verify", "--file", file, "--json"))["entries"] == 4
    file.write_text(file.read_text().replace('"create"', '"delete"', 1))
    assert obs("audit", "verify", "--file", file).code == 3
    file.write_text("nonsense\n")
    assert_one_message(obs("audit", "verify", "--file", file), "audit.jsonl:1: not an entry")
    assert_one_message(obs("audit", "verify", "--file", tmp_path / "none"), "none")


def test_the_grants_for_a_role_are_printed_as_one_transaction(obs: Run):
    said = obs("audit", "grants", "obs_app")
    lines = said.out.splitlines()
    assert (said.code, lines[0], lines[-1]) == (0, "BEGIN;", "COMMIT;")
    assert (
        "GRANT SELECT, INSERT ON public.audit_log, public.policy_revisions, public.policy_versions TO obs_app;" in lines
    )


def test_nothing_in_force_is_told_politely(obs: Run):
    assert "policies sync" in obs("applied").flat
    assert "policies sync" in obs("history").flat
    assert "holds: 0 entries" in obs("audit", "verify").flat


def test_a_proxy_follows_the_ledger_and_what_is_pending_is_shown_until_it_is_sent(
    obs: Run,
    run: Run,  # noqa: F811
    settings: Settings,
):
    from obs_pipeline_tests.alerting.loopback import Answer
    from obs_pipeline_tests.policy.litellm_server import MASTER_KEY, litellm_proxy

    with litellm_proxy() as proxy:
        proxy.keys["acme/web/bot"] = {}
        variables = {"OBS_LITELLM_URL": proxy.server.url, "OBS_LITELLM_MASTER_KEY": MASTER_KEY}
        proxy.before = lambda request: Answer(400, "not now") if len(proxy.teams) == 1 else None
        first = run("policies", "sync", **variables)
        assert first.code == 3
        assert "Revision 1 is in force" in first.flat
        assert "litellm took 3 settings, 3 settings pending: team acme/web: it answered 400: not now" in first.flat
        late = "litellm holds revision 0 of 1: 3 settings wait because team acme/web: it answered 400"
        assert f"pending {late}" in obs("status").flat
        [looked] = [each for each in json.loads(run("doctor", "--json").out) if each["what"] == "target litellm"]
        assert (looked["state"], looked["found"].startswith(late)) == ("look", True)
        proxy.before = lambda _: None
        again = obs("sync")
        assert again.code == 0
        assert "Nothing to do" in again.flat
        assert "litellm took 2 settings and holds revision 1." in again.flat
        assert "litellm has no key acme/app/cat: limited once there is one" in again.flat
        assert "pending" not in obs("status").flat
        assert "litellm took 5 settings" in obs("sync", "--resend").flat
        assert "target litellm" in run("doctor").out
        report = json.loads(obs("rollback", "bot", "1", "--json").out)
        assert [each["target"] for each in report["targets"]] == ["litellm"]
        said = "".join(each.out + each.err for each in (first, again, obs("status"), run("doctor", "--json")))
        assert MASTER_KEY not in said
        assert MASTER_KEY.encode() not in b"".join(
            path.read_bytes() for path in settings.home.rglob("*") if path.is_file()
        )


def test_a_proxy_without_its_key_stops_a_sync_before_anything_is_applied(obs: Run, run: Run):  # noqa: F811
    said = run("policies", "sync", OBS_LITELLM_URL="http://127.0.0.1:9")
    assert_one_message(said, "OBS_LITELLM_MASTER_KEY")
    assert told(obs("history", "--json")) == []


def test_a_change_at_the_same_moment_ends_with_its_own_code(obs: Run, monkeypatch: pytest.MonkeyPatch):
    from obs_pipeline.storage.policy_store import Writing

    monkeypatch.setattr(Writing, "head", lambda self: 7)
    assert_one_message(obs("sync"), "Revision 7 came into force", exits_with=4)


def test_the_shipped_policies_can_be_put_into_force(run: Run, settings: Settings):  # noqa: F811
    report = told(run("policies", "sync", "--folder", project_root() / "policies", "--json"))
    assert report["outcome"] == "applied"
    ledger = Ledger(settings.ledger)
    head = PolicyStore(ledger).head()
    assert head is not None
    assert head.policies == report["synced"] > 5
    ledger.close()
