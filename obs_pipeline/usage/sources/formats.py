"""What kind of file this is, from its first bytes and its name.

Here: telling Parquet, CSV and JSON lines apart, and naming what is none of them (UTF-16 text, archives). No reading beyond the
head of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from obs_pipeline.usage.sources.mapping import Format
from obs_pipeline.usage.sources.streams import StreamBroken, unpacked

_HEAD: Final = 1 << 16
_BY_NAME: Final[dict[str, Format]] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_PACKED_NAMES: Final = (".gz", ".zst", ".zstd")
_ARCHIVES: Final = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ\x00": "packed with xz",
}
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Trouble:
    """Why a whole file is not read: a reason code and a sentence."""

    reason: str
    sentence: str


def sniff_format(path: Path) -> Format:
    """The format of a file: Parquet by its first bytes, an object or list as JSON lines, else by name, else by its first line.

    Raises ``FileUnreadable`` when the file cannot be opened.
    """
    head = _head(path)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    if text[:1] in (b"{", b"["):
        return "jsonl"
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED_NAMES]
    named = _BY_NAME.get(suffixes[-1]) if suffixes else None
    return named or ("csv" if b"," in text.split(b"\n", 1)[0] else "jsonl")


def trouble_with_text(path: Path) -> Trouble | None:
    """Why a file cannot be read as lines of UTF-8 at all, if so."""
    head = _head(path)
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            return Trouble("unreadable_file", f"{path.name} is {what}; unpack it, or pack it with gzip or zstd")
    if head.startswith(_UTF16_MARKS) or _alternates_with_zeros(head):
        return Trouble("bad_encoding", f"{path.name} is UTF-16 text; save it as UTF-8")
    return None


def _alternates_with_zeros(head: bytes) -> bool:
    """Latin text in UTF-16 without a mark: every other byte is zero."""
    return any(head[start::2].count(0) > 0.4 * len(head) and head[1 - start :: 2].count(0) == 0 for start in (0, 1))


def _head(path: Path) -> bytes:
    try:
        return next(unpacked(path, _HEAD), b"")
    except StreamBroken:
        return b""
