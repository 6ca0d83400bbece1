"""A seller's billing API on the loopback: it answers by the day, in pages, as its real one is described; and it can fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from email.message import Message
from typing import Any

from obs_pipeline_tests.stand_in import Answer, Query, StandIn, serving

Results = Callable[[str, date], list[dict[str, Any]]]
"""The results of a path on a day."""


class Seller(StandIn):
    """Answers each request from ``results``, ``days_a_page`` days at a time.

    ``faults``: what is answered instead, one a request, until there is none left; None stands for a good answer.
    ``silent``: days it gives no bucket of. ``answers_after``: seconds it takes for each answer.
    """

    def __init__(self, results: Results) -> None:
        super().__init__()
        self.results = results
        self.days_a_page = 2
        self.faults: list[Answer | None] = []
        self.silent: set[date] = set()
        self.repeats_pages = False
        self.answers_after = 0.0
        self.asked: list[tuple[str, Query]] = []
        self.keys: list[str | None] = []

    def answer(self, path: str, query: Query, headers: Message) -> Answer:
        self.asked.append((path, query))
        self.keys.append(headers["Authorization"] or headers["x-api-key"])
        fault = self.faults.pop(0) if self.faults else None
        time.sleep(self.answers_after)
        return fault or (200, json.dumps(self.page(path, query)).encode())

    def page(self, path: str, query: Query) -> dict[str, Any]:
        unix = "start_time" in query
        first, until = _days(query)
        offset = 0 if self.repeats_pages and "page" in query else int(query.get("page", ["0"])[0].removeprefix("page_"))
        start = first + timedelta(days=offset)
        days = [start + timedelta(days=n) for n in range(self.days_a_page) if start + timedelta(days=n) < until]
        after = offset + self.days_a_page
        more = first + timedelta(days=after) < until
        data = [_bucket(day, self.results(path, day), unix) for day in days if day not in self.silent]
        return {"object": "page", "data": data, "has_more": more, "next_page": f"page_{after}" if more else None}


def _days(query: Query) -> tuple[date, date]:
    if "start_time" in query:
        first, until = (datetime.fromtimestamp(int(query[name][0]), UTC) for name in ("start_time", "end_time"))
    else:
        first, until = (datetime.fromisoformat(query[name][0]) for name in ("starting_at", "ending_at"))
    return first.date(), until.date()


def _bucket(day: date, results: list[dict[str, Any]], unix: bool) -> dict[str, Any]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = start + timedelta(days=1)
    if unix:
        times: dict[str, Any] = {"start_time": int(start.timestamp()), "end_time": int(end.timestamp())}
    else:
        times = {"starting_at": f"{start:%Y-%m-%dT%H:%M:%SZ}", "ending_at": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
    return {"object": "bucket", **times, "results": results}


def seller(results: Results) -> AbstractContextManager[Seller]:
    """A seller that answers while the context lasts."""
    return serving(Seller(results))


def openai_results(path: str, day: date) -> list[dict[str, Any]]:
    """A cent for each day of the month, for its hundred tokens."""
    if path.endswith("/costs"):
        amount = {"value": day.day / 100, "currency": "usd"}
        object_ = "organization.costs.result"
        return [
            {"object": object_, "amount": amount, "line_item": "gpt-4o-2024-08-06, input", "project_id": "proj_abc"}
        ]
    if path.endswith("/completions"):
        counts = {"input_tokens": 100 * day.day, "output_tokens": 0, "input_cached_tokens": 10, "num_model_requests": 1}
        named = {"project_id": "proj_abc", "model": "gpt-4o-2024-08-06"}
        return [{"object": "organization.usage.completions.result", **counts, **named}]
    return []


def anthropic_results(path: str, day: date) -> list[dict[str, Any]]:
    """A cent for each day of the month, for its hundred tokens."""
    named = {"workspace_id": "wrkspc_01", "model": "claude-sonnet-4-20250514"}
    if path.endswith("/cost_report"):
        what = {"description": "Claude Sonnet 4 Usage - Input Tokens", "token_type": "uncached_input_tokens"}
        return [{"amount": f"{day.day}.0", "currency": "USD", "cost_type": "tokens", **what, **named}]
    created = {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 40 * day.day}
    counts = {"uncached_input_tokens": 50 * day.day, "cache_read_input_tokens": 10 * day.day, "output_tokens": 0}
    return [{"cache_creation": created, **counts, **named}]
