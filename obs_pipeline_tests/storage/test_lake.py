from __future__ import annotations

import multiprocessing
import shutil
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.storage.lake import DayRange, Lake, LakeError, LakeTable, chunk_days

TABLE = LakeTable(
    "things",
    pa.schema([pa.field("dt", pa.date32()), pa.field("name", pa.string()), pa.field("cost", pa.decimal128(38, 9))]),
    ("name",),
    "for tests",
)
MONDAY = date(2026, 3, 2)
WEEK = DayRange(MONDAY, MONDAY + timedelta(days=6))


def rows(*items: tuple[date, str]) -> pa.Table:
    return pa.table(
        {
            "dt": pa.array([day for day, _ in items], pa.date32()),
            "name": pa.array([name for _, name in items], pa.string()),
            "cost": pa.array([1] * len(items), pa.decimal128(38, 9)),
        }
    )


def names(lake: Lake, days: DayRange | None = None, version: int | None = None) -> list[str]:
    with duckdb.connect() as connection:
        lake.view(connection, TABLE, days, version=version)
        return [name for (name,) in connection.execute("SELECT name FROM things ORDER BY name").fetchall()]


def test_a_table_that_was_never_written_reads_as_empty(tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"))
    assert names(lake) == []
    assert lake.rows_per_day(TABLE) == {}
    assert lake.version(TABLE) is None


@pytest.mark.parametrize("folder", ["my home", "hüß日本", "a#b", "it's", "a+b&c=d;{e}"])
def test_a_lake_may_lie_in_a_folder_of_any_usual_name(tmp_path: Path, folder: str):
    lake = Lake(str(tmp_path / folder / "lake"))
    lake.append(TABLE, rows((MONDAY, "a")))
    assert names(lake) == names(lake, WEEK) == ["a"]


def test_a_table_that_cannot_be_written_says_where_and_what_to_do(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows((MONDAY, "a")))
    (tmp_path / "things" / f"dt={MONDAY + timedelta(days=1)}").write_text("a file where a folder must be")
    with pytest.raises(LakeError, match=r"things at .* cannot be written: .* Check the free space"):
        lake.append(TABLE, rows((MONDAY + timedelta(days=1), "b")))
    assert names(lake) == ["a"]


def test_replacing_days_leaves_the_other_days_alone(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows((MONDAY, "a"), (MONDAY + timedelta(days=1), "b")))
    lake.replace(TABLE, DayRange(MONDAY, MONDAY), lambda _version: rows((MONDAY, "c")))
    assert names(lake) == ["b", "c"]


def test_replacing_days_with_nothing_empties_them(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows((MONDAY, "a")))
    lake.replace(TABLE, WEEK, lambda _version: rows())
    assert names(lake) == []


def test_rows_outside_the_replaced_days_are_refused(tmp_path: Path):
    lake = Lake(str(tmp_path))
    with pytest.raises(Exception, match=r"(?i)predicate|invariant|check"):
        lake.replace(TABLE, DayRange(MONDAY, MONDAY), lambda _version: rows((MONDAY + timedelta(days=1), "b")))
    assert names(lake) == []


def test_a_view_keeps_the_version_it_was_made_at(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows((MONDAY, "a")))
    with duckdb.connect() as connection:
        lake.view(connection, TABLE)
        lake.replace(TABLE, WEEK, lambda _version: rows((MONDAY, "b")))
        assert connection.execute("SELECT name FROM things").fetchall() == [("a",)]


def test_an_append_between_reading_and_replacing_is_not_lost(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows((MONDAY, "a")))
    attempts = []

    def upper(version: int | None) -> pa.Table:
        if not attempts:
            lake.append(TABLE, rows((MONDAY, "late")))
        attempts.append(version)
        return rows(*((MONDAY, name.upper()) for name in names(lake, WEEK, version)))

    lake.replace(TABLE, WEEK, upper)
    assert sorted(name.lower() for name in names(lake)) == ["a", "late"]


def test_what_another_wrote_is_read_at_once(tmp_path: Path):
    reader, writer = Lake(str(tmp_path)), Lake(str(tmp_path))
    assert names(reader) == []
    for number in range(3):
        writer.append(TABLE, rows((MONDAY, f"{number}")))
        assert len(names(reader)) == number + 1
        assert reader.version(TABLE) == writer.version(TABLE)


def test_a_table_that_was_made_anew_is_read_anew(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows((MONDAY, "old")))
    version = lake.version(TABLE)
    shutil.rmtree(tmp_path / TABLE.name)
    assert names(lake) == []
    Lake(str(tmp_path)).append(TABLE, rows((MONDAY, "new")))
    assert lake.version(TABLE) == version
    assert names(lake) == ["new"]


def test_an_older_version_can_be_read_after_a_newer_one(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows((MONDAY, "a")))
    version = lake.version(TABLE)
    lake.append(TABLE, rows((MONDAY, "b")))
    assert names(lake) == ["a", "b"]
    assert names(lake, version=version) == ["a"]


def test_a_view_of_some_days_shows_only_those(tmp_path: Path):
    lake = Lake(str(tmp_path))
    lake.append(TABLE, rows(*((day, str(day)) for day in WEEK.days())))
    tuesday = DayRange(MONDAY + timedelta(days=1), MONDAY + timedelta(days=1))
    assert names(lake, tuesday) == ["2026-03-03"]
    assert lake.rows_per_day(TABLE, tuesday) == {date(2026, 3, 3): 1}


def _write_a_day(root: str, number: int) -> None:
    day = MONDAY + timedelta(days=number)
    for _ in range(5):
        Lake(root).replace(TABLE, DayRange(day, day), lambda _version: rows((day, f"writer {number}")))


def test_processes_replacing_different_days_do_not_disturb_each_other(tmp_path: Path):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_a_day, args=(str(tmp_path), number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert names(Lake(str(tmp_path))) == ["writer 0", "writer 1", "writer 2"]


@given(
    length=st.integers(1, 60),
    sizes=st.dictionaries(st.integers(0, 59), st.integers(1, 1000)),
    target=st.integers(1, 2000),
)
def test_chunks_cover_every_day_once_in_order_and_stay_small(length: int, sizes: dict[int, int], target: int):
    days = DayRange(MONDAY, MONDAY + timedelta(days=length - 1))
    counts = {MONDAY + timedelta(days=number): rows for number, rows in sizes.items()}
    chunks = chunk_days(days, counts, target)
    assert [day for chunk in chunks for day in chunk.days()] == days.days()
    for chunk in chunks:
        filled = [counts[day] for day in chunk.days() if day in counts]
        assert sum(filled) <= target or len(filled) == 1


def test_chunks_are_as_few_as_the_limit_allows_and_about_even():
    days = DayRange(MONDAY, MONDAY + timedelta(days=29))
    chunks = chunk_days(days, dict.fromkeys(days.days(), 100), 1400)
    assert [len(chunk) for chunk in chunks] == [10, 10, 10]


def test_a_range_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="after"):
        DayRange(MONDAY, MONDAY - timedelta(days=1))


def test_a_table_without_a_day_column_cannot_be_declared():
    with pytest.raises(ValueError, match="date32"):
        LakeTable("wrong", pa.schema([pa.field("dt", pa.string())]), (), "")
