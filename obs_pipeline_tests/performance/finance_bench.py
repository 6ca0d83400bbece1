"""How fast cost leaves as FOCUS, and how fast it is held against a bill.

``python -m obs_pipeline_tests.performance.finance_bench [--rows N]``: a month of N hourly rows, exported to Parquet; and as many
daily rows, compared with a bill of every seller, project and model on every day. Nothing is asserted. ``bench`` takes the numbers
into its results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

USUAL: Final = 200_000
REPEATS: Final = 3
_PROJECTS: Final = 20
_MODELS: Final = 8
_HOURS: Final = 31 * 24

_USAGE: Final = """
    SELECT CAST(hour AS DATE) AS dt, hour, 'gateway' AS source, 'acme' AS org, concat('p', row_number % $projects) AS project,
        concat('t', row_number % 7) AS team, concat('a', row_number) AS agent, 'openai' AS provider,
        concat('gpt-', row_number % $models) AS model, 'chat' AS operation, 10 AS calls, 0 AS errors,
        1000 AS input_tokens, 200 AS output_tokens, CAST(0.0125 AS DECIMAL(38, 9)) AS cost,
        0 AS unpriced_calls, 0 AS mispriced_calls, 0 AS latency_calls
    FROM (
        SELECT r AS row_number, TIMESTAMP '2026-03-01' + INTERVAL 1 HOUR * (r % $hours) AS hour
        FROM range($rows) AS numbers (r)
    )
"""
_BILL: Final = """
    SELECT dt, 'openai' AS bill, kind, 'openai' AS provider, 'acme' AS org, project, model, 'tokens' AS item,
        CASE WHEN kind = 'usage' THEN 1100 * n END AS input_tokens, CASE WHEN kind = 'usage' THEN 200 * n END AS output_tokens,
        CASE WHEN kind = 'cost' THEN CAST(0.0125 * n AS DECIMAL(38, 9)) END AS amount, 'USD' AS currency,
        CASE WHEN kind = 'cost' THEN CAST(0.0125 * n AS DECIMAL(38, 9)) END AS cost
    FROM (SELECT dt, project, model, count(*) AS n FROM made GROUP BY ALL), (VALUES ('cost'), ('usage')) AS kinds (kind)
"""


@dataclass(frozen=True)
class FinanceSpeed:
    """The fastest of a few: rows a second of each, over so many rows of usage."""

    rows: int
    focus_seconds: float
    focus_rows_per_second: float
    reconcile_seconds: float
    reconcile_rows_per_second: float
    reconciled_lines: int

    def __str__(self) -> str:
        return (
            f"FOCUS: {self.rows:,} charges in {self.focus_seconds:.2f} s, {self.focus_rows_per_second:,.0f} a second\n"
            f"reconcile: {self.rows:,} rows of usage to {self.reconciled_lines:,} lines in {self.reconcile_seconds:.2f} s, "
            f"{self.reconcile_rows_per_second:,.0f} a second"
        )


def finance_speed(rows: int, folder: Path) -> FinanceSpeed:
    """Fill a lake below ``folder`` and measure both."""
    import pyarrow.parquet as pq

    from obs_pipeline.dashboard.focus import FOCUS_SCHEMA, focus_rows, month_of
    from obs_pipeline.storage import engine
    from obs_pipeline.storage.lake import Lake
    from obs_pipeline.usage.billing.reconcile import reconciled
    from obs_pipeline.usage.pricing import PriceBook

    folder.mkdir(exist_ok=True)
    lake, month, prices = Lake(str(folder / "lake")), month_of("2026-03"), PriceBook.load()
    exported, compared = [], []
    with engine.connect() as connection:
        _fill(connection, lake, rows)
        for number in range(REPEATS):
            started = time.monotonic()
            with pq.ParquetWriter(folder / f"focus{number}.parquet", FOCUS_SCHEMA) as writer:
                for batch in focus_rows(connection, lake, month):
                    writer.write_batch(batch)
            exported.append(time.monotonic() - started)
            started = time.monotonic()
            lines = reconciled(connection, lake, month.days, prices, ())
            compared.append(time.monotonic() - started)
    focus, reconcile = min(exported), min(compared)
    return FinanceSpeed(rows, focus, rows / focus, reconcile, rows / reconcile, lines.num_rows)


def _fill(connection: Any, lake: Any, rows: int) -> None:
    """The same usage as hours and as days, and a bill of it that says a tenth more input."""
    from obs_pipeline.usage.tables import BILLED_BUCKETS, USAGE_DAILY, USAGE_HOURLY

    sizes = {"rows": rows, "projects": _PROJECTS, "models": _MODELS, "hours": _HOURS}
    made = connection.sql(_USAGE, params=sizes).to_arrow_table()
    connection.register("made", made)
    bill = connection.sql(_BILL).to_arrow_table()
    for table, found in ((USAGE_HOURLY, made), (USAGE_DAILY, made), (BILLED_BUCKETS, bill)):
        names = [name if name in found.column_names else f"NULL AS {name}" for name in table.schema.names]
        connection.register("found", found)
        lake.append(table, connection.sql(f"SELECT {', '.join(names)} FROM found").to_arrow_table().cast(table.schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=USUAL)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        json.dump(asdict(finance_speed(asked.rows, Path(folder))), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
