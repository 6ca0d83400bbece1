"""What makes a row of usage unfit, and what to tell the person who sent it.

Here: the reason codes with their advice, and the rules as SQL conditions over one row. A rule knows the names under
which a field is judged, not where the field came from. No reading of files, no conversion of values, no execution.

Every rule is a condition and a sentence. The first rule that holds decides; its sentence names the field and the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from obs_pipeline.usage.event import EVENT_TYPES

EARLIEST: Final = datetime(2020, 1, 1)
AHEAD: Final = timedelta(days=1)
MOST_TOKENS: Final = 1_000_000_000_000
SHOWN_CHARACTERS: Final = 60

REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unreadable_file": "The file, or a part of it, cannot be read. Send it again, or convert it to one of the formats taken.",
        "no_mapped_column": "None of the mapped columns is in the file. Choose the mapping of its source, or mend the delimiter.",
        "truncated_file": "The file ends in the middle. Everything before the break is in; send the whole file again.",
        "bad_encoding": "The text is not UTF-8. Save the file as UTF-8 and send it again.",
        "line_too_long": "One line is longer than the limit. Send usage only, without prompts and answers, or raise the limit.",
        "bad_json": "The line is not JSON. Write one complete JSON object per line.",
        "not_an_object": "The line is JSON, but not an object. Write one JSON object per line, without a list around them.",
        "bad_csv": "The record does not match the header. Quote fields that hold the delimiter, a quote or a line break.",
        "not_usage": "The mapping's filter leaves this row out. Nothing to do, unless the row is usage: then mend the filter.",
        "counted_already": "Another record is the same call, by the response id of the provider, and is counted.",
        "missing_time": "The row says no time. Map event_time to the column that holds it, or fill it in.",
        "bad_time": "The time cannot be read. Write ISO 8601, or a number since 1970 with its unit in the mapping.",
        "time_before_2020": "The time is before 2020. Check the unit in the mapping (s, ms, us, ns) and the sender's clock.",
        "time_in_future": "The time is more than a day ahead. Check the unit in the mapping and the sender's clock.",
        "unknown_event_type": f"The event type is none of {', '.join(EVENT_TYPES)}. Leave it out for ordinary usage.",
        "non_finite": "A number is NaN or infinite. Leave the field out when the value is not known.",
        "bad_type": "A value is not the number it should be. Write plain numbers; tokens are whole.",
        "negative_tokens": "A token count is below zero. Send a correction as a negative cost on an event of that type.",
        "tokens_too_large": f"A token count is above {MOST_TOKENS:,}. Check the column in the mapping.",
        "negative_cost": "The cost is below zero on ordinary usage. Set event_type to credit or correction if it is meant.",
        "cost_too_large": "The cost is above 999,999,999 dollars. Check the unit in the mapping (usd, cents, micro_usd).",
        "no_currency_rate": "The currency of the cost has no rate on its day. Add it to currencies.yaml and land the file again.",
        "negative_latency": "A duration is below zero. Check the sender's clock.",
        "parts_exceed_whole": "The parts of a token count are larger than the whole. If the source counts input without "
        "its cache reads and writes, set tokens: exclusive in the mapping.",
    }
)
"""Every reason a row can be rejected for, with what to do about it."""


@dataclass(frozen=True)
class Judged:
    """How the rules refer to one field of a row: SQL over the row, and the name a reader knows.

    ``written`` is the value as the source has it (null when absent or blank), ``number`` the same as a number (null
    when it is none), ``value`` the canonical value (null when it does not convert). ``integer`` says that the source's
    own type cannot hold a fraction, NaN or infinity, which saves those questions.
    """

    label: str
    written: str
    value: str
    number: str = "NULL"
    integer: bool = False


@dataclass(frozen=True)
class Rule:
    """``condition`` is SQL that holds for an unfit row; ``sentence`` is SQL for the text that explains it."""

    reason: str
    condition: str
    sentence: str


def sql_text(text: str) -> str:
    """``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def sql_time(moment: datetime) -> str:
    """``moment`` as an SQL timestamp literal in UTC; a naive moment is UTC."""
    utc = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return f"TIMESTAMP '{utc.isoformat(sep=' ')}'"


def row_rules(
    *,
    now: datetime,
    time: Judged | None,
    event_type: Judged | None = None,
    tokens: Mapping[str, Judged] = MappingProxyType({}),
    cost: Judged | None = None,
    currency: Judged | None = None,
    durations: Sequence[Judged] = (),
) -> tuple[Rule, ...]:
    """The rules for a row whose source has these fields, in the order in which they decide.

    ``tokens`` is keyed by canonical column name; the value of ``currency`` is its rate. A field that the source does not
    have is left out.
    """
    numbers = [*tokens.values(), *([cost] if cost else []), *durations]
    rules = [*_time_rules(time, now)]
    if event_type:
        rules += _event_type_rules(event_type)
    for number in numbers:
        rules += _number_rules(number)
    for count in tokens.values():
        rules += _count_rules(count)
    if cost and currency:
        rules += _rate_rules(cost, currency)
    if cost:
        rules += _cost_rules(cost, event_type)
    for duration in durations:
        rules += _duration_rules(duration)
    rules += _part_rules(tokens)
    return tuple(rules)


