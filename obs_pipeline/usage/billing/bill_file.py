"""Bills as files: saved answers of a seller's billing API, invoices in FOCUS, and plain tables.

=============  =================================================================================================
JSON           one page of an answer, a list of pages, or a page a line; which API it is of is seen from its results
FOCUS          CSV or Parquet with ``BilledCost`` and ``ChargePeriodStart``; the model is the last part of ``SkuId``,
               tokens are ``x_InputTokens`` and ``x_OutputTokens`` where it has them
a table        CSV or Parquet with ``day`` (UTC), ``provider`` and ``cost`` (USD), or ``amount`` and ``currency``; and, as far
               as it is known: ``org``, ``project``, ``model``, ``item``, ``requests``, ``input_tokens``,
               ``cache_read_tokens``, ``cache_write_tokens``, ``output_tokens``
=============  =================================================================================================

A file is taken whole or not at all. Packed files (gzip, zstd) are read for CSV.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import date
from decimal import Decimal
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Final

import duckdb

from obs_pipeline.usage.billing import anthropic_bill, openai_bill
from obs_pipeline.usage.billing.admin_api import exact_json
from obs_pipeline.usage.billing.answers import read_pages
from obs_pipeline.usage.billing.lines import Bill, BillLine, BillRefused, LineKind, bill_of, charge
from obs_pipeline.usage.currencies import RateBook
from obs_pipeline.usage.model_names import SELLERS

_APIS: Final = ((openai_bill.SELLER, openai_bill.ENDPOINTS), (anthropic_bill.SELLER, anthropic_bill.ENDPOINTS))
_FOCUS: Final = ("BilledCost", "BillingCurrency", "ChargePeriodStart", "ProviderName")
_NUMBERS: Final = ("requests", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
_TEXTS: Final = ("org", "project", "model", "item")
_GROUPED: Final = ("dt", "provider", *_TEXTS, "currency", "may_be_negative")


def read_bill_file(
    path: Path, rates: RateBook, *, org: str | None = None, projects: Mapping[str, str] | None = None
) -> list[Bill]:
    """The bills of a file, one a seller, in order of the sellers' names.

    ``org`` and ``projects`` as for ``bill_of``.

    Raises:
        BillRefused: the file is no bill, or a line of it says what no bill says.
        NoRate: an amount is in a currency that has no rate on its day.
    """
    if not path.is_file():
        raise BillRefused(f"{path}: there is no such file.")
    lines: dict[str, list[BillLine]] = defaultdict(list)
    covers: dict[str, set[tuple[LineKind, date]]] = defaultdict(set)
    is_json = path.suffix.lower() in (".json", ".jsonl", ".ndjson")
    for seller, found, days in _saved_answers(path) if is_json else _table_lines(path):
        lines[seller] += found
        covers[seller] |= days
    if not covers:
        raise BillRefused(f"{path}: there is no line of a bill in it.")
    return [
        bill_of(lines[seller], covers[seller], seller, org=org, projects=projects, rates=rates)
        for seller in sorted(covers)
    ]


_Found = tuple[str, list[BillLine], set[tuple[LineKind, date]]]


def _saved_answers(path: Path) -> Iterator[_Found]:
    pages = _pages(path)
    taken = 0
    for seller, endpoints in _APIS:
        for endpoint in endpoints:
            mine = [page for page in pages if endpoint.recognises(page)]
            if mine:
                taken += len(mine)
                read = read_pages(endpoint, mine)
                yield seller, list(read.lines), {(endpoint.kind, day) for day in read.days}
    # A page without any result says nothing that could be told apart from another's.
    unknown = len([page for page in pages if not _is_empty(page)]) - taken
    if unknown:
        raise BillRefused(f"{path}: {unknown} of {len(pages)} pages are not as a known billing API writes them.")


def _is_empty(page: Any) -> bool:
    buckets = page.get("data") if isinstance(page, dict) else None
    return isinstance(buckets, list) and not any(isinstance(one, dict) and one.get("results") for one in buckets)


def _pages(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
        try:
            content = exact_json(text)
        except JSONDecodeError:
            content = [exact_json(line) for line in text.splitlines() if line.strip()]
    except (JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise BillRefused(f"{path} cannot be read: {error}") from None
    return content if isinstance(content, list) else [content]


def _table_lines(path: Path) -> Iterator[_Found]:
    with closing(duckdb.connect(":memory:", config={"threads": 2})) as engine:
        engine.execute("SET TimeZone = 'UTC'")
        columns = _columns(engine, path)
        if all(name in columns for name in _FOCUS):
            query = _focus_query(columns)
        elif {"day", "provider"} <= columns and ({"cost"} <= columns or {"amount", "currency"} <= columns):
            query = _plain_query(columns)
        else:
            raise BillRefused(
                f"{path} is no bill: FOCUS has {', '.join(_FOCUS)}, a table has day, provider and cost, "
                "or amount and currency."
            )
        _refuse_unreadable(engine, path, query)
        sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in _NUMBERS)
        groups = ", ".join(_GROUPED)
        rows = engine.execute(
            f"SELECT {groups}, sum(amount) AS amount, {sums} FROM ({query}) GROUP BY {groups}, sign(amount)"
        )
        names = [column[0] for column in rows.description or ()]
        for row in rows.fetchall():
            yield _lines_of(dict(zip(names, row, strict=True)))


def _columns(engine: duckdb.DuckDBPyConnection, path: Path) -> set[str]:
    """Make the file the view ``bill_rows``; the names of its columns."""
    name = str(path).replace("'", "''")
    is_parquet = path.suffix.lower() == ".parquet"
    read = f"read_parquet('{name}')" if is_parquet else f"read_csv('{name}', all_varchar = true, header = true)"
    try:
        engine.execute(f"CREATE VIEW bill_rows AS SELECT * FROM {read}")
        described = engine.execute("DESCRIBE bill_rows").fetchall()
    except duckdb.Error as error:
        raise BillRefused(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from None
    return {column[0] for column in described}


def _focus_query(columns: set[str]) -> str:
    def optional(name: str) -> str:
        return f"CAST({name} AS VARCHAR)" if name in columns else "CAST(NULL AS VARCHAR)"

    tokens = {"input_tokens": "x_InputTokens", "output_tokens": "x_OutputTokens", "requests": "x_Calls"}
    tokens |= {"cache_read_tokens": "x_CacheReadTokens"}
    numbers = [f"nullif({optional(tokens.get(name, ''))}, '') AS {name}_said" for name in _NUMBERS]
    category, correction = optional("ChargeCategory"), optional("ChargeClass")
    return _converted(f"""
        SELECT CAST(ChargePeriodStart AS VARCHAR) AS day_said, ProviderName AS provider_said,
            CAST(BilledCost AS VARCHAR) AS amount_said, BillingCurrency AS currency_said,
            CAST(NULL AS VARCHAR) AS org,
            coalesce(nullif({optional("SubAccountName")}, ''), nullif({optional("SubAccountId")}, '')) AS project,
            nullif(split_part({optional("SkuId")}, '/', -1), '') AS model, coalesce({category}, 'Usage') AS item,
            coalesce({category} IN ('Credit', 'Adjustment') OR {correction} = 'Correction', FALSE) AS may_be_negative,
            {", ".join(numbers)}
        FROM bill_rows
    """)


def _plain_query(columns: set[str]) -> str:
    def optional(name: str) -> str:
        return f"nullif(CAST({name} AS VARCHAR), '')" if name in columns else "CAST(NULL AS VARCHAR)"

    amount, currency = ("cost", "'USD'") if "cost" in columns else ("amount", "currency")
    texts = [f"{optional(name)} AS {name}" for name in ("org", "project", "model")]
    numbers = [f"{optional(name)} AS {name}_said" for name in _NUMBERS]
    return _converted(f"""
        SELECT CAST(day AS VARCHAR) AS day_said, provider AS provider_said, CAST({amount} AS VARCHAR) AS amount_said,
            {currency} AS currency_said, {", ".join(texts)}, coalesce({optional("item")}, 'all') AS item,
            FALSE AS may_be_negative, {", ".join(numbers)}
        FROM bill_rows
    """)


def _converted(said: str) -> str:
    numbers = ", ".join(f"TRY_CAST({name}_said AS DECIMAL(38, 0)) AS {name}" for name in _NUMBERS)
    return f"""
        SELECT *, CAST(TRY_CAST(day_said AS TIMESTAMPTZ) AS DATE) AS dt, lower(trim(provider_said)) AS provider,
            upper(trim(currency_said)) AS currency, TRY_CAST(amount_said AS DECIMAL(38, 15)) AS amount, {numbers}
        FROM ({said})
    """


def _refuse_unreadable(engine: duckdb.DuckDBPyConnection, path: Path, query: str) -> None:
    """The first row that does not say when, who, or how much, or says it in a way that no bill does."""
    counts = " ".join(
        f"WHEN {name}_said IS NOT NULL AND ({name} IS NULL OR {name} < 0) THEN concat('{name} is no count: ', {name}_said)"
        for name in _NUMBERS
    )
    wrong = f"""
        SELECT coalesce(day_said, 'a row without a day'), item, CASE
            WHEN dt IS NULL THEN 'that is no day'
            WHEN provider IS NULL OR provider = '' THEN 'it names no provider'
            WHEN currency IS NULL OR currency = '' THEN 'it names no currency'
            WHEN amount IS NULL THEN concat(coalesce(amount_said, 'nothing'), ' is no amount')
            WHEN amount < 0 AND NOT may_be_negative
                THEN concat(amount_said, ' is below zero; a charge is not. Was it written for ''unknown''?')
            {counts} END AS fault
        FROM ({query}) WHERE fault IS NOT NULL LIMIT 1
    """
    for day, item, fault in engine.execute(wrong).fetchall():
        raise BillRefused(f"{path}: {day}, {item}: {fault}.")


def _lines_of(row: Mapping[str, Any]) -> _Found:
    seller = SELLERS.get(row["provider"], row["provider"])
    who = {"provider": seller, **{name: row[name] for name in _TEXTS}}
    day, may_be_negative = row["dt"], row["may_be_negative"]
    amount = charge(Decimal(row["amount"]), day=day, item=row["item"], may_be_negative=may_be_negative)
    lines = [BillLine(day, "cost", **who, amount=amount, currency=row["currency"])]
    covers: set[tuple[LineKind, date]] = {("cost", day)}
    if row["input_tokens"] is not None or row["output_tokens"] is not None:
        lines.append(BillLine(day, "usage", **who, **{name: row[name] for name in _NUMBERS}))
        covers.add(("usage", day))
    return seller, lines, covers
