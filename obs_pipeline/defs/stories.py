"""Metadata: what Dagster's page says of a table and of each of its days. Only presentation."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

import dagster as dg
import duckdb

from obs_pipeline.defs.column_words import word_of
from obs_pipeline.storage.lake import DayRange, Lake, LakeTable

_ROWS_SHOWN: Final = 5
_AT_A_GLANCE: Final = 1000
"""Longer markdown is hidden behind a click."""


def column_schema(table: LakeTable) -> dg.TableSchema:
    """A table's columns as Dagster shows them, each with its meaning."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                str(field.type),
                description=word_of(table.name, field.name),
                constraints=dg.TableColumnConstraints(nullable=field.nullable),
            )
            for field in table.schema
        ]
    )


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A small table. Bars and line breaks in the data are escaped, so that data stays data."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def at_a_glance(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """As many of the first rows as Dagster's page shows without a click, but at least one."""
    shown = len(rows)
    while shown > 1 and len(markdown_table(columns, rows[:shown])) >= _AT_A_GLANCE:
        shown -= 1
    return markdown_table(columns, rows[:shown])


def picture(svg: str, alternative: str) -> dg.MarkdownMetadataValue:
    """An SVG as an image inside markdown."""
    encoded = base64.b64encode(svg.encode()).decode()
    return dg.MetadataValue.md(f"![{alternative}](data:image/svg+xml;base64,{encoded})")


def tell_days(
    context: dg.AssetExecutionContext,
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    table: LakeTable,
    days: DayRange,
    top: str,
) -> dict[str, Any]:
    """Add to every day its row count and a few telling rows; answer with the metadata of the whole run.

    ``top`` is a query over the table (all days of the run are visible) whose first column is ``dt`` and whose rows are
    in order of interest; each day shows its first few.
    """
    counts = lake.rows_per_day(table, days)
    lake.view(connection, table, days)
    found = connection.execute(f"SELECT * FROM ({top}) QUALIFY row_number() OVER (PARTITION BY dt) <= {_ROWS_SHOWN}")
    columns = [column[0] for column in found.description or []][1:]
    rows: dict[date, list[tuple[Any, ...]]] = {}
    for row in found.fetchall():
        rows.setdefault(row[0], []).append(row[1:])
    for day in days.days():
        metadata: dict[str, Any] = {"dagster/partition_row_count": counts.get(day, 0)}
        if day in rows:
            metadata["rows"] = dg.MetadataValue.md(at_a_glance(columns, rows[day]))
        context.add_asset_metadata(metadata, asset_key=table.name, partition_key=day.isoformat())
    return {
        "days": str(days),
        "rows_in_run": sum(counts.values()),
        "table_version": lake.version(table) or 0,
        "table_uri": dg.MetadataValue.path(lake.uri(table)),
    }


def _cell(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Decimal):
        text = f"{value:,f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")[:600]
