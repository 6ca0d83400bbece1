"""``obs-pipeline forecasts``: what it prints, what it leaves unsaid, and its errors."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from obs_pipeline.cli.main import app
from obs_pipeline.detection.tables import FORECASTS
from obs_pipeline.errors import ObsError
from obs_pipeline.settings import Settings
from obs_pipeline.storage.lake import DayRange, Lake

DAY = date(2025, 5, 14)


def forecast(**values: Any) -> dict[str, Any]:
    plain = {
        "dt": DAY,
        "as_of": datetime(2025, 5, 15),
        "scope": "agent",
        "org": "acme",
        "project": "p",
        "agent": "a",
        "period": "month",
        "window_start": datetime(2025, 5, 1),
        "window_end": datetime(2025, 6, 1),
        "spent": Decimal("12.000000001"),
        "unpriced_calls": 0,
        "state": "ok",
        "history_days": 100,
        "forecast": 30.0,
        "lower": 25.0,
        "upper": 40.0,
    }
    return {**dict.fromkeys(FORECASTS.schema.names), **plain, **values}


UNKNOWN = {"forecast": None, "lower": None, "upper": None}


def said(settings: Settings, rows: list[dict[str, Any]], *words: str) -> Result:
    table = pa.Table.from_pylist(rows, schema=FORECASTS.schema)
    Lake(settings.lake).replace(FORECASTS, DayRange(DAY, DAY), lambda _: table)
    return CliRunner().invoke(app, ["forecasts", *words], env={"COLUMNS": "200"})


def test_spend_forecast_interval_and_budget_are_shown(settings):
    budget = {"limit_amount": Decimal(35), "budget": "may be used up", "exhausted_earliest": datetime(2025, 5, 28, 7)}
    shown = " ".join(said(settings, [forecast(**budget)]).output.split())
    for part in ("$12.00", "$30.00", "$25.00 … $40.00", "$35.00", "may be used up from 2025-05-28 07:00 on"):
        assert part in shown


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"state": "not enough history", "history_days": 3, **UNKNOWN},
            "not enough history: day 3 since the first spend",
        ),
        ({"state": "no spend", **UNKNOWN}, "nothing was spent"),
        ({"state": "credits only", **UNKNOWN}, "only credits"),
        ({"unpriced_calls": 7}, "without 7 calls of unknown price"),
        ({"budget": "used up", "limit_amount": Decimal(1)}, "the budget is used up"),
        ({"budget": "will be used up", "exhausted_at": datetime(2025, 5, 20, 6)}, "used up on 2025-05-20 06:00"),
    ],
)
def test_what_a_person_must_know_is_said(settings, values, told):
    assert told in " ".join(said(settings, [forecast(**values)]).output.split())


def test_json_is_exact_and_whole(settings):
    (told,) = json.loads(said(settings, [forecast()], "--json").output)
    assert told["spent"] == "12.000000001"
    assert set(told) == set(FORECASTS.schema.names)


def test_scope_period_and_name_choose(settings):
    rows = [forecast(), forecast(period="week"), forecast(scope="org", project=None, agent=None)]
    assert len(json.loads(said(settings, rows, "--json", "--scope", "agent").output)) == 2
    assert len(json.loads(said(settings, rows, "--json", "--period", "week").output)) == 1
    assert len(json.loads(said(settings, rows, "--json", "--name", "acme").output)) == 1


def test_long_lists_end_with_how_to_choose(settings):
    rows = [forecast(agent=f"a{n}") for n in range(5)]
    assert "3 more" in said(settings, rows, "--limit", "2").output


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--scope", "team"), "one of org, project, agent"), (("--period", "year"), "one of day, week, month")],
)
def test_an_unknown_choice_names_the_known_ones(settings, words, message):
    error = said(settings, [forecast()], *words).exception
    assert isinstance(error, ObsError)
    assert message in str(error)


def test_a_day_without_forecasts_says_how_to_make_them(settings):
    assert "obs-pipeline batch --from 2030-01-01" in said(settings, [forecast()], "--day", "2030-01-01").output


def test_before_the_first_batch_it_says_so_like_every_reading_command(settings):
    told, as_json = (CliRunner().invoke(app, ["forecasts", *words]) for words in ([], ["--json"]))
    assert (told.exit_code, as_json.exit_code) == (0, 0)
    assert "obs-pipeline batch" in told.output
    assert json.loads(as_json.output) == []
