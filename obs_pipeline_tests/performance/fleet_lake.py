"""A made-up fleet as a lake holds it, so that the whole detection can be asked about it.

Holds the way from arrays to hourly and daily usage, and the fleet's incidents in the terms of ``backtest``. The fleets
themselves are in ``fleets``.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from obs_pipeline.detection.backtest import Incident
from obs_pipeline.storage.engine import connect
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage import latency
from obs_pipeline.usage.aggregates import build_daily
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_HOURLY
from obs_pipeline_tests.performance.fleets import Fleet

DOLLARS: Final = 20.0
"""What a unit of a fleet's cost is taken for, so that most of its agents are worth an alarm."""

TOKENS_A_DOLLAR: Final = 200_000.0
_MONEY: Final = pa.decimal128(38, 9)


def write(fleet: Fleet, folder: Path, start: date) -> Lake:
    """A lake with the hours and days of the fleet from ``start`` on (UTC), and no events."""
    lake = Lake(str(folder))
    hours = fleet.calls.shape[1]
    days = DayRange(start, start + timedelta(days=hours // 24 - 1))
    rows = _hours(fleet, start)
    lake.replace(USAGE_HOURLY, days, lambda _version: rows)
    lake.replace(USAGE_EVENTS, days, lambda _version: USAGE_EVENTS.schema.empty_table())
    with connect() as connection:
        build_daily(connection, lake, days)
    return lake


def incidents(fleet: Fleet, start: date) -> list[Incident]:
    """What is wrong with the fleet, in time."""
    first = datetime.combine(start, datetime.min.time())
    return [
        Incident(
            ("acme", _project(one.agent), _agent(one.agent)),
            first + timedelta(hours=one.start),
            first + timedelta(hours=one.end),
            one.kind,
        )
        for one in fleet.incidents
    ]


def _agent(number: int) -> str:
    return f"agent-{number:03}"


def _project(number: int) -> str:
    return f"project-{number % 5}"


def _hours(fleet: Fleet, start: date) -> pa.Table:
    agent, tick = np.nonzero(np.nan_to_num(fleet.calls) > 0)
    calls = fleet.calls[agent, tick].astype(np.int64)
    cost = pa.array(np.round(fleet.values["cost"][agent, tick] * DOLLARS, 6)).cast(_MONEY)
    # Tokens scatter as costs do, and half of it by themselves.
    own = np.random.default_rng(len(fleet.incidents)).gamma(np.maximum(calls, 1) * 1.5) / 1.5
    usual = np.sqrt(fleet.values["cost"][agent, tick] * own * fleet.truth.unit_cost[agent, tick])
    tokens = (usual * DOLLARS * TOKENS_A_DOLLAR).astype(np.int64)
    buckets = latency.bucket_of(fleet.values["latency"][agent, tick])
    first = np.datetime64(start, "h")
    moments = first + tick.astype("timedelta64[h]")
    size = agent.size
    nothing = pa.array(np.zeros(size, dtype=np.int64))
    free = pa.array(np.zeros(size)).cast(_MONEY)
    known = {
        "dt": pa.array(moments.astype("datetime64[D]")),
        "hour": pa.array(moments.astype("datetime64[us]")),
        "source": pa.array(["gateway"] * size),
        "org": pa.array(["acme"] * size),
        "project": pa.array([_project(one) for one in agent.tolist()]),
        "team": pa.nulls(size, pa.string()),
        "agent": pa.array([_agent(one) for one in agent.tolist()]),
        "provider": pa.array(["openai"] * size),
        "model": pa.array(["gpt-4o"] * size),
        "operation": pa.array(["chat"] * size),
        "calls": pa.array(calls),
        "errors": pa.array(fleet.values["errors"][agent, tick].astype(np.int64)),
        "input_tokens": pa.array(tokens),
        "cost": cost,
        "list_cost": cost,
        "latency_calls": pa.array(calls),
        "latency_histogram": pa.array(
            [latency.pack([bucket], [count]).tolist() for bucket, count in zip(buckets, calls, strict=True)]
        ),
    }
    columns = {
        field.name: known.get(field.name, free if pa.types.is_decimal(field.type) else nothing)
        for field in USAGE_HOURLY.schema
    }
    return pa.table(columns).cast(USAGE_HOURLY.schema)
