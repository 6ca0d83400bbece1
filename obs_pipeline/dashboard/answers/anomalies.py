"""What was found to be unusual, and why one anomaly is one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any, Final

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.answers.asking import (
    PLACE,
    Asking,
    Rows,
    only,
    page,
    page_start,
    rows_about,
    rows_at,
)
from obs_pipeline.dashboard.answers.trends import bands_of
from obs_pipeline.detection.explanations import Explanation
from obs_pipeline.detection.models import Anomaly
from obs_pipeline.storage.lake import DayRange

_ANOMALY_COLUMNS: Final = tuple(name for name in q.AnomalyShown.model_fields if name != "label")
_LEADING: Final = 3


def anomalies(asking: Asking, asked: q.AnomaliesAsked) -> q.Anomalies:
    """Anomalies that begin in a timeframe, as grave as they became, the highest score first."""
    days = asking.window(asked.timeframe, asked.end)
    where, values = rows_about(asked, (*PLACE, "metric", "severity")).within(days)
    found = f"FROM onsets WHERE {where}"
    counts = asking.reader.rows(f"SELECT severity, count(*) AS found {found} GROUP BY severity", values)
    by_severity = {row["severity"]: row["found"] for row in counts}
    start, mark = page_start(asking, asked)
    columns = ", ".join(_ANOMALY_COLUMNS)
    order = f"ORDER BY score DESC, timestamp, id LIMIT {asked.limit} OFFSET {start}"
    rows = asking.reader.rows(f"SELECT {columns} {found} {order}", values)
    return q.Anomalies(
        **asking.told(days, rows_about(asked, PLACE)),
        **page(sum(by_severity.values()), start, len(rows), mark),
        anomalies=_anomalies_shown(asking, rows),
        by_severity=by_severity,
    )


def explain_anomaly(asking: Asking, asked: q.ExplainAsked) -> q.Explained:
    """Why an anomaly is one: what was expected, what was seen, and the days around it."""
    row = _the_anomaly(asking, asked.anomaly)
    same = rows_at(only(row, *PLACE))
    return q.Explained(
        **asking.told(DayRange(row["dt"], row["dt"]), same),
        anomaly=_anomalies_shown(asking, [only(row, *_ANOMALY_COLUMNS)])[0],
        lower=row["lower"],
        upper=row["upper"],
        method=row["method"],
        context=json.loads(row["context"]),
        around=_around(asking, row, same),
        split=_split_shown(asking.explain(asking.reader, _anomaly(row))) if asking.explain else None,
    )


def _the_anomaly(asking: Asking, begins: str) -> dict[str, Any]:
    """The one whose id begins so, as grave as it became where it went on."""
    query = """
        SELECT * FROM onsets WHERE starts_with(id, $id)
        UNION ALL SELECT * FROM anomalies WHERE starts_with(id, $id) AND id NOT IN (SELECT id FROM onsets)
        LIMIT 2
    """
    found = asking.reader.rows(query, {"id": begins})
    if len(found) != 1:
        what = "no anomaly" if not found else "more than one anomaly"
        raise q.BadQuestion(f"anomalyId: {what} with an id that begins with {begins!r}.")
    return found[0]


def _around(asking: Asking, row: Mapping[str, Any], same: Rows) -> list[q.Point]:
    """The values and bands of the same series before and after an anomaly."""
    span = timedelta(days=14) if row["grain"] == "day" else timedelta(hours=36)
    first, last = row["timestamp"] - span, row["timestamp"] + span
    bands, of_grain = bands_of(asking, row["grain"], DayRange(first.date(), last.date()))
    points = asking.reader.rows(
        f"""
        SELECT time, observed AS value, expected, lower, upper FROM {bands}
        WHERE metric = $metric AND {of_grain} AND time BETWEEN $first AND $last AND {same.where} ORDER BY time
        """,
        {**same.values, "metric": row["metric"], "first": first, "last": last},
    )
    return [q.Point(**point) for point in points]


def _anomalies_shown(asking: Asking, rows: Sequence[Mapping[str, Any]]) -> list[q.AnomalyShown]:
    """Rows of the anomalies' table with what was said of each."""
    said = asking.labels.verdicts([row["id"] for row in rows])
    return [q.AnomalyShown(**row, label=said.get(row["id"])) for row in rows]


def _anomaly(row: Mapping[str, Any]) -> Anomaly:
    own = only(row, *(field.name for field in fields(Anomaly)))
    return Anomaly(**{**own, "context": json.loads(row["context"])})


def _split_shown(found: Explanation) -> q.SplitShown:
    split = found.split
    return q.SplitShown(
        cause=found.cause.name,
        because=found.cause.because,
        unit=split.unit,
        observed=split.observed,
        expected=split.expected,
        terms=[
            q.TermShown(
                name=term.name,
                amount=term.amount,
                by_model=[q.ModelPart(model=model, amount=amount) for model, amount in term.by_model[:_LEADING]],
            )
            for term in split.terms
            if term.amount
        ],
        unpriced_calls=split.unpriced_calls,
        reference_start=found.reference_start,
    )
