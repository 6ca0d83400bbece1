"""Settling: what whole days of ``usage_events`` must look like, whatever landed in whatever order.

Each (source, event id) once, the others counted as duplicates or quarantined; a call that two sources reported once,
where the provider's response id proves it; calls without a price priced as soon as the price book knows one. A price
that was given stays. Also the proof that nothing was lost on the way.

Reads and rewrites lake tables; no Dagster, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from obs_pipeline.storage.engine import load_sql, one_row
from obs_pipeline.storage.lake import DayRange, Lake, LakeTable
from obs_pipeline.usage.landing import price
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.tables import USAGE_DUPLICATES, USAGE_EVENTS, USAGE_REJECTED
from obs_pipeline.usage.twins import mark_same_calls

ID_REACH_DAYS: Final = 1
"""An event id is compared with those of this many days before, unless told otherwise. The same id further off is another
event to ``settle``: the price of a day's cost not growing with the history."""


_SUSPECTED_HASHES: Final = """
    CREATE OR REPLACE TEMP TABLE suspected_hashes AS
    SELECT id FROM repeated_hashes
    UNION
    SELECT hash(source, event_id) AS id FROM usage_rejected WHERE reason = 'id_conflict'
"""
_SUSPECTS: Final = """
    CREATE OR REPLACE TEMP VIEW suspects AS
    SELECT e.* FROM usage_events e SEMI JOIN suspected_hashes s ON s.id = hash(e.source, e.event_id)
"""
_REJECTED: Final = """
    SELECT p.* FROM present p ANTI JOIN twins t USING (dt, file_id, row_number) WHERE p.reason <> 'id_conflict'
    UNION ALL BY NAME
    SELECT dt, source, event_id, event_time, file_id, row_number, content AS raw, 'counted_already' AS reason,
        concat('Source ', counted_source, ' reports the same call by its response id; it is counted there, as ',
            counted_event_id, '.') AS detail
    FROM twins
    UNION ALL BY NAME
    SELECT dt, source, event_id, event_time, file_id, row_number, content AS raw, 'id_conflict' AS reason,
        concat('The event id ', event_id, ' belongs to an earlier event with other content, which is kept. Shown are the ',
            'fields that were read from row ', row_number, ' of the file ', file_id, '.') AS detail
    FROM verdicts WHERE verdict = 'conflict'
"""
_DUPLICATES: Final = """
    SELECT dt, source, event_id, file_id, row_number FROM present
    UNION
    SELECT dt, source, event_id, file_id, row_number FROM verdicts WHERE verdict = 'duplicate'
"""
_EVENTS: Final = """
    SELECT e.* FROM (
        SELECT p.* FROM present p ANTI JOIN repriced r USING (dt, file_id, row_number)
        UNION ALL BY NAME
        SELECT r.* FROM repriced r SEMI JOIN present p USING (dt, file_id, row_number)
    ) e ANTI JOIN leaving l USING (dt, file_id, row_number)
"""


@dataclass(frozen=True)
class Settled:
    """What settling changed."""

    duplicates: int
    conflicts: int
    newly_priced: int
    same_calls: int = 0

    @property
    def removed(self) -> int:
        """Rows taken out of ``usage_events``; with none, every id of the days stood there once."""
        return self.duplicates + self.conflicts + self.same_calls


@dataclass(frozen=True)
class Leak:
    """A file and day whose rows do not add up."""

    dt: date
    file: str
    rows_in: int
    events: int
    rejected: int
    duplicates: int

    @property
    def missing(self) -> int:
        return self.rows_in - self.events - self.rejected - self.duplicates

    def __str__(self) -> str:
        return (
            f"{self.dt} {self.file}: {self.rows_in:,} rows in, but {self.events:,} events + {self.rejected:,} rejected "
            f"+ {self.duplicates:,} duplicates"
        )


def settle(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    days: DayRange,
    prices: PriceBook,
    price_tolerance: float,
    reach_days: int = ID_REACH_DAYS,
) -> Settled:
    """Bring days into their settled form. Doing it again changes nothing; being killed half-way loses nothing.

    ``reach_days`` (at least 1) is how many days back an id is looked for; the work grows with it.
    """
    lake.view(connection, USAGE_EVENTS, days.widened(before=reach_days))
    lake.view(connection, USAGE_REJECTED, days.widened(before=reach_days))
    connection.execute(f"CREATE OR REPLACE TEMP TABLE id_reach AS SELECT INTERVAL {reach_days} DAY AS days")
    _judge_repeated(connection, days)
    _mark_leaving(connection)
    same_calls = mark_same_calls(connection, days)
    connection.execute(
        "INSERT INTO leaving BY NAME SELECT dt, source, event_id, event_time, file_id, row_number, content, "
        "'same call' AS verdict FROM twins"
    )
    newly_priced = _price_again(connection, lake, days, prices, price_tolerance)
    first, last = one_row(
        connection, "SELECT min(dt), max(dt) FROM (SELECT dt FROM leaving UNION ALL SELECT dt FROM repriced)"
    )
    if first is None:
        return Settled(0, 0, 0)
    _rewrite(connection, lake, DayRange(first, last))
    duplicates, conflicts = one_row(
        connection,
        "SELECT count(*) FILTER (verdict = 'duplicate'), count(*) FILTER (verdict = 'conflict') FROM leaving",
    )
    return Settled(duplicates, conflicts, newly_priced, same_calls)


