"""The rows behind the totals, in pages, as CSV or JSON. ``export_file`` gives all of them as one file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.answers.asking import (
    FILTERS,
    Asking,
    page,
    page_start,
    rows_about,
)

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_COLUMNS: Final = "org, project, team, agent, provider, model"


def export_data(asking: Asking, asked: q.ExportAsked) -> q.Export:
    """The rows behind the totals: one a day, project, team, agent, provider and model."""
    days, about = asking.window(asked.timeframe, asked.end), rows_about(asked, FILTERS)
    start, mark = page_start(asking, asked)
    where, values = about.within(days)
    sums = "count(*) AS found, CAST(coalesce(sum(cost), 0) AS DECIMAL(38, 9)) AS cost"
    (whole,) = asking.reader.rows(f"SELECT {sums} FROM spend_day WHERE {where}", values)
    query, values = exported_rows(asking, asked)
    rows = asking.reader.rows(f"{query} LIMIT {asked.limit} OFFSET {start}", values)
    return q.Export(
        **asking.told(days, about),
        **page(whole["found"], start, len(rows), mark),
        format=asked.format,
        media_type="text/csv" if asked.format == "csv" else "application/json",
        content=as_csv(rows) if asked.format == "csv" else json.dumps(rows, default=_plain, ensure_ascii=False),
        total_cost=whole["cost"],
    )


def exported_rows(asking: Asking, asked: q.ExportAsked) -> tuple[str, Mapping[str, Any]]:
    """The query of every row of an export, and its values."""
    where, values = rows_about(asked, FILTERS).within(asking.window(asked.timeframe, asked.end))
    # The mart's rows of a day are one a place, so nothing needs to be summed.
    query = f"""
        SELECT dt AS day, {_COLUMNS}, cost, calls, errors,
            CAST(coalesce(input_tokens, 0) + coalesce(output_tokens, 0) AS BIGINT) AS tokens,
            CAST(coalesce(saved_tokens, 0) AS BIGINT) AS saved_tokens, unpriced_calls
        FROM spend_day WHERE {where} ORDER BY dt, {_COLUMNS}
    """
    return query, values


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV in which no text can be taken for a formula by a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(rows[0] if rows else [])
    writer.writerows([neutral(value) for value in row.values()] for row in rows)
    return file.getvalue()


def neutral(value: object) -> object:
    """Text that a spreadsheet would compute gets an apostrophe before it; numbers stay numbers."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)
