"""Detection over the lake: read the usage of some days and of the look-back, detect, replace the days' results.

Large fleets are judged a share of the agents at a time, so that memory is bounded by the share and not by the fleet; two
shares at once, as arrays and engine let other threads run while they compute. What is ordinary is learned once, for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import duckdb
import pyarrow as pa

from obs_pipeline.detection.calendar import load_calendar
from obs_pipeline.detection.config import AnomalyDetectionConfig, load_detection_config
from obs_pipeline.detection.detect import Detection, Judgement, judge_usage, ordinary_usage, tell
from obs_pipeline.detection.known import NOTHING, Known
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline.storage.engine import load_sql
from obs_pipeline.storage.lake import DayRange, Lake, chunk_days
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY

if TYPE_CHECKING:
    from obs_pipeline.detection.usage_judging import Ordinary

SERIES_AT_ONCE: Final = 500
"""Agents judged in one go: some 250 MB of the hours of nine weeks, for the days of a month. New agents borrow from those
of their share alone, which is plenty; so the size must not depend on how many days are judged."""

DAYS_AT_ONCE: Final = 31
"""Days of a full share judged in one go: fewer cost almost as much, as each go reads the look-back again."""
SHARES_HELD: Final = 5
"""So many full shares of a month are the most whose baselines are held: some 300 MB."""

_SHARES_AT_ONCE: Final = 2
_WHOLES: Final = {"every_hour": USAGE_HOURLY, "every_day": USAGE_DAILY}
_AGENTS_OF_DAYS: Final = "SELECT dt, count(DISTINCT (org, project, agent)) FROM usage_daily GROUP BY dt"
_HEARD: Final = "SELECT DISTINCT source, dt, hour FROM every_hour"
_SERIES: Final = "SELECT DISTINCT org, project, agent FROM every_day ORDER BY ALL"
_OF_THE_SHARE: Final = """
    CREATE TEMP VIEW {view} AS
    SELECT usage.* FROM {whole} AS usage SEMI JOIN share
        ON usage.org IS NOT DISTINCT FROM share.org
        AND usage.project IS NOT DISTINCT FROM share.project
        AND usage.agent IS NOT DISTINCT FROM share.agent
"""

# The first in teaching_order() of those with usage in any span of the look-back.
_TEACHERS: Final = """
    SELECT DISTINCT org, project, agent FROM (
        SELECT *, row_number() OVER (
            PARTITION BY monday ORDER BY md5(concat(
                coalesce(org, chr(30)), chr(31), coalesce(project, chr(30)), chr(31), coalesce(agent, chr(30))
            ))
        ) AS place
        FROM (
            SELECT DISTINCT monday, org, project, agent
            FROM every_day JOIN mondays ON dt BETWEEN monday - {lookback} AND monday - 1
        )
    ) WHERE place <= {teachers} ORDER BY ALL
