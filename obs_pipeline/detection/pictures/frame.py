"""What the pictures share: their size, the colours of text and band, the opening of the document.

A picture is self-contained: no fonts, scripts, styles or links from elsewhere, and no background. The mid-tone colours read on
white and on dark pages alike. Text from data comes in through ``escape``.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

WIDTH: Final = 640
TEXT: Final = "#7b8594"
BAND: Final = "#6f8fc9"
_FONT: Final = "font-family='system-ui,-apple-system,Segoe UI,Roboto,sans-serif'"


def svg(height: int, font_size: int, title: str, pieces: Iterable[str]) -> str:
    """The whole document. ``title`` is for those who cannot see it; what is seen of it is one of the ``pieces``."""
    return "".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' "
            f"viewBox='0 0 {WIDTH} {height}' role='img' {_FONT} font-size='{font_size}'>",
            f"<title>{escape(title)}</title>",
            *pieces,
            "</svg>",
        ]
    )


def heading(title: str, below: str) -> str:
    """A title and a line in smaller letters below it."""
    return (
        f"<text x='8' y='17' font-size='12' font-weight='600' fill='{TEXT}'>{escape(title)}</text>"
        f"<text x='8' y='34' fill='{TEXT}'>{escape(below)}</text>"
    )


def cut(text: str, longest: int) -> str:
    """A text of ``longest`` characters at the most."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
