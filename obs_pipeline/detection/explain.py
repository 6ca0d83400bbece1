"""Words for an anomaly: one sentence that a person woken at three in the morning understands, and its context.

Holds the wording and the choice of the single call worth naming. It decides no severity and computes no baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.detection.config import Grain, Metric

Kind = Literal["mispriced", "dearest", "largest"]
Call = Mapping[str, Any]
SeriesId = tuple[str | None, str | None, str | None]
Moment = tuple[SeriesId, Grain, datetime]
"""A series and one of its days or hours."""

WORTH_NAMING: Final = 0.3
"""A single call is named when it alone is at least this share of the value it explains. ``sql/evidence.sql`` leaves out
calls below a quarter of their hour, so this cannot be less."""

EXPLAINED_BY_CALLS: Final[tuple[Metric, ...]] = ("cost", "tokens")
"""A rate of errors or a percentile of latency is never the work of one call."""

_SHOWN: Final = (
    "event_id",
    "model",
    "reported_cost",
    "list_cost",
    "price_ratio",
    "input_tokens",
    "output_tokens",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known about one abnormal value when it is put into words; units as in the anomaly.

    ``overcharge`` is what was reported above list price, ``list_cost`` what the contradicted part would have cost
    (both USD). ``by_price``: the contradiction, not the deviation, is what makes it an anomaly.
    """

    series: SeriesId
    metric: Metric
    grain: Grain
    time: datetime
    observed: float
    expected: float | None
    lower: float | None
    upper: float | None
    deviation: float | None
    points: int
    calls: float
    errors: float
    overcharge: float
    list_cost: float
    mispriced_calls: float
    by_price: bool
    ceiling: float | None = None
    """USD that a new agent may spend at once, where that and nothing else is what is told."""
    lender: str | None = None
    """Whom the expected value was borrowed from: ``project`` or ``fleet``; None for the agent's own past."""
    moved_from: float | None = None
    moved_to: float | None = None
    """The old and the new level where a lasting change of it, and nothing else, is what is told."""


class Evidence:
    """The worst single calls, found by series and time. Rows as ``sql/evidence.sql`` gives them."""

    def __init__(self, calls: pa.Table | None) -> None:
        self._calls = calls

    def of(self, wanted: Iterable[Moment]) -> dict[Moment, dict[Kind, Call]]:
        """The worst call of each kind, for each of the wanted moments that has any."""
        asked = set(wanted)
        if self._calls is None or not asked:
            return {}
        days = {time.date() for _, _, time in asked}
        agents = {series[2] for series, _, _ in asked}
        rows = self._calls.filter(
            pc.and_(
                pc.is_in(self._calls["time"].cast(pa.date32()), pa.array(sorted(days), pa.date32())),
                pc.is_in(self._calls["agent"].cast(pa.string()), pa.array(list(agents), pa.string())),
            )
        )
        worst: dict[Moment, dict[Kind, Call]] = {}
        for row in rows.to_pylist():
            series = (row["org"], row["project"], row["agent"])
            hour: datetime = row["time"]
            moments: tuple[Moment, ...] = (
                (series, "hour", hour),
                (series, "day", datetime(hour.year, hour.month, hour.day)),
            )
            for moment in asked.intersection(moments):
                calls = worst.setdefault(moment, {})
                best = calls.get(row["kind"])
                if best is None or _rank(row) > _rank(best):
                    calls[row["kind"]] = row
        return worst


def _rank(call: Call) -> tuple[Decimal | int, str]:
    """Larger is worse; the id settles ties, so that the order of the rows never shows."""
    return _measure(call), str(call["event_id"])


def _measure(call: Call) -> Decimal | int:
    if call["kind"] == "mispriced":
        return Decimal(call["reported_cost"] or 0) - Decimal(call["list_cost"] or 0)
    if call["kind"] == "dearest":
        return Decimal(call["cost"] or 0)
    return int(call["input_tokens"] or 0) + int(call["output_tokens"] or 0)


