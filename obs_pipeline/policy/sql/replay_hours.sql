-- usage, lines, hours, pieces → one row per limit and hour with usage: what had been used in its window, and its limit.
-- usage   org, project, agent, hour, cost, tokens, calls, one row each place and hour; a missing project or agent is ''
-- lines   line_no, scope, org, project, agent, kind, calendar_no
-- hours   calendar_no, hour, window_start
-- pieces  piece_no, line_no, starts, ends, value: the limit from starts until ends
WITH scoped AS (
    SELECT
        'org' AS scope, org, '' AS project, '' AS agent, hour,
        sum(cost) AS cost, CAST(sum(tokens) AS BIGINT) AS tokens, CAST(sum(calls) AS BIGINT) AS calls
    FROM usage
    GROUP BY org, hour
    UNION ALL
    SELECT
        'project' AS scope, org, project, '' AS agent, hour,
        sum(cost) AS cost, CAST(sum(tokens) AS BIGINT) AS tokens, CAST(sum(calls) AS BIGINT) AS calls
    FROM usage
    WHERE project <> ''
    GROUP BY org, project, hour
    UNION ALL
    SELECT 'agent' AS scope, org, project, agent, hour, cost, tokens, calls
    FROM usage
    WHERE agent <> ''
),
used AS (
    SELECT
        lines.line_no,
        hours.window_start,
        scoped.hour,
        scoped.cost,
        scoped.calls,
        CASE
            WHEN lines.kind = 'cost' THEN scoped.cost
            WHEN lines.kind = 'tokens' THEN CAST(scoped.tokens AS DECIMAL(38, 9))
            ELSE CAST(scoped.calls AS DECIMAL(38, 9))
        END AS used
    FROM lines
    JOIN scoped
        ON scoped.scope = lines.scope
        AND scoped.org = lines.org
        AND scoped.project = lines.project
        AND scoped.agent = lines.agent
    JOIN hours
        ON hours.calendar_no = lines.calendar_no
        AND hours.hour = scoped.hour
),
running AS (
    SELECT
        line_no, window_start, hour, cost, calls, used,
        sum(used) OVER (PARTITION BY line_no, window_start ORDER BY hour) AS so_far
    FROM used
)
SELECT
    running.line_no,
    running.window_start,
    running.hour,
    running.cost,
    running.calls,
    running.so_far,
    pieces.piece_no,
    running.so_far > pieces.value AS exceeded,
    running.so_far - running.used >= pieces.value AS blocked
FROM running
JOIN pieces
    ON pieces.line_no = running.line_no
    AND running.hour >= pieces.starts
    AND running.hour < pieces.ends
