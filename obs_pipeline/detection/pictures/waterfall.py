"""A split deviation: a waterfall from the expected to the observed value."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from html import escape
from typing import Final, NamedTuple

from obs_pipeline.detection.decomposition import Split
from obs_pipeline.detection.pictures.frame import BAND, TEXT, WIDTH, cut, heading, svg

_ROW: Final = 22
_TOP: Final = 52
_LEFT: Final = 150
_RIGHT: Final = 110
_MORE: Final = "#e5343d"
_LESS: Final = "#1f9d61"
_LONGEST: Final = 104
_LEAST_SHARE: Final = Decimal("0.001")


class _Bar(NamedTuple):
    label: str
    start: Decimal
    end: Decimal
    shown: str
    colour: str


def waterfall_svg(split: Split, title: str, cause: str) -> str:
    """Expected, each term that matters, observed; the terms too small to see are one bar, so that the steps still meet."""
    bars = list(_bars(split))
    height = _TOP + _ROW * len(bars) + 8
    low = min((min(bar.start, bar.end) for bar in bars), default=Decimal(0))
    high = max((max(bar.start, bar.end) for bar in bars), default=Decimal(1))
    span = float(high - low) or 1.0

    def x(value: Decimal) -> float:
        return _LEFT + float(value - low) / span * (WIDTH - _LEFT - _RIGHT)

    pieces = [heading(cut(title, _LONGEST), cut(cause, _LONGEST))]
    for number, bar in enumerate(bars):
        y = _TOP + _ROW * number
        left, right = sorted((x(bar.start), x(bar.end)))
        pieces.append(
            f"<text x='{_LEFT - 8}' y='{y + 11}' text-anchor='end' fill='{TEXT}'>{escape(bar.label)}</text>"
            f"<rect class='bar' x='{left:.1f}' y='{y}' width='{max(right - left, 1):.1f}' height='14' rx='2' "
            f"fill='{bar.colour}'/>"
            f"<text x='{max(right, x(bar.end)) + 6:.1f}' y='{y + 11}' fill='{TEXT}'>{escape(bar.shown)}</text>"
        )
        if number + 1 < len(bars):
            pieces.append(
                f"<path d='M{x(bar.end):.1f} {y + 14}v{_ROW - 14}' stroke='{TEXT}' stroke-opacity='0.6' stroke-width='1'/>"
            )
    return svg(height, 11, title, pieces)


def _bars(split: Split) -> Iterator[_Bar]:
    zero = Decimal(0)
    yield _Bar("expected", zero, split.expected, amount_text(split, split.expected), BAND)
    reached, small = split.expected, zero
    for term in split.terms:
        if abs(term.amount) < _LEAST_SHARE * abs(split.deviation):
            small += term.amount
            continue
        yield _step(split, term.name, reached, term.amount)
        reached += term.amount
    if small:
        yield _step(split, "all others", reached, small)
    yield _Bar("observed", zero, split.observed, amount_text(split, split.observed), BAND)


def _step(split: Split, label: str, reached: Decimal, amount: Decimal) -> _Bar:
    shown = ("+" if amount > 0 else "") + amount_text(split, amount)
    return _Bar(label, reached, reached + amount, shown, _MORE if amount > 0 else _LESS)


def amount_text(split: Split, amount: Decimal) -> str:
    """An amount as people read it, in the unit of the split."""
    sign = "-" if amount < 0 else ""
    size = abs(amount)
    if split.metric == "cost":
        decimals = 2 if size >= Decimal("0.1") or size == 0 else 6
        return f"{sign}${size:,.{decimals}f}"
    if split.metric == "errors":
        return f"{sign}{size:.1%}"
    return f"{sign}{size:,.0f} ms" if split.metric == "latency" else f"{sign}{size:,.0f}"
