"""Langfuse's API on the loopback: pages along a cursor, and every way an answer can go wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from email.message import Message
from pathlib import Path

import pytest

from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.pulling.langfuse_api import observations
from obs_pipeline.usage.pulling.pages import Page, PullFailed
from obs_pipeline.usage.pulling.pull import pull
from obs_pipeline.usage.pulling.status import statuses
from obs_pipeline_tests.stand_in import Answer, Query, StandIn, serving

START = datetime(2026, 5, 1)


class Langfuse(StandIn):
    """Answers each request with the next of ``replies``."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Answer] = []
        self.asked: list[Query] = []
        self.authorised: list[str | None] = []

    def answer(self, path: str, query: Query, headers: Message) -> Answer:
        self.asked.append(query)
        self.authorised.append(headers["Authorization"])
        return self.replies.pop(0)


@pytest.fixture
def langfuse() -> Iterator[Langfuse]:
    with serving(Langfuse()) as server:
        yield server


def page(*ids: str, cursor: str | None = None) -> Answer:
    return 200, json.dumps({"data": [{"id": one} for one in ids], "meta": {"cursor": cursor}}).encode()


def fetched(langfuse: Langfuse, tmp_path: Path) -> list[str]:
    secret = tmp_path / "secret"
    secret.write_text("sk")
    source = PulledSource(
        kind="langfuse_api",
        url=langfuse.url,
        user="pk",
        password_file=secret,
        since=date(2026, 5, 1),
    )
    waited: list[float] = []
    pages = observations(source, START, START + timedelta(days=1), wait=waited.append)
    return [json.loads(record)["id"] for records in pages for record in records]


def test_pages_are_followed_along_the_cursor(langfuse: Langfuse, tmp_path: Path):
    langfuse.replies = [page("a", "b", cursor="next"), page("c")]
    assert fetched(langfuse, tmp_path) == ["a", "b", "c"]
    assert [asked.get("cursor") for asked in langfuse.asked] == [None, ["next"]]
    assert langfuse.asked[0]["fromStartTime"] == ["2026-05-01T00:00:00.000Z"]
    assert langfuse.authorised[0] == "Basic cGs6c2s="


@pytest.mark.parametrize("bad", [(500, b""), (429, b"{}"), (503, b"x"), (200, b'{"data": [{"id"')])
def test_an_answer_worth_repeating_is_asked_for_again(langfuse: Langfuse, tmp_path: Path, bad: Answer):
    langfuse.replies = [page("a", cursor="next"), bad, page("b")]
    assert fetched(langfuse, tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("replies", "complaint"),
    [
        ([(500, b"")] * 4, "answered 500"),
        ([(401, b"")], "answered 401"),
        ([(200, b'{"dat')] * 4, "broke off"),
        ([(200, b'{"items": []}')], "API may have changed"),
        ([(200, b"[]")], "API may have changed"),
        ([page("a", cursor="x"), page("b", cursor="x")], "same page again"),
    ],
    ids=["errors", "refusal", "half a page", "other schema", "a list", "a page again"],
)
def test_what_does_not_mend_is_a_failure_and_never_the_end_of_the_data(
    langfuse: Langfuse, tmp_path: Path, replies: list[Answer], complaint: str
):
    langfuse.replies = list(replies)
    with pytest.raises(PullFailed, match=complaint):
        fetched(langfuse, tmp_path)


def test_a_server_that_hangs_is_given_up():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        source = PulledSource(
            kind="langfuse_api",
            url=f"http://127.0.0.1:{deaf.getsockname()[1]}",
            since=date(2026, 5, 1),
            timeout_seconds=1,
        )
        with pytest.raises(PullFailed, match="ReadTimeout"):
            list(observations(source, START, START + timedelta(days=1), wait=lambda seconds: None))


@pytest.mark.parametrize(
    "bad",
    [
        [(500, b"")] * 4,
        [(200, b'{"data": [{"id": "b"}, {"i')] * 4,
        [(200, b'{"observations": []}')],
        [page("a", cursor="next")],
    ],
    ids=["500", "half a page", "another schema", "the same page again"],
)
def test_after_any_fault_the_next_pull_brings_everything_once_and_the_state_was_clear(
    langfuse: Langfuse, tmp_path: Path, bad: list[Answer]
):
    source = PulledSource(kind="langfuse_api", url=langfuse.url, since=date(2026, 5, 1))
    now = START + timedelta(hours=5)

    def fetch(start: datetime, end: datetime) -> Iterator[Page]:
        return observations(source, start, end, wait=lambda seconds: None)

    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger:
        positions = SourcePositions(ledger)
        langfuse.replies = [page("a", cursor="next"), *bad]
        with pytest.raises(PullFailed):
            pull("desk", source, fetch, positions, tmp_path / "landing", now)
        (told,) = statuses({"desk": source}, positions, now)
        assert (told.health, told.position) == ("failed", None)
        assert told.failure
        assert not list((tmp_path / "landing").rglob("*.jsonl"))
        langfuse.replies = [page("a", cursor="next"), page("b")]
        pull("desk", source, fetch, positions, tmp_path / "landing", now)
        assert statuses({"desk": source}, positions, now)[0].health == "alive"
    files = sorted((tmp_path / "landing").rglob("*.jsonl"))
    assert [json.loads(line)["id"] for path in files for line in path.read_text().splitlines()] == ["a", "b"]


def test_a_server_that_is_not_there_is_a_failure():
    source = PulledSource(kind="langfuse_api", url="http://127.0.0.1:1", since=date(2026, 5, 1))
    with pytest.raises(PullFailed, match="cannot be read"):
        list(observations(source, START, START + timedelta(days=1), wait=lambda seconds: None))
