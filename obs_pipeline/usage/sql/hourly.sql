-- usage_events → usage_hourly: exact sums per hour, source and dimension.
-- Two steps, because a mergeable histogram needs its counts first: latency falls into logarithmic buckets
-- (bucket = floor(10 · ln(ms)), neighbours 10.5 % apart), then each group packs bucket and count into one number.
WITH bucketed AS (
    SELECT
        dt,
        date_trunc('hour', event_time) AS hour,
        source, org, project, team, agent, provider, model, operation,
        CAST(floor(ln(greatest(latency_ms, 0.1)) * 10) AS BIGINT) AS bucket,
        count(*) FILTER (WHERE event_type = 'usage') AS calls,
        count(*) FILTER (WHERE event_type = 'usage' AND error_type IS NOT NULL) AS errors,
        sum(input_tokens) AS input_tokens,
        sum(cache_read_tokens) AS cache_read_tokens,
        sum(cache_write_tokens) AS cache_write_tokens,
        sum(output_tokens) AS output_tokens,
        sum(reasoning_tokens) AS reasoning_tokens,
        sum(saved_tokens) AS saved_tokens,
        sum(cost) AS cost,
        sum(list_cost) AS list_cost,
        sum(cost_bound) AS cost_bound,
        count(*) FILTER (WHERE cost_source = 'unpriced') AS unpriced_calls,
        count(*) FILTER (WHERE mispriced) AS mispriced_calls,
        count(latency_ms) AS latency_calls
    FROM usage_events
    GROUP BY dt, date_trunc('hour', event_time), source, org, project, team, agent, provider, model, operation,
        CAST(floor(ln(greatest(latency_ms, 0.1)) * 10) AS BIGINT)
)
SELECT
    dt,
    hour,
    source, org, project, team, agent, provider, model, operation,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(errors) AS BIGINT) AS errors,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(cache_read_tokens) AS BIGINT) AS cache_read_tokens,
    CAST(sum(cache_write_tokens) AS BIGINT) AS cache_write_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(reasoning_tokens) AS BIGINT) AS reasoning_tokens,
    CAST(sum(saved_tokens) AS BIGINT) AS saved_tokens,
    CAST(coalesce(sum(cost), 0) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(list_cost) AS DECIMAL(38, 9)) AS list_cost,
    CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS cost_bound,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    CAST(sum(mispriced_calls) AS BIGINT) AS mispriced_calls,
    CAST(sum(latency_calls) AS BIGINT) AS latency_calls,
    array_sort(array_agg(bucket * 4294967296 + latency_calls) FILTER (WHERE bucket IS NOT NULL)) AS latency_histogram
FROM bucketed
GROUP BY dt, hour, source, org, project, team, agent, provider, model, operation
