-- usage_daily, usage_hourly, forecast_windows → what every scope spent in each window so far, exactly.
--
-- forecast_windows, one row a day, organisation and period: window_no, org, window_start, as_of, first_day (the first
-- whole UTC day in the window), last_day (the UTC day of as_of, itself not whole). Whole days come from the daily table;
-- what a window has of the days at its ends, in zones other than UTC or before the day is over, from the hourly one.
-- In zones at half and quarter hours the hour that a window begins in counts for the window before.
WITH pieces AS (
    SELECT w.window_no, u.org, u.project, u.agent, u.cost, u.unpriced_calls
    FROM forecast_windows AS w
    INNER JOIN usage_daily AS u
        ON u.org IS NOT DISTINCT FROM w.org AND u.dt >= w.first_day AND u.dt < w.last_day
    UNION ALL
    SELECT w.window_no, u.org, u.project, u.agent, u.cost, u.unpriced_calls
    FROM forecast_windows AS w
    INNER JOIN usage_hourly AS u
        ON u.org IS NOT DISTINCT FROM w.org AND u.hour >= w.window_start AND u.hour < w.as_of
    WHERE u.dt < w.first_day OR u.dt >= w.last_day
),
scoped AS (
    SELECT window_no, 'org' AS scope, org, CAST(NULL AS VARCHAR) AS project, CAST(NULL AS VARCHAR) AS agent,
        cost, unpriced_calls
    FROM pieces
    UNION ALL
    SELECT window_no, 'project' AS scope, org, project, CAST(NULL AS VARCHAR) AS agent, cost, unpriced_calls
    FROM pieces
    WHERE project IS NOT NULL
    UNION ALL
    SELECT window_no, 'agent' AS scope, org, project, agent, cost, unpriced_calls
    FROM pieces
    WHERE agent IS NOT NULL
)
SELECT
    window_no, scope, org, project, agent,
    CAST(sum(cost) AS DECIMAL(38, 9)) AS spent,
    CAST(sum(unpriced_calls) AS BIGINT) AS unpriced_calls
FROM scoped
GROUP BY window_no, scope, org, project, agent
