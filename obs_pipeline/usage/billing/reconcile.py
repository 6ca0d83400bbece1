"""Reconciliation: what was captured against what is billed, by day, project and model, and why the two differ.

Here: the comparison as SQL over ``usage_daily`` and ``billed_buckets``, and which days are too far apart. No files, no clock.

What is compared
----------------
- The days and sellers that some bill states charges for, and no others: a day without a bill is unknown, not free. Where a bill
  is of one organisation, only the calls of that one.
- Models by their seller's name, aliases followed, without the date of the snapshot. Organisations are told apart on a day if
  every bill of it names one, projects if a bill names at least one that calls name too.

The terms of a gap, ``billed - captured``
-----------------------------------------
Captured tokens are worth what the bill asks for them: for input and for output, what was charged for those tokens of the line by
the number of them, and where a charge is not for one of the two, by all tokens.

- ``missing``: billed tokens that were not captured, at that price; without captured calls, all that was billed.
- ``surplus``: captured tokens that were not billed, at that price, below zero; without a bill for the line, all of it.
- ``late``: both of them on days that calls or corrections of the bill may still change.
- ``unpriced``: of the rest, what calls without a price can come to, by their bound.
- ``mispriced``: the rest, where both sides know the tokens: the same tokens at another price.
- ``unexplained``: the rest, where the bill does not say how much was used.

Exactness: whole nano-dollars; the terms of every line come to its gap to the last one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any, Final, Literal

import duckdb
import pyarrow as pa

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.billing.configured import Tolerance
from obs_pipeline.usage.model_names import without_snapshot
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.tables import BILLED_BUCKETS, RECONCILIATION, USAGE_DAILY

By = Literal["day", "project", "model"]
TERMS: Final = ("missing", "surplus", "late", "unpriced", "mispriced", "unexplained")
_MONEY: Final = ("captured", "billed", "gap", *TERMS)
_NAMES: Final = pa.schema(
    [("said_provider", pa.string()), ("said_model", pa.string()), ("provider", pa.string()), ("model", pa.string())]
)
_SAID: Final = """
    SELECT DISTINCT provider, model FROM usage_daily UNION SELECT DISTINCT provider, model FROM billed_buckets
