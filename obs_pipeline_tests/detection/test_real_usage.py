"""The verdicts on real usage: 5,522 calls of one person's coding assistant over 20 months, bursty and with empty days."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import obs_pipeline
from obs_pipeline.detection.config import AnomalyDetectionConfig
from obs_pipeline.detection.detect import Detection, detect_anomalies
from obs_pipeline.detection.models import Anomaly, anomalies_from_table, worst_anomalies
from obs_pipeline.storage.engine import connect, load_sql
from obs_pipeline.usage.aggregates import hourly_rows

SAMPLE = Path(obs_pipeline.__file__).parent.parent / "sample_data" / "aider-analytics.jsonl.gz"
FIRST, LAST = date(2024, 8, 13), date(2026, 4, 25)
MISPRICED_DAY, RUNAWAY_DAY = date(2025, 5, 7), date(2024, 12, 13)

pytestmark = pytest.mark.skipif(not SAMPLE.exists(), reason="the sample is not part of an installed package")

# The list price is given for the one call whose fault is known; all others are taken at the cost they report.
EVENTS = """
    CREATE TABLE usage_events AS
    SELECT
        CAST(to_timestamp(seconds) AT TIME ZONE 'UTC' AS DATE) AS dt,
        to_timestamp(seconds) AT TIME ZONE 'UTC' AS event_time,
        'usage' AS event_type, 'aider' AS source, 'e' || line AS event_id, 'aider-sample' AS org, 'aider' AS project,
        CAST(NULL AS VARCHAR) AS team, agent, CAST(NULL AS VARCHAR) AS provider, model, 'send' AS operation,
        input_tokens, output_tokens, 0 AS cache_read_tokens, 0 AS cache_write_tokens, 0 AS reasoning_tokens,
        0 AS saved_tokens, CAST(NULL AS DOUBLE) AS latency_ms, CAST(NULL AS VARCHAR) AS error_type,
        cost AS reported_cost, cost, CAST(NULL AS DECIMAL(18, 9)) AS cost_bound, 'reported' AS cost_source,
        CASE WHEN cost > 1000 THEN CAST('0.012628750' AS DECIMAL(18, 9)) ELSE cost END AS list_cost,
        CASE WHEN cost > 1000 THEN cost / 0.012628750 ELSE 1.0 END AS price_ratio,
        cost > 1000 AS mispriced
    FROM calls
"""


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> Detection:
    lines = tmp_path_factory.mktemp("sample") / "calls.jsonl"
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as packed, lines.open("w", encoding="utf-8") as plain:
        for number, line in enumerate(packed):
            plain.write(json.dumps(_call(number, json.loads(line))) + "\n")
    with connect(threads=1) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE TABLE calls AS SELECT line, seconds, agent, model, input_tokens, output_tokens, "
            f"CAST(cost AS DECIMAL(18, 9)) AS cost FROM read_json('{lines}', columns = {{line: 'INT', seconds: 'BIGINT', "
            "agent: 'VARCHAR', model: 'VARCHAR', input_tokens: 'BIGINT', output_tokens: 'BIGINT', cost: 'VARCHAR'})"
        )
        connection.execute(EVENTS)
        connection.register("hours", hourly_rows(connection).read_all())
        connection.execute("CREATE TABLE usage_hourly AS SELECT * FROM hours")
        connection.execute(f"CREATE TABLE usage_daily AS {load_sql('obs_pipeline.usage', 'daily')}")
        hourly, daily = (
            connection.sql(load_sql("obs_pipeline.detection", name)).to_arrow_table()
            for name in ("series_hourly", "series_daily")
        )

        def worst_calls(moments: pa.Table) -> pa.Table:
            connection.register("abnormal_days", moments)
            return connection.sql(load_sql("obs_pipeline.detection", "evidence")).to_arrow_table()

        return detect_anomalies(hourly, daily, (FIRST, LAST), AnomalyDetectionConfig(), worst_calls)


def _call(number: int, event: dict) -> dict:
    properties = event["properties"]
    return {
        "line": number,
        "seconds": event["time"],
        "agent": properties.get("edit_format"),
        "model": properties.get("main_model"),
        "input_tokens": properties.get("prompt_tokens"),
        "output_tokens": properties.get("completion_tokens"),
        "cost": f"{properties.get('cost') or 0:.9f}",
    }


@pytest.fixture(scope="module")
def anomalies(detection: Detection) -> list[Anomaly]:
    return anomalies_from_table(detection.anomalies)


def test_the_mispriced_call_is_critical_first_of_all_and_named_with_its_ratio(anomalies):
    worst = worst_anomalies(anomalies, 1)[0]
    assert (worst.dt, worst.agent, worst.metric, worst.severity) == (MISPRICED_DAY, "diff-fenced", "cost", "critical")
    assert worst.method == "list_price"
    assert worst.reason == (
        "agent diff-fenced (aider) was charged $9,990.04 on 2025-05-07, $9,990.00 above list price: the reported cost "
        "contradicts the list price; one call to gemini/gemini-2.5-pro-preview-03-25 reported $9,990.01, 790,000 × its list "
        "price of $0.0126."
    )


def test_the_runaway_context_is_a_critical_token_anomaly_and_its_call_is_named(anomalies):
    (worst,) = [one for one in worst_anomalies(anomalies, 10) if one.dt == RUNAWAY_DAY]
    assert (worst.agent, worst.metric, worst.severity) == ("ask", "tokens", "critical")
    assert "with 913,414 input tokens and no output is 97% of it" in worst.reason


def test_nothing_else_is_critical_and_people_are_left_in_peace(anomalies):
    assert {one.dt for one in anomalies if one.severity == "critical"} == {MISPRICED_DAY, RUNAWAY_DAY}
    fortnights = (LAST - FIRST).days / 14
    severe_days = {(one.dt, one.agent) for one in anomalies if one.severity != "info"}
    assert len(severe_days) < fortnights / 3
    assert Counter(one.severity for one in anomalies)["info"] < 2 * fortnights


@pytest.mark.parametrize(
    ("agent", "metric", "day"),
    [("diff-fenced", "cost", MISPRICED_DAY), ("ask", "tokens", RUNAWAY_DAY), ("ask", "cost", RUNAWAY_DAY)],
)
@pytest.mark.parametrize("grain", ["day", "hour"])
def test_the_outlier_leaves_the_bands_of_the_days_after_it_as_they_were(detection, agent, metric, day, grain):
    rows = detection.baselines
    of_series = pc.and_(pc.equal(rows["agent"], agent), pc.equal(rows["metric"], metric))
    rows = rows.filter(pc.and_(of_series, pc.and_(pc.equal(rows["grain"], grain), pc.equal(rows["state"], "ok"))))
    upper = {True: [], False: []}
    for row in rows.to_pylist():
        if abs(row["dt"] - day) <= timedelta(days=28) and row["dt"] != day:
            upper[row["dt"] > day].append(row["upper"])
    assert len(upper[True]) >= 5
    assert max(upper[True]) < 2.5 * max(upper[False])


def test_days_after_the_outliers_can_still_be_anomalies(anomalies):
    after = [one for one in anomalies if timedelta(0) < one.dt - MISPRICED_DAY <= timedelta(days=2)]
    assert any(one.severity == "warning" and one.metric == "cost" for one in after)


def test_days_on_which_nothing_was_sent_are_unknown_and_have_no_rows(detection):
    days = set(detection.baselines.filter(pc.equal(detection.baselines["grain"], "day"))["dt"].to_pylist())
    assert len(days) == 188
