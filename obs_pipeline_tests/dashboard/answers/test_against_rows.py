"""Answers over random small lakes, against sums made in plain Python over the rows that were put in."""

from __future__ import annotations

import csv
import io
import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import LOCAL, Principal
from obs_pipeline.dashboard.catalogue import QUESTIONS, checked_inputs
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import NotReady, Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger

Row = dict[str, Any]
LAST = date(2026, 3, 31)
PLACES = ("org", "project", "team", "agent", "provider", "model")
ODD = ("a", "b/c", "o'hara", 'say "hi"', "🚀 agent", "x" * 300, "=1+1", "100%_\\", "$first", " blank ", "-- drop", "ß")
few = settings(max_examples=12, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}")


def names(*of: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from((*of, None))


money = st.decimals(min_value=0, max_value=10**6, places=9)
count = st.integers(0, 10**9)
hours = st.builds(
    lambda **values: values,
    # Days before the longest timeframe, at its first and last days, and between.
    back=st.sampled_from((0, 1, 6, 7, 13, 29, 30, 59, 60)),
    hour=st.integers(0, 23),
    org=st.sampled_from(("acme", "globex")),
    project=names("atlas", "b/c"),
    team=names("red", "o'hara"),
    agent=names(*ODD),
    provider=names("openai"),
    model=names("m", "n"),
    calls=st.integers(1, 1000),
    errors=st.integers(0, 3),
    input_tokens=st.none() | count,
    output_tokens=st.none() | count,
    cache_read_tokens=st.none() | count,
    saved_tokens=st.none() | count,
    cost=money,
    cost_bound=st.none() | money,
    unpriced_calls=st.integers(0, 3),
)
usage = st.lists(hours, min_size=1, max_size=25, unique_by=lambda row: (row["back"], row["hour"], *place_of(row)))
principals = st.sampled_from(
    (
        LOCAL,
        Principal("a", "admin", "acme"),
        Principal("b", "admin", "acme", ("atlas",)),
        Principal("c", "admin", "none"),
    )
)


@st.composite
def filters(draw: st.DrawFn) -> Row:
    """Some of the filters, what is without a name among them."""
    given = {
        "orgId": ("acme", "globex"),
        "projectId": ("atlas", "b/c"),
        "teamId": ("red", "o'hara"),
        "agentId": ODD,
        "model": ("m", "n"),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(given)), max_size=2))
    return {name: draw(st.sampled_from((*given[name], q.UNATTRIBUTED))) for name in sorted(chosen)}


def place_of(row: Row) -> tuple[str | None, ...]:
    return tuple(row[name] for name in PLACES)


def mart_of(rows: list[Row]) -> pa.Table:
    """Both grains, as the batch makes them."""
    days: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        days[(row["back"], *place_of(row))].append(row)
    return pa.Table.from_pylist(
        [
            *(_mart_row("hour", row["hour"], [row]) for row in rows),
            *(_mart_row("day", 0, some) for some in days.values()),
        ],
        schema=MART_SPEND.schema,
    )


def _mart_row(grain: str, hour: int, rows: list[Row]) -> Row:
    day = day_of(rows[0])
    summed = {
        name: None if all(row[name] is None for row in rows) else sum(row[name] or 0 for row in rows)
        for name in rows[0]
        if name not in ("back", "hour", *PLACES)
    }
    placed = dict(zip(PLACES, place_of(rows[0]), strict=True))
    moment = datetime.combine(day, time(hour))
    return {"dt": day, "grain": grain, "time": moment, **placed, **summed, "mispriced_calls": 0}


def day_of(row: Row) -> date:
    return LAST - timedelta(days=row["back"])


@contextmanager
def asking(rows: list[Row], ledger: Ledger, principal: Principal) -> Iterator[Callable[..., Any]]:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(str(Path(folder) / "lake"))
        lake.append(MART_SPEND, mart_of(rows))
        service = Service(Snapshot(lake, threads=1), ledger, lateness=timedelta(hours=24))
        service.mark()

        def ask(name: str, **values: Any) -> Any:
            return service.answer(QUESTIONS[name], checked_inputs(QUESTIONS[name], values), principal)

        yield ask
        service.snapshot.close()


def own(rows: list[Row], principal: Principal, chosen: Row) -> list[Row]:
    columns = {"orgId": "org", "projectId": "project", "teamId": "team", "agentId": "agent", "model": "model"}
    wanted = {columns[name]: None if value == q.UNATTRIBUTED else value for name, value in chosen.items()}
    return [
        row
        for row in rows
        if principal.sees(row["org"], row["project"]) and all(row[name] == value for name, value in wanted.items())
    ]


def within(rows: list[Row], days: int, end: date, *, before: bool = False) -> list[Row]:
    last = end - timedelta(days=days if before else 0)
    return [row for row in rows if last - timedelta(days=days) < day_of(row) <= last]


