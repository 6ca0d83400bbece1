"""The picture of a day: the series that most needs a look, against its band, over the four weeks that end there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import groupby
from typing import Any, Final

import duckdb

from obs_pipeline.detection.pictures.band_chart import band_chart_svg
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.storage.lake import DayRange, Lake

_DAYS_SHOWN: Final = 28
_UNITS: Final = {"cost": "USD", "tokens": "tokens", "errors": "share of calls", "latency": "ms, p95"}

# Each day's series of interest: that of its worst anomaly, else the one that cost most.
_CHOSEN: Final = """
    SELECT dt, org, project, agent, metric FROM (
        SELECT dt, org, project, agent, metric, 1 AS preference, score AS weight FROM anomalies
        UNION ALL
        SELECT dt, org, project, agent, metric, 0 AS preference, observed AS weight FROM baselines
        WHERE grain = 'day' AND metric = 'cost'
    )
    WHERE dt BETWEEN ? AND ?
    QUALIFY row_number() OVER (PARTITION BY dt ORDER BY preference DESC, weight DESC, agent, metric) = 1
"""
_POINTS: Final = f"""
    WITH chosen AS ({_CHOSEN})
    SELECT c.dt, c.agent, c.metric, b.time, b.observed, b.expected, b.lower, b.upper, a.severity
    FROM chosen c
    JOIN baselines b ON b.grain = 'day' AND b.metric = c.metric AND b.dt BETWEEN c.dt - {_DAYS_SHOWN} AND c.dt
        AND b.org IS NOT DISTINCT FROM c.org AND b.project IS NOT DISTINCT FROM c.project
        AND b.agent IS NOT DISTINCT FROM c.agent
    LEFT JOIN anomalies a ON a.grain = 'day' AND a.metric = c.metric AND a.timestamp = b.time
        AND a.org IS NOT DISTINCT FROM c.org AND a.project IS NOT DISTINCT FROM c.project
        AND a.agent IS NOT DISTINCT FROM c.agent
    ORDER BY c.dt, b.time
"""


def day_charts(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Iterator[tuple[date, str]]:
    """(day, SVG) for every day of the range that has usage."""
    window = days.widened(before=_DAYS_SHOWN)
    lake.view(connection, BASELINES, window)
    lake.view(connection, ANOMALIES, window)
    points = connection.execute(_POINTS, [days.first, days.last]).fetchall()
    for (day, agent, metric), rows in groupby(points, key=lambda row: row[:3]):
        yield day, _chart(day, agent, metric, list(rows))


def _chart(day: date, agent: str | None, metric: str, rows: list[tuple[Any, ...]]) -> str:
    series = {row[3]: row[4:] for row in rows}
    times = [rows[-1][3] - timedelta(days=n) for n in range(_DAYS_SHOWN, -1, -1)]
    unknown = (float("nan"),) * 4 + (None,)
    values = [series.get(time, unknown) for time in times]
    columns = [[float("nan") if value[n] is None else value[n] for value in values] for n in range(4)]
    marks = [(time, value[4]) for time, value in zip(times, values, strict=True) if value[4]]
    title = f"{agent or '(unattributed)'}: {metric} per day, up to {day}"
    observed, expected, lower, upper = columns
    return band_chart_svg(times, observed, expected, lower, upper, marks, title, _UNITS[metric])
