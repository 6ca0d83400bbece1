"""Usage by series as small tables, the way detection receives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from obs_pipeline.usage import latency

MONEY = pa.decimal128(38, 9)
COLUMNS: dict[str, pa.DataType] = {
    "dt": pa.date32(),
    "hour": pa.timestamp("us"),
    "source": pa.string(),
    "org": pa.string(),
    "project": pa.string(),
    "agent": pa.string(),
    "calls": pa.int64(),
    "errors": pa.int64(),
    "input_tokens": pa.int64(),
    "output_tokens": pa.int64(),
    "cost": MONEY,
    "mispriced_calls": pa.int64(),
    "overcharge": MONEY,
    "overcharged_list_cost": MONEY,
    "latency_calls": pa.int64(),
    "latency_histogram": latency.HISTOGRAM,
}
DEFAULTS: dict[str, Any] = {
    "source": "s",
    "org": "o",
    "project": "p",
    "agent": "a",
    "calls": 1,
    "errors": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "cost": 0,
    "mispriced_calls": 0,
    "overcharge": None,
    "overcharged_list_cost": None,
    "latency_calls": 0,
    "latency_histogram": None,
}


def row(hour: datetime, **values: Any) -> dict[str, Any]:
    """One row of an hour; ``latency_ms`` gives all its calls the same latency."""
    filled = {**DEFAULTS, "dt": hour.date(), "hour": hour, **values}
    if (ms := filled.pop("latency_ms", None)) is not None:
        filled["latency_calls"] = filled["calls"]
        filled["latency_histogram"] = latency.pack(latency.bucket_of([ms]), [filled["calls"]]).tolist()
    for money in ("cost", "overcharge", "overcharged_list_cost"):
        if filled[money] is not None:
            filled[money] = Decimal(str(filled[money]))
    return filled


def hourly(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    listed = [dict(one) for one in rows]
    return pa.table({name: pa.array([one[name] for one in listed], kind) for name, kind in COLUMNS.items()})


def daily(hours: pa.Table) -> pa.Table:
    """The rows of days. Several of one day and series are as good as their sum."""
    return hours.drop_columns(["hour"])
