"""A seller's bill of some days, from its admin API: every endpoint to its last page.

Here: the requests and the way from page to page. What the answers mean is in the modules of the sellers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from types import ModuleType
from typing import Any, Final

from obs_pipeline.usage.billing import anthropic_bill, openai_bill
from obs_pipeline.usage.billing.answers import Endpoint, read_pages
from obs_pipeline.usage.billing.configured import BillKind, PulledBill
from obs_pipeline.usage.billing.lines import Bill, BillLine, LineKind, bill_of
from obs_pipeline.usage.currencies import RateBook
from obs_pipeline.usage.pulling.http_answers import Wait, sleep, whole_answer
from obs_pipeline.usage.pulling.pages import PullFailed

_SELLERS: Final[dict[BillKind, ModuleType]] = {"openai_costs": openai_bill, "anthropic_costs": anthropic_bill}


def fetch_bill(bill: PulledBill, first: date, until: date, rates: RateBook, *, wait: Wait = sleep) -> Bill:
    """The bill of the days from ``first`` on and before ``until``.

    A day is covered where every endpoint of a kind gave a bucket of it; what is given of other days is not taken.

    Raises:
        PullFailed: the seller did not answer, not whole, or gave a page again.
        BillRefused: what it answered is no bill.
        NoRate: an amount is in a currency that has no rate on its day.
    """
    import httpx2

    seller = _SELLERS[bill.kind]
    read: list[tuple[LineKind, frozenset[date], tuple[BillLine, ...]]] = []
    with httpx2.Client(base_url=bill.home, headers=seller.headers(bill.key()), timeout=bill.timeout_seconds) as client:
        for endpoint in seller.ENDPOINTS:
            asked = [*_span(bill.kind, first, until), ("bucket_width", "1d"), ("limit", str(endpoint.most_buckets))]
            asked += [("group_by[]", name) for name in endpoint.group_by]
            found = read_pages(endpoint, _pages(client, endpoint, asked, wait))
            read.append((endpoint.kind, found.days, found.lines))
    kinds: tuple[LineKind, ...] = ("cost", "usage")
    covers = frozenset((kind, day) for kind in kinds for day in _covered(kind, read) if first <= day < until)
    lines = [line for kind, _, found_lines in read for line in found_lines if (kind, line.dt) in covers]
    return bill_of(lines, covers, bill.seller, org=bill.org, projects=bill.projects, rates=rates)


def _covered(kind: LineKind, read: list[tuple[LineKind, frozenset[date], tuple[BillLine, ...]]]) -> frozenset[date]:
    each = [days for of, days, _ in read if of == kind]
    return frozenset.intersection(*each) if each else frozenset()


def _pages(client: Any, endpoint: Endpoint[Any], asked: list[tuple[str, str]], wait: Wait) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    page: list[tuple[str, str]] = []
    while True:
        # Bound now: the answer is asked for before the next page is known.
        params = [*asked, *page]
        content = whole_answer(
            lambda params=params: client.get(endpoint.path, params=params),  # type: ignore[misc]
            wait,
            who=endpoint.path,
            what=f"The bill at {endpoint.path}",
            key="key_file: it needs an admin key of the organisation",
            parse=exact_json,
        )
        yield content
        if not content.get("has_more"):
            return
        cursor = content.get("next_page")
        if not isinstance(cursor, str) or not cursor:
            raise PullFailed(f"{endpoint.path} has more, but does not say where; its API may have changed.")
        if cursor in seen:
            raise PullFailed(f"{endpoint.path} gave the same page again; nothing after it can be reached.")
        seen.add(cursor)
        page = [("page", cursor)]


def exact_json(content: bytes | str) -> Any:
    """JSON whose decimals stay as they are written."""
    return json.loads(content, parse_float=Decimal)


def _span(kind: BillKind, first: date, until: date) -> list[tuple[str, str]]:
    start, end = (datetime.combine(day, time(), UTC) for day in (first, until))
    if kind == "openai_costs":
        return [("start_time", str(int(start.timestamp()))), ("end_time", str(int(end.timestamp())))]
    return [(name, f"{at:%Y-%m-%dT%H:%M:%SZ}") for name, at in (("starting_at", start), ("ending_at", end))]
