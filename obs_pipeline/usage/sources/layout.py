"""Where the paths of a mapping are found in the raw rows of one file, as SQL.

Here: JSON lines (one parse of a line for all its paths) and columns (CSV, Parquet). No conversion of values, no rules beyond
what makes a line a JSON object.

The raw rows are a table called ``block``: ``row_number``, for text formats ``raw`` (the record as it stands in the file) and
``line`` (where it begins), and for columns ``c0``, ``c1``, ... in the order of ``ColumnLayout.names``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple, Protocol

import pyarrow as pa

from obs_pipeline.usage.quality import Rule, sql_text
from obs_pipeline.usage.sources.mapping import path_steps

BLOCK: Final = "block"


@dataclass(frozen=True)
class Place:
    """A value of a raw row: SQL over ``Layout.relation``, its Arrow type, and the column of the block if it is one."""

    sql: str
    type: pa.DataType
    column: str | None = None


class Layout(Protocol):
    """The shape of the raw rows of one file."""

    @property
    def relation(self) -> str:
        """A query over ``block`` in which the SQL of the places holds, with ``row_number``."""

    @property
    def raw(self) -> str:
        """SQL for the row as text."""

    @property
    def line(self) -> str | None:
        """SQL for the line the row begins on, where that says more than its row number."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What must hold before any value can be looked at."""

    def place(self, path: str) -> Place | None:
        """Where a path is; None when this file has no such column."""

    def number_place(self, path: str) -> Place | None:
        """Where a number is, with every digit that was written."""

    def json(self, path: str) -> str | None:
        """SQL for the JSON text of the value at a path; null when there is none."""


@dataclass(frozen=True)
class JsonLayout:
    """Lines of JSON. Every path is taken to exist; what a line does not have is null."""

    paths: tuple[str, ...]
    kept: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    line: str | None = None
    raw: str = "raw"

    @property
    def relation(self) -> str:
        found = f"CASE WHEN json_valid(raw) THEN json_extract_string(raw, {_json_paths(self.paths)}) END"
        kept = f"CASE WHEN json_valid(raw) THEN json_extract(raw, {_json_paths(self.kept)}) END"
        parsed = ["row_number", "raw", f"{found} AS found"]
        parsed += [f"{kept} AS kept"] if self.kept else []
        parsed += [f"{_digits(path)} AS digits{at}" for at, path in enumerate(self.exact)]
        columns = [f"found[{at + 1}] AS j{at}" for at in range(len(self.paths))]
        columns += [self._exact_number(at, path) for at, path in enumerate(self.exact)]
        return f"SELECT *, {', '.join(columns)} FROM (SELECT {', '.join(parsed)} FROM {BLOCK})"

    def _exact_number(self, at: int, path: str) -> str:
        """A JSON parser hands numbers out as doubles, which hold 15 digits; the text of the line has them all."""
        parsed = f"found[{self.paths.index(path) + 1}]"
        same = f"TRY_CAST(digits{at} AS DOUBLE) = TRY_CAST({parsed} AS DOUBLE)"
        return f"CASE WHEN {same} THEN digits{at} ELSE {parsed} END AS exact{at}"

    @property
    def rules(self) -> tuple[Rule, ...]:
        return (
            Rule("bad_json", "found IS NULL", sql_text("the line is not valid JSON")),
            Rule(
                "not_an_object",
                r"ltrim(raw, E' \t\r\n')[1] <> '{'",
                sql_text("the line is JSON, but not an object"),
            ),
        )

    def place(self, path: str) -> Place:
        return Place(f"j{self.paths.index(path)}", pa.string())

    def number_place(self, path: str) -> Place:
        return Place(f"exact{self.exact.index(path)}", pa.string())

    def json(self, path: str) -> str:
        return f"nullif(CAST(kept[{self.kept.index(path) + 1}] AS VARCHAR), 'null')"


def _json_paths(paths: Sequence[str]) -> str:
    return "[" + ", ".join(sql_text(_json_path(path)) for path in paths) + "]"


def _json_path(path: str) -> str:
    return "$" + "".join(f'."{name}"{positions}' for name, positions in path_steps(path))


