-- usage_hourly → usage_daily: the same sums over UTC days.
-- A histogram may name a bucket more than once; its readers add the counts, so joining the lists merges them.
SELECT
    dt,
    source, org, project, team, agent, provider, model, operation,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(errors) AS BIGINT) AS errors,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(cache_read_tokens) AS BIGINT) AS cache_read_tokens,
    CAST(sum(cache_write_tokens) AS BIGINT) AS cache_write_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(reasoning_tokens) AS BIGINT) AS reasoning_tokens,
    CAST(sum(saved_tokens) AS BIGINT) AS saved_tokens,
    CAST(sum(cost) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(list_cost) AS DECIMAL(38, 9)) AS list_cost,
    CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS cost_bound,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    CAST(sum(mispriced_calls) AS BIGINT) AS mispriced_calls,
    CAST(sum(latency_calls) AS BIGINT) AS latency_calls,
    array_sort(flatten(array_agg(latency_histogram) FILTER (WHERE latency_histogram IS NOT NULL))) AS latency_histogram
FROM usage_hourly
GROUP BY dt, source, org, project, team, agent, provider, model, operation
