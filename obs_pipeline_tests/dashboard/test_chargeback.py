"""Chargeback: whatever the rules, the lines come to the cost to the nano-dollar."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.dashboard.chargeback import (
    ChargebackInvalid,
    ChargebackRules,
    Spend,
    as_rows,
    by_team,
    charge,
    deal,
    read_rules,
)

NANOS = st.integers(-(10**15), 10**15).map(lambda nanos: Decimal(nanos).scaleb(-9))
TEAMS = st.sampled_from(["care", "sales", "platform", None])
PROJECTS = st.sampled_from(["atlas", "beacon", "gateway", None])
SPENDS = st.dictionaries(st.tuples(TEAMS, PROJECTS), st.tuples(NANOS, st.integers(0, 10**6)), max_size=12).map(
    lambda found: [Spend(team, project, cost, calls) for (team, project), (cost, calls) in found.items()]
)
SPLITS = st.sampled_from(["cost", "calls", "even"])
SHARED = st.fixed_dictionaries(
    {"split": SPLITS, "project": st.sampled_from(["gateway", "atlas"])},
    optional={"team": st.sampled_from(["platform", "care"]), "among": st.sampled_from([(), ("care",), ("nobody",)])},
)
RULES = st.fixed_dictionaries(
    {
        "shared": st.lists(SHARED, max_size=3),
        "unattributed": st.one_of(st.just("keep"), SPLITS),
        "margin": st.fixed_dictionaries({"default": st.decimals(0, 1, places=3)}),
    }
).map(ChargebackRules.model_validate)


def rules(**said: Any) -> ChargebackRules:
    return ChargebackRules.model_validate(said)


def paid(spends: list[Spend], said: ChargebackRules) -> dict[tuple[str | None, str | None], Decimal]:
    return {(line.team, line.project): line.cost for line in charge(spends, said).lines}


@given(SPENDS, RULES)
def test_the_lines_come_to_the_cost_of_the_month_whatever_the_rules(spends: list[Spend], said: ChargebackRules):
    charged = charge(spends, said)
    assert charged.cost == sum(spend.cost for spend in spends)
    assert charged.total == sum(line.total for line in charged.lines)


@given(SPENDS, RULES, st.randoms())
def test_the_order_of_the_spend_does_not_matter_by_more_than_the_remainders(
    spends: list[Spend], said: ChargebackRules, random: Any
):
    shuffled = list(spends)
    random.shuffle(shuffled)
    one, other = paid(spends, said), paid(shuffled, said)
    assert one.keys() == other.keys()
    assert all(abs(one[key] - other[key]) <= Decimal("0.000000012") for key in one)


@given(SPENDS, RULES)
def test_teams_sum_to_the_same_total(spends: list[Spend], said: ChargebackRules):
    charged = charge(spends, said)
    assert sum(line.total for line in by_team(charged.lines)) == charged.total


@given(st.integers(-(10**18), 10**18), st.lists(st.fractions(0, 10**9), min_size=1, max_size=9))
def test_dealing_gives_whole_parts_that_come_to_the_amount(amount: int, weights: list[Fraction]):
    parts = deal(amount, weights)
    assert sum(parts) == amount
    if sum(weights):
        exact = [Fraction(amount) * weight / sum(weights) for weight in weights]
        assert all(abs(part - share) < 1 for part, share in zip(parts, exact, strict=True))


CARE = Spend("care", "atlas", Decimal("3"), 10)
SALES = Spend("sales", "beacon", Decimal("1"), 30)
GATEWAY = Spend("platform", "gateway", Decimal("0.000000010"), 5)


@pytest.mark.parametrize(
    ("split", "care", "sales"),
    [("cost", "0.000000008", "0.000000002"), ("calls", "0.000000003", "0.000000007"), ("even", "5E-9", "5E-9")],
)
def test_a_shared_cost_is_borne_as_the_rule_says(split: str, care: str, sales: str):
    found = paid([CARE, SALES, GATEWAY], rules(shared=[{"project": "gateway", "split": split}]))
    assert found == {("care", "atlas"): 3 + Decimal(care), ("sales", "beacon"): 1 + Decimal(sales)}


def test_only_the_teams_named_bear_it():
    found = paid([CARE, SALES, GATEWAY], rules(shared=[{"team": "platform", "split": "even", "among": ["sales"]}]))
    assert found == {("care", "atlas"): Decimal(3), ("sales", "beacon"): Decimal("1.00000001")}


def test_what_nobody_is_there_to_bear_stays_a_line_of_its_own():
    found = paid([CARE, GATEWAY], rules(shared=[{"team": "platform", "split": "even", "among": ["nobody"]}]))
    assert found == {("care", "atlas"): Decimal(3), ("platform", "gateway"): GATEWAY.cost}


def test_usage_without_a_team_is_kept_or_split():
    loose = Spend(None, "atlas", Decimal(4), 1)
    assert paid([CARE, SALES, loose], rules())[(None, "atlas")] == 4
    assert paid([CARE, SALES, loose], rules(unattributed="cost")) == {("care", "atlas"): 6, ("sales", "beacon"): 2}


def test_the_margin_is_of_own_and_shared_cost_and_may_differ_by_team():
    said = rules(margin={"default": "0.1", "teams": {"sales": 0}}, shared=[{"project": "gateway", "split": "even"}])
    lines = {line.team: line for line in charge([CARE, SALES, GATEWAY], said).lines}
    assert lines["care"].margin == Decimal("0.300000000")
    assert lines["sales"].margin == 0


def test_a_row_says_who_pays_what():
    (row,) = as_rows(charge([Spend(None, None, Decimal("1.5"), 2)], rules(margin={"default": "0.5"})).lines)
    assert row == {
        "team": "unattributed",
        "project": None,
        "calls": 2,
        "own": Decimal("1.5"),
        "shared": 0,
        "margin": Decimal("0.75"),
        "total": Decimal("2.25"),
    }


def test_the_shipped_rules_and_a_missing_file_change_nothing(tmp_path: Path):
    shipped = Path(__file__).parents[2] / "policies" / "chargeback.yaml"
    assert read_rules(shipped) == read_rules(tmp_path / "none.yaml") == ChargebackRules()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("shared: [{split: even}]", r"shared\.0: .*name a team"),
        ("shared: [{team: a, split: fair}]", r"shared\.0\.split"),
        ("margin: {default: -0.1}", r"margin\.default"),
        ("unattributd: keep", "unattributd"),
        ("shared: [", "cannot be read"),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_the_place(tmp_path: Path, text: str, complaint: str):
    path = tmp_path / "chargeback.yaml"
    path.write_text(text)
    with pytest.raises(ChargebackInvalid, match=complaint) as caught:
        read_rules(path)
    assert str(path) in str(caught.value)
