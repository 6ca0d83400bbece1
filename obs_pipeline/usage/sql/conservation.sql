-- landed_rows (what the reader counted) against the lake → the files and days that do not add up.
WITH found AS (
    SELECT dt, file_id, count(*) AS events, 0 AS rejected, 0 AS duplicates FROM usage_events GROUP BY dt, file_id
    UNION ALL
    SELECT dt, file_id, 0 AS events, count(*) AS rejected, 0 AS duplicates FROM usage_rejected GROUP BY dt, file_id
    UNION ALL
    SELECT dt, file_id, 0 AS events, 0 AS rejected, count(*) AS duplicates FROM usage_duplicates GROUP BY dt, file_id
),
per_day AS (
    SELECT
        dt, file_id,
        CAST(sum(events) AS BIGINT) AS events,
        CAST(sum(rejected) AS BIGINT) AS rejected,
        CAST(sum(duplicates) AS BIGINT) AS duplicates
    FROM found
    GROUP BY dt, file_id
)
SELECT
    l.dt, l.name, l.rows_in,
    coalesce(p.events, 0) AS events,
    coalesce(p.rejected, 0) AS rejected,
    coalesce(p.duplicates, 0) AS duplicates
FROM landed_rows AS l
LEFT JOIN per_day AS p ON l.dt = p.dt AND l.file_id = p.file_id
WHERE l.rows_in <> coalesce(p.events, 0) + coalesce(p.rejected, 0) + coalesce(p.duplicates, 0)
ORDER BY l.dt, l.name
