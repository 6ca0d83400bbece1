"""Proofs over lake tables: keys that repeat, totals that differ between two tables, totals below zero.

Each answers with the offending days and keys, never only with yes or no. Sums are compared exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from deltalake import Schema

from obs_pipeline.storage.lake import DayRange, Lake, LakeTable

_SHOWN = 10


@dataclass(frozen=True)
class Proof:
    """The outcome of one proof: how many offences, and the first of them as rows."""

    offences: int
    examples: Sequence[Mapping[str, Any]] = ()

    @property
    def holds(self) -> bool:
        return self.offences == 0


def keys_are_unique(connection: duckdb.DuckDBPyConnection, lake: Lake, table: LakeTable, days: DayRange) -> Proof:
    """No key of the table stands twice within the days."""
    lake.view(connection, table, days)
    keys = ", ".join(table.key)
    return _proof(connection, f"SELECT {keys}, count(*) AS rows FROM {table.name} GROUP BY {keys} HAVING count(*) > 1")


def totals_agree(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    days: DayRange,
    left: tuple[LakeTable, str, Mapping[str, str]],
    right: tuple[LakeTable, str, Mapping[str, str]],
) -> Proof:
    """Per day, the sums named on both sides are equal. A side is (table, filter, {name: aggregate expression})."""
    selects = []
    for table, condition, sums in (left, right):
        lake.view(connection, table, days)
        columns = ", ".join(f"coalesce({sums[name]}, 0) AS {name}" for name in left[2])
        selects.append(f"SELECT dt, {columns} FROM {table.name} WHERE {condition} GROUP BY dt")
    compared = ", ".join(
        f"coalesce(l.{name}, 0) AS {left[0].name}_{name}, coalesce(r.{name}, 0) AS {right[0].name}_{name}"
        for name in left[2]
    )
    unequal = " OR ".join(f"coalesce(l.{name}, 0) <> coalesce(r.{name}, 0)" for name in left[2])
    return _proof(
        connection,
        f"SELECT dt, {compared} FROM ({selects[0]}) l FULL JOIN ({selects[1]}) r USING (dt) WHERE {unequal}",
    )


def never_negative(
    connection: duckdb.DuckDBPyConnection, lake: Lake, table: LakeTable, days: DayRange, columns: Sequence[str]
) -> Proof:
    """No row of the days is below zero in any of the columns."""
    lake.view(connection, table, days)
    below = " OR ".join(f"{column} < 0" for column in columns)
    return _proof(connection, f"SELECT dt, {', '.join(columns)} FROM {table.name} WHERE {below}")


def schema_is_declared(lake: Lake, table: LakeTable) -> Proof:
    """The stored table has the columns and types that the code declares."""
    opened = lake.newest(table)
    if opened is None:
        return Proof(0)
    stored, declared = _types(opened.schema()), _types(Schema.from_arrow(table.schema))
    names = sorted(stored.keys() | declared.keys())
    wrong = [
        {"column": name, "stored": stored.get(name), "declared": declared.get(name)}
        for name in names
        if stored.get(name) != declared.get(name)
    ]
    return Proof(len(wrong), wrong[:_SHOWN])


def _types(schema: Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema.fields}


def _proof(connection: duckdb.DuckDBPyConnection, offences: str) -> Proof:
    found = connection.execute(f"SELECT count(*) OVER () AS offences, * FROM ({offences}) LIMIT {_SHOWN}")
    names = [column[0] for column in found.description or []]
    rows = found.fetchall()
    if not rows:
        return Proof(0)
    return Proof(int(rows[0][0]), [dict(zip(names[1:], row[1:], strict=True)) for row in rows])
