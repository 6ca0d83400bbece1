"""OpenTelemetry in OTLP JSON, as the file exporters write it: one export request a line, many spans or log records in each.

Here: taking the records out of the lines and what belongs together across lines: a call gets the attributes of the spans
above it, and two spans for one call are counted once. The result is a flat table of texts whose columns are named by the
paths of the mapping, so which attribute means what stands in the mapping alone. No conversion of values.

Paths
-----
- ``resource.NAME``: an attribute of the resource; ``scope.name``: the instrumentation scope.
- ``span.id``, ``span.trace_id``, ``span.parent_id``, ``span.name``, ``span.start``, ``span.end`` (ns since 1970),
  ``span.duration_ms``, ``span.error`` (``error.type``, or ``error`` for a span that only says that it failed),
  ``span.call_id`` (trace and, where there is one, the attribute of ``same_call``, else the span).
- ``record.name``, ``record.body``, ``record.start`` (the time of the record less its ``duration_ms``, ns), ``record.error``.
- anything else: an attribute of the span or record.

Several spans of a trace that agree in ``same_call``: the one with a token count stays, of several the first; the others get
the reason ``counted_already``. Spans that are no calls are no rows. Rows are numbered in order of line and start; in a large
file that holds within groups of traces, because sorting all of it would take memory that grows with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.storage.engine import one_row
from obs_pipeline.usage.quality import Rule, sql_text
from obs_pipeline.usage.sources.layout import BLOCK, ColumnLayout
from obs_pipeline.usage.sources.mapping import SourceMapping, Unfold
from obs_pipeline.usage.sources.query import holds_sql
from obs_pipeline.usage.sources.raw_rows import Blocks, RawRows
from obs_pipeline.usage.sources.records import BrokenRow
from obs_pipeline.usage.sources.workbench import workbench

_ROWS: Final = 16_384
"""Calls handed on at a time: about what eight megabytes of other sources' text hold, as rows of text are wide."""
_DEEPEST: Final = 64
"""How far up a call looks for what it inherits; also what ends a trace whose spans name each other as parents."""

_RECORDS_AT_ONCE: Final = 100_000

_VALUE: Final = '{"stringValue":"VARCHAR","intValue":"VARCHAR","doubleValue":"VARCHAR","boolValue":"VARCHAR"}'
_ATTRIBUTES: Final = f'[{{"key":"VARCHAR","value":{_VALUE}}}]'
_SPANS: Final = (
    f'{{"resourceSpans":[{{"resource":{{"attributes":{_ATTRIBUTES}}},"scopeSpans":[{{"scope":{{"name":"VARCHAR"}},'
    '"spans":[{"traceId":"VARCHAR","spanId":"VARCHAR","parentSpanId":"VARCHAR","name":"VARCHAR",'
    '"startTimeUnixNano":"VARCHAR","endTimeUnixNano":"VARCHAR","status":{"code":"VARCHAR"},'
    f'"attributes":{_ATTRIBUTES}}}]}}]}}]}}'
)
_LOGS: Final = (
    f'{{"resourceLogs":[{{"resource":{{"attributes":{_ATTRIBUTES}}},"scopeLogs":[{{"scope":{{"name":"VARCHAR"}},'
    f'"logRecords":[{{"timeUnixNano":"VARCHAR","eventName":"VARCHAR","body":{{"stringValue":"VARCHAR"}},'
    f'"traceId":"VARCHAR","spanId":"VARCHAR","attributes":{_ATTRIBUTES}}}]}}]}}]}}'
)
_ENVELOPES: Final = ("resourceSpans", "resourceLogs", "resourceMetrics")


def unfolded(lines: Blocks, mapping: SourceMapping, unfold: Unfold) -> RawRows:
    """The calls in lines of OTLP JSON."""
    paths = mapping.paths()
    doubled = Rule("counted_already", "twin IS NOT NULL", "'the call is counted by the span ' || twin")
    layout = ColumnLayout(pa.schema([(path, pa.string()) for path in paths]), paths, rules=(doubled,))
    return RawRows(layout, _calls(lines, mapping, unfold, layout.names))


