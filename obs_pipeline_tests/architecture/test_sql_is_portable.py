"""Every .sql file of the package means the same to DuckDB and to Spark SQL."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlglot

import obs_pipeline

PACKAGE = Path(obs_pipeline.__file__).parent
FILES = sorted(PACKAGE.rglob("*.sql"))

# Functions that only one of the two engines has, or that mean something else in the other.
TRAPS = {
    "quantile_cont", "quantile_disc", "approx_quantile", "approx_count_distinct", "epoch", "epoch_ms", "mad", "median",
    "list_transform", "list_filter", "list_reduce", "generate_series", "unnest", "explode", "dayofweek", "list", "first",
    "last", "arg_max", "arg_min", "strftime", "date_part", "struct_pack", "named_struct", "collect_list", "string_agg",
    "isodow", "regexp_matches", "hash", "today", "now",
}  # fmt: skip


def traps_in(query: str) -> set[str]:
    code = re.sub(r"--[^\n]*|'[^']*'", "", query.lower())
    found = set(re.findall(r"\b(\w+)\s*\(", code)) & TRAPS
    found |= {"lambda"} if "->" in code else set()
    found |= {"extract dayofweek"} if "dayofweek" in code else set()
    found |= {sign for sign in ("::", "exclude", "group by all", "order by all", "by name") if sign in code}
    found |= {"SEMI/ANTI JOIN without LEFT"} if _has_bare_semi_join(code) else set()
    return found


def _has_bare_semi_join(query: str) -> bool:
    words = query.split()
    return any(
        word in ("semi", "anti") and words[place + 1 : place + 2] == ["join"] and words[place - 1] != "left"
        for place, word in enumerate(words)
    )


def test_there_are_sql_files_to_test():
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_query_parses_in_both_dialects_and_avoids_the_traps(path: Path):
    query = path.read_text(encoding="utf-8")
    for dialect in ("duckdb", "spark"):
        assert len([one for one in sqlglot.parse(query, dialect=dialect) if one is not None]) == 1
    assert traps_in(query) == set()


@pytest.mark.parametrize(
    ("query", "trap"),
    [
        ("SELECT median(x) FROM t", "median"),
        ("SELECT quantile_cont(x, 0.5) FROM t", "quantile_cont"),
        ("SELECT extract(dayofweek FROM x) FROM t", "extract dayofweek"),
        ("SELECT x::INT FROM t", "::"),
        ("SELECT list_transform(xs, x -> x + 1) FROM t", "lambda"),
        ("SELECT * FROM a SEMI JOIN b USING (x)", "SEMI/ANTI JOIN without LEFT"),
    ],
)
def test_a_trap_is_recognised(query: str, trap: str):
    assert trap in traps_in(query)
