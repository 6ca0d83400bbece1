"""Answers over a lake whose numbers are known: they add up, are one's own, and follow the lake."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.alerting.records import incident_row
from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard import snapshot
from obs_pipeline.dashboard.access import LOCAL, AccessDenied, Principal
from obs_pipeline.dashboard.answers import as_csv, neutral
from obs_pipeline.dashboard.explaining import explained_from
from obs_pipeline.dashboard.marts import build_spend
from obs_pipeline.dashboard.service import QUESTIONS, Service, put
from obs_pipeline.dashboard.snapshot import NotReady, Reader, Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.explanations import Explanation, explain_anomalies
from obs_pipeline.detection.models import Anomaly, anomalies_to_table
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.storage import engine
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import TaskRow, TraceRow
from obs_pipeline.storage.anomaly_labels import AnomalyLabel, AnomalyLabels
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.cases import HOUR, NOON, incident
from obs_pipeline_tests.dashboard.served import DAYS, FOUND, INPUTS, LATENESS, NOW, Served, serve
from obs_pipeline_tests.usage_files import rows_of

ACME = Principal("ann", "admin", "acme")
DIMENSIONS = ("org", "project", "team", "agent", "provider", "model")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


def ask(served: Served, name: str, principal: Principal = ACME, **values):
    question = QUESTIONS[name]
    return served.service.answer(question, put(question, values), principal)


def cost_of(served: Served, org: str | None = None) -> Decimal:
    from obs_pipeline.usage.tables import USAGE_HOURLY

    with engine.connect() as connection:
        return sum(row["cost"] for row in rows_of(connection, served.lake, USAGE_HOURLY) if org in (None, row["org"]))


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_is_answered_and_says_what_it_is_about(served: Served, name: str):
    answer = ask(served, name, **INPUTS[name])
    assert answer.time_zone == "UTC"
    assert answer.as_of is not None
    assert answer.versions["mart_spend"] >= 0
    assert QUESTIONS[name].told(answer)


def test_an_anomaly_is_taken_apart_exactly_where_there_is_a_way_to_its_events(served: Served):
    def explain(reader: Reader, anomaly: Anomaly) -> Explanation:
        found = explained_from(reader, anomaly, 28, lambda _models, _moment: {})
        with engine.connect() as connection:
            assert [found] == explain_anomalies(connection, served.lake, [anomaly], 28, lambda _models, _moment: {})
        return found

    service = Service(Snapshot(served.lake), served.ledger, lateness=LATENESS, explain=explain)
    question = QUESTIONS["explain_anomaly"]
    answer = service.answer(question, put(question, {"anomalyId": FOUND[1].id}), ACME)
    assert answer.split is not None
    assert answer.split.terms
    assert sum(term.amount for term in answer.split.terms) == answer.split.observed - answer.split.expected
    assert answer.split.cause in question.told(answer)
    assert ask(served, "explain_anomaly", anomalyId=FOUND[1].id).split is None


@pytest.mark.parametrize("by", DIMENSIONS)
@pytest.mark.parametrize("principal", [ACME, LOCAL])
def test_slices_add_up_to_the_total_whatever_it_is_sliced_by(served: Served, by: str, principal: Principal):
    answer = ask(served, "dashboard_get_metrics", principal, timeframe="week", by=by)
    assert answer.spending.current == cost_of(served, principal.org) > 0
    for name, total in (("calls", answer.calls), ("errors", answer.errors), ("tokens", answer.tokens.consumed)):
        assert sum(getattr(one, name) for one in answer.slices) == total
    assert sum(one.cost for one in answer.slices) == answer.spending.current


def test_usage_without_an_agent_is_a_slice_of_its_own_that_can_be_drilled_into(served: Served):
    slices = {one.name: one for one in ask(served, "dashboard_get_metrics", timeframe="week", by="agent").slices}
    alone = ask(served, "dashboard_get_metrics", timeframe="week", agentId="(unattributed)")
    assert alone.calls == slices["(unattributed)"].calls == 3
    assert alone.coverage.unattributed_cost == alone.spending.current


def test_more_slices_than_are_shown_come_to_the_rest(served: Served, monkeypatch: pytest.MonkeyPatch):
    whole = ask(served, "dashboard_get_metrics", timeframe="week", by="agent")
    monkeypatch.setattr("obs_pipeline.dashboard.answers._LARGEST", 2)
    cut = ask(served, "dashboard_get_metrics", timeframe="week", by="agent")
    assert cut.slices[:2] == whole.slices[:2]
    assert [one.name for one in cut.slices[2:]] == [q.REST]
    assert sum(one.cost for one in cut.slices) == whole.spending.current


def test_a_day_is_compared_with_the_day_before(served: Served):
    last = ask(served, "dashboard_get_metrics", timeframe="day")
    before = ask(served, "dashboard_get_metrics", timeframe="day", end=str(DAYS.days()[1]))
    assert last.last_day == DAYS.last
    assert last.trends["cost"].previous == before.spending.current > 0
    first = ask(served, "dashboard_get_metrics", timeframe="day", end=str(DAYS.first))
    assert first.trends["cost"].change is None


def test_the_budget_of_the_one_place_asked_about_is_compared(served: Served):
    spending = ask(served, "dashboard_get_metrics", timeframe="day").spending
    assert spending.budget == 10
    assert spending.percentage == pytest.approx(float(spending.current) * 10)
    assert ask(served, "dashboard_get_metrics", LOCAL, timeframe="day").spending.budget is None


@pytest.mark.parametrize("granularity", ["hour", "day"])
@pytest.mark.parametrize("agent", [None, "agent-0"])
def test_the_points_of_a_trend_add_up_to_the_total(served: Served, granularity: str, agent: str | None):
    chosen = {"agentId": agent} if agent else {}
    total = ask(served, "dashboard_get_metrics", timeframe="week", **chosen)
    for metric, expected in (
        ("calls", total.calls),
        ("tokens", total.tokens.consumed),
        ("cost", total.spending.current),
    ):
        found = ask(served, "dashboard_get_trends", metric=metric, granularity=granularity, timeframe="week", **chosen)
        assert sum(point.value for point in found.points) == pytest.approx(float(expected))


def test_a_trend_of_one_agent_has_its_band_and_its_anomalies(served: Served):
    found = ask(served, "dashboard_get_trends", agentId="agent-0", projectId="atlas")
    assert [point.upper for point in found.points] == [2.0, 2.0, 2.0]
    assert {mark.id for mark in found.anomalies} == {one.id for one in FOUND if one.org == "acme"}
    assert ask(served, "dashboard_get_trends").band.startswith("none")


def test_latency_of_many_agents_is_refused_because_percentiles_do_not_add(served: Served):
    with pytest.raises(q.BadQuestion, match="agentId"):
        ask(served, "dashboard_get_trends", metric="latency")


def test_pages_come_to_the_whole_once_each(served: Served):
    seen, cursor = [], None
    while True:
        page = ask(served, "dashboard_get_anomalies", limit=2, cursor=cursor)
        seen += [one.id for one in page.anomalies]
        assert page.has_more == (page.next_cursor is not None)
        if not page.has_more:
            break
        cursor = page.next_cursor
    assert seen == [one.id for one in sorted(FOUND, key=lambda one: -one.score) if one.org == "acme"]
    with pytest.raises(q.BadQuestion, match="cursor"):
        ask(served, "dashboard_get_anomalies", limit=2, cursor=q.write_cursor(2, "other"))
    with pytest.raises(q.BadQuestion, match="cursor"):
        ask(served, "dashboard_get_anomalies", cursor="junk")


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


def test_an_export_comes_to_the_total_on_the_screen_over_all_its_pages(served: Served):
    total = ask(served, "dashboard_get_metrics", timeframe="week").spending.current
    costs, cursor = Decimal(0), None
    while True:
        page = ask(served, "dashboard_export_data", timeframe="week", limit=7, cursor=cursor)
        costs += sum(Decimal(row["cost"]) for row in csv.DictReader(io.StringIO(page.content)))
        if not page.has_more:
            break
        cursor = page.next_cursor
    assert costs == page.total_cost == total
    whole = ask(served, "dashboard_export_data", timeframe="week", format="json", limit=200)
    assert sum(Decimal(row["cost"]) for row in json.loads(whole.content)) == total


def test_a_name_that_is_a_formula_is_exported_as_text(served: Served):
    content = ask(served, "dashboard_export_data", timeframe="week", limit=200).content
    agents = {row["agent"] for row in csv.DictReader(io.StringIO(content))}
    assert "'=cmd|' /C calc'!A0" in agents
    assert "=cmd|' /C calc'!A0" not in agents


@given(st.text())
def test_no_text_begins_as_a_formula_in_an_export(text: str):
    shown = str(neutral(text))
    assert not shown.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert shown.removeprefix("'") == text.removeprefix("'")
    (_, (read,)) = csv.reader(io.StringIO(as_csv([{"name": text}]), newline="")) if text else (0, ("",))
    assert read == (shown if text else "")


@pytest.mark.parametrize("name", QUESTIONS)
def test_nothing_of_another_organisation_is_in_any_answer(served: Served, name: str):
    asked = {**INPUTS[name], "limit": 100} if "limit" in QUESTIONS[name].asked.model_fields else INPUTS[name]
    text = ask(served, name, **asked).model_dump_json()
    assert "globex" not in text
    assert "secret-agent" not in text
    assert "manhattan" not in text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("explain_anomaly", {"anomalyId": FOUND[-1].id}),
        ("why_notified", {"incidentId": "inc-globex"}),
    ],
)
def test_what_is_anothers_is_answered_like_what_is_not_there(served: Served, name: str, values: dict[str, str]):
    missing = dict.fromkeys(values, "an-none")
    with pytest.raises(q.BadQuestion) as not_mine:
        ask(served, name, **values)
    with pytest.raises(q.BadQuestion) as not_there:
        ask(served, name, **missing)
    assert str(not_mine.value).replace(*values.values(), "X") == str(not_there.value).replace("an-none", "X")


def test_a_caller_bound_to_a_project_sees_that_project_alone(served: Served):
    bound = Principal("bob", "analyst", "acme", ("atlas",))
    slices = ask(served, "dashboard_get_metrics", bound, timeframe="week", by="project").slices
    assert [one.name for one in slices] == ["atlas"]
    assert ask(served, "dashboard_get_metrics", Principal("x", "viewer", "o'; --"), timeframe="week").calls == 0


@pytest.mark.parametrize("name", [name for name in QUESTIONS if "org" in QUESTIONS[name].asked.model_fields])
def test_who_sees_every_organisation_can_ask_about_one_alone(served: Served, name: str):
    inputs = {key: value for key, value in INPUTS[name].items() if key != "orgId"}
    one = ask(served, name, LOCAL, **inputs, orgId="acme")
    own = ask(served, name, ACME, **inputs)
    about = {"next_cursor"}
    assert one.model_dump(exclude=about) == own.model_dump(exclude=about)
    text = ask(served, name, ACME, **inputs, orgId="globex").model_dump_json(exclude={"org"})
    assert "secret-agent" not in text
    assert "manhattan" not in text


def test_each_row_of_the_drill_down_is_compared_with_as_many_days_before(served: Served):
    shown = {one.name: one for one in ask(served, "list_entities", timeframe="day").entities}
    before = ask(served, "list_entities", timeframe="day", end=str(DAYS.days()[1])).entities
    assert {one.name: one.cost for one in before} == {name: one.previous_cost for name, one in shown.items()}
    assert all(one.cost > 0 for one in before)
    first = ask(served, "list_entities", timeframe="day", end=str(DAYS.first)).entities
    assert {one.previous_cost for one in first} == {0}


def test_a_drill_down_into_a_model_comes_to_its_part_of_the_total(served: Served):
    for model in ask(served, "list_entities", level="model", timeframe="week").entities:
        agents = ask(served, "list_entities", level="agent", timeframe="week", model=model.name).entities
        assert sum(one.cost for one in agents) == model.cost
        points = ask(served, "dashboard_get_trends", metric="calls", granularity="hour", model=model.name).points
        assert sum(point.value for point in points) == model.calls


def test_a_band_is_the_same_whether_it_is_copied_or_read_from_the_files(
    served: Served, monkeypatch: pytest.MonkeyPatch
):
    def bands() -> list[str]:
        service = Service(Snapshot(served.lake), served.ledger, lateness=LATENESS)
        asked = [
            ("dashboard_get_trends", INPUTS["dashboard_get_trends"]),
            ("explain_anomaly", INPUTS["explain_anomaly"]),
        ]
        return [
            service.answer(QUESTIONS[name], put(QUESTIONS[name], values), ACME).model_dump_json()
            for name, values in asked
        ]

    copied = bands()
    assert '"expected":1.0' in copied[0]
    for held in (1, 2):
        monkeypatch.setattr(snapshot, "BAND_DAYS", held)
        assert bands() == copied


def test_a_team_s_and_a_model_s_trend_has_no_anomalies_of_whole_agents(served: Served):
    (found,) = {len(ask(served, "dashboard_get_trends", agentId="agent-0").anomalies)}
    assert found > 0
    narrowed = ask(served, "dashboard_get_trends", agentId="agent-0", projectId="atlas", model="m")
    assert narrowed.anomalies == []
    assert narrowed.band.startswith("none")


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
        return service.answer(QUESTIONS["list_incidents"], put(QUESTIONS["list_incidents"], values), ACME)

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
        found = service.answer(why, put(why, {"incidentId": "i"}), ACME)
        return found.total, [one.outcome for one in found.decisions]

    assert told() == (10, [f"n{n}" for n in range(4, 10)])
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.add_traces([TraceRow("i", "default", "huge", NOW, json.dumps({"why": "x" * 90_000}))])
    assert told() == (11, ["huge"])


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


def test_the_tasks_of_an_incident_are_told_with_where_they_are(served: Served, tmp_path: Path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.keep_incidents(incident_row(incident(name, org="acme")) for name in ("i", "other"))
    for name, number in (("i", "7"), ("other", "8")):
        url, written = f"https://tasks.example/{number}", ("odd", "", "high", "", "[]")
        AlertStore(ledger).keep_task(TaskRow(name, "github", number, url, "open", *written, NOW, NOW))
    service, why = Service(Snapshot(served.lake), ledger, lateness=LATENESS), QUESTIONS["why_notified"]
    (told,) = service.answer(why, put(why, {"incidentId": "i"}), ACME).tasks
    assert (told.tracker, told.id, told.url, told.state) == ("github", "7", "https://tasks.example/7", "open")


def test_coverage_of_an_explanation_is_of_the_anomaly_s_own_organisation(tmp_path: Path):
    served = serve(tmp_path)
    before = ask(served, "explain_anomaly", LOCAL, anomalyId=FOUND[0].id).coverage.calls
    rows = served.lake.open(MART_SPEND).to_pyarrow_table()
    theirs = rows.set_column(rows.schema.get_field_index("org"), "org", pa.array(["other"] * rows.num_rows))
    served.lake.append(MART_SPEND, theirs)
    served.service.mark()
    assert ask(served, "explain_anomaly", LOCAL, anomalyId=FOUND[0].id).coverage.calls == before > 0


def test_an_incident_says_in_a_sentence_what_it_is_and_since_when_usage_was_abnormal(served: Served):
    (one,) = ask(served, "list_incidents").incidents
    assert one.title == "odd"
    assert one.began_at == NOON - HOUR


@pytest.mark.parametrize(
    ("name", "values", "names"),
    [
        ("dashboard_get_metrics", {"timeframe": "year"}, "timeframe"),
        ("dashboard_get_metrics", {"agent_id": "x"}, "agent_id"),
        ("dashboard_get_anomalies", {"limit": 100_000}, "limit"),
        ("explain_anomaly", {}, "anomalyId"),
    ],
)
def test_a_bad_input_is_named(name: str, values: dict[str, object], names: str):
    with pytest.raises(q.BadQuestion, match=names):
        put(QUESTIONS[name], values)


@pytest.mark.anyio
async def test_an_answer_is_kept_until_the_lake_or_the_ledger_changes(tmp_path):
    served = serve(tmp_path)
    hits: list[bool] = []
    served.service.count = hits.append
    question = QUESTIONS["dashboard_get_metrics"]

    async def calls() -> int:
        return (await served.service.ask(question, {"timeframe": "week"}, ACME)).calls

    whole = await calls()
    assert await calls() == whole
    assert hits == [False, True]
    one_day = DayRange(DAYS.last, DAYS.last)
    with engine.connect() as connection:
        build_spend(connection, served.lake, one_day)
    assert await calls() == whole
    served.lake.delete(MART_SPEND, f"dt = '{DAYS.last}'")
    assert await calls() < whole
    assert hits == [False, True, False, False]
    await served.service.close()


@pytest.mark.anyio
async def test_a_cache_keeps_the_answers_of_callers_apart_and_asks_for_the_role(served: Served):
    question = QUESTIONS["dashboard_get_metrics"]
    everything = await served.service.ask(question, {"timeframe": "week"}, LOCAL)
    own = await served.service.ask(question, {"timeframe": "week"}, ACME)
    assert own.calls < everything.calls
    with pytest.raises(AccessDenied):
        await served.service.ask(QUESTIONS["dashboard_export_data"], {}, Principal("v", "viewer", "acme"))


def test_without_a_lake_the_answer_is_that_there_is_none_yet_and_it_recovers_by_itself(tmp_path, served: Served):
    snapshot = Snapshot(Lake(str(tmp_path / "lake")))
    service = Service(snapshot, served.ledger, lateness=LATENESS)
    with pytest.raises(NotReady, match="batch"):
        service.ready()
    import shutil

    shutil.copytree(served.lake.root, tmp_path / "lake", dirs_exist_ok=True)
    service.ready()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
