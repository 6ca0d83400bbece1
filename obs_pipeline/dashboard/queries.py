"""Questions people and tools ask of the lake: one function a question. Only reads.

Times are UTC. Every function opens the newest version of what it needs and asks nothing twice of different versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import duckdb
import pyarrow as pa

from obs_pipeline.detection.models import SEVERITIES, Anomaly, BatchResult, anomalies_from_table
from obs_pipeline.detection.onsets import ONSETS
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import resolve_all
from obs_pipeline.policy.spend import spend_between, used_places
from obs_pipeline.policy.status import BudgetStatus, budget_status, hours_to_split, spend_span
from obs_pipeline.storage.engine import one_row
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import USAGE_DUPLICATES, USAGE_EVENTS, USAGE_HOURLY, USAGE_REJECTED
from obs_pipeline.usage.watermark import provisional_days

_BUDGETS_LOOK_BACK: Final = timedelta(days=40)
_GOES_ON_DAYS: Final = 31
"""How many days later it is looked for how an anomaly went on."""


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows of some days; money in USD."""

    events: int
    rejected: int
    duplicates: int
    unpriced: int
    unpriced_bound: Decimal
    mispriced: int
    cost: Decimal
    list_cost_of_mispriced: Decimal
    reported_cost_of_mispriced: Decimal


def known_days(lake: Lake) -> DayRange | None:
    """From the first to the last day that has events or rejected rows."""
    days = {*lake.rows_per_day(USAGE_EVENTS), *lake.rows_per_day(USAGE_REJECTED)}
    return DayRange(min(days), max(days)) if days else None


def row_counts(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> RowCounts:
    """Events, refusals, duplicates and prices of the days."""
    lake.view(connection, USAGE_EVENTS, days)
    events, unpriced, bound, mispriced, cost, listed, reported = one_row(
        connection,
        """
        SELECT count(*), count(*) FILTER (cost_source = 'unpriced'), coalesce(sum(cost_bound), 0),
            count(*) FILTER (mispriced), coalesce(sum(cost), 0), coalesce(sum(list_cost) FILTER (mispriced), 0),
            coalesce(sum(reported_cost) FILTER (mispriced), 0)
        FROM usage_events
        """,
    )
    rejected = sum(lake.rows_per_day(USAGE_REJECTED, days).values())
    duplicates = sum(lake.rows_per_day(USAGE_DUPLICATES, days).values())
    return RowCounts(events, rejected, duplicates, unpriced, bound, mispriced, cost, listed, reported)


def anomalies(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    days: DayRange | None = None,
    *,
    severities: Sequence[str] = (),
    agent: str | None = None,
    metric: str | None = None,
    limit: int = 20,
) -> list[Anomaly]:
    """The anomalies that begin in the days, as long and as grave as they became, the highest score first."""
    _view_with_neighbours(connection, lake, days)
    conditions, values = _conditions({"agent": agent, "metric": metric})
    if days is not None:
        conditions.append("dt BETWEEN ? AND ?")
        values += [days.first, days.last]
    if severities:
        conditions.append(f"severity IN ({', '.join('?' for _ in severities)})")
        values += severities
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT * FROM ({ONSETS}) {where} ORDER BY score DESC, timestamp, id LIMIT ?"
    return anomalies_from_table(connection.sql(query, params=[*values, limit]).to_arrow_table())


def anomaly_counts(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> dict[str, int]:
    """How many anomalies of each severity begin in the days."""
    _view_with_neighbours(connection, lake, days)
    query = f"SELECT severity, count(*) FROM ({ONSETS}) WHERE dt BETWEEN ? AND ? GROUP BY severity"
    return dict(connection.execute(query, [days.first, days.last]).fetchall())


def _view_with_neighbours(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange | None) -> None:
    """The anomalies of the days, of the day before, where they may have begun, and of those after, where they may go on."""
    latest = date.max - timedelta(days=_GOES_ON_DAYS)
    near = None if days is None else DayRange(days.first, min(days.last, latest)).widened(before=1, after=_GOES_ON_DAYS)
    lake.view(connection, ANOMALIES, near)


def anomaly_by_id(connection: duckdb.DuckDBPyConnection, lake: Lake, id_or_prefix: str) -> list[Anomaly]:
    """The anomalies whose id begins so: one when the id is whole, none when it is unknown.

    One that went on is as long and as grave as it became; the row of a later day can be asked for as well.
    """
    lake.view(connection, ANOMALIES)
    query = f"""
        WITH whole AS ({ONSETS})
        SELECT * FROM whole WHERE starts_with(id, $id)
        UNION ALL SELECT * FROM anomalies WHERE starts_with(id, $id) AND id NOT IN (SELECT id FROM whole)
        LIMIT 5
    """
    return anomalies_from_table(connection.sql(query, params={"id": id_or_prefix}).to_arrow_table())


def batch_result(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    days: DayRange,
    newest_event: Mapping[str, datetime | None],
    lateness: timedelta,
    duration: timedelta,
) -> BatchResult:
    """What a batch over the days amounts to. ``newest_event`` is each source's newest event time."""
    counts = row_counts(connection, lake, days)
    found = anomaly_counts(connection, lake, days)
    sources = days_by_source(connection, lake, days)
    return BatchResult(
        days=tuple(days.days()),
        events=counts.events,
        anomalies={severity: found.get(severity, 0) for severity in SEVERITIES},
        quarantined=counts.rejected,
        duplicates=counts.duplicates,
        unpriced=counts.unpriced,
        provisional_days=tuple(provisional_days(sources, newest_event, lateness)),
        duration=duration,
    )


def days_by_source(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> dict[str, list[date]]:
    """The days on which each source has events."""
    lake.view(connection, USAGE_HOURLY, days)
    found = connection.execute("SELECT DISTINCT source, dt FROM usage_hourly ORDER BY source, dt").fetchall()
    sources: dict[str, list[date]] = {}
    for source, day in found:
        sources.setdefault(source, []).append(day)
    return sources


def _conditions(equal: dict[str, str | None]) -> tuple[list[str], list[Any]]:
    asked = {column: value for column, value in equal.items() if value is not None}
    return [f"{column} = ?" for column in asked], list(asked.values())


def events_between(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    series: tuple[str | None, str | None, str | None],
    start: datetime,
    end: datetime,
) -> pa.Table:
    """The events of one (org, project, agent) from ``start`` (inclusive) to ``end`` (exclusive)."""
    lake.view(connection, USAGE_EVENTS, DayRange(start.date(), (end - timedelta(microseconds=1)).date()))
    return connection.sql(
        """
        SELECT * FROM usage_events
        WHERE org IS NOT DISTINCT FROM ? AND project IS NOT DISTINCT FROM ? AND agent IS NOT DISTINCT FROM ?
            AND event_time >= ? AND event_time < ?
        """,
        params=[*series, start, end],
    ).to_arrow_table()


def budgets(
    connection: duckdb.DuckDBPyConnection, lake: Lake, policies: Sequence[SourcedPolicy], at: datetime
) -> tuple[BudgetStatus, ...]:
    """Where every budget stands at ``at`` (UTC), for every organisation, project and agent used in the 40 days before."""
    used = used_places(connection, lake, DayRange((at - _BUDGETS_LOOK_BACK).date(), at.date()))
    effective = resolve_all(used, policies, at).values()
    span = spend_span(effective, at)
    if span is None:
        return ()
    return budget_status(effective, spend_between(connection, lake, span, hours_to_split(effective, at)), at)
