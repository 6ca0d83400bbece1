"""Values as sources write them into values of the canonical types, as SQL.

Here: times, counts, money and durations, from text or from typed columns. Every expression gives null for what does not convert;
which nulls are faults is for ``quality`` to say.

Exactness: money goes from its text to the nano-dollar without passing through a double, rounding half away from zero; a double
stands for its shortest decimal text. Sub-microsecond digits of a time are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import pyarrow as pa

from obs_pipeline.usage.sources.mapping import Unit

_BLANKS: Final = r"E' \t\r\n'"
_FIRST_VISIBLE: Final = "'!'"
"""Text that sorts from here on begins with something to see, which is far cheaper to ask than trimming it."""
EARLIEST_SANE: Final = datetime(1000, 1, 1)
LATEST_SANE: Final = datetime.max
_FIRST_MICROSECOND: Final = -62_135_596_800_000_000
_LAST_MICROSECOND: Final = 253_402_300_799_999_999
_HAS_OFFSET: Final = r"([A-Z]|[:T][0-9.:]+ ?[+-][0-9]{2}:?([0-9]{2})?)$"
"""At the end of a time, upper case: a name such as Z, or a sign and digits after the clock."""
_COMPACT: Final = "['%Y%m%dT%H%M%SZ', '%Y%m%dT%H%M%S%z']"
_PER_UNIT: Final = {"s": "1000000", "ms": "1000", "us": "1", "ns": "0.001"}
_FIFTEEN_DIGITS: Final = 1_000_000
"""Below it a nano-dollar amount has at most 15 digits. If such an amount is the double, it is also its shortest text,
and most amounts are spared the way through text."""
_EXPONENT: Final = {"usd": 0, "cents": -2, "micro_usd": -6, "nano_usd": -9}


def text_sql(value: str, found: pa.DataType) -> str:
    """Text with blanks as null; other types as their text."""
    if pa.types.is_string(found):
        return f"CASE WHEN {value} >= {_FIRST_VISIBLE} OR trim({value}, {_BLANKS}) <> '' THEN {value} END"
    return f"CAST({value} AS VARCHAR)"


def number_sql(value: str, found: pa.DataType) -> str:
    """As a double, or the value itself where it is an integer."""
    return value if pa.types.is_integer(found) else f"TRY_CAST({value} AS DOUBLE)"


def count_sql(number: str, found: pa.DataType) -> str:
    """A whole number as BIGINT."""
    if pa.types.is_integer(found):
        return f"TRY_CAST({number} AS BIGINT)"
    return f"CASE WHEN {number} = floor({number}) THEN TRY_CAST({number} AS BIGINT) END"


def duration_sql(number: str, unit: Unit | None) -> str:
    """Milliseconds as a double."""
    return f"CAST({number} AS DOUBLE)" + (" * 1000" if unit == "s" else "")


def money_sql(value: str, found: pa.DataType, number: str, unit: Unit | None) -> str:
    """Dollars as DECIMAL(18, 9).

    Text passes through DECIMAL(38, 9): the narrower cast misreads some numbers with exponents and some that are too large.
    """
    shift = _EXPONENT[unit or "usd"]
    if pa.types.is_decimal(found) and not shift:
        return f"TRY_CAST({value} AS DECIMAL(18, 9))"
    wide = f"TRY_CAST({_times_ten_to(_text(value, found), shift)} AS DECIMAL(38, 9))"
    exact = f"CASE WHEN {number} = 0 THEN 0 ELSE TRY_CAST({wide} AS DECIMAL(18, 9)) END"
    if found != pa.float64() or shift:
        return exact
    near = f"TRY_CAST({value} AS DECIMAL(18, 9))"
    return (
        f"CASE WHEN abs({value}) < {_FIFTEEN_DIGITS} AND CAST({near} AS DOUBLE) = {value} THEN {near} ELSE {exact} END"
    )


def _times_ten_to(text: str, exponent: int) -> str:
    if not exponent:
        return text
    mantissa = f"split_part(lower(trim({text})), 'e', 1)"
    written = f"TRY_CAST(coalesce(nullif(split_part(lower(trim({text})), 'e', 2), ''), '0') AS INTEGER)"
    return f"{mantissa} || 'e' || CAST({written} + {exponent} AS VARCHAR)"


def time_number_sql(value: str, found: pa.DataType, unit: Unit | None) -> str:
    """A time given as a number, exact to the nanosecond; null where it is not one, or should be none."""
    if unit == "iso" or _is_time(found):
        return "CAST(NULL AS DECIMAL(28, 9))"
    text = _text(value, found)
    return f"CASE WHEN NOT contains({text}, ':') THEN TRY_CAST({text} AS DECIMAL(28, 9)) END"


def time_sql(value: str, number: str, found: pa.DataType, unit: Unit | None, zone: str = "UTC") -> str:
    """UTC as TIMESTAMP, to be made sane. Text with an offset is converted; without one it is a time of ``zone``.

    Without a unit a number counts from 1970 in seconds, milliseconds, microseconds or nanoseconds, whichever puts it
    nearest to the present: the four ranges do not meet between 1973 and 5138.
    """
    if _is_time(found):
        taken = f"TRY_CAST({value} AS TIMESTAMP)"
        return taken if getattr(found, "tz", None) else _from_zone(taken, zone)
    text = f"upper({_text(value, found)})"
    written = f"CAST(TRY_CAST({text} AS TIMESTAMPTZ) AS TIMESTAMP)"
    if zone != "UTC":
        local = _from_zone(f"TRY_CAST({text} AS TIMESTAMP)", zone)
        written = f"CASE WHEN regexp_matches({text}, '{_HAS_OFFSET}') THEN {written} ELSE {local} END"
    compact = f"CAST(TRY_STRPTIME({text}, {_COMPACT}) AS TIMESTAMP)"
    iso = f"coalesce({written}, {compact})"
    if unit == "iso":
        return iso
    micros = _micros(number, unit)
    in_range = f"{micros} BETWEEN {_FIRST_MICROSECOND} AND {_LAST_MICROSECOND}"
    epoch = f"CASE WHEN {in_range} THEN make_timestamp(CAST({micros} AS BIGINT)) END"
    return epoch if unit else f"CASE WHEN {number} IS NULL THEN {iso} ELSE {epoch} END"


def _from_zone(local: str, zone: str) -> str:
    """A time of ``zone`` in UTC."""
    return local if zone == "UTC" else f"CAST(timezone('{zone}', {local}) AS TIMESTAMP)"


def span_sql(start: str, end: str, unit: Unit | None) -> str:
    """From one TIMESTAMP to another in ``unit`` (milliseconds without one), as a double."""
    return f"(epoch_us({end}) - epoch_us({start})) / {'1000000.0' if unit == 's' else '1000.0'}"


def sum_sql(texts: Sequence[str]) -> str:
    """The sum of the numbers that are there, as text; null when there is none, NaN when one is no number."""
    terms = [
        f"CASE WHEN {text} IS NULL THEN 0 ELSE coalesce(TRY_CAST({text} AS DOUBLE), 'nan'::DOUBLE) END"
        for text in texts
    ]
    total = " + ".join(terms)
    whole = (
        f"CASE WHEN abs({total}) < 1e15 AND ({total}) = floor({total}) THEN CAST(CAST({total} AS BIGINT) AS VARCHAR)"
    )
    return f"CASE WHEN coalesce({', '.join(texts)}) IS NOT NULL THEN {whole} ELSE CAST({total} AS VARCHAR) END END"


def sane_time_sql(time: str) -> str:
    """Infinite times, and years without four digits, are no times."""
    sane = f"{time} BETWEEN {_time_literal(EARLIEST_SANE)} AND {_time_literal(LATEST_SANE)}"
    return f"CASE WHEN {sane} THEN {time} END"


def _time_literal(time: datetime) -> str:
    return f"TIMESTAMP '{time:%Y-%m-%d %H:%M:%S.%f}'"


def _is_time(found: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(found) or pa.types.is_date(found))


def _text(value: str, found: pa.DataType) -> str:
    return value if pa.types.is_string(found) else f"CAST({value} AS VARCHAR)"


def _micros(count: str, unit: Unit | None) -> str:
    if unit:
        return f"floor({count} * {_PER_UNIT[unit]})"
    size = f"abs({count})"
    return (
        f"CASE WHEN {size} < 100000000000 THEN {_micros(count, 's')}"
        f" WHEN {size} < 100000000000000 THEN {_micros(count, 'ms')}"
        f" WHEN {size} < 100000000000000000 THEN {_micros(count, 'us')}"
        f" ELSE {_micros(count, 'ns')} END"
    )


def attributes_sql(text: str) -> str:
    """A JSON object as text; anything else is kept as ``{"text": ...}``."""
    is_object = f"json_valid({text}) AND ltrim({text}, {_BLANKS})[1] = '{{'"
    return (
        f"CASE WHEN {text} IS NULL THEN NULL WHEN {is_object} THEN {text}"
        f" ELSE CAST(json_object('text', {text}) AS VARCHAR) END"
    )
