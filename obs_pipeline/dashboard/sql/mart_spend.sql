-- usage_hourly → mart_spend: two grains, each of which adds up to the same total. An agent's rows lie together, so that
-- its series is read from a part of each file.
WITH cells AS (
    SELECT
        dt, 'hour' AS grain, hour AS time, org, project, team, agent, provider, model, calls, errors, input_tokens,
        output_tokens, cache_read_tokens, saved_tokens, cost, list_cost, cost_bound, unpriced_calls, mispriced_calls
    FROM usage_hourly
    UNION ALL
    SELECT
        dt, 'day' AS grain, CAST(dt AS TIMESTAMP) AS time, org, project, team, agent, provider, model, calls, errors,
        input_tokens, output_tokens, cache_read_tokens, saved_tokens, cost, list_cost, cost_bound, unpriced_calls,
        mispriced_calls
    FROM usage_hourly
)
SELECT
    dt, grain, time, org, project, team, agent, provider, model,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(errors) AS BIGINT) AS errors,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(cache_read_tokens) AS BIGINT) AS cache_read_tokens,
    CAST(sum(saved_tokens) AS BIGINT) AS saved_tokens,
    CAST(sum(cost) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(list_cost) AS DECIMAL(38, 9)) AS list_cost,
    CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS cost_bound,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls,
    CAST(sum(mispriced_calls) AS BIGINT) AS mispriced_calls
FROM cells
GROUP BY dt, grain, time, org, project, team, agent, provider, model
ORDER BY dt, grain, agent, time
