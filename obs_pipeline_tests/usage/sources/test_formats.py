"""Telling what a file is."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from obs_pipeline.usage.sources.formats import sniff_format, trouble_with_text
from obs_pipeline.usage.sources.streams import FileUnreadable


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.parquet", b"PAR1....PAR1", "parquet"),
        ("a.dat", b"PAR1....PAR1", "parquet"),
        ("a.parquet", b"no such thing", "parquet"),
        ("a.csv", b"a,b\n1,2\n", "csv"),
        ("a.csv.gz", b"a;b\n1;2\n", "csv"),
        ("a.txt", b"a,b\n1,2\n", "csv"),
        ("a.jsonl", b"rubbish, first\n{}\n", "jsonl"),
        ("a.log", b'{"a": 1}\n', "jsonl"),
        ("a.csv", b'{"a": 1, "b": 2}\n', "jsonl"),
        ("a.log", b'\xef\xbb\xbf \n{"a": 1}\n', "jsonl"),
        ("a.json", b'[{"a": 1}]', "jsonl"),
        ("a.log", b"", "jsonl"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_the_first_bytes_then_the_name_then_the_first_line_tell_the_format(tmp_path: Path, name, content, form, pack):
    path = tmp_path / name
    path.write_bytes(pack(content))
    assert sniff_format(path) == form


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a,b\n1,2\n".encode("utf-16"), "bad_encoding"),
        ("a,b\n1,2\n".encode("utf-16-le"), "bad_encoding"),
        ("a,b\n1,2\n".encode("utf-16-be"), "bad_encoding"),
        (b"PK\x03\x04...", "unreadable_file"),
        (b"BZh91AY...", "unreadable_file"),
        (b"\xfd7zXZ\x00...", "unreadable_file"),
    ],
)
def test_a_file_that_is_no_lines_of_text_is_named(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "usage.csv"
    path.write_bytes(content)
    trouble = trouble_with_text(path)
    assert trouble is not None
    assert trouble.reason == reason
    assert "usage.csv" in trouble.sentence


@pytest.mark.parametrize("content", [b"", b"a,b\n", "größe,b\n".encode(), "größe,b\n".encode("latin-1"), b"a\x00b\n"])
def test_other_text_is_left_to_its_rows(tmp_path: Path, content: bytes):
    path = tmp_path / "usage.csv"
    path.write_bytes(content)
    assert trouble_with_text(path) is None


def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(FileUnreadable, match="nowhere"):
        sniff_format(tmp_path / "nowhere.csv")
