"""The same call reported by two sources: a gateway and a client library, a library and a tracing service.

Two rows of different sources are **the same call** when both carry the response id the provider gave, begin within an hour of
each other, and neither says another organisation than the other. That is proof: one is counted, the other goes to quarantine as
``counted_already``. They are **near twins** when model, agent and tokens agree and they begin within seconds, and no pair of
response ids says otherwise. That is a suspicion: both are counted, and reported with the cost that may be counted twice. Two
rows of one source are two calls, however alike. Near twins are sought within a day first; what has none there and lies within
seconds of midnight is held against the other side of it, and such a pair stands in the report of the later day.

Which one counts
----------------
The one of the earlier day, so that a day that was settled stays; else the one with a cost its source reports, because that is
what was charged and a list price is what we reckon; else the one that knows its tokens; else by name of the source, time and id,
so that it never depends on the order of landing. The k-th row of one source stands for the k-th of the other: an answer from a
cache has an id again, and is another call. What went to quarantine earlier stays there and keeps its counterpart.

Cheap where there is nothing to find: only rows of days and organisations in which two sources were alive are looked at.

Reads the views ``usage_events`` and ``usage_rejected``; no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

import duckdb

from obs_pipeline.storage.engine import one_row
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.proofs import Proof
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_REJECTED, USAGE_TWINS

COUNTED_ALREADY: Final = "counted_already"
NEAR_SECONDS: Final = 5
SAME_CALL_SECONDS: Final = 3_600
"""How far apart two sources may say that a call of one response id began."""

_TOGETHER: Final = """
    CREATE OR REPLACE TEMP TABLE together AS
    WITH alive AS (SELECT DISTINCT dt, org, source FROM usage_events)
    SELECT DISTINCT a.dt, a.org, a.source
    FROM alive a JOIN alive b
        ON a.source <> b.source AND b.dt BETWEEN a.dt - 1 AND a.dt + 1
        AND (a.org = b.org OR a.org IS NULL OR b.org IS NULL)
"""
_BOTH_ALIVE: Final = "SEMI JOIN together t ON t.dt = e.dt AND t.source = e.source AND t.org IS NOT DISTINCT FROM e.org"
_RESPONSE_ID: Final = """
    CASE WHEN contains(e.attributes, 'response_id') THEN list_extract(list_filter(
        json_extract_string(e.attributes, ['$.response_id', '$.provider_response_id']), lambda one: one <> ''
    ), 1) END
"""
_OURS: Final = '{"response_id":%'
"""How the quarantined rows of this module are told from those that the reader of one file set aside."""
_PLACE: Final = "reported_cost IS NULL, input_tokens IS NULL, source, event_time, event_id"
_NAMED: Final = f"""
    CREATE OR REPLACE TEMP TABLE named AS
    WITH ids AS MATERIALIZED (
        SELECT DISTINCT hash({_RESPONSE_ID}) AS id FROM usage_events e {_BOTH_ALIVE}
        WHERE e.source <> $busiest AND e.event_type = 'usage' AND contains(e.attributes, 'response_id')
    ),
    found AS MATERIALIZED (
        SELECT e.dt, e.source, e.event_id, e.event_time, e.file_id, e.row_number, e.org, e.agent, e.model, e.cost,
            e.reported_cost, e.input_tokens, e.output_tokens, {_RESPONSE_ID} AS response_id
        FROM usage_events e {_BOTH_ALIVE}
        SEMI JOIN ids b ON b.id = hash({_RESPONSE_ID})
        ANTI JOIN leaving l ON l.dt = e.dt AND l.file_id = e.file_id AND l.row_number = e.row_number
        WHERE e.event_type = 'usage' AND contains(e.attributes, 'response_id') AND response_id IS NOT NULL
    ),
    both_name AS (SELECT response_id FROM found GROUP BY response_id HAVING min(source) <> max(source)),
    gone_before AS (
        SELECT r.dt, r.source, json_extract_string(r.raw, '$.org') AS org,
            json_extract_string(r.raw, '$.response_id') AS response_id, count(*) AS gone
        FROM usage_rejected r ANTI JOIN usage_events e USING (dt, file_id, row_number)
        WHERE r.reason = '{COUNTED_ALREADY}' AND r.raw LIKE '{_OURS}'
        GROUP BY ALL
    )
    SELECT * REPLACE (repeat + coalesce(gone, 0) AS repeat)
    FROM (
        SELECT *, ROW(dt, {_PLACE}) AS place,
            row_number() OVER (PARTITION BY response_id, dt, org, source ORDER BY event_time, event_id) AS repeat
        FROM found SEMI JOIN both_name USING (response_id)
    ) f
    LEFT JOIN (SELECT response_id AS gone_id, dt AS gone_dt, source AS gone_source, org AS gone_org, gone FROM gone_before) g
        ON gone_id = response_id AND gone_dt = dt AND gone_source = source AND gone_org IS NOT DISTINCT FROM org
