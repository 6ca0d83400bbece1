"""The rules: which one decides, and what its sentence says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.usage.event import TOKEN_COLUMNS
from obs_pipeline.usage.quality import (
    MOST_TOKENS,
    REASONS,
    Judged,
    detail_sql,
    reason_sql,
    row_rules,
    verdict_sql,
)

NOW = datetime(2026, 6, 1)
NOON = {"event_time": "2026-05-01T12:00:00"}
FIELDS = ("event_type", *TOKEN_COLUMNS, "reported_cost", "latency_ms", "ttft_ms")
DURATIONS = ("latency_ms", "ttft_ms")


def judged(name: str, number: str = "NULL", value: str | None = None) -> Judged:
    return Judged(label=name, written=name, value=value or name, number=number)


def rules(now: datetime = NOW):
    return row_rules(
        now=now,
        time=judged("event_time", value="TRY_CAST(event_time AS TIMESTAMP)"),
        event_type=judged("event_type", value="coalesce(event_type, 'usage')"),
        tokens={
            name: judged(name, f"TRY_CAST({name} AS DOUBLE)", f"TRY_CAST({name} AS BIGINT)") for name in TOKEN_COLUMNS
        },
        cost=judged("reported_cost", "TRY_CAST(reported_cost AS DOUBLE)", "TRY_CAST(reported_cost AS DECIMAL(18, 9))"),
        durations=[judged(name, f"TRY_CAST({name} AS DOUBLE)") for name in DURATIONS],
    )


def verdicts(rows: list[dict[str, Any]], now: datetime = NOW) -> list[tuple[str | None, str | None]]:
    """The reason and the sentence for rows of these fields; an event at noon without anything else is good."""
    found = rules(now)
    texts = {
        name: pa.array([None if row.get(name) is None else str(row[name]) for row in rows], pa.string())
        for name in ("event_time", *FIELDS)
    }
    with duckdb.connect() as connection:
        connection.register("given", pa.table({"place": range(len(rows)), **texts}))
        judged_rows = f"SELECT *, {verdict_sql(found)} AS verdict FROM given ORDER BY place"
        told = f"SELECT {reason_sql(found, 'verdict')}, {detail_sql(found, 'verdict')} FROM ({judged_rows})"
        return connection.sql(told).fetchall()


def verdict(now: datetime = NOW, **fields: Any) -> tuple[str | None, str | None]:
    return verdicts([NOON | fields], now)[0]


def test_an_event_with_nothing_but_a_time_is_good():
    assert verdict() == (None, None)


@pytest.mark.parametrize(
    ("fields", "reason", "sentence"),
    [
        ({"event_time": None}, "missing_time", "event_time is missing or blank"),
        ({"event_time": "soon"}, "bad_time", "event_time is soon; that is not a time"),
        (
            {"event_time": "2019-12-31 23:59:59"},
            "time_before_2020",
            "event_time is 2019-12-31 23:59:59; read as 2019-12-31 23:59:59 UTC, before 2020",
        ),
        (
            {"event_time": "2026-06-02 00:00:01"},
            "time_in_future",
            "event_time is 2026-06-02 00:00:01; read as 2026-06-02 00:00:01 UTC, more than a day ahead",
        ),
        (
            {"event_type": "gift"},
            "unknown_event_type",
            "event_type is gift; it must be one of usage, credit, correction",
        ),
        ({"input_tokens": "NaN"}, "non_finite", "input_tokens is NaN; a number must be finite"),
        ({"saved_tokens": "inf"}, "non_finite", "saved_tokens is inf; a number must be finite"),
        ({"latency_ms": "-Infinity"}, "non_finite", "latency_ms is -Infinity; a number must be finite"),
        ({"output_tokens": "abc"}, "bad_type", "output_tokens is abc; that is not a number"),
        ({"output_tokens": "12.5"}, "bad_type", "output_tokens is 12.5; a token count is a whole number"),
        ({"reported_cost": "$3"}, "bad_type", "reported_cost is $3; that is not a number"),
        ({"saved_tokens": "-1"}, "negative_tokens", "saved_tokens is -1; a count cannot be negative"),
        ({"input_tokens": "1e15"}, "tokens_too_large", "input_tokens is 1e15; the most is 1,000,000,000,000"),
        (
            {"reported_cost": "-1"},
            "negative_cost",
            "reported_cost is -1; only a credit or a correction may be negative",
        ),
        ({"reported_cost": "1e12"}, "cost_too_large", "reported_cost is 1e12; the most is 999,999,999 dollars"),
        ({"ttft_ms": "-0.5"}, "negative_latency", "ttft_ms is -0.5; a duration cannot be negative"),
        (
            {"input_tokens": "10", "cache_read_tokens": "6", "cache_write_tokens": "5"},
            "parts_exceed_whole",
            "input_tokens is 10; its parts (cache_read_tokens and cache_write_tokens) come to 11",
        ),
        (
            {"output_tokens": "10", "reasoning_tokens": "11"},
            "parts_exceed_whole",
            "output_tokens is 10; its parts (reasoning_tokens) come to 11",
        ),
    ],
)
def test_an_unfit_row_has_its_reason_and_a_sentence_with_field_and_value(
    fields: dict[str, Any], reason: str, sentence: str
):
    assert verdict(**fields) == (reason, sentence)


@pytest.mark.parametrize(
    "fields",
    [
        {"event_time": "2020-01-01"},
        {"event_time": "2026-06-02"},
        {"input_tokens": "0"},
        {"input_tokens": str(MOST_TOKENS)},
        {"input_tokens": "12.0"},
        {"reported_cost": "0"},
        {"reported_cost": "999999999.999999999"},
        {"event_type": "credit", "reported_cost": "-5"},
        {"event_type": "correction", "reported_cost": "-5"},
        {"latency_ms": "0"},
        {"input_tokens": "10", "cache_read_tokens": "4", "cache_write_tokens": "6"},
        {"cache_read_tokens": "4"},
        {"reasoning_tokens": "4"},
        {"output_tokens": "4", "reasoning_tokens": "4"},
    ],
)
def test_the_edge_of_what_is_allowed_is_allowed(fields: dict[str, Any]):
    assert verdict(**fields) == (None, None)


def test_the_first_rule_that_holds_decides():
    assert verdict(event_time=None, input_tokens="-1")[0] == "missing_time"
    assert verdict(event_type="gift", reported_cost="-1")[0] == "unknown_event_type"
    assert verdict(input_tokens="-1", cache_read_tokens="5")[0] == "negative_tokens"


def test_an_aware_now_is_taken_as_its_utc():
    berlin = timezone(timedelta(hours=2))
    late = "2026-06-02 00:30:00"
    assert verdict(datetime(2026, 6, 1, 1, tzinfo=UTC), event_time=late)[0] is None
    assert verdict(datetime(2026, 6, 1, 1, tzinfo=berlin), event_time=late)[0] == "time_in_future"


def test_a_long_value_is_cut_in_the_sentence():
    _, detail = verdict(input_tokens="x" * 5000)
    assert detail is not None
    assert len(detail) < 150


def test_a_quote_in_a_value_or_a_name_is_only_text():
    assert verdict(input_tokens="it's")[1] == "input_tokens is it's; that is not a number"
    field = Judged(label="input_tokens (from it's)", written="'x'", value="NULL", number="NULL")
    found = row_rules(now=NOW, time=None, tokens={"input_tokens": field})
    with duckdb.connect() as connection:
        assert connection.sql(f"SELECT {detail_sql(found[1:], '1')}").fetchall() == [
            ("input_tokens (from it's) is x; that is not a number",)
        ]


def test_a_source_without_time_makes_every_row_unfit():
    found = row_rules(now=NOW, time=None)
    assert [rule.reason for rule in found] == ["missing_time"]


def test_fields_that_a_source_does_not_have_are_not_asked_about():
    found = row_rules(
        now=NOW, time=judged("t"), tokens={"cache_read_tokens": judged("c"), "output_tokens": judged("o")}
    )
    assert not [rule for rule in found if rule.reason == "parts_exceed_whole"]
    assert "reported_cost" not in verdict_sql(found)


def test_every_reason_of_a_rule_is_in_the_catalogue_with_advice():
    assert {rule.reason for rule in rules()} <= REASONS.keys()
    assert all(advice.endswith(".") and len(advice) > 30 for advice in REASONS.values())


NUMBER = st.one_of(
    st.none(), st.integers(-10, 50).map(str), st.floats(-5, 5).map(repr), st.sampled_from(["nan", "x", "1e13", "7.0"])
)


def expected(row: dict[str, str | None]) -> str | None:
    """The rules once more, as one would explain them."""

    def number(name: str) -> float | None:
        try:
            return float(row[name] or "none")
        except ValueError:
            return None

    for name in (*TOKEN_COLUMNS, "reported_cost", *DURATIONS):
        if row[name] is not None and number(name) is None:
            return "bad_type"
        if row[name] == "nan":
            return "non_finite"
    for name in TOKEN_COLUMNS:
        count = number(name)
        if count is not None:
            if count < 0:
                return "negative_tokens"
            if count != int(count):
                return "bad_type"
            if count > MOST_TOKENS:
                return "tokens_too_large"
    if (number("reported_cost") or 0) < 0 and row["event_type"] != "credit":
        return "negative_cost"
    if abs(number("reported_cost") or 0) >= 10**9:
        return "cost_too_large"
    if any((number(name) or 0) < 0 for name in DURATIONS):
        return "negative_latency"
    whole, written = number("input_tokens"), number("output_tokens")
    if whole is not None and (number("cache_read_tokens") or 0) + (number("cache_write_tokens") or 0) > whole:
        return "parts_exceed_whole"
    if written is not None and (number("reasoning_tokens") or 0) > written:
        return "parts_exceed_whole"
    return None


ROW = st.fixed_dictionaries(
    {"event_type": st.sampled_from([None, "credit"])} | {name: NUMBER for name in FIELDS if name != "event_type"}
)


@settings(max_examples=20)
@given(st.lists(ROW, min_size=10, max_size=40))
def test_the_rules_say_what_one_would_expect_of_any_numbers(rows: list[dict[str, str | None]]):
    assert [reason for reason, _ in verdicts([NOON | row for row in rows])] == [expected(row) for row in rows]
