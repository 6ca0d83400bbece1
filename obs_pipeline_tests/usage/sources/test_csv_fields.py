"""CSV files: fields, headers, and records that do not fit them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline_tests.usage.sources.reading_whole import TIME, mapping_of, reasons, rows_of

TEXTS = mapping_of({"model": "model", "agent": "agent"}, format="csv")
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=10), size=st.integers(30, 200))
def test_every_text_that_a_csv_writer_wrote_is_read_back(tmp_path: Path, rows: list[tuple[str, str]], size: int):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["event_time", "model", "agent"])
    writer.writerows((TIME, model, agent) for model, agent in rows)
    found = rows_of(text.getvalue(), tmp_path / "a.csv", TEXTS, block_bytes=size)
    assert [(row["model"], row["agent"]) for row in found] == [
        tuple(value if value.strip(" \t\r\n") else None for value in row) for row in rows
    ]
    assert [row["row_number"] for row in found] == list(range(1, len(rows) + 1))


def test_columns_may_stand_in_any_order_beside_others_with_spaces_around_their_names(tmp_path: Path):
    (row,) = rows_of(f"x, agent ,event_time\n1,bot,{TIME}\n", tmp_path / "a.csv", TEXTS)
    assert (row["agent"], row["model"], row["reason"]) == ("bot", None, None)


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path):
    (row,) = rows_of(f"\ufeffevent_time\n{TIME}\n", tmp_path / "a.csv", TEXTS)
    assert row["reason"] is None


def test_the_delimiter_is_the_mappings(tmp_path: Path):
    mapping = mapping_of({"model": "model", "agent": "agent"}, format="csv", delimiter="\t")
    found = rows_of(f"event_time\tmodel\tagent\n{TIME}\ta,b\t\n\t\t\n", tmp_path / "a.tsv", mapping)
    assert [(row["model"], row["reason"]) for row in found] == [("a,b", None), (None, "missing_time")]


def test_a_record_with_too_few_or_too_many_fields_is_refused_with_both_counts_and_its_line(tmp_path: Path):
    text = f'event_time,model,agent\n{TIME},"two\nlines",b\n{TIME},m\n{TIME},m,a,x\n{TIME},m,a\n'
    found = rows_of(text, tmp_path / "a.csv", TEXTS)
    assert reasons(found) == [None, "bad_csv", "bad_csv", None]
    assert "has 2 fields; the header has 3 (line 4)" in found[1]["detail"]
    assert "has 4 fields" in found[2]["detail"]
    assert found[1]["raw"] == f"{TIME},m"


def test_a_lone_carriage_return_costs_its_own_record_only(tmp_path: Path):
    found = rows_of(f"event_time,model,agent\n{TIME},m,a\n{TIME},m\rx,a\n{TIME},m,a\n", tmp_path / "a.csv", TEXTS)
    assert reasons(found) == [None, "bad_csv", None]


def test_a_bad_value_names_the_line_that_its_record_begins_on(tmp_path: Path):
    mapping = mapping_of({"model": "model", "input_tokens": "n"}, format="csv")
    found = rows_of(f'event_time,model,n\n{TIME},"a\nb",1\n{TIME},c,x\n', tmp_path / "a.csv", mapping)
    assert found[1]["detail"] == "input_tokens (from n) is x; that is not a number (line 4)"
    assert (found[1]["row_number"], found[1]["raw"], found[1]["model"]) == (2, f"{TIME},c,x", "c")


def test_a_latin_1_record_is_shown_with_its_bytes(tmp_path: Path):
    text = f"event_time,model,agent\n{TIME},café,a\n{TIME},b,c\n".encode("latin-1")
    found = rows_of(text, tmp_path / "a.csv", TEXTS)
    assert reasons(found) == ["bad_encoding", None]
    assert found[0]["raw"] == f"{TIME},caf\\xe9,a"
    assert "(line 2)" in found[0]["detail"]


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        ("événement,modèle\na,b\n".encode("latin-1"), "bad_encoding", "the header cannot be read"),
        (b"time;model;agent\n1;2;3\n", "no_mapped_column", "time;model;agent"),
        (b'"time,model\n', "bad_csv", "the header cannot be read"),
        (b"x" * 3_000_000, "line_too_long", "the header cannot be read"),
    ],
)
def test_a_header_that_is_none_refuses_the_file_as_one_row(tmp_path: Path, content: bytes, reason: str, detail: str):
    (row,) = rows_of(content, tmp_path / "a.csv", TEXTS)
    assert (row["row_number"], row["reason"], detail in row["detail"]) == (1, reason, True)


@pytest.mark.parametrize("content", ["", "\n\n", "event_time,model\n", "event_time,model"])
def test_a_file_without_records_has_no_rows(tmp_path: Path, content: str):
    assert rows_of(content, tmp_path / "a.csv", TEXTS) == []


def test_a_column_named_twice_is_not_guessed_at(tmp_path: Path):
    (row,) = rows_of(f"event_time,model,model\n{TIME},a,b\n", tmp_path / "a.csv", TEXTS)
    assert (row["model"], row["reason"]) == (None, None)
