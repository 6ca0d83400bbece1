"""Cost in the shape that finance tools read: FOCUS 1.2, one row an hour, agent, model and operation.

Here: the columns, the query over ``usage_hourly`` that fills them, and the month it is asked for. No files, no command line.

How usage fits the shape
------------------------
- The one who bills is the seller of the model (``InvoiceIssuerName``); the sub-account is the project, the resource the agent.
  No invoice is known here: ``InvoiceId`` is null.
- A charge of tokens is consumed and priced in tokens, one of calls without tokens in requests. The unit prices are what the
  costs come to for each: a model has several rates, for input, output and cache, and the row is their sum.
- ``BilledCost``, ``EffectiveCost`` and ``ContractedCost`` are the cost as far as it is known; ``ListCost`` is the list price
  where there is one, else the same. Calls without any price cost 0 here and are counted in ``x_UnpricedCalls``.
- Hours with credits or corrections and no calls are charges of category ``Credit``, or ``Adjustment`` above zero.

Money is USD, exact to the nano-dollar; a row is an hour as UTC. The rows of a month come to exactly its cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import duckdb
import pyarrow as pa

from obs_pipeline.errors import ObsError
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.event import MONEY_SUM
from obs_pipeline.usage.tables import USAGE_HOURLY

NOT_TOLD: Final = "unattributed"
"""Stands for a project, agent, model or seller that the source did not name."""

_ROWS_PER_BATCH: Final = 65_536
_INSTANT: Final = pa.timestamp("us", "UTC")
_TEXT: Final = pa.string()
_PRICE: Final = pa.float64()

FOCUS_SCHEMA: Final = pa.schema(
    [
        ("AvailabilityZone", _TEXT),
        ("BilledCost", MONEY_SUM),
        ("BillingAccountId", _TEXT),
        ("BillingAccountName", _TEXT),
        ("BillingAccountType", _TEXT),
        ("BillingCurrency", _TEXT),
        ("BillingPeriodEnd", _INSTANT),
        ("BillingPeriodStart", _INSTANT),
        ("ChargeCategory", _TEXT),
        ("ChargeClass", _TEXT),
        ("ChargeDescription", _TEXT),
        ("ChargeFrequency", _TEXT),
        ("ChargePeriodEnd", _INSTANT),
        ("ChargePeriodStart", _INSTANT),
        ("CommitmentDiscountStatus", _TEXT),
        ("ConsumedQuantity", MONEY_SUM),
        ("ConsumedUnit", _TEXT),
        ("ContractedCost", MONEY_SUM),
        ("ContractedUnitPrice", _PRICE),
        ("EffectiveCost", MONEY_SUM),
        ("InvoiceId", _TEXT),
        ("InvoiceIssuerName", _TEXT),
        ("ListCost", MONEY_SUM),
        ("ListUnitPrice", _PRICE),
        ("PricingCategory", _TEXT),
        ("PricingCurrency", _TEXT),
        ("PricingCurrencyContractedUnitPrice", _PRICE),
        ("PricingCurrencyEffectiveCost", MONEY_SUM),
        ("PricingCurrencyListUnitPrice", _PRICE),
        ("PricingQuantity", MONEY_SUM),
        ("PricingUnit", _TEXT),
        ("ProviderName", _TEXT),
        ("PublisherName", _TEXT),
        ("RegionId", _TEXT),
        ("RegionName", _TEXT),
        ("ResourceId", _TEXT),
        ("ResourceName", _TEXT),
        ("ResourceType", _TEXT),
        ("ServiceCategory", _TEXT),
        ("ServiceName", _TEXT),
        ("ServiceSubcategory", _TEXT),
        ("SkuId", _TEXT),
        ("SkuMeter", _TEXT),
        ("SkuPriceDetails", _TEXT),
        ("SkuPriceId", _TEXT),
        ("SubAccountId", _TEXT),
        ("SubAccountName", _TEXT),
        ("SubAccountType", _TEXT),
        ("Tags", _TEXT),
        ("x_Calls", pa.int64()),
        ("x_CacheReadTokens", pa.int64()),
        ("x_InputTokens", pa.int64()),
        ("x_OutputTokens", pa.int64()),
        ("x_UnpricedCalls", pa.int64()),
    ]
)
"""The columns of an export. ``Tags`` is a JSON object. Those that begin with ``x_`` are this project's own."""

