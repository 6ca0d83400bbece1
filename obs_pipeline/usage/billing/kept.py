"""Bills in the lake: a bill replaces what it said before of the same days, and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Final

import duckdb
import pyarrow as pa

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.billing.lines import Bill
from obs_pipeline.usage.tables import BILLED_BUCKETS

_REPLACED: Final = """
    SELECT p.* FROM present p
    WHERE NOT (p.bill = $bill AND EXISTS (SELECT 1 FROM bill_covers c WHERE c.kind = p.kind AND c.dt = p.dt))
    UNION ALL BY NAME
    SELECT * FROM bill_lines
"""
_COVERS: Final = pa.schema([("kind", pa.string()), ("dt", pa.date32())])


def keep_bill(connection: duckdb.DuckDBPyConnection, lake: Lake, name: str, bill: Bill) -> int:
    """Put a bill in the place of what the bill of that name said of the same days; how many lines it has.

    Keeping the same bill again changes no row.
    """
    if not bill.covers:
        return 0
    days = DayRange(bill.days[0], bill.days[-1])
    rows = [{**asdict(line), "bill": name} for line in bill.lines]
    covers = [{"kind": kind, "dt": day} for kind, day in sorted(bill.covers)]
    connection.register("bill_lines", pa.Table.from_pylist(rows, BILLED_BUCKETS.schema))
    connection.register("bill_covers", pa.Table.from_pylist(covers, _COVERS))
    lake.replace(BILLED_BUCKETS, days, partial(_rows, connection, lake, name, days))
    return len(rows)


def _rows(
    connection: duckdb.DuckDBPyConnection, lake: Lake, name: str, days: DayRange, version: int | None
) -> pa.Table:
    lake.view(connection, BILLED_BUCKETS, days, version=version, name="present")
    columns = ", ".join(BILLED_BUCKETS.schema.names)
    query = f"SELECT {columns} FROM ({_REPLACED}) ORDER BY {', '.join(BILLED_BUCKETS.key)}"
    return connection.sql(query, params={"bill": name}).to_arrow_table()
