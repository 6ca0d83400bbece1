"""Bills for the commands: pulling those that are configured, taking one in from a file, telling how they are.

No command of its own: ``sources`` lists, tries and pulls bills, ``reconcile`` compares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from obs_pipeline.cli.workspace import Workspace
from obs_pipeline.clock import utc_now

if TYPE_CHECKING:
    from obs_pipeline.usage.billing.configured import Bills
    from obs_pipeline.usage.billing.lines import BillLine
    from obs_pipeline.usage.billing.pull import PulledDays
    from obs_pipeline.usage.currencies import RateBook


@dataclass(frozen=True)
class BillStatus:
    """How far a bill was read: the days before ``read_until`` (UTC)."""

    bill: str
    kind: str
    read_until: date
    pulled_at: datetime | None
    lines_pulled: int
    failure: str | None


def configured_bills(workspace: Workspace) -> Bills:
    """What ``policies/bills.yaml`` says."""
    from obs_pipeline.usage.billing.configured import read_bills

    return read_bills(workspace.settings.policies / "bills.yaml")


def bill_statuses(workspace: Workspace) -> list[BillStatus]:
    """Every configured bill, in the order of the file."""
    from obs_pipeline.storage.source_positions import SourcePositions
    from obs_pipeline.usage.billing.pull import position_key, read_until

    positions = SourcePositions(workspace.ledger)
    found = []
    for name, bill in configured_bills(workspace).bills.items():
        at = positions.get(position_key(name))
        found.append(BillStatus(name, bill.kind, read_until(at, bill), at.pulled_at, at.rows_pulled, at.failure))
    return found


def pull_bills(workspace: Workspace, names: Iterable[str]) -> tuple[list[PulledDays], list[dict[str, str]]]:
    """Pull some configured bills, each by itself: what came, and which failed and why."""
    from obs_pipeline.storage.locks import exclusive
    from obs_pipeline.storage.source_positions import SourcePositions
    from obs_pipeline.usage.billing.admin_api import fetch_bill
    from obs_pipeline.usage.billing.pull import pull_bill
    from obs_pipeline.usage.pulling.pages import PullFailed

    bills, rates = configured_bills(workspace).bills, currency_rates(workspace)
    positions, scratch = SourcePositions(workspace.ledger), workspace.settings.scratch
    pulled, failed = [], []
    with workspace.engine() as connection:
        for name in names:
            try:
                with exclusive(scratch, f"pulling-bill-{name}"):
                    done = pull_bill(
                        connection, workspace.lake, name, bills[name], fetch_bill, positions, rates, utc_now()
                    )
                pulled.append(done)
            except PullFailed as error:
                failed.append({"source": name, "failure": str(error)})
    return pulled, failed


def backfill(workspace: Workspace, name: str, first: date, until: date) -> PulledDays:
    """Fetch days of a configured bill again.

    Raises:
        PullFailed: it could not be read to its end, or is not taken.
    """
    from obs_pipeline.storage.locks import exclusive
    from obs_pipeline.usage.billing.admin_api import fetch_bill
    from obs_pipeline.usage.billing.pull import backfill_bill

    bill, rates = configured_bills(workspace).bills[name], currency_rates(workspace)
    with workspace.engine() as connection, exclusive(workspace.settings.scratch, f"pulling-bill-{name}"):
        return backfill_bill(connection, workspace.lake, name, bill, fetch_bill, rates, first, until)


def try_bill(workspace: Workspace, name: str) -> list[BillLine]:
    """What a configured bill says of the last two whole days; takes nothing in.

    Raises:
        PullFailed, BillRefused, NoRate: it could not be read, or would not be taken.
    """
    from obs_pipeline.usage.billing.admin_api import fetch_bill

    today = utc_now().date()
    bill = configured_bills(workspace).bills[name]
    return list(fetch_bill(bill, today - timedelta(days=2), today, currency_rates(workspace)).lines)


def take_bill_file(workspace: Workspace, path: Path, name: str | None, org: str | None) -> list[str]:
    """Keep the bills of a file, each under ``name`` or its seller's; their names."""
    from obs_pipeline.usage.billing.bill_file import read_bill_file
    from obs_pipeline.usage.billing.kept import keep_bill

    bills = read_bill_file(path, currency_rates(workspace), org=org)
    with workspace.engine() as connection:
        for bill in bills:
            keep_bill(connection, workspace.lake, name or bill.provider, bill)
    return [name or bill.provider for bill in bills]


def currency_rates(workspace: Workspace) -> RateBook:
    """What ``policies/currencies.yaml`` says."""
    from obs_pipeline.usage.currencies import RateBook

    return RateBook.load(workspace.settings.policies / "currencies.yaml")
