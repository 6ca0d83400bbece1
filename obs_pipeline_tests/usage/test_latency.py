"""Latency histograms: packing, merging, percentiles."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.usage import latency

LATENCIES = st.lists(st.floats(0.1, 1e7, allow_nan=False), min_size=1, max_size=60)


def histogram(values: list[float]) -> list[int]:
    buckets, counts = np.unique(latency.bucket_of(values), return_counts=True)
    return latency.pack(buckets, counts).tolist()


def nearest_rank(values: list[float], share: float) -> float:
    return sorted(values)[max(math.ceil(share * len(values) - 1e-9), 1) - 1]


@given(st.lists(st.tuples(st.integers(-40, 400), st.integers(0, 2**32 - 1)), max_size=20))
def test_packed_entries_unpack_to_what_was_packed(entries):
    buckets = [bucket for bucket, _ in entries]
    counts = [count for _, count in entries]
    unpacked = latency.unpack(latency.pack(buckets, counts))
    assert unpacked[0].tolist() == buckets
    assert unpacked[1].tolist() == counts


@pytest.mark.parametrize("count", [-1, 2**32])
def test_a_count_that_does_not_fit_is_refused(count):
    with pytest.raises(ValueError, match="histogram count"):
        latency.pack([3], [count])


def test_a_latency_below_a_millisecond_has_a_negative_bucket_and_survives_packing():
    bucket = latency.bucket_of([0.5])
    assert bucket.tolist() == [-7]
    assert latency.unpack(latency.pack(bucket, [4]))[0].tolist() == [-7]


def test_everything_below_a_tenth_of_a_millisecond_shares_the_lowest_bucket():
    assert len(set(latency.bucket_of([0.0, 0.01, 0.1]).tolist())) == 1


@given(LATENCIES, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_the_stated_error_of_the_exact_one(values, share):
    flat = latency.flatten(pa.array([histogram(values)], latency.HISTOGRAM), [0])
    found = latency.quantiles(flat, 1, [share])[0, 0]
    assert abs(found / nearest_rank(values, share) - 1) <= latency.RELATIVE_ERROR + 1e-9


@given(st.lists(st.tuples(st.integers(0, 4), LATENCIES), max_size=8))
def test_merging_histograms_is_the_histogram_of_all_calls_together(rows):
    column = pa.array([histogram(values) for _, values in rows], latency.HISTOGRAM)
    merged = latency.merge(latency.flatten(column, [group for group, _ in rows]))
    for group in range(5):
        together = [value for owner, values in rows if owner == group for value in values]
        found = latency.pack(merged.buckets[merged.groups == group], merged.counts[merged.groups == group]).tolist()
        assert found == (histogram(together) if together else [])


def test_null_rows_and_empty_groups_hold_nothing():
    column = pa.chunked_array([pa.array([histogram([100.0]), None, []], latency.HISTOGRAM)])
    found = latency.quantiles(latency.flatten(column, [2, 1, 0]), 4, [0.5, 0.95])
    assert np.isnan(found[[0, 1, 3]]).all()
    assert found[2] == pytest.approx([100.0, 100.0], rel=latency.RELATIVE_ERROR)


def test_a_slice_of_a_column_is_read_as_that_slice():
    column = pa.array([histogram([1.0]), histogram([1000.0]), histogram([5.0])], latency.HISTOGRAM)[1:2]
    assert latency.quantiles(latency.flatten(column, [0]), 1, [1.0])[0, 0] == pytest.approx(1000, rel=0.06)


def test_percentiles_of_no_rows_at_all_are_unknown():
    flat = latency.flatten(pa.array([], latency.HISTOGRAM), [])
    assert np.isnan(latency.quantiles(flat, 2, [0.95])).all()


def test_percentiles_of_a_column_do_not_depend_on_how_much_is_laid_flat_at_once(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(7)
    groups = rng.integers(0, 40, 300)
    rows = [latency.pack(np.sort(rng.choice(90, 5, replace=False)), rng.integers(1, 9, 5)).tolist() for _ in groups]
    column = pa.array(rows, latency.HISTOGRAM)
    whole = latency.quantiles(latency.flatten(column, groups), 50, [0.5, 0.95])
    for entries in (1, 7, 1000, 10_000):
        monkeypatch.setattr(latency, "_ENTRIES_AT_ONCE", entries)
        np.testing.assert_array_equal(latency.quantiles_of(column, groups, 50, [0.5, 0.95]), whole)
    assert np.isnan(latency.quantiles_of(column.slice(0, 0), [], 3, [0.5])).all()


BUCKET_LISTS = st.lists(st.one_of(st.none(), st.lists(st.integers(-23, 200), max_size=12)))


@given(BUCKET_LISTS, st.sampled_from([1, 50, 500_000]))
def test_a_histogram_names_each_bucket_once_in_rising_order_and_counts_its_calls(rows, cells):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, "_CELLS_AT_ONCE", cells)
        found = latency.histograms_of(pa.array(rows, pa.list_(pa.int16()))).to_pylist()
    told = [
        None if one is None else list(zip(*(part.tolist() for part in latency.unpack(one)), strict=True))
        for one in found
    ]
    assert told == [None if row is None else sorted(Counter(row).items()) for row in rows]


def test_a_part_of_a_column_is_counted_like_the_whole():
    column = pa.array([[5, 5], None, [], [7, 6, 7]], pa.list_(pa.int16()))
    assert latency.histograms_of(column.slice(1)).to_pylist() == latency.histograms_of(column).to_pylist()[1:]
