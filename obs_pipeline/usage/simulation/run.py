"""Runs a simulation into a folder: usage by day as Parquet, beside the truth about it.

Parquet files and processes only; the world, its events and the truth are made elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from obs_pipeline.usage.event import EVENT_SCHEMA
from obs_pipeline.usage.simulation.catalogue import rate_card
from obs_pipeline.usage.simulation.config import SimulationConfig, SimulationError, SimulationSummary
from obs_pipeline.usage.simulation.events import simulate_hours
from obs_pipeline.usage.simulation.fleet import Integers
from obs_pipeline.usage.simulation.truth import write_truth
from obs_pipeline.usage.simulation.world import World, build_world

CHUNK_EVENTS: Final = 400_000
"""Hours are made together up to so many events: it bounds memory, a few hundred megabytes a process."""

ROW_GROUP: Final = 100_000
DICTIONARY_COLUMNS: Final = [
    name
    for name in EVENT_SCHEMA.names
    if pa.types.is_string(EVENT_SCHEMA.field(name).type) and name not in ("event_id", "session_id")
]
WRITTEN_SCHEMA: Final = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string())) if field.name in DICTIONARY_COLUMNS else field
        for field in EVENT_SCHEMA
    ]
)


@dataclass(frozen=True)
class Written:
    """One file and its size in bytes."""

    path: Path
    bytes: int


def simulate(
    config: SimulationConfig,
    out: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> SimulationSummary:
    """Write a labelled fleet: ``usage/YYYY-MM-DD.parquet``, ``labels.csv``, ``benign.csv`` and ``fleet.csv``.

    ``on_progress`` is called with days done and days in all. ``workers`` processes share the days; the result does
    not depend on their number. A day of more than ``events_per_file`` events goes on in ``YYYY-MM-DD-2.parquet``.
    Raises ``SimulationError`` if ``out/usage`` already holds Parquet files, which would mix with the new ones.
    """
    usage = out / "usage"
    if any(usage.glob("*.parquet")):
        raise SimulationError(f"{usage} already holds Parquet files; choose another folder or remove them first.")
    usage.mkdir(parents=True, exist_ok=True)
    world = build_world(config)
    totals = [int(world.plan(day).calls.sum()) for day in range(config.days)]
    first_ids = [0, *accumulate(totals)][:-1]
    files: list[Written] = []
    for done, written in enumerate(_write_days(world, usage, first_ids, workers), start=1):
        files += written
        if on_progress:
            on_progress(done, config.days)
    write_truth(world, out)
    return SimulationSummary(
        events=sum(totals),
        files=len(files),
        days=config.days,
        agents=config.agents,
        faults=len(world.incidents.faults),
        bytes=sum(file.bytes for file in files),
    )


def _write_days(world: World, usage: Path, first_ids: Sequence[int], workers: int) -> Iterator[list[Written]]:
    write = partial(_write_day, world, usage)
    days = range(world.config.days)
    if workers == 1:
        yield from map(write, days, first_ids)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, days, first_ids)


def _write_day(world: World, usage: Path, day: int, first_id: int) -> list[Written]:
    """Write one day and return its files; a day without events has none."""
    stem = world.date_of(day).isoformat()
    numbered = _by_file(_tables(world, day, first_id), world.config.events_per_file)
    return [
        _write_file(usage / (f"{stem}.parquet" if number == 1 else f"{stem}-{number}.parquet"), pieces)
        for number, pieces in groupby(numbered, key=itemgetter(0))
    ]


def _tables(world: World, day: int, first_id: int) -> Iterator[pa.Table]:
    plan = world.plan(day)
    rates = rate_card(world.date_of(day))
    for hours in _chunks(plan.calls.sum(axis=0)):
        table = simulate_hours(world, plan, hours, first_id, rates)
        first_id += table.num_rows
        yield table


def _chunks(by_hour: Integers) -> Iterator[range]:
    """Runs of hours that together stay under the chunk size; a busier hour stands alone, an empty run is left out."""
    start, held = 0, 0
    for hour, calls in enumerate(int(calls) for calls in by_hour):
        if held and held + calls > CHUNK_EVENTS:
            yield range(start, hour)
            start, held = hour, 0
        held += calls
    if held:
        yield range(start, len(by_hour))


def _by_file(tables: Iterable[pa.Table], most: int) -> Iterator[tuple[int, pa.Table]]:
    """Cut tables so that each numbered file (from 1) gets ``most`` rows, the last one what is left."""
    row = 0
    for table in tables:
        taken = 0
        while taken < table.num_rows:
            piece = table.slice(taken, most - row % most)
            yield row // most + 1, piece
            row += piece.num_rows
            taken += piece.num_rows


def _write_file(path: Path, pieces: Iterable[tuple[int, pa.Table]]) -> Written:
    # A folder that is watched must never show a file that is still growing.
    unfinished = path.with_name(f".{path.name}.part")
    with pq.ParquetWriter(
        unfinished,
        WRITTEN_SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=[*DICTIONARY_COLUMNS, "reported_cost"],
        column_encoding={"event_id": "DELTA_BYTE_ARRAY", "event_time": "DELTA_BINARY_PACKED"},
        store_decimal_as_integer=True,
        store_schema=False,
    ) as writer:
        for _, piece in pieces:
            writer.write_table(piece.cast(WRITTEN_SCHEMA), row_group_size=ROW_GROUP)
    unfinished.replace(path)
    return Written(path, path.stat().st_size)
