"""Packed files: whole, in several parts, cut short and damaged."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
import zstandard

from obs_pipeline.usage.sources.streams import FileUnreadable, StreamBroken, unpacked

DATA = random.Random(1).randbytes(300_000)
PACKERS = {"plain": lambda data: data, "gzip": gzip.compress, "zstd": zstandard.compress}


def taken(path: Path, size: int) -> tuple[list[bytes], bool]:
    """The pieces, and whether the stream broke."""
    pieces: list[bytes] = []
    try:
        pieces.extend(unpacked(path, size))
    except StreamBroken:
        return pieces, True
    return pieces, False


def bytes_before_break(path: Path, size: int) -> bytes:
    pieces, broken = taken(path, size)
    assert broken
    return b"".join(pieces)


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("size", [1000, 65_536, 1 << 20])
def test_a_file_unpacks_to_its_bytes_whatever_it_is_called(tmp_path: Path, packing: str, size: int):
    path = tmp_path / "usage.data"
    path.write_bytes(PACKERS[packing](DATA))
    assert b"".join(unpacked(path, size)) == DATA


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_file_packed_in_several_parts_is_one_stream(tmp_path: Path, packing: str):
    path = tmp_path / "usage"
    path.write_bytes(PACKERS[packing](DATA[:100]) + PACKERS[packing](DATA[100:]))
    assert b"".join(unpacked(path, 4096)) == DATA


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_cut_file_gives_its_bytes_up_to_the_cut_and_then_breaks(tmp_path: Path, packing: str):
    path = tmp_path / "usage"
    packed = PACKERS[packing](DATA)
    path.write_bytes(packed[: len(packed) // 2])
    got = bytes_before_break(path, 10_000)
    assert DATA.startswith(got)
    assert len(got) > len(DATA) // 4


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_rubbish_after_the_packed_data_is_a_break_and_costs_no_data(tmp_path: Path, packing: str):
    path = tmp_path / "usage"
    path.write_bytes(PACKERS[packing](DATA) + b"this is not packed")
    assert bytes_before_break(path, 10_000) == DATA


def test_a_wrong_checksum_is_a_break(tmp_path: Path):
    path = tmp_path / "usage"
    packed = bytearray(gzip.compress(DATA))
    packed[-6] ^= 0xFF
    path.write_bytes(packed)
    assert bytes_before_break(path, 10_000) == DATA


def test_an_empty_file_has_no_bytes(tmp_path: Path):
    path = tmp_path / "usage"
    path.write_bytes(b"")
    assert taken(path, 10) == ([], False)


def test_a_tiny_file_that_unpacks_to_very_much_comes_in_pieces(tmp_path: Path):
    path = tmp_path / "bomb"
    path.write_bytes(zstandard.compress(bytes(400 << 20)))
    assert max(map(len, unpacked(path, 1 << 20))) <= 160 << 20


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_a_file_that_cannot_be_opened_is_told_by_name(tmp_path: Path, what: str):
    path = tmp_path / what
    if what == "folder":
        path.mkdir()
    with pytest.raises(FileUnreadable, match=str(path)):
        list(unpacked(path, 10))
