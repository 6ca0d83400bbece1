"""Dated rates: which one holds on a day, what is refused, and that a change leaves the days before alone."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.settings import project_root
from obs_pipeline.usage.currencies import CurrenciesInvalid, NoRate, Rate, RateBook

JANUARY, FEBRUARY = date(2026, 1, 1), date(2026, 2, 1)


def book(folder: Path, text: str) -> RateBook:
    path = folder / "currencies.yaml"
    path.write_text(text)
    return RateBook.load(path)


def a_rate(begins: date, usd: str, currency: str = "EUR") -> Rate:
    return Rate.model_validate({"currency": currency, "from": begins, "usd": usd})


TWO = RateBook([a_rate(FEBRUARY, "1.2"), a_rate(JANUARY, "1.1")])


@pytest.mark.parametrize(
    ("day", "rate"),
    [
        (JANUARY, "1.1"),
        (date(2026, 1, 31), "1.1"),
        (FEBRUARY, "1.2"),
        (date(2030, 6, 1), "1.2"),
    ],
)
def test_a_rate_holds_from_its_day_until_the_next_begins(day: date, rate: str):
    assert TWO.rate("EUR", day) == Decimal(rate)
    assert TWO.rate(" eur", day) == Decimal(rate)


def test_a_day_before_the_first_rate_has_none():
    with pytest.raises(NoRate, match=r"EUR has no rate on 2025-12-31: its first one begins on 2026-01-01"):
        TWO.usd(Decimal(1), "EUR", date(2025, 12, 31))


@pytest.mark.parametrize("currency", ["GBP", "", "EU"])
def test_a_currency_without_rates_is_never_taken_for_dollars(currency: str):
    with pytest.raises(NoRate, match=r"currencies\.yaml"):
        TWO.usd(Decimal(1), currency, FEBRUARY)


def test_a_dollar_is_a_dollar_on_every_day():
    assert RateBook().usd(Decimal("1.23"), "usd", date.min) == Decimal("1.230000000")


def test_a_rate_keeps_every_digit_that_is_written(tmp_path: Path):
    rates = book(tmp_path, "rates:\n  - {currency: JPY, from: 2026-01-01, usd: 0.006412345678}\n")
    assert rates.usd(Decimal(1_000_000), "JPY", JANUARY) == Decimal("6412.345678")


@given(
    st.dates(JANUARY, date(2027, 1, 1)),
    st.dates(JANUARY, date(2027, 1, 1)),
    st.decimals("0.01", "999", places=6),
)
def test_a_new_rate_changes_no_day_before_it(day: date, begins: date, usd: Decimal):
    changed = RateBook([a_rate(JANUARY - timedelta(1), "1.1"), a_rate(begins, str(usd))])
    expected = usd if day >= begins else Decimal("1.1")
    assert changed.rate("EUR", day) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rates: [{currency: USD, from: 2026-01-01, usd: 1}]", "USD is what the others are stated in"),
        ("rates: [{currency: EUR, from: 2026-01-01, usd: 0}]", "greater than 0"),
        ("rates: [{currency: EUR, from: 2026-01-01, usd: .nan}]", "usd"),
        ("rates: [{currency: eur, from: 2026-01-01, usd: 1}]", "currency"),
        ("rates: [{currency: EUR, usd: 1}]", "from"),
        (
            "rates: [{currency: EUR, from: 2026-01-01, usd: 1}, {currency: EUR, from: 2026-01-01, usd: 2}]",
            "EUR has two rates from 2026-01-01 on",
        ),
        ("rates: [", "cannot be read"),
    ],
)
def test_rates_that_cannot_be_used_are_told_with_their_place(tmp_path: Path, text: str, told: str):
    with pytest.raises(CurrenciesInvalid, match=r"currencies\.yaml") as error:
        book(tmp_path, text)
    assert told in str(error.value)


def test_no_file_is_no_rates(tmp_path: Path):
    with pytest.raises(NoRate):
        RateBook.load(tmp_path / "none.yaml").rate("EUR", JANUARY)


def test_the_shipped_file_can_be_read():
    RateBook.load(project_root() / "policies" / "currencies.yaml")
