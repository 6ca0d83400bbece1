"""The four rules once more, as slowly and plainly as possible: the second opinion that resolution is checked against.

There is no fold and no state here. For every statement of every policy it asks from scratch whether it stands, by
looking at all policies below it.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

KINDS = ("cost", "tokens", "calls")


def naive(place, sources, at):
    """Plain dictionaries: limits, united, calendar, conflicts, ignored."""
    chain = [(place.org, None, None)]
    if place.project is not None:
        chain.append((place.org, place.project, None))
    if place.agent is not None:
        chain.append((place.org, place.project, place.agent))
    said_by_level = [strongest(level, sources) for level in chain]
    calendar = calendar_of(said_by_level[0])
    statements = [
        (depth, source, key, value)
        for depth, level in enumerate(said_by_level)
        for source in level
        if depth == 0 or source.policy.inheritance != "inherit"
        for key, value in stated(source.policy, calendar[0], at)
    ]
    last = len(chain) - 1
    standing = [each for each in statements if stands(each, said_by_level, last)]
    limits, united = {}, {}
    for _, source, key, value in standing:
        if key[0] == "alerts":
            united.setdefault(key, set()).update(value)
        elif key not in limits or value < limits[key][0]:
            limits[key] = (value, source.policy.id)
    return {
        "limits": limits,
        "united": {key: sorted(found) for key, found in united.items()},
        "calendar": calendar,
        "conflicts": sorted(
            [
                *twins(said_by_level),
                *refusals(statements, said_by_level),
                *currencies(standing),
            ]
        ),
        "ignored": sorted([*outranked(chain, sources), *inherited(said_by_level, calendar[0], at)]),
    }


def written_for(policy):
    if policy.scope == "org":
        return (policy.scope_id, None, None)
    if policy.scope == "project":
        return (policy.org, policy.scope_id, None)
    return (policy.org, policy.project, policy.scope_id)


def strongest(level, sources):
    here = [source for source in sources if written_for(source.policy) == level]
    top = [source for source in here if not any(other.policy.priority > source.policy.priority for other in here)]
    return sorted(top, key=lambda source: source.policy.id)


def calendar_of(org_level):
    for source in org_level:
        if source.policy.calendar is not None:
            return source.policy.calendar.time_zone, source.policy.calendar.week_start
    return "UTC", "monday"


def stated(policy, zone, at):
    for kind in KINDS:
        for limit in getattr(policy.budgets, kind):
            amount = limit.limit
            for increase in limit.increases:
                if instant(increase.starts, zone) <= at < instant(increase.until, zone):
                    amount = max(amount, increase.limit)
            yield (kind, limit.period, limit.currency if kind == "cost" else ""), amount
    if policy.rate_limits:
        for name, amount in policy.rate_limits.model_dump(exclude_none=True).items():
            yield ("rate", name, ""), amount
    if policy.alerts and policy.alerts.thresholds:
        yield ("alerts", "thresholds", ""), policy.alerts.thresholds
    if policy.alerts and policy.alerts.channels:
        yield ("alerts", "channels", ""), policy.alerts.channels


def instant(moment, zone):
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time(), ZoneInfo(zone))
    return moment.astimezone(UTC).replace(tzinfo=None)


def stands(statement, said_by_level, until):
    depth, source, key, _ = statement
    for below in range(depth + 1, until + 1):
        level = said_by_level[below]
        if not level or any(each.policy.inheritance != "override" for each in level):
            continue
        if key[0] == "alerts" or source.policy.priority <= level[0].policy.priority:
            return False
    return True


def twins(said_by_level):
    return [
        ("twins", "priority", tuple(source.policy.id for source in level)) for level in said_by_level if len(level) > 1
    ]


def refusals(statements, said_by_level):
    for depth, level in enumerate(said_by_level):
        if depth == 0 or not level or any(each.policy.inheritance != "override" for each in level):
            continue
        held = [each for each in statements if each[0] < depth and stands(each, said_by_level, depth)]
        own = [each for each in statements if each[0] == depth]
        for key in {each[2] for each in held if each[2][0] != "alerts"}:
            guard = min(each[3] for each in held if each[2] == key)
            first = next(each for each in held if each[2] == key and each[3] == guard)
            wishes = [each[3] for each in own if each[2] == key]
            if not wishes or min(wishes) > guard:
                ids = (first[1].policy.id, *(source.policy.id for source in level))
                yield ("refused_override", field(key), ids)


def currencies(standing):
    for period in ("hourly", "daily", "weekly", "monthly"):
        found = [each for each in standing if each[2][:2] == ("cost", period)]
        if len({each[2][2] for each in found}) > 1:
            yield ("currency", f"budgets.cost.{period}", tuple(sorted(each[1].policy.id for each in found)))


def field(key):
    if key[0] == "rate":
        return f"rate_limits.{key[1]}"
    if key[0] == "alerts":
        return f"alerts.{key[1]}"
    return f"budgets.{key[0]}.{key[1]}" + (f" ({key[2]})" if key[2] else "")


def outranked(chain, sources):
    for level in chain:
        top = strongest(level, sources)
        for source in sources:
            if written_for(source.policy) == level and source not in top:
                yield (source.policy.id, "")


def inherited(said_by_level, zone, at):
    for level in said_by_level[1:]:
        for source in level:
            if source.policy.inheritance == "inherit":
                yield from ((source.policy.id, field(key)) for key, _ in stated(source.policy, zone, at))
