"""A closer look at one agent's spike: when it began, how large it was, and which models, users and operations it
consists of, from the events themselves.

Holds the arithmetic of contributions. Nothing is rounded or estimated in what was observed: the contributions of
each dimension add up to the observed total exactly. No printing, no reading of files.

Units: ``cost`` USD as ``Decimal``; ``tokens`` (input and output), ``calls`` and ``errors`` whole numbers; ``latency``
the milliseconds spent waiting, as ``Decimal`` to the microsecond. Times are UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.event import MONEY_SUM

SpikeMetric = Literal["cost", "tokens", "errors", "latency", "calls"]
Amount = Decimal | int

LARGEST_CALLS: Final = 5
"""How many single calls a report names."""

_DIMENSIONS: Final = ("model", "user_id", "operation")
_TIME: Final = pa.timestamp("us")
_UNITS: Final = pa.decimal128(38, 0)
_TICK: Final = timedelta(microseconds=1)


class SpikeRequestError(ObsError):
    """The question cannot be answered as asked; the message says what to change."""


@dataclass(frozen=True, slots=True)
class BaselineWindow:
    """The time to compare with: any events that cover ``start`` (inclusive) to ``end`` (exclusive)."""

    events: pa.Table
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one model, user or operation (``key``, None when unknown) had its part in.

    ``baseline`` is its amount in the baseline window, scaled to the length of the spike's window and rounded;
    None without a baseline. ``share`` is its part of the observed total, 0 when that is zero.
    """

    key: str | None
    calls: int
    observed: Amount
    baseline: Decimal | None
    share: float

    @property
    def difference(self) -> Amount:
        """How much more than its baseline; the whole amount when there is none."""
        return self.observed - (self.baseline or 0)


@dataclass(frozen=True, slots=True)
class SpikeCall:
    """One of the calls that weigh most."""

    event_id: str
    time: datetime
    model: str | None
    user_id: str | None
    operation: str | None
    observed: Amount
    share: float


@dataclass(frozen=True, slots=True)
class AnomalyReport:
    """What happened to one metric of one agent between ``start`` (inclusive) and ``end`` (exclusive).

    ``began`` is the first call of the stretch that lies furthest above the baseline rate (or, without a baseline,
    above the window's own average), ``peaked`` the last; both None when nothing was observed. ``unknown_calls`` are
    calls whose amount nobody reported: they count as calls and contribute zero. Contributions are ordered by amount,
    largest first; each tuple adds up to ``observed``.
    """

    agent: str | None
    metric: SpikeMetric
    start: datetime
    end: datetime
    began: datetime | None
    peaked: datetime | None
    calls: int
    unknown_calls: int
    observed: Amount
    baseline: Decimal | None
    models: tuple[Contribution, ...]
    users: tuple[Contribution, ...]
    operations: tuple[Contribution, ...]
    largest_calls: tuple[SpikeCall, ...]

    @property
    def difference(self) -> Amount:
        """How much more than the baseline; the whole amount when there is none."""
        return self.observed - (self.baseline or 0)


@dataclass(frozen=True, slots=True)
class _Measure:
    """A metric as whole ``units``, so that sums are exact, null where unknown; ``decimals`` leads back to its own unit."""

    units: Callable[[pa.Table], Any]
    decimals: int

    def amount(self, units: int) -> Amount:
        return Decimal(units).scaleb(-self.decimals) if self.decimals else units

    def scaled(self, units: int, scale: Fraction) -> Decimal:
        """Rounded to the unit, or to a thousandth for whole numbers."""
        places = self.decimals or 3
        exact = units * scale * 10 ** (places - self.decimals)
        return Decimal(round(exact)).scaleb(-places)


def analyze_spikes(
    events: pa.Table,
    agent: str | None,
    metric: SpikeMetric,
    start: datetime,
    end: datetime,
    baseline: BaselineWindow | None = None,
) -> AnomalyReport:
    """Take a spike apart. ``events`` are canonical event columns and ``cost``, of one organisation and project.

    Rows of other agents or outside the window are ignored. Raises :class:`SpikeRequestError` for an unknown metric or
    an empty window.
    """
    if metric not in get_args(SpikeMetric):
        raise SpikeRequestError(f"there is no metric {metric!r}; choose one of {', '.join(get_args(SpikeMetric))}")
    measure = _MEASURES[metric]
    spike = _measured(events, agent, start, end, measure)
    total = _total(spike)
    before, scale = _before(baseline, agent, end - start, measure)
    usual_units = total if before is None else _total(before) * scale
    began, peaked = _stretch(spike, start, end, float(usual_units))

    def contributions(dimension: str) -> tuple[Contribution, ...]:
        return _contributions(spike, before, scale, dimension, total, measure)

    return AnomalyReport(
        agent=agent,
        metric=metric,
        start=start,
        end=end,
        began=began,
        peaked=peaked,
        calls=spike.num_rows,
        unknown_calls=int(pc.sum(spike["unknown"], min_count=0).as_py()),
        observed=measure.amount(total),
        baseline=None if before is None else measure.scaled(_total(before), scale),
        models=contributions("model"),
        users=contributions("user_id"),
        operations=contributions("operation"),
        largest_calls=_largest_calls(spike, total, measure),
    )


