"""A series against its band, with its anomalies by severity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Final, NamedTuple

from obs_pipeline.detection.models import SEVERITIES, Severity
from obs_pipeline.detection.pictures.frame import BAND, TEXT, WIDTH, cut, svg

Value = float | None


class Mark(NamedTuple):
    """An anomaly to be shown: at which of the times, and how grave."""

    time: datetime
    severity: Severity


_HEIGHT: Final = 180
_LEFT: Final = 58
_RIGHT: Final = 14
_TOP: Final = 34
_BOTTOM: Final = 24

_GRID: Final = "#8a94a6"
_LINE: Final = "#2f80ed"
_COLOURS: Final[dict[Severity, str]] = {"info": "#c99700", "warning": "#f2761b", "critical": "#e5343d"}

LOG_RATIO: Final = 1000.0
"""A logarithmic axis is chosen when the largest value exceeds this many times the median of the positive ones."""

_MOST_DECADES: Final = 6
_LONGEST_TITLE: Final = 44


@dataclass(frozen=True, slots=True)
class _Axis:
    """Value → height in the picture, and the values worth a label."""

    y: Callable[[float], float]
    ticks: tuple[float, ...]


def band_chart_svg(
    times: Sequence[datetime],
    observed: Sequence[Value],
    expected: Sequence[Value],
    lower: Sequence[Value],
    upper: Sequence[Value],
    anomalies: Iterable[tuple[datetime, Severity]],
    title: str,
    unit: str,
    *,
    log: bool | None = None,
) -> str:
    """The chart of one series: its band, its expected and observed values, and its anomalies by severity.

    The five sequences are equally long, ``times`` rising. None, NaN and infinities are gaps. ``anomalies`` are
    (time, severity); those at a time that is not shown or has no value are left out. ``log`` forces the axis; by
    default it is logarithmic where a linear one would flatten everything but one spike. Zero and less then lie on
    the bottom line.
    """
    lines = [[_known(value) for value in values] for values in (observed, expected, lower, upper)]
    seen, usual, low, high = lines
    axis = _axis([value for values in lines for value in values if value is not None], log)
    x = _time_axis(times)
    points = {time: (x(time), axis.y(value)) for time, value in zip(times, seen, strict=True) if value is not None}
    marks = [(points[time], severity, time) for time, severity in anomalies if time in points]
    xs = [x(time) for time in times]
    pieces = [
        _heading(title, unit),
        _legend(Counter(severity for _, severity, _ in marks)),
        *_grid(axis),
        *_dates(times, x),
        *_bands(xs, low, high, axis),
        _line(xs, usual, axis, f"class='expected' stroke='{BAND}' stroke-width='1.2' stroke-dasharray='4 3'"),
        _line(xs, seen, axis, f"class='observed' stroke='{_LINE}' stroke-width='1.8'"),
        *(_mark(point, severity, time) for point, severity, time in marks),
    ]
    return svg(_HEIGHT, 10, title, pieces)


def _known(value: Value) -> Value:
    return float(value) if value is not None and math.isfinite(value) else None


# ---- axes -----------------------------------------------------------------------------------------------------


def _axis(values: Sequence[float], log: bool | None) -> _Axis:
    positive = sorted(value for value in values if value > 0)
    if not positive:
        return _linear(min(values, default=0.0), 0.0)
    spiky = positive[-1] > LOG_RATIO * positive[len(positive) // 2]
    if log or (log is None and spiky):
        return _logarithmic(positive[0], positive[-1])
    return _linear(min(0.0, min(values)), positive[-1])


def _linear(lowest: float, highest: float) -> _Axis:
    step = _nice_step((highest - lowest) / 3)
    first, last = math.floor(lowest / step), math.ceil(highest / step)
    last = max(last, first + 1)
    floor, span = first * step, (last - first) * step
    height = _HEIGHT - _TOP - _BOTTOM
    return _Axis(
        y=lambda value: _HEIGHT - _BOTTOM - (value - floor) / span * height,
        ticks=tuple(index * step for index in range(first, last + 1)),
    )


def _nice_step(rough: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= rough), 10.0 * power)


def _logarithmic(smallest: float, largest: float) -> _Axis:
    top = math.ceil(math.log10(largest))
    bottom = max(math.floor(math.log10(smallest)), top - _MOST_DECADES)
    bottom = min(bottom, top - 1)
    every = 1 if top - bottom <= 4 else 2
    height = _HEIGHT - _TOP - _BOTTOM

    def y(value: float) -> float:
        decades = max(math.log10(value), bottom) if value > 0 else bottom
        return _HEIGHT - _BOTTOM - (decades - bottom) / (top - bottom) * height

    return _Axis(y=y, ticks=tuple(10.0**power for power in range(top, bottom - 1, -every)))


def _time_axis(times: Sequence[datetime]) -> Callable[[datetime], float]:
    width = WIDTH - _LEFT - _RIGHT
    if len(times) < 2 or times[-1] <= times[0]:
        return lambda _: _LEFT + width / 2
    start, span = times[0], (times[-1] - times[0]) / timedelta(seconds=1)
    return lambda time: _LEFT + (time - start) / timedelta(seconds=1) / span * width


# ---- pieces ---------------------------------------------------------------------------------------------------


def _heading(title: str, unit: str) -> str:
    return (
        f"<text x='8' y='17' font-size='12' font-weight='600' fill='{TEXT}'>{escape(cut(title, _LONGEST_TITLE))}"
        f"<tspan font-size='10' font-weight='400'> {escape(unit)}</tspan></text>"
    )


def _legend(counts: Counter[Severity]) -> str:
    """From the right: the severities that occur with their numbers, then the lines."""
    shown: list[tuple[str, str]] = [
        (f"<path d='M0 -3h14' stroke='{_LINE}' stroke-width='1.8'/>", "observed"),
        (f"<rect y='-7' width='14' height='8' fill='{BAND}' fill-opacity='0.3'/>", "usual"),
    ]
    for severity in SEVERITIES:
        if counts[severity]:
            label = severity if counts[severity] == 1 else f"{counts[severity]} {severity}"
            shown.append((_shape(severity, 7.0, -3.0), label))
    pieces: list[str] = []
    right = float(WIDTH - _RIGHT)
    for symbol, label in reversed(shown):
        right -= 18 + 5.6 * len(label)
        pieces.append(
            f"<g class='key' transform='translate({right:.0f} 17)'>{symbol}<text x='17' fill='{TEXT}'>{label}</text></g>"
        )
        right -= 8
    return "".join(reversed(pieces))


def _grid(axis: _Axis) -> Iterator[str]:
    for tick in axis.ticks:
        y = axis.y(tick)
        yield (
            f"<path d='M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}' stroke='{_GRID}' stroke-opacity='0.25'/>"
            f"<text x='{_LEFT - 6}' y='{y + 3.5:.1f}' text-anchor='end' fill='{TEXT}'>{_short(tick)}</text>"
        )


def _short(value: float) -> str:
    """A number in at most some six characters: 1.2M, 300k, 0.05."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.3g}"


