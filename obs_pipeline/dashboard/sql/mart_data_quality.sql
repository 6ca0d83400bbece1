-- usage_events, usage_rejected, usage_duplicates, usage_twins → mart_data_quality: one row a day, source and finding.
-- The example is the first by id, so the same rows always give the same table.
SELECT
    dt, source, 'accepted' AS finding, count(*) AS rows,
    CAST(sum(cost) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(list_cost) AS DECIMAL(38, 9)) AS list_cost,
    CAST(NULL AS DOUBLE) AS worst_ratio,
    CAST(NULL AS STRING) AS example
FROM usage_events
GROUP BY dt, source
UNION ALL
SELECT
    dt, source, 'unpriced' AS finding, count(*) AS rows,
    CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS cost,
    CAST(NULL AS DECIMAL(38, 9)) AS list_cost,
    CAST(NULL AS DOUBLE) AS worst_ratio,
    min(concat(coalesce(model, 'no model'), ' (event ', event_id, ')')) AS example
FROM usage_events
WHERE cost_source = 'unpriced'
GROUP BY dt, source
UNION ALL
SELECT
    dt, source, 'mispriced' AS finding, count(*) AS rows,
    CAST(sum(reported_cost) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(list_cost) AS DECIMAL(38, 9)) AS list_cost,
    max(greatest(price_ratio, 1 / nullif(price_ratio, 0))) AS worst_ratio,
    min(concat(coalesce(model, 'no model'), ' (event ', event_id, ')')) AS example
FROM usage_events
WHERE mispriced
GROUP BY dt, source
UNION ALL
SELECT
    dt, source, concat('rejected: ', reason) AS finding, count(*) AS rows,
    CAST(NULL AS DECIMAL(38, 9)) AS cost,
    CAST(NULL AS DECIMAL(38, 9)) AS list_cost,
    CAST(NULL AS DOUBLE) AS worst_ratio,
    min(detail) AS example
FROM usage_rejected
GROUP BY dt, source, reason
UNION ALL
SELECT
    dt, source, 'duplicate' AS finding, count(*) AS rows,
    CAST(NULL AS DECIMAL(38, 9)) AS cost,
    CAST(NULL AS DECIMAL(38, 9)) AS list_cost,
    CAST(NULL AS DOUBLE) AS worst_ratio,
    min(event_id) AS example
FROM usage_duplicates
GROUP BY dt, source
UNION ALL
SELECT
    dt, source, kind AS finding, count(*) AS rows,
    CAST(sum(cost) AS DECIMAL(38, 9)) AS cost,
    CAST(NULL AS DECIMAL(38, 9)) AS list_cost,
    CAST(NULL AS DOUBLE) AS worst_ratio,
    min(concat(event_id, ' (counted: ', counted_source, ' ', counted_event_id, ')')) AS example
FROM usage_twins
GROUP BY dt, source, kind
