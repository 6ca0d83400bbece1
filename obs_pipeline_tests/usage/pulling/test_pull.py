"""Pulling from a source that behaves as badly as it likes: nothing lost, nothing counted twice, a clear state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline.storage.source_positions import SourcePosition, SourcePositions
from obs_pipeline.usage.pulling.configured import PulledSource, SourcesInvalid, pulled_sources
from obs_pipeline.usage.pulling.pages import Page, PullFailed
from obs_pipeline.usage.pulling.pull import backfill, files_of, pull
from obs_pipeline.usage.pulling.status import health, status
from obs_pipeline_tests.postgres import ledger_url, postgres_server  # noqa: F401

SINCE = datetime(2026, 5, 1)
SOURCE = PulledSource(
    kind="litellm_table", url="postgresql://nowhere/x", since=date(2026, 5, 1), overlap_minutes=60, window_hours=6
)


class Table:
    """A source in memory: calls by the time they began; may fail after some pages."""

    def __init__(self, page_rows: int = 3) -> None:
        self.calls: dict[str, datetime] = {}
        self.fails_after: int | None = None
        self._page_rows = page_rows

    def fetch(self, start: datetime, end: datetime) -> Iterator[Page]:
        rows = [json.dumps({"id": key}) for key, at in sorted(self.calls.items()) if start <= at < end]
        for first in range(0, max(len(rows), 1), self._page_rows):
            if self.fails_after is not None:
                if self.fails_after == 0:
                    raise PullFailed("half a page")
                self.fails_after -= 1
            yield rows[first : first + self._page_rows]


@pytest.fixture
def positions(tmp_path: Path) -> Iterator[SourcePositions]:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger:
        yield SourcePositions(ledger)


def landed(folder: Path) -> list[str]:
    return [
        json.loads(line)["id"] for path in sorted(folder.rglob("[!.]*.jsonl")) for line in path.read_text().splitlines()
    ]


def test_a_pull_brings_everything_up_to_now_into_files_of_the_mappings_folder(
    positions: SourcePositions, tmp_path: Path
):
    table = Table()
    table.calls = {f"c{hour}": SINCE + timedelta(hours=hour) for hour in range(30)}
    done = pull("gateway", SOURCE, table.fetch, positions, tmp_path / "landing", SINCE + timedelta(hours=24))
    assert sorted(landed(tmp_path / "landing")) == sorted(f"c{hour}" for hour in range(24))
    assert {path.parent.name for path in done.files} == {"litellm"}
    assert done.rows == 24
    assert positions.get("gateway").position == (SINCE + timedelta(hours=24)).isoformat()


def test_the_next_pull_begins_a_little_earlier_and_finds_what_was_written_late(
    positions: SourcePositions, tmp_path: Path
):
    table = Table()
    noon = SINCE + timedelta(hours=12)
    pull("gateway", SOURCE, table.fetch, positions, tmp_path, noon)
    table.calls["late"] = noon - timedelta(minutes=59)
    table.calls["too late"] = noon - timedelta(minutes=61)
    pull("gateway", SOURCE, table.fetch, positions, tmp_path, noon + timedelta(hours=1))
    assert landed(tmp_path) == ["late"]


def test_a_pull_that_fails_is_no_time_without_usage(positions: SourcePositions, tmp_path: Path):
    table = Table(page_rows=1)
    table.calls = {f"c{hour:02}": SINCE + timedelta(hours=hour) for hour in range(12)}
    table.fails_after = 8
    now = SINCE + timedelta(hours=12)
    with pytest.raises(PullFailed, match="half a page"):
        pull("gateway", SOURCE, table.fetch, positions, tmp_path, now)
    assert sorted(landed(tmp_path)) == [f"c{hour:02}" for hour in range(6)]
    after = positions.get("gateway")
    assert (after.position, after.failure) == ((SINCE + timedelta(hours=6)).isoformat(), "half a page")
    assert health(SOURCE, after, now, now) == "failed"
    assert not list(tmp_path.rglob(".*.jsonl"))
    table.fails_after = None
    pull("gateway", SOURCE, table.fetch, positions, tmp_path, now)
    assert set(landed(tmp_path)) == table.calls.keys()
    assert health(SOURCE, positions.get("gateway"), now, now) == "alive"


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 50), st.lists(st.integers(0, 59), max_size=6), st.none() | st.integers(0, 4)),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_fails_in_between_every_call_arrives_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, list[int], int | None]]
):
    folder = tmp_path_factory.mktemp("pull")
    with closing(Ledger(f"sqlite:///{folder / 'ledger.db'}")) as ledger:
        all_arrives(folder, SourcePositions(ledger), steps)


def all_arrives(folder: Path, positions: SourcePositions, steps: list[tuple[int, list[int], int | None]]) -> None:
    table, now = Table(page_rows=2), SINCE
    for number, (hours, minutes_late, fails_after) in enumerate(steps):
        now += timedelta(hours=hours + 1)
        table.calls |= {f"{number}-{n}": now - timedelta(minutes=late + 1) for n, late in enumerate(minutes_late)}
        table.fails_after = fails_after
        try:
            pull("gateway", SOURCE, table.fetch, positions, folder / "landing", now)
        except PullFailed:
            continue
    table.fails_after = None
    pull("gateway", SOURCE, table.fetch, positions, folder / "landing", now + timedelta(minutes=1))
    assert set(landed(folder / "landing")) == table.calls.keys()


def test_a_backfill_fetches_days_again_and_leaves_the_position(positions: SourcePositions, tmp_path: Path):
    table = Table()
    table.calls = {"a": SINCE, "b": SINCE + timedelta(days=1)}
    done = backfill("gateway", SOURCE, table.fetch, tmp_path, SINCE, SINCE + timedelta(days=1))
    assert (landed(tmp_path), done.rows) == (["a"], 1)
    assert positions.get("gateway") == SourcePosition("gateway")


@pytest.mark.parametrize(
    ("read_to", "newest", "failed", "state"),
    [
        (None, None, None, "never pulled"),
        (0, 0, None, "alive"),
        (120, 0, None, "alive"),
        (121, 0, None, "late"),
        (0, 24 * 60, None, "alive"),
        (0, 24 * 60 + 1, None, "silent"),
        (0, None, None, "silent"),
        (0, 0, 0, "failed"),
    ],
)
def test_a_source_is_alive_late_silent_or_failed(
    read_to: int | None, newest: int | None, failed: int | None, state: str
):
    now = SINCE + timedelta(days=9)

    def before(minutes: int | None) -> datetime | None:
        return None if minutes is None else now - timedelta(minutes=minutes)

    reached = before(read_to)
    position = SourcePosition("s", reached and reached.isoformat(), reached, failed_at=before(failed), failure="x")
    assert health(SOURCE, position, before(newest), now) == state


def test_the_next_pull_follows_what_was_read_and_a_failure_is_not_repeated_at_once():
    hour = timedelta(hours=1)
    read = SourcePosition("s", (SINCE + hour).isoformat(), SINCE + 9 * hour)
    assert status("s", SOURCE, read, None, SINCE).next_pull == SINCE + hour + SOURCE.every
    assert status("s", SOURCE, SourcePosition("s"), None, SINCE).is_due(SINCE + SOURCE.every)
    failed = SourcePosition("s", SINCE.isoformat(), SINCE, failed_at=SINCE + 5 * hour, failure="x")
    found = status("s", SOURCE, failed, None, SINCE)
    assert not found.is_due(SINCE + 5 * hour)
    assert found.is_due(SINCE + 5 * hour + SOURCE.every)


def test_a_source_that_is_far_behind_comes_nearer_with_each_pull(positions: SourcePositions, tmp_path: Path):
    table, now = Table(), SINCE + timedelta(hours=24)
    table.calls = {f"c{hour:02}": SINCE + timedelta(hours=hour) for hour in range(24)}
    bounded = SOURCE.model_copy(update={"windows_per_pull": 2})
    ends = [pull("gateway", bounded, table.fetch, positions, tmp_path, now).end for _ in range(4)]
    assert [(end - SINCE) / timedelta(hours=1) for end in ends] == [12, 23, 24, 24]
    assert set(landed(tmp_path)) == table.calls.keys()


@pytest.mark.parametrize(
    ("name", "file", "is_its_own"),
    [
        ("a", "a-20260501T000000000000-20260501T060000000000-0000.jsonl", True),
        ("a", "a-b-20260501T000000000000-20260501T060000000000-0000.jsonl", False),
        ("a_b", "axb-20260501T000000000000-20260501T060000000000-0000.jsonl", False),
        ("a_b", "a_b-20260501T000000000000-20260501T060000000000-0000.jsonl", True),
    ],
)
def test_the_newest_call_of_a_source_is_sought_in_its_own_files(
    positions: SourcePositions, name: str, file: str, is_its_own: bool
):
    ledger = positions._ledger
    ledger.start_landing(LandedFile("f", "litellm", file, 1, 0, None), "m", SINCE)
    ledger.finish_landing("f", 1, [LandedDay(SINCE.date(), 1, 0, SINCE, SINCE)], SINCE)
    assert positions.newest_event(files_of(name)) == (SINCE if is_its_own else None)


def test_positions_are_kept_by_either_database(ledger_url: str):  # noqa: F811
    with closing(Ledger(ledger_url)) as ledger:
        positions = SourcePositions(ledger)
        positions.fail("a", "no answer", SINCE)
        assert positions.get("a") == SourcePosition("a", failed_at=SINCE, failure="no answer")
        positions.advance("a", "p1", 5, SINCE)
        positions.advance("a", "p2", 2, SINCE + timedelta(hours=1))
        assert positions.get("a") == SourcePosition("a", "p2", SINCE + timedelta(hours=1), 7)
        assert positions.get("b") == SourcePosition("b")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sources: {A: {}}", r"sources\.A"),
        ("sources: {a: {kind: csv, url: postgresql://x, since: 2026-01-01}}", r"sources\.a\.kind"),
        ("sources: {a: {kind: langfuse_api, url: ftp://x, since: 2026-01-01}}", r"sources\.a\.url"),
        ("sources: {a: {kind: langfuse_api, url: http://x}}", r"sources\.a\.since"),
        ("sourcs: {}", "sourcs"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_the_place(tmp_path: Path, text: str, complaint: str):
    path = tmp_path / "sources.yaml"
    path.write_text(text)
    with pytest.raises(SourcesInvalid, match=complaint):
        pulled_sources(path)


def test_the_shipped_file_and_a_missing_one_name_no_source(tmp_path: Path):
    shipped = Path(__file__).parents[3] / "policies" / "sources.yaml"
    assert pulled_sources(shipped) == pulled_sources(tmp_path / "none.yaml") == {}


def test_a_password_comes_from_its_file(tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    given_file: dict[str, Any] = {"password_file": secret}
    assert SOURCE.model_copy(update=given_file).password() == "hush"
    with pytest.raises(SourcesInvalid, match="should hold a password"):
        SOURCE.model_copy(update={"password_file": tmp_path / "none"}).password()
