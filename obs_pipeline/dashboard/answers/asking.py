"""What every answer is made with: the caller's rows, the days, the filters, the page, and what it tells of itself.

Here: what more than one family of answers needs. No question is answered here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import Principal
from obs_pipeline.dashboard.snapshot import NotReady, Pinned, Reader
from obs_pipeline.detection.explanations import Explanation
from obs_pipeline.detection.models import Anomaly
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline.storage.lake import DayRange, LakeTable
from obs_pipeline.storage.ledger_state import SourceDays
from obs_pipeline.usage.watermark import provisional_days

Explain = Callable[[Reader, Anomaly], Explanation]
"""Takes an anomaly apart by the events behind it that a reader shows."""

PLACE: Final = ("org", "project", "agent")
FILTERS: Final = (*PLACE, "team", "model")
SLICE: Final = """
    CAST(coalesce(sum(cost), 0) AS DECIMAL(38, 9)) AS cost, CAST(coalesce(sum(calls), 0) AS BIGINT) AS calls,
    CAST(coalesce(sum(errors), 0) AS BIGINT) AS errors,
    CAST(coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0) AS BIGINT) AS tokens,
    CAST(coalesce(sum(saved_tokens), 0) AS BIGINT) AS saved_tokens
"""
"""The sums of a slice, as SQL over the spend mart."""
COVERAGE: Final = """
    CAST(coalesce(sum(unpriced_calls), 0) AS BIGINT) AS unpriced_calls,
    CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS unpriced_bound,
    CAST(coalesce(sum(unattributed_cost), 0) AS DECIMAL(38, 9)) AS unattributed_cost
"""
"""What of a sum is not known or not attributed, as SQL over the spend mart."""


class Rows(NamedTuple):
    """Which rows are asked about: a condition in SQL and the values it names."""

    where: str
    values: Mapping[str, Any]

    def within(self, days: DayRange) -> Rows:
        """Those of them of these days."""
        values = {"first": days.first, "last": days.last, **self.values}
        return Rows(f"dt BETWEEN $first AND $last AND {self.where}", values)


EVERY_ROW: Final = Rows("true", {})


def rows_about(asked: q.Asked, names: Sequence[str]) -> Rows:
    """The rows that have what was asked for under these names; :data:`~questions.UNATTRIBUTED` means without a value."""
    given = {name: value for name in names if (value := getattr(asked, name, None)) is not None}
    conditions = (
        f"{name} IS NULL" if value == q.UNATTRIBUTED else f"{name} = ${name}" for name, value in given.items()
    )
    values = {name: value for name, value in given.items() if value != q.UNATTRIBUTED}
    return Rows(" AND ".join(["true", *conditions]), values)


def rows_at(place: Mapping[str, str | None]) -> Rows:
    """The rows of exactly this place; None is without a value."""
    return Rows(" AND ".join(["true", *(f"{name} IS NOT DISTINCT FROM ${name}" for name in place)]), place)


@dataclass(frozen=True, slots=True)
class Asking:
    """What an answer is made from: the caller, its reader of the lake, what the ledger says of sources, incidents and
    anomalies, a way to the events if there is one, and the tables that the question reads."""

    principal: Principal
    reader: Reader
    sources: Mapping[str, SourceDays]
    lateness: timedelta
    alerts: AlertStore
    labels: AnomalyLabels
    explain: Explain | None
    reads: Sequence[LakeTable]

    @property
    def pinned(self) -> Pinned:
        return self.reader.pinned

    @property
    def versions(self) -> dict[str, int]:
        """Those of the tables that the question reads."""
        return self.pinned.versions_of(self.reads)

    def window(self, timeframe: q.Timeframe, end: date | None) -> DayRange:
        """The days of a timeframe, up to ``end`` or the last computed day.

        Raises:
            NotReady: there is no usage yet.
            BadQuestion: ``end`` is too far away.
        """
        held = self.pinned.days
        if held is None:
            raise NotReady("There is no usage in the lake yet. Run: obs-pipeline batch")
        last = end or held.last
        if not date(1970, 1, 31) <= last <= date(9000, 1, 1):
            raise q.BadQuestion("end: choose a day between 1970-01-31 and 9000-01-01.")
        return DayRange(last - timedelta(days=q.DAYS[timeframe] - 1), last)

    def told(self, days: DayRange, about: Rows = EVERY_ROW) -> dict[str, Any]:
        """What every answer tells of itself, over the rows that it is about."""
        within = about.within(days)
        sums = f"CAST(coalesce(sum(calls), 0) AS BIGINT) AS calls, {COVERAGE}"
        (row,) = self.reader.rows(f"SELECT {sums} FROM {spend_copy(about)} WHERE {within.where}", within.values)
        return self.told_of(days, row)

    def told_of(self, days: DayRange, row: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`told`, where the coverage was summed already."""
        seen = {source: [day for day in of.days if day in days] for source, of in self.sources.items()}
        newest = {source: of.newest_event for source, of in self.sources.items()}
        provisional = provisional_days(seen, newest, self.lateness)
        return {
            "as_of": max((moment for moment in newest.values() if moment is not None), default=None),
            "first_day": days.first,
            "last_day": days.last,
            "coverage": q.Coverage(**row, provisional_days=provisional),
            "versions": self.versions,
        }


def spend_copy(about: Rows, by: str = "") -> str:
    """The smallest copy that can answer: only a question about agents needs the rows of agents."""
    return "spend_day" if "agent" in f"{by} {about.where}" else "spend_total"


def page_start(asking: Asking, asked: q.Paged, also: str = "") -> tuple[int, str]:
    """Where the page begins, and what its cursors are bound to: the question and the data."""
    put = asked.model_dump_json(exclude={"cursor", "limit"})
    mark = hashlib.sha256(
        f"{asking.pinned.mark_of(asking.reads)}|{put}|{also}".encode("utf-8", "surrogatepass")
    ).hexdigest()[:16]
    return q.read_cursor(asked.cursor, mark), mark


def page(total: int, start: int, shown: int, mark: str) -> dict[str, Any]:
    """What every page tells of itself."""
    more = start + shown < total
    return {"total": total, "has_more": more, "next_cursor": q.write_cursor(start + shown, mark) if more else None}


def only(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """These columns of a row."""
    return {name: row[name] for name in names}