"""


def settings_in(policies: Path) -> AnomalyDetectionConfig:
    """The settings of ``detection.yaml`` in the folder; the defaults where there is none."""
    path = policies / "detection.yaml"
    return load_detection_config(path) if path.exists() else AnomalyDetectionConfig()


def known_in(policies: Path, ledger: Ledger) -> Known:
    """What people said: ``calendar.yaml`` in the folder, and the standing labels of the ledger."""
    return Known(load_calendar(policies / "calendar.yaml"), tuple(AnomalyLabels(ledger).standing()))


def days_at_once(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> list[DayRange]:
    """The days in pieces that may be judged in one go: of few agents many."""
    lake.view(connection, USAGE_DAILY, days)
    agents = dict(connection.execute(_AGENTS_OF_DAYS).fetchall())
    weights = {day: max(count, SHARES_HELD * min(count, SERIES_AT_ONCE)) for day, count in agents.items()}
    return chunk_days(days, weights, DAYS_AT_ONCE * SHARES_HELD * SERIES_AT_ONCE)


def detect_days(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    days: DayRange,
    config: AnomalyDetectionConfig,
    known: Known = NOTHING,
    now: datetime | None = None,
) -> Detection:
    """Baselines and anomalies of the days, from usage that is already in the lake; written to it, and returned.

    What is not over ``now`` (UTC; None: all is over) is no drop.
    """
    detection = detection_of(connection, lake, days, config, known, now)
    lake.replace(BASELINES, days, lambda _version: detection.baselines)
    lake.replace(ANOMALIES, days, lambda _version: detection.anomalies)
    return detection


def detection_of(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    days: DayRange,
    config: AnomalyDetectionConfig,
    known: Known,
    now: datetime | None = None,
) -> Detection:
    """Baselines and anomalies of the days, from usage that is already in the lake; nothing is written."""
    window = days.widened(before=config.history_days)
    for name, table in _WHOLES.items():
        lake.view(connection, table, window, name=name)
    lake.view(connection, USAGE_EVENTS, days)
    asked = _Asked(days, config, known, now, connection.sql(_HEARD).to_arrow_table())
    shares = _shares(connection)
    ordinary = _ordinary(connection, asked) if len(shares) > 1 else None
    with ThreadPoolExecutor(_SHARES_AT_ONCE) as pool:
        judged = list(pool.map(partial(_judge_share, connection, asked, ordinary), shares))
    return tell(judged, partial(_worst_calls, connection))


class _Asked(NamedTuple):
    """What is judged, and by what; ``heard`` as for :func:`~obs_pipeline.detection.detect.judge_usage`."""

    days: DayRange
    config: AnomalyDetectionConfig
    known: Known
    now: datetime | None
    heard: pa.Table


def _shares(connection: duckdb.DuckDBPyConnection) -> list[pa.Table]:
    """Shares of the agents, about alike in size, in their order."""
    series = connection.sql(_SERIES).to_arrow_table()
    count = -(-series.num_rows // SERIES_AT_ONCE)
    size = -(-series.num_rows // max(count, 1))
    return [series.slice(start, size) for start in range(0, series.num_rows, size or 1)]


def _judge_share(
    connection: duckdb.DuckDBPyConnection, asked: _Asked, ordinary: Ordinary | None, share: pa.Table
) -> Judgement:
    with _usage_of(connection, share) as usage:
        hourly, daily = _read(usage, "series_hourly"), _read(usage, "series_daily")
    days = (asked.days.first, asked.days.last)
    return judge_usage(hourly, daily, days, asked.config, asked.known, asked.heard, asked.now, ordinary)


def _ordinary(connection: duckdb.DuckDBPyConnection, asked: _Asked) -> Ordinary:
    """What is ordinary in the whole fleet, learned from the agents that teach for it."""
    from obs_pipeline.detection.usage_judging import TEACHERS

    config, days = asked.config, asked.days
    mondays = [day for day in days.widened(before=7).days() if day.weekday() == 0]
    with connection.cursor() as cursor:
        cursor.register("mondays", pa.table({"monday": pa.array(mondays, pa.date32())}))
        teachers = cursor.sql(_TEACHERS.format(lookback=config.lookback_days, teachers=TEACHERS)).to_arrow_table()
    with _usage_of(connection, teachers) as usage:
        hourly = _read(usage, "series_hourly")
    return ordinary_usage(hourly, (days.first, days.last), config, asked.known, asked.heard)


@contextmanager
def _usage_of(connection: duckdb.DuckDBPyConnection, share: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """The engine with ``usage_hourly`` and ``usage_daily`` of some agents alone, for one thread."""
    with connection.cursor() as cursor:
        cursor.register("share", share)
        for whole, table in _WHOLES.items():
            cursor.execute(_OF_THE_SHARE.format(view=table.name, whole=whole))
        yield cursor


def _worst_calls(connection: duckdb.DuckDBPyConnection, moments: pa.Table) -> pa.Table:
    connection.register("abnormal_days", moments)
    return _read(connection, "evidence")


def _read(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return connection.sql(load_sql("obs_pipeline.detection", query)).to_arrow_table()
