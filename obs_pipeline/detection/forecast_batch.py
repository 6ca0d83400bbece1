"""Forecasts of whole days into the lake: spend by the end of each period, and when a budget is used up.

Reads the lake, arranges arrays and writes rows; the forecast itself is in ``forecasts``. Calendars and budgets are given
as plain tables: this room knows no policy.

A day's forecasts are made at its end, for the periods that hold the instant after it: on the last of a month for the whole
month that begins. A day that is not over is forecast from the hour of the run. They rest on the days from the first of
the month six months before, so a day comes out the same alone and in a range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any, Final, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_pipeline.detection import forecasts as model
from obs_pipeline.detection.models import TIME
from obs_pipeline.detection.tables import FORECASTS
from obs_pipeline.storage.engine import load_sql, one_row
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import USAGE_DAILY, USAGE_HOURLY

Floats = npt.NDArray[np.float64]
Period = Literal["day", "week", "month"]
State = Literal["ok", "not enough history", "no spend", "credits only"]

MONTHS_BEFORE: Final = 6
SHOWN_FOR_DAYS: Final = 40
"""How long after its last usage a scope without a budget still has forecasts."""

_HOURS_LEARNED: Final = 28
_KINDS: Final = {"org": 0, "project": 1, "agent": 2}
_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)

WINDOW_SCHEMA: Final = pa.schema(
    [
        pa.field("dt", pa.date32(), nullable=False),
        pa.field("as_of", TIME, nullable=False),
        pa.field("org", pa.string()),
        pa.field("period", pa.string(), nullable=False),
        pa.field("window_start", TIME, nullable=False),
        pa.field("window_end", TIME, nullable=False),
    ]
)
"""The periods that hold ``as_of``, for every organisation and day; UTC on whole hours, ``window_end`` exclusive."""

BUDGET_SCHEMA: Final = pa.schema(
    [
        pa.field("dt", pa.date32(), nullable=False),
        pa.field("scope", pa.string(), nullable=False),
        pa.field("org", pa.string()),
        pa.field("project", pa.string()),
        pa.field("agent", pa.string()),
        pa.field("period", pa.string(), nullable=False),
        pa.field("limit_amount", FORECASTS.schema.field("limit_amount").type, nullable=False),
        pa.field("files", pa.string(), nullable=False),
    ]
)
"""Cost limits in USD, each at the scope whose policy states it."""

_SCOPE: Final = ("scope", "org", "project", "agent")

_ASKED: Final = """
    CREATE OR REPLACE TEMP TABLE forecast_windows AS
    SELECT *, row_number() OVER () AS window_no, CAST(as_of AS DATE) AS last_day,
        CAST(window_start + INTERVAL 23 HOURS + INTERVAL 59 MINUTES AS DATE) AS first_day
    FROM given_windows WHERE dt BETWEEN ? AND ?
"""
_SCOPES: Final = """
    CREATE OR REPLACE TEMP TABLE forecast_scopes AS
    SELECT row_number() OVER (ORDER BY scope, org, project, agent) - 1 AS scope_no, scope, org, project, agent
    FROM (
        SELECT scope, org, project, agent FROM scope_spend UNION SELECT scope, org, project, agent FROM forecast_budgets
    )
"""


def _same_scope(one: str, other: str) -> str:
    return " AND ".join(f"{one}.{name} IS NOT DISTINCT FROM {other}.{name}" for name in _SCOPE)


_ROWS: Final = f"""
    WITH lately AS (
        SELECT DISTINCT day.dt, spend.scope, spend.org, spend.project, spend.agent
        FROM (SELECT DISTINCT dt, last_day FROM forecast_windows) AS day
        JOIN scope_spend AS spend ON spend.dt < day.last_day AND spend.dt >= day.last_day - {SHOWN_FOR_DAYS}
        UNION
        -- An organisation whose usage does not come here at all has no forecasts, whatever its budgets.
        SELECT dt, scope, org, project, agent FROM forecast_budgets WHERE org IN (SELECT org FROM scope_spend)
    )
    SELECT w.dt, w.as_of, s.scope_no, s.scope, s.org, s.project, s.agent, w.period, w.window_start, w.window_end,
        coalesce(u.spent, CAST(0 AS DECIMAL(38, 9))) AS spent, coalesce(u.unpriced_calls, 0) AS unpriced_calls,
        b.limit_amount, b.files
    FROM lately JOIN forecast_windows AS w ON w.dt = lately.dt AND w.org IS NOT DISTINCT FROM lately.org
    JOIN forecast_scopes AS s ON {_same_scope("s", "lately")}
    LEFT JOIN window_spend AS u ON u.window_no = w.window_no AND {_same_scope("u", "lately")}
    LEFT JOIN forecast_budgets AS b ON b.dt = w.dt AND b.period = w.period AND {_same_scope("b", "lately")}
    ORDER BY w.dt, w.window_start, w.window_end, s.scope_no
