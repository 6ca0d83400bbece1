"""OpenAI's usage and costs API of an organisation, as lines of a bill. The shapes follow its published OpenAPI description.

Costs come by the day, project and line item; a line item names the model and what of it is charged, such as
``gpt-4o-2024-08-06, cached input``. Amounts are units of the currency. Input tokens include what was read from the cache.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, Final

from obs_pipeline.usage.billing.answers import Count, Endpoint, Shape
from obs_pipeline.usage.billing.lines import BillLine, Meter, charge

SELLER: Final = "openai"
_METERS: Final[dict[str, Meter]] = {"input": "input", "cached input": "cache_read", "output": "output"}


class _Amount(Shape):
    value: Decimal
    currency: str


class _Cost(Shape):
    amount: _Amount
    line_item: str | None
    project_id: str | None


class _Usage(Shape):
    input_tokens: Count
    input_cached_tokens: Count | None = None
    input_cache_write_tokens: Count | None = None
    output_tokens: Count
    num_model_requests: Count
    project_id: str | None
    model: str | None


class _Embeddings(Shape):
    input_tokens: Count
    num_model_requests: Count
    project_id: str | None
    model: str | None


def _cost_line(result: _Cost, day: date) -> BillLine:
    item = result.line_item or "all"
    model, meter = _charged(item)
    amount = charge(result.amount.value, day=day, item=item)
    currency = result.amount.currency.upper()
    return BillLine(day, "cost", SELLER, None, result.project_id, model, meter, item, amount=amount, currency=currency)


def _charged(item: str) -> tuple[str | None, Meter | None]:
    """The model and the kind of tokens that a line item names; one that names a service has neither."""
    name, comma, what = item.rpartition(", ")
    model = name if comma else item
    return (None if " " in model or model == "all" else model.lower()), _METERS.get(what.strip().lower())


def _usage_line(result: _Usage, day: date) -> BillLine:
    return BillLine(
        day,
        "usage",
        SELLER,
        project=result.project_id,
        model=result.model,
        item="completions",
        requests=result.num_model_requests,
        input_tokens=result.input_tokens,
        cache_read_tokens=result.input_cached_tokens,
        cache_write_tokens=result.input_cache_write_tokens,
        output_tokens=result.output_tokens,
    )


def _embeddings_line(result: _Embeddings, day: date) -> BillLine:
    return BillLine(
        day,
        "usage",
        SELLER,
        project=result.project_id,
        model=result.model,
        item="embeddings",
        requests=result.num_model_requests,
        input_tokens=result.input_tokens,
        output_tokens=0,
    )


ENDPOINTS: Final[tuple[Endpoint[Any], ...]] = (
    Endpoint(
        "cost",
        "/v1/organization/costs",
        ("project_id", "line_item"),
        180,
        "organization.costs.result",
        _Cost,
        _cost_line,
    ),
    Endpoint(
        "usage",
        "/v1/organization/usage/completions",
        ("project_id", "model"),
        31,
        "organization.usage.completions.result",
        _Usage,
        _usage_line,
    ),
    Endpoint(
        "usage",
        "/v1/organization/usage/embeddings",
        ("project_id", "model"),
        31,
        "organization.usage.embeddings.result",
        _Embeddings,
        _embeddings_line,
    ),
)


def headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
