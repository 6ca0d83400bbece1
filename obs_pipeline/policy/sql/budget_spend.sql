-- usage, limits → one row per limit with usage: what was used in its window and in its two trailing spans.
-- usage   org, project, agent, hour, cost, cost_bound, tokens, calls, unpriced_calls
-- limits  limit_no, scope, org, project, agent, kind, window_start, short_start, long_start, first_hour, until
-- A place without project or agent is written as '' on both sides, because a join does not match null with null.
WITH scoped AS (
    SELECT
        'org' AS scope, org, '' AS project, '' AS agent,
        hour, cost, cost_bound, tokens, calls, unpriced_calls
    FROM usage
    UNION ALL
    SELECT
        'project' AS scope, org, project, '' AS agent,
        hour, cost, cost_bound, tokens, calls, unpriced_calls
    FROM usage
    WHERE project IS NOT NULL
    UNION ALL
    SELECT
        'agent' AS scope, org, coalesce(project, '') AS project, agent,
        hour, cost, cost_bound, tokens, calls, unpriced_calls
    FROM usage
    WHERE agent IS NOT NULL
),
counted AS (
    SELECT
        limits.limit_no,
        scoped.hour >= limits.window_start AS in_window,
        scoped.hour >= limits.short_start AS in_short,
        scoped.hour >= limits.long_start AS in_long,
        CASE
            WHEN limits.kind = 'cost' THEN coalesce(scoped.cost, CAST(0 AS DECIMAL(38, 9)))
            WHEN limits.kind = 'tokens' THEN CAST(coalesce(scoped.tokens, 0) AS DECIMAL(38, 9))
            ELSE CAST(coalesce(scoped.calls, 0) AS DECIMAL(38, 9))
        END AS used,
        CASE
            WHEN limits.kind = 'cost' THEN coalesce(scoped.cost_bound, CAST(0 AS DECIMAL(38, 9)))
            ELSE CAST(0 AS DECIMAL(38, 9))
        END AS bound,
        CASE
            WHEN limits.kind = 'cost' AND scoped.unpriced_calls > 0 AND scoped.cost_bound IS NULL THEN 1
            ELSE 0
        END AS unbounded
    FROM limits
    JOIN scoped
        ON scoped.scope = limits.scope
        AND scoped.org = limits.org
        AND scoped.project = limits.project
        AND scoped.agent = limits.agent
        AND scoped.hour >= limits.first_hour
        AND scoped.hour < limits.until
)
SELECT
    limit_no,
    coalesce(sum(used) FILTER (WHERE in_window), CAST(0 AS DECIMAL(38, 9))) AS spent,
    coalesce(sum(bound) FILTER (WHERE in_window), CAST(0 AS DECIMAL(38, 9))) AS bound,
    coalesce(sum(unbounded) FILTER (WHERE in_window), 0) AS unbounded,
    coalesce(sum(used) FILTER (WHERE in_short), CAST(0 AS DECIMAL(38, 9))) AS used_short,
    coalesce(sum(used) FILTER (WHERE in_long), CAST(0 AS DECIMAL(38, 9))) AS used_long
FROM counted
GROUP BY limit_no