def _dates(times: Sequence[datetime], x: Callable[[datetime], float]) -> Iterator[str]:
    if not times:
        return
    within_days = times[-1] - times[0] < timedelta(days=3)
    last = len(times) - 1
    places = sorted({round(last * part / 4) for part in range(5)})
    for place in places:
        time = times[place]
        label = f"{time:%H:%M}" if within_days else f"{time.day} {time:%b}"
        anchor = "middle" if last == 0 else "start" if place == 0 else "end" if place == last else "middle"
        yield f"<text x='{x(time):.1f}' y='{_HEIGHT - 8}' text-anchor='{anchor}' fill='{TEXT}'>{label}</text>"


def _bands(xs: Sequence[float], low: Sequence[Value], high: Sequence[Value], axis: _Axis) -> Iterator[str]:
    """One polygon for each stretch in which the band is known; a single known point is widened to be seen."""
    stretch: list[tuple[float, float, float]] = []
    for x, bottom, top in [*zip(xs, low, high, strict=True), (0.0, None, None)]:
        if bottom is not None and top is not None:
            stretch.append((x, axis.y(bottom), axis.y(top)))
        elif stretch:
            if len(stretch) == 1:
                middle, below, above = stretch[0]
                stretch = [(middle - 3, below, above), (middle + 3, below, above)]
            edge = [f"{x:.1f} {above:.1f}" for x, _, above in stretch]
            edge += [f"{x:.1f} {below:.1f}" for x, below, _ in reversed(stretch)]
            yield f"<path class='band' d='M{'L'.join(edge)}Z' fill='{BAND}' fill-opacity='0.25'/>"
            stretch = []


def _line(xs: Sequence[float], values: Sequence[Value], axis: _Axis, look: str) -> str:
    """The known values joined, broken at gaps; a lone value becomes a dot."""
    steps: list[str] = []
    pen_down = False
    for x, value in zip(xs, values, strict=True):
        if value is not None:
            steps.append(f"{'L' if pen_down else 'M'}{x:.1f} {axis.y(value):.1f}{'' if pen_down else 'h0'}")
        pen_down = value is not None
    return f"<path {look} d='{''.join(steps)}' fill='none' stroke-linejoin='round' stroke-linecap='round'/>"


def _mark(point: tuple[float, float], severity: Severity, time: datetime) -> str:
    x, y = point
    return f"<g class='anomaly {severity}'><title>{severity} {time:%Y-%m-%d %H:%M}</title>{_shape(severity, x, y)}</g>"


def _shape(severity: Severity, x: float, y: float) -> str:
    """A circle, a diamond or a triangle: the severity shows without its colour."""
    look = f"fill='{_COLOURS[severity]}' stroke='#fff' stroke-width='0.8'"
    if severity == "info":
        return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.6' {look}/>"
    if severity == "warning":
        return f"<path d='M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5Z' {look}/>"
    return f"<path d='M{x:.1f} {y - 6:.1f}l6 10.4h-12Z' {look}/>"
