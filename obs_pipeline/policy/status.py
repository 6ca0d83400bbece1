"""Where every budget stands at an instant: spent, crossed, burning how fast, exhausted when.

Pure arithmetic over effective policies and usage rows that the caller has read. Nothing here is a counter that is
reset: what was spent in a window is always the sum of the usage rows whose hour lies in it, so an edited limit
changes the limit and never the spend, and late usage is counted wherever it belongs.

Formulas
--------
- spent: sum over ``window_start <= hour < min(window_end, at)``, of one place: an organisation's limit is compared
  with everything the organisation used, an agent's with what that agent used.
- spent_upper: spent plus the upper bounds of unpriced calls; unknown (``None``) if a call has no bound.
- ratio: spent / limit. A limit of zero has no ratio; anything spent exceeds it.
- burn: what was used in a trailing span, over what the span may use at an even pace: 1 spends the limit exactly by
  the end of the window, 2 twice as fast. Short and long spans are one and six hours for hourly and daily limits, six
  hours and a day for weekly ones, one and three days for monthly ones; each begins on a full hour and ends at ``at``.
- projected_exhaustion: ``at`` plus what is left over the pace of the long span; ``None`` if that falls after the
  window, if nothing was used, or if the limit is reached already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal
from importlib.resources import files
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import pyarrow as pa

from obs_pipeline.policy.effective import EffectiveLimit, EffectivePolicy
from obs_pipeline.policy.schema import Kind, Period, Place, Scope
from obs_pipeline.policy.windows import HOUR, Window, cut_hours, hour_of, utc, window
from obs_pipeline.usage.event import MONEY_SUM, TIME

State = Literal["ok", "warning", "exceeded", "incomparable"]

SPEND_CURRENCY: Final = "USD"
TRAILING: Final[Mapping[Period, tuple[timedelta, timedelta]]] = {
    "hourly": (HOUR, 6 * HOUR),
    "daily": (HOUR, 6 * HOUR),
    "weekly": (6 * HOUR, 24 * HOUR),
    "monthly": (24 * HOUR, 72 * HOUR),
}
SPEND_SCHEMA: Final = pa.schema(
    [
        pa.field("org", pa.string()),
        pa.field("project", pa.string()),
        pa.field("agent", pa.string()),
        pa.field("hour", TIME, nullable=False),
        pa.field("cost", MONEY_SUM),
        pa.field("cost_bound", MONEY_SUM),
        pa.field("tokens", pa.int64()),
        pa.field("calls", pa.int64()),
        pa.field("unpriced_calls", pa.int64()),
    ]
)
"""Usage rows, any number a place and hour. ``hour`` is when the row's usage begins, ``tokens`` input plus output,
``cost_bound`` the most that the row's unpriced calls can have cost; a row with unpriced calls and no bound makes the
upper end unknown. Columns may be missing except the first four; more are left aside."""

_EXACT: Final = Context(prec=80)
_HUNDRED: Final = Decimal(100)


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """One limit of one place. Amounts are money of ``currency``, tokens or calls; times are UTC without a zone.

    ``set_at`` is the scope of the policy that decided the limit: where it is higher than ``scope``, the limit came
    down the chain and the row of the higher place is the one to act on. ``crossed`` is the highest threshold (percent)
    that the spend reached, ``crossed_upper`` the highest that it may have reached. ``spent`` is ``None`` where the
    limit is in another currency than usage is counted in.
    """

    place: Place
    kind: Kind
    period: Period
    currency: str
    window_start: datetime
    window_end: datetime
    limit: Decimal
    spent: Decimal | None
    spent_upper: Decimal | None
    ratio: float | None
    ratio_upper: float | None
    state: State
    crossed: Decimal | None
    crossed_upper: Decimal | None
    burn_short: float | None
    burn_long: float | None
    projected_exhaustion: datetime | None
    set_at: Scope
    deciding_files: tuple[str, ...]
    channels: tuple[str, ...]

    @property
    def scope(self) -> Scope:
        return self.place.scope

    @property
    def scope_id(self) -> str:
        return self.place.scope_id

    @property
    def window_key(self) -> str:
        """Names the limit and the window, and nothing that an edit can change: the key of what was announced."""
        named = "/".join("" if part is None else part.replace("/", "%2F") for part in self.place)
        return f"{named}|{self.kind}|{self.period}|{self.currency}|{self.window_start.isoformat()}"


@dataclass(frozen=True, slots=True)
class _Line:
    """A limit with the spans that its usage is summed over."""

    policy: EffectivePolicy
    limit: EffectiveLimit
    at: datetime
    window: Window
    short_start: datetime
    long_start: datetime

    @property
    def first_hour(self) -> datetime:
        return min(self.window.start, self.long_start)


@dataclass(frozen=True, slots=True)
class _Used:
    spent: Decimal = Decimal(0)
    bound: Decimal = Decimal(0)
    unbounded: int = 0
    short: Decimal = Decimal(0)
    long: Decimal = Decimal(0)


def places_of(usage: Iterable[tuple[str | None, str | None, str | None]]) -> tuple[Place, ...]:
    """Every organisation, project and agent that (organisation, project, agent) rows of usage mention, sorted."""
    named = {place for org, project, agent in usage if org for place in Place(org, project, agent).chain}
    return tuple(sorted(named, key=lambda place: tuple(part or "" for part in place)))


def spend_span(policies: Iterable[EffectivePolicy], at: datetime) -> Window | None:
    """The hours that usage must be read for; ``None`` if there is no limit to compare it with."""
    starts = [line.first_hour for line in _lines(policies, at)]
    return Window(min(starts), utc(at)) if starts else None


def hours_to_split(policies: Iterable[EffectivePolicy], at: datetime) -> tuple[datetime, ...]:
    """The hours that a window begins or ends within (zones at half and quarter hours).

    Their usage must be given event by event, or in quarter hours, with the time it began as ``hour``.
    """
    return cut_hours(line.window for line in _lines(policies, at))


def budget_status(
    policies: Iterable[EffectivePolicy], usage: pa.Table | Sequence[Mapping[str, Any]], at: datetime
) -> tuple[BudgetStatus, ...]:
    """One row per limit of every effective policy, in the order given. ``usage`` is as ``SPEND_SCHEMA`` says."""
    return tuple(row for _, row in budget_history([(at, policies)], usage))


def budget_history(
    moments: Iterable[tuple[datetime, Iterable[EffectivePolicy]]], usage: pa.Table | Sequence[Mapping[str, Any]]
) -> tuple[tuple[datetime, BudgetStatus], ...]:
    """``budget_status`` at many instants, each with the policies that held then, in one pass over the usage."""
    lines = [line for at, policies in moments for line in _lines(policies, at)]
    used = _usage_of(lines, _as_table(usage))
    return tuple((line.at, _status(line, used.get(number, _Used()), line.at)) for number, line in enumerate(lines))


def _lines(policies: Iterable[EffectivePolicy], at: datetime) -> Iterator[_Line]:
    for policy in policies:
        zone = ZoneInfo(policy.time_zone.value)
        for limit in policy.limits:
            short, long = TRAILING[limit.period]
            yield _Line(
                policy,
                limit,
                utc(at),
                window(limit.period, at, zone, policy.week_start.value),
                hour_of(utc(at) - short),
                hour_of(utc(at) - long),
            )


def _as_table(usage: pa.Table | Sequence[Mapping[str, Any]]) -> pa.Table:
    if not isinstance(usage, pa.Table):
        return pa.Table.from_pylist([dict(row) for row in usage], schema=SPEND_SCHEMA)
    columns = [
        usage.column(field.name).cast(field.type)
        if field.name in usage.column_names
        else pa.nulls(usage.num_rows, field.type)
        for field in SPEND_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SPEND_SCHEMA)


def _usage_of(lines: Sequence[_Line], usage: pa.Table) -> Mapping[int, _Used]:
    import duckdb

    query = files("obs_pipeline.policy").joinpath("sql/budget_spend.sql").read_text(encoding="utf-8")
    with duckdb.connect(":memory:") as connection:
        connection.register("usage", usage)
        connection.register("limits", _limit_table(lines))
        rows = connection.execute(query).fetchall()
    return {row[0]: _Used(*row[1:]) for row in rows}


def _limit_table(lines: Sequence[_Line]) -> pa.Table:
    places = [line.policy.place for line in lines]
    return pa.table(
        {
            "limit_no": pa.array(range(len(lines)), pa.int64()),
            "scope": pa.array([place.scope for place in places], pa.string()),
            "org": pa.array([place.org for place in places], pa.string()),
            "project": pa.array([place.project or "" for place in places], pa.string()),
            "agent": pa.array([place.agent or "" for place in places], pa.string()),
            "kind": pa.array([line.limit.kind for line in lines], pa.string()),
            "window_start": pa.array([line.window.start for line in lines], TIME),
            "short_start": pa.array([line.short_start for line in lines], TIME),
            "long_start": pa.array([line.long_start for line in lines], TIME),
            "first_hour": pa.array([line.first_hour for line in lines], TIME),
            "until": pa.array([line.at for line in lines], TIME),
        }
    )


def _status(line: _Line, used: _Used, at: datetime) -> BudgetStatus:
    limit = Decimal(line.limit.value)
    comparable = line.limit.currency in ("", SPEND_CURRENCY)
    spent = used.spent if comparable else None
    upper = _EXACT.add(used.spent, used.bound) if comparable and not used.unbounded else None
    thresholds = line.policy.thresholds.value
    crossed = _crossed(spent, limit, thresholds)
    return BudgetStatus(
        place=line.policy.place,
        kind=line.limit.kind,
        period=line.limit.period,
        currency=line.limit.currency,
        window_start=line.window.start,
        window_end=line.window.end,
        limit=limit,
        spent=spent,
        spent_upper=upper,
        ratio=_ratio(spent, limit),
        ratio_upper=_ratio(upper, limit),
        state=_state(spent, limit, crossed),
        crossed=crossed,
        crossed_upper=_crossed(upper, limit, thresholds) if upper is not None else _last(thresholds, comparable),
        burn_short=_burn(used.short, line.short_start, line, at) if comparable else None,
        burn_long=_burn(used.long, line.long_start, line, at) if comparable else None,
        projected_exhaustion=_exhaustion(used, line, at) if comparable else None,
        set_at=line.limit.ref.scope,
        deciding_files=line.limit.files,
        channels=line.policy.channels.value,
    )


def _ratio(spent: Decimal | None, limit: Decimal) -> float | None:
    return None if spent is None or limit == 0 else float(_EXACT.divide(spent, limit))


def _crossed(spent: Decimal | None, limit: Decimal, thresholds: Sequence[Decimal]) -> Decimal | None:
    if spent is None or spent <= 0:
        return None
    percent = _EXACT.multiply(spent, _HUNDRED)
    reached = (threshold for threshold in thresholds if percent >= _EXACT.multiply(threshold, limit))
    return max(reached, default=None)


def _last(thresholds: Sequence[Decimal], comparable: bool) -> Decimal | None:
    return max(thresholds, default=None) if comparable else None


def _state(spent: Decimal | None, limit: Decimal, crossed: Decimal | None) -> State:
    if spent is None:
        return "incomparable"
    if spent > limit:
        return "exceeded"
    return "ok" if crossed is None else "warning"


def _burn(used: Decimal, start: datetime, line: _Line, at: datetime) -> float | None:
    elapsed, limit = at - start, line.limit.value
    if limit == 0 or not elapsed:
        return None
    return float(used) / float(limit) * (line.window.length / elapsed)


def _exhaustion(used: _Used, line: _Line, at: datetime) -> datetime | None:
    left = float(_EXACT.subtract(Decimal(line.limit.value), used.spent))
    if left <= 0 or used.long <= 0:
        return None
    hours_left = left / (float(used.long) / ((at - line.long_start) / HOUR))
    if hours_left >= (line.window.end - at) / HOUR:
        return None
    return at + hours_left * HOUR
