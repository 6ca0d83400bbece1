"""Calls and bills as tests write them down: one line each, the rest as it usually is."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from obs_pipeline.storage.lake import Lake
from obs_pipeline.usage.billing.kept import keep_bill
from obs_pipeline.usage.billing.lines import BillLine, LineKind, bill_of
from obs_pipeline.usage.currencies import RateBook
from obs_pipeline.usage.tables import USAGE_DAILY

DAY = date(2026, 3, 1)


def calls(cost: str | Decimal, tokens: tuple[int | None, int | None] = (800, 200), **changed: Any) -> dict[str, Any]:
    """A row of the daily table: what it cost, its input and output tokens."""
    row: dict[str, Any] = dict.fromkeys(USAGE_DAILY.schema.names) | {
        "dt": DAY,
        "source": "gateway",
        "org": "acme",
        "project": "atlas",
        "provider": "openai",
        "model": "gpt-4o",
        "calls": 10,
        "errors": 0,
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "cost": Decimal(cost),
        "unpriced_calls": 0,
        "mispriced_calls": 0,
        "latency_calls": 0,
    }
    return row | changed


def charged(cost: str | Decimal, model: str | None = "gpt-4o", **changed: Any) -> BillLine:
    """A line of a bill that charges dollars."""
    line = {"dt": DAY, "kind": "cost", "provider": "openai", "model": model, "item": "tokens"}
    return BillLine(**{**line, "amount": Decimal(cost), "currency": "USD", **changed})  # type: ignore[arg-type]


def used(input_tokens: int, output_tokens: int, model: str | None = "gpt-4o", **changed: Any) -> BillLine:
    """A line of a bill that says how much was used."""
    line = {"dt": DAY, "kind": "usage", "provider": "openai", "model": model, "item": "completions"}
    return BillLine(**{**line, "input_tokens": input_tokens, "output_tokens": output_tokens, **changed})  # type: ignore[arg-type]


def a_lake(folder: Path, rows: Iterable[dict[str, Any]]) -> Lake:
    lake = Lake(str(folder / "lake"))
    lake.append(USAGE_DAILY, pa.Table.from_pylist(list(rows), USAGE_DAILY.schema))
    return lake


def keep(
    connection: duckdb.DuckDBPyConnection, lake: Lake, lines: Iterable[BillLine], name: str = "openai", **named: Any
) -> None:
    """Keep a bill of the days and kinds that its lines are of."""
    found = list(lines)
    covers: set[tuple[LineKind, date]] = {(line.kind, line.dt) for line in found}
    keep_bill(connection, lake, name, bill_of(found, covers, "openai", rates=RateBook(), **named))