"""


def _nanos(amount: str) -> str:
    return f"CAST({amount} * 1000000000 AS HUGEINT)"


def _dollars(nanos: str) -> str:
    return f"CAST(CAST({nanos} AS DECIMAL(27, 0)) * CAST('0.000000001' AS DECIMAL(9, 9)) AS DECIMAL(38, 9))"


def _worth(charged: str, billed: str, captured: str) -> str:
    """What captured tokens are worth by the bill; a charge for no tokens goes with the calls of its line."""
    return (
        f"CASE WHEN {billed} > 0 THEN ({charged} * ({captured})) // ({billed}) WHEN calls > 0 THEN {charged} ELSE 0 END"
    )


_LINES: Final = f"""
WITH bill AS (
    SELECT b.dt, n.provider, b.org, b.project, n.model, b.kind, b.meter,
        coalesce(b.input_tokens, 0) AS input_tokens, coalesce(b.output_tokens, 0) AS output_tokens,
        {_nanos("coalesce(b.cost, 0)")} AS charged
    FROM billed_buckets b
    JOIN model_names n ON n.said_provider IS NOT DISTINCT FROM b.provider AND n.said_model IS NOT DISTINCT FROM b.model
),
covered AS (
    SELECT dt, provider, org FROM bill WHERE kind = 'cost' GROUP BY ALL
),
said AS (
    SELECT dt, provider, bool_and(org IS NOT NULL) AS by_org, bool_or(kind = 'usage') AS tokens_known
    FROM bill GROUP BY ALL HAVING bool_or(kind = 'cost')
),
calls AS (
    SELECT d.dt, n.provider, d.org, d.project, n.model, d.calls,
        coalesce(d.input_tokens, 0) AS input_tokens, coalesce(d.output_tokens, 0) AS output_tokens,
        {_nanos("d.cost")} AS cost, {_nanos("coalesce(d.cost_bound, 0)")} AS bound
    FROM usage_daily d
    JOIN model_names n ON n.said_provider IS NOT DISTINCT FROM d.provider AND n.said_model IS NOT DISTINCT FROM d.model
    WHERE EXISTS (
        SELECT 1 FROM covered c WHERE c.dt = d.dt AND c.provider = n.provider AND (c.org IS NULL OR c.org = d.org)
    )
),
shared_projects AS (
    SELECT DISTINCT b.dt, b.provider FROM bill b JOIN calls c USING (dt, provider, project)
),
told AS (
    SELECT said.*, shared_projects.dt IS NOT NULL AS by_project
    FROM said LEFT JOIN shared_projects USING (dt, provider)
),
captured AS (
    SELECT dt, provider, CASE WHEN by_org THEN org END AS org, CASE WHEN by_project THEN project END AS project, model,
        CAST(sum(calls) AS HUGEINT) AS calls,
        CAST(sum(input_tokens) AS HUGEINT) AS input_captured, CAST(sum(output_tokens) AS HUGEINT) AS output_captured,
        CAST(sum(cost) AS HUGEINT) AS captured, CAST(sum(bound) AS HUGEINT) AS bound
    FROM calls JOIN told USING (dt, provider)
    GROUP BY ALL
),
billed AS (
    SELECT dt, provider, CASE WHEN by_org THEN org END AS org, CASE WHEN by_project THEN project END AS project, model,
        CAST(sum(charged) AS HUGEINT) AS billed,
        CAST(coalesce(sum(charged) FILTER (meter IN ('input', 'cache_read', 'cache_write')), 0) AS HUGEINT) AS for_input,
        CAST(coalesce(sum(charged) FILTER (meter = 'output'), 0) AS HUGEINT) AS for_output,
        CAST(sum(input_tokens) AS HUGEINT) AS input_billed, CAST(sum(output_tokens) AS HUGEINT) AS output_billed
    FROM bill JOIN told USING (dt, provider)
    GROUP BY ALL
),
facing AS (
    SELECT
        coalesce(c.dt, b.dt) AS dt, coalesce(c.provider, b.provider) AS provider, coalesce(c.org, b.org) AS org,
        coalesce(c.project, b.project) AS project, coalesce(c.model, b.model) AS model,
        coalesce(calls, 0) AS calls, coalesce(captured, 0) AS captured, coalesce(bound, 0) AS bound,
        coalesce(input_captured, 0) AS input_captured, coalesce(output_captured, 0) AS output_captured,
        b.dt IS NOT NULL AS has_bill, coalesce(billed, 0) AS billed,
        coalesce(for_input, 0) AS for_input, coalesce(for_output, 0) AS for_output,
        coalesce(billed, 0) - coalesce(for_input, 0) - coalesce(for_output, 0) AS for_both,
        coalesce(input_billed, 0) AS input_billed, coalesce(output_billed, 0) AS output_billed
    FROM captured c
    FULL OUTER JOIN billed b
        ON b.dt = c.dt AND b.provider = c.provider AND b.org IS NOT DISTINCT FROM c.org
        AND b.project IS NOT DISTINCT FROM c.project AND b.model IS NOT DISTINCT FROM c.model
),
worth AS (
    SELECT *, facing.dt IN (SELECT dt FROM provisional) AS provisional,
        billed - captured AS gap,
        tokens_known AND calls > 0 AND input_billed + output_billed > 0
            AND input_captured + output_captured > 0 AS tokens_compare,
        for_input - ({_worth("for_input", "input_billed", "input_captured")}) AS off_input,
        for_output - ({_worth("for_output", "output_billed", "output_captured")}) AS off_output,
        for_both - ({_worth("for_both", "input_billed + output_billed", "input_captured + output_captured")}) AS off_both
    FROM facing JOIN told USING (dt, provider)
),
volume AS (
    SELECT *,
        greatest(off_input, 0) + greatest(off_output, 0) + greatest(off_both, 0) AS not_captured,
        CASE WHEN has_bill THEN least(off_input, 0) + least(off_output, 0) + least(off_both, 0)
             ELSE -captured END AS not_billed
    FROM worth
),
priced AS (
    SELECT *, gap - not_captured - not_billed AS beyond,
        least(greatest(gap - not_captured - not_billed, 0), bound) AS unpriced
    FROM volume
)
SELECT
    dt, org, provider, project, model, provisional,
    CAST(calls AS BIGINT) AS calls,
    CAST(input_captured + output_captured AS BIGINT) AS captured_tokens,
    CASE WHEN tokens_known THEN CAST(input_billed + output_billed AS BIGINT) END AS billed_tokens,
    {_dollars("captured")} AS captured,
    {_dollars("billed")} AS billed,
    {_dollars("gap")} AS gap,
    {_dollars("CASE WHEN provisional THEN 0 ELSE not_captured END")} AS missing,
    {_dollars("CASE WHEN provisional THEN 0 ELSE not_billed END")} AS surplus,
    {_dollars("CASE WHEN provisional THEN not_captured + not_billed ELSE 0 END")} AS late,
    {_dollars("unpriced")} AS unpriced,
    {_dollars("CASE WHEN tokens_compare THEN beyond - unpriced ELSE 0 END")} AS mispriced,
    {_dollars("CASE WHEN tokens_compare THEN 0 ELSE beyond - unpriced END")} AS unexplained