_ROWS: Final = """
WITH charges AS (
    SELECT
        hour,
        coalesce(org, $not_told) AS account,
        project,
        team,
        agent,
        source,
        operation,
        coalesce(provider, $not_told) AS seller,
        coalesce(model, $not_told) AS sku,
        calls,
        unpriced_calls,
        input_tokens,
        output_tokens,
        cache_read_tokens,
        cost,
        coalesce(list_cost, cost) AS list_cost,
        calls > 0 AS is_usage,
        coalesce(input_tokens, 0) + coalesce(output_tokens, 0) AS tokens
    FROM usage_hourly
    WHERE hour >= $first AND hour < $until AND ($org IS NULL OR org = $org)
),
measured AS (
    SELECT
        *,
        CASE WHEN is_usage THEN CAST(CASE WHEN tokens > 0 THEN tokens ELSE calls END AS DECIMAL(38, 9)) END AS quantity,
        CASE WHEN is_usage THEN CASE WHEN tokens > 0 THEN 'Tokens' ELSE 'Requests' END END AS unit
    FROM charges
)
SELECT
    cost AS BilledCost,
    account AS BillingAccountId,
    account AS BillingAccountName,
    'Organization' AS BillingAccountType,
    'USD' AS BillingCurrency,
    $until AS BillingPeriodEnd,
    $first AS BillingPeriodStart,
    CASE WHEN is_usage THEN 'Usage' WHEN cost < 0 THEN 'Credit' ELSE 'Adjustment' END AS ChargeCategory,
    concat(coalesce(operation, 'call'), ' of ', sku, ' by ', coalesce(agent, $not_told)) AS ChargeDescription,
    CASE WHEN is_usage THEN 'Usage-Based' ELSE 'One-Time' END AS ChargeFrequency,
    hour + INTERVAL 1 HOUR AS ChargePeriodEnd,
    hour AS ChargePeriodStart,
    quantity AS ConsumedQuantity,
    unit AS ConsumedUnit,
    cost AS ContractedCost,
    CASE WHEN is_usage THEN CAST(cost AS DOUBLE) / CAST(quantity AS DOUBLE) END AS ContractedUnitPrice,
    cost AS EffectiveCost,
    seller AS InvoiceIssuerName,
    list_cost AS ListCost,
    CASE WHEN is_usage THEN CAST(list_cost AS DOUBLE) / CAST(quantity AS DOUBLE) END AS ListUnitPrice,
    CASE WHEN is_usage THEN 'Standard' END AS PricingCategory,
    'USD' AS PricingCurrency,
    CASE WHEN is_usage THEN CAST(cost AS DOUBLE) / CAST(quantity AS DOUBLE) END AS PricingCurrencyContractedUnitPrice,
    cost AS PricingCurrencyEffectiveCost,
    CASE WHEN is_usage THEN CAST(list_cost AS DOUBLE) / CAST(quantity AS DOUBLE) END AS PricingCurrencyListUnitPrice,
    quantity AS PricingQuantity,
    unit AS PricingUnit,
    seller AS ProviderName,
    seller AS PublisherName,
    agent AS ResourceId,
    agent AS ResourceName,
    CASE WHEN agent IS NOT NULL THEN 'Agent' END AS ResourceType,
    'AI and Machine Learning' AS ServiceCategory,
    concat(seller, ' models') AS ServiceName,
    'Generative AI' AS ServiceSubcategory,
    CASE WHEN is_usage THEN concat(seller, '/', sku) END AS SkuId,
    CASE WHEN is_usage THEN unit END AS SkuMeter,
    CASE WHEN is_usage THEN concat(seller, '/', sku, '/', lower(unit)) END AS SkuPriceId,
    project AS SubAccountId,
    project AS SubAccountName,
    CASE WHEN project IS NOT NULL THEN 'Project' END AS SubAccountType,
    json_merge_patch(
        json_object('operation', coalesce(operation, ''), 'source', source),
        CASE WHEN team IS NULL THEN '{}' ELSE json_object('team', team) END
    ) AS Tags,
    calls AS x_Calls,
    cache_read_tokens AS x_CacheReadTokens,
    input_tokens AS x_InputTokens,
    output_tokens AS x_OutputTokens,
    unpriced_calls AS x_UnpricedCalls
FROM measured
ORDER BY ChargePeriodStart, account, project, agent, seller, sku, source, team, operation
"""


class NoSuchMonth(ObsError):
    """A month that is none."""


@dataclass(frozen=True)
class Month:
    """A calendar month of UTC days."""

    first: date

    @property
    def after(self) -> date:
        """The first day of the month after."""
        return (self.first + timedelta(days=32)).replace(day=1)

    @property
    def days(self) -> DayRange:
        return DayRange(self.first, self.after - timedelta(days=1))

    def __str__(self) -> str:
        return f"{self.first:%Y-%m}"


def month_of(text: str) -> Month:
    """The month written YYYY-MM.

    Raises:
        NoSuchMonth: it is not one.
    """
    try:
        year, month = text.split("-")
        if len(year) != 4:
            raise ValueError
        return Month(date(int(year), int(month), 1))
    except ValueError:
        raise NoSuchMonth(f"{text!r} is not a month; write YYYY-MM, such as 2026-03.") from None


def focus_rows(
    connection: duckdb.DuckDBPyConnection, lake: Lake, month: Month, *, org: str | None = None
) -> pa.RecordBatchReader:
    """The charges of a month, of one organisation or of all, as ``FOCUS_SCHEMA``, in order of time.

    The reader holds ``connection`` until it is read to its end.
    """
    lake.view(connection, USAGE_HOURLY, month.days)
    asked = {"first": _instant(month.first), "until": _instant(month.after), "org": org, "not_told": NOT_TOLD}
    rows = connection.sql(_ROWS, params=asked).to_arrow_reader(_ROWS_PER_BATCH)
    return pa.RecordBatchReader.from_batches(FOCUS_SCHEMA, (_shaped(batch) for batch in rows))


def _instant(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def _shaped(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with every column of the shape; what the query does not fill is null."""
    arrays = []
    for field in FOCUS_SCHEMA:
        at = batch.schema.get_field_index(field.name)
        arrays.append(pa.nulls(batch.num_rows, field.type) if at < 0 else batch.column(at).cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=FOCUS_SCHEMA)
