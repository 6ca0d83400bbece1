"""A small picture of a series against its band, as PNG bytes: mail programs and Slack show no SVG.

Holds drawing only: numbers in, bytes out. No text is drawn (the numbers stand beside the picture in every message).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Value = float | None
Floats = NDArray[np.float64]

WIDTH: Final = 560
HEIGHT: Final = 140
_FINER: Final = 3
"""Drawn this many times larger and averaged down, which makes the edges smooth."""

_MARGIN: Final = 0.08
_PAGE: Final = (255, 255, 255)
_BAND: Final = (216, 226, 244)
_LINE: Final = (47, 128, 237)
_MARK: Final = (229, 52, 61)


def band_png(
    observed: Sequence[Value], lower: Sequence[Value], upper: Sequence[Value], marks: Sequence[int] = ()
) -> bytes:
    """A picture of ``WIDTH`` by ``HEIGHT`` pixels; ``marks`` are positions in ``observed`` to be dotted.

    The three sequences are equally long and evenly spaced in time. Gaps (None, NaN, infinities) are bridged by a
    straight line.

    Raises:
        ValueError: nothing is left to draw, or the lengths differ.
    """
    seen, low, high = (_filled(values) for values in (observed, lower, upper))
    if not len(seen) == len(low) == len(high):
        raise ValueError("observed, lower and upper must be equally long")
    width, height = WIDTH * _FINER, HEIGHT * _FINER
    shown = np.concatenate([seen, low, high])
    shown = shown[np.isfinite(shown)]
    if not shown.size:
        raise ValueError("there is no value to draw")
    bottom, top = float(shown.min()), float(shown.max())
    # Halves are subtracted, so that the two ends of the range of floats are still a finite distance apart.
    reach = max(top / 2 - bottom / 2, abs(top) * 1e-9, 1e-12)

    def pixels(values: Floats) -> Floats:
        share = (values / 2 - bottom / 2) / reach
        return (1 - _MARGIN - (1 - 2 * _MARGIN) * share) * height

    columns = np.linspace(0, len(seen) - 1, width)
    line, floor, ceiling = (np.interp(columns, np.arange(len(seen)), pixels(values)) for values in (seen, low, high))
    rows = np.arange(height)[:, None] + 0.5
    canvas = np.full((height, width, 3), _PAGE, dtype=np.float64)
    canvas[(rows >= ceiling) & (rows <= floor)] = _BAND
    # A column is inked from where the line enters its neighbourhood to where it leaves it: as wide as it is high.
    near = sliding_window_view(np.pad(line, _FINER // 2 + 1, mode="edge"), 2 * (_FINER // 2 + 1) + 1)
    above, below = near.min(axis=1) - _FINER, near.max(axis=1) + _FINER
    canvas[(rows >= above) & (rows <= below)] = _LINE
    for position in marks:
        x, y = position / max(len(seen) - 1, 1) * (width - 1), pixels(seen)[position]
        canvas[(np.arange(width)[None, :] - x) ** 2 + (rows - y) ** 2 <= (4.5 * _FINER) ** 2] = _MARK
    small = canvas.reshape(HEIGHT, _FINER, WIDTH, _FINER, 3).mean(axis=(1, 3))
    return _png(small.round().astype(np.uint8))


def _filled(values: Sequence[Value]) -> Floats:
    found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known = np.isfinite(found)
    if not known.any():
        return found
    places = np.arange(len(found))
    filled: Floats = np.interp(places, places[known], found[known])
    return filled


def _png(pixels: NDArray[Any]) -> bytes:
    height, width, _ = pixels.shape
    rows = np.hstack([np.zeros((height, 1), dtype=np.uint8), pixels.reshape(height, -1)])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