"""
_TWINS: Final = f"""
    CREATE OR REPLACE TEMP TABLE twins AS
    WITH pairs AS (
        SELECT a.*, b.source AS counted_source, b.event_id AS counted_event_id, b.cost AS counted_cost,
            row_number() OVER (PARTITION BY a.dt, a.file_id, a.row_number ORDER BY b.place) AS nth
        FROM named a JOIN named b
            ON a.response_id = b.response_id AND a.repeat = b.repeat AND a.source <> b.source AND b.place < a.place
            AND (a.org = b.org OR a.org IS NULL OR b.org IS NULL)
            AND abs(epoch_us(a.event_time) - epoch_us(b.event_time)) <= {SAME_CALL_SECONDS}000000
        WHERE a.dt BETWEEN $first AND $last
    )
    SELECT dt, source, event_id, event_time, file_id, row_number, counted_source, counted_event_id,
        CAST(to_json({{
            'response_id': response_id, 'counted_source': counted_source, 'counted_event_id': counted_event_id,
            'org': org, 'agent': agent, 'model': model, 'input_tokens': input_tokens, 'output_tokens': output_tokens,
            'cost': CAST(cost AS VARCHAR), 'counted_cost': CAST(counted_cost AS VARCHAR)
        }}) AS VARCHAR) AS content
    FROM pairs WHERE nth = 1
"""
_MODEL_KEY: Final = (
    "lower(regexp_replace(split_part(model, '/', -1), '[-@](20[0-9]{6}|20[0-9-]{8})$', ''))"  # less prefix and date
)
_KEYED: Final = (
    "CREATE OR REPLACE TEMP TABLE without_org AS SELECT DISTINCT dt, true AS any_org FROM together WHERE org IS NULL",
    f"""
    CREATE OR REPLACE TEMP TABLE models AS
    SELECT model, {_MODEL_KEY} AS model_key
    FROM (SELECT DISTINCT model FROM usage_events WHERE model IS NOT NULL)
    """,
    f"""
    CREATE OR REPLACE TEMP VIEW keyed AS
    SELECT e.dt, e.org, e.source, e.event_id, e.event_time, e.model, e.agent, e.input_tokens, e.attributes,
        coalesce(e.output_tokens, 0) AS output_tokens, e.cost, e.reported_cost,
        hash(e.dt, m.model_key, e.input_tokens, coalesce(e.output_tokens, 0),
            CASE WHEN o.any_org THEN '' ELSE coalesce(e.org, '') END) AS key
    FROM usage_events e {_BOTH_ALIVE} JOIN models m ON m.model = e.model LEFT JOIN without_org o ON o.dt = e.dt
    WHERE e.event_type = 'usage' AND e.input_tokens > 0
    """,
)
_FEWER: Final = "CREATE OR REPLACE TEMP TABLE fewer AS SELECT DISTINCT key FROM keyed WHERE source <> $busiest"
_NEAR_MIDNIGHT: Final = f"""
    CREATE OR REPLACE TEMP TABLE near_midnight AS
    SELECT dt, org, source, event_id, event_time, model, agent, input_tokens, coalesce(output_tokens, 0) AS output_tokens,
        cost, reported_cost, {_RESPONSE_ID} AS response_id, {_MODEL_KEY} AS model_key,
        CAST(event_time + INTERVAL {NEAR_SECONDS} SECOND AS DATE) AS midnight
    FROM usage_events e
    WHERE event_type = 'usage' AND input_tokens > 0 AND model IS NOT NULL
