"""Anthropic's usage and cost report of an organisation, as lines of a bill. The shapes follow its published API reference.

Amounts are decimal texts in the smallest unit of the currency: ``"123.45"`` in USD is 1.2345 dollars. Uncached input, cache reads
and cache writes stand apart and are added up here. Priority tier is not in the cost report.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, Final

from obs_pipeline.usage.billing.answers import Count, Endpoint, Shape
from obs_pipeline.usage.billing.lines import BillLine, Meter, charge

SELLER: Final = "anthropic"
_CENTS: Final = -2
_METERS: Final[dict[str, Meter]] = {
    "uncached_input_tokens": "input",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write",
    "output_tokens": "output",
}


class _Cost(Shape):
    amount: Decimal
    currency: str
    workspace_id: str | None
    description: str | None
    model: str | None
    token_type: str | None
    cost_type: str | None = None


class _CacheCreation(Shape):
    ephemeral_1h_input_tokens: Count
    ephemeral_5m_input_tokens: Count


class _Usage(Shape):
    uncached_input_tokens: Count
    cache_read_input_tokens: Count
    cache_creation: _CacheCreation
    output_tokens: Count
    workspace_id: str | None
    model: str | None


def _cost_line(result: _Cost, day: date) -> BillLine:
    item = result.description or result.cost_type or "all"
    amount = charge(result.amount.scaleb(_CENTS), day=day, item=item)
    meter = _METERS.get(result.token_type or "")
    currency = result.currency.upper()
    return BillLine(
        day, "cost", SELLER, None, result.workspace_id, result.model, meter, item, amount=amount, currency=currency
    )


def _usage_line(result: _Usage, day: date) -> BillLine:
    written = result.cache_creation.ephemeral_1h_input_tokens + result.cache_creation.ephemeral_5m_input_tokens
    return BillLine(
        day,
        "usage",
        SELLER,
        project=result.workspace_id,
        model=result.model,
        item="messages",
        input_tokens=result.uncached_input_tokens + result.cache_read_input_tokens + written,
        cache_read_tokens=result.cache_read_input_tokens,
        cache_write_tokens=written,
        output_tokens=result.output_tokens,
    )


ENDPOINTS: Final[tuple[Endpoint[Any], ...]] = (
    Endpoint(
        "cost", "/v1/organizations/cost_report", ("workspace_id", "description"), 31, "token_type", _Cost, _cost_line
    ),
    Endpoint(
        "usage",
        "/v1/organizations/usage_report/messages",
        ("workspace_id", "model"),
        31,
        "uncached_input_tokens",
        _Usage,
        _usage_line,
    ),
)


def headers(key: str) -> dict[str, str]:
    return {"x-api-key": key, "anthropic-version": "2023-06-01"}
