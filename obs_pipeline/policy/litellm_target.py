"""Effective policies in the words of a LiteLLM proxy: what to send to its management API, and what it cannot say.

A project becomes a team (``POST /team/new``, or ``/team/update`` once it exists), an agent a virtual key of its team
(``POST /key/generate``) and a budget of its name (``POST /budget/new``). Sending is someone else's business. Everything
that would be lost or would mean something else over there is returned beside the settings, with the reason: a limit is
never dropped in silence.

Sources
-------
The request fields are those of ``NewTeamRequest``, ``GenerateKeyRequest`` and ``BudgetNewRequest`` of LiteLLM 1.108.
``budget_limits`` is a list of ``{budget_duration, max_budget}`` windows in USD, each with a reset of its own. A window
of ``1d`` resets at midnight, ``7d`` on Monday, ``30d`` on the first of the month, all in the one time zone of the
proxy's own settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from obs_pipeline.policy.effective import EffectivePolicy, FieldKey
from obs_pipeline.policy.schema import Period, Place

DURATION: Final[Mapping[Period, str]] = {"hourly": "1h", "daily": "1d", "weekly": "7d", "monthly": "30d"}
CURRENCY: Final = "USD"
ORIGIN: Final = "obs_pipeline"
"""Under which name the files behind the limits are noted over there."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One request: where it is posted, and its body, ready for JSON."""

    place: Place
    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Untranslated:
    """A field of a place that the proxy will not hold to as the policy means it."""

    place: Place
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class LiteLLMSettings:
    """Teams before the keys that belong to them, each in reading order."""

    settings: tuple[Setting, ...]
    untranslated: tuple[Untranslated, ...]


def litellm_settings(policies: Iterable[EffectivePolicy]) -> LiteLLMSettings:
    """The settings of every project and agent given. Limits of whole organisations are told as untranslated."""
    given = sorted(policies, key=lambda policy: (policy.place.scope == "agent", *map(_or_empty, policy.place)))
    below = [policy for policy in given if policy.place.scope != "org"]
    return LiteLLMSettings(
        tuple(_setting(policy) for policy in below),
        tuple(lost for policy in given for lost in _untranslated(policy)),
    )


def litellm_budgets(policies: Iterable[EffectivePolicy]) -> Iterator[Setting]:
    """A budget named after each agent, for whoever makes its key to name as ``budget_id``: limits from the first call.

    A budget holds one window, so it has the shortest; the key gets all of them.
    """
    for policy in policies:
        if policy.place.scope == "agent":
            windows, rate = _windows(policy), policy.rate_limits.get("calls_per_minute")
            body = {**(windows[0] if windows else {}), **({} if rate is None else {"rpm_limit": rate.value})}
            if body:
                yield Setting(policy.place, "/budget/new", {"budget_id": str(policy.place), **body})


def team_id(place: Place) -> str | None:
    """The team of a project, the same for everything below it; an agent outside any project has none."""
    return None if place.project is None else f"{place.org}/{place.project}"


def _or_empty(part: str | None) -> str:
    return part or ""


def _setting(policy: EffectivePolicy) -> Setting:
    place = policy.place
    body: dict[str, Any] = {
        **_names(place),
        "budget_limits": _windows(policy),
        "metadata": {ORIGIN: _provenance(policy)},
    }
    rate = policy.rate_limits.get("calls_per_minute")
    if rate is not None:
        body["rpm_limit"] = rate.value
    return Setting(place, "/team/new" if place.scope == "project" else "/key/generate", body)


def _windows(policy: EffectivePolicy) -> list[dict[str, Any]]:
    """The cost limits, the shortest period first."""
    return [
        {"budget_duration": DURATION[limit.period], "max_budget": float(limit.value)}
        for limit in policy.limits
        if limit.kind == "cost" and limit.currency == CURRENCY
    ]


def _names(place: Place) -> dict[str, str]:
    team = team_id(place)
    if place.scope == "project":
        return {"team_id": str(team), "team_alias": str(place.project)}
    return {"key_alias": str(place), **({} if team is None else {"team_id": team})}


def _provenance(policy: EffectivePolicy) -> dict[str, list[str]]:
    # Whoever looks at a budget on the proxy's own page should find the file that set it.
    decided = {str(limit.key): limit.decided_by for limit in policy.limits}
    decided |= {f"rate_limits.{name}": rate.decided_by for name, rate in policy.rate_limits.items()}
    return {name: [str(ref) for ref in refs] for name, refs in decided.items()}


def _untranslated(policy: EffectivePolicy) -> Iterator[Untranslated]:
    place = policy.place
    if place.scope == "org":
        for limit in policy.limits:
            yield Untranslated(place, str(limit.key), "teams have no common total here; each project gets the limit")
        return
    for limit in policy.limits:
        reason = _lost(limit.kind, limit.currency)
        if reason is not None:
            yield Untranslated(place, str(limit.key), reason)
    for name in policy.rate_limits:
        if name != "calls_per_minute":
            yield Untranslated(place, f"rate_limits.{name}", "only a rate per minute can be set")
    yield from _calendar(policy)


def _lost(kind: str, currency: str) -> str | None:
    if kind != "cost":
        return f"budgets are money only; {kind} are held by the budget status here"
    return None if currency == CURRENCY else f"budgets are in {CURRENCY} only"


def _calendar(policy: EffectivePolicy) -> Iterator[Untranslated]:
    limited = {limit.period for limit in policy.limits if limit.kind == "cost" and limit.currency == CURRENCY}
    zone, week = policy.time_zone.value, policy.week_start.value
    if zone != "UTC" and limited - {"hourly"}:
        named = FieldKey("calendar", "time_zone")
        yield Untranslated(policy.place, str(named), f"set timezone: {zone} for the whole proxy; it is UTC otherwise")
    if week != "monday" and "weekly" in limited:
        yield Untranslated(policy.place, str(FieldKey("calendar", "week_start")), f"weeks begin on Monday, not {week}")
