"""The promises of alerting over a real ledger, with the routes that are shipped unless a test says otherwise."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from obs_pipeline.alerting import passes, records
from obs_pipeline.alerting.models import Notification, Signal
from obs_pipeline.alerting.passes import Findings, routes_in_force, run_pass
from obs_pipeline.alerting.routes import Routes, RoutesError, load_routes
from obs_pipeline.alerting.signals import stale_source
from obs_pipeline.alerting.silences import new_silence
from obs_pipeline.settings import project_root
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline_tests.alerting.cases import HOUR, MINUTE, NOON, routes, signal
from obs_pipeline_tests.alerting.test_incidents import budget

SHIPPED = load_routes(project_root() / "policies" / "routes.yaml")


@pytest.fixture
def store(tmp_path: Path) -> AlertStore:
    return AlertStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))


def messages(store: AlertStore, *, tasks: bool = False) -> list[Notification]:
    """What is in the outbox, in the order it was decided."""
    rows = sorted(store.outbox(), key=lambda row: (row.decided_at, row.key))
    return [records.notification_of(row) for row in rows if (row.channel == "task") == tasks]


def go(
    store: AlertStore, start: datetime, hours: float, by: Routes = SHIPPED, found: Findings | None = None
) -> datetime:
    """Passes every ten minutes; ``found`` is found in each."""
    now = start
    while now < start + hours * HOUR:
        run_pass(store, by, now, found)
        now += 10 * MINUTE
    return now


def test_a_six_hour_incident_gives_one_message_and_one_recovery(store: AlertStore):
    now = NOON
    for hour in range(6):
        found = [
            signal(f"c{hour}", hour, severity="critical"),
            signal(f"t{hour}", hour, metric="tokens", severity="critical"),
        ]
        now = go(store, NOON + (hour + 1) * HOUR, 1, found=Findings(found))
    go(store, now, 6)
    told = [message for message in messages(store) if "nobody acknowledged" not in message.reason]
    assert [message.state for message in told] == ["firing", "resolved"]
    assert [task.state for task in messages(store, tasks=True)] == ["firing", "resolved"]
    [row] = store.incidents()
    assert len(records.incident_of(row).signal_ids) == 12


def test_a_budget_that_goes_from_49_to_96_percent_gives_one_message(store: AlertStore):
    run_pass(store, SHIPPED, NOON, Findings([]))
    now = go(store, NOON, 1, found=Findings([budget(96, 95)]))
    go(store, now, 3, found=Findings([budget(97, 95)]))
    assert [message.state for message in messages(store)] == ["firing"]


def test_a_restart_at_83_percent_gives_none(store: AlertStore, tmp_path: Path):
    go(store, NOON, 1, found=Findings([budget(81, 80)]))
    assert len(messages(store)) == 1
    again = AlertStore(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"))
    go(again, NOON + HOUR, 2, found=Findings([budget(83, 80)]))
    assert len(messages(again)) == 1
    go(again, NOON + 3 * HOUR, 1, found=Findings([budget(96, 95)]))
    assert len(messages(again)) == 2


def test_a_silence_that_expires_over_an_open_incident_gives_one_message(store: AlertStore):
    silence = new_silence(
        {"agent": "triage"}, author="ada", reason="deploying", starts_at=NOON, ends_at=NOON + 2 * HOUR, now=NOON
    )
    store.add_silence(records.silence_row(silence, NOON))
    now = go(store, NOON, 2, found=Findings([signal("a", 0, severity="critical")]))
    assert store.outbox() == []
    go(store, now, 0.5, found=Findings([signal("b", 2, severity="critical")]))
    assert [message.state for message in messages(store)] == ["firing"]
    [row] = store.incidents()
    outcomes = [trace.outcome for trace in map(records.trace_of, store.traces(row.id)) if trace.route == "critical"]
    assert outcomes == ["silenced", "sent", "nothing_new"]


def test_five_hundred_agents_that_fail_at_once_give_one_message_and_one_task_a_route(store: AlertStore):
    found = [
        signal(f"s{n}", 0, agent=f"agent-{n}", project=f"project-{n % 10}", severity="critical", metric="errors")
        for n in range(500)
    ]
    go(store, NOON + HOUR, 0.5, found=Findings(found))
    [message] = messages(store)
    assert (message.route, len(message.incidents), len(message.incidents[0].agents)) == ("critical", 1, 500)
    assert len(messages(store, tasks=True)) == 1


def test_five_hundred_incidents_on_a_narrow_route_give_one_message_and_one_digest(store: AlertStore):
    narrow = routes("  rate_limit: {per_hour: 1}\n  repeat_interval:\n")
    found = [signal(f"s{n}", 0, agent=f"agent-{n}", project=f"project-{n}", org=f"org-{n}") for n in range(500)]
    go(store, NOON + HOUR, 1.5, narrow, Findings(found))
    told = messages(store)
    assert [(message.state, len(message.incidents)) for message in told] == [("firing", 1), ("digest", 499)]


def test_a_source_that_is_down_says_stale_and_not_that_cost_dropped(store: AlertStore):
    for hour in range(4, 7):
        now = NOON + hour * HOUR
        drops = [
            signal(f"d{n}{hour}", hour - 1, agent=f"a{n}", direction="drop", severity="critical") for n in range(5)
        ]
        go(store, now, 1, found=Findings([*drops, stale_source("gateway", NOON, NOON, now)]))
    told = messages(store) + messages(store, tasks=True)
    assert {one.kind for message in told for one in message.incidents} == {"stale_source"}
    assert len(messages(store)) == 1
    assert "has sent nothing for" in messages(store)[0].incidents[0].headline
    [anomaly] = [row for row in store.incidents() if row.kind == "anomaly"]
    assert {trace.outcome for trace in map(records.trace_of, store.traces(anomaly.id))} == {"inhibited"}


def test_a_correction_is_told_once(store: AlertStore):
    go(store, NOON + HOUR, 1, found=Findings([signal("a", 0)], recomputed=[NOON.date()]))
    go(store, NOON + 2 * HOUR, 0.5, found=Findings([signal("a", 0, observed=40.0)], recomputed=[NOON.date()]))
    assert [message.reason for message in messages(store)] == ["new", "corrected: triage cost 10 is now 40"]
    go(store, NOON + 3 * HOUR, 1, found=Findings([], recomputed=[NOON.date()]))
    assert messages(store)[-1].state == "resolved"
    assert "withdrawn" in messages(store)[-1].reason
    assert store.incident_of_signal("a") is None


def test_passes_at_the_same_time_decide_each_message_once(store: AlertStore):
    found = [signal(f"s{n}", 0, agent=f"agent-{n}", org=f"org-{n}") for n in range(40)]
    failures: list[BaseException] = []

    def work() -> None:
        try:
            run_pass(store, routes(), NOON + HOUR, Findings(found))
        except BaseException as error:  # noqa: BLE001 - the test reports it
            failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert len(messages(store)) == 40


def test_a_pass_that_breaks_off_has_not_happened(store: AlertStore, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(passes, "_keep_decisions", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_pass(store, routes(), NOON + HOUR, Findings([signal("a", 0)]))
    assert (store.incidents(), store.outbox()) == ([], [])
    assert run_pass(store, routes(), NOON + HOUR, Findings([signal("a", 0)])).queued == 1


def test_what_was_decided_is_kept_without_loss(store: AlertStore):
    run_pass(store, SHIPPED, NOON + 2 * HOUR, Findings([signal("a", 0, severity="critical")]))
    [row] = store.incidents()
    incident = records.incident_of(row)
    [message] = [records.notification_of(row) for row in store.outbox() if row.channel == "task"]
    assert message.incidents == (incident,)
    assert records.outbox_row(message).key == message.key


def test_a_preview_keeps_nothing(store: AlertStore):
    run_pass(store, routes("  rate_limit: {per_hour: 0}\n"), NOON + HOUR, Findings([signal("a", 0)]))
    decided = passes.preview(store, routes("  rate_limit: {per_hour: 0}\n"), NOON + 2 * HOUR)
    assert [message.state for message in decided.notifications] == ["digest"]
    assert store.outbox() == []


def test_a_pass_leaves_a_heartbeat(store: AlertStore):
    run_pass(store, routes(), NOON)
    run_pass(store, routes(), NOON + HOUR)
    assert store.heartbeats() == {"pass": NOON + HOUR}


def test_an_incident_does_not_end_while_nothing_of_its_data_is_heard(tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    store, policies = AlertStore(ledger), project_root() / "policies"

    def hear(at: datetime) -> None:
        ledger.start_landing(LandedFile(f"f{at}", "gateway", "f", 1, 0, None), "m", at)
        ledger.finish_landing(f"f{at}", 1, [LandedDay(at.date(), 1, 0, at, at)], at)

    hear(NOON + HOUR)
    passes.tell(ledger, policies, Findings([signal("a", 0)]), NOON + HOUR)
    passes.tell(ledger, policies, Findings(), NOON + 8 * HOUR)
    assert [row.status for row in store.incidents()] == ["open"]
    hear(NOON + 4 * HOUR)
    passes.tell(ledger, policies, Findings(), NOON + 9 * HOUR)
    assert [row.status for row in store.incidents()] == ["resolved"]


# -- routes in force --------------------------------------------------------------------------------------------------


def test_the_last_good_routes_stay_in_force(store: AlertStore, tmp_path: Path):
    path = tmp_path / "routes.yaml"
    path.write_text(SHIPPED.text)
    assert routes_in_force(store, path, NOON).problem == ""
    path.write_text(SHIPPED.text.replace("channel: widget", "channel: pager"))
    kept = routes_in_force(store, path, NOON + HOUR)
    assert kept.routes.digest == SHIPPED.digest
    assert "'pager' is no channel" in kept.problem
    path.unlink()
    assert routes_in_force(store, path, NOON + HOUR).routes.digest == SHIPPED.digest
    assert [revision.in_force_since for revision in [store.routes()] if revision] == [NOON]


def test_without_any_good_routes_there_is_an_error(store: AlertStore, tmp_path: Path):
    with pytest.raises(RoutesError):
        routes_in_force(store, tmp_path / "routes.yaml", NOON)


def test_routes_are_kept_once_while_they_do_not_change(store: AlertStore, tmp_path: Path):
    path = tmp_path / "routes.yaml"
    for hour, text in enumerate((SHIPPED.text, SHIPPED.text, SHIPPED.text + "\n# changed\n")):
        path.write_text(text)
        routes_in_force(store, path, NOON + hour * HOUR)
    newest = store.routes()
    assert newest is not None
    assert (newest.revision, newest.in_force_since) == (2, NOON + 2 * HOUR)


def finding(name: str) -> Signal:
    return signal(name, 0)


def test_resolved_incidents_are_looked_at_for_a_week(store: AlertStore):
    run_pass(store, routes(), NOON + HOUR, Findings([finding("a")]))
    run_pass(store, routes(), NOON + 4 * HOUR)
    assert run_pass(store, routes(), NOON + timedelta(days=6)).outcomes == {"nothing_new": 1}
    assert run_pass(store, routes(), NOON + timedelta(days=9)).outcomes == {}
