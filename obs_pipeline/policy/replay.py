"""What policies would have done to usage that really happened: alerts, exceeded windows, calls stopped.

Pure: two sets of policies and hourly usage in, counts out, each limit beside its other self. What the two sets say
of each other without usage is the business of ``diff``.

Conventions
-----------
- As in budget status, a limit is compared with everything used within the place whose policy states it, window by
  window. A limit that merely comes down to a place is not counted there again.
- Usage is known by the hour. An hour counts as stopped when its window had used up the limit before the hour began,
  so the hour in which a limit is passed is let through whole: stopped calls and cost are the least that a limit would
  have stopped. What was stopped is not taken back from later hours, which ran as they did.
- An alert is a threshold crossed, once a window. An exceeded window is one that used more than the limit.
- A dated raise holds for the hours it is written for. Hours of a window before the span fill the window and are
  counted nowhere else. An hour that a window begins within (zones at half hours) belongs to the window before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Context, Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from obs_pipeline.policy.effective import EffectiveLimit, EffectivePolicy
from obs_pipeline.policy.eras import turns
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve_all
from obs_pipeline.policy.schema import Kind, Period, Place, Weekday
from obs_pipeline.policy.status import SPEND_CURRENCY
from obs_pipeline.policy.windows import HOUR, Window, hour_of, window

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

Side = Literal["present", "proposed"]

_EXACT: Final = Context(prec=80)
_NANO: Final = Decimal("0.000000001")
_ROOM: Final = "obs_pipeline.policy"


class LimitKey(NamedTuple):
    """What makes a limit the same one in both sets."""

    place: Place
    kind: Kind
    period: Period
    currency: str


@dataclass(frozen=True, slots=True)
class LimitOutcome:
    """What one limit would have done. ``values`` are the amounts that held in turn; times are UTC without a zone."""

    values: tuple[Decimal, ...]
    files: tuple[str, ...]
    windows: int = 0
    exceeded: int = 0
    alerts: int = 0
    calls_blocked: int = 0
    cost_blocked: Decimal = Decimal(0)
    first_exceeded: datetime | None = None

    @property
    def deeds(self) -> tuple[int, int, int, Decimal]:
        """What anybody would have noticed of it."""
        return self.exceeded, self.alerts, self.calls_blocked, self.cost_blocked


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all limits of one side. A call that several limits would have stopped is counted once."""

    exceeded: int
    alerts: int
    calls_blocked: int
    cost_blocked: Decimal


@dataclass(frozen=True, slots=True)
class Replay:
    """Both sides over the same span. Limits without usage have done nothing and are there all the same."""

    span: Window
    present: Mapping[LimitKey, LimitOutcome]
    proposed: Mapping[LimitKey, LimitOutcome]
    totals: Mapping[Side, Totals]

    def changes(self) -> Iterator[tuple[LimitKey, LimitOutcome | None, LimitOutcome | None]]:
        """The limits that would have done something else, those that stop more first."""
        keys = [key for key in self.present.keys() | self.proposed.keys() if self._more(key) != _NOTHING]
        for key in sorted(keys, key=lambda key: (-abs(self._more(key)[3]), -abs(self._more(key)[1]), str(key))):
            yield key, self.present.get(key), self.proposed.get(key)

    def _more(self, key: LimitKey) -> tuple[int, int, int, Decimal]:
        before, after = (side[key].deeds if key in side else _NOTHING for side in (self.present, self.proposed))
        return after[0] - before[0], after[1] - before[1], after[2] - before[2], after[3] - before[3]


