"""Prices: the join in SQL against the catalogue's own calculation, the overlay, names, bounds and refusals."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from genai_prices import Usage, calc_price
from genai_prices.data import providers as catalogue_providers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlglot import exp

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.event import EVENT_SCHEMA, MONEY, NANO_DOLLAR
from obs_pipeline.usage.model_names import model_ref, split_model
from obs_pipeline.usage.price_file import PriceFileError
from obs_pipeline.usage.pricing import BOUND_SCHEMA, RATE_SCHEMA, PriceBook, price_calls_sql, price_tolerance

PROJECT = Path(__file__).parents[2]
SHIPPED = PROJECT / "policies" / "prices.yaml"
SAMPLE = PROJECT / "sample_data" / "aider-analytics.jsonl.gz"

Row = dict[str, Any]

CATALOGUE_MODELS = [
    # As in the event: provider, model; as the catalogue wants it: provider, model.
    (None, "claude-3-5-sonnet-20241022", "anthropic", "claude-3-5-sonnet-20241022"),
    (None, "anthropic/claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-opus-4-6", "anthropic", "claude-opus-4-6"),
    (None, "gemini/gemini-2.5-pro", "google", "gemini-2.5-pro"),
    ("gcp.vertex_ai", "gemini-1.5-pro-002", "google", "gemini-1.5-pro-002"),
    (None, "o3", "openai", "o3"),
    ("OpenAI", "gpt-5.4", "openai", "gpt-5.4"),
    (None, "deepseek/deepseek-chat", "deepseek", "deepseek-chat"),
    ("deepseek", "deepseek-v4-pro", "deepseek", "deepseek-v4-pro"),
    (None, "deepseek/deepseek-flash", "deepseek", "deepseek-flash"),
    (None, "perplexity/sonar-pro", "perplexity", "sonar-pro"),
    (None, "openrouter/anthropic/claude-3.7-sonnet", "openrouter", "anthropic/claude-3.7-sonnet"),
    (None, "bedrock/us.anthropic.claude-3-5-haiku-20241022-v1:0", "aws", "us.anthropic.claude-3-5-haiku-20241022-v1:0"),
    (None, "azure/gpt-4o", "azure", "gpt-4o"),
    (None, "xai/grok-3-beta", "x-ai", "grok-3-beta"),
]
"""With tiers by size, dates, hours of the day, cache rates and none, and a fee per call."""


def call(model: str | None = "gpt-4o", **fields: Any) -> Row:
    return {
        "source": "test",
        "event_id": "e",
        "event_time": datetime(2025, 6, 1, 12),
        "event_type": "usage",
        "model": model,
        "input_tokens": 1_000_000,
        "output_tokens": 0,
    } | fields


def priced(book: PriceBook, calls: Sequence[Row], tolerance: pa.Table | None = None) -> list[Row]:
    numbered = [row | {"event_id": f"{index:09}"} for index, row in enumerate(calls)]
    models = [(row.get("provider"), row.get("model")) for row in numbered]
    with duckdb.connect() as con:
        con.register("calls", pa.Table.from_pylist(numbered, schema=EVENT_SCHEMA))
        con.register("rates", book.rates(models))
        con.register("bounds", book.bounds(models))
        con.register("price_tolerance", price_tolerance() if tolerance is None else tolerance)
        result = con.sql(f"select * from ({price_calls_sql()}) order by event_id").to_arrow_table()
    rows: list[Row] = result.to_pylist()
    assert [row["event_id"] for row in rows] == [row["event_id"] for row in numbered]
    return rows


def priced_one(book: PriceBook, **fields: Any) -> Row:
    return priced(book, [call(**fields)])[0]


def nano(amount: Decimal) -> Decimal:
    return amount.quantize(NANO_DOLLAR, ROUND_HALF_UP)


@pytest.fixture(scope="module")
def catalogue() -> PriceBook:
    return PriceBook.load(None)


@pytest.fixture(scope="module")
def shipped() -> PriceBook:
    return PriceBook.load(SHIPPED)


@pytest.fixture
def overlay(tmp_path: Path) -> Any:
    def load(text: str) -> PriceBook:
        path = tmp_path / "prices.yaml"
        path.write_text("version: 1\n" + text, encoding="utf-8")
        return PriceBook.load(path)

    return load


@st.composite
def usages(draw: st.DrawFn) -> Row:
    whole = draw(st.one_of(st.integers(0, 10**9), st.sampled_from([0, 1, 128_000, 128_001, 200_000, 200_001, 272_001])))
    read = draw(st.none() | st.integers(0, whole))
    write = draw(st.none() | st.integers(0, whole - (read or 0)))
    moment = draw(
        st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1))
        | st.sampled_from(
            [datetime(2025, 6, 9, 23, 59, 59, 999_999), datetime(2025, 6, 10), datetime(2026, 8, 17)]
            + [datetime(2026, 9, 12, hour, minute) for hour in (0, 1, 4, 6, 10, 16) for minute in (0, 29, 30)]
        )
    )
    return {
        "input_tokens": whole,
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "output_tokens": draw(st.integers(0, 10**6)),
        "event_time": moment,
    }


def catalogue_price(provider: str, model: str, row: Row) -> Decimal:
    usage = Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cache_read_tokens=row.get("cache_read_tokens") or 0,
        cache_write_tokens=row.get("cache_write_tokens") or 0,
    )
    moment = row["event_time"].replace(tzinfo=UTC)
    return calc_price(usage, model, provider_id=provider, genai_request_timestamp=moment).total_price


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(CATALOGUE_MODELS), usages()), min_size=1, max_size=40))
def test_sql_prices_a_call_exactly_as_the_catalogue_does(cases: list[tuple[tuple[str | None, str, str, str], Row]]):
    book = PriceBook.load(None)
    rows = priced(book, [call(name, provider=provider, **usage) for (provider, name, _, _), usage in cases])
    for (_, _, seller, listed), row in zip([model for model, _ in cases], rows, strict=True):
        assert row["list_cost"] == nano(catalogue_price(seller, listed, row)), row


POOL = ["deepseek/deepseek-chat", "deepseek/deepseek-v4-pro", "gemini/gemini-2.5-pro", "o3", "acme/unheard-of"]
DAYS = st.dates(date(2025, 1, 1), date(2026, 12, 1))


@st.composite
def price_texts(draw: st.DrawFn) -> tuple[list[Row], str]:
    """Dated entries that do not contradict each other, and the file that holds them."""
    entries: list[Row] = []
    names = [("model", name) for name in POOL] + [("pattern", "deepseek/*"), ("pattern", "*o3*")]
    for key, name in draw(st.lists(st.sampled_from(names), unique=True, max_size=4)):
        days = sorted(draw(st.sets(DAYS, min_size=2, max_size=4)))
        for start, end in zip(days, [*days[1:], None], strict=True):
            if draw(st.booleans()):
                rate = draw(st.decimals(0, 999, places=6))
                entries.append({key: name, "from": start, "input": str(rate), "output": "1"})
                if end:
                    entries[-1]["until"] = end
                if draw(st.booleans()):
                    entries[-1]["tiers"] = [{"above": 1000, "input": str(rate + 1), "output": "2"}]
    lines = [json.dumps(entry, default=str) for entry in draw(st.permutations(entries))]
    return entries, "version: 1\nprices: [" + ",\n".join(lines) + "]\n"


def holding(entries: list[Row], name: str, moment: datetime) -> Row | None:
    def fits(entry: Row) -> bool:
        pattern = entry.get("pattern", "")
        named = entry.get("model") == name or (pattern == "deepseek/*" and name.startswith("deepseek/"))
        return (named or (pattern == "*o3*" and "o3" in name)) and (
            entry["from"] <= moment.date() < entry.get("until", date.max)
        )

    return min(filter(fits, entries), key=lambda entry: "pattern" in entry, default=None)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(price_texts(), st.lists(st.tuples(st.sampled_from(POOL), usages()), min_size=1, max_size=20))
def test_one_price_fits_a_call_and_the_overlay_wins_on_its_days_only(
    tmp_path: Path, file: tuple[list[Row], str], cases: list[tuple[str, Row]]
):
    entries, text = file
    path = tmp_path / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    rows = priced(PriceBook.load(path), [call(name, **usage) for name, usage in cases])
    for row in rows:
        entry = holding(entries, row["model"], row["event_time"])
        if entry is not None:
            line = next((tier for tier in entry.get("tiers", []) if row["input_tokens"] > tier["above"]), entry)
            paid = row["input_tokens"] * Decimal(line["input"]) + row["output_tokens"] * Decimal(line["output"])
            assert row["list_cost"] == nano(paid / 10**6)
        elif row["model"] == "acme/unheard-of":
            assert (row["list_cost"], row["cost_source"]) == (None, "unpriced")
            assert row["cost_bound"] is not None
        else:
            seller, name = split_model(row["model"])
            assert row["list_cost"] == nano(catalogue_price(seller or "openai", name, row))


def test_the_fault_in_the_sample_is_found_with_its_ratio(shipped: PriceBook):
    row = priced_one(
        shipped,
        model="gemini/gemini-2.5-pro-preview-03-25",
        event_time=datetime(2025, 5, 7, 15, 29, 32),
        input_tokens=10_023,
        output_tokens=10,
        reported_cost=Decimal("9990.01"),
    )
    assert row["list_cost"] == Decimal("0.012628750")
    assert row["cost"] == Decimal("9990.010000000")
    assert row["cost_source"] == "reported"
    assert row["mispriced"]
    assert row["price_ratio"] == pytest.approx(791_053, abs=1)


def sample_calls() -> Iterator[Row]:
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        for record in (json.loads(line, parse_float=Decimal) for line in lines):
            what = record["properties"]
            yield call(
                what["main_model"],
                event_time=datetime.fromtimestamp(record["time"], UTC).replace(tzinfo=None),
                input_tokens=what["prompt_tokens"],
                output_tokens=what["completion_tokens"],
                reported_cost=nano(Decimal(what["cost"])) if what["cost"] else None,
            )


def test_the_shipped_prices_explain_the_sample(shipped: PriceBook):
    rows = priced(shipped, list(sample_calls()))
    unlisted = [row for row in rows if row["list_cost"] is None]
    assert {row["cost_source"] for row in unlisted if row["reported_cost"] is None} == {"unpriced"}
    assert sum(not row["model"].endswith(("REDACTED", "None")) for row in unlisted) <= 15
    both = [row for row in rows if row["list_cost"] is not None and row["reported_cost"] is not None]
    assert sum(row["mispriced"] for row in both) <= len(both) * 0.025
    worst = max(both, key=lambda row: row["price_ratio"] or 0)
    assert worst["event_time"] == datetime(2025, 5, 7, 15, 29, 32)


def test_a_price_cut_does_not_reach_the_moment_before_it(catalogue: PriceBook):
    cut = datetime(2025, 6, 10)
    before, after = priced(
        catalogue, [call("o3", event_time=cut - timedelta(microseconds=1)), call("o3", event_time=cut)]
    )
    assert (before["list_cost"], after["list_cost"]) == (Decimal(10), Decimal(2))


def test_a_new_overlay_price_does_not_touch_the_day_before(catalogue: PriceBook, overlay: Any):
    changed = overlay("prices:\n  - {model: gpt-4o, from: 2025-06-01, input: 7, output: 7}\n")
    eve = call("gpt-4o", event_time=datetime(2025, 5, 31, 23, 59, 59, 999_999))
    assert priced(changed, [eve])[0]["list_cost"] == priced(catalogue, [eve])[0]["list_cost"]
    assert priced_one(changed, model="gpt-4o", event_time=datetime(2025, 6, 1))["list_cost"] == 7


def test_an_overlay_beats_the_catalogue_all_day_where_the_catalogue_has_hours(overlay: Any):
    flat = overlay("prices:\n  - {model: deepseek/deepseek-chat, from: 2025-06-01, input: 3, output: 3}\n")
    hours = [call("deepseek/deepseek-chat", event_time=datetime(2025, 6, 1, hour, 30)) for hour in range(24)]
    assert {row["list_cost"] for row in priced(flat, hours)} == {Decimal(3)}


def test_a_night_rate_that_wraps_midnight_holds_on_both_sides_of_it(catalogue: PriceBook):
    clock = {"16:29:59": "0.27", "16:30:00": "0.135", "23:59:59": "0.135", "00:00:00": "0.135", "00:30:00": "0.27"}
    moments = [datetime.fromisoformat(f"2025-06-01 {time}") for time in clock]
    rows = priced(catalogue, [call("deepseek/deepseek-chat", event_time=moment) for moment in moments])
    assert [row["list_cost"] for row in rows] == [Decimal(rate) for rate in clock.values()]


def test_the_tier_of_the_whole_request_prices_every_token(catalogue: PriceBook):
    at, above = priced(catalogue, [call("gemini/gemini-2.5-pro", input_tokens=n) for n in (200_000, 200_001)])
    assert at["list_cost"] == Decimal("0.25")
    assert above["list_cost"] == Decimal("0.5000025")


def test_a_model_without_a_cache_rate_pays_the_input_rate_for_cached_tokens(catalogue: PriceBook):
    row = priced_one(catalogue, model="o3-pro", cache_read_tokens=900_000, cache_write_tokens=50_000)
    assert row["list_cost"] == Decimal(20)


def test_an_alias_gives_a_deployment_the_price_of_its_model(overlay: Any):
    book = overlay(
        "aliases:\n  - {from: azure/team-chat, to: gpt-4o}\n  - {from: House-Model, to: anthropic/claude-sonnet-4-5}\n"
        "  - {from: fast, provider: groq, to: llama-3.1-8b-instant}\n"
    )
    rates = book.rates([(None, "azure/team-chat"), (None, "house-model"), (None, "fast"), ("groq", "fast")]).to_pylist()
    sources = {(row["provider"], row["model"]): row["price_source"] for row in rates}
    assert sources[None, "azure/team-chat"].endswith(" azure/gpt-4o")
    assert sources[None, "house-model"].endswith(" anthropic/claude-sonnet-4-5")
    assert ("groq", "fast") in sources
    assert (None, "fast") not in sources


def test_an_exact_entry_beats_a_pattern_and_a_stated_seller_beats_none(overlay: Any):
    book = overlay(
        "prices:\n"
        "  - {pattern: '*', from: 2025-01-01, input: 1, output: 1}\n"
        "  - {pattern: azure/*, from: 2025-01-01, input: 2, output: 2}\n"
        "  - {model: gpt-4o, from: 2025-01-01, input: 3, output: 3}\n"
        "  - {model: azure/gpt-4o, from: 2025-01-01, input: 4, output: 4}\n"
    )
    names = ["anything", "azure/other", "openai/gpt-4o", "azure/gpt-4o"]
    assert [row["list_cost"] for row in priced(book, [call(name) for name in names])] == [1, 2, 3, 4]
    assert book.rates([(None, "azure/gpt-4o")]).to_pylist()[-1]["price_source"] == "prices.yaml:6"


def test_a_fee_per_call_comes_on_top_of_the_tokens(overlay: Any):
    book = overlay("prices:\n  - {model: m, from: 2025-01-01, input: 1, output: 1, call_fee: '0.02'}\n")
    assert priced_one(book, model="m")["list_cost"] == Decimal("1.02")


def every_price_of(seller: str) -> list[Row]:
    provider = next(p for p in catalogue_providers if p.id == seller)
    return [call(model.id, provider=seller, output_tokens=1_000_000) for model in provider.models]


@pytest.mark.parametrize("seller", ["anthropic", "openai", "google", "azure", "deepseek", "perplexity", "aws"])
def test_an_unknown_model_is_bounded_by_every_price_of_its_seller(catalogue: PriceBook, seller: str):
    unknown, *known = priced(
        catalogue, [call("no-such-model", provider=seller, output_tokens=1_000_000), *every_price_of(seller)]
    )
    assert (unknown["cost"], unknown["list_cost"], unknown["cost_source"]) == (None, None, "unpriced")
    listed = [row["list_cost"] for row in known if row["list_cost"] is not None]
    assert unknown["cost_bound"] >= max(listed) > 0


def test_a_reseller_is_bounded_by_what_it_resells_too(catalogue: PriceBook):
    resold = priced_one(catalogue, model="azure/o1-pro", output_tokens=1_000_000)
    unknown = priced_one(catalogue, model="azure/no-such-model", output_tokens=1_000_000)
    assert unknown["cost_bound"] >= resold["list_cost"] > 0


def test_the_bound_counts_cache_writes_and_the_overlay(overlay: Any):
    book = overlay("prices:\n  - {model: anthropic/house, from: 2030-01-01, input: 1, output: 999, cache_write: 888}\n")
    bound = book.bounds([(None, "anthropic/mystery")]).to_pylist()[0]
    assert (bound["input_rate"], bound["output_rate"]) == (888, 999)


def test_an_unknown_seller_is_bounded_by_the_dearest_of_all(catalogue: PriceBook, shipped: PriceBook):
    dearest = catalogue.bounds([("acme", "x")]).to_pylist()[0]
    assert catalogue.bounds([(None, None)]).to_pylist()[0] | {"provider": "acme", "model": "x"} == dearest
    rows = catalogue.bounds([(p.id, "no-such-model") for p in catalogue_providers]).to_pylist()
    assert dearest["output_rate"] == max(row["output_rate"] for row in rows)
    # A seller known only for a price of zero says nothing about what it might ask.
    early = priced_one(shipped, model="ollama/llama", event_time=datetime(2019, 1, 1))
    assert early["cost_source"] == "unpriced"
    assert early["cost_bound"] == dearest["input_rate"] + dearest["call_fee"]


def test_a_model_that_always_has_a_price_has_no_bound(shipped: PriceBook):
    models = [(None, "gpt-4o"), (None, "claude-3-5-haiku-20241022"), ("openai", "REDACTED"), (None, None)]
    assert shipped.bounds(models).select(["provider", "model"]).to_pylist() == [
        {"provider": None, "model": None},
        {"provider": "openai", "model": "REDACTED"},
    ]


@pytest.mark.parametrize("name", ["openai/REDACTED", "gemini/REDACTED", "openrouter/REDACTED", "None", "", "redacted"])
def test_a_name_that_says_nothing_stays_unpriced(shipped: PriceBook, name: str):
    assert shipped.rates([(None, name)]).num_rows == 0


@pytest.mark.parametrize(
    "name",
    [
        "ollama/REDACTED",
        "ollama_chat/qwen",
        "lm_studio/any/thing",
        "openrouter/google/gemini-2.5-pro-exp-03-25:free",
        "gemini/gemini-2.5-pro-exp-03-25",
        "gemini/gemini-exp-1114",
        "gemini/gemini-2.0-flash-exp",
    ],
)
def test_only_a_written_rule_makes_a_model_free(catalogue: PriceBook, shipped: PriceBook, name: str):
    row = priced_one(shipped, model=name)
    assert (row["cost"], row["cost_source"]) == (0, "list")
    assert priced_one(catalogue, model=name)["list_cost"] != 0


def test_a_model_sold_by_the_hour_or_the_page_has_no_price_per_token(catalogue: PriceBook):
    hourly = [
        (provider.id, model.id)
        for provider in catalogue_providers
        for model in provider.models
        if not isinstance(model.prices, list)
        and any(unit.endswith(("_hours", "_kpages", "_mchars")) for unit in vars(model.prices))
    ]
    assert hourly
    own = {f"{seller}/{model}" for seller, model in hourly}
    sources = {row["price_source"].split(" ", 2)[2] for row in catalogue.rates(hourly).to_pylist()}
    assert not own & sources


@pytest.mark.parametrize(
    ("model", "seller", "name"),
    [
        ("claude-3-5-sonnet-20241022", None, "claude-3-5-sonnet-20241022"),
        ("anthropic/claude-3-7-sonnet-20250219", "anthropic", "claude-3-7-sonnet-20250219"),
        ("gemini/gemini-2.5-pro-preview-03-25", "google", "gemini-2.5-pro-preview-03-25"),
        ("openrouter/anthropic/claude-3.7-sonnet", "openrouter", "anthropic/claude-3.7-sonnet"),
        ("openrouter/openrouter/quasar-alpha", "openrouter", "openrouter/quasar-alpha"),
        ("fireworks_ai/accounts/fireworks/models/deepseek-v3", "fireworks", "accounts/fireworks/models/deepseek-v3"),
        ("bedrock/us.anthropic.claude-3-5-haiku-20241022-v1:0", "aws", "us.anthropic.claude-3-5-haiku-20241022-v1:0"),
        ("vertex_ai/REDACTED", "google", "REDACTED"),
        ("together_ai/Qwen/Qwen3-235B-A22B-fp8-tput", "together", "Qwen/Qwen3-235B-A22B-fp8-tput"),
        ("xai/grok-3-beta", "x-ai", "grok-3-beta"),
        ("ollama_chat/REDACTED", "ollama", "REDACTED"),
        ("litellm_proxy/openai/gpt-4o", "openai", "gpt-4o"),
        ("Qwen/Qwen3-8B", None, "Qwen/Qwen3-8B"),
        ("openai/", None, "openai/"),
        ("None", None, "None"),
        ("", None, ""),
    ],
)
def test_a_routed_name_is_split_into_seller_and_name(model: str, seller: str | None, name: str):
    assert split_model(model) == (seller, name)


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("openrouter", "anthropic/claude-3.7-sonnet", ("openrouter", "anthropic/claude-3.7-sonnet")),
        ("litellm", "gemini/gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("aws.bedrock", "Amazon.Nova-Pro-v1:0", ("aws", "amazon.nova-pro-v1:0")),
        ("  ", "xai/grok-4", ("x-ai", "grok-4")),
        ("my-openai-clone", "gpt-4o", ("my-openai-clone", "gpt-4o")),
    ],
)
def test_a_stated_provider_beats_the_prefix_and_is_never_guessed(provider: str, model: str, expected: tuple[str, str]):
    assert model_ref(provider, model) == expected


def test_missing_counts_errors_credits_and_absurd_counts_have_their_rule(catalogue: PriceBook):
    fee = Decimal("-3")
    huge = 2**63 - 1
    cases: list[tuple[Row, Decimal | None, Decimal | None, str]] = [
        ({"input_tokens": None, "output_tokens": 1_000_000}, Decimal(10), Decimal(10), "list"),
        ({"output_tokens": None}, Decimal("2.5"), Decimal("2.5"), "list"),
        ({"input_tokens": None, "output_tokens": None}, None, None, "unpriced"),
        ({"input_tokens": None, "output_tokens": None, "error_type": "timeout"}, Decimal(0), Decimal(0), "list"),
        ({"error_type": "timeout"}, Decimal("2.5"), Decimal("2.5"), "list"),
        ({"event_type": "credit", "reported_cost": fee}, None, fee, "reported"),
        ({"event_type": "correction", "reported_cost": None}, None, None, "unpriced"),
        ({"reported_cost": Decimal(0)}, Decimal("2.5"), Decimal(0), "reported"),
        ({"cache_read_tokens": 5_000_000, "cache_write_tokens": 7}, Decimal("1.25"), Decimal("1.25"), "list"),
        ({"cache_read_tokens": huge, "cache_write_tokens": huge}, Decimal("1.25"), Decimal("1.25"), "list"),
        ({"input_tokens": 10**12}, Decimal(2_500_000), Decimal(2_500_000), "list"),
        ({"input_tokens": 10**12, "model": "o1-pro"}, Decimal(150_000_000), Decimal(150_000_000), "list"),
        ({"output_tokens": 9 * 10**12, "model": "o1-pro"}, None, None, "unpriced"),
        ({"input_tokens": huge, "output_tokens": huge}, None, None, "unpriced"),
        ({"input_tokens": huge, "model": "mystery"}, None, None, "unpriced"),
    ]
    rows = priced(catalogue, [call(**fields) for fields, *_ in cases])
    got = [(row["list_cost"], row["cost"], row["cost_source"]) for row in rows]
    assert got == [expected for _, *rest in cases for expected in [tuple(rest)]]


def test_a_reported_cost_wins_and_needs_no_bound(catalogue: PriceBook):
    row = priced_one(catalogue, model="mystery", reported_cost=Decimal("1.5"))
    assert (row["cost"], row["cost_source"], row["cost_bound"]) == (Decimal("1.5"), "reported", None)


@pytest.mark.parametrize(
    ("listed", "reported", "mispriced", "ratio"),
    [
        ("10", "10.5", False, 1.05),
        ("10", "10.500000001", True, 1.0500000001),
        ("10", "9.5", False, 0.95),
        ("10", "0", True, None),
        ("0.001", "0.002", False, 2.0),
        ("0.001", "0.002000001", True, 2.000001),
        ("999999", "999999999", True, 1000.001),
        ("0", "0.5", True, None),
        ("0", "0", False, None),
    ],
)
def test_beyond_tolerance_is_the_larger_of_a_share_and_an_amount(
    overlay: Any, listed: str, reported: str, mispriced: bool, ratio: float | None
):
    book = overlay(f"prices:\n  - {{model: m, from: 2025-01-01, input: '{listed}', output: 0}}\n")
    row = priced_one(book, model="m", reported_cost=Decimal(reported))
    assert (row["mispriced"], row["price_ratio"]) == (mispriced, ratio and pytest.approx(ratio))


def test_the_tolerance_is_the_caller_s(catalogue: PriceBook):
    calls = [call("gpt-4o", reported_cost=Decimal("2.6"))]
    assert not priced(catalogue, calls)[0]["mispriced"]
    assert priced(catalogue, calls, price_tolerance(relative=Decimal("0.01")))[0]["mispriced"]


def test_the_query_adds_its_columns_to_those_of_calls_and_money_keeps_its_type(catalogue: PriceBook):
    with duckdb.connect() as con:
        con.register("events", EVENT_SCHEMA.empty_table())
        con.sql("create view calls as select *, 7 as further from events")
        con.register("rates", RATE_SCHEMA.empty_table())
        con.register("bounds", BOUND_SCHEMA.empty_table())
        con.register("price_tolerance", price_tolerance())
        schema = con.sql(price_calls_sql()).to_arrow_table().schema
    added = ["list_cost", "cost_bound", "cost", "cost_source", "price_ratio", "mispriced"]
    assert schema.names == [*EVENT_SCHEMA.names, "further", *added]
    assert [schema.field(name).type for name in added] == [MONEY, MONEY, MONEY, pa.string(), pa.float64(), pa.bool_()]
    assert catalogue.rates([]).schema == RATE_SCHEMA


def test_the_query_reads_the_same_in_duckdb_and_in_spark():
    duck, spark = (sqlglot.parse_one(price_calls_sql(), read=dialect) for dialect in ("duckdb", "spark"))
    assert duck.transform(same_types).sql("spark") == spark.transform(same_types).sql("spark")
    assert not list(spark.find_all(exp.Anonymous))


def same_types(node: exp.Expression) -> exp.Expression:
    """``timestamp`` is the one word that the dialects file under different types; in UTC they mean the same."""
    if isinstance(node, exp.DataType) and "TIMESTAMP" in node.this.value:
        return exp.DataType.build("timestamp")
    return node


def test_the_version_follows_the_file_and_nothing_else(overlay: Any, catalogue: PriceBook):
    one, again, other = overlay("prices: []\n"), overlay("prices: []\n"), overlay("prices: [] # 2\n")
    assert one.version == again.version
    assert len({one.version, other.version, catalogue.version}) == 3


GOOD = "model: m, from: 2025-01-01, input: 1, output: 1"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("prices:\n  - {model: m, from: 2025-01-01, input: -1, output: 1}", 3, "prices.0.input: must not be negative"),
        ("prices:\n  - {model: m, from: 2025-01-01, input: 1, output: NaN}", 3, "prices.0.output: must be a finite"),
        ("prices:\n  - {model: m, from: 2025-01-01, input: Infinity, output: 1}", 3, "must be a finite"),
        ("prices:\n  - {model: m, from: 2025-01-01, input: 1000000, output: 1}", 3, "placeholder, not a price"),
        ("prices:\n  - {model: m, from: 2025-01-01, input: 0.1234567, output: 1}", 3, "more than 6 decimals"),
        ("prices:\n  - {model: m, from: 2025-01-01, input: yes, output: 1}", 3, "must be a number"),
        (f"prices:\n  - {{{GOOD}, tiers: [{{above: 5, input: -2, output: 1}}]}}", 3, "tiers.0.input: must not be neg"),
        (
            f"prices:\n  - {{{GOOD}, tiers: [{{above: 5, input: 2, output: 1}}, {{above: 5, input: 2, output: 1}}]}}",
            3,
            "tiers must rise",
        ),
        (f"prices:\n  - {{{GOOD}}}\n  - {{{GOOD}, inptu: 3}}", 4, "prices.1.inptu: unknown field"),
        ("prices:\n  - model: m\n    input: 1\n    output: 1", 3, "prices.0.from: missing"),
        ("prices:\n  - model: m\n    from: soon\n    input: 1\n    output: 1", 4, "prices.0.from: must be a day"),
        (f"prices:\n  - {{{GOOD}, until: 2025-01-01}}", 3, "until must be after from"),
        (f"prices:\n  - {{{GOOD}, pattern: 'm*'}}", 3, "not both"),
        ("prices:\n  - {from: 2025-01-01, input: 1, output: 1}", 3, "not neither"),
        (f"prices:\n  - {{{GOOD}}}\n  - {{{GOOD}}}", 4, "overlaps line 3"),
        (
            f"prices:\n  - {{{GOOD}, until: 2025-03-02}}\n  - {{model: M, from: 2025-03-01, input: 1, output: 1}}",
            4,
            "overlaps",
        ),
        (
            "prices:\n  - {pattern: xai/*, from: 2025-01-01, input: 1, output: 1}\n"
            "  - {provider: x-ai, pattern: '*', from: 2026-01-01, input: 1, output: 1}",
            4,
            "overlaps line 3",
        ),
        ("aliases:\n  - {from: a, to: b}\n  - {from: A, to: c}", 4, "already has an alias"),
        ("aliases:\n  - {from: a}", 3, "aliases.0.to: missing"),
        ("prices: 3", 2, "must be a list"),
        ("prices: []\nprices: []", 3, "'prices' is given twice"),
        ("prices: [", 3, "not valid YAML"),
        ("prices:\n  - ? [a]\n    : 1", 3, "not valid YAML"),
        ("version: 2", 2, "given twice"),
    ],
)
def test_a_bad_price_file_is_refused_with_line_field_and_reason(overlay: Any, text: str, line: int, says: str):
    with pytest.raises(PriceFileError) as caught:
        overlay(text + "\n")
    assert f"prices.yaml:{line}: " in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ObsError)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"- 1\n", b"version: 3\n", b"\x00"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "prices.yaml"
    path.write_bytes(content)
    with pytest.raises(PriceFileError, match=r"prices\.yaml"):
        PriceBook.load(path)


def test_a_missing_price_file_is_named(tmp_path: Path):
    with pytest.raises(PriceFileError, match=r"nowhere\.yaml: cannot read the price file .* check the path"):
        PriceBook.load(tmp_path / "nowhere.yaml")


def test_rates_are_read_as_written_and_neighbouring_dates_do_not_overlap(overlay: Any):
    book = overlay(
        "prices:\n  - {model: m, from: 2025-01-01, until: 2025-02-01, input: 0.1, output: 1e-6}\n"
        "  - {model: m, from: 2025-02-01, input: '0.300000', output: 999999.999999}\n"
    )
    rows = book.rates([(None, "m")]).to_pylist()
    assert [(row["input_rate"], row["output_rate"]) for row in rows] == [
        (Decimal("0.1"), Decimal("0.000001")),
        (Decimal("0.3"), Decimal("999999.999999")),
    ]
    assert [(row["valid_from"], row["valid_to"]) for row in rows] == [
        (datetime(2025, 1, 1), datetime(2025, 2, 1)),
        (datetime(2025, 2, 1), None),
    ]
