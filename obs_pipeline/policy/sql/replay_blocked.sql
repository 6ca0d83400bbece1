-- usage, lines, judged, span → the calls and the cost that any limit would have stopped, each once; one row a side.
WITH stops AS (
    SELECT DISTINCT lines.side, lines.scope, lines.org, lines.project, lines.agent, judged.hour
    FROM judged
    JOIN lines ON lines.line_no = judged.line_no
    CROSS JOIN span
    WHERE judged.blocked AND judged.hour >= span.first
),
stopped AS (
    SELECT stops.side, usage.org, usage.project, usage.agent, usage.hour, usage.calls, usage.cost
    FROM usage
    JOIN stops ON stops.scope = 'org' AND stops.hour = usage.hour AND stops.org = usage.org
    UNION
    SELECT stops.side, usage.org, usage.project, usage.agent, usage.hour, usage.calls, usage.cost
    FROM usage
    JOIN stops
        ON stops.scope = 'project'
        AND stops.hour = usage.hour
        AND stops.org = usage.org
        AND stops.project = usage.project
    UNION
    SELECT stops.side, usage.org, usage.project, usage.agent, usage.hour, usage.calls, usage.cost
    FROM usage
    JOIN stops
        ON stops.scope = 'agent'
        AND stops.hour = usage.hour
        AND stops.org = usage.org
        AND stops.project = usage.project
        AND stops.agent = usage.agent
)
SELECT side, CAST(sum(calls) AS BIGINT) AS calls, sum(cost) AS cost
FROM stopped
GROUP BY side
