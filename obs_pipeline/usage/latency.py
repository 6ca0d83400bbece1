"""Latency as a mergeable histogram: logarithmic buckets packed into one list of integers per usage row.

Holds the bucket rule, packing, merging and percentiles, vectorised over any number of rows. Not the SQL that
fills the histograms, not what counts as slow.

Rule
----
- ``bucket = floor(10 * ln(max(latency_ms, 0.1)))``: ten buckets for each factor *e*, negative below one millisecond.
- A bucket's value is its geometric middle, ``exp((bucket + 0.5) / 10)``, so a percentile read from a histogram
  is within :data:`RELATIVE_ERROR` (5.2 %) of the exact nearest-rank percentile of the calls themselves.
- ``entry = bucket * 2**32 + count``: bucket and count share one signed 64-bit integer, so a histogram is a plain
  ``list<int64>`` that every engine stores and concatenates. A count is at most ``2**32 - 1``.

Histograms are added, percentiles never averaged: concatenate the lists of any rows and ask again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BUCKETS_PER_E: Final = 10
SHORTEST_MS: Final = 0.1
RELATIVE_ERROR: Final = math.exp(0.5 / BUCKETS_PER_E) - 1
HISTOGRAM: Final = pa.list_(pa.int64())

_COUNT_BITS: Final = 32
_COUNT_MASK: Final = (1 << _COUNT_BITS) - 1
_ENTRIES_AT_ONCE: Final = 250_000
_CELLS_AT_ONCE: Final = 250_000


class Counts(NamedTuple):
    """Histograms of many groups laid flat: ``counts[i]`` calls of ``groups[i]`` fell into ``buckets[i]``."""

    groups: Ints
    buckets: Ints
    counts: Ints


def bucket_of(latency_ms: npt.ArrayLike) -> Ints:
    """The bucket of each latency (milliseconds, finite)."""
    clipped = np.maximum(np.asarray(latency_ms, dtype=np.float64), SHORTEST_MS)
    buckets: Ints = np.floor(np.log(clipped) * BUCKETS_PER_E).astype(np.int64)
    return buckets


def value_of(buckets: npt.ArrayLike) -> Floats:
    """The latency in milliseconds that stands for each bucket: its geometric middle."""
    middles: Floats = np.exp((np.asarray(buckets, dtype=np.float64) + 0.5) / BUCKETS_PER_E)
    return middles


def pack(buckets: npt.ArrayLike, counts: npt.ArrayLike) -> Ints:
    """One integer per (bucket, count). Raises ``ValueError`` for a count outside 0 … 2**32 − 1."""
    exact_counts = np.asarray(counts, dtype=np.int64)
    if exact_counts.size and (exact_counts.min() < 0 or exact_counts.max() > _COUNT_MASK):
        raise ValueError(f"a histogram count must lie between 0 and {_COUNT_MASK}")
    packed: Ints = (np.asarray(buckets, dtype=np.int64) << _COUNT_BITS) + exact_counts
    return packed


def unpack(entries: npt.ArrayLike) -> tuple[Ints, Ints]:
    """(buckets, counts) of packed entries; the inverse of :func:`pack`."""
    packed = np.asarray(entries, dtype=np.int64)
    return packed >> _COUNT_BITS, packed & _COUNT_MASK


def flatten(histograms: Any, groups: npt.ArrayLike) -> Counts:
    """Lay a column of histograms flat; row ``i`` belongs to ``groups[i]``, null rows hold nothing."""
    column = histograms.combine_chunks() if isinstance(histograms, pa.ChunkedArray) else histograms
    owners = np.asarray(groups, dtype=np.int64)
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    buckets, counts = unpack(pc.list_flatten(column).to_numpy(zero_copy_only=False))
    return Counts(owners[parents], buckets, counts)


def merge(flat: Counts) -> Counts:
    """Add what falls into the same bucket of the same group; sorted by group, then bucket."""
    if flat.groups.size == 0:
        return flat
    groups, buckets, counts = _in_order(flat)
    starts = np.flatnonzero(np.diff(groups, prepend=-1) | np.diff(buckets, prepend=0))
    return Counts(groups[starts], buckets[starts], np.add.reduceat(counts, starts))


def _in_order(flat: Counts) -> Counts:
    """The same entries by group, then bucket."""
    if flat.groups.size == 0:
        return flat
    lowest = flat.buckets.min()
    bits = int(flat.buckets.max() - lowest).bit_length()
    cells = (flat.groups << bits) | (flat.buckets - lowest)
    # Histograms mostly come sorted by bucket and laid out by group: a sort that finds runs has next to nothing to do.
    order = np.argsort(cells, kind="stable")
    return Counts(flat.groups[order], flat.buckets[order], flat.counts[order])


def histograms_of(buckets: Any) -> Any:
    """A ``list<int64>`` array of histograms from lists that name the bucket of each call; null stays null."""
    sizes = pc.fill_null(pc.list_value_length(buckets), 0).to_numpy(zero_copy_only=False)
    calls = pc.list_flatten(buckets).to_numpy(zero_copy_only=False)
    ends = np.cumsum(sizes)
    rows = max(1, _CELLS_AT_ONCE // (int(np.ptp(calls)) + 1 if calls.size else 1))
    pieces = [
        _counted(
            sizes[start : start + rows], calls[ends[start] - sizes[start] : ends[min(start + rows, len(ends)) - 1]]
        )
        for start in range(0, len(sizes), rows)
    ]
    lengths = np.concatenate([[0], *(lengths for lengths, _ in pieces)])
    entries = np.concatenate([np.zeros(0, np.int64), *(entries for _, entries in pieces)])
    offsets = pa.array(np.cumsum(lengths).astype(np.int32), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(entries, pa.int64()), mask=buckets.is_null())


def _counted(sizes: Ints, buckets: Ints) -> tuple[Ints, Ints]:
    """How many buckets each of a few rows has calls in, and those entries, counted in a table: no sort is as quick."""
    if not buckets.size:
        return np.zeros(len(sizes), np.int64), np.zeros(0, np.int64)
    lowest = int(buckets.min())
    width = int(buckets.max()) - lowest + 1
    table = np.bincount(np.repeat(np.arange(len(sizes)) * width - lowest, sizes) + buckets)
    filled = np.flatnonzero(table)
    row, bucket = np.divmod(filled, width)
    return np.bincount(row, minlength=len(sizes)), pack(bucket + lowest, table[filled])


def quantiles(flat: Counts, group_count: int, shares: Sequence[float]) -> Floats:
    """Nearest-rank percentiles, shape (group_count, len(shares)), in milliseconds; NaN for a group without calls.

    ``shares`` are fractions above 0 and up to 1; the rank of share *q* among *n* calls is ``ceil(q * n)``.
    """
    ordered = _in_order(flat)
    running = np.cumsum(ordered.counts)
    ends = np.searchsorted(ordered.groups, np.arange(group_count), side="right")
    padded = np.concatenate([[0], running])
    totals = padded[ends]
    before = np.concatenate([[0], totals[:-1]])
    calls = totals - before
    found = np.full((group_count, len(shares)), np.nan)
    filled = calls > 0
    for column, share in enumerate(shares):
        # The nudge keeps 0.95 * 20 at rank 19: binary fractions may land a hair above the whole number.
        ranks = np.maximum(np.ceil(share * calls[filled] - 1e-9), 1).astype(np.int64)
        hits = np.searchsorted(running, before[filled] + ranks, side="left")
        found[filled, column] = value_of(ordered.buckets[hits])
    return found


def quantiles_of(histograms: Any, groups: npt.ArrayLike, group_count: int, shares: Sequence[float]) -> Floats:
    """:func:`quantiles` of a column of histograms, laid flat piece by piece so that memory stays small."""
    column = histograms.combine_chunks() if isinstance(histograms, pa.ChunkedArray) else histograms
    owners = np.asarray(groups, dtype=np.int64)
    by_group = np.argsort(owners, kind="stable")
    owners = owners[by_group]
    found = np.full((group_count, len(shares)), np.nan)
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)[by_group]
    pieces = np.cumsum(sizes) // _ENTRIES_AT_ONCE
    # A group is never split: each piece begins with the first row of its group.
    starts = np.searchsorted(owners, owners[np.flatnonzero(np.diff(pieces, prepend=-1))])
    for start, end in pairwise([*np.unique(starts).tolist(), owners.size]):
        rows, first = slice(start, end), owners[start]
        block = flatten(column.take(pa.array(by_group[rows])), owners[rows] - first)
        span = int(owners[end - 1] - first) + 1
        found[first : first + span] = quantiles(block, span, shares)
    return found
