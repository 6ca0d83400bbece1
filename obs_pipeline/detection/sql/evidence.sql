-- The worst single calls of every hour of the abnormal days of some series: what a reason can point at.
--
-- Input: usage_events, the canonical columns with dt, cost, list_cost, price_ratio and mispriced; abnormal_days, the
-- distinct (dt, org, project, agent) that are asked about.
-- Output: for every dt, hour (time), org, project and agent at most one call of each kind:
--   mispriced  the call reported furthest above its list price (USD)
--   dearest    the call with the highest cost, if it is at least a quarter of the hour's cost
--   largest    the call with the most input and output tokens, if it is at least a quarter of the hour's tokens
-- Ties go to the smallest (source, event_id), so the same events always name the same event.
--
-- A call that is little of its hour is less of its day and explains neither; leaving it out keeps this cheap. Maxima by
-- group come first, and only the calls that reach one are joined and ranked: no sort over all events.
WITH asked AS (
    SELECT
        event.dt, event.event_time, event.org, event.project, event.agent, event.source, event.event_id, event.model,
        event.reported_cost, event.cost, event.list_cost, event.price_ratio, event.mispriced,
        event.input_tokens, event.output_tokens
    FROM usage_events AS event
    INNER JOIN abnormal_days AS day
        ON event.dt = day.dt
        AND event.org IS NOT DISTINCT FROM day.org
        AND event.project IS NOT DISTINCT FROM day.project
        AND event.agent IS NOT DISTINCT FROM day.agent
),
worst AS (
    SELECT
        dt,
        date_trunc('hour', event_time) AS time,
        org, project, agent,
        max(CASE WHEN mispriced AND reported_cost > list_cost THEN reported_cost - list_cost END) AS overcharge,
        CASE WHEN sum(CASE WHEN cost > 0 THEN cost END) <= max(cost) * 4 THEN max(cost) END AS cost,
        CASE
            WHEN sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0))
                <= max(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) * 4
                THEN nullif(max(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0)
        END AS tokens
    FROM asked
    GROUP BY dt, date_trunc('hour', event_time), org, project, agent
),
candidates AS (
    SELECT
        worst.dt,
        worst.time,
        worst.org, worst.project, worst.agent,
        event.source, event.event_id, event.event_time, event.model,
        event.reported_cost, event.cost, event.list_cost, event.price_ratio, event.input_tokens, event.output_tokens,
        event.mispriced AND event.reported_cost - event.list_cost = worst.overcharge AS is_mispriced,
        event.cost = worst.cost AS is_dearest,
        coalesce(event.input_tokens, 0) + coalesce(event.output_tokens, 0) = worst.tokens AS is_largest
    FROM asked AS event
    INNER JOIN (
        SELECT * FROM worst WHERE overcharge IS NOT NULL OR cost IS NOT NULL OR tokens IS NOT NULL
    ) AS worst
        ON event.dt = worst.dt
        AND date_trunc('hour', event.event_time) = worst.time
        AND event.org IS NOT DISTINCT FROM worst.org
        AND event.project IS NOT DISTINCT FROM worst.project
        AND event.agent IS NOT DISTINCT FROM worst.agent
    WHERE event.reported_cost - event.list_cost = worst.overcharge
        OR event.cost = worst.cost
        OR coalesce(event.input_tokens, 0) + coalesce(event.output_tokens, 0) = worst.tokens
),
named AS (
    SELECT candidates.*, 'mispriced' AS kind FROM candidates WHERE is_mispriced
    UNION ALL
    SELECT candidates.*, 'dearest' AS kind FROM candidates WHERE is_dearest
    UNION ALL
    SELECT candidates.*, 'largest' AS kind FROM candidates WHERE is_largest
),
ranked AS (
    SELECT
        named.*,
        row_number() OVER (PARTITION BY dt, time, org, project, agent, kind ORDER BY source, event_id) AS place
    FROM named
)
SELECT
    dt, time, org, project, agent, kind,
    source, event_id, event_time, model,
    reported_cost, cost, list_cost, price_ratio, input_tokens, output_tokens
FROM ranked
WHERE place = 1
