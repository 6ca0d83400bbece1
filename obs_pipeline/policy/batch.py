"""Effective policies and budgets of whole days into the lake.

Puts the pure parts of this room together for a range of days: what held at the end of each, and what was spent by
then. A day is judged at its last microsecond, when the windows that end with it are still open; a day that is not over
yet at the moment of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import cached_property
from typing import Final

import duckdb
import pyarrow as pa

from obs_pipeline.policy.effective import Conflict, EffectivePolicy
from obs_pipeline.policy.eras import Era, eras
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet
from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.spend import spend_between, used_places
from obs_pipeline.policy.status import budget_history, hours_to_split, spend_span
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES, as_table, effective_rows, status_rows
from obs_pipeline.policy.windows import Window
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.usage.tables import USAGE_HOURLY

LOOK_BACK_DAYS: Final = 40
"""How long before a day a place must have been used to have a policy on that day without one being written for it."""

_ROWS_OF_DAYS: Final = f"""
    era_days JOIN era_rows ON era_rows.era = era_days.era
    WHERE EXISTS (
        SELECT 1 FROM written_for AS place
        WHERE place.era = era_days.era AND place.org = era_rows.org
            AND place.project IS NOT DISTINCT FROM era_rows.project AND place.agent IS NOT DISTINCT FROM era_rows.agent
    ) OR EXISTS (
        SELECT 1 FROM (
            SELECT DISTINCT day.dt, used.org, used.project, used.agent
            FROM era_days AS day JOIN (SELECT DISTINCT dt, org, project, agent FROM usage_hourly) AS used
                ON used.dt BETWEEN day.dt - {LOOK_BACK_DAYS} AND day.dt
        ) AS lately
        WHERE lately.dt = era_days.dt AND lately.org = era_rows.org
            AND (era_rows.project IS NULL OR lately.project = era_rows.project)
            AND (era_rows.agent IS NULL OR lately.agent = era_rows.agent)
    )
"""
"""A day's rows depend on that day and those before it alone, not on the range that happens to be computed with it."""

Held = Callable[[datetime], Sequence[SourcedPolicy]]


@dataclass(frozen=True)
class Standing:
    """What held on each day of a range, and for whom."""

    days: DayRange
    moments: dict[date, datetime]
    used: tuple[Place, ...]
    eras: tuple[Era, ...]

    @cached_property
    def unlimited(self) -> tuple[Place, ...]:
        """Agents used lately for whom nothing at all is limited at the end of the range."""
        held = self.eras[-1].effective if self.eras else {}
        return tuple(
            place
            for place in self.used
            if place.scope == "agent" and place in held and not (held[place].limits or held[place].rate_limits)
        )

    @cached_property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Each conflict at the end of the range once, however many places it reaches."""
        held = self.eras[-1].effective.values() if self.eras else ()
        return tuple({conflict.message: conflict for policy in held for conflict in policy.conflicts}.values())

    def days_at(self, moment: datetime) -> Iterator[date]:
        return (day for day, at in self.moments.items() if at == moment)


def standing(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, held: Held, now: datetime) -> Standing:
    """What held at the end of each of the days that have begun, for the places used around them."""
    ends = {day: datetime.combine(day, time.max) for day in days.days()}
    moments = {day: min(end, now) for day, end in ends.items() if datetime.combine(day, time()) <= now}
    used = used_places(connection, lake, days.widened(before=LOOK_BACK_DAYS))
    return Standing(days, moments, used, tuple(eras(set(moments.values()), held, used)))


def build_effective(connection: duckdb.DuckDBPyConnection, lake: Lake, found: Standing) -> None:
    """Write what held. The rows of an era are made once and laid under each of its days by the engine."""
    tables, days, numbers = [], list[date](), list[int]()
    for number, era in enumerate(found.eras):
        rows = as_table(EFFECTIVE_POLICIES, effective_rows(found.days.first, era.effective.values()))
        tables.append(rows.append_column("era", pa.array([number] * rows.num_rows, pa.int64())))
        dated = [day for at in era.moments for day in found.days_at(at)]
        days += dated
        numbers += [number] * len(dated)
    if not tables:
        lake.replace(EFFECTIVE_POLICIES, found.days, lambda _version: EFFECTIVE_POLICIES.schema.empty_table())
        return
    connection.register("era_rows", pa.concat_tables(tables))
    connection.register("era_days", pa.table({"dt": pa.array(days, pa.date32()), "era": pa.array(numbers, pa.int64())}))
    connection.register("written_for", _written_for(found.eras))
    lake.view(connection, USAGE_HOURLY, found.days.widened(before=LOOK_BACK_DAYS))
    columns = ", ".join(f"era_{'days' if name == 'dt' else 'rows'}.{name}" for name in EFFECTIVE_POLICIES.schema.names)
    query = f"SELECT {columns} FROM {_ROWS_OF_DAYS}"
    lake.replace(EFFECTIVE_POLICIES, found.days, lambda _version: connection.sql(query))


def build_status(connection: duckdb.DuckDBPyConnection, lake: Lake, found: Standing) -> None:
    """Write where every budget stood at the place whose policy states it; what comes down from above stands there."""
    stated = [(at, era_policies) for era in found.eras for era_policies in [_stated(era)] for at in era.moments]
    spans = [span for at, policies in stated if (span := spend_span(policies, at)) is not None]
    rows = BUDGET_STATUS.schema.empty_table()
    if spans:
        whole = Window(min(span.start for span in spans), max(span.end for span in spans))
        split = sorted({hour for at, policies in stated for hour in hours_to_split(policies, at)})
        history = budget_history(stated, spend_between(connection, lake, whole, split))
        dated = ((day, row) for row in history for day in found.days_at(row[0]))
        rows = as_table(BUDGET_STATUS, (one for day, row in dated for one in status_rows(day, [row])))
    lake.replace(BUDGET_STATUS, found.days, lambda _version: rows)


def _written_for(found: Sequence[Era]) -> pa.Table:
    """The places that have a policy of their own, and those above them, in each era."""
    rows = [
        (number, *step)
        for number, era in enumerate(found)
        for step in {step for place in PolicySet(era.policies).places for step in place.chain}
    ]
    names = ("era", "org", "project", "agent")
    types = (pa.int64(), pa.string(), pa.string(), pa.string())
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=names)


def _stated(era: Era) -> list[EffectivePolicy]:
    own = (
        replace(policy, limits=tuple(limit for limit in policy.limits if limit.ref.scope == policy.place.scope))
        for policy in era.effective.values()
    )
    return [policy for policy in own if policy.limits]
