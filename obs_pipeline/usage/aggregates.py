"""usage_events → usage_hourly → usage_daily, for a range of days at a time. The sums are SQL beside this module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import duckdb
import pyarrow as pa

from obs_pipeline.storage.engine import load_sql
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage import latency
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_EVENTS, USAGE_HOURLY

_ROWS_AT_ONCE: Final = 65_536
_HISTOGRAM: Final = USAGE_HOURLY.schema.get_field_index("latency_histogram")


def build_hourly(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """Sum the days' events to hours."""
    lake.view(connection, USAGE_EVENTS, days)
    lake.replace(USAGE_HOURLY, days, lambda _version: hourly_rows(connection))


def build_daily(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """Sum the days' hours to days."""
    lake.derive(connection, USAGE_DAILY, days, load_sql("obs_pipeline.usage", "daily"), {USAGE_HOURLY: days})


def hourly_rows(connection: duckdb.DuckDBPyConnection) -> pa.RecordBatchReader:
    """The view ``usage_events`` summed to hours, each hour's latencies counted by bucket."""
    columns = ", ".join(USAGE_HOURLY.schema.names).replace("latency_histogram", "latency_buckets")
    query = load_sql("obs_pipeline.usage", "hourly")
    summed = connection.sql(f"SELECT {columns} FROM ({query})").to_arrow_reader(_ROWS_AT_ONCE)
    schema = summed.schema.set(_HISTOGRAM, USAGE_HOURLY.schema.field(_HISTOGRAM))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in summed:
            histograms = latency.histograms_of(batch.column(_HISTOGRAM))
            yield batch.set_column(_HISTOGRAM, schema.field(_HISTOGRAM), histograms)

    return pa.RecordBatchReader.from_batches(schema, batches())