def verdict_sql(rules: Iterable[Rule]) -> str:
    """The position of the first rule that holds for a row, or null for a good row."""
    cases = " ".join(f"WHEN {rule.condition} THEN {position}" for position, rule in enumerate(rules))
    return f"CAST(CASE {cases} END AS UTINYINT)" if cases else "CAST(NULL AS UTINYINT)"


def reason_sql(rules: Iterable[Rule], verdict: str) -> str:
    """The reason code behind a verdict."""
    return _by_verdict(verdict, (sql_text(rule.reason) for rule in rules))


def detail_sql(rules: Iterable[Rule], verdict: str) -> str:
    """The sentence behind a verdict."""
    return _by_verdict(verdict, (rule.sentence for rule in rules))


def _by_verdict(verdict: str, texts: Iterable[str]) -> str:
    cases = " ".join(f"WHEN {position} THEN {text}" for position, text in enumerate(texts))
    return f"CASE {verdict} {cases} END" if cases else "CAST(NULL AS VARCHAR)"


def says(field: Judged, complaint: str) -> str:
    """SQL for a sentence: the field, the value as it was written, the complaint."""
    shown = f"left(CAST({field.written} AS VARCHAR), {SHOWN_CHARACTERS})"
    return f"{sql_text(field.label + ' is ')} || coalesce({shown}, 'missing') || {sql_text('; ' + complaint)}"


def _time_rules(time: Judged | None, now: datetime) -> Iterator[Rule]:
    if time is None:
        yield Rule("missing_time", "TRUE", sql_text("event_time is missing: the file has no column for it"))
        return
    latest = now + AHEAD
    yield Rule("missing_time", f"{time.written} IS NULL", sql_text(f"{time.label} is missing or blank"))
    yield Rule("bad_time", f"{time.value} IS NULL", says(time, "that is not a time"))
    yield Rule(
        "time_before_2020",
        f"{time.value} < {sql_time(EARLIEST)}",
        f"{says(time, 'read as ')} || CAST({time.value} AS VARCHAR) || ' UTC, before 2020'",
    )
    yield Rule(
        "time_in_future",
        f"{time.value} > {sql_time(latest)}",
        f"{says(time, 'read as ')} || CAST({time.value} AS VARCHAR) || ' UTC, more than a day ahead'",
    )


def _event_type_rules(event_type: Judged) -> Iterator[Rule]:
    known = ", ".join(sql_text(name) for name in EVENT_TYPES)
    complaint = f"it must be one of {', '.join(EVENT_TYPES)}"
    yield Rule("unknown_event_type", f"{event_type.value} NOT IN ({known})", says(event_type, complaint))


def _number_rules(field: Judged) -> Iterator[Rule]:
    if field.integer:
        return
    yield Rule("non_finite", f"NOT isfinite({field.number})", says(field, "a number must be finite"))
    yield Rule(
        "bad_type",
        f"{field.number} IS NULL AND {field.written} IS NOT NULL",
        says(field, "that is not a number"),
    )


def _count_rules(count: Judged) -> Iterator[Rule]:
    yield Rule("negative_tokens", f"{count.number} < 0", says(count, "a count cannot be negative"))
    if not count.integer:
        yield Rule(
            "bad_type", f"{count.number} <> floor({count.number})", says(count, "a token count is a whole number")
        )
    yield Rule("tokens_too_large", f"{count.number} > {MOST_TOKENS}", says(count, f"the most is {MOST_TOKENS:,}"))


def _cost_rules(cost: Judged, event_type: Judged | None) -> Iterator[Rule]:
    ordinary = f"{event_type.value} NOT IN ('credit', 'correction')" if event_type else "TRUE"
    yield Rule(
        "negative_cost",
        f"{cost.number} < 0 AND {ordinary}",
        says(cost, "only a credit or a correction may be negative"),
    )
    yield Rule(
        "cost_too_large",
        f"{cost.value} IS NULL AND {cost.written} IS NOT NULL",
        says(cost, "the most is 999,999,999 dollars"),
    )


def _rate_rules(cost: Judged, currency: Judged) -> Iterator[Rule]:
    yield Rule(
        "no_currency_rate",
        f"{cost.number} <> 0 AND {currency.value} IS NULL",
        says(currency, "the cost is in it, and it has no rate on that day"),
    )


def _duration_rules(duration: Judged) -> Iterator[Rule]:
    yield Rule("negative_latency", f"{duration.number} < 0", says(duration, "a duration cannot be negative"))


def _part_rules(tokens: Mapping[str, Judged]) -> Iterator[Rule]:
    wholes = {
        "input_tokens": ("cache_read_tokens", "cache_write_tokens"),
        "output_tokens": ("reasoning_tokens",),
    }
    for name, part_names in wholes.items():
        whole = tokens.get(name)
        parts = [tokens[part] for part in part_names if part in tokens]
        if whole is None or not parts:
            continue
        total = " + ".join(f"coalesce({part.value}, 0)" for part in parts)
        named = " and ".join(part.label for part in parts)
        yield Rule(
            "parts_exceed_whole",
            f"{total} > {whole.value}",
            f"{says(whole, f'its parts ({named}) come to ')} || CAST({total} AS VARCHAR)",
        )
