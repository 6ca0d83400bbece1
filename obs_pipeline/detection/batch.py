"""Detection over the lake: read the usage of some days and of the look-back, detect, replace the days' results.

Large fleets are judged a share of the agents at a time, so that memory is bounded by the share and not by the fleet.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from obs_pipeline.detection.calendar import load_calendar
from obs_pipeline.detection.config import AnomalyDetectionConfig, load_detection_config
from obs_pipeline.detection.detect import Detection, detect_anomalies
from obs_pipeline.detection.known import NOTHING, Known
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline.storage.engine import load_sql
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY

SERIES_AT_ONCE: Final = 1_000
"""Agents judged in one go: some 500 MB of the hours of nine weeks, for the days of a month. The usage model is calibrated
on each share alone, which is plenty; so the size must not depend on how many days are judged."""

_SERIES: Final = "SELECT DISTINCT org, project, agent FROM usage_daily ORDER BY ALL"
_OF_THE_SHARE: Final = """
    CREATE OR REPLACE TEMP VIEW {view} AS
    SELECT usage.* FROM {whole} AS usage SEMI JOIN share
        ON usage.org IS NOT DISTINCT FROM share.org
        AND usage.project IS NOT DISTINCT FROM share.project
        AND usage.agent IS NOT DISTINCT FROM share.agent
"""


def settings_in(policies: Path) -> AnomalyDetectionConfig:
    """The settings of ``detection.yaml`` in the folder; the defaults where there is none."""
    path = policies / "detection.yaml"
    return load_detection_config(path) if path.exists() else AnomalyDetectionConfig()


def known_in(policies: Path, ledger: Ledger) -> Known:
    """What people said: ``calendar.yaml`` in the folder, and the standing labels of the ledger."""
    return Known(load_calendar(policies / "calendar.yaml"), tuple(AnomalyLabels(ledger).standing()))


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
    lake.view(connection, USAGE_HOURLY, window)
    lake.view(connection, USAGE_DAILY, window)
    lake.view(connection, USAGE_EVENTS, days)
    heard = connection.sql("SELECT DISTINCT source, dt, hour FROM usage_hourly").to_arrow_table()
    parts = [
        detect_anomalies(
            hourly=_read(connection, "series_hourly"),
            daily=_read(connection, "series_daily"),
            days=(days.first, days.last),
            config=config,
            evidence=partial(_worst_calls, connection),
            known=known,
            heard=heard,
            now=now,
        )
        for _ in _shares(connection, lake, window)
    ]
    return Detection(
        pa.concat_tables([part.baselines for part in parts]), pa.concat_tables([part.anomalies for part in parts])
    )


def _shares(connection: duckdb.DuckDBPyConnection, lake: Lake, window: DayRange) -> Iterator[pa.Table]:
    """Shares of the agents, in their order; while one is held, ``usage_hourly`` and ``usage_daily`` show it alone."""
    series = connection.sql(_SERIES).to_arrow_table()
    if series.num_rows <= SERIES_AT_ONCE:
        yield series
        return
    wholes = {USAGE_HOURLY: "every_hour", USAGE_DAILY: "every_day"}
    for table, whole in wholes.items():
        lake.view(connection, table, window, name=whole)
    count = -(-series.num_rows // SERIES_AT_ONCE)
    size = -(-series.num_rows // count)
    for start in range(0, series.num_rows, size):
        share = series.slice(start, size)
        connection.register("share", share)
        for table, whole in wholes.items():
            connection.execute(_OF_THE_SHARE.format(view=table.name, whole=whole))
        yield share


def _worst_calls(connection: duckdb.DuckDBPyConnection, moments: pa.Table) -> pa.Table:
    connection.register("abnormal_days", moments)
    return _read(connection, "evidence")


def _read(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return connection.sql(load_sql("obs_pipeline.detection", query)).to_arrow_table()
