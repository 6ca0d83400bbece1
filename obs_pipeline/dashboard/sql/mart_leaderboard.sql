-- usage_daily (the days and the seven before them) and days (those to answer for) → mart_leaderboard.
WITH per_day AS (
    SELECT dt, org, project, agent, CAST(sum(calls) AS BIGINT) AS calls, sum(cost) AS cost
    FROM usage_daily
    GROUP BY dt, org, project, agent
),
compared AS (
    SELECT
        d.dt, p.org, p.project, p.agent,
        CAST(coalesce(sum(p.calls) FILTER (WHERE p.dt = d.dt), 0) AS BIGINT) AS calls,
        CAST(coalesce(sum(p.cost) FILTER (WHERE p.dt = d.dt), 0) AS DECIMAL(38, 9)) AS cost,
        CAST(coalesce(sum(p.cost) FILTER (WHERE p.dt < d.dt), 0) AS DECIMAL(38, 9)) AS cost_before
    FROM days AS d
    INNER JOIN per_day AS p ON p.dt <= d.dt AND p.dt >= d.week_before
    GROUP BY d.dt, p.org, p.project, p.agent
),
changed AS (
    SELECT
        dt, org, project, agent, calls, cost,
        CAST(CAST(cost_before AS DOUBLE) / 7 AS DECIMAL(38, 9)) AS cost_week_before
    FROM compared
)
SELECT
    dt, org, project, agent, calls, cost, cost_week_before,
    CAST(cost - cost_week_before AS DECIMAL(38, 9)) AS cost_change,
    row_number() OVER (
        PARTITION BY dt ORDER BY abs(cost - cost_week_before) DESC, org, project, agent
    ) AS place
FROM changed