def explain(finding: Finding, calls: Mapping[Kind, Call]) -> tuple[str, dict[str, Any]]:
    """(reason, context): the sentence, and the facts behind it as JSON values."""
    if finding.moved_to is not None:
        return _new_level(finding)
    named = _named_call(finding, calls)
    parts = [_price_clause(finding) if finding.by_price else _usage_clause(finding)]
    if finding.metric == "cost" and not finding.by_price and _partly_mispriced(finding):
        parts.append(
            f"{_money(finding.overcharge)} of it is above list price: the reported cost contradicts the list price"
        )
    if finding.ceiling is not None:
        parts.append(f"a new agent may spend {_money(finding.ceiling)} at once before it is told")
    if named is not None:
        parts.append(_call_clause(finding, named))
    context: dict[str, Any] = {
        "calls": round(finding.calls),
        "errors": round(finding.errors),
        "history_points": finding.points,
    }
    if finding.lender is not None:
        context["borrowed_from"] = finding.lender
    if finding.mispriced_calls:
        context["mispriced_calls"] = round(finding.mispriced_calls)
        context["overcharge_usd"] = round(finding.overcharge, 9)
        context["list_cost_usd"] = round(finding.list_cost, 9)
    if named is not None:
        context["call"] = {name: _plain(named.get(name)) for name in _SHOWN}
    return "; ".join(parts) + ".", context


_LEVELS: Final[Mapping[Metric, str]] = {
    "cost": "has spent about {} a day",
    "tokens": "has used about {} a day",
    "errors": "has failed in about {} of its calls",
    "latency": "has taken about {} at the 95th percentile",
}


def _new_level(finding: Finding) -> tuple[str, dict[str, Any]]:
    before, now = finding.moved_from or 0.0, finding.moved_to or 0.0
    since = finding.time.date() - timedelta(days=finding.points)
    reason = (
        f"{_who(finding.series)} {_LEVELS[finding.metric].format(_amount(finding.metric, now))} since {since}, "
        f"where {_amount(finding.metric, before)} was usual; after {_count(finding.points, 'day')} this is "
        "taken for its new level, and days are compared with it from now on."
    )
    return reason, {
        "level_before": before,
        "level_since": now,
        "since": since.isoformat(),
        "calls": round(finding.calls),
    }


def _named_call(finding: Finding, calls: Mapping[Kind, Call]) -> Call | None:
    """The one call that explains the value, if any does."""
    if finding.metric == "cost":
        if "mispriced" in calls and (finding.by_price or _partly_mispriced(finding)):
            return calls["mispriced"]
        kind: Kind = "dearest"
    elif finding.metric == "tokens":
        kind = "largest"
    else:
        return None
    rising = finding.expected is None or finding.observed > finding.expected
    if kind not in calls or not rising:
        return None
    return calls[kind] if float(_measure(calls[kind])) >= WORTH_NAMING * finding.observed else None


def _partly_mispriced(finding: Finding) -> bool:
    more = finding.observed - (finding.expected or 0.0)
    return finding.overcharge > 0 and finding.overcharge >= WORTH_NAMING * more


def _price_clause(finding: Finding) -> str:
    return (
        f"{_who(finding.series)} was charged {_money(finding.observed)} {_when(finding.grain, finding.time)}, "
        f"{_money(finding.overcharge)} above list price: the reported cost contradicts the list price"
    )


def _usage_clause(finding: Finding) -> str:
    return f"{_who(finding.series)} {_did(finding)} {_when(finding.grain, finding.time)}, {_usual(finding)}"


def _did(finding: Finding) -> str:
    if finding.calls == 0 and finding.observed == 0:
        return "made no calls"
    calls = _count(finding.calls, "call")
    if finding.metric == "cost":
        return f"spent {_money(finding.observed)} in {calls}"
    if finding.metric == "tokens":
        return f"used {finding.observed:,.0f} tokens in {calls}"
    if finding.metric == "errors":
        return f"failed in {finding.errors:,.0f} of {calls} ({_share(finding.observed)})"
    return f"took {_milliseconds(finding.observed)} at the 95th percentile of {calls}"


