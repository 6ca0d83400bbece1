"""From usage rows to dense arrays: one row per series, one column per day or hour, NaN where nothing is known.

Holds the shape of the data and the rule that tells a zero from an unknown. No statistics, no metrics, no settings.

A series is an (org, project, agent). Arrays are (series, point, day): one point per day at daily grain, 24 at hourly
grain, so that "the same point on the days before" is always the last axis.

Zero or unknown
---------------
A time without rows is zero if a source of the series was alive then, unknown otherwise. A source is alive on a day
when it sent any event that day; in an hour when it sent any event in that hour or in the ``silence_hours`` before.
The sources of a series are those that sent its rows in the look-back. Before the first row of a series in the
window (look-back and tested day) everything is unknown: a new agent was not idle, it did not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.detection.config import Grain
from obs_pipeline.usage import latency

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

EPOCH: Final = date(1970, 1, 1)
HOUR_US: Final = 3_600_000_000
LATENCY_SHARE: Final = 0.95

_SUMMED: Final = (
    "calls",
    "errors",
    "input_tokens",
    "output_tokens",
    "cost",
    "mispriced_calls",
    "overcharge",
    "overcharged_list_cost",
    "latency_calls",
)


class Windows(NamedTuple):
    """Look-back and tested value of some series: (series, point, tested day, look-back) and without the last."""

    history: Floats
    observed: Floats


@dataclass(frozen=True)
class Panel:
    """Usage sums by series and time, sparse, and what is needed to spread them over the whole grid.

    ``cells`` are the occupied positions of the (series, point, day) grid in rising order; each array of ``sums``
    holds one value per cell, NaN where no row knew it. ``series`` is a table of org, project and agent, in order,
    nulls first.
    """

    series: pa.Table
    first_day: int
    days: int
    points: int
    cells: Ints
    sums: Mapping[str, Floats]
    alive: Bools
    sources: Ints
    seen: Bools
    masked: Bools | None = None
    """(series, point, day): what no baseline may learn from, if anything."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(series, points of a day, days)."""
        return self.series.num_rows, self.points, self.days

    def spread(self, values: Floats, series: slice = slice(None)) -> Floats:
        """One value per cell as the whole (series, point, day) grid, NaN elsewhere; of some series alone, if these are named."""
        return self._spread(values, np.nan, series)

    def at(self, name: str, positions: Ints) -> Floats:
        """The sum at grid positions; NaN for a position without rows."""
        if self.cells.size == 0:
            return np.full(positions.shape, np.nan)
        found = np.minimum(np.searchsorted(self.cells, positions), self.cells.size - 1)
        return np.where(self.cells[found] == positions, self.sums[name][found], np.nan)

    def windows(self, grid: Floats, lookback: int, series: slice, *, idle_is_zero: bool) -> Windows:
        """The windows of some series of a grid; with ``idle_is_zero``, gaps are zero where the series was idle."""
        from obs_pipeline.detection.window_fill import fill_windows

        chosen = grid[series]
        count, points, days = chosen.shape
        history = np.empty((count, points, days - lookback, lookback))
        observed = np.empty(history.shape[:-1])
        masked = np.zeros((0, 0, 0), dtype=bool) if self.masked is None else self.masked[series]
        fill_windows(
            chosen,
            self._present(series),
            self.alive,
            self.sources[series],
            self.seen[series],
            masked,
            idle_is_zero,
            history,
            observed,
        )
        return Windows(history, observed)

    def between(self, first: int, last: int) -> tuple[Panel, Ints]:
        """The panel of the days at these positions, both included, of the series with rows then; and where these were."""
        of_day = self.cells % self.days
        kept = (of_day >= first) & (of_day <= last)
        owner, point = np.divmod(self.cells[kept] // self.days, self.points)
        there = np.unique(owner)
        days = last - first + 1
        narrow = replace(
            self,
            series=self.series.take(pa.array(there)),
            first_day=self.first_day + first,
            days=days,
            cells=(np.searchsorted(there, owner) * self.points + point) * days + of_day[kept] - first,
            sums={name: values[kept] for name, values in self.sums.items()},
            alive=self.alive[..., first : last + 1],
            sources=self.sources[there],
            seen=self.seen[there, :, first : last + 1],
            masked=None if self.masked is None else self.masked[there, :, first : last + 1],
        )
        return narrow, there

    def of(self, chosen: Ints) -> Panel:
        """The panel of some series alone, given in rising order."""
        owner, rest = np.divmod(self.cells, self.points * self.days)
        kept = np.isin(owner, chosen)
        return replace(
            self,
            series=self.series.take(pa.array(chosen)),
            cells=np.searchsorted(chosen, owner[kept]) * (self.points * self.days) + rest[kept],
            sums={name: values[kept] for name, values in self.sums.items()},
            sources=self.sources[chosen],
            seen=self.seen[chosen],
            masked=None if self.masked is None else self.masked[chosen],
        )

    def course(self, name: str, series: slice, *, tested: int, idle_is_zero: bool) -> Floats:
        """A sum of some series from the first time to the last, (series, time), less what is not to be learned of all but
        the last ``tested`` days. With ``idle_is_zero``, gaps are zero where the series was idle.

        No value depends on later days: a source counts from the day on which it first sent rows of the series.
        """
        grid = self.spread(self.sums[name], series)
        if idle_is_zero:
            grid = np.where(self._idle_so_far(series), 0.0, grid)
        if self.masked is not None:
            learned = self.days - tested
            grid[..., :learned][self.masked[series, :, :learned]] = np.nan
        course: Floats = _in_time(grid)
        return course

    def _idle_so_far(self, series: slice) -> Bools:
        """Where there are no rows although the series existed and one of the sources it had by then was alive."""
        present = self._present(series)
        in_time = np.logical_or.accumulate(_in_time(present), axis=1)
        started = in_time.reshape(len(present), self.days, self.points).transpose(0, 2, 1)
        alive = np.zeros(present.shape, dtype=bool)
        for rank in range(self.sources.shape[1]):
            sent = np.logical_or.accumulate(self.seen[series, rank], axis=1)
            alive |= sent[:, None, :] & self.alive[self.sources[series, rank]]
        idle: Bools = started & alive & ~present
        return idle

    def _present(self, series: slice) -> Bools:
        """Where the series have rows, (series, point, day)."""
        return self._spread(np.ones(self.cells.shape, dtype=bool), False, series)

    def _spread(self, values: npt.NDArray[Any], elsewhere: Any, series: slice) -> npt.NDArray[Any]:
        start, stop, step = series.indices(self.series.num_rows)
        size = self.points * self.days
        some = slice(*np.searchsorted(self.cells, [start * size, max(stop, start) * size]))
        grid = np.full((max(stop - start, 0), self.points, self.days), elsewhere, dtype=values.dtype)
        grid.reshape(-1)[self.cells[some] - start * size] = values[some]
        return grid[::step]


def build_panel(
    usage: pa.Table,
    grain: Grain,
    first: date,
    last: date,
    *,
    silence_hours: int,
    latency_calls: int,
    heard: pa.Table | None = None,
) -> Panel:
    """Sum usage rows (of ``sql/series_hourly.sql`` or ``sql/series_daily.sql``) into a panel of ``first`` … ``last``.

    ``latency``, the p95 in milliseconds, is known for cells with at least ``latency_calls`` timed calls. Rows of the
    hours just before ``first`` only say which sources are alive, and so do those of ``heard`` (source, dt, hour), if
    the usage is not all there is. Sums are made exactly, as integers and decimals,
    before they become floats, so the order of the rows never shows.
    """
    points = 24 if grain == "hour" else 1
    first_day, days = _day_number(first), (last - first).days + 1
    ticks = _ticks(usage, grain) - first_day * points
    quiet = silence_hours if grain == "hour" else 0
    others = usage.slice(0, 0) if heard is None else heard
    source_codes, source_count = _codes(
        pa.chunked_array([*_texts(usage["source"]), *_texts(others["source"])], pa.string())
    )
    sent = np.concatenate([ticks, _ticks(others, grain) - first_day * points])
    near = (sent >= -quiet) & (sent < days * points)
    alive = _alive(source_codes[near], source_count, sent[near], days * points, quiet)

    inside = near[: ticks.size] & (ticks >= 0)
    source_codes = source_codes[: ticks.size]
    usage, ticks, source_codes = usage.filter(pa.array(inside)), ticks[inside], source_codes[inside]
    owners, series = _series(usage)
    cell_of_row = (owners * points + ticks % points) * days + ticks // points
    sources, seen = _sources(owners, source_codes, ticks // points, series.num_rows, source_count, days)
    cells, sums = _sum(usage, cell_of_row)
    sums["latency"] = _p95(usage, cell_of_row, cells, sums["latency_calls"] >= latency_calls)
    return Panel(
        series=series,
        first_day=first_day,
        days=days,
        points=points,
        cells=cells,
        sums=sums,
        alive=alive.reshape(source_count + 1, days, points).transpose(0, 2, 1),
        sources=sources,
        seen=seen,
    )


def _day_number(day: date) -> int:
    return (day - EPOCH).days


def _ticks(usage: pa.Table, grain: Grain) -> Ints:
    """Days or hours since 1970 of every row."""
    if grain == "day":
        return _ints(usage["dt"].cast(pa.int32()))
    return _ints(usage["hour"].cast(pa.timestamp("us")).cast(pa.int64())) // HOUR_US


def _texts(column: Any) -> list[pa.Array]:
    chunks: list[pa.Array] = column.cast(pa.string()).chunks
    return chunks


def _ints(column: Any) -> Ints:
    numbers: Ints = column.to_numpy().astype(np.int64)
    return numbers


def _codes(column: Any) -> tuple[Ints, int]:
    """Each value as its rank among the distinct values, null first as zero; and one more than the largest rank."""
    encoded = pa.chunked_array(column.cast(pa.string())).combine_chunks().dictionary_encode()
    values = encoded.dictionary
    order = pc.sort_indices(values).to_numpy()
    ranks = np.zeros(len(values) + 1, dtype=np.int64)
    ranks[order] = np.arange(1, len(values) + 1)
    indices = pc.fill_null(encoded.indices, len(values)).to_numpy().astype(np.int64)
    return ranks[indices], len(values) + 1


def _series(usage: pa.Table) -> tuple[Ints, pa.Table]:
    """The series of each row, and the table of series in order."""
    org, _ = _codes(usage["org"])
    project, projects = _codes(usage["project"])
    agent, agents = _codes(usage["agent"])
    keys = (org * projects + project) * agents + agent
    _, samples, owners = np.unique(keys, return_index=True, return_inverse=True)
    identity = usage.select(["org", "project", "agent"]).take(pa.array(samples))
    return owners.astype(np.int64), identity.cast(pa.schema([(name, pa.string()) for name in identity.column_names]))


def _alive(sources: Ints, source_count: int, ticks: Ints, length: int, quiet: int) -> Bools:
    """(source, time): sent something then or within ``quiet`` before. The last row, of no source, is never alive."""
    sent = np.zeros((source_count + 1, quiet + length + 1), dtype=np.int64)
    sent[sources, ticks + quiet + 1] = 1
    running = np.cumsum(sent, axis=1)
    return running[:, quiet + 1 :] > running[:, :length]


def _sources(
    owners: Ints, sources: Ints, day: Ints, series_count: int, source_count: int, days: int
) -> tuple[Ints, Bools]:
    """The sources of each series (series, rank), padded with the source that is never alive; and on which days
    each of them sent rows of that series (series, rank, day)."""
    pairs, pair_of_row = np.unique(owners * source_count + sources, return_inverse=True)
    pair_owner = pairs // source_count
    rank = np.arange(pairs.size) - np.searchsorted(pair_owner, pair_owner)
    width = int(rank.max()) + 1 if pairs.size else 1
    table = np.full((series_count, width), source_count, dtype=np.int64)
    table[pair_owner, rank] = pairs % source_count
    seen = np.zeros((series_count, width, days), dtype=bool)
    seen[owners, rank[pair_of_row], day] = True
    return table, seen


def _sum(usage: pa.Table, cell_of_row: Ints) -> tuple[Ints, dict[str, Floats]]:
    totals = pa.table({"cell": cell_of_row, **{name: usage[name] for name in _SUMMED}})
    order = np.argsort(cell_of_row)
    cells = cell_of_row[order]
    if (np.diff(cells) == 0).any():  # several sources sent of one cell
        totals = totals.group_by("cell").aggregate([(name, "sum") for name in _SUMMED])
        totals = totals.rename_columns(["cell", *_SUMMED])
        cells = _ints(totals["cell"])
        order = np.argsort(cells)
        cells = cells[order]
    sums = {name: _floats(totals[name])[order] for name in _SUMMED}
    known_tokens = ~(np.isnan(sums["input_tokens"]) & np.isnan(sums["output_tokens"]))
    tokens = np.nan_to_num(sums["input_tokens"]) + np.nan_to_num(sums["output_tokens"])
    sums["tokens"] = np.where(known_tokens, tokens, np.nan)
    return cells, sums


def _p95(usage: pa.Table, cell_of_row: Ints, cells: Ints, enough: Bools) -> Floats:
    """The 95th percentile of every cell with enough calls, from the merged histograms of its rows."""
    owners = np.searchsorted(cells, cell_of_row)
    worth = enough[owners]
    histograms = usage["latency_histogram"].filter(pa.array(worth))
    return latency.quantiles_of(histograms, owners[worth], cells.size, [LATENCY_SHARE])[:, 0]


def _floats(column: Any) -> Floats:
    numbers: Floats = column.cast(pa.float64()).to_numpy().astype(np.float64)
    return numbers


def _in_time(grid: Any) -> Any:
    """(series, point, day) as (series, time)."""
    series, points, days = grid.shape
    return grid.transpose(0, 2, 1).reshape(series, days * points)
