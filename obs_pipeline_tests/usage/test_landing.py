"""Landing: once, whole or not at all, whatever happens in between."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import LandedFile, Ledger, landed_days
from obs_pipeline.usage import landing as landing_module
from obs_pipeline.usage.landing import FileChanged, Landing, LandingError, digest
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline.usage.sources.translate import read_usage
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_REJECTED
from obs_pipeline_tests.usage_files import usage_rows, write_csv, write_jsonl, write_parquet

NOW = datetime(2026, 3, 20)
UNDATED = date(2020, 1, 1)
CANONICAL = load_mapping("canonical")
BOOK = PriceBook.load(None)


def a_landing(folder: Path, connection: duckdb.DuckDBPyConnection) -> Landing:
    lake, ledger = Lake(str(folder / "lake")), Ledger(f"sqlite:///{folder / 'ledger.db'}")
    return Landing(lake, ledger, BOOK, connection, folder / "scratch", UNDATED)


@pytest.fixture
def landing(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Iterator[Landing]:
    made = a_landing(tmp_path, connection)
    yield made
    made.ledger.close()


def content(lake: Lake, columns: str = "*") -> tuple[list[Any], list[Any]]:
    with duckdb.connect() as connection:
        for table in (USAGE_EVENTS, USAGE_REJECTED):
            lake.view(connection, table)
        events = connection.execute(f"SELECT {columns} FROM usage_events ORDER BY ALL").fetchall()
        return events, connection.execute("SELECT * FROM usage_rejected ORDER BY ALL").fetchall()


def some_bad(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every tenth row is bad in its own way."""
    faults: list[dict[str, Any]] = [
        {"input_tokens": -5},
        {"event_time": "2019-01-01T00:00:00"},
        {"event_time": "yesterday"},
        {"output_tokens": "many"},
        {"reported_cost": "-1"},
    ]
    return [{**row, **faults[n // 10 % len(faults)]} if n % 10 == 9 else row for n, row in enumerate(rows)]


def state_of(ledger: Ledger, file_id: str) -> str:
    found = ledger.landing_of(file_id)
    assert found is not None
    return found[0]


def test_landing_a_file_twice_changes_nothing(landing: Landing, tmp_path: Path):
    path = write_jsonl(tmp_path / "usage.jsonl", some_bad(usage_rows(2)))
    first = landing.land(path, CANONICAL, now=NOW)
    before, days = content(landing.lake), landing.ledger.newest_landing_per_day()
    again = landing.land(path, CANONICAL, now=NOW)
    assert not first.already_landed
    assert again.already_landed
    assert content(landing.lake) == before
    assert landing.ledger.newest_landing_per_day() == days


def test_a_copy_under_another_name_is_the_same_file(landing: Landing, tmp_path: Path):
    rows = usage_rows(1)
    landing.land(write_jsonl(tmp_path / "a.jsonl", rows), CANONICAL, now=NOW)
    assert landing.land(write_jsonl(tmp_path / "b.jsonl", rows), CANONICAL, now=NOW).already_landed


def test_every_row_is_an_event_or_rejected_and_the_ledger_counts_what_the_reader_read(landing: Landing, tmp_path: Path):
    rows = some_bad(usage_rows(3))
    path = write_jsonl(tmp_path / "usage.jsonl", rows)
    report = landing.land(path, CANONICAL, now=NOW)
    events, rejected = content(landing.lake)
    read = pa.Table.from_batches(read_usage(path, CANONICAL, now=NOW))
    assert report.rows == read.num_rows == len(rows) == len(events) + len(rejected)
    assert report.accepted == len(events)
    assert sum(report.rejected.values()) == len(rejected) == read.num_rows - read["reason"].null_count
    landed = landing.ledger.landed()
    assert sum(day.rows_read for day in landed) == len(rows)
    assert sum(day.rows_rejected for day in landed) == len(rejected)
    for table in (USAGE_EVENTS, USAGE_REJECTED):
        assert set(landing.lake.rows_per_day(table)) <= {day.dt for day in landed}


def test_an_interrupted_landing_is_undone_and_made_again(landing: Landing, tmp_path: Path):
    path = write_jsonl(tmp_path / "usage.jsonl", some_bad(usage_rows(2)))
    landing.land(path, CANONICAL, now=NOW)
    whole = content(landing.lake)
    file_id = digest(path)
    with landing.ledger.begin() as connection:
        connection.execute(landed_days.delete())
    landing.ledger.start_landing(LandedFile(file_id, "canonical", path.name, path.stat().st_size, 0, None), "m", NOW)
    assert state_of(landing.ledger, file_id) == "landing"
    assert not landing.land(path, CANONICAL, now=NOW).already_landed
    assert content(landing.lake) == whole
    assert state_of(landing.ledger, file_id) == "landed"


def _land_and_die(folder: str, path: str, step: int, point: str) -> None:
    """Land in a process that kills itself at a named point, as the machine would."""
    landing_module._ROWS_PER_STEP = step  # type: ignore[misc]
    landing_module.read_usage = partial(read_usage, batch_rows=step)

    def die(*_arguments: object, **_named: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with engine.connect() as connection:
        landing = a_landing(Path(folder), connection)
        if point == "between events and rejected":
            landing_module._Tally.rejected = die  # type: ignore[method-assign,assignment]
        if point == "before the ledger is told":
            Ledger.finish_landing = die  # type: ignore[method-assign,assignment]
        if point == "while rows are priced":
            count = iter(range(100))
            honest = landing_module.price
            landing_module.price = lambda *given: honest(*given) if next(count) < 2 else die()  # type: ignore[assignment,return-value]
        landing.land(Path(path), CANONICAL, now=NOW)


@pytest.mark.parametrize("point", ["while rows are priced", "between events and rejected", "before the ledger is told"])
def test_a_landing_killed_half_way_and_made_again_gives_the_undisturbed_tables(
    landing: Landing, tmp_path: Path, point: str
):
    path = write_jsonl(tmp_path / "usage.jsonl", some_bad(usage_rows(3)))
    (tmp_path / "killed").mkdir()
    killed_at = str(tmp_path / "killed")
    process = multiprocessing.get_context("spawn").Process(target=_land_and_die, args=(killed_at, str(path), 20, point))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with engine.connect() as connection:
        after = a_landing(tmp_path / "killed", connection)
        assert state_of(after.ledger, digest(path)) == "landing"
        assert after.ledger.landed() == []
        after.land(path, CANONICAL, now=NOW)
    landing.land(path, CANONICAL, now=NOW)
    assert content(after.lake) == content(landing.lake)
    assert not list((tmp_path / "killed" / "scratch").glob("rejected-*"))


def only_bad(name: str) -> tuple[str, list[dict[str, Any]]]:
    return name, [{"event_id": "a", "event_time": "never", "agent": "writer"}]


@pytest.mark.parametrize(
    ("name", "rows", "day"),
    [
        ("usage.jsonl", [{"event_time": "never"}, *usage_rows(2)], date(2026, 3, 2)),
        (*only_bad("usage-2026-02-14.jsonl"), date(2026, 2, 14)),
        (*only_bad("usage_20260215T1200.jsonl"), date(2026, 2, 15)),
        (*only_bad("usage-2026-02-31.jsonl"), UNDATED),
        (*only_bad("usage.jsonl"), UNDATED),
    ],
)
def test_a_row_without_a_usable_time_stands_under_the_first_good_day_or_the_name_or_the_undated_day(
    landing: Landing, tmp_path: Path, name: str, rows: list[dict[str, Any]], day: date
):
    landing.land(write_jsonl(tmp_path / name, rows), CANONICAL, now=NOW)
    assert landing.lake.rows_per_day(USAGE_REJECTED) == {day: 1}


@pytest.mark.parametrize("name", ["usage-2019-05-05.jsonl", "usage-2099-01-01.jsonl"])
def test_a_day_in_the_name_that_no_event_may_have_is_not_believed(landing: Landing, tmp_path: Path, name: str):
    landing.land(write_jsonl(tmp_path / name, only_bad(name)[1]), CANONICAL, now=NOW)
    assert landing.lake.rows_per_day(USAGE_REJECTED) == {UNDATED: 1}


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_the_same_content_in_another_format_gives_identical_events(
    landing: Landing, tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], Path]
):
    rows = usage_rows(2)
    other = a_landing(tmp_path / "other", landing.connection)
    landing.land(write_jsonl(tmp_path / "usage.jsonl", rows), CANONICAL, now=NOW)
    other.land(write(tmp_path / f"usage.{write.__name__.removeprefix('write_')}", rows), CANONICAL, now=NOW)
    columns = "* EXCLUDE (file_id)"
    assert content(other.lake, columns) == content(landing.lake, columns)
    other.ledger.close()


def test_a_file_is_landed_again_under_another_mapping(landing: Landing, tmp_path: Path):
    line = '{"event": "message_send", "properties": {"main_model": "gpt-4o", "prompt_tokens": 5}, "time": 1772445600}\n'
    path = tmp_path / "log.jsonl"
    path.write_text(line)
    assert landing.land(path, CANONICAL, now=NOW).accepted == 0
    assert landing.land(path, load_mapping("aider"), now=NOW).accepted == 1


def test_a_file_that_is_not_there_is_an_error_that_names_it(landing: Landing, tmp_path: Path):
    with pytest.raises(LandingError, match=r"gone\.jsonl"):
        landing.land(tmp_path / "gone.jsonl", CANONICAL, now=NOW)


def test_rows_are_heard_of_while_they_are_read(landing: Landing, tmp_path: Path):
    heard: list[int] = []
    landing.land(write_jsonl(tmp_path / "usage.jsonl", usage_rows(2)), CANONICAL, now=NOW, on_rows=heard.append)
    assert sum(heard) == 48


@pytest.mark.parametrize("change", ["grows", "is replaced", "is removed"])
def test_of_a_file_that_changes_while_it_is_read_nothing_is_kept_and_its_next_landing_is_whole(
    landing: Landing, tmp_path: Path, change: str
):
    path, mapping = write_jsonl(tmp_path / "a.jsonl", usage_rows(1)), CANONICAL
    first, later = path.read_bytes(), write_jsonl(tmp_path / "b.jsonl", usage_rows(2)).read_bytes()

    def disturb(_rows: int) -> None:
        if change == "grows":
            path.write_bytes(later)
        else:
            path.unlink()
        if change == "is replaced":
            (tmp_path / "b.jsonl").replace(path)

    with pytest.raises(FileChanged, match="changed while it was read"):
        landing.land(path, mapping, now=NOW, on_rows=disturb)
    assert content(landing.lake) == ([], [])
    path.write_bytes(first)
    report = landing.land(path, mapping, now=NOW)
    assert (report.already_landed, report.accepted) == (False, 24)
