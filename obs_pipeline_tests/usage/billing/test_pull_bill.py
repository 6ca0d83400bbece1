"""Bills pulled from a seller's API on the loopback: nothing lost, nothing twice, whatever the seller does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.billing.admin_api import fetch_bill
from obs_pipeline.usage.billing.configured import PulledBill
from obs_pipeline.usage.billing.lines import NOTHING
from obs_pipeline.usage.billing.pull import PulledDays, backfill_bill, position_key, pull_bill
from obs_pipeline.usage.currencies import RateBook
from obs_pipeline.usage.pulling.pages import PullFailed
from obs_pipeline.usage.tables import BILLED_BUCKETS
from obs_pipeline_tests.usage.billing.seller import Seller, anthropic_results, openai_results, seller

SINCE = date(2026, 3, 1)
NOW = datetime(2026, 3, 8, 9, 30)
LAST = date(2026, 3, 7)


class Puller:
    """A lake, a ledger and one bill of a seller, pulled as often as it takes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path, server: Seller, kind: str) -> None:
        self.connection, self.server = connection, server
        self.lake = Lake(str(folder / "lake"))
        self.positions = SourcePositions(Ledger(f"sqlite:///{folder / 'ledger.db'}"))
        key = folder / "key"
        key.write_text("sk-admin-1\n")
        said = {"kind": kind, "url": server.url, "key_file": key, "since": SINCE, "restated_days": 3, "org": "acme"}
        self.bill = PulledBill.model_validate({**said, "projects": {"proj_abc": "atlas", "wrkspc_01": "atlas"}})
        self.waited: list[float] = []

    def __call__(self, now: datetime = NOW) -> PulledDays:
        fetch = partial(fetch_bill, wait=self.waited.append)
        return pull_bill(self.connection, self.lake, "the-bill", self.bill, fetch, self.positions, RateBook(), now)

    @property
    def rows(self) -> list[dict[str, Any]]:
        self.lake.view(self.connection, BILLED_BUCKETS)
        return self.connection.sql("SELECT * FROM billed_buckets ORDER BY ALL").to_arrow_table().to_pylist()

    @property
    def costs(self) -> dict[date, Decimal]:
        return {row["dt"]: row["cost"] for row in self.rows if row["kind"] == "cost"}

    @property
    def failure(self) -> str | None:
        return self.positions.get(position_key("the-bill")).failure


