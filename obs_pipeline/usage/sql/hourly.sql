-- usage_events → usage_hourly: exact sums per hour, source and dimension.
-- A mergeable histogram needs its counts first: latency falls into logarithmic buckets (bucket = floor(10 · ln(ms)),
-- neighbours 10.5 % apart), then each group packs bucket and count into one number. The sums are taken apart from
-- that: carrying them through every bucket costs more than looking at the events twice.
WITH sums AS (
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
        count(latency_ms) AS latency_calls
    FROM usage_events
    GROUP BY dt, date_trunc('hour', event_time), source, org, project, team, agent, provider, model, operation
),
bucketed AS (
    SELECT
        date_trunc('hour', event_time) AS hour,
        source, org, project, team, agent, provider, model, operation,
        CAST(floor(ln(greatest(latency_ms, 0.1)) * 10) AS BIGINT) AS bucket,
        count(*) AS bucket_calls
    FROM usage_events
    WHERE latency_ms IS NOT NULL
    GROUP BY date_trunc('hour', event_time), source, org, project, team, agent, provider, model, operation,
        CAST(floor(ln(greatest(latency_ms, 0.1)) * 10) AS BIGINT)
),
histograms AS (
    SELECT
        hour, source, org, project, team, agent, provider, model, operation,
        array_sort(array_agg(bucket * 4294967296 + bucket_calls)) AS latency_histogram
    FROM bucketed
    GROUP BY hour, source, org, project, team, agent, provider, model, operation
)
SELECT
    s.dt,
    s.hour,
    s.source, s.org, s.project, s.team, s.agent, s.provider, s.model, s.operation,
    s.calls,
    s.errors,
    s.input_tokens,
    s.cache_read_tokens,
    s.cache_write_tokens,
    s.output_tokens,
    s.reasoning_tokens,
    s.saved_tokens,
    s.cost,
    s.list_cost,
    s.cost_bound,
    s.unpriced_calls,
    s.mispriced_calls,
    s.latency_calls,
    h.latency_histogram
FROM sums AS s
LEFT JOIN histograms AS h
    ON s.hour = h.hour
    AND s.source = h.source
    AND s.org IS NOT DISTINCT FROM h.org
    AND s.project IS NOT DISTINCT FROM h.project
    AND s.team IS NOT DISTINCT FROM h.team
    AND s.agent IS NOT DISTINCT FROM h.agent
    AND s.provider IS NOT DISTINCT FROM h.provider
    AND s.model IS NOT DISTINCT FROM h.model
    AND s.operation IS NOT DISTINCT FROM h.operation
