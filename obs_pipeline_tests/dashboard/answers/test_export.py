"""Exports: they come to the total on the screen, and no text in them is a formula."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.dashboard.answers.export import as_csv, neutral
from obs_pipeline_tests.dashboard.served import Served, ask


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