"""
_ALIKE: Final = """
    CREATE OR REPLACE TEMP TABLE alike AS
    SELECT DISTINCT k.key FROM keyed k SEMI JOIN fewer f ON f.key = k.key WHERE k.source = $busiest
    UNION
    SELECT key FROM keyed WHERE source <> $busiest GROUP BY key HAVING min(hash(source)) <> max(hash(source))
"""
_REPORT: Final = f"""
    WITH same_call AS (
        SELECT dt, 'same call' AS kind, json_extract_string(raw, '$.org') AS org, source, event_id,
            json_extract_string(raw, '$.counted_source') AS counted_source,
            json_extract_string(raw, '$.counted_event_id') AS counted_event_id, event_time,
            json_extract_string(raw, '$.model') AS model, json_extract_string(raw, '$.agent') AS agent,
            CAST(json_extract_string(raw, '$.input_tokens') AS BIGINT) AS input_tokens,
            CAST(json_extract_string(raw, '$.output_tokens') AS BIGINT) AS output_tokens,
            CAST(json_extract_string(raw, '$.cost') AS DECIMAL(18, 9)) AS cost,
            CAST(json_extract_string(raw, '$.counted_cost') AS DECIMAL(18, 9)) AS counted_cost
        FROM usage_rejected
        WHERE reason = '{COUNTED_ALREADY}' AND raw LIKE '{_OURS}'
    ),
    calls AS (
        SELECT e.* EXCLUDE (attributes), {_RESPONSE_ID} AS response_id FROM keyed e SEMI JOIN alike a ON a.key = e.key
    ),
    timed AS (
        SELECT c.*, coalesce(epoch_us(event_time) - epoch_us(lag(event_time) OVER of_key), 0)
            > {NEAR_SECONDS}000000 AS begins
        FROM calls c
        WINDOW of_key AS (
            PARTITION BY key ORDER BY event_time, source, event_id
        )
    ),
    bunched AS (
        SELECT *, count(*) FILTER (begins) OVER (
            PARTITION BY key ORDER BY event_time, source, event_id
            ROWS UNBOUNDED PRECEDING
        ) AS bunch FROM timed
    ),
    paired AS (
        SELECT *, row_number() OVER (
            PARTITION BY key, bunch, source ORDER BY event_time, event_id
        ) AS repeat FROM bunched
    ),
    compared AS (
        SELECT *, row_number() OVER pair AS place, first_value(source) OVER pair AS counted_source,
            first_value(event_id) OVER pair AS counted_event_id, first_value(cost) OVER pair AS counted_cost,
            first_value(event_time) OVER pair AS counted_time, first_value(org) OVER pair AS counted_org,
            first_value(agent) OVER pair AS counted_agent, first_value(response_id) OVER pair AS counted_response
        FROM paired
        WINDOW pair AS (
            PARTITION BY key, bunch, repeat ORDER BY {_PLACE}
        )
    ),
    within_a_day AS MATERIALIZED (
        SELECT dt, coalesce(org, counted_org) AS org, source, event_id, counted_source, counted_event_id, event_time, model,
            coalesce(agent, counted_agent) AS agent, input_tokens, output_tokens, cost, counted_cost
        FROM compared
        WHERE place > 1
            AND abs(epoch_us(event_time) - epoch_us(counted_time)) <= {NEAR_SECONDS}000000
            AND (org = counted_org OR org IS NULL OR counted_org IS NULL)
            AND (agent = counted_agent OR agent IS NULL OR counted_agent IS NULL)
            AND (response_id IS NULL OR counted_response IS NULL OR response_id = counted_response)
    ),
    paired_already AS (
        SELECT source, event_id FROM within_a_day
        UNION ALL SELECT counted_source, counted_event_id FROM within_a_day
        UNION ALL SELECT source, event_id FROM twins_before WHERE kind = 'near twin'
        UNION ALL SELECT counted_source, counted_event_id FROM twins_before WHERE kind = 'near twin'
    ),
    alone AS MATERIALIZED (
        SELECT *, CASE WHEN bool_or(org IS NULL) OVER (PARTITION BY midnight) THEN '' ELSE org END AS any_org
        FROM near_midnight ANTI JOIN paired_already USING (source, event_id)
    ),
    facing AS (
        SELECT a.*, b.source AS counted_source, b.event_id AS counted_event_id, b.cost AS counted_cost, b.org AS counted_org,
            b.agent AS counted_agent,
            dense_rank() OVER (PARTITION BY a.source, b.source, alike ORDER BY a.event_time, a.event_id) AS nth,
            dense_rank() OVER (PARTITION BY a.source, b.source, alike ORDER BY b.event_time, b.event_id) AS counted_nth,
            ROW(b.reported_cost IS NULL, b.source, b.event_time, b.event_id) AS place
        FROM (SELECT *, hash(midnight, model_key, input_tokens, output_tokens, any_org) AS alike FROM alone) a
        JOIN (SELECT *, hash(midnight, model_key, input_tokens, output_tokens, any_org) AS alike FROM alone) b USING (alike)
        WHERE a.dt = a.midnight AND b.dt < b.midnight AND a.source <> b.source
            AND epoch_us(a.event_time) - epoch_us(b.event_time) <= {NEAR_SECONDS}000000
            AND (a.org = b.org OR a.org IS NULL OR b.org IS NULL)
            AND (a.agent = b.agent OR a.agent IS NULL OR b.agent IS NULL)
            AND (a.response_id IS NULL OR b.response_id IS NULL OR a.response_id = b.response_id)
    ),
    across_midnight AS (
        SELECT *, row_number() OVER (PARTITION BY source, event_id ORDER BY place) AS choice FROM facing
        WHERE nth = counted_nth
    )
    SELECT dt, kind, org, source, event_id, counted_source, counted_event_id, event_time, model, agent, input_tokens,
        output_tokens, cost, counted_cost
    FROM same_call
    UNION ALL
    SELECT dt, 'near twin', org, source, event_id, counted_source, counted_event_id, event_time, model, agent, input_tokens,
        output_tokens, cost, counted_cost
    FROM within_a_day
    UNION ALL
    SELECT dt, 'near twin', coalesce(org, counted_org), source, event_id, counted_source, counted_event_id, event_time, model,
        coalesce(agent, counted_agent), input_tokens, output_tokens, cost, counted_cost
    FROM across_midnight WHERE choice = 1
