"""Detection over the lake: read the usage of some days and of the look-back, detect, replace the days' results."""

from __future__ import annotations

from functools import partial
from pathlib import Path

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
) -> Detection:
    """Baselines and anomalies of the days, from usage that is already in the lake; written to it, and returned."""
    detection = detection_of(connection, lake, days, config, known)
    lake.replace(BASELINES, days, lambda _version: detection.baselines)
    lake.replace(ANOMALIES, days, lambda _version: detection.anomalies)
    return detection


def detection_of(
    connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, config: AnomalyDetectionConfig, known: Known
) -> Detection:
    """Baselines and anomalies of the days, from usage that is already in the lake; nothing is written."""
    window = days.widened(before=config.history_days)
    lake.view(connection, USAGE_HOURLY, window)
    lake.view(connection, USAGE_DAILY, window)
    lake.view(connection, USAGE_EVENTS, days)
    return detect_anomalies(
        hourly=_read(connection, "series_hourly"),
        daily=_read(connection, "series_daily"),
        days=(days.first, days.last),
        config=config,
        evidence=partial(_worst_calls, connection),
        known=known,
    )


def _worst_calls(connection: duckdb.DuckDBPyConnection, moments: pa.Table) -> pa.Table:
    connection.register("abnormal_days", moments)
    return _read(connection, "evidence")


def _read(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return connection.sql(load_sql("obs_pipeline.detection", query)).to_arrow_table()