def _digits(path: str) -> str:
    name = re.escape(path_steps(path)[-1][0])
    pattern = rf'"{name}"\s*:\s*(-?[0-9][-+.0-9eE]*)'
    return f"regexp_extract(raw, {sql_text(pattern)}, 1)"


class _Found(NamedTuple):
    """A path in columns: the column, the steps into a struct, and the path into JSON text where that is what it holds."""

    root: str
    steps: tuple[str, ...]
    json_path: str | None = None


@dataclass(frozen=True)
class ColumnLayout:
    """Columns of a CSV or Parquet file. A path is first a column's whole name, then steps into a struct or JSON text.

    ``from_text`` says that ``block`` has ``raw`` and ``line`` (CSV); ``rules`` are those of the source's own.
    """

    schema: pa.Schema
    paths: tuple[str, ...]
    from_text: bool = False
    rules: tuple[Rule, ...] = ()
    _found: Mapping[str, _Found] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {path: root for path in self.paths if (root := _root(self.schema, path))}
        object.__setattr__(self, "_found", found)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns of the file that are read, in the order of ``c0``, ``c1``, ..."""
        return tuple(dict.fromkeys(found.root for found in self._found.values()))

    @property
    def relation(self) -> str:
        parsed = [
            f"CASE WHEN json_valid({text}) THEN json_extract_string({text}, [{', '.join(map(sql_text, paths))}]) END AS f{at}"
            for at, (text, paths) in enumerate(self._json_texts.items())
        ]
        return f"SELECT {', '.join(['*', *parsed])} FROM {BLOCK}"

    @cached_property
    def _json_texts(self) -> Mapping[str, list[str]]:
        """Columns that hold JSON as text, as SQL, and the paths looked for in each: one parse for all of them."""
        texts: dict[str, list[str]] = {}
        for found in self._found.values():
            if found.json_path:
                texts.setdefault(self._struct_value(found), []).append(found.json_path)
        return texts

    @property
    def raw(self) -> str:
        if self.from_text:
            return "raw"
        pairs = ", ".join(f"{sql_text(name)}, c{at}" for at, name in enumerate(self.names))
        return f"CAST(json_object({pairs}) AS VARCHAR)"

    @property
    def line(self) -> str | None:
        return "line" if self.from_text else None

    def place(self, path: str) -> Place | None:
        if path not in self._found:
            return None
        found = self._found[path]
        value = self._struct_value(found)
        if found.json_path:
            at = list(self._json_texts).index(value)
            return Place(f"f{at}[{self._json_texts[value].index(found.json_path) + 1}]", pa.string())
        inner = self.schema.field(found.root).type
        for step in found.steps:
            inner = inner.field(step).type
        return Place(value, inner, None if found.steps else value)

    def number_place(self, path: str) -> Place | None:
        return self.place(path)

    def json(self, path: str) -> str | None:
        found = self._found.get(path)
        if found and found.json_path:
            text = self._struct_value(found)
            value = f"CAST(json_extract({text}, {sql_text(found.json_path)}) AS VARCHAR)"
            return f"CASE WHEN json_valid({text}) THEN nullif({value}, 'null') END"
        place = self.place(path)
        return f"CAST(to_json({place.sql}) AS VARCHAR)" if place else None

    def _struct_value(self, found: _Found) -> str:
        sql = f"c{self.names.index(found.root)}"
        for step in found.steps:
            sql = f"struct_extract({sql}, {sql_text(step)})"
        return sql


def _root(schema: pa.Schema, path: str) -> _Found | None:
    if schema.names.count(path) == 1:
        return _Found(path, ())
    (root, _), *steps = path_steps(path)
    if schema.names.count(root) != 1:
        return None
    inner = schema.field(root).type
    taken: list[str] = []
    for at, (step, _) in enumerate(steps):
        if pa.types.is_string(inner):
            rest = "".join(f'."{name}"{positions}' for name, positions in steps[at:])
            return _Found(root, tuple(taken), f"${rest}")
        if not pa.types.is_struct(inner) or inner.get_field_index(step) < 0:
            return None
        inner = inner.field(step).type
        taken.append(step)
    return _Found(root, tuple(taken))