"""


DEAREST_TWINS: Final = """
    SELECT dt, kind, source, counted_source, event_time, agent, model, input_tokens, output_tokens, cost, counted_cost, event_id
    FROM usage_twins ORDER BY cost DESC NULLS LAST, event_id
"""
_SUMMARY: Final = """
    SELECT dt, kind, org, source, counted_source, count(*) AS calls, CAST(sum(cost) AS DECIMAL(38, 9)) AS cost,
        count(*) - count(cost) AS unpriced, min(event_id) AS example, min_by(counted_event_id, event_id) AS counted_example
    FROM usage_twins GROUP BY dt, kind, org, source, counted_source
"""


@dataclass(frozen=True)
class TwinLine:
    """Calls of a day that ``source`` reported and ``counted_source`` too.

    ``cost`` (USD) is what ``source`` would have added and did not (``same call``), or perhaps adds too much (``near twin``).
    """

    dt: date
    kind: str
    org: str | None
    source: str
    counted_source: str
    calls: int
    cost: Decimal | None
    unpriced: int
    example: str
    counted_example: str


def twin_lines(
    connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange | None = None, org: str | None = None
) -> list[TwinLine]:
    """The report of some days, or of all, a line a day, kind, organisation and pair of sources."""
    lake.view(connection, USAGE_TWINS, days)
    query = f"SELECT * FROM ({_SUMMARY}) WHERE $org IS NULL OR org = $org ORDER BY ALL"
    return [TwinLine(*row) for row in connection.execute(query, {"org": org}).fetchall()]


def near_twins(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> Proof:
    """The lines of the days that may be counted twice, the dearest first."""
    found = [line for line in twin_lines(connection, lake, days) if line.kind == "near twin"]
    found.sort(key=lambda line: line.cost or Decimal(0), reverse=True)
    return Proof(sum(line.calls for line in found), [vars(line) for line in found[:10]])


@contextmanager
def _joins_as_written(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """The small side of every join here stands on the right; the engine cannot know, and would hold the events instead."""
    connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
    try:
        yield
    finally:
        connection.execute("RESET disabled_optimizers")


def mark_same_calls(connection: duckdb.DuckDBPyConnection, days: DayRange) -> int:
    """Rows of the days that another source's row stands for, into a table ``twins``; how many.

    Reads ``usage_events`` of the days and the one before, less the rows in the table ``leaving``.
    """
    if not _together(connection):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE twins AS SELECT dt, source, event_id, event_time, file_id, row_number, "
            "'' AS counted_source, '' AS counted_event_id, '' AS content FROM usage_events LIMIT 0"
        )
        return 0
    with _joins_as_written(connection):
        connection.execute(_NAMED, {"busiest": _busiest(connection)})
    connection.execute(_TWINS, {"first": days.first, "last": days.last})
    return int(one_row(connection, "SELECT count(*) FROM twins")[0])


def build_twins(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> None:
    """The report of the days, replaced in the lake: every same call and near twin, a pair a row."""
    # Only what lies within seconds of midnight is wanted of the day before.
    lake.view(connection, USAGE_EVENTS, days.widened(before=1))
    connection.execute(f"{_NEAR_MIDNIGHT} AND ({_within_seconds_of_midnight(days)})")
    lake.view(connection, USAGE_EVENTS, days)
    lake.view(connection, USAGE_REJECTED, days)
    before = days.first - timedelta(days=1)
    lake.view(connection, USAGE_TWINS, DayRange(before, before), name="twins_before")
    find_alike(connection)
    query = f"SELECT {', '.join(USAGE_TWINS.schema.names)} FROM ({_REPORT})"
    with _joins_as_written(connection):
        lake.replace(USAGE_TWINS, days, lambda _version: connection.sql(query))


def _within_seconds_of_midnight(days: DayRange) -> str:
    """SQL for the times around the beginning of each day. As spans, by which the engine leaves out what it need not read."""
    near = timedelta(seconds=NEAR_SECONDS)
    midnights = (datetime(day.year, day.month, day.day) for day in days.days())
    return " OR ".join(
        f"event_time BETWEEN TIMESTAMP '{midnight - near}' AND TIMESTAMP '{midnight + near}'" for midnight in midnights
    )


def find_alike(connection: duckdb.DuckDBPyConnection) -> None:
    """The keys that rows of two sources share, into a table ``alike``: step by step, as one query would hold too much."""
    _together(connection)
    for statement in _KEYED:
        connection.execute(statement)
    asked = {"busiest": _busiest(connection)}
    with _joins_as_written(connection):
        connection.execute(_FEWER, asked)
        connection.execute(_ALIKE, asked)


def _together(connection: duckdb.DuckDBPyConnection) -> int:
    connection.execute(_TOGETHER)
    return int(one_row(connection, "SELECT count(*) FROM together")[0])


def _busiest(connection: duckdb.DuckDBPyConnection) -> str:
    """The source with the most rows. A pair has a row of another one, so theirs are sought among all: the smaller part."""
    rows = connection.execute("SELECT source FROM usage_events GROUP BY source ORDER BY count(*) DESC, source LIMIT 1")
    return next((str(source) for (source,) in rows.fetchall()), "")
