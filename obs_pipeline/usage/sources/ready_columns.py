"""Columns of a file that already are what the event wants, taken over without a detour through the engine.

Here: which Arrow columns can be handed on as they are (or by a cast that cannot change a value), and how. A column that needs a
decision about any of its values is left to ``values``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.usage.event import EVENT_TYPES, MONEY, TIME
from obs_pipeline.usage.sources.mapping import Kind, Unit
from obs_pipeline.usage.sources.values import EARLIEST_SANE, LATEST_SANE

_BLANKS: Final = " \t\r\n"
_DISTINCT_ATTRIBUTES: Final = 1_000
"""A block with more different attributes than this leaves them to the engine."""


def ready_column(field: str, kind: Kind, unit: Unit | None, column: pa.Array) -> pa.Array | None:
    """``column`` as the canonical field, or None when its values have to be looked at one by one."""
    if field == "event_type":
        return _event_types(column)
    return _BY_KIND[kind](column, unit)


def _texts(column: pa.Array, unit: Unit | None) -> pa.Array | None:
    if pa.types.is_dictionary(column.type):
        return None if _any_blank(column.dictionary) else column.cast(pa.string())
    if not pa.types.is_string(column.type):
        return pa.nulls(len(column), pa.string()) if column.null_count == len(column) else None
    return None if _any_blank(column) else column


def _any_blank(texts: pa.Array) -> bool:
    """An empty text, or one of nothing but white space."""
    suspects = texts.filter(pc.or_(pc.equal(pc.binary_length(texts), 0), pc.utf8_is_space(texts)))
    return bool(pc.any(pc.equal(pc.utf8_trim(suspects, _BLANKS), "")).as_py())


def _event_types(column: pa.Array) -> pa.Array | None:
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    if column.null_count or not pa.types.is_string(texts.type):
        return None
    known = pc.all(pc.is_in(texts, value_set=pa.array(EVENT_TYPES))).as_py()
    return column.cast(pa.string()) if known else None


def _times(column: pa.Array, unit: Unit | None) -> pa.Array | None:
    if not pa.types.is_timestamp(column.type):
        return None
    times = column if column.type == TIME else _cast(column, pc.CastOptions(TIME, allow_time_truncate=True))
    return times if times is not None and _are_sane(times) else None


def _are_sane(times: pa.Array) -> bool:
    reach = pc.min_max(times)
    too_early = pc.less(reach["min"], pa.scalar(EARLIEST_SANE, TIME)).as_py()
    too_late = pc.greater(reach["max"], pa.scalar(LATEST_SANE, TIME)).as_py()
    return not (too_early or too_late)


def _counts(column: pa.Array, unit: Unit | None) -> pa.Array | None:
    if pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        return _cast(column, pc.CastOptions(pa.int64()))
    return None


def _money(column: pa.Array, unit: Unit | None) -> pa.Array | None:
    if column.type == MONEY and unit in (None, "usd"):
        return column
    return None


def _durations(column: pa.Array, unit: Unit | None) -> pa.Array | None:
    if unit == "s":
        return None
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return _cast(column, pc.CastOptions(pa.float64(), allow_float_truncate=True, allow_int_overflow=True))
    return None


def _attributes(column: pa.Array, unit: Unit | None) -> pa.Array | None:
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.string())
    if not pa.types.is_dictionary(column.type) or len(column.dictionary) > _DISTINCT_ATTRIBUTES:
        return None
    fine = all(_is_json_object(text) for text in column.dictionary.to_pylist())
    return column.cast(pa.string()) if fine else None


def _is_json_object(text: str) -> bool:
    try:
        return text.lstrip(_BLANKS).startswith("{") and isinstance(json.loads(text, parse_constant=_no_json), dict)
    except (ValueError, RecursionError):
        return False


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _cast(column: pa.Array, options: pc.CastOptions) -> pa.Array | None:
    try:
        return pc.cast(column, options=options)
    except pa.ArrowInvalid:
        return None


_BY_KIND: Final[dict[Kind, Callable[[pa.Array, Unit | None], pa.Array | None]]] = {
    "text": _texts,
    "time": _times,
    "count": _counts,
    "money": _money,
    "duration": _durations,
    "attributes": _attributes,
}