def _measured(events: pa.Table, agent: str | None, start: datetime, end: datetime, measure: _Measure) -> pa.Table:
    """The agent's calls of the window in order of time, with their amount in whole ``units``."""
    if end <= start:
        raise SpikeRequestError(f"the window from {start} to {end} is empty; its end must lie after its start")
    of_agent = pc.is_null(events["agent"]) if agent is None else pc.equal(events["agent"].cast(pa.string()), agent)
    times = events["event_time"].cast(_TIME)
    inside = pc.and_(pc.greater_equal(times, pa.scalar(start, _TIME)), pc.less(times, pa.scalar(end, _TIME)))
    chosen = events.filter(pc.and_(of_agent, inside)).sort_by([("event_time", "ascending"), ("event_id", "ascending")])
    units = measure.units(chosen)
    columns = {name: chosen[name] for name in ("event_id", "event_time", *_DIMENSIONS)}
    return pa.table(
        {**columns, "units": pc.fill_null(units, 0).cast(_UNITS), "unknown": pc.is_null(units).cast(pa.int64())}
    )


def _before(
    baseline: BaselineWindow | None, agent: str | None, length: timedelta, measure: _Measure
) -> tuple[pa.Table | None, Fraction]:
    """The calls to compare with, and the factor that brings them to the length of the spike's window."""
    if baseline is None:
        return None, Fraction(1)
    calls = _measured(baseline.events, agent, baseline.start, baseline.end, measure)
    return calls, Fraction(length // _TICK, (baseline.end - baseline.start) // _TICK)


def _total(calls: pa.Table) -> int:
    return int(pc.sum(calls["units"], min_count=0).as_py() or 0)


def _stretch(
    calls: pa.Table, start: datetime, end: datetime, usual_units: float
) -> tuple[datetime | None, datetime | None]:
    """First and last call of the stretch with the largest excess over a steady ``usual_units`` per window.

    The maximum of a cumulative sum over its own running minimum (CUSUM, Page, Biometrika 41, 1954).
    """
    units = calls["units"].cast(pa.float64()).to_numpy()
    if not units.any():
        return None, None
    times = calls["event_time"].cast(_TIME).to_numpy()
    elapsed = (times - np.datetime64(start, "us")) / (np.datetime64(end, "us") - np.datetime64(start, "us"))
    after = np.cumsum(units) - usual_units * elapsed
    valley = after - units
    peak = int(np.argmax(after - np.minimum.accumulate(valley)))
    # Calls at exactly the usual rate belong to no spike: of equal valleys the last one, rounding aside.
    lowest = valley[: peak + 1].min() + 1e-9 * np.abs(units).sum()
    first = int(np.flatnonzero(valley[: peak + 1] <= lowest)[-1])
    return times[first].astype(datetime), times[peak].astype(datetime)


def _contributions(
    spike: pa.Table, before: pa.Table | None, scale: Fraction, dimension: str, total: int, measure: _Measure
) -> tuple[Contribution, ...]:
    observed = _units_by(spike, dimension)
    usual = {} if before is None else _units_by(before, dimension)
    rows = [(key, *observed.get(key, (0, 0)), usual.get(key, (0, 0))[0]) for key in (observed | usual)]
    rows.sort(key=lambda row: (-row[1], -row[3], row[0] is None, row[0] or ""))
    return tuple(
        Contribution(
            key=key,
            calls=calls,
            observed=measure.amount(units),
            baseline=None if before is None else measure.scaled(usual_units, scale),
            share=units / total if total else 0.0,
        )
        for key, units, calls, usual_units in rows
    )


def _units_by(calls: pa.Table, dimension: str) -> dict[str | None, tuple[int, int]]:
    """(units, calls) of each value of a dimension."""
    grouped = calls.group_by(dimension).aggregate([("units", "sum"), ("units", "count")])
    return {row[dimension]: (int(row["units_sum"]), row["units_count"]) for row in grouped.to_pylist()}


def _largest_calls(calls: pa.Table, total: int, measure: _Measure) -> tuple[SpikeCall, ...]:
    order = [("units", "descending"), ("event_time", "ascending"), ("event_id", "ascending")]
    rows = calls.take(pc.select_k_unstable(calls, min(LARGEST_CALLS, calls.num_rows), order)).to_pylist()
    return tuple(
        SpikeCall(
            event_id=row["event_id"],
            time=row["event_time"],
            model=row["model"],
            user_id=row["user_id"],
            operation=row["operation"],
            observed=measure.amount(int(row["units"])),
            share=int(row["units"]) / total if total else 0.0,
        )
        for row in rows
        if row["units"]
    )


def _nano_dollars(events: pa.Table) -> Any:
    """Cost as whole nano-dollars, by reading the decimals' own digits: no float comes near the money."""
    cost = events["cost"].cast(MONEY_SUM).combine_chunks()
    array = cost if isinstance(cost, pa.Array) else pa.concat_arrays(cost.chunks)
    return pa.Array.from_buffers(pa.decimal128(38, 0), len(array), array.buffers(), offset=array.offset)


def _tokens(events: pa.Table) -> Any:
    sent, answered = events["input_tokens"], events["output_tokens"]
    tokens = pc.add(pc.fill_null(sent, 0), pc.fill_null(answered, 0))
    nobody_knows = pc.and_(pc.is_null(sent), pc.is_null(answered))
    return pc.if_else(nobody_knows, pa.scalar(None, pa.int64()), tokens)


def _microseconds(events: pa.Table) -> Any:
    return pc.round(pc.multiply(events["latency_ms"], 1000.0)).cast(pa.int64())


_MEASURES: Final[Mapping[SpikeMetric, _Measure]] = {
    "cost": _Measure(_nano_dollars, decimals=9),
    "tokens": _Measure(_tokens, decimals=0),
    "calls": _Measure(lambda events: pa.repeat(pa.scalar(1, pa.int64()), events.num_rows), decimals=0),
    "errors": _Measure(lambda events: pc.is_valid(events["error_type"]).cast(pa.int64()), decimals=0),
    "latency": _Measure(_microseconds, decimals=3),
}
