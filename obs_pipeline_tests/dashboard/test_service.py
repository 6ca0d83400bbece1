"""Asking: inputs that cannot be used, how long an answer is kept and for whom, and what is said without a lake."""

from __future__ import annotations

import pytest

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import LOCAL, AccessDenied, Principal
from obs_pipeline.dashboard.catalogue import QUESTIONS, checked_inputs
from obs_pipeline.dashboard.marts import build_spend
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import NotReady, Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline_tests.dashboard.served import ACME, DAYS, LATENESS, Served, serve


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


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
        checked_inputs(QUESTIONS[name], values)


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