_NOTHING: Final = (0, 0, 0, Decimal(0))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A limit while nothing about it changes."""

    span: Window
    limit: EffectiveLimit
    policy: EffectivePolicy


@dataclass(frozen=True, slots=True)
class _Line:
    side: Side
    key: LimitKey
    zone: str
    week_start: Weekday
    pieces: tuple[_Piece, ...]

    @property
    def calendar(self) -> tuple[Period, str, Weekday]:
        return self.key.period, self.zone, self.week_start


def usage_span(present: Iterable[SourcedPolicy], proposed: Iterable[SourcedPolicy], span: Window) -> Window:
    """The hours that usage must be read for: the span and the windows it begins in."""
    starts = [span.start]
    for policies in (present, proposed):
        for policy in _stated(PolicySet(policies), span.start).values():
            zone = ZoneInfo(policy.time_zone.value)
            starts += (window(limit.period, span.start, zone, policy.week_start.value).start for limit in policy.limits)
    return Window(hour_of(min(starts)), span.end)


def replay(
    present: Sequence[SourcedPolicy],
    proposed: Sequence[SourcedPolicy],
    usage: pa.Table,
    span: Window,
    connection: duckdb.DuckDBPyConnection,
) -> Replay:
    """Both sets against ``usage`` (rows as ``status.SPEND_SCHEMA`` says, over ``usage_span``).

    Limits in another currency than usage is counted in would have done nothing, and are left out.
    """
    read = usage_span(present, proposed, span)
    lines = [*_lines("present", present, read), *_lines("proposed", proposed, read)]
    outcomes, totals = _run(connection, lines, usage, read, span)
    sides: dict[Side, dict[LimitKey, LimitOutcome]] = {"present": {}, "proposed": {}}
    for line, outcome in zip(lines, outcomes, strict=True):
        sides[line.side][line.key] = outcome
    return Replay(
        span,
        sides["present"],
        sides["proposed"],
        {side: _totals(sides[side].values(), *totals.get(side, (0, Decimal(0)))) for side in sides},
    )


def _totals(outcomes: Iterable[LimitOutcome], calls: int, cost: Decimal) -> Totals:
    found = list(outcomes)
    return Totals(sum(one.exceeded for one in found), sum(one.alerts for one in found), calls, cost)


def _stated(policies: PolicySet, at: datetime) -> dict[Place, EffectivePolicy]:
    return resolve_all(policies.places, policies, at)


def _lines(side: Side, policies: Sequence[SourcedPolicy], span: Window) -> Iterator[_Line]:
    indexed = PolicySet(policies)
    found: dict[LimitKey, list[_Piece]] = {}
    edges = [turn for turn in turns(policies) if span.start < turn < span.end]
    for start, end in pairwise([span.start, *edges, span.end]):
        for place, policy in _stated(indexed, start).items():
            for limit in policy.limits:
                if limit.ref.scope == place.scope and limit.currency in ("", SPEND_CURRENCY):
                    key = LimitKey(place, limit.kind, limit.period, limit.currency)
                    found.setdefault(key, []).append(_Piece(Window(start, end), limit, policy))
    for key, pieces in found.items():
        policy = pieces[0].policy
        yield _Line(side, key, policy.time_zone.value, policy.week_start.value, tuple(pieces))


_Answers = tuple[list[LimitOutcome], dict[Side, tuple[int, Decimal]]]


def _run(
    connection: duckdb.DuckDBPyConnection, lines: Sequence[_Line], usage: pa.Table, read: Window, span: Window
) -> _Answers:
    from obs_pipeline.storage.engine import load_sql

    calendars = {calendar: number for number, calendar in enumerate(dict.fromkeys(line.calendar for line in lines))}
    for name, table in _tables(lines, calendars, read, span).items():
        connection.register(name, table)
    connection.register("spend", usage)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW usage AS {_USAGE}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {load_sql(_ROOM, 'replay_hours')}")
    rows = {row[0]: row[1:] for row in connection.execute(load_sql(_ROOM, "replay_limits")).fetchall()}
    blocked = connection.execute(load_sql(_ROOM, "replay_blocked")).fetchall()
    connection.execute("DROP TABLE judged")
    outcomes = [LimitOutcome(*_named(line), *rows.get(number, ())) for number, line in enumerate(lines)]
    return outcomes, {side: (calls, cost) for side, calls, cost in blocked}


_USAGE: Final = """
    SELECT org, coalesce(project, '') AS project, coalesce(agent, '') AS agent, hour,
        coalesce(sum(cost), CAST(0 AS DECIMAL(38, 9))) AS cost,
        CAST(coalesce(sum(tokens), 0) AS BIGINT) AS tokens, CAST(coalesce(sum(calls), 0) AS BIGINT) AS calls
    FROM spend WHERE org IS NOT NULL GROUP BY ALL
"""


def _named(line: _Line) -> tuple[tuple[Decimal, ...], tuple[str, ...]]:
    values = dict.fromkeys(Decimal(piece.limit.value) for piece in line.pieces)
    return tuple(values), tuple(dict.fromkeys(file for piece in line.pieces for file in piece.limit.files))


def _tables(
    lines: Sequence[_Line], calendars: Mapping[tuple[Period, str, Weekday], int], read: Window, span: Window
) -> dict[str, pa.Table]:
    import pyarrow as pa

    from obs_pipeline.usage.event import MONEY_SUM, TIME

    def table(rows: Iterable[tuple[Any, ...]], **types: pa.DataType) -> pa.Table:
        columns = list(zip(*rows, strict=True)) or [()] * len(types)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types.values(), strict=True)]
        return pa.Table.from_arrays(arrays, names=list(types))

    def named(place: Place) -> tuple[str, ...]:
        return tuple(part or "" for part in place)

    text, number = pa.string(), pa.int64()
    pieces = [(line_no, piece) for line_no, line in enumerate(lines) for piece in line.pieces]
    return {
        "lines": table(
            (
                (at, line.side, line.key.place.scope, *named(line.key.place), line.key.kind, calendars[line.calendar])
                for at, line in enumerate(lines)
            ),
            line_no=number, side=text, scope=text, org=text, project=text, agent=text, kind=text, calendar_no=number,
        ),
        "pieces": table(
            ((piece_no, line_no, *piece.span, piece.limit.value) for piece_no, (line_no, piece) in enumerate(pieces)),
            piece_no=number, line_no=number, starts=TIME, ends=TIME, value=MONEY_SUM,
        ),
        "marks": table(
            (
                (piece_no, threshold, _amount(threshold, Decimal(piece.limit.value)))
                for piece_no, (_, piece) in enumerate(pieces)
                for threshold in piece.policy.thresholds.value
            ),
            piece_no=number, threshold=MONEY_SUM, amount=MONEY_SUM,
        ),
        "hours": table(
            (
                (calendar_no, hour, begins)
                for calendar, calendar_no in calendars.items()
                for hour, begins in _hours(calendar, read)
            ),
            calendar_no=number, hour=TIME, window_start=TIME,
        ),
        "span": table([(hour_of(span.start),)], first=TIME),
    }  # fmt: skip


def _amount(threshold: Decimal, limit: Decimal) -> Decimal:
    # Rounded up to the unit that usage is counted in, reaching it is the same as reaching the exact amount.
    exact = _EXACT.divide(_EXACT.multiply(threshold, limit), Decimal(100))
    return exact.quantize(_NANO, ROUND_CEILING, _EXACT)


def _hours(calendar: tuple[Period, str, Weekday], read: Window) -> Iterator[tuple[datetime, datetime]]:
    """Every hour of the span with the start of the window it begins in."""
    period, zone, week_start = calendar
    hour, place = read.start, ZoneInfo(zone)
    while hour < read.end:
        found = window(period, hour, place, week_start)
        while hour < min(found.end, read.end):
            yield hour, found.start
            hour += HOUR
