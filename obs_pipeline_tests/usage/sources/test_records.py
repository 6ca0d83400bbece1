"""Splitting bytes into records: the same records whatever the pieces, and no neighbour harmed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.usage.sources.records import BrokenRow, read_records, split_csv, split_lines
from obs_pipeline.usage.sources.streams import StreamBroken

CSV = split_csv(",")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read(
    data: bytes, size: int, split=split_lines, longest: int = 1000
) -> tuple[list[tuple[int, int, str]], list[BrokenRow]]:
    """(number, line, text) of every record, and the broken rows."""
    records: list[tuple[int, int, str]] = []
    broken: list[BrokenRow] = []
    by_line = split is split_lines
    for block in read_records(pieces(data, size), split, longest=longest, numbered_by_line=by_line):
        block.text.validate(full=True)
        texts = block.text.to_pylist()
        records += zip(
            block.numbers.tolist(), block.lines.tolist(), (text.rstrip("\r\n") for text in texts), strict=True
        )
        broken += block.broken
    return records, broken


LINES = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
        st.sampled_from(
            [b"", b" ", b"\r", b"\t", b"good", b"x" * 90, b"x" * 100, b"x" * 101, b"y" * 250, b"\xff" * 95, b"caf\xe9"]
        ),
    ),
    max_size=25,
)


def is_utf8(line: bytes) -> bool:
    return line.decode("utf-8", "replace").encode() == line


@settings(max_examples=300)
@given(lines=LINES, size=st.integers(1, 300), ends_with_newline=st.booleans())
def test_every_line_that_is_not_blank_comes_out_once_under_its_number(lines, size, ends_with_newline):
    data = b"\n".join(lines) + (b"\n" if ends_with_newline else b"")
    records, broken = read(data, size, longest=100)
    expected = {number: line for number, line in enumerate(data.split(b"\n"), 1) if line.strip(b" \t\r")}
    fine = {n: line for n, line in expected.items() if len(line) <= 100 and is_utf8(line)}
    assert {number: text for number, _, text in records} == {n: line.decode().rstrip("\r") for n, line in fine.items()}
    assert len(records) == len(fine)
    assert sorted(row.row_number for row in broken) == sorted(expected.keys() - fine.keys())
    assert all((row.reason == "line_too_long") == (len(expected[row.row_number]) > 100) for row in broken)


def test_a_line_much_longer_than_a_piece_is_never_held_whole():
    def endless() -> Iterator[bytes]:
        yield b"first\nsecond "
        for _ in range(200):
            yield b"x" * 1000
        yield b"\nthird\n"

    blocks = list(read_records(endless(), split_lines, longest=5000, numbered_by_line=True))
    assert [text for block in blocks for text in block.text.to_pylist()] == ["first\n", "third\n"]
    assert [number for block in blocks for number in block.numbers.tolist()] == [1, 3]
    (row,) = [row for block in blocks for row in block.broken]
    assert (row.row_number, row.reason) == (2, "line_too_long")
    assert "200,007 bytes" in row.detail
    assert row.raw is not None
    assert row.raw.startswith("second xxx")
    assert row.raw.endswith("… [200,007 bytes in all]")
    assert len(row.raw) < 2_100


@pytest.mark.parametrize("tail", [b"", b"par", b"x" * 3000])
def test_a_broken_stream_ends_with_a_row_that_shows_where(tail: bytes):
    def breaking() -> Iterator[bytes]:
        yield b"one\ntwo\n" + tail
        raise StreamBroken("the gzip stream ends before its end mark")

    blocks = list(read_records(breaking(), split_lines, longest=1000, numbered_by_line=True))
    assert [text for block in blocks for text in block.text.to_pylist()] == ["one\n", "two\n"]
    (row,) = [row for block in blocks for row in block.broken]
    assert (row.row_number, row.reason) == (3, "truncated_file")
    assert "after line 2" in row.detail
    assert row.raw is None if not tail else row.raw.startswith(tail[:2000].decode())


FIELD = st.text(st.sampled_from(list('ab,"\n 1é')), max_size=6)
TABLE = st.lists(st.lists(FIELD, min_size=2, max_size=3), min_size=1, max_size=12).filter(
    lambda rows: all(any(field.strip(" \r\n") for field in row) for row in rows)
)


@settings(max_examples=300)
@given(rows=TABLE, size=st.integers(1, 100), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_well_written_csv_splits_into_the_records_that_were_written(rows, size, quoting):
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="\n").writerows(rows)
    records, broken = read(text.getvalue().encode(), size, CSV)
    assert not broken
    assert [number for number, _, _ in records] == list(range(1, len(rows) + 1))
    assert [next(csv.reader([record])) for _, _, record in records] == rows


@settings(max_examples=300)
@given(text=st.text(st.sampled_from(list('ab,"\n')), max_size=60), size=st.integers(1, 60))
def test_csv_of_any_kind_splits_the_same_in_pieces_as_whole(text: str, size: int):
    data = text.encode()
    assert read(data, size, CSV) == read(data, 1000, CSV)


@settings(max_examples=300)
@given(text=st.text(st.sampled_from(list('ab,"\n')), max_size=60), size=st.integers(1, 60))
def test_csv_of_any_kind_loses_no_character(text: str, size: int):
    records, broken = read(text.encode(), size, CSV)
    taken = [record for _, _, record in records] + [row.raw or "" for row in broken]
    assert sum(len(record.replace("\n", "")) for record in taken) == len(text.replace("\n", ""))


@pytest.mark.parametrize(
    ("text", "texts", "broken_lines"),
    [
        ('a,"b\nc,d\ne,f\n', ["c,d", "e,f"], [1]),
        ('a,b\nc,"d\ne,"f"\ng,h\n', ["a,b", 'e,"f"', "g,h"], [2]),
        ('a,"b"c\nd,e\n', ["d,e"], [1]),
        ('5" screen,b\nc,d\n', ['5" screen,b', "c,d"], []),
        ('a,5" and 6"\n"c\nd",e\n', ['a,5" and 6"', '"c\nd",e'], []),
        ('a,"say ""hi""\nthere"\nb,c\n', ['a,"say ""hi""\nthere"', "b,c"], []),
        ('a,""\n"",b\n', ['a,""', '"",b'], []),
        ("a,b\r\nc,d\r\n", ["a,b", "c,d"], []),
        ('"a\r\nb",c\r\nd,e', ['"a\r\nb",c', "d,e"], []),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stray_quote_costs_its_own_line_only(text: str, texts: list[str], broken_lines: list[int], size: int):
    records, broken = read(text.encode(), size, CSV)
    assert [record for _, _, record in records] == texts
    assert [row.reason for row in broken] == ["bad_csv"] * len(broken_lines)
    assert [row.detail.rsplit("line ", 1)[1].rstrip(")") for row in broken] == [str(line) for line in broken_lines]


def test_a_quote_that_is_never_closed_is_given_up_at_the_limit():
    lines = b"".join(b"row %d,x\n" % n for n in range(400))
    records, broken = read(b'a,"b\n' + lines, 64, CSV, longest=300)
    assert len(records) == 400
    assert [row.row_number for row in broken] == [1]
    assert [number for number, _, _ in records] == list(range(2, 402))


def test_the_line_of_a_record_counts_the_line_breaks_inside_the_records_before():
    records, _ = read(b'"a\nb",c\n\nd,e\n"f\n\n\ng",h\ni,j\n', 5, CSV)
    assert [(number, line) for number, line, _ in records] == [(1, 1), (2, 4), (3, 5), (4, 9)]
