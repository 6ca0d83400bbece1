"""The lake tables of the policy room: columns, keys, meaning, and policies and budgets as their rows.

Only shapes and the way into them. What holds and what was spent are decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from obs_pipeline.policy.diff import fields_of
from obs_pipeline.policy.effective import EffectivePolicy, Step
from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.status import BudgetStatus
from obs_pipeline.storage.lake import LakeTable
from obs_pipeline.usage.event import MONEY_SUM, TIME
from obs_pipeline.usage.tables import DT

_PLACE: Final = (
    pa.field("scope", pa.string(), nullable=False),
    pa.field("org", pa.string(), nullable=False),
    pa.field("project", pa.string()),
    pa.field("agent", pa.string()),
)

EFFECTIVE_POLICIES: Final = LakeTable(
    "effective_policies",
    pa.schema(
        [
            DT,
            *_PLACE,
            pa.field("field", pa.string(), nullable=False),
            pa.field("field_group", pa.string(), nullable=False),
            pa.field("name", pa.string(), nullable=False),
            pa.field("period", pa.string()),
            pa.field("currency", pa.string()),
            pa.field("value", pa.string(), nullable=False),
            pa.field("amount", MONEY_SUM),
            pa.field("decided_by", pa.string(), nullable=False),
            pa.field("files", pa.string(), nullable=False),
            pa.field("set_at", pa.string()),
            pa.field("trail", pa.string(), nullable=False),
            pa.field("conflicts", pa.int64(), nullable=False),
        ]
    ),
    ("dt", "scope", "org", "project", "agent", "field"),
    "Which limits held at the end of each day for everybody who was used or has a policy: one row a field, with the "
    "policies that decided it and, as JSON, everything the chain said about it.",
)

BUDGET_STATUS: Final = LakeTable(
    "budget_status",
    pa.schema(
        [
            DT,
            pa.field("judged_at", TIME, nullable=False),
            *_PLACE,
            pa.field("kind", pa.string(), nullable=False),
            pa.field("period", pa.string(), nullable=False),
            pa.field("currency", pa.string(), nullable=False),
            pa.field("window_start", TIME, nullable=False),
            pa.field("window_end", TIME, nullable=False),
            pa.field("limit_amount", MONEY_SUM, nullable=False),
            pa.field("spent", MONEY_SUM),
            pa.field("spent_upper", MONEY_SUM),
            pa.field("ratio", pa.float64()),
            pa.field("ratio_upper", pa.float64()),
            pa.field("state", pa.string(), nullable=False),
            pa.field("crossed", MONEY_SUM),
            pa.field("crossed_upper", MONEY_SUM),
            pa.field("burn_short", pa.float64()),
            pa.field("burn_long", pa.float64()),
            pa.field("projected_exhaustion", TIME),
            pa.field("set_at", pa.string(), nullable=False),
            pa.field("files", pa.string(), nullable=False),
            pa.field("channels", pa.string(), nullable=False),
            pa.field("window_key", pa.string(), nullable=False),
        ]
    ),
    ("dt", "scope", "org", "project", "agent", "kind", "period", "currency"),
    "Where every budget stood at the end of each day, or when a day under way was computed: spent in its window, as an "
    "interval where calls are unpriced, how fast, and exhausted when. Amounts are USD, tokens or calls.",
)


def effective_rows(day: date, policies: Iterable[EffectivePolicy]) -> Iterator[dict[str, Any]]:
    """One row a field of every effective policy."""
    for policy in policies:
        for key, decided in fields_of(policy).items():
            refs = decided.decided_by
            yield {
                "dt": day,
                **_place(policy.place),
                "field": str(key),
                "field_group": key.group,
                "name": key.name,
                "period": key.period or None,
                "currency": key.currency or None,
                "value": _text(decided.value),
                "amount": Decimal(decided.value) if key.is_limit else None,
                "decided_by": ", ".join(ref.id for ref in refs),
                "files": ", ".join(decided.files),
                "set_at": refs[0].scope if refs else None,
                "trail": json.dumps([_step(step) for step in decided.trail]),
                "conflicts": sum(conflict.field == str(key) for conflict in policy.conflicts),
            }


def status_rows(day: date, stood: Iterable[tuple[datetime, BudgetStatus]]) -> Iterator[dict[str, Any]]:
    """One row a limit, for the instants of one day."""
    copied = [name for name in BUDGET_STATUS.schema.names if name in BudgetStatus.__dataclass_fields__]
    for at, row in stood:
        yield {
            **{name: getattr(row, name) for name in copied},
            **_place(row.place),
            "dt": day,
            "judged_at": at,
            "limit_amount": row.limit,
            "files": ", ".join(row.deciding_files),
            "channels": ", ".join(row.channels),
            "window_key": row.window_key,
        }


def as_table(table: LakeTable, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows with exactly the table's columns."""
    return pa.Table.from_pylist(list(rows), schema=table.schema)


def _place(place: Place) -> dict[str, str | None]:
    return {"scope": place.scope, "org": place.org, "project": place.project, "agent": place.agent}


def _step(step: Step) -> dict[str, object]:
    return {
        "policy": step.by.id,
        "file": step.by.file,
        "line": step.by.line,
        "scope": step.by.scope,
        "priority": step.by.priority,
        "value": _text(step.value),
        "outcome": step.outcome,
        "replaced_by": None if step.replaced_by is None else step.replaced_by.id,
        "raise": None if step.increase is None else step.increase.reason,
    }


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
