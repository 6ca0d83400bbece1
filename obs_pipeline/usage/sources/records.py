"""Bytes into records: lines of JSON, or CSV records whose quoted fields may hold line breaks.

Here: where a record begins and ends, over pieces of any size, with memory bounded by one piece and one record; and the records
that cannot be read as text. No meaning of a record, no columns.

A record that cannot be read never takes its neighbours with it: an endless line is skipped to its end, and a quote that is
never closed costs its own line only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_pipeline.usage.sources.streams import StreamBroken

Positions = npt.NDArray[np.int64]

RAW_CHARACTERS: Final = 2_000
_NEWLINE: Final = 10
_QUOTE: Final = 34
_BLANK_LINE: Final = b" \t\r\n"
_BLANK_RECORD: Final = b" \r\n"
"""A record of tabs alone holds empty fields when the tab is the delimiter."""
_HEAD_BYTES: Final = 4 * RAW_CHARACTERS
_NONE: Final[Positions] = np.empty(0, np.int64)


@dataclass(frozen=True)
class BrokenRow:
    """A row, or a whole file, that never became columns. ``row_number`` as in ``Records.numbers``."""

    row_number: int
    reason: str
    detail: str
    raw: str | None


@dataclass(frozen=True)
class Records:
    """Records in the order of the file, as valid UTF-8 with their line ends, blank ones left out.

    ``numbers`` is the line number when records are lines, else the ordinal of the record; ``lines`` is the line it begins on.
    Both count from 1. ``broken`` are the records that lay between them and could not be read.
    """

    text: pa.StringArray
    numbers: Positions
    lines: Positions
    broken: tuple[BrokenRow, ...] = ()


class Split(NamedTuple):
    """Offsets just past each record found and its newline, and which of them (by position) are lines with a stray quote."""

    ends: Positions
    misquoted: Positions = _NONE


Splitter = Callable[[bytes, bool], Split]
"""Finds the records in bytes that begin with one. The flag says to wait no longer for a quote to be closed: such a line is
misquoted, and the next line begins a record. What follows the last end is the beginning of a record yet to come."""


def shown(data: bytes, length: int | None = None) -> str:
    """A raw row as text: what is not UTF-8 (and zero bytes) escaped, cut to what is kept with a note of the length.

    ``length`` is the size of the whole row in bytes when ``data`` is only its beginning.
    """
    length = len(data) if length is None else length
    text = data[:_HEAD_BYTES].decode("utf-8", "backslashreplace").replace("\0", "\\x00").rstrip("\r\n")
    if len(text) <= RAW_CHARACTERS and length <= _HEAD_BYTES:
        return text
    return f"{text[:RAW_CHARACTERS]}… [{length:,} bytes in all]"


def split_lines(data: bytes, impatient: bool) -> Split:
    """Every line is a record."""
    return Split(np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE) + 1)


def split_csv(delimiter: str) -> Splitter:
    """Records as RFC 4180 quotes them. A quote inside an unquoted field is an ordinary character."""
    field_end = delimiter.encode()
    strict_record = _strict_record(field_end)
    begun_record = _begun_record(field_end)

    def split(data: bytes, impatient: bool) -> Split:
        found = _split_by_parity(data, field_end)
        if found is not None and not (impatient and found.waiting):
            return Split(found.ends)
        return _split_one_by_one(data, impatient, strict_record, begun_record)

    return split


class _Parity(NamedTuple):
    ends: Positions
    waiting: bool


def _split_by_parity(data: bytes, field_end: bytes) -> _Parity | None:
    """A line break with an even number of quotes before it ends a record. None where quotes stand in odd places.

    Counting is only right while every opening quote begins a field (or is the second of a doubled one) and every closing
    quote ends a field (or is the first of a doubled one).
    """
    octets = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(octets == _NEWLINE)
    quotes = np.flatnonzero(octets == _QUOTE)
    if not len(quotes):
        return _Parity(newlines + 1, waiting=False)
    opening, closing = quotes[0::2], quotes[1::2]
    before = octets[np.maximum(opening - 1, 0)]
    after = octets[np.minimum(closing + 1, len(octets) - 1)]
    starts_field = (opening == 0) | np.isin(before, list(field_end + b"\n")) | (before == _QUOTE)
    ends_field = (closing == len(octets) - 1) | np.isin(after, list(field_end + b'\r\n"'))
    if not (starts_field.all() and ends_field.all()):
        return None
    ending = np.searchsorted(quotes, newlines) % 2 == 0
    return _Parity(newlines[ending] + 1, waiting=len(opening) > len(closing))


def _split_one_by_one(data: bytes, impatient: bool, record: re.Pattern[bytes], begun: re.Pattern[bytes]) -> Split:
    ends: list[int] = []
    misquoted: list[int] = []
    position = 0
    while position < len(data):
        if found := record.match(data, position):
            position = found.end()
        elif not impatient and begun.match(data, position):
            break
        else:
            line_end = data.find(b"\n", position) + 1
            if not line_end:
                break
            misquoted.append(len(ends))
            position = line_end
        ends.append(position)
    return Split(np.array(ends, np.int64), np.array(misquoted, np.int64))


def _field(field_end: bytes) -> bytes:
    stop = re.escape(field_end)
    return rb'(?>"[^"]*+(?:""[^"]*+)*+"|[^"\r\n%b][^\r\n%b]*+|)' % (stop, stop)


def _strict_record(field_end: bytes) -> re.Pattern[bytes]:
    field = _field(field_end)
    return re.compile(rb"%b(?:%b%b)*+\r?\n" % (field, re.escape(field_end), field))


def _begun_record(field_end: bytes) -> re.Pattern[bytes]:
    """What may become a record when more bytes come."""
    field = _field(field_end)
    stop = re.escape(field_end)
    return re.compile(rb'(?:%b%b)*+(?:%b\r?|"[^"]*+(?:""[^"]*+)*+)\Z' % (field, stop, field))


def read_records(
    chunks: Iterable[bytes], split: Splitter, *, longest: int, numbered_by_line: bool
) -> Iterator[Records]:
    """The records of a stream. A record longer than ``longest`` bytes is broken, and never held whole.

    A stream that breaks (``StreamBroken``) ends with one broken row that says so and shows the record it broke in.
    """
    reader = _Reader(split, longest, numbered_by_line)
    try:
        for chunk in chunks:
            yield from reader.feed(chunk)
    except StreamBroken as cause:
        yield from reader.break_off(str(cause))
    else:
        yield from reader.finish()


class _Reader:
    def __init__(self, split: Splitter, longest: int, numbered_by_line: bool) -> None:
        self._split = split
        self._longest = longest
        self._numbered_by_line = numbered_by_line
        self._pending = b""
        self._records = 0
        self._lines = 0
        self._skipped: tuple[bytes, int] | None = None

    def feed(self, chunk: bytes) -> Iterator[Records]:
        if self._skipped:
            line_end = chunk.find(b"\n") + 1
            self._skip(chunk[: line_end - 1] if line_end else chunk)
            if not line_end:
                return
            yield self._end_of_long_line()
            chunk = chunk[line_end:]
        self._pending += chunk
        yield from self._take(impatient=False)
        if len(self._pending) > self._longest:
            yield from self._take(impatient=True)
        if len(self._pending) > self._longest:
            self._skip(self._pending)
            self._pending = b""

    def finish(self) -> Iterator[Records]:
        if self._skipped:
            yield self._end_of_long_line()
        if self._pending:
            self._pending += b"\n"
            yield from self._take(impatient=True)

    def break_off(self, cause: str) -> Iterator[Records]:
        yield from self._take(impatient=True)
        rest = self._skipped[0] if self._skipped else self._pending
        detail = f"the file breaks off after line {self._lines:,}: {cause}"
        raw = shown(rest, self._skipped[1] if self._skipped else None) if rest else None
        yield _only_broken(BrokenRow(self._next_number(), "truncated_file", detail, raw))

    def _next_number(self) -> int:
        return (self._lines if self._numbered_by_line else self._records) + 1

    def _skip(self, part: bytes) -> None:
        """Of a line that is too long only the head and the length are kept."""
        head, length = self._skipped or (b"", 0)
        self._skipped = (head + part[: _HEAD_BYTES - len(head)], length + len(part))

    def _end_of_long_line(self) -> Records:
        head, length = self._skipped or (b"", 0)
        self._skipped = None
        detail = self._located(self._too_long(length), self._lines + 1)
        row = BrokenRow(self._next_number(), "line_too_long", detail, shown(head, length))
        self._records += 1
        self._lines += 1
        return _only_broken(row)

    def _located(self, detail: str, line: int) -> str:
        return detail if self._numbered_by_line else f"{detail} (line {line:,})"

    def _too_long(self, length: int) -> str:
        return f"the line has {length:,} bytes; the limit is {self._longest:,}"

    def _take(self, *, impatient: bool) -> Iterator[Records]:
        split = self._split(self._pending, impatient)
        if not len(split.ends):
            return
        taken = self._pending[: split.ends[-1]]
        self._pending = self._pending[split.ends[-1] :]
        yield self._records_of(taken, split)

    def _records_of(self, data: bytes, split: Split) -> Records:
        starts = np.concatenate(([0], split.ends[:-1]))
        lines = self._lines_of(data, starts, split)
        present = self._present(data, starts, split.ends)
        numbers = lines if self._numbered_by_line else self._records + np.cumsum(present)
        self._records += int(present.sum())

        text = _strings(data, split.ends)
        faults = self._faults(data, text, starts, split, present)
        fine = present.copy()
        fine[list(faults)] = False
        broken = tuple(
            BrokenRow(
                int(numbers[at]), reason, self._located(detail, lines[at]), shown(data[starts[at] : split.ends[at] - 1])
            )
            for at, (reason, detail) in sorted(faults.items())
        )
        if fine.all():
            return Records(text, numbers, lines)
        return Records(text.filter(pa.array(fine)), numbers[fine], lines[fine], broken)

    def _lines_of(self, data: bytes, starts: Positions, split: Split) -> Positions:
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
        lines: Positions = self._lines + 1 + np.searchsorted(newlines, starts)
        self._lines += len(newlines)
        return lines

    def _present(self, data: bytes, starts: Positions, ends: Positions) -> npt.NDArray[np.bool_]:
        """Which records are more than a blank line."""
        blank = _BLANK_LINE if self._numbered_by_line else _BLANK_RECORD
        present = np.ones(len(ends), np.bool_)
        for at in np.flatnonzero(np.isin(np.frombuffer(data, np.uint8)[starts], list(blank))):
            present[at] = bool(data[starts[at] : ends[at]].strip(blank))
        return present

    def _faults(
        self,
        data: bytes,
        text: pa.StringArray,
        starts: Positions,
        split: Split,
        present: npt.NDArray[np.bool_],
    ) -> dict[int, tuple[str, str]]:
        """Reason and sentence by position; a later assignment wins, the gravest fault last."""
        faults: dict[int, tuple[str, str]] = {}
        for at in split.misquoted:
            faults[int(at)] = ("bad_csv", "a quote is not closed, or is followed by more than the delimiter")
        for at in _not_utf8(data, text, starts, split.ends):
            faults[at] = ("bad_encoding", "the line is not UTF-8 text")
        sizes = split.ends - starts - 1
        for at in np.flatnonzero(sizes > self._longest):
            faults[int(at)] = ("line_too_long", self._too_long(int(sizes[at])))
        return {at: fault for at, fault in faults.items() if present[at]}


def _only_broken(row: BrokenRow) -> Records:
    return Records(pa.array([], pa.string()), _NONE, _NONE, (row,))


def _strings(data: bytes, ends: Positions) -> pa.StringArray:
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    return pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))


def _not_utf8(data: bytes, text: pa.StringArray, starts: Positions, ends: Positions) -> list[int]:
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return [at for at in range(len(ends)) if not _is_utf8(data[starts[at] : ends[at]])]
    return []


def _is_utf8(record: bytes) -> bool:
    try:
        record.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
