"""``obs-pipeline reconcile``: is it what we are billed?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from obs_pipeline.cli.bills import configured_bills, take_bill_file
from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.lake import DayRange

if TYPE_CHECKING:
    import pyarrow as pa

    from obs_pipeline.usage.billing.configured import Tolerance

By = Literal["day", "project", "model"]


class NothingBilled(ObsError):
    """There is no bill to compare with."""


def reconcile(
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day (UTC); default: all billed.")
    ] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day (UTC).")] = None,
    provider: Annotated[str | None, typer.Option("--provider", help="Only this seller.")] = None,
    by: Annotated[By, typer.Option("--by", help="What to sum to.")] = "day",
    billed: Annotated[
        Path | None,
        typer.Option("--billed", help="First keep the bill of this file: saved API answers (JSON), FOCUS or a table."),
    ] = None,
    name: Annotated[str | None, typer.Option("--bill", help="What to keep it as (default: its seller's name).")] = None,
    org: Annotated[str | None, typer.Option("--org", help="Whose calls the file bills (default: everyone's).")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 when a day is outside the tolerance.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Compare what was **captured with what is billed**, and say why they differ.

    The gap is exactly the sum of its terms: missing, surplus, late, unpriced, mispriced, unexplained. Days without a bill are
    not compared.
    """
    from obs_pipeline.usage.billing.reconcile import outside_tolerance, summed

    workspace = open_workspace()
    kept = take_bill_file(workspace, billed, name, org) if billed else []
    days = _days(workspace, first, last)
    tolerance = configured_bills(workspace).tolerance
    with workspace.engine() as connection:
        lines = _compared(workspace, connection, days, provider)
        rows, worst = summed(connection, lines, by), outside_tolerance(connection, lines, tolerance)
    if as_json:
        told = {"from": days.first, "to": days.last, "by": by, "kept": kept, "tolerance": tolerance.model_dump()}
        print_json({**told, "rows": rows, "outside_tolerance": worst})
    else:
        _show(rows, by, days)
        if rows:
            _show_worst(worst, tolerance)
    if strict and worst:
        raise typer.Exit(3)


def _days(workspace: Workspace, first: datetime | None, last: datetime | None) -> DayRange:
    from obs_pipeline.usage.tables import BILLED_BUCKETS

    known = workspace.lake.rows_per_day(BILLED_BUCKETS)
    if not known:
        raise NothingBilled(
            "No bill is known. Name one in policies/bills.yaml and pull it, or take one in: --billed FILE."
        )
    begin, end = first.date() if first else min(known), last.date() if last else max(known)
    if end < begin:
        raise ObsError(
            f"{begin} is after {end}: name --from and --to within the billed days, {min(known)} to {max(known)}."
        )
    return DayRange(begin, end)


def _compared(workspace: Workspace, connection: Any, days: DayRange, provider: str | None) -> pa.Table:
    import pyarrow.compute as pc

    from obs_pipeline.dashboard.unsettled import StillToCome, unsettled_days
    from obs_pipeline.usage.billing.reconcile import reconciled
    from obs_pipeline.usage.model_names import SELLERS
    from obs_pipeline.usage.pulling.configured import pulled_sources

    lateness = timedelta(hours=workspace.settings.allowed_lateness_hours)
    sources = pulled_sources(workspace.settings.policies / "sources.yaml")
    awaited = StillToCome(lateness, sources, configured_bills(workspace).bills.values())
    late = unsettled_days(connection, workspace.lake, workspace.ledger, days, awaited, utc_now())
    lines = reconciled(connection, workspace.lake, days, workspace.prices(), late)
    if provider is None:
        return lines
    return lines.filter(pc.equal(lines["provider"], SELLERS.get(provider.lower(), provider.lower())))


def _show(rows: Sequence[dict[str, Any]], by: By, days: DayRange) -> None:
    from obs_pipeline.usage.billing.reconcile import TERMS

    if not rows:
        out.print(f"Nothing was billed or captured on {days}, as far as bills speak of it.")
        return
    told = [term for term in TERMS if any(row[term] for row in rows)]
    table = Table(by, "seller", title=f"Captured against billed, {days}", title_justify="left")
    for column in ("calls", "captured", "billed", "gap", *told):
        table.add_column(column, justify="right")
    for row in rows:
        amounts = [_signed(row[column]) for column in ("gap", *told)]
        mark = " [dim]provisional[/]" if row["provisional"] and by == "day" else ""
        shown = (f"{row['calls']:,}", money(row["captured"]), money(row["billed"]), *amounts)
        table.add_row(f"{text(row[by])}{mark}", text(row["provider"]), *shown)
    out.print(table)
    gap = sum(row["gap"] for row in rows)
    terms = " ".join(f"{_signed(sum(row[term] for row in rows), always=True)} {term}" for term in told)
    out.print(f"gap {_signed(gap)} = {terms or 'nothing'}")


def _show_worst(worst: Sequence[dict[str, Any]], tolerance: Tolerance) -> None:
    allowed = f"{tolerance.share:.1%} or {money(tolerance.usd)} a day"
    if not worst:
        out.print(f"[green]Every day is within the tolerance[/] of {allowed}.")
        return
    out.print(f"[yellow]{len(worst)} outside the tolerance[/] of {allowed}, the widest:")
    for row in worst[:5]:
        out.print(f"  {row['dt']} {text(row['provider'])}: {_signed(row['off'])} of {money(row['billed'])} billed")


def _signed(amount: Any, *, always: bool = False) -> str:
    """Money with its sign before the dollar."""
    if amount < 0:
        return f"-{money(-amount)}"
    return f"+{money(amount)}" if always else str(money(amount))
