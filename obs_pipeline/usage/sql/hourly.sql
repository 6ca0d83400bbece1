-- usage_events → usage_hourly: exact sums per hour, source and dimension.
-- Latency falls into logarithmic buckets (bucket = floor(10 · ln(ms)), neighbours 10.5 % apart). A histogram may name a
-- bucket more than once; its readers add the counts. Here it names one for every call: counting them by a second
-- grouping costs more than everything else together, so whoever keeps the rows merges each list first.
SELECT
    dt,
    date_trunc('hour', event_time) AS hour,
    source, org, project, team, agent, provider, model, operation,
    count(*) FILTER (WHERE event_type = 'usage') AS calls,
    count(*) FILTER (WHERE event_type = 'usage' AND error_type IS NOT NULL) AS errors,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(cache_read_tokens) AS BIGINT) AS cache_read_tokens,
    CAST(sum(cache_write_tokens) AS BIGINT) AS cache_write_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(reasoning_tokens) AS BIGINT) AS reasoning_tokens,
    CAST(sum(saved_tokens) AS BIGINT) AS saved_tokens,
    CAST(coalesce(sum(cost), 0) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(list_cost) AS DECIMAL(38, 9)) AS list_cost,
    CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS cost_bound,
    count(*) FILTER (WHERE cost_source = 'unpriced') AS unpriced_calls,
    count(*) FILTER (WHERE mispriced) AS mispriced_calls,
    count(latency_ms) AS latency_calls,
    array_agg(CAST(floor(ln(greatest(latency_ms, 0.1)) * 10) AS BIGINT) * 4294967296 + 1)
        FILTER (WHERE latency_ms IS NOT NULL) AS latency_histogram
FROM usage_events
GROUP BY dt, date_trunc('hour', event_time), source, org, project, team, agent, provider, model, operation