def _calls(lines: Blocks, mapping: SourceMapping, unfold: Unfold, names: Sequence[str]) -> Blocks:
    sought = tuple(dict.fromkeys((*names, *unfold.only.paths, *unfold.inherit)))
    columns = {path: f"a{at}" for at, path in enumerate(sought)}
    wanted = [columns[name] for name in names]
    with workbench() as bench:
        broken = _stage(bench, lines, unfold, columns)
        _gather(bench, mapping, unfold, columns, wanted)
        count = 0
        query = f"SELECT twin, {', '.join(wanted)} FROM calls"
        for batch in bench.sql(query).to_arrow_reader(_ROWS):
            numbers = pa.array(np.arange(count + 1, count + 1 + batch.num_rows))
            count += batch.num_rows
            flat = [f"c{at}" for at in range(len(names))]
            yield pa.table([numbers, *batch.columns], names=["row_number", "twin", *flat]), ()
    numbered = tuple(
        BrokenRow(count + at, one.reason, f"{one.detail} (line {one.row_number:,})", one.raw)
        for at, one in enumerate(broken, 1)
    )
    if numbered:
        yield pa.table({"row_number": pa.array([], pa.int64())}), numbered


def _stage(
    bench: duckdb.DuckDBPyConnection, lines: Blocks, unfold: Unfold, columns: Mapping[str, str]
) -> list[BrokenRow]:
    """Every span or record of the file into a table ``records``; the lines that hold none and should."""
    bench.execute(
        "CREATE TABLE records (line BIGINT, trace VARCHAR, span VARCHAR, parent VARCHAR, start VARCHAR, twin_key VARCHAR, "
        f"is_call BOOLEAN, {', '.join(f'{column} VARCHAR' for column in columns.values())})"
    )
    stage = _span_stage_sql if unfold.shape == "otlp_spans" else _log_stage_sql
    query = f"INSERT INTO records {stage(unfold, columns)}"
    broken: list[BrokenRow] = []
    for table, faults in lines:
        broken += faults
        if not table.num_rows:
            continue
        bench.register(BLOCK, table)
        fit, odd = _fit_lines(bench, table)
        broken += odd
        bench.unregister(BLOCK)
        bench.register(BLOCK, fit)
        bench.execute(query)
        bench.unregister(BLOCK)
    return broken


def _fit_lines(bench: duckdb.DuckDBPyConnection, table: pa.Table) -> tuple[pa.Table, Iterator[BrokenRow]]:
    keys = ", ".join(sql_text(f'$."{name}"') for name in _ENVELOPES)
    found = bench.sql(
        f"SELECT row_number, CASE WHEN NOT json_valid(raw) THEN 'bad_json' "
        f"WHEN coalesce(list_count(json_extract(raw, [{keys}])), 0) = 0 THEN 'not_usage' END AS reason FROM {BLOCK}"
    ).to_arrow_table()
    fine = pc.is_null(found.column("reason"))
    if pc.all(fine).as_py():
        return table, iter(())
    sentences = {"bad_json": "the line is not valid JSON", "not_usage": f"the line has none of {', '.join(_ENVELOPES)}"}
    raw = table.filter(pc.invert(fine)).column("raw").to_pylist()
    bad = found.filter(pc.invert(fine)).to_pylist()
    odd = (
        BrokenRow(row["row_number"], row["reason"], sentences[row["reason"]], text.rstrip()[:2_000])
        for row, text in zip(bad, raw, strict=True)
    )
    return table.filter(fine), odd


def _attribute(name: str, keys: str, texts: str) -> str:
    return f"{texts}[list_position({keys}, {sql_text(name)})]"


def _keys_and_texts(attributes: str, prefix: str) -> str:
    text = "coalesce(x.value.stringValue, x.value.intValue, x.value.doubleValue, x.value.boolValue)"
    return (
        f"list_transform({attributes}, lambda x: x.key) AS {prefix}_keys, "
        f"list_transform({attributes}, lambda x: {text}) AS {prefix}_texts"
    )


