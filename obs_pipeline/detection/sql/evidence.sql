-- The worst single calls of every hour and series: what a reason can point at.
--
-- Input: usage_events, the canonical columns with dt, cost, list_cost, price_ratio and mispriced.
-- Output: for every dt, hour (time), org, project and agent at most one call of each kind:
--   mispriced  the call reported furthest above its list price (USD)
--   dearest    the call with the highest cost, if it is at least a quarter of the hour's cost
--   largest    the call with the most input and output tokens, if it is at least a quarter of the hour's tokens
-- Ties go to the smallest (source, event_id), so the same events always name the same call.
--
-- A call that is little of its hour is less of its day and explains neither; leaving it out keeps this cheap. Maxima by
-- group come first, and only the calls that reach one are joined and ranked: no sort over all events.

WITH calls AS (
    SELECT
        dt,
        date_trunc('hour', event_time) AS time,
        org,
        project,
        agent,
        source,
        event_id,
        event_time,
        model,
        reported_cost,
        cost,
        list_cost,
        price_ratio,
        input_tokens,
        output_tokens,
        CASE WHEN mispriced AND reported_cost > list_cost THEN reported_cost - list_cost END AS overcharge,
        CASE WHEN cost > 0 THEN cost END AS positive_cost,
        nullif(coalesce(input_tokens, 0) + coalesce(output_tokens, 0), 0) AS tokens
    FROM usage_events
),

worst AS (
    SELECT
        dt,
        time,
        org,
        project,
        agent,
        max(overcharge) AS overcharge,
        CASE WHEN sum(positive_cost) <= max(positive_cost) * 4 THEN max(positive_cost) END AS positive_cost,
        CASE WHEN sum(tokens) <= max(tokens) * 4 THEN max(tokens) END AS tokens
    FROM calls
    GROUP BY dt, time, org, project, agent
),

candidates AS (
    SELECT
        calls.*,
        calls.overcharge = worst.overcharge AS is_mispriced,
        calls.positive_cost = worst.positive_cost AS is_dearest,
        calls.tokens = worst.tokens AS is_largest
    FROM calls
    INNER JOIN (
        SELECT * FROM worst
        WHERE overcharge IS NOT NULL OR positive_cost IS NOT NULL OR tokens IS NOT NULL
    ) AS worst
        ON calls.dt = worst.dt
        AND calls.time = worst.time
        AND calls.org IS NOT DISTINCT FROM worst.org
        AND calls.project IS NOT DISTINCT FROM worst.project
        AND calls.agent IS NOT DISTINCT FROM worst.agent
    WHERE calls.overcharge = worst.overcharge
        OR calls.positive_cost = worst.positive_cost
        OR calls.tokens = worst.tokens
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
        row_number() OVER (
            PARTITION BY dt, time, org, project, agent, kind ORDER BY source, event_id
        ) AS place
    FROM named
)

SELECT
    dt,
    time,
    org,
    project,
    agent,
    kind,
    source,
    event_id,
    event_time,
    model,
    reported_cost,
    cost,
    list_cost,
    price_ratio,
    input_tokens,
    output_tokens
FROM ranked
WHERE place = 1
