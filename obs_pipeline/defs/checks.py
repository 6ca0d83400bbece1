"""Asset checks: which proofs guard which table, and how their outcome is shown.

``CHECKS`` is the whole list; an asset declares its specs from it and answers each of them in its own run. Blocking
checks stop everything downstream when they fail; the others warn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from obs_pipeline.defs.stories import at_a_glance, markdown_table
from obs_pipeline.storage.proofs import Proof


@dataclass(frozen=True)
class Guard:
    """One check of one table."""

    name: str
    description: str
    blocking: bool


_UNIQUE: Final = Guard("unique_keys", "No key stands twice.", blocking=True)
_SCHEMA: Final = Guard("schema", "The stored columns and types are the declared ones.", blocking=True)
_MONEY: Final = Guard(
    "money_and_calls_conserved",
    "Cost, tokens and calls add up to the table before, exactly, day by day.",
    blocking=True,
)

CHECKS: Final[Mapping[str, tuple[Guard, ...]]] = {
    "usage_events": (
        Guard(
            "rows_in_equal_rows_out",
            "For each file and day: rows read = events + rejected + duplicates.",
            blocking=True,
        ),
        _UNIQUE,
        _SCHEMA,
        Guard("unpriced_share", "Few calls are without a price.", blocking=False),
        Guard("mispriced_calls", "Reported costs agree with the list prices.", blocking=False),
        Guard("sources_are_fresh", "Every source was heard of recently.", blocking=False),
    ),
    "usage_twins": (
        _UNIQUE,
        _SCHEMA,
        Guard("no_near_twins", "No two sources report calls that look like one and are both counted.", blocking=False),
    ),
    "usage_hourly": (
        _MONEY,
        _UNIQUE,
        _SCHEMA,
        Guard("no_negative_totals", "No total is below zero; costs may be, where a credit was booked.", blocking=True),
    ),
    "usage_daily": (_MONEY, _UNIQUE, _SCHEMA),
    "baselines": (_UNIQUE, _SCHEMA),
    "anomalies": (_UNIQUE, _SCHEMA),
    "effective_policies": (
        _UNIQUE,
        _SCHEMA,
        Guard("files_are_in_order", "Every policy file and test case can be read.", blocking=False),
        Guard("cases_hold", "The test cases beside the policies hold for what is in force.", blocking=False),
        Guard("every_agent_has_a_limit", "Every agent used lately is limited by some policy.", blocking=False),
        Guard("no_conflicts", "No two policies contradict each other.", blocking=False),
        Guard("no_unknown_scopes", "Every policy is for somebody whom usage mentions.", blocking=False),
    ),
    "budget_status": (
        _UNIQUE,
        _SCHEMA,
        Guard(
            "spend_is_the_sum_of_usage",
            "What a budget has spent is the sum of the hourly table over its window, exactly.",
            blocking=False,
        ),
    ),
    "forecasts": (
        _UNIQUE,
        _SCHEMA,
        Guard(
            "interval_coverage",
            "Replayed over a month, 80 % intervals for the day ahead hold four times in five, give or take 15 points.",
            blocking=False,
        ),
    ),
    "mart_spend": (_MONEY, _UNIQUE, _SCHEMA),
    "mart_leaderboard": (_MONEY, _UNIQUE, _SCHEMA),
    "mart_data_quality": (
        Guard("accounts_for_every_event", "Accepted rows are the events, exactly, day by day.", blocking=True),
        _UNIQUE,
        _SCHEMA,
    ),
    "billed_buckets": (
        _UNIQUE,
        _SCHEMA,
        Guard("bills_are_read", "Every configured bill could be read to its last whole day.", blocking=False),
    ),
    "reconciliation": (
        _UNIQUE,
        _SCHEMA,
        Guard(
            "terms_come_to_the_gap",
            "Missing, surplus, late, unpriced, mispriced and unexplained add up to billed less captured, exactly.",
            blocking=True,
        ),
        Guard(
            "within_tolerance",
            "No day of a seller is further off than policies/bills.yaml tolerates, what is late aside.",
            blocking=False,
        ),
    ),
    "alert_health": (
        Guard("delivery_is_quick", "95 % are sent within five minutes.", blocking=False),
        Guard("channels_succeed", "95 % of a channel's attempts succeed.", blocking=False),
        Guard("nothing_is_parked", "No channel refused a message.", blocking=False),
        Guard("the_daemon_is_alive", "Due messages are looked for.", blocking=False),
    ),
}


def specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The declarations of an asset's checks."""
    return [
        dg.AssetCheckSpec(guard.name, asset=asset, description=guard.description, blocking=guard.blocking)
        for guard in CHECKS[asset]
    ]


class Evidence:
    """Collects the proofs of an asset, chunk by chunk, and answers with one result a check."""

    def __init__(self, asset: str) -> None:
        self._asset = asset
        self._proofs: dict[str, list[Proof]] = defaultdict(list)

    def add(self, check: str, proof: Proof) -> None:
        self._proofs[check].append(proof)

    def results(self) -> list[dg.AssetCheckResult]:
        return [self._result(guard) for guard in CHECKS[self._asset]]

    def _result(self, guard: Guard) -> dg.AssetCheckResult:
        proofs = self._proofs[guard.name]
        offences = sum(proof.offences for proof in proofs)
        examples = [row for proof in proofs for row in proof.examples][:10]
        metadata: dict[str, Any] = {"offences": offences}
        if examples:
            columns = list(examples[0])
            rows = [[row.get(column) for column in columns] for row in examples]
            whole, first = markdown_table(columns, rows), at_a_glance(columns, rows)
            metadata["examples"] = dg.MetadataValue.md(first)
            if whole != first:
                metadata["more_examples"] = dg.MetadataValue.md(whole)
        return dg.AssetCheckResult(
            asset_key=self._asset,
            check_name=guard.name,
            passed=bool(proofs) and offences == 0,
            severity=dg.AssetCheckSeverity.ERROR if guard.blocking else dg.AssetCheckSeverity.WARN,
            description=None if proofs else "The step ended before this was checked.",
            metadata=metadata,
        )


def as_proof(offences: Iterable[Mapping[str, object]]) -> Proof:
    """A proof from the offences themselves."""
    found = list(offences)
    return Proof(len(found), found[:10])