"""
_HOUR_SHARES: Final = f"""
    SELECT day.as_of, used.org, CAST(hour(used.hour) AS INTEGER) AS hour, CAST(sum(used.cost) AS DOUBLE) AS cost
    FROM (SELECT DISTINCT as_of, org FROM forecast_windows) AS day
    JOIN usage_hourly AS used ON used.org IS NOT DISTINCT FROM day.org
        AND used.dt < CAST(day.as_of AS DATE) AND used.dt >= CAST(day.as_of AS DATE) - {_HOURS_LEARNED}
    GROUP BY day.as_of, used.org, hour(used.hour)
"""


@dataclass(frozen=True)
class _Panel:
    """What was learned of every scope (scope, day) from ``first`` on, in so many whole days, what each had spent before
    each day, and its kind."""

    first: date
    whole_days: int
    learned: model.Learned
    spent_before: Floats
    kinds: model.Ints


@dataclass(frozen=True)
class _Piece:
    """A stretch of one UTC day that belongs to a window: from hour to hour."""

    start: datetime
    first_hour: int
    last_hour: int

    @property
    def length(self) -> float:
        """In days."""
        return (self.last_hour - self.first_hour) / 24


def forecast_days(
    connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, windows: pa.Table, budgets: pa.Table
) -> model.Replay:
    """Replace the days' forecasts. ``windows`` and ``budgets`` are as ``WINDOW_SCHEMA`` and ``BUDGET_SCHEMA`` say.

    Answers how the intervals for one day ahead did on the 30 days up to the last of the range.
    """
    connection.register("given_windows", windows.cast(WINDOW_SCHEMA))
    connection.register("given_budgets", budgets.cast(BUDGET_SCHEMA))
    made = [_month(connection, lake, some) for some in months(days)]
    tables = [table for table, _ in made]
    lake.replace(FORECASTS, days, lambda _version: pa.concat_tables(tables))
    _, panel = made[-1]
    # A day under way is not over: no forecast of it can be judged yet.
    return model.replay(panel.learned, 1, panel.whole_days, panel.kinds)


def months(days: DayRange) -> Iterator[DayRange]:
    """The days by the month of their morrow, which decides how far back they look: what is best computed at once."""
    for _, some in groupby(days.days(), key=lambda day: _anchor(day)):
        held = list(some)
        yield DayRange(held[0], held[-1])


def _anchor(day: date) -> date:
    morrow = day + _DAY
    months = morrow.year * 12 + morrow.month - 1 - MONTHS_BEFORE
    return date(months // 12, months % 12 + 1, 1)


def _month(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange) -> tuple[pa.Table, _Panel]:
    span = DayRange(_anchor(days.first), days.last)
    lake.view(connection, USAGE_DAILY, span)
    lake.view(connection, USAGE_HOURLY, days.widened(before=SHOWN_FOR_DAYS))
    connection.execute(_ASKED, [days.first, days.last])
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE forecast_budgets AS SELECT * FROM given_budgets WHERE dt BETWEEN ? AND ?",
        [days.first, days.last],
    )
    for name in ("scope_spend", "window_spend"):
        query = load_sql("obs_pipeline.detection", name)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
    connection.execute(_SCOPES)
    panel, shares = _panel(connection, span), _hour_shares(connection)
    rows = connection.sql(_ROWS).to_arrow_table()
    tables = [_day(panel, shares, some) for some in _slices(rows, ("dt",))]
    return pa.concat_tables([FORECASTS.schema.empty_table(), *tables]), panel


def _panel(connection: duckdb.DuckDBPyConnection, span: DayRange) -> _Panel:
    scopes = connection.execute("SELECT scope FROM forecast_scopes ORDER BY scope_no").fetchall()
    found = connection.sql(
        f"""
        SELECT s.scope_no, CAST(d.dt - DATE '{span.first}' AS BIGINT) AS day_no, CAST(d.cost AS DOUBLE) AS cost
        FROM scope_spend AS d JOIN forecast_scopes AS s ON {_same_scope("d", "s")}
        """
    ).to_arrow_table()
    spend = np.zeros((len(scopes), len(span)))
    spend[found["scope_no"].to_numpy(), found["day_no"].to_numpy()] = found["cost"].to_numpy()
    (over,) = one_row(connection, "SELECT max(last_day) FROM forecast_windows")
    return _Panel(
        first=span.first,
        whole_days=0 if over is None else (over - span.first).days,
        learned=model.learn(spend, span.first.weekday()),
        spent_before=np.pad(np.cumsum(spend, axis=1), ((0, 0), (1, 0))),
        kinds=np.array([_KINDS[scope] for (scope,) in scopes], dtype=np.int64),
    )


HourShares = dict[tuple[datetime, str | None], Floats]
"""For an instant and an organisation: the share of a day's spend before each full hour, 25 values from 0 to 1."""


