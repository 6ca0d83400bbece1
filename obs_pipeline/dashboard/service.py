"""The list of questions, and asking one: access, cache, answer. What MCP and HTTP both stand on.

Here: which name asks which function, which role it needs, and the cache. No transport, no SQL.

An answer is kept for 30 seconds under the lake's versions, the ledger's mark, the caller's rows and the question: a new
version or a changed ledger is a new key, so nothing old is served and nothing needs to be told to anyone. A cache that is
away costs its time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import anyio.to_thread
from cashews import Cache
from cashews.exceptions import BackendNotAvailableError
from pydantic import ValidationError

from obs_pipeline.dashboard import answers
from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import Principal, Role
from obs_pipeline.dashboard.answers import Asking
from obs_pipeline.dashboard.snapshot import NotReady, Snapshot
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.ledger import Ledger, LedgerError
from obs_pipeline.storage.ledger_state import SourceDays, ledger_mark, sources

_KEPT: Final = timedelta(seconds=30)


class CacheUnusable(ObsError):
    """The cache that was named cannot be used."""


@dataclass(frozen=True, slots=True)
class Question:
    """A name under which to ask, who may, what is put in and what comes out. ``told`` is the answer in a sentence."""

    name: str
    title: str
    description: str
    role: Role
    asked: type[q.Asked]
    answer: type[q.Answer]
    function: Callable[[Asking, Any], q.Answer]
    told: Callable[[Any], str]


def _of(found: q.Page, what: str) -> str:
    return f"{found.total:,} {what}" + (", more with next_cursor." if found.has_more else ".")


QUESTIONS: Final[Mapping[str, Question]] = {
    question.name: question
    for question in (
        Question(
            "dashboard_get_metrics",
            "Metrics",
            "Spending against budget, tokens consumed and saved, and how both moved against the period before.",
            "viewer",
            q.MetricsAsked,
            q.Metrics,
            answers.metrics,
            lambda a: (
                f"${a.spending.current:,.2f} for {a.calls:,} calls and {a.tokens.consumed:,} tokens, "
                f"{a.first_day} to {a.last_day} UTC; ${a.spending.previous:,.2f} in the period before."
            ),
        ),
        Question(
            "dashboard_get_trends",
            "Trends",
            "Cost, tokens, calls, errors or latency over time, with the expected band and the anomalies.",
            "viewer",
            q.TrendsAsked,
            q.Trends,
            answers.trends,
            lambda a: f"{len(a.points)} points of {a.metric} by {a.granularity} with {len(a.anomalies)} anomalies.",
        ),
        Question(
            "dashboard_get_anomalies",
            "Anomalies",
            "Detected anomalies of a timeframe, the worst first.",
            "viewer",
            q.AnomaliesAsked,
            q.Anomalies,
            answers.anomalies,
            lambda a: _of(a, "anomalies"),
        ),
        Question(
            "dashboard_export_data",
            "Export",
            "The rows behind the totals as CSV or JSON: one a day, project, team, agent and model.",
            "analyst",
            q.ExportAsked,
            q.Export,
            answers.export_data,
            lambda a: _of(a, f"rows as {a.format}"),
        ),
        Question(
            "list_entities",
            "Drill-down",
            "Projects, teams, agents, providers or models with what they cost, the dearest first.",
            "viewer",
            q.EntitiesAsked,
            q.Entities,
            answers.entities,
            lambda a: _of(a, f"{a.level}s"),
        ),
        Question(
            "explain_anomaly",
            "Explain an anomaly",
            "Why one anomaly is one: expected, observed, the reason, and the values around it.",
            "viewer",
            q.ExplainAsked,
            q.Explained,
            answers.explain_anomaly,
            lambda a: a.anomaly.reason[:500],
        ),
        Question(
            "get_effective_policy",
            "Effective policy",
            "Which limits hold for an organisation, project or agent, and which policies decided each.",
            "analyst",
            q.PolicyAsked,
            q.EffectivePolicyShown,
            answers.effective_policy,
            lambda a: a.told,
        ),
        Question(
            "get_budget_status",
            "Budgets",
            "Where budgets stand: spent, limit, burn and when they would be used up; the fullest first.",
            "viewer",
            q.BudgetsAsked,
            q.Budgets,
            answers.budget_status,
            lambda a: _of(a, "budgets"),
        ),
        Question(
            "list_incidents",
            "Incidents",
            "Incidents, the most recently changed first.",
            "viewer",
            q.IncidentsAsked,
            q.Incidents,
            answers.list_incidents,
            lambda a: _of(a, "incidents"),
        ),
        Question(
            "why_notified",
            "Why notified",
            "Every decision about an incident: who was told, and what held a message back.",
            "analyst",
            q.WhyAsked,
            q.Why,
            answers.why_notified,
            lambda a: f"{len(a.decisions)} decisions about the incident {a.incident.id}.",
        ),
    )
}


def put(question: Question, values: Mapping[str, Any]) -> q.Asked:
    """The inputs of a question from what a caller sent.

    Raises:
        BadQuestion: an input cannot be used; the message names every one.
    """
    try:
        return question.asked.model_validate(dict(values))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc'])) or 'inputs'}: {one['msg']}" for one in error.errors())
        raise q.BadQuestion("; ".join(faults)[:2000]) from None


class Service:
    """Answers questions. One a process; safe across threads and tasks.

    ``cache_url`` is ``mem://`` or the URL of a Redis server, which processes may share. ``count`` hears of each cache look-up.
    ``look_again`` is for how many seconds a look at lake and ledger serves those who ask at the same time.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        ledger: Ledger,
        *,
        lateness: timedelta,
        cache_url: str = "mem://",
        look_again: float = 0.0,
        ticks: Callable[[], float] = time.monotonic,
        count: Callable[[bool], None] = lambda _hit: None,
    ) -> None:
        self.snapshot = snapshot
        self.ledger = ledger
        self.count = count
        self._lateness = lateness
        self._look_again = look_again
        self._ticks = ticks
        self._marked = (-math.inf, "")
        self._alerts = AlertStore(ledger)
        self._lock = threading.Lock()
        self._sources: tuple[str, Mapping[str, SourceDays]] | None = None
        self._cache = _cache(cache_url)

    async def ask(self, question: Question, values: Mapping[str, Any], principal: Principal) -> q.Answer:
        """
        Raises:
            AccessDenied: the caller's role does not suffice.
            BadQuestion: the inputs cannot be used.
            NotReady: there is no lake to answer from yet.
            LedgerError: the ledger cannot be read now.
        """
        return question.answer.model_validate_json(await self.ask_json(question, values, principal))

    async def ask_json(self, question: Question, values: Mapping[str, Any], principal: Principal) -> str:
        """The answer of :meth:`ask` as JSON text."""
        principal.require(question.role)
        asked = put(question, values)
        mark = self._recent_mark()
        if mark is None:
            mark = await anyio.to_thread.run_sync(self.mark)
        key = _key(mark, question, asked, principal)
        kept: str | None = await self._cache.get(key)
        self.count(kept is not None)
        if kept is None:
            kept = await anyio.to_thread.run_sync(self._answer_json, question, asked, principal)
            await self._cache.set(key, kept, expire=_KEPT)
        return kept

    def mark(self) -> str:
        """What the answers of now are made from: the lake's versions and the ledger's mark."""
        looked = self._ticks()
        mark = f"{self.snapshot.follow().mark}|{ledger_mark(self.ledger)}"
        self._marked = (looked, mark)
        return mark

    def answer(self, question: Question, asked: q.Asked, principal: Principal) -> q.Answer:
        """Answer without a cache."""
        seen = self._seen()
        with self.snapshot.reading(principal) as reader:
            return question.function(Asking(principal, reader, seen, self._lateness, self._alerts), asked)

    def _recent_mark(self) -> str | None:
        looked, mark = self._marked
        return mark if self._ticks() - looked < self._look_again else None

    def _answer_json(self, question: Question, asked: q.Asked, principal: Principal) -> str:
        return self.answer(question, asked, principal).model_dump_json()

    def ready(self) -> None:
        """
        Raises:
            NotReady, LedgerError: questions cannot be answered now; the message says why.
        """
        self.mark()

    async def close(self) -> None:
        await self._cache.close()
        self.snapshot.close()

    def _seen(self) -> Mapping[str, SourceDays]:
        mark = ledger_mark(self.ledger)
        with self._lock:
            if self._sources is None or self._sources[0] != mark:
                self._sources = (mark, sources(self.ledger))
            return self._sources[1]


UNAVAILABLE: Final = (NotReady, LedgerError)
"""What a caller can only wait for."""


def _cache(url: str) -> Cache:
    cache = Cache()
    try:
        # A Redis server that goes away is looked past: the answer is made anew.
        cache.setup(url, **({"size": 2000} if url.startswith("mem:") else {"suppress": True}))
    except (BackendNotAvailableError, ValueError, TypeError) as error:
        raise CacheUnusable(
            f"The cache {url.split('@')[-1]} cannot be used: {error} Use mem:// to keep answers here."
        ) from None
    return cache


def _key(mark: str, question: Question, asked: q.Asked, principal: Principal) -> str:
    whose = json.dumps([principal.org, sorted(principal.projects)])
    text = "|".join((mark, question.name, asked.model_dump_json(), whose))
    return "answer:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