def _judge_repeated(connection: duckdb.DuckDBPyConnection, days: DayRange) -> None:
    """A verdict on each of the days' rows whose id may stand twice, in a table ``verdicts``.

    Few ids do. They are found among hashes, which sort in a fraction of the time and memory that grouping the ids takes;
    only the rows of a hash that stands twice are compared by their ids.
    """
    hashes = connection.sql("SELECT hash(source, event_id) AS id FROM usage_events").to_arrow_table()["id"].to_numpy()
    ordered = np.sort(hashes)
    connection.register("repeated_hashes", pa.table({"id": ordered[1:][ordered[1:] == ordered[:-1]]}))
    connection.execute(_SUSPECTED_HASHES)
    connection.execute(_SUSPECTS)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE verdicts AS "
        f"SELECT * FROM ({load_sql('obs_pipeline.usage', 'superseded')}) WHERE dt >= ?",
        [days.first],
    )


def _mark_leaving(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE leaving AS SELECT v.* FROM verdicts v "
        "SEMI JOIN usage_events e ON e.dt = v.dt AND e.file_id = v.file_id AND e.row_number = v.row_number "
        "WHERE v.verdict <> 'kept'"
    )


def _price_again(
    connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, prices: PriceBook, tolerance: float
) -> int:
    """Price the days' calls that had no price, in a table ``repriced``; how many have one now."""
    connection.register("repriced_schema", USAGE_EVENTS.schema.empty_table())
    connection.execute("CREATE OR REPLACE TEMP TABLE repriced AS SELECT * FROM repriced_schema")
    unpriced = connection.sql(
        "SELECT * EXCLUDE (list_cost, cost, cost_bound, cost_source, price_ratio, mispriced, price_version) "
        f"FROM usage_events WHERE cost_source = 'unpriced' AND dt >= '{days.first}'"
    ).to_arrow_table()
    if unpriced.num_rows == 0:
        return 0
    priced = price(connection, unpriced, prices, tolerance)
    connection.register("priced_again", priced)
    connection.execute("INSERT INTO repriced SELECT * FROM priced_again WHERE cost_source <> 'unpriced'")
    return int(one_row(connection, "SELECT count(*) FROM repriced")[0])


def _rewrite(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """Quarantine first, events last: killed in between, the rows are still there and settle the same way again."""
    for table, query in (
        (USAGE_REJECTED, _REJECTED),
        (USAGE_DUPLICATES, _DUPLICATES),
        (USAGE_EVENTS, _EVENTS),
    ):
        lake.replace(table, days, partial(_settled_rows, connection, lake, table, query, days))


def _settled_rows(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    table: LakeTable,
    query: str,
    days: DayRange,
    version: int | None,
) -> duckdb.DuckDBPyRelation:
    lake.view(connection, table, days, version=version, name="present")
    columns = ", ".join(table.schema.names)
    return connection.sql(
        f"SELECT {columns} FROM ({query}) WHERE dt BETWEEN DATE '{days.first}' AND DATE '{days.last}'"
    )


def leaks(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, landed: list[Any]) -> list[Leak]:
    """Files and days where rows in ≠ events + rejected + duplicates.

    ``landed`` are the ledger's rows (file_id, source, name, dt, rows_read, …): what the reader counted before anything
    was written. Rows of a file that is still being landed are not judged.
    """
    for table in (USAGE_EVENTS, USAGE_REJECTED, USAGE_DUPLICATES):
        lake.view(connection, table, days)
    expected = pa.table(
        {
            "file_id": pa.array([row.file_id for row in landed], pa.string()),
            "name": pa.array([row.name for row in landed], pa.string()),
            "dt": pa.array([row.dt for row in landed], pa.date32()),
            "rows_in": pa.array([row.rows_read for row in landed], pa.int64()),
        }
    )
    connection.register("landed_rows", expected)
    found = connection.execute(load_sql("obs_pipeline.usage", "conservation")).fetchall()
    return [Leak(*row) for row in found]