def _hour_shares(connection: duckdb.DuckDBPyConnection) -> HourShares:
    """The hours of a day as the organisation used them lately. Evenly, where it did not."""
    shares: HourShares = {}
    found = sorted(connection.execute(_HOUR_SHARES).fetchall(), key=lambda row: (row[0], row[1] or ""))
    for (as_of, org), some in groupby(found, key=lambda row: row[:2]):
        by_hour = np.zeros(24)
        for _, _, hour, cost in some:
            by_hour[hour] = max(cost, 0.0)
        if by_hour.sum() > 0:
            shares[as_of, org] = np.concatenate([[0.0], np.cumsum(by_hour) / by_hour.sum()])
    return shares


_EVENLY: Final = np.linspace(0, 1, 25)


def _slices(rows: pa.Table, columns: tuple[str, ...]) -> Iterator[pa.Table]:
    """Runs of rows that are equal in the columns."""
    keys = rows.select(list(columns)).to_pylist()
    edges = [number for number in range(len(keys)) if number == 0 or keys[number] != keys[number - 1]]
    for start, end in pairwise([*edges, len(keys)]):
        yield rows.slice(start, end - start)


def _day(panel: _Panel, shares: HourShares, rows: pa.Table) -> pa.Table:
    missed: dict[int, Floats] = {}
    parts = [_window(panel, shares, some, missed) for some in _slices(rows, ("window_start", "window_end"))]
    return pa.concat_tables(parts)


def _window(panel: _Panel, shares: HourShares, rows: pa.Table, missed: dict[int, Floats]) -> pa.Table:
    """One window of one calendar, all its scopes. ``missed`` keeps the bounds of each horizon for the other windows."""
    as_of, end = rows["as_of"][0].as_py(), rows["window_end"][0].as_py()
    origin = (as_of.date() - panel.first).days
    pieces = _pieces(as_of, end)
    length = sum(piece.length for piece in pieces)
    horizon = max(1, round(length))
    if horizon not in missed:
        missed[horizon] = model.bounds_ahead(panel.learned, horizon, origin, panel.kinds)
    scope = rows["scope_no"].to_numpy()
    at = np.array([origin])
    by_piece = model.ahead(panel.learned, at, len(pieces), scope)[:, 0]
    by_piece = np.maximum(by_piece * _piece_shares(shares, as_of, rows["org"].to_pylist(), pieces), 0.0)
    rest = by_piece.sum(axis=1)
    unit = model.units(panel.learned, at, length, rest[:, None], scope)[:, 0]
    ends = np.maximum(rest[:, None] + missed[horizon][scope] * unit[:, None], 0.0)
    states = _states(panel, origin, scope, ends)
    known = states == "ok"
    spent = rows["spent"].cast(pa.float64()).to_numpy()
    limit = rows["limit_amount"].cast(pa.float64()).to_numpy(zero_copy_only=False)
    left = np.where(known, limit - spent, np.nan)
    expected, earliest = (_crossing(by_piece, rest, whole, left, pieces) for whole in (rest, ends[:, 1]))
    computed = {
        "state": pa.array(states.tolist(), pa.string()),
        "history_days": pa.array(panel.learned.age[scope, origin].astype(np.int32)),
        **{
            name: pa.array(np.round(spent + more, 6), mask=~known)
            for name, more in (("forecast", rest), ("lower", ends[:, 0]), ("upper", ends[:, 1]))
        },
        "budget": pa.array(_budgets(limit, spent, known, expected, earliest), pa.string()),
        "exhausted_at": expected,
        "exhausted_earliest": earliest,
    }
    columns = [computed[name] if name in computed else rows[name] for name in FORECASTS.schema.names]
    return pa.table(columns, names=FORECASTS.schema.names).cast(FORECASTS.schema)


