"""Asking a question: access, cache, answer; and acting. What MCP and HTTP both stand on.

Here: who makes an answer and who waits for it. Which questions there are is in ``catalogue``. No transport, no SQL.

An answer is kept for 30 seconds under the question and the caller's rows, beside the mark of what it was made from: the
versions of the tables it reads, and the ledger's state. Under another mark it is no hit, so nothing needs to be told to
anyone. While a batch writes, every answer is made anew again and again; who asks then waits a moment for the new one, and
gets the one before, which says what it was made from, where that takes longer. Whoever changed something here waits.
A cache that is away costs its time and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import AccessDenied, Principal
from obs_pipeline.dashboard.actions import ACTIONS, Acting, Action
from obs_pipeline.dashboard.answer_cache import AnswerCache
from obs_pipeline.dashboard.answers.asking import Asking, Explain
from obs_pipeline.dashboard.catalogue import QUESTIONS, Question, checked_inputs
from obs_pipeline.dashboard.export_file import export_file
from obs_pipeline.dashboard.snapshot import NotReady, Pinned, Reader, Snapshot
from obs_pipeline.storage.access_log import AccessLog
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline.storage.ledger import Ledger, LedgerError
from obs_pipeline.storage.ledger_state import SourceDays, ledger_mark, sources

_KEPT: Final = timedelta(seconds=30)
_MAKERS: Final = 4
"""Answers made at the same time. The engine has threads of its own, so more would only take turns with each other."""
_FRESH: Final = 1.0
"""Seconds for which a look at lake and ledger is good enough not to wait for the next, while somebody makes it."""


class Mark(NamedTuple):
    """What answers are made from: the lake, pinned, and the ledger's state."""

    pinned: Pinned
    ledger: str

    def of(self, question: Question, key: str) -> str:
        """A short text that differs wherever the answer may. ``key`` tells what is asked and whose rows are seen."""
        text = f"{key}|{self.pinned.mark_of(question.reads)}|{self.ledger}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class Kept(NamedTuple):
    """An answer as it is sent: its JSON, the sentence beside it, and the mark of what it was made from."""

    mark: str
    told: str
    json: str

    def packed(self) -> str:
        return f"{json.dumps([self.mark, self.told])}\n{self.json}"

    @classmethod
    def unpacked(cls, text: str | None) -> Kept | None:
        """None where it is none: a shared cache may hold anything."""
        head, _, rest = (text or "").partition("\n")
        try:
            mark, told = json.loads(head)
        except (ValueError, TypeError):
            return None
        return cls(str(mark), str(told), rest)


