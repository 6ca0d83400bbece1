"""What was spent: totals against budget and the days before, and the drill-down from organisation to model.

Slices add up: rows without a value for the dimension are the slice ``(unattributed)``, those beyond the largest are ``(rest)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.answers.asking import (
    COVERAGE,
    EVERY_ROW,
    FILTERS,
    PLACE,
    SLICE,
    Asking,
    Rows,
    only,
    page,
    page_start,
    rows_about,
    spend_copy,
)
from obs_pipeline.policy.tables import BUDGET_STATUS
from obs_pipeline.storage.lake import DayRange

_LARGEST: Final = 50
_NOTHING: Final[Mapping[str, Any]] = {
    "cost": Decimal(0),
    "unattributed_cost": Decimal(0),
    "unpriced_bound": None,
    **dict.fromkeys(("calls", "errors", "tokens", "saved_tokens", "input", "output", "cached", "unpriced_calls"), 0),
}


def metrics(asking: Asking, asked: q.MetricsAsked) -> q.Metrics:
    """Spending against budget, tokens, and how both moved against as many days before."""
    days, about = asking.window(asked.timeframe, asked.end), rows_about(asked, FILTERS)
    now, then = _totals(asking, about, days)
    budget = _cost_budget(asking, asked)
    return q.Metrics(
        **asking.told_of(days, {name: now[name] for name in q.Coverage.model_fields if name != "provisional_days"}),
        timeframe=asked.timeframe,
        by=asked.by,
        spending=q.Spending(
            current=now["cost"],
            previous=then["cost"],
            budget=budget,
            percentage=float(now["cost"] / budget * 100) if budget else None,
        ),
        tokens=_tokens(now),
        calls=now["calls"],
        errors=now["errors"],
        trends={name: _change(now[name], then[name]) for name in ("cost", "tokens", "calls", "errors")},
        slices=_slices(asking, asked.by, about, days),
    )


def _totals(asking: Asking, about: Rows, days: DayRange) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The sums of these days, and of as many before."""
    where, values = about.within(DayRange(_before(days).first, days.last))
    rows = asking.reader.rows(
        f"""
        SELECT dt >= $begins AS current, {SLICE}, {COVERAGE},
            CAST(coalesce(sum(input_tokens), 0) AS BIGINT) AS input, CAST(coalesce(sum(output_tokens), 0) AS BIGINT) AS output,
            CAST(coalesce(sum(cache_read_tokens), 0) AS BIGINT) AS cached
        FROM {spend_copy(about)} WHERE {where} GROUP BY current
        """,
        {**values, "begins": days.first},
    )
    totals = {row["current"]: row for row in rows}
    return totals.get(True, _NOTHING), totals.get(False, _NOTHING)


def _before(days: DayRange) -> DayRange:
    return DayRange(days.first - timedelta(days=len(days)), days.first - timedelta(days=1))


def _tokens(sums: Mapping[str, Any]) -> q.Tokens:
    consumed, saved = sums["tokens"], sums["saved_tokens"]
    return q.Tokens(
        consumed=consumed,
        input=sums["input"],
        output=sums["output"],
        cached=sums["cached"],
        saved=saved,
        efficiency=saved / (consumed + saved) if consumed + saved > 0 else None,
        cached_share=sums["cached"] / sums["input"] if sums["input"] > 0 else None,
    )


def _change(now: Decimal | int, then: Decimal | int) -> q.Change:
    change = float((Decimal(now) - Decimal(then)) / Decimal(then)) if then else None
    return q.Change(current=Decimal(now), previous=Decimal(then), change=change)