def _pieces(start: datetime, end: datetime) -> list[_Piece]:
    """The rest of a window, day by day, on whole hours."""
    pieces: list[_Piece] = []
    while start < end:
        midnight = datetime(start.year, start.month, start.day)
        stop = min(end, midnight + _DAY)
        last_hour = round((stop - midnight) / _HOUR)
        if last_hour > start.hour:
            pieces.append(_Piece(start, start.hour, last_hour))
        start = midnight + _DAY if stop == midnight + _DAY else end
    return pieces or [_Piece(start, start.hour, start.hour)]


def _piece_shares(shares: HourShares, as_of: datetime, orgs: list[str | None], pieces: list[_Piece]) -> Floats:
    """(row, piece): how much of its day's spend falls into each piece."""
    numbers = {org: number for number, org in enumerate(dict.fromkeys(orgs))}
    by_org = np.stack([shares.get((as_of, org), _EVENLY) for org in numbers])
    first, last = ([getattr(piece, name) for piece in pieces] for name in ("first_hour", "last_hour"))
    chosen: Floats = (by_org[:, last] - by_org[:, first])[[numbers[org] for org in orgs]]
    return chosen


def _states(panel: _Panel, origin: int, scope: model.Ints, ends: Floats) -> npt.NDArray[Any]:
    age, spent = panel.learned.age[scope, origin], panel.spent_before[scope, origin]
    young = (age < model.LEAST_DAYS) | np.isnan(ends).any(axis=1)
    reasons = ["no spend", "credits only", "not enough history"]
    return np.select([age == 0, spent <= 0, young], reasons, default="ok")


def _crossing(by_piece: Floats, rest: Floats, whole: Floats, left: Floats, pieces: list[_Piece]) -> pa.Array:
    """When what is left is used up, if ``whole`` is spent in all, in the course of the pieces; null if not in time."""
    pace = np.divide(whole, rest, out=np.zeros_like(rest), where=rest > 0)[:, None]
    reached = np.cumsum(by_piece, axis=1) * pace
    with np.errstate(invalid="ignore"):
        in_time = (left > 0) & (reached[:, -1] >= left)
        piece = (reached >= left[:, None]).argmax(axis=1)
    row = np.arange(len(left))
    amount = by_piece[row, piece] * pace[:, 0]
    short = np.where(in_time, left - (reached[row, piece] - amount), 0.0)
    part = np.divide(short, amount, out=np.zeros_like(amount), where=amount > 0)
    starts = np.array([one.start for one in pieces], dtype="datetime64[us]")[piece]
    minutes = part * np.array([one.length for one in pieces])[piece] * 24 * 60
    times = starts + np.round(minutes).astype("timedelta64[m]").astype("timedelta64[us]")
    return pa.array(times, TIME, mask=~in_time)


def _budgets(
    limit: Floats, spent: Floats, known: npt.NDArray[np.bool_], expected: pa.Array, earliest: pa.Array
) -> list[str | None]:
    """What becomes of each budget, None where there is none."""
    conditions = [np.isnan(limit), spent >= limit, ~known]
    conditions += [column.is_valid().to_numpy(zero_copy_only=False) for column in (expected, earliest)]
    said = ["", "used up", "unknown", "will be used up", "may be used up"]
    return [one or None for one in np.select(conditions, said, default="holds").tolist()]
