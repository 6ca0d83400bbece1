"""A series over time, the band of the ordinary and the anomalies in it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.answers.asking import (
    EVERY_ROW,
    FILTERS,
    PLACE,
    Asking,
    Rows,
    only,
    rows_about,
    spend_copy,
)
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.tables import BASELINES
from obs_pipeline.storage.lake import DayRange

_MARKS: Final = 200
_UNIT: Final = {"cost": "USD", "tokens": "tokens", "calls": "calls", "errors": "share of calls", "latency": "ms"}
_VALUE: Final = {
    "cost": "CAST(sum(cost) AS DOUBLE)",
    "tokens": "CAST(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) AS DOUBLE)",
    "calls": "CAST(sum(calls) AS DOUBLE)",
    "errors": "CAST(sum(errors) AS DOUBLE) / nullif(sum(calls), 0)",
}
"""A point of a metric, as SQL over the spend mart; the percentiles of latency are the baselines' own."""


def trends(asking: Asking, asked: q.TrendsAsked) -> q.Trends:
    """A series over time with the band of the ordinary and the anomalies in it."""
    days, about = asking.window(asked.timeframe, asked.end), rows_about(asked, FILTERS)
    expected, band = _band(asking, asked, days)
    if asked.metric == "latency":
        found = {moment: row["observed"] for moment, row in expected.items()}
    else:
        found = _series(asking, asked, about, days)
    points = [
        q.Point(
            time=moment,
            value=value,
            **{name: expected[moment][name] if moment in expected else None for name in ("expected", "lower", "upper")},
        )
        for moment, value in sorted(found.items())
    ]
    marks = _marks(asking, asked, days)
    return q.Trends(
        **asking.told(days, about),
        metric=asked.metric,
        granularity=asked.granularity,
        unit=_UNIT[asked.metric],
        points=points,
        anomalies=[q.AnomalyMark(**only(mark, *q.AnomalyMark.model_fields)) for mark in marks],
        marked=marks[0]["marked"] if marks else 0,
        band=band,
    )


def _series(asking: Asking, asked: q.TrendsAsked, about: Rows, days: DayRange) -> dict[datetime, float]:
    """The value at each time that has one."""
    where, values = about.within(days)
    source, moment = spend_copy(about), "CAST(dt AS TIMESTAMP)"
    if asked.granularity == "hour":
        source, moment = "spend_hour", "time"
        if asked.agent is not None or asked.model is not None:
            asking.reader.show(MART_SPEND, days)
            source, where = "mart_spend", f"grain = 'hour' AND {where}"
    rows = asking.reader.rows(
        f"SELECT {moment} AS moment, {_VALUE[asked.metric]} AS value FROM {source} WHERE {where} GROUP BY 1", values
    )
    return {row["moment"]: row["value"] for row in rows if row["value"] is not None}


def _band(asking: Asking, asked: q.TrendsAsked, days: DayRange) -> tuple[dict[datetime, dict[str, Any]], str]:
    """What was expected at each time, of the one series that was asked about, and where that is from or why there is none."""
    if asked.agent is None or asked.team is not None or asked.model is not None or asked.metric == "calls":
        if asked.metric == "latency":
            raise q.BadQuestion(
                "agentId: the percentiles of several agents cannot be added; for latency name one agent, no team or model."
            )
        return {}, "none: a band belongs to one agent's cost, tokens, errors or latency"
    about = rows_about(asked, PLACE).within(days)
    bands, of_grain = bands_of(asking, asked.granularity, days)
    lying = _lying(asking, about) if bands == "baselines" else EVERY_ROW
    rows = asking.reader.rows(
        f"""
        SELECT time, any_value(observed) AS observed, any_value(expected) AS expected, any_value(lower) AS lower,
            any_value(upper) AS upper, count(*) AS series
        FROM {bands} WHERE metric = $metric AND {of_grain} AND {about.where} AND {lying.where} GROUP BY time
        """,
        {"metric": asked.metric, **about.values, **lying.values},
    )
    if any(row["series"] > 1 for row in rows):
        if asked.metric == "latency":
            raise q.BadQuestion("projectId: this agent works in several projects; name one of them.")
        return {}, "none: this agent works in several projects; name one of them"
    return {
        row["time"]: row for row in rows
    }, "from the 28 days before each point" if rows else "none: nothing was learnt yet"


def _lying(asking: Asking, about: Rows) -> Rows:
    """The projects that what is asked about worked in: baselines lie by project, so most of each file can be passed over."""
    found = asking.reader.rows(f"SELECT DISTINCT project FROM spend_day WHERE {about.where}", about.values)
    named = {f"place{number}": row["project"] for number, row in enumerate(found) if row["project"] is not None}
    conditions = [f"project IN ({', '.join(f'${name}' for name in named)})"] if named else []
    if len(named) < len(found):
        conditions.append("project IS NULL")
    return Rows(f"({' OR '.join(conditions)})", named) if conditions else EVERY_ROW


def bands_of(asking: Asking, grain: str, days: DayRange) -> tuple[str, str]:
    """Where the bands of these days are read, and which of the rows there are of the grain."""
    if grain == "day" and asking.reader.has_bands_of(days):
        return "band_day", "true"
    asking.reader.show(BASELINES, days)
    return "baselines", f"grain = '{grain}'"


def _marks(asking: Asking, asked: q.TrendsAsked, days: DayRange) -> list[dict[str, Any]]:
    """The anomalies of the series; those of an agent are not those of its teams and models."""
    if asked.team is not None or asked.model is not None:
        return []
    where, values = rows_about(asked, PLACE).within(days)
    return asking.reader.rows(
        f"""
        SELECT id, timestamp AS time, severity, observed, count(*) OVER () AS marked FROM onsets
        WHERE metric = $metric AND grain = $grain AND {where}
        ORDER BY score DESC, id LIMIT {_MARKS}
        """,
        {"metric": asked.metric, "grain": asked.granularity, **values},
    )
