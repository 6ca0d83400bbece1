-- usage_hourly → one row per source, agent and hour: all that detection needs, without models and operations.
--
-- cost is null where nothing in the row has a price: unknown, not free.
-- overcharge is what was reported above list price by calls whose cost contradicts it, overcharged_list_cost the list
-- price of the same calls; models reported below list price (discounts, free tiers) do not offset it.
SELECT
    dt, hour, source, org, project, agent,
    CAST(sum(calls) AS BIGINT) AS calls,
    CAST(sum(errors) AS BIGINT) AS errors,
    CAST(sum(input_tokens) AS BIGINT) AS input_tokens,
    CAST(sum(output_tokens) AS BIGINT) AS output_tokens,
    CAST(sum(cost) FILTER (WHERE unpriced_calls < calls OR cost <> 0) AS DECIMAL(38, 9)) AS cost,
    CAST(sum(mispriced_calls) AS BIGINT) AS mispriced_calls,
    CAST(sum(cost - list_cost) FILTER (WHERE mispriced_calls > 0 AND cost > list_cost) AS DECIMAL(38, 9))
        AS overcharge,
    CAST(sum(list_cost) FILTER (WHERE mispriced_calls > 0 AND cost > list_cost) AS DECIMAL(38, 9))
        AS overcharged_list_cost,
    CAST(sum(latency_calls) AS BIGINT) AS latency_calls,
    flatten(array_agg(latency_histogram) FILTER (WHERE latency_histogram IS NOT NULL)) AS latency_histogram
FROM usage_hourly
GROUP BY dt, hour, source, org, project, agent
