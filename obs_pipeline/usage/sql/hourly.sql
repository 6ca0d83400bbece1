-- usage_events → usage_hourly: exact sums per hour, source and dimension.
-- Latency falls into logarithmic buckets (bucket = floor(10 · ln(ms)), neighbours 10.5 % apart). Each call's bucket is
-- listed: counting them by a second grouping costs more than everything else together, so whoever keeps the rows counts
-- each list, which makes it the histogram of the hour.
SELECT
    dt,
    date_trunc('hour', event_time) AS hour,
    source, org, project, team, agent, provider, model, operation,
    count(CASE WHEN event_type = 'usage' THEN 1 END) AS calls,
    count(CASE WHEN event_type = 'usage' THEN error_type END) AS errors,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(cache_read_tokens) AS BIGINT) AS cache_read_tokens,
    CAST(sum(cache_write_tokens) AS BIGINT) AS cache_write_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(reasoning_tokens) AS BIGINT) AS reasoning_tokens,
    CAST(sum(saved_tokens) AS BIGINT) AS saved_tokens,
    CAST(coalesce(sum(cost), 0) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(list_cost) AS DECIMAL(38, 9)) AS list_cost,
    CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS cost_bound,
    count(CASE WHEN cost_source = 'unpriced' THEN 1 END) AS unpriced_calls,
    count(CASE WHEN mispriced THEN 1 END) AS mispriced_calls,
    count(latency_ms) AS latency_calls,
    array_agg(CAST(floor(ln(greatest(latency_ms, 0.1)) * 10) AS SMALLINT)) FILTER (WHERE latency_ms IS NOT NULL)
        AS latency_buckets
FROM usage_events
GROUP BY dt, date_trunc('hour', event_time), source, org, project, team, agent, provider, model, operation