def total(rows: list[Row], name: str) -> Any:
    return sum((row[name] or 0 for row in rows), Decimal(0) if "cost" in name else 0)


def tokens(rows: list[Row]) -> int:
    return int(total(rows, "input_tokens") + total(rows, "output_tokens"))


def told(rows: list[Row]) -> tuple[Any, ...]:
    return (total(rows, "cost"), total(rows, "calls"), total(rows, "errors"), tokens(rows), total(rows, "saved_tokens"))


def shown(one: q.Slice) -> tuple[Any, ...]:
    return (one.cost, one.calls, one.errors, one.tokens, one.saved_tokens)


def by_name(rows: list[Row], dimension: str) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[q.UNATTRIBUTED if row[dimension] is None else row[dimension]].append(row)
    return grouped


timeframes = st.sampled_from(("day", "week", "month"))
ends = st.none() | st.integers(-1, 61).map(lambda back: LAST - timedelta(days=back))


def end_of(rows: list[Row], end: date | None) -> date:
    """A timeframe ends with the last day that anybody has."""
    return end or max(map(day_of, rows))


@few
@given(rows=usage, principal=principals, chosen=filters(), timeframe=timeframes, end=ends, by=st.sampled_from(PLACES))
def test_metrics_are_the_sums_of_the_rows_and_their_slices_add_up(ledger, rows, principal, chosen, timeframe, end, by):
    with asking(rows, ledger, principal) as ask:
        found = ask("dashboard_get_metrics", timeframe=timeframe, end=end, by=by, **chosen)
    mine, length, last = own(rows, principal, chosen), q.DAYS[timeframe], end_of(rows, end)
    now, before = within(mine, length, last), within(mine, length, last, before=True)
    assert (found.first_day, found.last_day) == (last - timedelta(days=length - 1), last)
    assert (found.spending.current, found.spending.previous) == (total(now, "cost"), total(before, "cost"))
    assert (found.calls, found.errors) == (total(now, "calls"), total(now, "errors"))
    assert (found.tokens.consumed, found.tokens.saved) == (tokens(now), total(now, "saved_tokens"))
    assert found.tokens.cached == total(now, "cache_read_tokens")
    assert {one.name: shown(one) for one in found.slices} == {
        name: told(some) for name, some in by_name(now, by).items()
    }
    assert [one.cost for one in found.slices] == sorted((one.cost for one in found.slices), reverse=True)
    assert found.trends["calls"].previous == total(before, "calls")
    covered = found.coverage
    assert (covered.calls, covered.unpriced_calls) == (total(now, "calls"), total(now, "unpriced_calls"))
    assert (covered.unpriced_bound or 0) == total(now, "cost_bound")
    nobody = [row for row in now if row["agent"] is None or row["team"] is None]
    assert covered.unattributed_cost == total(nobody, "cost")


@few
@given(
    rows=usage, principal=principals, chosen=filters(), timeframe=timeframes, limit=st.integers(1, 4), data=st.data()
)
def test_lists_come_whole_in_pages_of_any_size(ledger, rows, principal, chosen, timeframe, limit, data):
    level = data.draw(st.sampled_from(PLACES))
    with asking(rows, ledger, principal) as ask:
        listed = list(pages(ask, "list_entities", level=level, timeframe=timeframe, limit=limit, **chosen))
        exported = list(pages(ask, "dashboard_export_data", timeframe=timeframe, limit=limit, **chosen))
    mine, length, last = own(rows, principal, chosen), q.DAYS[timeframe], end_of(rows, None)
    now, before = within(mine, length, last), within(mine, length, last, before=True)
    wanted, earlier = by_name(now, level), by_name(before, level)
    entities = [one for page in listed for one in page.entities]
    assert {one.name: shown(one) for one in entities} == {name: told(some) for name, some in wanted.items()}
    assert {one.name: one.previous_cost for one in entities} == {
        name: total(earlier.get(name, []), "cost") for name in wanted
    }
    assert {page.total for page in listed} == {len(wanted)}
    cells = {(row["back"], *place_of(row)) for row in now}
    assert {page.total for page in exported} == {len(cells)}
    lines = [line for page in exported for line in csv.DictReader(io.StringIO(page.content))]
    assert len(lines) == len(cells)
    assert sum((Decimal(line["cost"]) for line in lines), Decimal(0)) == exported[0].total_cost == total(now, "cost")
    assert sum(int(line["tokens"]) for line in lines) == tokens(now)


def pages(ask: Callable[..., Any], name: str, **values: Any) -> Iterator[Any]:
    """Every page; each but the last is full and says that there are more."""
    cursor: str | None = None
    seen = 0
    while True:
        page = ask(name, cursor=cursor, **values)
        rows = page.entities if name == "list_entities" else list(csv.reader(io.StringIO(page.content)))[1:]
        seen += len(rows)
        yield page
        assert page.has_more == (page.next_cursor is not None) == (seen < page.total)
        assert len(rows) == values["limit"] or not page.has_more
        if not page.has_more:
            return
        cursor = page.next_cursor