def _slices(asking: Asking, by: q.Dimension, about: Rows, days: DayRange) -> list[q.Slice]:
    """The dearest slices and, so that they add up, what the others come to."""
    where, values = about.within(days)
    rows = asking.reader.rows(
        f"""
        WITH grouped AS (
            SELECT {by} AS name, {SLICE} FROM {spend_copy(about, by)} WHERE {where} GROUP BY {by}
        ), placed AS (
            SELECT *, least(row_number() OVER (ORDER BY cost DESC, name NULLS LAST), {_LARGEST + 1}) AS place FROM grouped
        )
        SELECT CASE WHEN place > {_LARGEST} THEN $rest ELSE coalesce(any_value(name), $none) END AS name,
            CAST(sum(cost) AS DECIMAL(38, 9)) AS cost, CAST(sum(calls) AS BIGINT) AS calls,
            CAST(sum(errors) AS BIGINT) AS errors, CAST(sum(tokens) AS BIGINT) AS tokens,
            CAST(sum(saved_tokens) AS BIGINT) AS saved_tokens
        FROM placed GROUP BY place ORDER BY place
        """,
        {**values, "rest": q.REST, "none": q.UNATTRIBUTED},
    )
    return [q.Slice(**row) for row in rows]


def _cost_budget(asking: Asking, asked: q.MetricsAsked) -> Decimal | None:
    """The cost limit of the timeframe's own period for the one place that was asked about, if there is just one."""
    newest = asking.reader.newest_day(BUDGET_STATUS)
    if newest is None or asked.team or asked.model:
        return None
    asking.reader.show(BUDGET_STATUS, newest)
    scope = "agent" if asked.agent else "project" if asked.project else "org"
    period = {"day": "daily", "week": "weekly", "month": "monthly"}[asked.timeframe]
    about = rows_about(asked, PLACE)
    rows = asking.reader.rows(
        f"""
        SELECT CAST(sum(limit_amount) AS DECIMAL(38, 9)) AS budget, count(*) AS places FROM budget_status
        WHERE scope = $scope AND kind = 'cost' AND period = $period AND currency = 'USD'
            AND {about.where}
        """,
        {"scope": scope, "period": period, **about.values},
    )
    budget: Decimal | None = rows[0]["budget"] if rows[0]["places"] == 1 else None
    return budget


def entities(asking: Asking, asked: q.EntitiesAsked) -> q.Entities:
    """Projects, teams, agents, providers or models, the dearest first: what a drill-down shows."""
    days, about = asking.window(asked.timeframe, asked.end), rows_about(asked, FILTERS)
    where, values = about.within(days)
    searched = Rows("contains(lower(name), lower($search))", {"search": asked.search}) if asked.search else EVERY_ROW
    grouped = f"""
        SELECT * FROM (
            SELECT coalesce({asked.level}, $none) AS name, {SLICE}
            FROM {spend_copy(about, asked.level)} WHERE {where} GROUP BY {asked.level}
        ) WHERE {searched.where}
    """
    start, mark = page_start(asking, asked)
    rows = asking.reader.rows(
        f"SELECT *, count(*) OVER () AS found FROM ({grouped}) ORDER BY cost DESC, name LIMIT {asked.limit} OFFSET {start}",
        {**values, **searched.values, "none": q.UNATTRIBUTED},
    )
    total = rows[0].pop("found") if rows else start
    before = _cost_before(asking, asked.level, about, days, [row["name"] for row in rows])
    return q.Entities(
        **asking.told(days, about),
        **page(total, start, len(rows), mark),
        level=asked.level,
        entities=[
            q.Entity(**only(row, *q.Slice.model_fields), previous_cost=before.get(row["name"], Decimal(0)))
            for row in rows
        ],
    )


def _cost_before(
    asking: Asking, level: q.Dimension, about: Rows, days: DayRange, names: Sequence[str]
) -> Mapping[str, Decimal]:
    """What each name cost in as many days before."""
    where, values = about.within(_before(days))
    named = f"coalesce({level}, $none)"
    rows = asking.reader.rows(
        f"""
        SELECT {named} AS name, CAST(sum(cost) AS DECIMAL(38, 9)) AS cost FROM {spend_copy(about, level)}
        WHERE {where} AND {named} IN (SELECT unnest($names)) GROUP BY 1
        """,
        {**values, "none": q.UNATTRIBUTED, "names": list(names)},
    )
    return {row["name"]: row["cost"] for row in rows}