def _usual(finding: Finding) -> str:
    if finding.expected is None or finding.deviation is None:
        return "with too little history to say what is usual"
    falling = finding.deviation < 0
    edge = finding.lower if falling else finding.upper
    if finding.lender is not None:
        others = f"the agents of its {finding.lender}" if finding.lender == "project" else "all agents"
        return (
            f"where {_amount(finding.metric, finding.expected)} would be usual and more than "
            f"{_amount(finding.metric, finding.upper or 0.0)} rare, going by {others}, as it is new "
            f"({_sigmas(finding.deviation)})"
        )
    at_this = " at this hour" if finding.grain == "hour" else ""
    if falling and not finding.observed and not edge:
        usual, days = _amount(finding.metric, finding.expected), _count(finding.points, "day")
        return f"where {usual} is usual{at_this} and to make none is rare (from {days} of history)"
    return (
        f"where {_amount(finding.metric, finding.expected)} is usual{at_this} "
        f"and {'less' if falling else 'more'} than {_amount(finding.metric, edge or 0.0)} rare "
        f"({_sigmas(finding.deviation)} from {_count(finding.points, 'day')} of history)"
    )


def _call_clause(finding: Finding, call: Call) -> str:
    model = call.get("model") or "an unnamed model"
    if call["kind"] == "mispriced":
        times = float(call["reported_cost"]) / float(call["list_cost"]) if call["list_cost"] else 0.0
        ratio = f"{_rounded(times)} × its list price of" if times else "against a list price of"
        return (
            f"one call to {model} reported {_money(float(call['reported_cost']))}, "
            f"{ratio} {_money(float(call['list_cost'] or 0))}"
        )
    part = f"{_share(float(_measure(call)) / finding.observed)} of it"
    if call["kind"] == "dearest":
        return f"one call to {model} cost {_money(float(call['cost']))}, {part}"
    sent, answered = int(call["input_tokens"] or 0), int(call["output_tokens"] or 0)
    output = f"{answered:,} output tokens" if answered else "no output"
    return f"one call to {model} with {sent:,} input tokens and {output} is {part}"


def _who(series: SeriesId) -> str:
    _, project, agent = series
    name = f"agent {agent}" if agent is not None else "usage without an agent"
    return f"{name} ({project})" if project is not None else name


def _when(grain: Grain, time: datetime) -> str:
    if grain == "day":
        return f"on {time:%Y-%m-%d}"
    return f"on {time:%Y-%m-%d} between {time:%H:%M} and {time + timedelta(hours=1):%H:%M} UTC"


def _amount(metric: Metric, value: float) -> str:
    if value == 0 and metric in ("cost", "tokens"):
        return "nothing"
    if metric == "cost":
        return _money(value)
    if metric == "tokens":
        return f"{_rounded(value)} tokens"
    return _share(value) if metric == "errors" else _milliseconds(value)


def _money(value: float) -> str:
    if value != 0 and abs(value) < 0.995:
        return f"${value:.3g}" if abs(value) >= 1e-4 else f"${value:.9f}".rstrip("0").rstrip(".")
    return f"${value:,.2f}"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.2g} ms"


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.0995 or value == 0 else f"{value:.1%}"


def _sigmas(deviation: float) -> str:
    return f"{abs(deviation):,.1f} sigmas" if abs(deviation) < 1000 else "over 1,000 sigmas"


def _rounded(value: float) -> str:
    """Two significant digits, written out: 790,000 rather than 791,053."""
    return f"{float(f'{value:.2g}'):,.0f}" if abs(value) >= 10 else f"{value:.2g}"


def _count(number: float, noun: str) -> str:
    return f"{number:,.0f} {noun}" if number == 1 else f"{number:,.0f} {noun}s"


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    return value.isoformat() if isinstance(value, date) else value