def _span_stage_sql(unfold: Unfold, columns: Mapping[str, str]) -> str:
    def attribute(name: str) -> str:
        return _attribute(name, "own_keys", "own_texts")

    same = attribute(unfold.same_call) if unfold.same_call else "NULL"
    failed = "s.status.code IN ('2', 'STATUS_CODE_ERROR')"
    fixed = {
        "span.id": "s.spanId",
        "span.trace_id": "s.traceId",
        "span.parent_id": "nullif(s.parentSpanId, '')",
        "span.name": "s.name",
        "span.start": "s.startTimeUnixNano",
        "span.end": "s.endTimeUnixNano",
        "span.duration_ms": "CAST((TRY_CAST(s.endTimeUnixNano AS HUGEINT) - TRY_CAST(s.startTimeUnixNano AS HUGEINT)) "
        "/ 1000000.0 AS VARCHAR)",
        "span.error": f"coalesce({attribute('error.type')}, CASE WHEN {failed} THEN 'error' END)",
        "span.call_id": f"s.traceId || ':' || coalesce(nullif({same}, ''), s.spanId)",
        "scope.name": "scope",
    }
    values = [f"{_value(path, fixed)} AS {column}" for path, column in columns.items()]
    return f"""
        WITH {_keyed_sql(_SPANS, "resourceSpans", "scopeSpans", "spans")},
        valued AS (
            SELECT line, s.traceId AS trace, s.spanId AS span, nullif(s.parentSpanId, '') AS parent,
                s.startTimeUnixNano AS start, nullif({same}, '') AS twin_key, {", ".join(values)}
            FROM keyed
        )
        SELECT line, trace, span, parent, start, twin_key, {_is_call(unfold, columns)}, {", ".join(columns.values())}
        FROM valued
    """


def _log_stage_sql(unfold: Unfold, columns: Mapping[str, str]) -> str:
    def attribute(name: str) -> str:
        return _attribute(name, "own_keys", "own_texts")

    lasted = f"coalesce(TRY_CAST({attribute('duration_ms')} AS DOUBLE), 0)"
    name = f"coalesce({attribute('event.name')}, s.eventName, s.body.stringValue)"
    fixed = {
        "record.name": name,
        "record.body": "s.body.stringValue",
        "record.start": f"CAST(TRY_CAST(s.timeUnixNano AS BIGINT) - CAST({lasted} * 1000000 AS BIGINT) AS VARCHAR)",
        "record.error": f"CASE WHEN {name} LIKE '%error%' THEN "
        f"coalesce({attribute('status_code')}, {attribute('error')}, 'error') END",
        "span.trace_id": "s.traceId",
        "scope.name": "scope",
    }
    values = [f"{_value(path, fixed)} AS {column}" for path, column in columns.items()]
    return f"""
        WITH {_keyed_sql(_LOGS, "resourceLogs", "scopeLogs", "logRecords")},
        valued AS (SELECT line, s.timeUnixNano AS start, {", ".join(values)} FROM keyed)
        SELECT line, NULL, NULL, NULL, start, NULL, {_is_call(unfold, columns)}, {", ".join(columns.values())} FROM valued
    """


def _keyed_sql(shape: str, resources: str, scopes: str, records: str) -> str:
    """Every record ``s`` of the block as ``keyed``, with its line, its scope, and the attributes of its own and its resource."""
    return f"""
        parsed AS (SELECT row_number AS line, json_transform(raw, {sql_text(shape)}) AS doc FROM {BLOCK}),
        resources AS (SELECT line, unnest(doc.{resources}) AS r FROM parsed),
        scopes AS (
            SELECT line, unnest(r.{scopes}) AS sc, {_keys_and_texts("r.resource.attributes", "resource")} FROM resources
        ),
        records AS (
            SELECT line, unnest(sc.{records}) AS s, sc.scope.name AS scope, resource_keys, resource_texts FROM scopes
        ),
        keyed AS (SELECT *, {_keys_and_texts("s.attributes", "own")} FROM records)"""


def _value(path: str, fixed: Mapping[str, str]) -> str:
    if path in fixed:
        return fixed[path]
    if path.startswith("resource."):
        return _attribute(path.removeprefix("resource."), "resource_keys", "resource_texts")
    return _attribute(path, "own_keys", "own_texts")


