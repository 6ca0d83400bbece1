"""Anomalies as they are listed, explained and labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from obs_pipeline.dashboard.access import LOCAL
from obs_pipeline.dashboard.catalogue import QUESTIONS, checked_inputs
from obs_pipeline.dashboard.explaining import explained_from
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Reader, Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.explanations import Explanation, explain_anomalies
from obs_pipeline.detection.models import Anomaly, anomalies_to_table
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.storage import engine
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, AnomalyLabels
from obs_pipeline_tests.dashboard.served import ACME, FOUND, LATENESS, NOW, Served, ask, serve


def test_an_anomaly_is_taken_apart_exactly_where_there_is_a_way_to_its_events(served: Served):
    def explain(reader: Reader, anomaly: Anomaly) -> Explanation:
        found = explained_from(reader, anomaly, 28, lambda _models, _moment: {})
        with engine.connect() as connection:
            assert [found] == explain_anomalies(connection, served.lake, [anomaly], 28, lambda _models, _moment: {})
        return found

    service = Service(Snapshot(served.lake), served.ledger, lateness=LATENESS, explain=explain)
    question = QUESTIONS["explain_anomaly"]
    answer = service.answer(question, checked_inputs(question, {"anomalyId": FOUND[1].id}), ACME)
    assert answer.split is not None
    assert answer.split.terms
    assert sum(term.amount for term in answer.split.terms) == answer.split.observed - answer.split.expected
    assert answer.split.cause in question.told(answer)
    assert ask(served, "explain_anomaly", anomalyId=FOUND[1].id).split is None


def test_what_goes_on_from_the_day_before_is_listed_counted_and_marked_once(tmp_path: Path):
    served = serve(tmp_path)
    later = replace(FOUND[1], id="an-later", severity="critical", score=80, context={"continues": FOUND[0].id})
    served.lake.append(ANOMALIES, anomalies_to_table([later]).select(ANOMALIES.schema.names))
    listed = ask(served, "dashboard_get_anomalies", timeframe="month")
    assert (listed.total, listed.by_severity) == (3, {"critical": 1, "warning": 2})
    first = listed.anomalies[0]
    assert (first.id, first.severity) == (FOUND[0].id, "critical")
    assert ask(served, "explain_anomaly", anomalyId=FOUND[0].id).anomaly.severity == "critical"
    assert ask(served, "explain_anomaly", anomalyId="an-later").context["continues"] == FOUND[0].id
    assert ask(served, "dashboard_get_trends", agentId="agent-0", projectId="atlas").marked == 3


def test_what_was_last_said_of_an_anomaly_stands_with_it_at_once(tmp_path: Path):
    served, (first, second, *_) = serve(tmp_path), FOUND
    listed = ask(served, "dashboard_get_anomalies", timeframe="month")
    assert {one.label for one in listed.anomalies} == {None}
    place = {name: getattr(first, name) for name in ("org", "project", "agent", "metric", "grain", "timestamp")}
    for verdict in ("real", "planned"):
        said = AnomalyLabel(first.id, verdict, **place, author="ann", note="", at=NOW)
        AnomalyLabels(served.service.ledger).add([said])
    told = {one.id: one.label for one in ask(served, "dashboard_get_anomalies", timeframe="month").anomalies}
    assert (told[first.id], told[second.id]) == ("planned", None)
    assert ask(served, "explain_anomaly", anomalyId=first.id).anomaly.label == "planned"


def test_coverage_of_an_explanation_is_of_the_anomaly_s_own_organisation(tmp_path: Path):
    served = serve(tmp_path)
    before = ask(served, "explain_anomaly", LOCAL, anomalyId=FOUND[0].id).coverage.calls
    rows = served.lake.open(MART_SPEND).to_pyarrow_table()
    theirs = rows.set_column(rows.schema.get_field_index("org"), "org", pa.array(["other"] * rows.num_rows))
    served.lake.append(MART_SPEND, theirs)
    served.service.mark()
    assert ask(served, "explain_anomaly", LOCAL, anomalyId=FOUND[0].id).coverage.calls == before > 0
