"""Reading one YAML or JSON file from an untrusted hand into plain values that remember their lines.

Knows text: sizes, encodings, syntax, duplicate keys, anchors; and ``Problem``, one thing to mend in a file. What the
values mean is decided by the room whose file it is.

Only the part of YAML that reviewers can read at a glance is accepted: no tags, no merge keys, keys are words,
``true`` and ``false`` are the only truth values (so ``no`` and ``on`` stay words), and numbers are exact: whole
numbers become ``int``, all others ``Decimal``. Dates stay text. Anchors may be used, but what they expand to counts
as if it were written out.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml

FieldPath = tuple[str | int, ...]

MAX_BYTES: Final = 1_000_000
MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 32
SUFFIXES: Final = (".yaml", ".yml", ".json")

_WHOLE: Final = re.compile(r"[-+]?[0-9][0-9_]{0,59}")
_NUMBER: Final = re.compile(r"[-+]?(?:[0-9][0-9_]{0,59}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:[eE][-+]?[0-9]{1,4})?")
_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# The C parser is twenty times quicker; where it was not built, the Python one gives the same events.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in one file. ``line`` counts from 1; ``field`` is dotted and empty for the whole file."""

    file: str
    line: int
    field: str
    message: str
    mend: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: {self.field}" if self.field else f"{self.file}:{self.line}"
        return f"{where}: {self.message}; {self.mend}"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file; ``lines`` gives the line (from 1) of every field it writes out."""

    value: Any
    line: int
    lines: Mapping[FieldPath, int]


def nearest_line(lines: Mapping[FieldPath, int], path: FieldPath) -> int:
    """The line of a field, or of what is nearest around it where the file does not write it out."""
    return next((lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in lines), 1)


class _RefusedError(Exception):
    def __init__(self, line: int, message: str, mend: str) -> None:
        self.line, self.message, self.mend = line, message, mend
        super().__init__(message)


def read_documents(path: Path, file: str) -> tuple[tuple[Document, ...], bytes, Problem | None]:
    """The documents of ``path``, its bytes, and the problem instead of documents if it cannot be read.

    ``file`` is the name used in the problem. Nothing is raised for bad content or an unreadable file.
    """
    content = b""
    try:
        content = _bytes(path)
        return parse_documents(content, is_json=path.suffix.lower() == ".json"), content, None
    except _RefusedError as refused:
        return (), content, Problem(file, refused.line, "", refused.message, refused.mend)
    except OSError as error:
        reason = error.strerror or str(error)
        return (), content, Problem(file, 1, "", f"cannot be read: {reason}", "make it a readable file")


def documents_in(content: bytes, file: str) -> tuple[tuple[Document, ...], Problem | None]:
    """The YAML documents of a text, or the problem instead. ``file`` is the name used in the problem."""
    try:
        return parse_documents(content, is_json=False), None
    except _RefusedError as refused:
        return (), Problem(file, refused.line, "", refused.message, refused.mend)


def _bytes(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise _RefusedError(1, "is not a regular file", "put a plain text file here or rename it")
    if status.st_size > MAX_BYTES:
        raise _too_large(status.st_size)
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _too_large(len(content))
    return content


def _too_large(size: int) -> _RefusedError:
    return _RefusedError(
        1,
        f"has {size:,} bytes, more than the {MAX_BYTES:,} a policy file may have",
        "split it into several files",
    )


def parse_documents(content: bytes, *, is_json: bool) -> tuple[Document, ...]:
    """Every document that is not empty."""
    text = _text(content)
    documents = _json_document(text) if is_json else tuple(_yaml_documents(text))
    return tuple(document for document in documents if document.value is not None)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _RefusedError(line, "is not UTF-8 text", "save the file in UTF-8") from None


def _yaml_documents(text: str) -> Iterator[Document]:
    try:
        yield from _build(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise _RefusedError(line, f"is not YAML: {error.problem}", "mend the syntax") from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise _RefusedError(line, "is not YAML: it holds a character that text may not have", "remove it") from None


def _json_document(text: str) -> tuple[Document, ...]:
    if not text.strip():
        return ()
    lines = _json_lines(text)
    try:
        value = json.loads(
            text,
            parse_float=_number,
            parse_int=_number,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise _RefusedError(error.lineno, f"is not JSON: {error.msg}", "mend the syntax") from None
    except RecursionError:
        raise _too_deep(1) from None
    return (Document(value, 1, lines),)


def _json_lines(text: str) -> Mapping[FieldPath, int]:
    # JSON is read as YAML for its lines alone, so what only JSON allows (tabs, halves of surrogate pairs) may be
    # blanked out first. The few texts that are still no YAML go without lines.
    blanked = re.sub(r"\\u[0-9a-fA-F]{4}", "?", text.replace("\t", " "))
    try:
        documents = tuple(_build(yaml.parse(blanked, Loader=_LOADER)))
    except yaml.YAMLError:
        return {}
    return documents[0].lines if documents else {}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(1, f"states {twice!r} twice", "keep one")
    return members


def _no_constant(word: str) -> Any:
    raise _RefusedError(1, f"holds {word}, which is no number", "write a number")


def _number(text: str) -> int | Decimal | str:
    if _WHOLE.fullmatch(text):
        return int(text.replace("_", ""))
    return Decimal(text.replace("_", "")) if _NUMBER.fullmatch(text) else text


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    return _number(text)


@dataclass(slots=True)
class _Open:
    """A mapping or sequence whose end has not come yet; ``nodes`` counts it as if its anchors were written out."""

    value: dict[str, Any] | list[Any]
    path: FieldPath
    line: int
    anchor: str | None
    nodes: int = 1
    key: str | None = None
    key_lines: dict[str, int] = field(default_factory=dict)


class _Builder:
    """Turns parse events into documents, one event at a time.

    Neither recursive nor eager, so a file nested a million deep is refused at the limit before it can exhaust
    the stack, and an anchor bomb before it is expanded.
    """

    def __init__(self) -> None:
        self._opened: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._lines: dict[FieldPath, int] = {}
        self._nodes = 0

    def feed(self, event: yaml.Event) -> Document | None:
        if isinstance(event, yaml.NodeEvent):
            line = _line(event)
            if not self._took_key(event, line):
                return self._node(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            return self._close()
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors, self._lines = {}, {}
        return None

    def _took_key(self, event: yaml.NodeEvent, line: int) -> bool:
        parent = self._opened[-1] if self._opened else None
        if parent is None or isinstance(parent.value, list) or parent.key is not None:
            return False
        if not isinstance(event, yaml.ScalarEvent):
            raise _RefusedError(line, "has a key that is not a word", "write one word before the colon")
        key: str = event.value
        if key == "<<":
            raise _RefusedError(line, "merges another mapping with <<", "write the fields out")
        if key in parent.key_lines:
            raise _RefusedError(line, f"states {key!r} twice (first in line {parent.key_lines[key]})", "keep one")
        parent.key_lines[key] = line
        parent.key = key
        self._lines[(*parent.path, key)] = line
        return True

    def _node(self, event: yaml.NodeEvent, line: int) -> Document | None:
        if isinstance(event, yaml.AliasEvent):
            return self._put(*self._expanded(event.anchor or "", line), line)
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            raise _RefusedError(line, f"carries the tag {event.tag}", "remove the tag")
        if isinstance(event, yaml.CollectionStartEvent):
            self._open(event, line)
        elif isinstance(event, yaml.ScalarEvent):
            value = _scalar(event)
            if event.anchor is not None:
                self._anchors[event.anchor] = (value, 1)
            return self._put(value, 1, line)
        return None

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> None:
        if len(self._opened) == MAX_DEPTH:
            raise _too_deep(line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        empty: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._path()
        self._lines.setdefault(path, line)
        self._opened.append(_Open(empty, path, line, event.anchor))

    def _close(self) -> Document | None:
        closed = self._opened.pop()
        if closed.anchor is not None:
            self._anchors[closed.anchor] = (closed.value, closed.nodes)
        return self._put(closed.value, closed.nodes, closed.line)

    def _path(self) -> FieldPath:
        if not self._opened:
            return ()
        parent = self._opened[-1]
        return (*parent.path, len(parent.value) if parent.key is None else parent.key)

    def _expanded(self, anchor: str, line: int) -> tuple[Any, int]:
        if anchor not in self._anchors:
            raise _RefusedError(line, f"uses *{anchor}, which nothing above defines", "write the value out")
        known = self._anchors[anchor]
        if known is None:
            raise _RefusedError(line, f"uses *{anchor} inside itself, a cycle", "write the value out")
        return known

    def _put(self, value: Any, nodes: int, line: int) -> Document | None:
        if not self._opened:
            self._nodes += nodes
            self._limit(self._nodes, line)
            return Document(value, line, self._lines)
        parent = self._opened[-1]
        parent.nodes += nodes
        self._limit(parent.nodes, line)
        if isinstance(parent.value, list):
            self._lines.setdefault((*parent.path, len(parent.value)), line)
            parent.value.append(value)
        elif parent.key is not None:
            parent.value[parent.key] = value
            parent.key = None
        return None

    def _limit(self, nodes: int, line: int) -> None:
        if nodes > MAX_NODES:
            raise _RefusedError(
                line,
                f"holds more than {MAX_NODES:,} values once its anchors are written out",
                "split the file and write the values out",
            )


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _build(events: Iterable[yaml.Event]) -> Iterator[Document]:
    builder = _Builder()
    for event in events:
        document = builder.feed(event)
        if document is not None:
            yield document


def _too_deep(line: int) -> _RefusedError:
    return _RefusedError(line, f"is nested more than {MAX_DEPTH} deep", "flatten it")
