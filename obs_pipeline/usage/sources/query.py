"""The query that turns a block of raw rows into canonical rows: every field found, converted and judged.

Here: putting the mapping, the layout of a file, the conversions and the rules together as SQL. No execution, no Arrow data, no
rule and no conversion of its own.

The query goes in steps, each with its column prefix: ``w_`` as written, ``n_`` as a number, ``v_`` as the canonical value;
then the verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

import pyarrow as pa

from obs_pipeline.usage.currencies import NO_RATES, RateBook
from obs_pipeline.usage.event import TOKEN_COLUMNS
from obs_pipeline.usage.quality import (
    Judged,
    Rule,
    detail_sql,
    reason_sql,
    row_rules,
    says,
    sql_text,
    verdict_sql,
)
from obs_pipeline.usage.sources import values
from obs_pipeline.usage.sources.landed import cut_sql, raw_sql
from obs_pipeline.usage.sources.layout import Layout, Place
from obs_pipeline.usage.sources.mapping import Column, Condition, Filter, Kind, SourceMapping, kind_of

DEFAULT_TYPE: Final = "usage"
_DURATIONS: Final = ("latency_ms", "ttft_ms")
_JUDGED: Final = frozenset(("event_time", "event_type", "reported_cost", *TOKEN_COLUMNS, *_DURATIONS))
_PARTS: Final = {
    "input_tokens": ("cache_read_tokens", "cache_write_tokens"),
    "output_tokens": ("reasoning_tokens",),
}


@dataclass(frozen=True)
class MappedField:
    """A field of the event that this file has, and where: the first of ``places`` with a value."""

    name: str
    column: Column
    places: tuple[Place, ...]
    when: str | None = None
    free: str | None = None
    zone: str = "UTC"

    @property
    def kind(self) -> Kind:
        return kind_of(self.name)

    @property
    def is_number(self) -> bool:
        return self.kind in ("count", "money", "duration", "time")

    @property
    def found(self) -> pa.DataType:
        """The type of the value as written; what is tried in several places, or is text, is text."""
        as_text = len(self.places) > 1 or self.kind == "attributes" or self.column.default is not None
        return pa.string() if as_text else self.places[0].type

    @property
    def written_sql(self) -> str:
        written = self._as_written_sql
        if self.column.zero == "unknown":
            written = f"CASE WHEN coalesce(TRY_CAST({written} AS DOUBLE) <> 0, TRUE) THEN {written} END"
        if self.column.default is not None:
            written = f"coalesce({written}, {sql_text(self.column.default)})"
        if self.free:
            written = f"CASE WHEN {self.free} THEN '0' ELSE {written} END"
        return f"CASE WHEN {self.when} THEN {written} END" if self.when else written

    @property
    def _as_written_sql(self) -> str:
        if self.kind == "attributes":
            texts = [_attributes_text(place) for place in self.places]
        elif self.found == pa.string():
            texts = [values.text_sql(place.sql, place.type) for place in self.places]
        else:
            return self.places[0].sql
        return f"coalesce({', '.join(texts)})"

    @property
    def number_sql(self) -> str:
        if self.kind == "time":
            return values.time_number_sql(self.written, self.found, self.column.unit)
        return values.number_sql(self.written, self.found)

    @property
    def value_sql(self) -> str:
        unit = self.column.unit
        match self.kind:
            case "time":
                return values.time_sql(self.written, self.number, self.found, unit, self.zone)
            case "count":
                return values.count_sql(self.number, self.found)
            case "money":
                return values.money_sql(self.written, self.found, self.number, unit)
            case "duration":
                return values.duration_sql(self.number, unit)
            case "attributes":
                return values.attributes_sql(self.written)
            case "text":
                return f"CAST({self.written} AS VARCHAR)"

    @property
    def judged(self) -> Judged:
        origin = " or ".join(self.column.paths)
        label = self.name if origin in ("", self.name) else f"{self.name} (from {origin})"
        return Judged(label, self.written, self.value, self.number, pa.types.is_integer(self.found))

    @property
    def written(self) -> str:
        return f"w_{self.name}"

    @property
    def number(self) -> str:
        return f"n_{self.name}"

    @property
    def value(self) -> str:
        return f"v_{self.name}"


def _attributes_text(place: Place) -> str:
    if pa.types.is_nested(place.type):
        return f"CAST(to_json({place.sql}) AS VARCHAR)"
    return values.text_sql(place.sql, place.type)


@dataclass(frozen=True)
class BlockQuery:
    """The queries for the blocks of one file; ``now`` bounds the times that are possible, ``rates`` turn amounts into USD."""

    mapping: SourceMapping
    layout: Layout
    now: datetime
    rates: RateBook = NO_RATES

    @cached_property
    def fields(self) -> Mapping[str, MappedField]:
        """The mapped fields that this file has."""
        return {field.name: field for field in _mapped_fields(self.mapping, self.layout)}

    @cached_property
    def computable(self) -> frozenset[str]:
        """The canonical columns a query can compute."""
        return frozenset((*self.fields, "attributes") if self.mapping.attributes else self.fields)

    @cached_property
    def adjusted(self) -> frozenset[str]:
        """The columns whose value depends on other columns, so that no column of the file can stand for them."""
        tokens = self.mapping.tokens
        names = [*(["input_tokens"] if tokens.input == "exclusive" else [])]
        names += ["output_tokens"] if tokens.output == "exclusive" else []
        names += ["event_time"] if self.mapping.zone != "UTC" else []
        return frozenset(names)

    def sql(self, computed: Set[str]) -> str:
        """Every row of the block with the ``computed`` fields, ``row_number``, ``reason``, ``detail`` and ``raw``.

        A mapped field that is not computed is known to be canonical as it stands.
        """
        outputs = [f"v_{name} AS {name}" for name in sorted(computed)]
        return f"""
            WITH {self._judged(computed)},
            shown AS (
                SELECT *, CASE WHEN verdict IS NOT NULL THEN {raw_sql(self.layout.raw)} END AS shown FROM judged
            )
            SELECT {", ".join([*outputs, *self._findings()])} FROM shown
        """

    @cached_property
    def unfit_sql(self) -> str:
        """The ``row_number`` of every unfit row of a block in which nothing is to be computed.

        Most blocks have none, and the engine takes longer to prepare the sentences about them than to find that out.
        """
        return f"WITH {self._judged(frozenset())} SELECT row_number FROM judged WHERE verdict IS NOT NULL"

    def _judged(self, computed: Set[str]) -> str:
        fields = [field for field in self.fields.values() if field.name in computed or field.name in _JUDGED]
        known = {field.name for field in fields if field.kind == "text" and field.name not in computed}
        written = [f"{_written_sql(field, known)} AS {field.written}" for field in fields]
        numbers = [f"{field.number_sql} AS {field.number}" for field in fields if field.is_number]
        converted = [f"{self._value_sql(field, known)} AS {field.value}" for field in fields]
        if "attributes" in computed and self.mapping.attributes:
            converted.append(f"{_collected(self.mapping.attributes, self.layout)} AS v_attributes")
        return f"""
            located AS ({self.layout.relation}),
            written AS (SELECT {", ".join(["*", *written])} FROM located),
            numbered AS (SELECT {", ".join(["*", *numbers])} FROM written),
            converted AS (SELECT {", ".join(["*", *converted])} FROM numbered),
            whole AS (SELECT * {self._finished()} FROM converted),
            {self._rated}
            judged AS (SELECT *, {verdict_sql(self._rules)} AS verdict FROM {"rated" if self._rated else "whole"})
        """

    @cached_property
    def _currency(self) -> str | None:
        """SQL for the code of the currency that the cost is in; None where it is USD anyway."""
        cost = self.fields.get("reported_cost")
        if cost is None or cost.column.currency is None:
            return None
        if cost.column.currency.const is not None:
            return sql_text(cost.column.currency.const)
        texts = _texts(cost.column.currency.paths, self.layout)
        return f"upper(trim(coalesce({', '.join(texts)})))" if texts else "CAST(NULL AS VARCHAR)"

    @cached_property
    def _rated(self) -> str:
        """The step in which the cost becomes USD, where it is not."""
        if self._currency is None:
            return ""
        day = "CAST(v_event_time AS DATE)" if "event_time" in self.fields else "CAST(NULL AS DATE)"
        usd = "TRY_CAST(round(v_reported_cost * v_rate, 9) AS DECIMAL(18, 9))"
        return f"""
            coded AS (SELECT *, {self._currency} AS w_rate FROM whole),
            worth AS (SELECT *, {self.rates.rate_sql("w_rate", day)} AS v_rate FROM coded),
            rated AS (
                SELECT * REPLACE (CASE WHEN n_reported_cost = 0 THEN v_reported_cost ELSE {usd} END AS v_reported_cost)
                FROM worth
            ),
        """

    def _findings(self) -> tuple[str, ...]:
        detail = detail_sql(self._rules, "verdict")
        if self.layout.line:
            detail = f"{detail} || ' (line ' || {self.layout.line} || ')'"
        reason = reason_sql(self._rules, "verdict")
        return "row_number", f"{reason} AS reason", f"{detail} AS detail", f"{cut_sql('shown')} AS raw"

    def _value_sql(self, field: MappedField, known: Set[str]) -> str:
        if field.name in known:
            return field.written
        if field.name == "source":
            return f"coalesce({field.value_sql}, {sql_text(self.mapping.source)})"
        if field.name == "event_type":
            return f"coalesce(lower(trim({field.value_sql})), {sql_text(DEFAULT_TYPE)})"
        return field.value_sql

    def _finished(self) -> str:
        """What depends on a converted value, or on several."""
        finished = []
        if "event_time" in self.fields:
            finished.append(f"{values.sane_time_sql('v_event_time')} AS v_event_time")
        for whole, names in _PARTS.items():
            parts = [self.fields[name].value for name in names if name in self.fields]
            if whole in self.fields and whole in self.adjusted:
                total = " + ".join([f"v_{whole}", *(f"coalesce({part}, 0)" for part in parts)])
                finished.append(f"{total} AS v_{whole}")
        return f"REPLACE ({', '.join(finished)})" if finished else ""

    @cached_property
    def _rules(self) -> tuple[Rule, ...]:
        judged = {field.name: field.judged for field in self.fields.values()}
        return (
            *self.layout.rules,
            *_filter_rules(self.mapping.filter, self.layout),
            *row_rules(
                now=self.now,
                time=judged.get("event_time"),
                event_type=judged.get("event_type"),
                tokens={name: judged[name] for name in TOKEN_COLUMNS if name in judged},
                cost=judged.get("reported_cost"),
                currency=Judged("the currency", "w_rate", "v_rate") if self._currency else None,
                durations=[judged[name] for name in _DURATIONS if name in judged],
            ),
        )


def _written_sql(field: MappedField, known: Set[str]) -> str:
    return field.places[0].sql if field.name in known else field.written_sql


def _mapped_fields(mapping: SourceMapping, layout: Layout) -> Iterator[MappedField]:
    for name, column in mapping.columns.items():
        find = layout.number_place if kind_of(name) == "money" else layout.place
        if column.const is not None:
            places = [Place(sql_text(str(column.const)), pa.string())]
        else:
            places = [place for path in column.paths if (place := find(path))]
            places += _made_places(column, layout, mapping.zone)
        if places:
            when = condition_sql(column.when, layout) if column.when else None
            free = condition_sql(column.free, layout) if column.free else None
            yield MappedField(name, column, tuple(places), when, free, mapping.zone)


def _made_places(column: Column, layout: Layout, zone: str) -> Iterator[Place]:
    """The values that are made of several of a row."""
    if joined := _texts(column.join, layout):
        yield Place(f"nullif(concat_ws(':', {', '.join(joined)}), '')", pa.string())
    if summed := _texts(column.sum, layout):
        yield Place(values.sum_sql(summed), pa.string())
    if column.between:
        start, end, limit = (_time_at(paths, layout, zone) for paths in (*column.between, column.before))
        span = values.span_sql(start, end, column.unit)
        yield Place(f"CASE WHEN {end} < {limit} THEN {span} END" if column.before else span, pa.float64())


def _time_at(paths: Sequence[str], layout: Layout, zone: str) -> str:
    """The first of several times that is there, as TIMESTAMP."""
    times = []
    for place in (place for path in paths if (place := layout.place(path))):
        number = values.time_number_sql(place.sql, place.type, None)
        time = values.time_sql(place.sql, f"({number})", place.type, None, zone)
        times.append(f"({values.sane_time_sql(f'({time})')})")
    return f"coalesce({', '.join(times)})" if times else "CAST(NULL AS TIMESTAMP)"


def _texts(paths: Sequence[str], layout: Layout) -> list[str]:
    places = [place for path in paths if (place := layout.place(path))]
    return [f"({values.text_sql(place.sql, place.type)})" for place in places]


def condition_sql(condition: Condition, layout: Layout) -> str:
    """SQL that is true where a condition holds, else false; a column that the file does not have holds nothing."""
    texts = _texts(condition.paths, layout)
    return holds_sql(condition, f"coalesce({', '.join(texts)})") if texts else "FALSE"


def holds_sql(condition: Condition, text: str) -> str:
    """SQL that is true where ``condition`` holds for a text, given as SQL, and else false."""
    if condition.at_least is not None:
        return f"coalesce(TRY_CAST({text} AS DOUBLE) >= {condition.at_least}, FALSE)"
    return f"coalesce({text} IN ({', '.join(sql_text(value) for value in condition.values)}), FALSE)"


def _filter_rules(only: Filter | None, layout: Layout) -> Iterator[Rule]:
    if only is None:
        return
    named = " or ".join(only.paths)
    texts = _texts(only.paths, layout)
    if not texts:
        yield Rule("not_usage", "TRUE", sql_text(f"the file has no {named}, which the filter asks for"))
        return
    text = f"coalesce({', '.join(texts)})"
    takes = " or ".join(only.values) if only.values else f"{only.at_least:g} or more"
    complaint = f"the filter takes {takes}"
    yield Rule("not_usage", f"NOT {holds_sql(only, text)}", says(Judged(named, text, text), complaint))


def _collected(attributes: Mapping[str, str], layout: Layout) -> str:
    """SQL for a JSON object of the named values that a row has, or null when it has none."""
    members = []
    for name, path in attributes.items():
        if value := layout.json(path):
            members.append(f"{sql_text(json.dumps(name, ensure_ascii=False) + ':')} || {value}")
    if not members:
        return "CAST(NULL AS VARCHAR)"
    return f"'{{' || nullif(concat_ws(',', {', '.join(members)}), '') || '}}'"
