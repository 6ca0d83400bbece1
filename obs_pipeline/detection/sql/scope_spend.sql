-- usage_daily → what every organisation, project and agent spent on every day, in one table.
--
-- Usage without a project counts for its organisation only, usage without an agent for its project too. Credits count
-- on the day they were booked. Usage without an organisation is an organisation without a name.
WITH scoped AS (
    SELECT 'org' AS scope, org, CAST(NULL AS VARCHAR) AS project, CAST(NULL AS VARCHAR) AS agent, dt, cost
    FROM usage_daily
    UNION ALL
    SELECT 'project' AS scope, org, project, CAST(NULL AS VARCHAR) AS agent, dt, cost
    FROM usage_daily
    WHERE project IS NOT NULL
    UNION ALL
    SELECT 'agent' AS scope, org, project, agent, dt, cost
    FROM usage_daily
    WHERE agent IS NOT NULL
)
SELECT scope, org, project, agent, dt, CAST(sum(cost) AS DECIMAL(38, 9)) AS cost
FROM scoped
GROUP BY scope, org, project, agent, dt
