"""Calls that two sources report: counted once where an id proves it, told where it is only likely, never within one source."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.settling import leaks, settle
from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline.usage.tables import USAGE_EVENTS, USAGE_REJECTED, USAGE_TWINS
from obs_pipeline.usage.twins import build_twins, near_twins, twin_lines
from obs_pipeline_tests.usage.receiving.requests import TRACE, as_json, of_spans, span

NOON = datetime(2026, 5, 1, 12)
NOW = datetime(2026, 6, 1)
DAYS = DayRange(date(2026, 4, 30), date(2026, 5, 3))
BOOK = PriceBook.load(None)


def gateway(call: str, response: str | None, at: datetime = NOON, spend: float = 0.25, **more: Any) -> dict[str, Any]:
    """A row of LiteLLM's table."""
    row = {
        "litellm_call_id": call, "request_id": response, "call_type": "acompletion", "spend": spend,
        "prompt_tokens": 1200, "completion_tokens": 80, "startTime": at.isoformat(),
        "endTime": (at + timedelta(seconds=1)).isoformat(), "model": "openai/gpt-4o", "custom_llm_provider": "openai",
        "agent_id": "triage", "organization_id": "acme", "status": "success",
    }  # fmt: skip
    return {**row, **more}


def client(
    number: int, response: str | None, at: datetime = NOON, org: str | None = "acme", agent: str = "triage"
) -> Any:
    """A span of a client library, of a trace of its own."""
    start = int((at - datetime(1970, 1, 1)).total_seconds() * 1_000) * 1_000_000
    named = {"gen_ai.response.id": response} if response else {}
    resource = {"organization.id": org} if org else {}
    trace = f"{number:032x}"
    return of_spans(span(number, trace=trace, start=start, **{"gen_ai.agent.name": agent}, **named), **resource)


