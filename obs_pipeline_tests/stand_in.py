"""A server on the loopback that stands in for somebody's API: whoever makes one says what it answers, by path and query."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

Query = dict[str, list[str]]
Answer = tuple[int, bytes]


class StandIn(ThreadingHTTPServer):
    """Answers each GET with what :meth:`answer` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, query: Query, headers: Message) -> Answer:
        """The status and the body of an answer."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        status, body = self.server.answer(asked.path, parse_qs(asked.query), self.headers)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


Server = TypeVar("Server", bound=StandIn)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """The server while it answers."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
