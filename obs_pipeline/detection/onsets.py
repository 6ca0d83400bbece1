"""Every incident once: what a reader asks of ``anomalies`` so as to count or list incidents.

A question to DuckDB, which takes the JSON of ``context`` apart; no table is written with it, so it is none of the ``.sql``
files that Spark runs too.
"""

from __future__ import annotations

from typing import Final

ONSETS: Final = """
WITH RECURSIVE later AS (
    SELECT
        id,
        metric,
        severity,
        confidence,
        coalesce(CAST(context ->> '$.score_alone' AS DOUBLE), score) AS score,
        context ->> '$.continues' AS continues,
        coalesce(CAST(context ->> '$.until' AS TIMESTAMP), timestamp + INTERVAL 1 HOUR) AS ends,
        coalesce(CAST(context ->> '$.abnormal_hours' AS INTEGER), 1) AS hours,
        coalesce(CAST(context ->> '$.excess' AS DOUBLE), observed - coalesce(baseline, 0)) AS excess,
        coalesce(
            context -> '$.peak',
            json_object(
                'timestamp', strftime(timestamp, '%Y-%m-%dT%H:%M:%S'),
                'observed', observed,
                'baseline', baseline,
                'deviation', deviation
            )
        ) AS peak
    FROM anomalies
    WHERE contains(context, '"continues"') AND context ->> '$.continues' IN (SELECT id FROM anomalies)
),
followed AS (
    SELECT continues AS onset, later.* FROM later WHERE continues NOT IN (SELECT id FROM later)
    UNION ALL
    SELECT followed.onset, later.* FROM later JOIN followed ON later.continues = followed.id
),
onset AS (
    SELECT
        *,
        coalesce(CAST(context ->> '$.abnormal_hours' AS INTEGER), 1) AS hours,
        coalesce(CAST(context ->> '$.excess' AS DOUBLE), observed - coalesce(baseline, 0)) AS excess
    FROM anomalies WHERE id IN (SELECT onset FROM followed)
),
-- Scores of a graver severity are higher, so the highest score tells the gravest.
grown AS (
    SELECT
        onset.id,
        arg_max(followed.severity, followed.score) AS severity,
        max(followed.score) AS score,
        max(followed.confidence) AS confidence,
        max(followed.ends) AS ends,
        any_value(onset.hours) + coalesce(sum(followed.hours) FILTER (followed.metric = onset.metric), 0) AS hours,
        round(any_value(onset.excess) + coalesce(sum(followed.excess) FILTER (followed.metric = onset.metric), 0), 9)
            AS excess,
        arg_max(followed.peak, followed.score) FILTER (followed.metric = onset.metric AND followed.score > onset.score)
            AS peak,
        list(followed.id ORDER BY followed.ends, followed.id) AS ids
    FROM onset JOIN followed ON followed.onset = onset.id
    GROUP BY onset.id
)
SELECT anomalies.* REPLACE (
    CASE WHEN grown.score > anomalies.score THEN grown.severity ELSE anomalies.severity END AS severity,
    greatest(anomalies.score, coalesce(grown.score, 0)) AS score,
    greatest(anomalies.confidence, coalesce(grown.confidence, 0)) AS confidence,
    CASE
        WHEN grown.id IS NULL THEN anomalies.reason
        ELSE anomalies.reason || strftime(grown.ends, ' It went on after that day, until %Y-%m-%d %H:%M UTC.')
    END AS reason,
    CASE
        WHEN grown.id IS NULL THEN anomalies.context
        ELSE CAST(json_merge_patch(
            anomalies.context,
            json_object('until', strftime(grown.ends, '%Y-%m-%dT%H:%M:%S')),
            json_object('abnormal_hours', CAST(grown.hours AS BIGINT), 'continued_by', grown.ids),
            CASE WHEN anomalies.metric IN ('cost', 'tokens') THEN json_object('excess', grown.excess) ELSE '{}' END,
            CASE WHEN grown.peak IS NULL THEN '{}' ELSE json_object('peak', grown.peak) END
        ) AS VARCHAR)
    END AS context
)
FROM anomalies LEFT JOIN grown ON grown.id = anomalies.id
WHERE anomalies.id NOT IN (SELECT id FROM later)
"""
"""``anomalies`` without the rows of later days that go on with them, each as long and as grave as it became.

Asks a table ``anomalies``, or some days of it, and has its columns. A row that goes on with one of the day before is left
out if that one is there. The first of them has the severity and score of the gravest, the highest confidence, when the
last was over (``until``), the number of abnormal hours and the excess of those of its own metric, the worst hour of all
(``peak``), and their ids (``continued_by``).
"""