@pytest.fixture(params=["openai_costs", "anthropic_costs"])
def puller(request: pytest.FixtureRequest, connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> Iterator[Puller]:
    results = openai_results if request.param == "openai_costs" else anthropic_results
    with seller(results) as server:
        yield Puller(connection, tmp_path, server, request.param)


EVERY_DAY = {SINCE + timedelta(days=n): Decimal(n + 1) / 100 for n in range(7)}


def test_every_whole_day_is_pulled_along_the_pages(puller: Puller):
    done = puller()
    assert (done.first, done.until) == (SINCE, LAST + timedelta(days=1))
    assert puller.costs == EVERY_DAY
    tokens = {row["dt"]: row["input_tokens"] for row in puller.rows if row["kind"] == "usage" and row["model"]}
    assert tokens == {day: 100 * day.day for day in EVERY_DAY}
    assert {(row["org"], row["project"]) for row in puller.rows if row["model"]} == {("acme", "atlas")}
    assert set(puller.server.keys) <= {"Bearer sk-admin-1", "sk-admin-1"}
    assert all(query["bucket_width"] == ["1d"] and query["group_by[]"] for _, query in puller.server.asked)


def test_pulling_twice_gives_the_same_rows(puller: Puller):
    puller()
    before = puller.rows
    puller()
    assert puller.rows == before
    assert puller.rows


def test_the_last_days_are_fetched_again_and_a_correction_takes_the_place_of_what_was_said(puller: Puller):
    puller()
    before = puller.server.results

    def corrected(path: str, day: date) -> list[dict[str, Any]]:
        found = before(path, day)
        return [] if day == LAST else [*found, *found] if day == date(2026, 3, 1) else found

    puller.server.results = corrected
    done = puller(NOW + timedelta(days=1))
    assert (done.first, done.until) == (date(2026, 3, 5), date(2026, 3, 9))
    assert puller.costs == {**EVERY_DAY, LAST: Decimal(0), date(2026, 3, 8): Decimal("0.08")}
    assert [row["item"] for row in puller.rows if row["dt"] == LAST] == [NOTHING, NOTHING]


def test_another_bill_of_the_same_days_is_left_alone(puller: Puller):
    puller()
    kept = puller.rows
    pull_bill(*(puller.connection, puller.lake, "other", puller.bill, fetch_bill, puller.positions, RateBook(), NOW))
    both = puller.rows
    assert [row for row in both if row["bill"] == "the-bill"] == kept
    assert len(both) == 2 * len(kept)


def test_a_seller_that_fails_now_and_then_is_asked_again(puller: Puller):
    good = json.dumps(puller.server.page(*_first_request(puller))).encode()
    puller.server.faults = [(500, b"{}"), (200, good[: len(good) // 2]), None, (429, b""), (503, b"<html>")]
    puller()
    assert puller.costs == EVERY_DAY
    assert puller.waited == [1.0, 2.0, 1.0, 2.0]


def _first_request(puller: Puller) -> tuple[str, dict[str, list[str]]]:
    fetch_bill(puller.bill, SINCE, SINCE + timedelta(days=1), RateBook(), wait=puller.waited.append)
    return puller.server.asked[0]


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ([(500, b"{}")] * 4, "it answered 500"),
        ([(401, b'{"error": "bad key"}')], "it answered 401"),
        ([(200, b'{"data": [{"start')] * 4, "broke off"),
        ([(200, b'{"days": []}')], "may have changed"),
        ([(200, b'{"data": [{"start_time": 1772323200, "costs": []}], "has_more": false}')], "another shape"),
        ([(200, b'{"data": [], "has_more": true, "next_page": null}')], "does not say where"),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_a_pull_that_fails_leaves_no_half_day_and_is_made_again(
    puller: Puller, faults: list[tuple[int, bytes]], told: str, after: int
):
    puller.server.faults = [*[None] * after, *faults]
    with pytest.raises(PullFailed, match=told):
        puller()
    assert (puller.rows, told in (puller.failure or "")) == ([], True)
    assert "sk-admin" not in (puller.failure or "")
    puller.server.faults = []
    puller()
    assert (puller.costs, puller.failure) == (EVERY_DAY, None)


def test_a_seller_that_hangs_is_given_up(puller: Puller):
    puller.bill = puller.bill.model_copy(update={"timeout_seconds": 0.05})
    puller.server.answers_after = 0.3
    with pytest.raises(PullFailed, match="Timeout"):
        puller()
    assert puller.rows == []


def test_a_page_that_comes_again_is_told_and_not_counted_twice(puller: Puller):
    puller.server.repeats_pages = True
    with pytest.raises(PullFailed, match=r"twice|the same page again"):
        puller()
    assert puller.rows == []


def test_an_amount_below_zero_is_refused_and_nothing_of_the_pull_is_taken(puller: Puller):
    good = puller.server.results

    def sentinel(path: str, day: date) -> list[dict[str, Any]]:
        text = (
            json.dumps(good(path, day))
            .replace('"amount": "3.0"', '"amount": "-1"')
            .replace('"value": 0.03', '"value": -1')
        )
        found: list[dict[str, Any]] = json.loads(text)
        return found

    puller.server.results = sentinel
    with pytest.raises(PullFailed, match=r"2026-03-03, .*below zero"):
        puller()
    assert puller.rows == []


def test_a_day_the_seller_says_nothing_of_is_unknown_and_asked_for_again(puller: Puller):
    puller.server.silent = {LAST}
    assert puller().until == LAST
    assert LAST not in puller.costs
    puller.server.silent = set()
    assert puller(NOW).until == LAST + timedelta(days=1)
    assert puller.costs == EVERY_DAY


def test_a_seller_that_says_nothing_at_all_is_a_failure_and_no_zero(puller: Puller):
    puller.server.silent = set(DayRange(SINCE, LAST).days())
    with pytest.raises(PullFailed, match="says nothing of 2026-03-01"):
        puller()


def test_what_is_far_behind_is_pulled_in_windows_that_are_safe_one_by_one(puller: Puller):
    puller.server.days_a_page = 31
    first_window = 3 if puller.bill.kind == "openai_costs" else 2
    puller.server.faults = [*[None] * first_window, *[(500, b"")] * 4]
    with pytest.raises(PullFailed):
        puller(datetime(2026, 5, 1))
    assert max(puller.costs) == date(2026, 3, 31)
    done = puller(datetime(2026, 5, 1))
    assert done.first == date(2026, 3, 29)
    assert len(puller.costs) == 61


def test_a_key_that_cannot_be_read_is_told(puller: Puller):
    puller.bill.key_file.unlink()
    with pytest.raises(PullFailed, match="should hold an admin key"):
        puller()
    assert "should hold an admin key" in (puller.failure or "")


def test_days_are_fetched_again_and_the_position_stays(puller: Puller):
    puller()
    before = puller.positions.get(position_key("the-bill")).position
    puller.server.results = lambda path, day: []
    again = date(2026, 3, 2)
    done = backfill_bill(
        *(puller.connection, puller.lake, "the-bill", puller.bill, fetch_bill, RateBook()),
        first=again,
        until=again + timedelta(days=1),
    )
    assert (done.first, done.lines) == (again, 2)
    assert puller.costs == {**EVERY_DAY, again: Decimal(0)}
    assert puller.positions.get(position_key("the-bill")).position == before