def _is_call(unfold: Unfold, columns: Mapping[str, str]) -> str:
    return holds_sql(unfold.only, f"coalesce({', '.join(columns[path] for path in unfold.only.paths)})")


def _gather(
    bench: duckdb.DuckDBPyConnection,
    mapping: SourceMapping,
    unfold: Unfold,
    columns: Mapping[str, str],
    wanted: Sequence[str],
) -> None:
    """The calls among the records into a table ``calls``, with what they inherit and which of them are doubles.

    What a trace needs is in the trace: the records are taken some whole traces at a time, which bounds the memory.
    """
    texts = ", ".join(f"{column} VARCHAR" for column in wanted)
    bench.execute(f"CREATE TABLE calls (line BIGINT, start VARCHAR, span VARCHAR, twin VARCHAR, {texts})")
    if unfold.shape == "otlp_logs":
        bench.execute(
            f"INSERT INTO calls SELECT line, start, span, NULL, {', '.join(wanted)} FROM records WHERE is_call"
        )
        return
    (records,) = one_row(bench, "SELECT count(*) FROM records")
    shares = records // _RECORDS_AT_ONCE + 1
    for share in range(shares):
        bench.execute(
            f"CREATE OR REPLACE TEMP TABLE taken AS SELECT *, rowid AS id FROM records WHERE hash(trace) % {shares} = {share}"
        )
        bench.execute(f"INSERT INTO calls {_calls_sql(mapping, unfold, columns, wanted)}")


def _calls_sql(mapping: SourceMapping, unfold: Unfold, columns: Mapping[str, str], wanted: Sequence[str]) -> str:
    inherited = [columns[path] for path in unfold.inherit]
    tokens = [mapping.columns[name].paths for name in ("input_tokens", "output_tokens") if name in mapping.columns]
    counts = ", ".join(columns[path] for paths in tokens for path in paths)
    lacks_tokens = f"coalesce({counts}) IS NULL" if counts else "FALSE"
    climbed = _climbed_sql(inherited) if inherited else "climbed AS (SELECT 0 AS id WHERE FALSE)"
    values = [f"coalesce(r.{one}, c.{one}) AS {one}" if one in inherited else f"r.{one}" for one in wanted]
    return f"""
        WITH RECURSIVE {climbed}
        SELECT r.line, r.start, r.span,
            CASE WHEN r.twin_key IS NOT NULL AND row_number() OVER same_call > 1
                THEN first_value(r.span) OVER same_call END AS twin,
            {", ".join(values)}
        FROM taken r LEFT JOIN climbed c ON c.id = r.id
        WHERE r.is_call
        WINDOW same_call AS (
            PARTITION BY r.trace, coalesce(r.twin_key, r.span) ORDER BY {lacks_tokens}, r.start, r.span
        )
        ORDER BY r.line, r.start, r.span
    """


def _climbed_sql(inherited: Sequence[str]) -> str:
    """Common table expressions that end in ``climbed``: what each call finds in the spans above it, nearest first."""
    lacking = " OR ".join(f"u.{column} IS NULL" for column in inherited)
    filled = ", ".join(f"coalesce(u.{column}, p.{column}) AS {column}" for column in inherited)
    return f"""
        parents AS (
            SELECT trace, span, any_value(parent) AS parent, {", ".join(f"any_value({c}) AS {c}" for c in inherited)}
            FROM taken GROUP BY trace, span
        ),
        up AS (
            SELECT id, 0 AS depth, trace, parent, {", ".join(inherited)} FROM taken WHERE is_call
            UNION ALL
            SELECT u.id, u.depth + 1, u.trace, p.parent, {filled}
            FROM up u INNER JOIN parents p ON p.trace = u.trace AND p.span = u.parent
            WHERE u.depth < {_DEEPEST} AND ({lacking})
        ),
        climbed AS (
            SELECT id, {", ".join(f"arg_max({c}, depth) AS {c}" for c in inherited)} FROM up
            WHERE depth > 0 GROUP BY id
        )
    """
