"""Forecasts: for each scope what is spent, the interval of what will be, and its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import chain
from typing import Final, NamedTuple

from obs_pipeline.detection.pictures.frame import BAND, TEXT, WIDTH, cut, heading, svg

_ROW: Final = 24
_TOP: Final = 44
_LEFT: Final = 170
_RIGHT: Final = 150
_SPENT: Final = "#2f80ed"
_LIMIT: Final = "#e5343d"
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
        return _LEFT + min(max(value, 0.0), most) / most * (WIDTH - _LEFT - _RIGHT)

    lines = (_line(one, _TOP + _ROW * number, x) for number, one in enumerate(outlooks))
    key = "blue: spent; pale: 80 % interval; dot: forecast; red: budget (USD)"
    return svg(height, 11, title, [heading(title, key), *chain.from_iterable(lines)])


def _line(one: Outlook, y: int, x: Callable[[float], float]) -> list[str]:
    start = x(0.0)
    parts = [
        f"<text x='{_LEFT - 8}' y='{y + 12}' text-anchor='end' fill='{TEXT}'>{escape(cut(one.name, _LONGEST))}</text>"
    ]
    if one.lower is not None and one.upper is not None:
        low, high = x(one.lower), x(one.upper)
        parts.append(
            f"<rect class='interval' x='{low:.1f}' y='{y + 2}' width='{max(high - low, 1):.1f}' height='12' "
            f"fill='{BAND}' fill-opacity='0.35'/>"
        )
    parts.append(
        f"<rect class='spent' x='{start:.1f}' y='{y + 4}' width='{max(x(one.spent) - start, 0.5):.1f}' height='8' "
        f"fill='{_SPENT}'/>"
    )
    if one.forecast is not None:
        parts.append(f"<circle cx='{x(one.forecast):.1f}' cy='{y + 8}' r='3' fill='{BAND}'/>")
    if one.limit is not None:
        parts.append(f"<path d='M{x(one.limit):.1f} {y}v16' stroke='{_LIMIT}' stroke-width='2'/>")
    said = f"${one.forecast:,.2f} {one.remark}" if one.forecast is not None else one.remark
    parts.append(f"<text x='{WIDTH - _RIGHT + 8}' y='{y + 12}' fill='{TEXT}'>{escape(said.strip())}</text>")
    return parts
