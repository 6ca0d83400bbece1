"""Totals, slices and the drill-down: they add up, and are compared with the right days and budget."""

from __future__ import annotations

from decimal import Decimal

import pytest

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import LOCAL, Principal
from obs_pipeline.storage import engine
from obs_pipeline_tests.dashboard.served import ACME, DAYS, Served, ask
from obs_pipeline_tests.usage_files import rows_of

DIMENSIONS = ("org", "project", "team", "agent", "provider", "model")


def cost_of(served: Served, org: str | None = None) -> Decimal:
    from obs_pipeline.usage.tables import USAGE_HOURLY

    with engine.connect() as connection:
        return sum(row["cost"] for row in rows_of(connection, served.lake, USAGE_HOURLY) if org in (None, row["org"]))


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
    monkeypatch.setattr("obs_pipeline.dashboard.answers.spending._LARGEST", 2)
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
