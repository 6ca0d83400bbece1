"""Langfuse's API on the loopback: pages along a cursor, and every way an answer can go wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.pulling.langfuse_api import observations
from obs_pipeline.usage.pulling.pages import PullFailed

START = datetime(2026, 5, 1)


class Langfuse(ThreadingHTTPServer):
    """Answers each request with the next of ``replies``: a status and a body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: list[tuple[int, bytes]] = []
        self.asked: list[dict[str, list[str]]] = []
        self.authorised: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: Langfuse

    def do_GET(self) -> None:
        self.server.asked.append(parse_qs(urlsplit(self.path).query))
        self.server.authorised.append(self.headers["Authorization"])
        status, body = self.server.replies.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def langfuse() -> Iterator[Langfuse]:
    with Langfuse() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def page(*ids: str, cursor: str | None = None) -> tuple[int, bytes]:
    return 200, json.dumps({"data": [{"id": one} for one in ids], "meta": {"cursor": cursor}}).encode()


def fetched(langfuse: Langfuse, tmp_path: Path) -> list[str]:
    secret = tmp_path / "secret"
    secret.write_text("sk")
    source = PulledSource(
        kind="langfuse_api",
        url=f"http://127.0.0.1:{langfuse.server_port}",
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
def test_an_answer_worth_repeating_is_asked_for_again(langfuse: Langfuse, tmp_path: Path, bad: tuple[int, bytes]):
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
    langfuse: Langfuse, tmp_path: Path, replies: list[tuple[int, bytes]], complaint: str
):
    langfuse.replies = list(replies)
    with pytest.raises(PullFailed, match=complaint):
        fetched(langfuse, tmp_path)


def test_a_server_that_is_not_there_is_a_failure():
    source = PulledSource(kind="langfuse_api", url="http://127.0.0.1:1", since=date(2026, 5, 1))
    with pytest.raises(PullFailed, match="cannot be read"):
        list(observations(source, START, START + timedelta(days=1), wait=lambda seconds: None))
