"""Policies for tests: a short way to write one, and random trees of them.

The random trees live in a tiny world (one agent, few priorities, limits and periods), so that policies meet often.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from hypothesis import strategies as st

from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.schema import BudgetPolicy, Place

AT = datetime(2026, 5, 6, 12)
AGENT = Place("acme", "web", "bot")
PROJECT = Place("acme", "web")
ORG = Place("acme")
PLACES = (ORG, PROJECT, AGENT, Place("acme", None, "bot"), Place("acme", "app"), Place("globex"))


def policy(place: Place, **fields) -> SourcedPolicy:
    """A policy for ``place`` in a file named after its id; the id is the scope unless given."""
    names = {"scope": place.scope, "scope_id": place.scope_id}
    if place.scope != "org":
        names["org"] = place.org
    if place.scope == "agent" and place.project is not None:
        names["project"] = place.project
    stated = {"id": place.scope, "name": place.scope, **names, **fields}
    return SourcedPolicy.of(BudgetPolicy.model_validate(stated), f"{stated['id']}.yaml")


def cost(limit, period="daily", **more) -> dict:
    return {"limit": limit, "period": period, **more}


_amounts = st.integers(0, 6)
_increases = st.lists(
    st.fixed_dictionaries(
        {
            "from": st.sampled_from(["2026-05-01", "2026-05-06", "2026-05-07", "2026-05-06T12:00:00Z"]),
            "until": st.sampled_from(["2026-05-08", "2026-05-09", "2026-05-08T12:00:00+02:00"]),
            "limit": st.integers(7, 9),
            "reason": st.just("a launch"),
        }
    ),
    max_size=2,
)


def _limits(currencies):
    one = st.fixed_dictionaries(
        {"limit": _amounts, "period": st.sampled_from(["daily", "monthly"]), **currencies},
        optional={"increases": _increases},
    )
    return st.lists(one, max_size=2, unique_by=lambda limit: limit["period"])


_fields = st.fixed_dictionaries(
    {
        "inheritance": st.sampled_from(["inherit", "override", "merge"]),
        "priority": st.sampled_from([10, 50, 80]),
    },
    optional={
        "budgets": st.fixed_dictionaries(
            {},
            optional={
                "cost": _limits({"currency": st.sampled_from(["USD", "USD", "USD", "EUR"])}),
                "calls": _limits({}),
            },
        ),
        "rate_limits": st.fixed_dictionaries({}, optional={"calls_per_minute": _amounts, "burst_allowance": _amounts}),
        "alerts": st.fixed_dictionaries(
            {},
            optional={
                "thresholds": st.lists(st.sampled_from([50, 80, 95, 100]), max_size=2),
                "channels": st.lists(st.sampled_from(["widget", "email", "slack"]), max_size=2),
            },
        ),
    },
)
_calendars = st.sampled_from(
    [None, {"time_zone": "Asia/Kolkata"}, {"time_zone": "America/New_York", "week_start": "sunday"}]
)


@st.composite
def policies(draw, place=None, **fixed) -> SourcedPolicy:
    """One random policy, without an id of its own."""
    where = place or draw(st.sampled_from([*PLACES, AGENT, PROJECT, ORG, AGENT, PROJECT, ORG]))
    fields = {**draw(_fields), **fixed}
    if where.scope == "org":
        fields["calendar"] = draw(_calendars)
    return policy(where, **fields)


def named(tree: list[SourcedPolicy]) -> list[SourcedPolicy]:
    """The policies with ids (and so files) of their own."""
    return [
        SourcedPolicy.of(each.policy.model_copy(update={"id": f"p{number}"}), f"p{number}.yaml")
        for number, each in enumerate(tree)
    ]


trees = st.lists(policies(), max_size=8).map(named)


def values(effective) -> dict[str, Decimal]:
    """Everything that limits, by field."""
    limits = {str(limit.key): Decimal(limit.value) for limit in effective.limits}
    return limits | {name: Decimal(rate.value) for name, rate in effective.rate_limits.items()}
