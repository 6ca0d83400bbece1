"""Conversions: money to the last nano-dollar, times to UTC, tokens that are whole."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.usage.event import NANO_DOLLAR
from obs_pipeline.usage.sources import values

TEXT = pa.string()
EXACT = Context(prec=400)
MOST = Decimal(10) ** 9


def evaluated(sql: str, values: Sequence[Any], found: pa.DataType = TEXT) -> list[Any]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", pa.table({"place": range(len(values)), "x": pa.array(values, found)}))
        return [row[0] for row in connection.sql(f"SELECT {sql} FROM given ORDER BY place").fetchall()]


def money(texts: Sequence[Any], unit: Any = None, found: pa.DataType = TEXT) -> list[Decimal | None]:
    return evaluated(values.money_sql("x", found, values.number_sql("x", found), unit), texts, found)


def exactly(text: str, shift: int = 0) -> Decimal | None:
    amount = EXACT.scaleb(Decimal(text), shift).quantize(NANO_DOLLAR, ROUND_HALF_UP, EXACT)
    return amount if abs(amount) < MOST else None


DIGITS = st.integers(0, 10**21).map(str)
AMOUNT = st.builds(
    lambda sign, whole, part, exponent: f"{sign}{whole}{part}{exponent}",
    st.sampled_from(["", "-", "+"]),
    st.one_of(st.integers(0, 10**10).map(str), st.just("0")),
    st.one_of(st.just(""), st.builds(lambda zeros, digits: "." + "0" * zeros + digits, st.integers(0, 11), DIGITS)),
    st.one_of(st.just(""), st.builds(lambda e, n: f"{e}{n}", st.sampled_from(["e", "E"]), st.integers(-25, 9))),
)


@settings(max_examples=40)
@given(texts=st.lists(AMOUNT, min_size=20, max_size=60), unit=st.sampled_from(["usd", "cents", "micro_usd"]))
def test_money_is_its_text_rounded_half_up_to_the_nano_dollar(texts: list[str], unit: str):
    shift = {"usd": 0, "cents": -2, "micro_usd": -6}[unit]
    assert money(texts, unit) == [exactly(text, shift) for text in texts]


DOUBLE = st.one_of(
    st.floats(-1e8, 1e8),
    st.integers(-(10**15), 10**15).map(lambda nanos: nanos / 1e9),
    st.integers(-(10**11), 10**11).map(lambda tenths: tenths / 1e10),
)


@settings(max_examples=40)
@given(st.lists(DOUBLE, min_size=20, max_size=60))
def test_a_double_is_money_by_its_shortest_text(amounts: list[float]):
    assert money(amounts, found=pa.float64()) == [exactly(repr(amount)) for amount in amounts]


def test_a_double_stands_for_the_decimal_it_was_written_as():
    assert money([0.1, 4e-7, 0.15499000000000002], found=pa.float64()) == [
        Decimal("0.1"),
        Decimal("4e-7"),
        Decimal("0.15499"),
    ]
    assert money([0.1], found=pa.float32()) == [Decimal("0.1")]


def test_a_decimal_of_another_scale_is_rounded_half_up():
    assert money([Decimal("0.0000000015"), Decimal("-0.0000000025")], found=pa.decimal128(30, 12)) == [
        Decimal("0.000000002"),
        Decimal("-0.000000003"),
    ]


@pytest.mark.parametrize("text", ["abc", "", "$3", "1,000", "nan", "inf", "1e", "--1", "1e400", "1000000000"])
def test_what_is_no_amount_that_fits_is_null(text: str):
    assert money([text]) == [None]


def times(given: Sequence[Any], unit: Any = None, found: pa.DataType = TEXT) -> list[datetime | None]:
    number = values.time_number_sql("x", found, unit)
    sql = values.sane_time_sql(f"({values.time_sql('x', f'({number})', found, unit)})")
    return evaluated(sql, given, found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-01T12:00:00Z", datetime(2026, 5, 1, 12)),
        ("2026-05-01t12:00:00z", datetime(2026, 5, 1, 12)),
        ("2026-05-01 12:00", datetime(2026, 5, 1, 12)),
        ("2026-05-01", datetime(2026, 5, 1)),
        ("2026-05-01T12:00:00+02:00", datetime(2026, 5, 1, 10)),
        ("2026-05-01T12:00:00-0530", datetime(2026, 5, 1, 17, 30)),
        ("2026-05-01T23:30:00-01", datetime(2026, 5, 2, 0, 30)),
        ("2026-05-01T12:00:00.123456789Z", datetime(2026, 5, 1, 12, 0, 0, 123456)),
        ("20260501T120000Z", datetime(2026, 5, 1, 12)),
        ("20260501T120000+0200", datetime(2026, 5, 1, 10)),
        ("1777636800", datetime(2026, 5, 1, 12)),
        ("1777636800.25", datetime(2026, 5, 1, 12, 0, 0, 250000)),
        ("1777636800.123456", datetime(2026, 5, 1, 12, 0, 0, 123456)),
        ("1.7776368e9", datetime(2026, 5, 1, 12)),
        ("1777636800123", datetime(2026, 5, 1, 12, 0, 0, 123000)),
        ("1777636800123456", datetime(2026, 5, 1, 12, 0, 0, 123456)),
        ("1777636800123456789", datetime(2026, 5, 1, 12, 0, 0, 123456)),
        ("epoch", datetime(1970, 1, 1)),
    ],
)
def test_a_time_becomes_utc_whatever_its_form(text: str, expected: datetime):
    assert times([text]) == [expected]


@pytest.mark.parametrize(
    "text",
    ["yesterday", "now", "infinity", "-infinity", "2026-02-30", "12:00", "05/01/2026", "12026-01-01", "1e30", "nan"],
)
def test_what_is_no_time_is_null(text: str):
    assert times([text]) == [None]


@pytest.mark.parametrize(
    ("unit", "number"),
    [("s", 1777636800), ("ms", 1777636800000), ("us", 1777636800000000), ("ns", 1777636800000000000)],
)
@pytest.mark.parametrize("found", [pa.int64(), pa.string(), pa.decimal128(30, 3)])
def test_a_number_counts_in_the_unit_of_the_mapping(unit: str, number: int, found: pa.DataType):
    value = str(number) if found == pa.string() else number
    assert times([value], unit, found) == [datetime(2026, 5, 1, 12)]


def test_a_unit_is_not_second_guessed():
    assert times(["1777636800"], "ms") == [datetime(1970, 1, 21, 13, 47, 16, 800000)]
    assert times(["1777636800"], "iso") == [None]
    assert times(["2026-05-01"], "s") == [None]


def counts(given: Sequence[Any], found: pa.DataType = TEXT) -> list[int | None]:
    return evaluated(values.count_sql(f"({values.number_sql('x', found)})", found), given, found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12", 12), ("12.0", 12), ("1e3", 1000), ("-5", -5), ("12.5", None), ("abc", None), ("nan", None)],
)
def test_a_count_is_whole(text: str, expected: int | None):
    assert counts([text]) == [expected]


def test_a_whole_double_is_a_count():
    assert counts([12.0, 12.5, None, float("inf")], pa.float64()) == [12, None, None, None]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (' {"a": 1}', ' {"a": 1}'),
        ("plain", '{"text":"plain"}'),
        ("[1]", '{"text":"[1]"}'),
        ('{"a": ', '{"text":"{\\"a\\": "}'),
        (None, None),
    ],
)
def test_attributes_are_always_an_object(text: str | None, kept: str | None):
    assert evaluated(values.attributes_sql("x"), [text]) == [kept]


@pytest.mark.parametrize(("text", "kept"), [("a", "a"), (" a ", " a "), ("", None), (" \t\r\n", None), (None, None)])
def test_a_blank_text_is_null_and_others_stay_as_they_are(text: str | None, kept: str | None):
    assert evaluated(values.text_sql("x", pa.string()), [text]) == [kept]
