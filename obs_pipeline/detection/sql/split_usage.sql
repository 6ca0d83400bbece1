-- What an abnormal hour or day and its reference period consist of, for some anomalies at once.
--
-- Input: usage_events, the canonical columns with dt and prices, of the anomalous days and the look-back before them;
-- questions, one row an anomaly: question, org, project, agent, metric, grain, start, finish (exclusive), reference_start;
-- known_anomalies: org, project, agent, metric, grain, severity, timestamp.
-- Output: one row for every question, side, provider, model and user, with exact sums. Side is observed, reference or
-- elsewhere: earlier usage that is not compared with, in one row without model and user; it tells that there was any.
--
-- The reference is what the baseline was learned from: the days before, for an hour the same hour of them. Days or hours
-- that were warnings or worse for the same metric themselves are left out: they are no example of the usual.
-- A call reported above its list price counts at list price, and what is above that apart (overcharge).
WITH asked AS (
    SELECT
        question.question,
        question.start,
        question.metric,
        question.grain,
        event.*,
        CASE
            WHEN event.event_time >= question.start THEN 'observed'
            WHEN question.grain = 'day' OR hour(event.event_time) = hour(question.start) THEN 'reference'
            ELSE 'elsewhere'
        END AS place,
        event.event_type = 'usage' AS is_call,
        event.event_type = 'usage' AND event.error_type IS NULL AS is_good,
        CASE
            WHEN event.event_type = 'usage' AND event.mispriced AND event.reported_cost > event.list_cost
                THEN event.reported_cost - event.list_cost
            ELSE CAST(0 AS DECIMAL(18, 9))
        END AS above_list
    FROM questions AS question
    INNER JOIN usage_events AS event
        ON event.agent IS NOT DISTINCT FROM question.agent
        AND event.project IS NOT DISTINCT FROM question.project
        AND event.org IS NOT DISTINCT FROM question.org
        AND event.dt >= CAST(question.reference_start AS DATE)
        AND event.event_time >= question.reference_start
        AND event.event_time < question.finish
),
compared AS (
    SELECT
        asked.*,
        CASE WHEN other.severity IS NULL THEN asked.place ELSE 'elsewhere' END AS side
    FROM asked
    -- At most one anomaly matches an event, so nothing is counted twice.
    LEFT JOIN (SELECT * FROM known_anomalies WHERE severity IN ('warning', 'critical')) AS other
        ON asked.place = 'reference'
        AND asked.agent IS NOT DISTINCT FROM other.agent
        AND asked.project IS NOT DISTINCT FROM other.project
        AND asked.org IS NOT DISTINCT FROM other.org
        AND asked.metric = other.metric
        AND asked.grain = other.grain
        AND CAST(asked.dt AS DATE) = CAST(other.timestamp AS DATE)
        AND (asked.grain = 'day' OR hour(asked.event_time) = hour(other.timestamp))
)
SELECT
    question,
    side,
    CASE WHEN side <> 'elsewhere' THEN provider END AS provider,
    CASE WHEN side <> 'elsewhere' THEN model END AS model,
    CASE WHEN side <> 'elsewhere' THEN user_id END AS user_id,
    count(*) FILTER (WHERE is_call) AS calls,
    count(*) FILTER (WHERE is_call AND NOT is_good) AS failed_calls,
    count(*) FILTER (WHERE is_call AND cost IS NULL) AS unpriced_calls,
    count(*) FILTER (WHERE above_list > 0) AS overcharged_calls,
    count(*) FILTER (WHERE is_good AND cost IS NOT NULL) AS priced_calls,
    CAST(coalesce(sum(input_tokens) FILTER (WHERE is_good AND cost IS NOT NULL), 0) AS BIGINT) AS priced_input,
    CAST(coalesce(sum(cache_read_tokens) FILTER (WHERE is_good AND cost IS NOT NULL), 0) AS BIGINT) AS priced_cache_read,
    CAST(coalesce(sum(cache_write_tokens) FILTER (WHERE is_good AND cost IS NOT NULL), 0) AS BIGINT)
        AS priced_cache_write,
    CAST(coalesce(sum(output_tokens) FILTER (WHERE is_good AND cost IS NOT NULL), 0) AS BIGINT) AS priced_output,
    CAST(coalesce(sum(cost - above_list) FILTER (WHERE is_good), 0) AS DECIMAL(38, 9)) AS good_cost,
    CAST(coalesce(sum(cost - above_list) FILTER (WHERE is_call AND NOT is_good), 0) AS DECIMAL(38, 9)) AS failed_cost,
    CAST(coalesce(sum(above_list), 0) AS DECIMAL(38, 9)) AS overcharge,
    CAST(coalesce(sum(list_cost) FILTER (WHERE above_list > 0), 0) AS DECIMAL(38, 9)) AS overcharged_list,
    CAST(coalesce(sum(cost) FILTER (WHERE NOT is_call), 0) AS DECIMAL(38, 9)) AS credits,
    CAST(coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FILTER (WHERE is_good), 0) AS BIGINT)
        AS good_tokens,
    -- Tokens of credits and corrections count where the series counts them: here they join the failed calls' tokens.
    CAST(coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FILTER (WHERE NOT is_good), 0) AS BIGINT)
        AS other_tokens,
    CAST(coalesce(max(input_tokens), 0) AS BIGINT) AS largest_input,
    count(latency_ms) FILTER (WHERE is_good) AS timed_calls,
    CAST(coalesce(sum(CAST(round(latency_ms * 1000) AS BIGINT)) FILTER (WHERE is_good), 0) AS BIGINT) AS waited_us,
    CAST(coalesce(sum(output_tokens) FILTER (WHERE is_good AND latency_ms IS NOT NULL), 0) AS BIGINT) AS timed_output,
    count(latency_ms) FILTER (WHERE NOT is_good) AS timed_failed_calls,
    CAST(coalesce(sum(CAST(round(latency_ms * 1000) AS BIGINT)) FILTER (WHERE NOT is_good), 0) AS BIGINT)
        AS failed_waited_us
FROM compared
GROUP BY
    question,
    side,
    CASE WHEN side <> 'elsewhere' THEN provider END,
    CASE WHEN side <> 'elsewhere' THEN model END,
    CASE WHEN side <> 'elsewhere' THEN user_id END
