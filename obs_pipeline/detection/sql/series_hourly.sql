-- usage_hourly → one row per source, agent and hour: all that detection needs, without models and operations.
SELECT
    dt, hour, source, org, project, agent,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(errors) AS BIGINT) AS errors,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(cost) AS DOUBLE) AS cost,
    CAST(sum(list_cost) AS DOUBLE) AS list_cost,
    CAST(sum(cost_bound) AS DOUBLE) AS cost_bound,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    CAST(sum(mispriced_calls) AS BIGINT) AS mispriced_calls,
    CAST(sum(latency_calls) AS BIGINT) AS latency_calls,
    flatten(array_agg(latency_histogram) FILTER (WHERE latency_histogram IS NOT NULL)) AS latency_histogram
FROM usage_hourly
GROUP BY dt, hour, source, org, project, agent
