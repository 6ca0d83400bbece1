"""The bytes of a file in pieces, whatever it is packed in.

Here: gzip and Zstandard by their first bytes, and a break in the middle of a packed file told apart from its end. No lines,
no encodings, no formats.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Literal

from obs_pipeline.errors import ObsError

Packing = Literal["plain", "gzip", "zstd"]

_MAGIC: Final[tuple[tuple[bytes, Packing], ...]] = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))

_GZIP_PIECE: Final = 1 << 20
_ZSTD_PIECE: Final = 1 << 12
"""Packed bytes taken at a time. Four bytes of Zstandard can stand for 128 KiB, so a piece unpacks to 128 MiB at worst."""


class FileUnreadable(ObsError):
    """A file that cannot be opened or whose disk fails; nothing can be said about its rows."""


class StreamBroken(Exception):
    """The bytes end before they should; those up to the break have been handed out. Never leaves this package."""


def packing_of(head: bytes) -> Packing:
    """How a file that begins with ``head`` is packed."""
    return next((packing for magic, packing in _MAGIC if head.startswith(magic)), "plain")


def unpacked(path: Path, size: int) -> Iterator[bytes]:
    """The unpacked bytes of ``path`` in pieces of ``size`` (the last may be shorter).

    Raises ``StreamBroken`` after the last piece when a packed file ends early or is damaged, ``FileUnreadable`` when the
    operating system refuses to open or read it.
    """
    try:
        with path.open("rb") as file:
            packing = packing_of(file.read(4))
            file.seek(0)
            if packing == "plain":
                yield from iter(lambda: file.read(size), b"")
            else:
                yield from _gathered(_gunzipped(file) if packing == "gzip" else _unzstd(file), size)
    except OSError as error:
        raise FileUnreadable(f"{path} cannot be read: {error.strerror or error}") from error


def _gunzipped(file: BinaryIO) -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=file) as unzipping:
            yield from iter(lambda: unzipping.read1(_GZIP_PIECE), b"")
    except EOFError:
        raise StreamBroken("the gzip stream ends before its end mark") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise StreamBroken(f"the gzip stream is damaged: {error}") from error


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    import zstandard

    unpacker = zstandard.ZstdDecompressor()
    frame = unpacker.decompressobj()
    started = False
    try:
        while packed := file.read(_ZSTD_PIECE):
            while packed:
                started = True
                yield frame.decompress(packed)
                packed = b""
                if frame.eof:
                    packed, frame, started = frame.unused_data, unpacker.decompressobj(), False
    except zstandard.ZstdError as error:
        raise StreamBroken(f"the zstd stream is damaged: {error}") from error
    if started:
        raise StreamBroken("the zstd stream ends before its end mark")


def _gathered(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Pieces put together until they reach ``size``; what came before a break is handed out first."""
    held: list[bytes] = []
    length = 0
    broken: StreamBroken | None = None
    try:
        for piece in pieces:
            held.append(piece)
            length += len(piece)
            if length >= size:
                yield b"".join(held)
                held, length = [], 0
    except StreamBroken as error:
        broken = error
    if length:
        yield b"".join(held)
    if broken:
        raise broken
