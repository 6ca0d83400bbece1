"""Small usage files with known content, in the columns of the canonical mapping."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from obs_pipeline.storage.lake import Lake, LakeTable
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.event import TIME
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.sources.mapping import load_mapping

MONDAY = datetime(2026, 3, 2)
_MODELS = (("openai", "gpt-4o"), ("anthropic", "claude-3-5-sonnet-20241022"), ("openai", "house-model-7"))


def usage_rows(days: int, per_day: int = 24, *, start: datetime = MONDAY, agents: int = 2) -> list[dict[str, Any]]:
    """``per_day`` calls a day in turn by each agent, with costs, errors, latencies and some values missing."""
    rows = []
    for number in range(days * per_day):
        provider, model = _MODELS[number % len(_MODELS)]
        rows.append(
            {
                "event_id": f"call-{start:%y%m%d}-{number}",
                "event_time": (start + timedelta(minutes=number * 1440 // per_day, seconds=number % 60)).isoformat(),
                "source": "gateway",
                "org": "acme",
                "project": "atlas" if number % 3 else None,
                "team": "core",
                "agent": f"agent-{number % agents}",
                "user_id": f"user-{number % 5}",
                "provider": provider,
                "model": model,
                "operation": "chat",
                "input_tokens": 100 + number * 7 % 1000,
                "cache_read_tokens": number % 50 if number % 2 else None,
                "output_tokens": 10 + number * 3 % 200,
                "reported_cost": f"0.{number % 97 + 1:09d}" if number % 4 else None,
                "latency_ms": 50.0 + number * 37 % 4000 if number % 7 else None,
                "error_type": "timeout" if number % 11 == 0 else None,
            }
        )
    return rows


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({name: value for name, value in row.items() if value is not None}) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pyarrow.csv.write_csv(pa.Table.from_pylist(list(rows)), path)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(list(rows))
    times = pa.array([datetime.fromisoformat(row["event_time"]) for row in rows], TIME)
    table = table.set_column(table.schema.get_field_index("event_time"), "event_time", times)
    pyarrow.parquet.write_table(table, path)
    return path


def landed_lake(folder: Path, connection: duckdb.DuckDBPyConnection, rows: Sequence[dict[str, Any]]) -> Lake:
    """A lake into which one file of these rows was landed and nothing else was done."""
    lake, ledger = Lake(str(folder / "lake")), Ledger(f"sqlite:///{folder / 'ledger.db'}")
    landing = Landing(lake, ledger, PriceBook.load(None), connection, folder / "scratch", date(2020, 1, 1))
    landing.land(write_jsonl(folder / "usage.jsonl", rows), load_mapping("canonical"), now=MONDAY + timedelta(days=400))
    ledger.close()
    return lake


def rows_of(connection: duckdb.DuckDBPyConnection, lake: Lake, table: LakeTable) -> list[dict[str, Any]]:
    """A table as Python rows."""
    lake.view(connection, table)
    found: list[dict[str, Any]] = (
        connection.sql(f"SELECT * FROM {table.name} ORDER BY ALL").to_arrow_table().to_pylist()
    )
    return found
