-- judged, marks, span → one row per limit that had usage: windows, those exceeded, alerts, and what it would have stopped.
-- judged  as replay_hours answers
-- marks   piece_no, threshold, amount: what a threshold comes to
-- span    first: the hour from which on things count; the hours before only fill the windows they belong to
WITH windows AS (
    SELECT
        line_no,
        window_start,
        max(hour) AS last_hour,
        min(CASE WHEN exceeded THEN hour END) AS exceeded_at
    FROM judged
    GROUP BY line_no, window_start
),
counted AS (
    SELECT
        windows.line_no,
        count(*) AS windows,
        sum(CASE WHEN windows.exceeded_at >= span.first THEN 1 ELSE 0 END) AS exceeded,
        min(CASE WHEN windows.exceeded_at >= span.first THEN windows.exceeded_at END) AS first_exceeded
    FROM windows
    CROSS JOIN span
    WHERE windows.last_hour >= span.first
    GROUP BY windows.line_no
),
crossings AS (
    SELECT judged.line_no, judged.window_start, marks.threshold, min(judged.hour) AS crossed_at
    FROM judged
    JOIN marks ON marks.piece_no = judged.piece_no
    WHERE judged.so_far >= marks.amount AND judged.so_far > 0
    GROUP BY judged.line_no, judged.window_start, marks.threshold
),
alerts AS (
    SELECT crossings.line_no, count(*) AS alerts
    FROM crossings
    CROSS JOIN span
    WHERE crossings.crossed_at >= span.first
    GROUP BY crossings.line_no
),
stopped AS (
    SELECT judged.line_no, sum(judged.calls) AS calls, sum(judged.cost) AS cost
    FROM judged
    CROSS JOIN span
    WHERE judged.blocked AND judged.hour >= span.first
    GROUP BY judged.line_no
)
SELECT
    counted.line_no,
    counted.windows,
    counted.exceeded,
    coalesce(alerts.alerts, 0) AS alerts,
    coalesce(stopped.calls, 0) AS calls_blocked,
    coalesce(stopped.cost, CAST(0 AS DECIMAL(38, 9))) AS cost_blocked,
    counted.first_exceeded
FROM counted
LEFT JOIN alerts ON alerts.line_no = counted.line_no
LEFT JOIN stopped ON stopped.line_no = counted.line_no
ORDER BY counted.line_no
