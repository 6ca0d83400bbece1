"""Rows of LiteLLM's table of spend logs, from its PostgreSQL database.

Here: the connection and the paging by key. Prompts and answers are left in the database. What the rows mean is in the
mapping ``litellm``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Timer
from typing import TYPE_CHECKING, Final

from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.pulling.pages import Page, PullFailed

if TYPE_CHECKING:
    import psycopg

_ROWS: Final = """
    SELECT "startTime", request_id,
        (to_jsonb(t) - 'messages' - 'response' - 'proxy_server_request')::text
    FROM "LiteLLM_SpendLogs" AS t
    WHERE "startTime" >= %(start)s AND "startTime" < %(end)s
        AND ("startTime", request_id) > (%(after)s, %(after_id)s)
    ORDER BY "startTime", request_id
    LIMIT %(rows)s
"""

_MENDS: Final = {
    "42501": 'Let its user read it: GRANT SELECT ON "LiteLLM_SpendLogs" TO ….',
    "42P01": "Check url: is it the database of LiteLLM?",
    "42703": "Its version of LiteLLM names its columns in another way than is known here.",
    "57014": "Raise timeout_seconds, or lower window_hours and batch_rows.",
}
"""What to do about an error, by its code (SQLSTATE)."""


def spend_logs(source: PulledSource, start: datetime, end: datetime) -> Iterator[Page]:
    """The rows whose call began in a span of time, in its order; one snapshot of the table."""
    import psycopg

    try:
        with psycopg.connect(
            source.url,
            user=source.user,
            password=source.password(),
            connect_timeout=source.timeout_seconds,
            options=f"-c statement_timeout={source.timeout_seconds * 1000} -c timezone=UTC",
        ) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            after, after_id = start, ""
            while True:
                asked = {"start": start, "end": end, "after": after, "after_id": after_id, "rows": source.batch_rows}
                with _answered_within(connection, 1.5 * source.timeout_seconds):
                    rows = connection.execute(_ROWS, asked).fetchall()
                if rows:
                    yield [row[2] for row in rows]
                    after, after_id = rows[-1][0], rows[-1][1]
                if len(rows) < source.batch_rows:
                    return
    except psycopg.Error as error:
        said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        mend = _MENDS.get(
            error.sqlstate or "", "Check url, user and password_file, and that it can be reached from here."
        )
        raise PullFailed(f"The spend logs cannot be read: {said}. {mend}") from None


@contextmanager
def _answered_within(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Hang up on a server that says nothing for so long. Its own timeout, which is shorter, is of no use where the network hangs.

    Raises:
        PullFailed: that happened.
    """
    import psycopg

    over = Event()

    def hang_up() -> None:
        over.set()
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    waiting = Timer(seconds, hang_up)
    waiting.daemon = True
    waiting.start()
    try:
        yield
    except psycopg.Error:
        if over.is_set():
            raise PullFailed(f"The spend logs cannot be read: no answer within {seconds:g} s.") from None
        raise
    finally:
        waiting.cancel()
