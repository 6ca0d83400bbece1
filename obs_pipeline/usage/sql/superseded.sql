-- suspects (the usage_events of some days, and of the days before them that ids are compared with; those whose id is known
-- to stand there once may be left out) and usage_rejected of the same days → a verdict on every row whose (source, event
-- id) is there more than once. In order of event time, then content, file and row, a row stays unless its predecessor is
-- of the same day or no more days before than the one row of id_reach says (an interval): the answer depends neither on
-- the order of landing nor on how many days are settled at once. Rows quarantined as conflicts earlier take part again, so
-- it does not depend either on when the batch ran in between. The same content again is a duplicate, other content under
-- the same id a conflict.
WITH repeated AS (
    SELECT source, event_id FROM suspects GROUP BY source, event_id HAVING count(*) > 1
    UNION
    SELECT source, event_id FROM usage_rejected WHERE reason = 'id_conflict'
),
described AS (
    SELECT
        e.dt, e.source, e.event_id, e.event_time, e.file_id, e.row_number,
        concat_ws(' ',
            concat('event_id=', e.event_id),
            concat('event_time=', CAST(e.event_time AS STRING)),
            concat('event_type=', coalesce(e.event_type, '')),
            concat('org=', coalesce(e.org, '')),
            concat('project=', coalesce(e.project, '')),
            concat('team=', coalesce(e.team, '')),
            concat('agent=', coalesce(e.agent, '')),
            concat('user_id=', coalesce(e.user_id, '')),
            concat('session_id=', coalesce(e.session_id, '')),
            concat('provider=', coalesce(e.provider, '')),
            concat('model=', coalesce(e.model, '')),
            concat('operation=', coalesce(e.operation, '')),
            concat('input_tokens=', coalesce(CAST(e.input_tokens AS STRING), '')),
            concat('cache_read_tokens=', coalesce(CAST(e.cache_read_tokens AS STRING), '')),
            concat('cache_write_tokens=', coalesce(CAST(e.cache_write_tokens AS STRING), '')),
            concat('output_tokens=', coalesce(CAST(e.output_tokens AS STRING), '')),
            concat('reasoning_tokens=', coalesce(CAST(e.reasoning_tokens AS STRING), '')),
            concat('saved_tokens=', coalesce(CAST(e.saved_tokens AS STRING), '')),
            concat('reported_cost=', coalesce(CAST(e.reported_cost AS STRING), '')),
            concat('latency_ms=', coalesce(CAST(e.latency_ms AS STRING), '')),
            concat('ttft_ms=', coalesce(CAST(e.ttft_ms AS STRING), '')),
            concat('error_type=', coalesce(e.error_type, '')),
            concat('attributes=', coalesce(e.attributes, ''))
        ) AS content
    FROM suspects AS e
    INNER JOIN repeated AS r ON e.source = r.source AND e.event_id = r.event_id
    UNION
    SELECT dt, source, event_id, event_time, file_id, row_number, raw AS content
    FROM usage_rejected
    WHERE reason = 'id_conflict'
),
ranked AS (
    SELECT
        *,
        lag(dt) OVER (PARTITION BY source, event_id ORDER BY event_time, content, file_id, row_number) AS day_before,
        row_number() OVER (PARTITION BY source, event_id, content ORDER BY file_id, row_number) AS copy
    FROM described
)
SELECT
    dt, source, event_id, event_time, file_id, row_number, content,
    CASE
        WHEN day_before IS NULL OR day_before < dt - id_reach.days THEN 'kept'
        WHEN copy > 1 THEN 'duplicate'
        ELSE 'conflict'
    END AS verdict
FROM ranked
CROSS JOIN id_reach
