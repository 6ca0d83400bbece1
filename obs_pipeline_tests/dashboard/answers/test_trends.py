"""Series over time: they come to the total, with their band and their anomalies or a reason why not."""

from __future__ import annotations

import pytest

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard import snapshot
from obs_pipeline.dashboard.catalogue import QUESTIONS, checked_inputs
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline_tests.dashboard.served import ACME, FOUND, INPUTS, LATENESS, Served, ask


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
            service.answer(QUESTIONS[name], checked_inputs(QUESTIONS[name], values), ACME).model_dump_json()
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