FROM priced
WHERE calls > 0 OR billed <> 0 OR captured <> 0 OR input_billed + output_billed > 0
ORDER BY dt, provider, org NULLS LAST, project NULLS LAST, model NULLS LAST
"""

_OUTSIDE: Final = """
    SELECT dt, provider, sum(billed) AS billed, sum(captured) AS captured, sum(gap) - sum(late) AS off
    FROM reconciliation_lines GROUP BY dt, provider
    HAVING abs(sum(gap) - sum(late)) > greatest(CAST($usd AS DECIMAL(18, 9)), CAST($share AS DECIMAL(18, 9)) * abs(sum(billed)))
    ORDER BY abs(sum(gap) - sum(late)) DESC, dt, provider
"""


def reconciled(
    connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, prices: PriceBook, provisional: Iterable[date]
) -> pa.Table:
    """The lines of some days as ``RECONCILIATION``, in order.

    ``provisional``: the days that late calls, or corrections of a bill, may still change.
    """
    lake.view(connection, BILLED_BUCKETS, days)
    lake.view(connection, USAGE_DAILY, days)
    connection.register("model_names", _model_names(connection, prices))
    connection.register("provisional", pa.table({"dt": pa.array(sorted(set(provisional)), pa.date32())}))
    columns = ", ".join(RECONCILIATION.schema.names)
    return connection.sql(f"SELECT {columns} FROM ({_LINES})").to_arrow_table().cast(RECONCILIATION.schema)


def build_reconciliation(
    connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, prices: PriceBook, provisional: Iterable[date]
) -> pa.Table:
    """Keep the lines of some days in the lake; the lines."""
    lines = reconciled(connection, lake, days, prices, provisional)
    if lines.num_rows or lake.rows_per_day(RECONCILIATION, days):
        lake.replace(RECONCILIATION, days, lambda _version: lines)
    return lines


def summed(connection: duckdb.DuckDBPyConnection, lines: pa.Table, by: By) -> list[dict[str, Any]]:
    """Lines summed to days, projects or models of each seller; the widest gap first, days in order."""
    column = {"day": "dt", "project": "project", "model": "model"}[by]
    connection.register("reconciliation_lines", lines)
    sums = ", ".join(f"CAST(sum({name}) AS DECIMAL(38, 9)) AS {name}" for name in _MONEY)
    order = "dt" if by == "day" else "abs(sum(gap)) DESC"
    query = f"""
        SELECT {column} AS {by}, provider, CAST(sum(calls) AS BIGINT) AS calls, bool_or(provisional) AS provisional, {sums}
        FROM reconciliation_lines GROUP BY {column}, provider ORDER BY {order}, {column} NULLS LAST, provider
    """
    found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    return found


def outside_tolerance(
    connection: duckdb.DuckDBPyConnection, lines: pa.Table, tolerance: Tolerance
) -> list[dict[str, Any]]:
    """The days and sellers whose gap, less what is late, is more than is tolerated; the worst first."""
    connection.register("reconciliation_lines", lines)
    asked = {"usd": str(tolerance.usd), "share": str(tolerance.share)}
    found: list[dict[str, Any]] = connection.sql(_OUTSIDE, params=asked).to_arrow_table().to_pylist()
    return found


def terms_come_to_the_gap(connection: duckdb.DuckDBPyConnection, lines: pa.Table) -> list[dict[str, Any]]:
    """The lines whose terms do not come to their gap, or whose gap is not billed less captured: there is none."""
    connection.register("reconciliation_lines", lines)
    wrong = f"gap <> {' + '.join(TERMS)} OR gap <> billed - captured"
    found: list[dict[str, Any]] = (
        connection.sql(f"FROM reconciliation_lines WHERE {wrong}").to_arrow_table().to_pylist()
    )
    return found


def _model_names(connection: duckdb.DuckDBPyConnection, prices: PriceBook) -> pa.Table:
    """Every seller and model as calls and bills say it, and as it is compared."""
    rows = []
    for provider, model in connection.execute(_SAID).fetchall():
        ref = prices.resolve(provider, model or "")
        name = without_snapshot(ref.name) or None
        rows.append({"said_provider": provider, "said_model": model, "provider": ref.seller, "model": name})
    return pa.Table.from_pylist(rows, _NAMES)
