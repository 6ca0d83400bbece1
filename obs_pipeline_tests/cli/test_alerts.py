"""The alert commands, as they are typed, on a ledger with one incident in it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from obs_pipeline.alerting.passes import Findings, run_pass
from obs_pipeline.alerting.records import incident_of
from obs_pipeline.alerting.routes import load_routes
from obs_pipeline.cli.main import app
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.settings import Settings, get_settings, project_root
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import DeliveryRow
from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.cases import signal

POLICIES = project_root() / "policies"
NEVER = datetime(2000, 1, 1)


@pytest.fixture
def store(settings: Settings) -> AlertStore:
    """The ledger of the home, in which the agent ``[red]triage`` has one critical incident that was told."""
    store = AlertStore(Ledger(settings.ledger))
    now = utc_now()
    begins = now - timedelta(hours=2)
    found = replace(signal("an-1", 0, agent="[red]triage", severity="critical"), begins_at=begins, ends_at=now)
    run_pass(store, load_routes(POLICIES / "routes.yaml"), now - timedelta(minutes=5), Findings([found]))
    run_pass(store, load_routes(POLICIES / "routes.yaml"), now - timedelta(minutes=2))
    return store


def said(*words: str) -> str:
    result = CliRunner().invoke(app, ["alerts", *words], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str) -> ObsError:
    with pytest.raises(ObsError) as error:
        CliRunner().invoke(app, ["alerts", *words], catch_exceptions=False)
    return error.value


def only(store: AlertStore) -> str:
    [row] = store.incidents()
    return row.id


def test_list_names_the_incident_and_keeps_data_as_text(store: AlertStore):
    assert "[red]triage was odd" in said("list")
    [listed] = json.loads(said("list", "--json"))
    assert (listed["id"], listed["status"], listed["agent"]) == (only(store), "open", "[red]triage")


def test_show_lists_messages_and_takes_the_id_of_an_anomaly(store: AlertStore):
    shown = json.loads(said("show", "an-1", "--json"))
    assert shown["id"] == only(store)
    assert sorted(message["receiver"] for message in shown["messages"]) == ["dashboard", "task:ledger"]
    assert "dashboard: due" in said("show", only(store))


def test_why_tells_every_route(store: AlertStore):
    told = json.loads(said("why", only(store), "--json"))
    assert {trace["route"] for trace in told["decisions"]} == {"critical", "task:ledger"}
    assert {trace["outcome"] for trace in told["decisions"]} >= {"sent", "waiting"}
    assert {one["route"]: one["reason"] for one in told["not_matched"]}["hints"] == "severity is critical, not info"
    assert "not matched" in said("why", only(store))


def test_an_incident_is_acknowledged_resolved_and_reopened(store: AlertStore):
    name = only(store)
    assert json.loads(said("ack", name, "--by", "ada", "--json"))["acknowledged_by"] == "ada"
    said("resolve", name, "--by", "ada", "--reason", "a test", "--verdict", "false_positive")
    assert [(row.verdict, row.note) for row in store.feedback()] == [("false_positive", "a test")]
    [label] = AnomalyLabels(Ledger(get_settings().ledger)).standing()
    assert (label.anomaly_id, label.verdict, label.agent) == ("an-1", "false_positive", "[red]triage")
    assert "is over: resolved by ada: a test" in str(refused("ack", name))
    assert said("list").startswith("No incidents are open")
    assert json.loads(said("reopen", name, "--json"))["episode"] == 1


def test_a_silence_is_previewed_made_listed_and_ended(store: AlertStore):
    assert "would hide 1 of 1 open incidents" in said("silence", "severity=critical", "--preview")
    assert store.silences() == []
    made = json.loads(said("silence", "severity=critical", "--for", "2h", "--reason", "known", "--by", "ada", "--json"))
    assert made["hides"] == [only(store)]
    assert "known" in said("silences")
    said("silence", "--end", made["id"])
    assert said("silences").startswith("There are no silences")
    assert json.loads(said("list", "--json"))[0]["status"] == "open"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "inc-none"], "There is no incident inc-none"),
        (["silence", "agent=x", "--reason", "y"], "A silence must end"),
        (["silence", "agent=x", "--for", "2 h", "--reason", "y"], "no length of time"),
        (["silence", "agent=x", "--for", "2h"], "an author and a reason"),
        (["silence", "agent", "--for", "2h"], "write it as agent=NAME"),
        (["silence", "--for", "2h", "--reason", "y"], "would hide everything"),
        (["silence", "--end", "si-none"], "There is no silence si-none"),
        (["resolve", "an-1", "--verdict", "maybe"], "real, false_positive, planned"),
        (["retry"], "Name one message, or say --all"),
        (["retry", "al-none"], "There is no message al-none"),
        (["routes", "test", "agnt=x"], "is no label"),
    ],
)
def test_wrong_use_is_told_with_the_way_out(store: AlertStore, words: list[str], message: str):
    assert message in str(refused(*words))


def test_what_was_given_up_is_listed_and_released_and_who_did_it_is_on_record(store: AlertStore):
    assert said("parked").startswith("No message was given up")
    one, other = store.outbox("due")
    for row in (one, other):
        store.park(DeliveryRow(row.key, row.channel, "w", 1, "refused", utc_now(), 3, "[red]channel_not_found"))
    assert said("parked").count("[red]channel_not_found") == 2
    assert {row["key"] for row in json.loads(said("parked", "--json"))} == {one.key, other.key}
    assert said("retry", one.key, "--by", "ada").startswith("1 message will be sent")
    assert json.loads(said("retry", "--all", "--by", "bob", "--json")) == {"released": [other.key], "by": "bob"}
    assert store.outbox("parked") == []
    log = [(entry.key, entry.worker, entry.detail) for entry in store.deliveries(NEVER) if entry.outcome == "released"]
    assert log == [(one.key, "ada", "[red]channel_not_found"), (other.key, "bob", "[red]channel_not_found")]
    assert "There is no message" in str(refused("retry", one.key))


def test_a_sync_that_conflicts_stop_is_an_incident_until_one_goes_through(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "policies"
    (folder / "agents").mkdir(parents=True)
    (folder / "routes.yaml").write_text((POLICIES / "routes.yaml").read_text())
    bot = "name: B\nscope: agent\nscope_id: bot\norg: acme\nproject: web\nbudgets:\n  cost: {limit: 5, period: daily}\n"
    (folder / "agents" / "one.yaml").write_text(f"id: one\n{bot}")
    (folder / "agents" / "twin.yaml").write_text(f"id: twin\n{bot}")
    monkeypatch.setenv("OBS_POLICIES", str(folder))
    get_settings.cache_clear()
    store = AlertStore(Ledger(settings.ledger))
    for _ in range(2):
        assert CliRunner().invoke(app, ["policies", "sync"]).exit_code == 3
    [incident] = [incident_of(row) for row in store.incidents()]
    assert (incident.kind, incident.status, len(incident.signal_ids)) == ("sync_conflict", "open", 1)
    assert incident.headline.startswith("The policies were not put into force: ")
    (folder / "agents" / "twin.yaml").unlink()
    assert CliRunner().invoke(app, ["policies", "sync", "--dry-run"]).exit_code == 0
    assert [row.status for row in store.incidents()] == ["open"]
    assert CliRunner().invoke(app, ["policies", "sync"]).exit_code == 0
    [incident] = [incident_of(row) for row in store.incidents()]
    assert (incident.status, incident.resolution) == ("resolved", "a later sync met no conflict")


def test_routes_test_shows_the_receiver_and_runs_the_cases(settings: Settings):
    assert "critical (line" in said("routes", "test", "agent=x", "severity=critical")
    [route] = json.loads(said("routes", "test", "severity=critical", "--json"))
    assert (route["receivers"], route["task"]["priority"]) == (["dashboard"], "critical")
    assert "routing cases hold" in said("routes", "test")


def test_a_routing_case_that_does_not_hold_needs_attention(settings: Settings, tmp_path: Path):
    cases = tmp_path / "cases.yaml"
    cases.write_text("- {name: wrong, incident: {severity: critical}, receivers: [nobody]}\n")
    error = refused("routes", "test", "--cases", str(cases))
    assert (error.exit_code, str(error)) == (3, "1 of 1 routing cases do not hold.")


def test_the_digest_shows_what_is_held(store: AlertStore):
    assert said("digest").startswith("Nothing is held back")
    assert json.loads(said("digest", "--json")) == {"held": [], "due": []}