class Service:
    """Answers questions. One a process; safe across threads and tasks.

    ``cache_url`` is ``mem://`` or the URL of a Redis server, which processes may share. ``count`` hears of each cache look-up.
    ``look_again`` is for how many seconds a look at lake and ledger serves those who ask at the same time. ``patience`` is for
    how many seconds a question waits for a new version to be copied, and then for its answer to be made of it, before it is
    answered from the version before; None waits.
    ``writes`` is the clock by which deeds are dated; without one nothing may be changed. ``explain`` takes anomalies apart.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        ledger: Ledger,
        *,
        lateness: timedelta,
        cache_url: str = "mem://",
        look_again: float = 0.0,
        patience: float | None = None,
        writes: Callable[[], datetime] | None = None,
        explain: Explain | None = None,
        ticks: Callable[[], float] = time.monotonic,
        count: Callable[[bool], None] = lambda _hit: None,
    ) -> None:
        self.snapshot = snapshot
        self.ledger = ledger
        self.count = count
        self._lateness = lateness
        self._look_again = look_again
        self._ticks = ticks
        self._patience = patience
        self._writes = writes
        self._explain = explain
        self._marked: tuple[float, Mark] = (-math.inf, Mark(Pinned({}, {}), ""))
        self._looker = ThreadPoolExecutor(1, "look-again")
        self._look: Future[Mark] | None = None
        self._makers = ThreadPoolExecutor(_MAKERS, "answer")
        # One at a time, so that those who cannot do without an answer are served before those who have the one before.
        self._remakers = ThreadPoolExecutor(1, "answer-again")
        self._making: dict[tuple[str, str], asyncio.Task[Kept]] = {}
        self._waits_until = -math.inf
        self._alerts = AlertStore(ledger)
        self._labels = AnomalyLabels(ledger)
        self._log = AccessLog(ledger)
        self._lock = threading.Lock()
        self._sources: tuple[str, Mapping[str, SourceDays]] | None = None
        self.cache = AnswerCache(cache_url, ticks)

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
        return (await self.kept(question, values, principal)).json

    async def kept(self, question: Question, values: Mapping[str, Any], principal: Principal) -> Kept:
        """The answer of :meth:`ask` as it is sent."""
        principal.require(question.role)
        asked = checked_inputs(question, values)
        key = _key(question, asked, principal)
        mark = (self._recent_mark() or await self._newest_mark()).of(question, key)
        held = Kept.unpacked(await self.cache.get(key))
        hit = held is not None and held.mark == mark
        self.count(hit)
        if held is not None and hit:
            return held
        may_lag = held is not None and self._patience is not None and self._ticks() >= self._waits_until
        making = self._made(key, "" if may_lag else mark, question, asked, principal)
        if held is None or not may_lag:
            # One who goes away takes nothing from the others who wait.
            return await asyncio.shield(making)
        done, _ = await asyncio.wait({making}, timeout=self._patience)
        return making.result() if done else held

    @property
    def actions(self) -> Mapping[str, Action]:
        """What may be changed here; nothing unless writing was allowed."""
        return {} if self._writes is None else ACTIONS

    def may(self, principal: Principal) -> list[str]:
        """The names of all that a caller may ask and do."""
        every: list[Question | Action] = [*QUESTIONS.values(), *self.actions.values()]
        return [one.name for one in every if principal.may(one.role)]

    async def act(self, action: Action, values: Mapping[str, Any], principal: Principal) -> q.Shown:
        """Do something, now and once.

        Raises:
            AccessDenied: the caller's role does not suffice, or nothing may be changed here.
            BadQuestion: the inputs cannot be used.
            NotReady: there is no lake to answer from yet.
            LedgerError: the ledger cannot be written now.
        """
        principal.require(action.role)
        asked = checked_inputs(action, values)
        return await asyncio.wrap_future(self._makers.submit(self._act, action, asked, principal))

    def _act(self, action: Action, asked: q.Asked, principal: Principal) -> q.Shown:
        if self._writes is None:
            raise AccessDenied(
                "Nothing may be changed through this dashboard: start it with --writes, or set OBS_DASHBOARD_WRITES=true."
            )
        with self.snapshot.reading(principal) as reader:
            acting = Acting(principal, reader, self._alerts, self._labels, self._log, self._writes())
            done = action.function(acting, asked)
        # Whoever changed something sees it with the next question.
        now = self._ticks()
        self._marked = (now, Mark(self._marked[1].pinned, ledger_mark(self.ledger)))
        self._waits_until = now + _KEPT.total_seconds()
        return done

    def mark(self) -> Mark:
        """What the answers of now are made from."""
        looked = self._ticks()
        mark = Mark(self.snapshot.follow(), ledger_mark(self.ledger))
        if looked >= self._marked[0]:
            self._marked = (looked, mark)
        return mark

    def answer(self, question: Question, asked: q.Asked, principal: Principal) -> q.Answer:
        """Answer without a cache."""
        return self._answered(question, asked, principal)[1]

    def _answered(self, question: Question, asked: q.Asked, principal: Principal) -> tuple[Mark, q.Answer]:
        # The ledger's mark is older than what is read of it, so what changes meanwhile is found to have changed.
        ledger, seen = self._seen()
        with self.snapshot.reading(principal) as reader:
            asking = self._asking(principal, reader, seen, question)
            return Mark(reader.pinned, ledger), question.function(asking, asked)

    def _asking(
        self, principal: Principal, reader: Reader, seen: Mapping[str, SourceDays], question: Question
    ) -> Asking:
        return Asking(
            principal, reader, seen, self._lateness, self._alerts, self._labels, self._explain, question.reads
        )

    def export(self, values: Mapping[str, Any], principal: Principal) -> Iterator[q.Export | str]:
        """A whole export: what it tells of itself, then its text in parts. All of it is of one set of versions.

        Raises:
            AccessDenied, BadQuestion, NotReady, LedgerError: as :meth:`ask` does, before anything is given out.
        """
        question = QUESTIONS["dashboard_export_data"]
        principal.require(question.role)
        asked = checked_inputs(question, values)
        assert isinstance(asked, q.ExportAsked)
        self.mark()
        _, seen = self._seen()
        with self.snapshot.reading(principal) as reader:
            yield from export_file(self._asking(principal, reader, seen, question), asked)

    def _recent_mark(self) -> Mark | None:
        looked, mark = self._marked
        return mark if self._ticks() - looked < self._look_again else None

    def _made(
        self, key: str, mark: str, question: Question, asked: q.Asked, principal: Principal
    ) -> asyncio.Task[Kept]:
        """One answer for all who ask the same now: of this mark, or of whatever is the newest when its turn has come."""
        making = self._making.get((key, mark))
        if making is None:
            makers = self._makers if mark else self._remakers
            making = asyncio.ensure_future(self._make(makers, key, question, asked, principal))
            self._making[key, mark] = making
            making.add_done_callback(lambda made: self._forget(key, mark, made))
        return making

    def _forget(self, key: str, mark: str, made: asyncio.Task[Kept]) -> None:
        self._making.pop((key, mark), None)
        if not made.cancelled():
            # Looked at, so that a failure that nobody waits for any more is not told as a fault of the program.
            made.exception()

    async def _make(
        self, makers: ThreadPoolExecutor, key: str, question: Question, asked: q.Asked, principal: Principal
    ) -> Kept:
        made = await asyncio.wrap_future(makers.submit(self._answer_json, question, asked, principal))
        await self.cache.set(key, made.packed(), _KEPT.total_seconds())
        return made

    async def _newest_mark(self) -> Mark:
        """One look for all who ask now; the mark before where it takes longer than they have patience for."""
        if self._look is None or self._look.done():
            self._look = self._looker.submit(self.mark)
        looked, before = self._marked
        age = self._ticks() - looked
        if self._patience is not None and age < _FRESH:
            return before
        look = asyncio.wrap_future(self._look)
        done, _ = await asyncio.wait({look}, timeout=self._patience if age < _KEPT.total_seconds() else None)
        return look.result() if done else before

    def _answer_json(self, question: Question, asked: q.Asked, principal: Principal) -> Kept:
        mark, answer = self._answered(question, asked, principal)
        return Kept(
            mark.of(question, _key(question, asked, principal)), question.told(answer), answer.model_dump_json()
        )

    def ready(self) -> None:
        """
        Raises:
            NotReady, LedgerError: questions cannot be answered now; the message says why.
        """
        self.mark()

    def degraded(self) -> list[str]:
        """What goes on without something it could have; each says what and why."""
        return [] if self.cache.problem is None else [self.cache.problem]

    async def close(self) -> None:
        self._looker.shutdown()
        self._makers.shutdown()
        self._remakers.shutdown(cancel_futures=True)
        await self.cache.close()
        self.snapshot.close()

    def _seen(self) -> tuple[str, Mapping[str, SourceDays]]:
        mark = ledger_mark(self.ledger)
        with self._lock:
            if self._sources is None or self._sources[0] != mark:
                self._sources = (mark, sources(self.ledger))
            return self._sources


UNAVAILABLE: Final = (NotReady, LedgerError)
"""What a caller can only wait for."""


def _key(question: Question, asked: q.Asked, principal: Principal) -> str:
    whose = json.dumps([principal.org, sorted(principal.projects)])
    text = "|".join((question.name, asked.model_dump_json(), whose))
    return "answer:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
