"""The landing folder: what waits, by which mapping it is read, where it goes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest

from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger, LedgerError
from obs_pipeline.usage import landing as landing_module
from obs_pipeline.usage.inbox import Inbox, resolve_mapping
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.sources.mapping import MappingInvalid
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl


def now() -> datetime:
    return datetime(2026, 3, 20)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    (tmp_path / "landing").mkdir()
    (tmp_path / "mappings").mkdir()
    return Inbox(tmp_path / "landing", tmp_path / "mappings")


@pytest.fixture
def landing(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Iterator[Landing]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    book = PriceBook.load(None)
    yield Landing(Lake(str(tmp_path / "lake")), ledger, book, connection, tmp_path / "scratch", date(2020, 1, 1))
    ledger.close()


def test_a_folder_that_does_not_exist_has_nothing_waiting(tmp_path: Path):
    inbox = Inbox(tmp_path / "landing", tmp_path)
    assert inbox.waiting() == []
    assert inbox.fingerprint() == {}


def test_hidden_and_half_written_files_do_not_wait(inbox: Inbox):
    for name in ("b.jsonl", ".hidden.jsonl", "a.csv.part", "a.tmp", "a.crdownload", ".git/a.jsonl", "sub/a.csv"):
        (inbox.landing / name).parent.mkdir(exist_ok=True)
        (inbox.landing / name).write_text("x")
    assert [str(path.relative_to(inbox.landing)) for path in inbox.waiting()] == ["b.jsonl", "sub/a.csv"]


def test_a_file_that_grows_has_another_fingerprint(inbox: Inbox):
    path = inbox.landing / "a.jsonl"
    path.write_text("one")
    before = inbox.fingerprint()
    assert inbox.fingerprint() == before
    path.write_text("one and more")
    assert inbox.fingerprint() != before


def test_a_subfolder_names_the_mapping_and_the_top_is_canonical(inbox: Inbox):
    assert inbox.mapping_of(inbox.landing / "a.jsonl").source == "canonical"
    assert inbox.mapping_of(inbox.landing / "aider" / "2026" / "a.jsonl").source == "aider"


def test_the_operators_mapping_wins_over_a_shipped_one_of_the_same_name(inbox: Inbox):
    own = inbox.mappings / "aider.yaml"
    own.write_text("source: ours\ncolumns:\n  event_time: at\n")
    assert resolve_mapping("aider", inbox.mappings).source == "ours"
    assert resolve_mapping(str(own), inbox.mappings).source == "ours"
    with pytest.raises(MappingInvalid, match="aidr"):
        resolve_mapping("aidr", inbox.mappings)


def test_landed_files_leave_the_folder_and_keep_their_place(inbox: Inbox, landing: Landing):
    write_jsonl(inbox.landing / "canonical" / "a.jsonl", usage_rows(1))
    reports, refusals = inbox.take_in(landing, inbox.waiting(), now)
    assert [report.rows for report in reports] == [24]
    assert refusals == []
    assert inbox.waiting() == []
    assert (inbox.landing.parent / "landed" / "canonical" / "a.jsonl").is_file()


def test_a_second_file_of_the_same_name_does_not_overwrite_the_first(inbox: Inbox, landing: Landing):
    for days in (1, 2, 3):
        write_jsonl(inbox.landing / "a.jsonl", usage_rows(days))
        inbox.take_in(landing, inbox.waiting(), now)
    kept = inbox.landing.parent / "landed"
    assert sorted(path.name for path in kept.iterdir()) == ["a.jsonl", "again-a.jsonl", "again-again-a.jsonl"]
    assert len({path.stat().st_size for path in kept.iterdir()}) == 3


def test_a_file_that_cannot_be_read_moves_aside_with_its_reason_and_the_others_land(inbox: Inbox, landing: Landing):
    write_jsonl(inbox.landing / "good.jsonl", usage_rows(1))
    write_jsonl(inbox.landing / "unknown" / "bad.jsonl", usage_rows(2))
    reports, (refusal,) = inbox.take_in(landing, inbox.waiting(), now)
    assert [report.name for report in reports] == ["good.jsonl"]
    assert refusal.name == "bad.jsonl"
    refused = inbox.landing.parent / "refused" / "unknown"
    assert (refused / "bad.jsonl").is_file()
    assert "no mapping 'unknown'" in (refused / "bad.jsonl.reason.txt").read_text()
    assert inbox.waiting() == []


def test_a_file_that_vanished_meanwhile_is_passed_over(inbox: Inbox, landing: Landing):
    path = write_jsonl(inbox.landing / "a.jsonl", usage_rows(1))
    waiting = inbox.waiting()
    path.unlink()
    assert inbox.take_in(landing, waiting, now) == ([], [])


def test_files_stay_where_they_are_while_the_ledger_cannot_be_used(inbox: Inbox, landing: Landing, tmp_path: Path):
    write_jsonl(inbox.landing / "a.jsonl", usage_rows(1))
    (tmp_path / "ledger.db").write_text("no ledger at all, and long enough to be looked at" * 100)
    with pytest.raises(LedgerError):
        inbox.take_in(landing, inbox.waiting(), now)
    assert [path.name for path in inbox.waiting()] == ["a.jsonl"]


def test_a_file_that_is_still_written_to_stays_where_it_is(
    inbox: Inbox, landing: Landing, monkeypatch: pytest.MonkeyPatch
):
    path = write_jsonl(inbox.landing / "a.jsonl", usage_rows(1))
    states = iter([(1, 1, 1), (1, 2, 2)])
    monkeypatch.setattr(landing_module, "_state_of", lambda _path: next(states))
    assert inbox.take_in(landing, [path], now) == ([], [])
    assert inbox.waiting() == [path]
