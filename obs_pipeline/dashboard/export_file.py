"""A whole export as one file, part by part: every row that ``dashboard_export_data`` gives in pages, in the same order.

Here: the text of rows as CSV or JSON, made by the engine, so that a file of any length takes the memory of one part. Which rows
they are is decided with the other answers; how a file reaches whoever asked is the transport's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.answers.asking import Asking
from obs_pipeline.dashboard.answers.export import export_data, exported_rows

ROWS_A_PART: Final = 8_192
_TEXTS: Final = ("org", "project", "team", "agent", "provider", "model")
COLUMNS: Final = ("day", *_TEXTS, "cost", "calls", "errors", "tokens", "saved_tokens", "unpriced_calls")


def export_file(asking: Asking, asked: q.ExportAsked) -> Iterator[q.Export | str]:
    """First what the export tells of itself, without rows; then the text of the file, in parts.

    As JSON it is an object of what the export tells, whose ``rows`` are the rows.

    Raises:
        BadQuestion: a page of it was asked for.
    """
    if paged := {"limit", "cursor"} & asked.model_fields_set:
        raise q.BadQuestion(f"{sorted(paged)[0]}: a file is all of the rows; leave it out.")
    about = export_data(asking, asked.model_copy(update={"limit": 1}))
    head = about.model_copy(update={"content": "", "has_more": False, "next_cursor": None})
    yield head
    query, values = exported_rows(asking, asked)
    line = _CSV_LINE if asked.format == "csv" else _JSON_LINE
    lines = (
        part.column(0).to_pylist()
        for part in asking.reader.parts(f"SELECT {line} AS line FROM ({query})", values, ROWS_A_PART)
    )
    yield from _csv(lines) if asked.format == "csv" else _json(head, lines)


def _csv(parts: Iterator[list[str]]) -> Iterator[str]:
    header = f"{','.join(COLUMNS)}\r\n"
    for lines in parts:
        yield f"{header}{''.join(lines)}"
        header = ""
    if header:
        yield header


def _json(head: q.Export, parts: Iterator[list[str]]) -> Iterator[str]:
    told = head.model_dump(mode="json", exclude={"content", "has_more", "next_cursor", "format", "media_type"})
    yield json.dumps(told, ensure_ascii=False)[:-1] + ', "rows": ['
    before = ""
    for lines in parts:
        yield before + ",\n".join(lines)
        before = ",\n"
    yield "]}\n"


def _harmless(column: str) -> str:
    """As ``answers.export.neutral``: text that a spreadsheet would compute gets an apostrophe before it."""
    return rf"CASE WHEN regexp_matches({column}, '^ *[=+\-@\t\r\n]') THEN concat('''', {column}) ELSE {column} END"


def _quoted(text: str) -> str:
    quotes = f"""concat('"', replace({text}, '"', '""'), '"')"""
    return rf"""coalesce(CASE WHEN regexp_matches({text}, '[",\r\n]') THEN {quotes} ELSE {text} END, '')"""


_CSV_LINE: Final = (
    "concat("
    + ", ',', ".join(_quoted(_harmless(name)) if name in _TEXTS else f"CAST({name} AS VARCHAR)" for name in COLUMNS)
    + ", chr(13), chr(10))"
)
_MEMBERS: Final = ", ".join(
    f"{name} := {f'CAST({name} AS VARCHAR)' if name in ('day', 'cost') else name}" for name in COLUMNS
)
_JSON_LINE: Final = f"CAST(to_json(struct_pack({_MEMBERS})) AS VARCHAR)"
