"""Forecasts as a picture: for each scope what is spent, the interval of what will be, and its budget, as an SVG.

Holds drawing only. No fonts, scripts, styles or links from elsewhere, no background: the mid-tone colours read on white
and on dark pages alike, and every text from data is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Final, NamedTuple

_WIDTH: Final = 640
_ROW: Final = 24
_TOP: Final = 44
_LEFT: Final = 170
_RIGHT: Final = 150
_TEXT: Final = "#7b8594"
_BAND: Final = "#6f8fc9"
_SPENT: Final = "#2f80ed"
_LIMIT: Final = "#e5343d"
_FONT: Final = "font-family='system-ui,-apple-system,Segoe UI,Roboto,sans-serif'"
_LONGEST: Final = 26


class Outlook(NamedTuple):
    """One scope in one window (USD): spent so far, and the forecast total with its interval, None where unknown."""

    name: str
    spent: float
    forecast: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    remark: str


def interval_chart_svg(outlooks: Sequence[Outlook], title: str) -> str:
    """One line a scope, on one scale: a bar to what is spent, a band for the interval, a dot for its middle, a mark at the
    budget."""
    height = _TOP + _ROW * len(outlooks) + 8
    reach = [value for one in outlooks for value in (one.spent, one.upper or 0.0, one.limit or 0.0)]
    # A budget far beyond everything would make all else invisible.
    seen = max((max(one.spent, one.upper or 0.0) for one in outlooks), default=0.0)
    most = min(max(reach, default=0.0), 4 * seen) or max(reach, default=0.0) or 1.0

    def x(value: float) -> float:
        return _LEFT + min(max(value, 0.0), most) / most * (_WIDTH - _LEFT - _RIGHT)

    pieces = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{height}' "
        f"viewBox='0 0 {_WIDTH} {height}' role='img' {_FONT} font-size='11'>",
        f"<title>{escape(title)}</title>",
        f"<text x='8' y='17' font-size='12' font-weight='600' fill='{_TEXT}'>{escape(title)}</text>",
        f"<text x='8' y='34' fill='{_TEXT}'>blue: spent; pale: 80 % interval; dot: forecast; red: budget (USD)</text>",
    ]
    for number, one in enumerate(outlooks):
        pieces += _line(one, _TOP + _ROW * number, x)
    return "".join([*pieces, "</svg>"])


def _line(one: Outlook, y: int, x: Callable[[float], float]) -> list[str]:
    name = one.name if len(one.name) <= _LONGEST else one.name[: _LONGEST - 1] + "…"
    start = x(0.0)
    parts = [f"<text x='{_LEFT - 8}' y='{y + 12}' text-anchor='end' fill='{_TEXT}'>{escape(name)}</text>"]
    if one.lower is not None and one.upper is not None:
        low, high = x(one.lower), x(one.upper)
        parts.append(
            f"<rect class='interval' x='{low:.1f}' y='{y + 2}' width='{max(high - low, 1):.1f}' height='12' "
            f"fill='{_BAND}' fill-opacity='0.35'/>"
        )
    parts.append(
        f"<rect class='spent' x='{start:.1f}' y='{y + 4}' width='{max(x(one.spent) - start, 0.5):.1f}' height='8' "
        f"fill='{_SPENT}'/>"
    )
    if one.forecast is not None:
        parts.append(f"<circle cx='{x(one.forecast):.1f}' cy='{y + 8}' r='3' fill='{_BAND}'/>")
    if one.limit is not None:
        parts.append(f"<path d='M{x(one.limit):.1f} {y}v16' stroke='{_LIMIT}' stroke-width='2'/>")
    said = f"${one.forecast:,.2f} {one.remark}" if one.forecast is not None else one.remark
    parts.append(f"<text x='{_WIDTH - _RIGHT + 8}' y='{y + 12}' fill='{_TEXT}'>{escape(said.strip())}</text>")
    return parts
