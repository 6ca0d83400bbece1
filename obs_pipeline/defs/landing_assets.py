"""Files into the lake: the asset that takes in what waits in the landing folder."""

import json
from pathlib import Path

import dagster as dg

from obs_pipeline.clock import utc_now
from obs_pipeline.defs.resources import (
    BatchLimits,
    EngineResource,
    LakeResource,
    LedgerResource,
    PricesResource,
)
from obs_pipeline.defs.stories import markdown_table
from obs_pipeline.storage.ledger import AlertRecord
from obs_pipeline.storage.locks import exclusive
from obs_pipeline.usage.inbox import Inbox, Refusal
from obs_pipeline.usage.landing import Landing


@dg.asset(
    group_name="landing",
    owners=["team:platform"],
    kinds={"file"},
    description="Usage files taken in from the landing folder, each once, whatever days their events belong to.",
)
def usage_files(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    prices: PricesResource,
    limits: BatchLimits,
) -> dg.MaterializeResult:
    """Land every waiting file; note those that cannot be read as alerts."""
    inbox = Inbox(Path(limits.landing), Path(limits.policies) / "sources")
    waiting = inbox.waiting()
    with engine.get_connection() as connection, exclusive(Path(limits.scratch), "landing"):
        landing = Landing(
            lake.open(),
            ledger.open(),
            prices.load(),
            connection,
            Path(limits.scratch),
            limits.undated,
            limits.price_tolerance,
        )
        reports, refusals = inbox.take_in(landing, waiting, utc_now)
    for refusal in refusals:
        context.log.error(f"{refusal.name}: {refusal.reason}")
        ledger.open().raise_alert(_alert(refusal))
    rows = [
        (report.name, report.source, report.rows, report.accepted, json.dumps(report.rejected), report.unpriced)
        for report in reports
    ]
    rows += [(refusal.name, "—", 0, 0, refusal.reason, 0) for refusal in refusals]
    return dg.MaterializeResult(
        metadata={
            "files": len(reports),
            "refused": len(refusals),
            "rows": sum(report.rows for report in reports),
            "landed": dg.MetadataValue.md(
                markdown_table(["file", "source", "rows", "accepted", "rejected", "unpriced"], rows)
            ),
        }
    )


def _alert(refusal: Refusal) -> AlertRecord:
    now = utc_now()
    return AlertRecord(
        key=f"file_refused:{refusal.name}:{now:%Y-%m-%d}",
        kind="file_refused",
        severity="warning",
        subject=f"{refusal.name} could not be landed",
        detail={"reason": refusal.reason},
        raised_at=now,
    )
