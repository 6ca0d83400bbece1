"""Incidents and the decisions about them, as they are told."""

from __future__ import annotations

import json
from pathlib import Path

from obs_pipeline.alerting.records import incident_row
from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import LOCAL
from obs_pipeline.dashboard.catalogue import QUESTIONS, checked_inputs
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import TaskRow, TraceRow
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.cases import HOUR, NOON, incident
from obs_pipeline_tests.dashboard.served import ACME, LATENESS, NOW, Served, ask


def test_incidents_are_narrowed_to_a_place(served: Served):
    def found(**values: str) -> list[str]:
        return [one.id for one in ask(served, "list_incidents", LOCAL, **values).incidents]

    assert found(orgId="acme") == found(orgId="acme", projectId="atlas", agentId="agent-0") == ["inc-acme"]
    assert found(agentId="another") == found(projectId="(unattributed)") == []


def test_the_worst_incidents_come_first_and_are_counted_over_all_pages(served: Served, tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    severities = ["info", "critical", "warning", "critical", "info"]
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.keep_incidents(
            incident_row(incident(f"i{n}", severity=severity, updated_at=NOW + n * HOUR, org="acme"))
            for n, severity in enumerate(severities)
        )
    service = Service(Snapshot(served.lake), ledger, lateness=LATENESS)

    def found(**values: object) -> q.Incidents:
        return service.answer(QUESTIONS["list_incidents"], checked_inputs(QUESTIONS["list_incidents"], values), ACME)

    worst = found(order="worst", limit=3)
    assert [one.id for one in worst.incidents] == ["i3", "i1", "i2"]
    assert [one.id for one in found(order="worst", limit=3, cursor=worst.next_cursor).incidents] == ["i4", "i0"]
    assert worst.by_severity == {"critical": 2, "warning": 1, "info": 2}
    assert [one.id for one in found(limit=2).incidents] == ["i4", "i3"]
    assert found(status="resolved").by_severity == {}


def test_of_many_decisions_the_newest_are_told_and_all_are_counted(served: Served, tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    long = json.dumps({"why": "x" * 3000})
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.keep_incidents([incident_row(incident("i", org="acme"))])
        deciding.add_traces(TraceRow("i", "default", f"n{n}", NOW, long) for n in range(10))
    service, why = Service(Snapshot(served.lake), ledger, lateness=LATENESS), QUESTIONS["why_notified"]

    def told() -> tuple[int, list[str]]:
        found = service.answer(why, checked_inputs(why, {"incidentId": "i"}), ACME)
        return found.total, [one.outcome for one in found.decisions]

    assert told() == (10, [f"n{n}" for n in range(4, 10)])
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.add_traces([TraceRow("i", "default", "huge", NOW, json.dumps({"why": "x" * 90_000}))])
    assert told() == (11, ["huge"])


def test_the_tasks_of_an_incident_are_told_with_where_they_are(served: Served, tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.keep_incidents(incident_row(incident(name, org="acme")) for name in ("i", "other"))
    for name, number in (("i", "7"), ("other", "8")):
        url, written = f"https://tasks.example/{number}", ("odd", "", "high", "", "[]")
        AlertStore(ledger).keep_task(TaskRow(name, "github", number, url, "open", *written, NOW, NOW))
    service, why = Service(Snapshot(served.lake), ledger, lateness=LATENESS), QUESTIONS["why_notified"]
    (told,) = service.answer(why, checked_inputs(why, {"incidentId": "i"}), ACME).tasks
    assert (told.tracker, told.id, told.url, told.state) == ("github", "7", "https://tasks.example/7", "open")


def test_an_incident_says_in_a_sentence_what_it_is_and_since_when_usage_was_abnormal(served: Served):
    (one,) = ask(served, "list_incidents").incidents
    assert one.title == "odd"
    assert one.began_at == NOON - HOUR