@few
@given(rows=usage, principal=principals, chosen=filters(), timeframe=timeframes, data=st.data())
def test_a_trend_is_the_sums_of_its_hours_or_days(ledger, rows, principal, chosen, timeframe, data):
    metric = data.draw(st.sampled_from(("cost", "tokens", "calls", "errors")))
    grain = data.draw(st.sampled_from(("hour", "day")))
    with asking(rows, ledger, principal) as ask:
        found = ask("dashboard_get_trends", metric=metric, granularity=grain, timeframe=timeframe, **chosen)
    now = within(own(rows, principal, chosen), q.DAYS[timeframe], end_of(rows, None))
    values = {
        "cost": lambda some: float(total(some, "cost")),
        "tokens": lambda some: float(tokens(some)),
        "calls": lambda some: float(total(some, "calls")),
        "errors": lambda some: total(some, "errors") / total(some, "calls"),
    }
    moments: dict[datetime, list[Row]] = defaultdict(list)
    for row in now:
        moments[datetime.combine(day_of(row), time(row["hour"] if grain == "hour" else 0))].append(row)
    assert {point.time: point.value for point in found.points} == pytest.approx(
        {moment: values[metric](some) for moment, some in moments.items()}, rel=1e-12
    )
    assert [point.time for point in found.points] == sorted(moments)
    assert found.coverage.calls == total(now, "calls")


def test_a_page_that_is_exactly_full_says_that_there_is_no_more(ledger: Ledger):
    rows = [row for n in range(q.PAGE) for row in [_plain(agent=f"agent-{n:03}", cost=Decimal(n))]]
    with asking(rows, ledger, LOCAL) as ask:
        page = ask("list_entities", level="agent", limit=q.PAGE)
        assert (len(page.entities), page.total, page.has_more, page.next_cursor) == (q.PAGE, q.PAGE, False, None)
    with asking([*rows, _plain(agent="one more")], ledger, LOCAL) as ask:
        page = ask("list_entities", level="agent", limit=q.PAGE)
        assert (page.total, page.has_more) == (q.PAGE + 1, True)
        last = ask("list_entities", level="agent", limit=q.PAGE, cursor=page.next_cursor)
        assert (len(last.entities), last.total, last.has_more) == (1, q.PAGE + 1, False)
        slices = ask("dashboard_get_metrics", by="agent", timeframe="month").slices
        assert (len(slices), slices[-1].name) == (51, q.REST)
        assert sum(one.calls for one in slices) == q.PAGE + 1


def _plain(**values: Any) -> Row:
    nothing = dict.fromkeys(("project", "team", "agent", "provider", "model", "cost_bound"))
    amounts = dict.fromkeys(("errors", "input_tokens", "output_tokens", "cache_read_tokens", "saved_tokens"), 0)
    return {
        "back": 0,
        "hour": 0,
        "org": "acme",
        "calls": 1,
        "unpriced_calls": 0,
        "cost": 0,
        **nothing,
        **amounts,
        **values,
    }


@pytest.mark.parametrize("name", ["list_entities", "dashboard_export_data"])
def test_a_cursor_ends_when_the_lake_moves_on(ledger: Ledger, tmp_path: Path, name: str):
    lake = Lake(str(tmp_path / "lake"))
    rows = [_plain(agent=f"agent-{n}", hour=n) for n in range(5)]
    lake.append(MART_SPEND, mart_of(rows))
    service = Service(Snapshot(lake), ledger, lateness=timedelta(hours=24))
    question = QUESTIONS[name]
    service.mark()
    cursor = service.answer(question, checked_inputs(question, {"limit": 2}), LOCAL).next_cursor
    assert service.answer(question, checked_inputs(question, {"limit": 3, "cursor": cursor}), LOCAL).total == 5
    lake.append(MART_SPEND, mart_of([_plain(agent="late", back=1)]))
    service.mark()
    with pytest.raises(q.BadQuestion, match="changed since"):
        service.answer(question, checked_inputs(question, {"limit": 2, "cursor": cursor}), LOCAL)


def test_a_lake_without_a_row_is_not_ready(ledger: Ledger, tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"))
    lake.append(MART_SPEND, MART_SPEND.schema.empty_table())
    service = Service(Snapshot(lake), ledger, lateness=timedelta(hours=24))
    service.mark()
    for name, values in itertools.product(("dashboard_get_metrics", "list_entities", "dashboard_get_trends"), ({},)):
        with pytest.raises(NotReady, match="no usage"):
            service.answer(QUESTIONS[name], checked_inputs(QUESTIONS[name], values), LOCAL)
