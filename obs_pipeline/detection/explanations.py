"""Anomalies taken apart, from the lake: what is asked of the engine, and its answer as splits with likely causes.

One query for any number of anomalies. Holds the reading; the arithmetic is in ``decomposition``, the guess in ``causes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, time, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import duckdb
import pyarrow as pa

from obs_pipeline.detection.causes import Cause, likely_cause
from obs_pipeline.detection.decomposition import Split, split_deviation
from obs_pipeline.detection.models import TIME, Anomaly
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.detection.usage_sums import Group, Model, TokenRates, Usage
from obs_pipeline.storage.engine import load_sql
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.tables import USAGE_EVENTS

RatesAt = Callable[[Iterable[Model], datetime], Mapping[Model, TokenRates]]
"""List rates of some models at an instant; a model that is not in the answer has none."""

RowsOf = Callable[[str], Sequence[Mapping[str, Any]]]
"""The rows of a query over ``usage_events`` and ``known_anomalies`` of the days that are compared, and ``questions``."""

QUESTION_SCHEMA: Final = pa.schema(
    [
        ("question", pa.int64()),
        ("org", pa.string()),
        ("project", pa.string()),
        ("agent", pa.string()),
        ("metric", pa.string()),
        ("grain", pa.string()),
        ("start", TIME),
        ("finish", TIME),
        ("reference_start", TIME),
    ]
)

# Days or hours of the reference that were warnings themselves, and are left out of it.
_LEFT_OUT: Final = """
    SELECT question, count(DISTINCT other.timestamp) AS times FROM questions AS question JOIN known_anomalies AS other
        ON other.metric = question.metric AND other.grain = question.grain
        AND other.org IS NOT DISTINCT FROM question.org AND other.project IS NOT DISTINCT FROM question.project
        AND other.agent IS NOT DISTINCT FROM question.agent
        AND other.timestamp >= question.reference_start AND other.timestamp < question.start
    WHERE other.severity IN ('warning', 'critical')
        AND (question.grain = 'day' OR hour(other.timestamp) = hour(question.start))
    GROUP BY question
"""

_COUNTED: Final = tuple(field.name for field in fields(Usage))


@dataclass(frozen=True, slots=True)
class Explanation:
    """An anomaly, its deviation in parts, and its likely cause. ``reference_start`` (UTC) to the anomaly's beginning is
    the reference period."""

    anomaly: Anomaly
    split: Split
    cause: Cause
    reference_start: datetime


def explain_anomalies(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    anomalies: Sequence[Anomaly],
    lookback_days: int,
    rates_at: RatesAt,
) -> list[Explanation]:
    """Each anomaly explained, in the order given, from the events as they are now in the lake.

    ``lookback_days`` is how many days before it the detector learned from.
    """
    if not anomalies:
        return []
    days = compared_days(anomalies, lookback_days)
    lake.view(connection, USAGE_EVENTS, days)
    lake.view(connection, ANOMALIES, days, name="known_anomalies")
    connection.register("questions", questions_of(anomalies, lookback_days))
    return explain_from(
        lambda query: connection.sql(query).to_arrow_table().to_pylist(), anomalies, lookback_days, rates_at
    )


def compared_days(anomalies: Sequence[Anomaly], lookback_days: int) -> DayRange:
    """The days of the anomalies and those before, with which they are compared."""
    days = [one.dt for one in anomalies]
    return DayRange(min(days), max(days)).widened(before=lookback_days)


def explain_from(
    rows_of: RowsOf, anomalies: Sequence[Anomaly], lookback_days: int, rates_at: RatesAt
) -> list[Explanation]:
    """As :func:`explain_anomalies`, from wherever the rows are asked for."""
    rows = rows_of(load_sql("obs_pipeline.detection", "split_usage"))
    left_out = {row["question"]: row["times"] for row in rows_of(_LEFT_OUT)}
    by_question = {
        number: list(some)
        for number, some in groupby(sorted(rows, key=_reading_order), key=lambda row: row["question"])
    }
    return [
        _explanation(anomaly, by_question.get(number, []), lookback_days, left_out.get(number, 0), rates_at)
        for number, anomaly in enumerate(anomalies)
    ]


def list_rates(book: PriceBook, models: Iterable[Model], moment: datetime) -> Mapping[Model, TokenRates]:
    """The plain rates (USD per million tokens, lowest tier) that the price book has for the models at ``moment``."""
    second = (moment - datetime.combine(moment.date(), time())) // timedelta(seconds=1)
    rates: dict[Model, TokenRates] = {}
    for row in book.rates(models).to_pylist():
        held = (row["valid_from"] or datetime.min) <= moment < (row["valid_to"] or datetime.max)
        of_day = (row["day_second_from"] or 0) <= second < (row["day_second_to"] or 86_400)
        rate = TokenRates(*(Decimal(row[f"{kind}_rate"]) for kind in TokenRates._fields))
        if held and of_day and not row["min_input_tokens"] and any(rate):
            rates[row["provider"], row["model"]] = rate
    return rates


def questions_of(anomalies: Sequence[Anomaly], lookback_days: int) -> pa.Table:
    """What is asked of each anomaly, numbered as they come: :data:`QUESTION_SCHEMA`."""
    rows = [
        {
            "question": number,
            **{name: getattr(one, name) for name in ("org", "project", "agent", "metric", "grain")},
            "start": one.timestamp,
            "finish": one.timestamp + timedelta(days=1 if one.grain == "day" else 0, hours=one.grain == "hour"),
            "reference_start": _reference_start(one, lookback_days),
        }
        for number, one in enumerate(anomalies)
    ]
    return pa.Table.from_pylist(rows, schema=QUESTION_SCHEMA)


def _reference_start(anomaly: Anomaly, lookback_days: int) -> datetime:
    return datetime.combine(anomaly.dt, time()) - timedelta(days=lookback_days)


def _group(row: Mapping[str, Any]) -> Group:
    return Group(
        observed=row["side"] == "observed",
        model=(row["provider"], row["model"]),
        user=row["user_id"],
        usage=Usage(**{name: row[name] for name in _COUNTED}),
    )


def _reading_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["question"], row["side"], *(row[name] or "" for name in ("provider", "model", "user_id")))


def _explanation(
    anomaly: Anomaly, rows: Sequence[Mapping[str, Any]], lookback_days: int, left_out: int, rates_at: RatesAt
) -> Explanation:
    groups = [_group(row) for row in rows if row["side"] != "elsewhere"]
    existed = any(row["side"] != "observed" for row in rows)
    models = {group.model for group in groups if group.model[1] is not None}
    rates = rates_at(sorted(models, key=str), anomaly.timestamp) if anomaly.metric == "cost" else {}
    # What the detector counted as known, zeros among them, is what the reference is the mean of.
    times = max(int(anomaly.context.get("history_points") or lookback_days) - left_out, 1)
    split = split_deviation(anomaly.metric, groups, anomaly.baseline or 0.0, times, rates)
    return Explanation(anomaly, split, likely_cause(split, existed=existed), _reference_start(anomaly, lookback_days))
