"""What Dagster's page says of tables and days: nothing without a meaning, and what fits is seen without a click."""

from __future__ import annotations

from decimal import Decimal

import pytest

from obs_pipeline.defs.column_words import _OTHERWISE, WORDS, word_of
from obs_pipeline.defs.stories import at_a_glance, column_schema, markdown_table
from obs_pipeline.storage.lake import LakeTable
from obs_pipeline.tables import ALL_TABLES

COLUMNS = {(table.name, column) for table in ALL_TABLES for column in table.schema.names}


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_column_is_shown_with_its_meaning(table: LakeTable):
    shown = column_schema(table).columns
    assert [column.name for column in shown] == table.schema.names
    assert [column.name for column in shown if not column.description] == []


def test_no_meaning_is_left_of_a_column_that_is_gone():
    assert set(_OTHERWISE) - COLUMNS == set()
    assert set(WORDS) - {column for _, column in COLUMNS} == set()


def test_a_meaning_is_a_short_sentence():
    for table, column in sorted(COLUMNS):
        word = word_of(table, column) or ""
        assert word.endswith((".", "…")), (table, column)
        assert len(word) <= 110, (table, column)


def test_only_as_many_rows_are_shown_as_are_seen_without_a_click():
    rows = [[number, "x" * 90] for number in range(20)]
    shown = at_a_glance(("n", "text"), rows)
    assert 800 < len(shown) < 1000
    assert shown == markdown_table(("n", "text"), rows[: shown.count("xxx |")])
    assert at_a_glance(("n",), rows[:3]) == markdown_table(("n",), rows[:3])


def test_one_row_is_shown_however_long_it_is():
    long = ["x" * 600, "y" * 600]
    assert at_a_glance(("a", "b"), [long, ["z", "z"]]) == markdown_table(("a", "b"), [long])


def test_money_is_shown_without_zeros_that_say_nothing():
    table = markdown_table(("cost",), [[Decimal("9990.012528750")], [Decimal("100.000000000")], [Decimal("0E-9")]])
    assert table.splitlines()[2:] == ["| 9,990.01252875 |", "| 100 |", "| 0 |"]
