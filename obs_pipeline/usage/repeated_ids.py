"""Event ids that stand for several events because they repeat further apart than settling compares them.

Settling a day compares its ids with those of a few days before (``settling.ID_REACH_DAYS``), so that a day costs the same
whatever the history. Here is the look over a longer window that finds what it lets through: a file sent again with other
times, a counter that began anew. It only reports; what is counted stays counted until the cause is mended.

Reads ids and days alone, compares 64-bit hashes of them a share at a time, and looks at the ids themselves only where
hashes repeat. No Dagster, no clock.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import duckdb

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.proofs import Proof
from obs_pipeline.usage.tables import USAGE_EVENTS

_HELD_ROWS: Final = 8_000_000
"""How many hashes are held at a time: some 400 MB of the engine's memory."""
_SHOWN: Final = 10
_HASHES: Final = "SELECT dt, hash(source, event_id) AS id FROM usage_events"
_REPEATED: Final = f"""
    INSERT INTO repeated_hashes
    SELECT id FROM ({_HASHES}) WHERE id % CAST($shares AS UBIGINT) = CAST($share AS UBIGINT)
    GROUP BY id HAVING max(dt) - min(dt) > $reach
"""
_FOUND: Final = """
    SELECT source, event_id, count(*) AS events, min(dt) AS first_day, max(dt) AS last_day,
        CAST(coalesce(sum(cost), 0) - coalesce(min_by(cost, event_time), 0) AS DECIMAL(38, 9)) AS cost_after_the_first
    FROM usage_events WHERE hash(source, event_id) IN (SELECT id FROM repeated_hashes)
    GROUP BY source, event_id HAVING last_day - first_day > $reach
"""


def window_before(lake: Lake, window_days: int, most_rows: int | None = None) -> DayRange | None:
    """The last ``window_days`` days up to the newest with events; fewer, where those hold more than ``most_rows``.

    None when there is nothing to look through.
    """
    rows = lake.rows_per_day(USAGE_EVENTS)
    if not rows or window_days < 1:
        return None
    newest = max(rows)
    window = DayRange(newest - timedelta(days=window_days - 1), newest)
    first, held = newest, 0
    for day in reversed(window.days()):
        held += rows.get(day, 0)
        if most_rows is not None and held > most_rows:
            break
        first = day
    return DayRange(first, newest)


def repeated_ids(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, reach_days: int) -> Proof:
    """No (source, event id) of the days has events more than ``reach_days`` apart.

    An offence is an event after the first of its id; the examples are ids, those with the most cost after their first
    event (USD) first.
    """
    rows = sum(lake.rows_per_day(USAGE_EVENTS, days).values())
    lake.view(connection, USAGE_EVENTS, days)
    connection.execute("CREATE OR REPLACE TEMP TABLE repeated_hashes (id UBIGINT)")
    shares = rows // _HELD_ROWS + 1
    for share in range(shares):
        connection.execute(_REPEATED, {"shares": shares, "share": share, "reach": reach_days})
    found = connection.execute(
        f"SELECT sum(events - 1) OVER () AS offences, * FROM ({_FOUND}) "
        f"ORDER BY cost_after_the_first DESC, source, event_id LIMIT {_SHOWN}",
        {"reach": reach_days},
    )
    names = [column[0] for column in found.description or []]
    offending = found.fetchall()
    examples = [dict(zip(names[1:], row[1:], strict=True)) for row in offending]
    return Proof(int(offending[0][0]) if offending else 0, examples)