class Bench:
    """A lake of its own to land in."""

    def __init__(self, folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.folder, self.connection = folder, connection
        self.lake, self.ledger = Lake(str(folder / "lake")), Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self._numbers = itertools.count()
        self.landing = Landing(self.lake, self.ledger, BOOK, connection, folder / "scratch", date(2020, 1, 1))

    def land(self, mapping: str, *rows: dict[str, Any]) -> None:
        path = self.folder / f"{next(self._numbers)}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.landing.land(path, load_mapping(mapping), now=NOW)

    def settle(self, days: DayRange = DAYS) -> int:
        return settle(self.connection, self.lake, days, BOOK, 0.05).same_calls

    def events(self) -> list[tuple[str, str]]:
        self.lake.view(self.connection, USAGE_EVENTS)
        query = "SELECT source, event_id FROM usage_events ORDER BY ALL"
        return self.connection.execute(query).fetchall()

    def rejected(self) -> list[dict[str, Any]]:
        self.lake.view(self.connection, USAGE_REJECTED)
        return self.connection.sql("SELECT * FROM usage_rejected ORDER BY event_id").to_arrow_table().to_pylist()

    def twins(self, *spans: DayRange) -> list[dict[str, Any]]:
        for days in spans or (DAYS,):
            build_twins(self.connection, self.lake, days)
        self.lake.view(self.connection, USAGE_TWINS)
        return self.connection.sql("SELECT * FROM usage_twins ORDER BY event_id").to_arrow_table().to_pylist()

    def lost(self) -> list[Any]:
        return leaks(self.connection, self.lake, DAYS, self.ledger.landed((DAYS.first, DAYS.last)))


@pytest.fixture
def bench(tmp_path: Path, connection: duckdb.DuckDBPyConnection) -> Iterator[Bench]:
    made = Bench(tmp_path, connection)
    yield made
    made.ledger.close()


def test_a_call_seen_by_gateway_and_client_is_counted_once_with_what_the_gateway_charged(bench: Bench):
    bench.land("otlp", client(1, "chatcmpl-1"))
    bench.land("litellm", gateway("call-1", "chatcmpl-1", NOON + timedelta(milliseconds=40)))
    assert bench.settle() == 1
    assert bench.events() == [("litellm", "call-1")]
    (told,) = bench.rejected()
    assert (told["reason"], told["source"]) == ("counted_already", "otlp")
    assert "litellm" in told["detail"]
    assert "call-1" in told["detail"]
    (pair,) = bench.twins()
    assert (pair["kind"], pair["org"], pair["counted_source"]) == ("same call", "acme", "litellm")
    assert pair["counted_cost"] == Decimal("0.25")
    assert pair["cost"] == Decimal(1200) * Decimal("2.5") / 10**6 + Decimal(80) * 10 / 10**6
    assert bench.lost() == []


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_which_one_counts_does_not_depend_on_the_order_of_landing_nor_on_settling_in_between(
    bench: Bench, order: tuple[int, ...]
):
    helicone = {
        "request_id": "h-1", "response_id": "chatcmpl-1", "request_created_at": NOON.isoformat(), "organization_id": "acme",
        "model": "gpt-4o", "provider": "OPENAI", "prompt_tokens": 1200, "completion_tokens": 80, "status": 200, "cost": 0,
    }  # fmt: skip
    landings: list[Callable[[], None]] = [
        lambda: bench.land("otlp", client(1, "chatcmpl-1")),
        lambda: bench.land("litellm", gateway("call-1", "chatcmpl-1")),
        lambda: bench.land("helicone", helicone),
    ]
    for place in order:
        landings[place]()
        bench.settle()
    assert bench.events() == [("litellm", "call-1")]
    assert {row["source"] for row in bench.rejected()} == {"otlp", "helicone"}
    assert bench.settle() == 0
    assert bench.lost() == []


def test_two_equal_calls_of_one_source_are_two_calls(bench: Bench):
    bench.land("litellm", gateway("a", "chatcmpl-1"), gateway("b", "chatcmpl-1", NOON + timedelta(seconds=1)))
    bench.land("litellm", gateway("c", None), gateway("d", None))
    assert bench.settle() == 0
    assert len(bench.events()) == 4
    assert bench.twins() == []


def test_equal_calls_of_one_source_stay_two_when_another_source_is_alive(bench: Bench):
    bench.land("litellm", gateway("c", None), gateway("d", None, NOON + timedelta(seconds=1)))
    bench.land("otlp", client(1, None, NOON + timedelta(hours=3)))
    bench.settle()
    assert len(bench.events()) == 3
    assert bench.twins() == []


def test_an_answer_of_a_cache_is_another_call_though_it_has_the_id_again(bench: Bench):
    later = NOON + timedelta(minutes=5)
    bench.land("litellm", gateway("a", "chatcmpl-1"), gateway("b", "chatcmpl-1", later, cache_hit="True", spend=0.0))
    bench.land("otlp", client(1, "chatcmpl-1"), client(2, "chatcmpl-1", later))
    assert bench.settle() == 2
    assert bench.events() == [("litellm", "a"), ("litellm", "b")]


def test_other_organisations_cannot_take_a_call_away(bench: Bench):
    bench.land("litellm", gateway("a", "chatcmpl-1", organization_id="globex"))
    bench.land("otlp", client(1, "chatcmpl-1"))
    assert bench.settle() == 0
    assert len(bench.events()) == 2
    assert bench.twins() == []


def test_a_gateway_that_knows_no_organisation_reports_the_calls_of_one_that_does(bench: Bench):
    bench.land("litellm", gateway("a", "chatcmpl-1", organization_id=None))
    bench.land("otlp", client(1, "chatcmpl-1"))
    assert bench.settle() == 1


def test_an_id_that_comes_again_hours_later_is_no_proof(bench: Bench):
    bench.land("litellm", gateway("a", "chatcmpl-1"))
    bench.land("otlp", client(1, "chatcmpl-1", NOON + timedelta(hours=2)))
    assert bench.settle() == 0


@pytest.mark.parametrize("together", [True, False], ids=["days at once", "one by one"])
def test_at_midnight_the_row_of_the_earlier_day_counts(bench: Bench, together: bool):
    bench.land("otlp", client(1, "chatcmpl-1", datetime(2026, 5, 1, 23, 59, 59, 900_000)))
    bench.land("litellm", gateway("call-1", "chatcmpl-1", datetime(2026, 5, 2, 0, 0, 0, 100_000)))
    spans = [DAYS] if together else [DayRange(day, day) for day in DAYS.days()]
    assert sum(bench.settle(days) for days in spans) == 1
    assert [source for source, _ in bench.events()] == ["otlp"]


def test_calls_that_are_alike_within_seconds_are_told_with_their_cost_and_both_count(bench: Bench):
    bench.land("otlp", client(1, None))
    bench.land("litellm", gateway("call-1", "chatcmpl-1", NOON + timedelta(seconds=4), model="azure/gpt-4o-2024-08-06"))
    assert bench.settle() == 0
    assert len(bench.events()) == 2
    (pair,) = bench.twins()
    assert (pair["kind"], pair["source"], pair["counted_event_id"]) == ("near twin", "otlp", "call-1")
    assert (pair["cost"], pair["counted_cost"]) == (Decimal("0.0038"), Decimal("0.25"))


@pytest.mark.parametrize(
    "other",
    [
        gateway("x", None, NOON + timedelta(seconds=6)),
        gateway("x", None, prompt_tokens=1201),
        gateway("x", None, completion_tokens=81),
        gateway("x", None, model="openai/gpt-4o-mini"),
        gateway("x", None, agent_id="writer"),
        gateway("x", None, organization_id="globex"),
        gateway("x", "chatcmpl-2"),
        gateway("x", None, NOON + timedelta(days=1)),
    ],
    ids=[
        "later",
        "other input",
        "other output",
        "other model",
        "other agent",
        "other organisation",
        "other id",
        "other day",
    ],
)
def test_calls_that_differ_are_no_twins(bench: Bench, other: dict[str, Any]):
    bench.land("otlp", client(1, "chatcmpl-1" if other["request_id"] else None))
    bench.land("litellm", other)
    bench.settle()
    assert bench.twins() == []


def test_of_many_alike_each_is_paired_with_one(bench: Bench):
    seconds = range(6)
    bench.land("otlp", *(client(n + 1, None, NOON + timedelta(seconds=n)) for n in seconds))
    bench.land(
        "litellm", *(gateway(f"c{n}", None, NOON + timedelta(seconds=n, milliseconds=200)) for n in seconds if n != 2)
    )
    bench.settle()
    pairs = bench.twins()
    assert len(pairs) == 5
    assert len({pair["counted_event_id"] for pair in pairs}) == 5


MIDNIGHT = datetime(2026, 5, 2)
EACH_DAY = [DayRange(day, day) for day in DAYS.days()]


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


@pytest.mark.parametrize("spans", [[DAYS], EACH_DAY, [DAYS, *EACH_DAY]], ids=["together", "day by day", "and again"])
@pytest.mark.parametrize("first", ["otlp", "litellm"])
def test_calls_alike_on_both_sides_of_midnight_are_told_once_on_the_later_day(
    bench: Bench, spans: list[DayRange], first: str
):
    before, after = MIDNIGHT - seconds(1.5), MIDNIGHT + seconds(3)
    bench.land("otlp", client(1, None, before if first == "otlp" else after))
    bench.land("litellm", gateway("call-1", None, after if first == "otlp" else before))
    bench.settle()
    (pair,) = bench.twins(*spans)
    assert (pair["dt"], pair["kind"], pair["counted_source"]) == (MIDNIGHT.date(), "near twin", first)
    assert pair["cost"] == (Decimal("0.25") if first == "otlp" else Decimal("0.0038"))
    assert len(bench.events()) == 2


@pytest.mark.parametrize("spans", [[DAYS], EACH_DAY], ids=["together", "day by day"])
def test_who_has_a_twin_on_its_own_day_is_not_given_another_across_midnight(bench: Bench, spans: list[DayRange]):
    bench.land("otlp", client(1, None, MIDNIGHT - seconds(2)), client(2, None, MIDNIGHT + seconds(1)))
    bench.land("litellm", gateway("a", None, MIDNIGHT - seconds(1.9)), gateway("b", None, MIDNIGHT + seconds(1.1)))
    bench.land("litellm", gateway("c", None, MIDNIGHT + seconds(2.5)))
    bench.settle()
    assert [(pair["dt"], pair["counted_event_id"]) for pair in bench.twins(*spans)] == [
        (date(2026, 5, 1), "a"),
        (date(2026, 5, 2), "b"),
    ]


def test_several_alike_are_paired_across_midnight_one_with_one(bench: Bench):
    bench.land("otlp", *(client(n, None, MIDNIGHT - seconds(n / 4)) for n in range(1, 4)))
    bench.land("litellm", *(gateway(f"c{n}", None, MIDNIGHT + seconds(n / 4)) for n in range(2)))
    bench.settle()
    pairs = bench.twins()
    assert len(pairs) == len({pair["counted_event_id"] for pair in pairs}) == 2


@pytest.mark.parametrize(
    "other",
    [
        gateway("x", None, MIDNIGHT + seconds(4.5)),
        gateway("x", None, MIDNIGHT + seconds(1), prompt_tokens=1201),
        gateway("x", None, MIDNIGHT + seconds(1), agent_id="writer"),
        gateway("x", None, MIDNIGHT + seconds(1), organization_id="globex"),
        gateway("x", "chatcmpl-2", MIDNIGHT + seconds(1)),
    ],
    ids=["later", "other input", "other agent", "other organisation", "other id"],
)
def test_calls_that_differ_are_no_twins_across_midnight_either(bench: Bench, other: dict[str, Any]):
    bench.land("otlp", client(1, "chatcmpl-1" if other["request_id"] else None, MIDNIGHT - seconds(1)))
    bench.land("litellm", other)
    bench.settle()
    assert bench.twins() == []


def test_the_double_span_of_library_and_instrumentor_is_one_call_wherever_the_spans_landed(bench: Bench):
    named = {"gen_ai.response.id": "msg_1"}
    library, instrumentor = span(1, trace=TRACE, **named), span(2, trace=TRACE, **named)
    for one in (library, instrumentor):
        body = json.loads(as_json(of_spans(one, **{"organization.id": "acme"})))
        bench.land("otlp", body)
    settle(bench.connection, bench.lake, DayRange(date(2026, 2, 1), date(2026, 2, 3)), BOOK, 0.05)
    assert len(bench.events()) == 1


def test_where_one_source_is_alive_nothing_is_searched(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    bench.land("litellm", gateway("a", "chatcmpl-1"))
    monkeypatch.setattr("obs_pipeline.usage.twins._NAMED", "SELECT broken")
    assert bench.settle() == 0


@settings(
    max_examples=4,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["litellm", "otlp"]), st.integers(0, 3), st.integers(0, 50), st.booleans()),
        max_size=7,
    ),
    landed_in=st.randoms(use_true_random=False),
)
def test_in_whatever_order_rows_come_each_is_accounted_for_and_as_many_calls_count(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int, int, bool]], landed_in: Any
):
    ends = []
    for _ in range(2):
        shuffled = list(enumerate(calls))
        landed_in.shuffle(shuffled)
        with engine.connect() as connection:
            bench = Bench(tmp_path_factory.mktemp("twins"), connection)
            for number, (source, response, minute, settles) in shuffled:
                at, named = NOON + timedelta(minutes=minute, milliseconds=number), f"chatcmpl-{response}"
                row = gateway(f"c{number}", named, at) if source == "litellm" else client(number + 1, named, at)
                bench.land(source, row)
                if settles:
                    bench.settle()
            bench.settle()
            assert bench.lost() == []
            ends.append(len(bench.events()))
            bench.ledger.close()
    by_source = Counter((response, source) for source, response, _, _ in calls)
    truth = sum(max(by_source[response, source] for source in ("litellm", "otlp")) for response in range(4))
    assert ends == [truth, truth]


def test_the_report_says_what_is_counted_once_and_what_perhaps_twice(bench: Bench):
    bench.land("otlp", client(1, "chatcmpl-1"), client(2, None, NOON + timedelta(minutes=1)))
    bench.land("litellm", gateway("a", "chatcmpl-1"), gateway("b", None, NOON + timedelta(minutes=1)))
    bench.settle()
    build_twins(bench.connection, bench.lake, DAYS)
    lines = twin_lines(bench.connection, bench.lake)
    told = [(line.kind, line.org, line.source, line.counted_source, line.calls, line.cost) for line in lines]
    cost = Decimal("0.0038")
    assert told == [
        ("near twin", "acme", "otlp", "litellm", 1, cost),
        ("same call", "acme", "otlp", "litellm", 1, cost),
    ]
    assert twin_lines(bench.connection, bench.lake, org="globex") == []
    assert near_twins(bench.connection, bench.lake, DAYS).offences == 1
