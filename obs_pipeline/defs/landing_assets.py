"""Files into the lake: the asset that takes in what waits in the landing folder."""

import json
from pathlib import Path

import dagster as dg

from obs_pipeline.alerting.passes import Findings, tell
from obs_pipeline.alerting.signals import file_subject, refused_file
from obs_pipeline.clock import utc_now
from obs_pipeline.defs import source_assets
from obs_pipeline.defs.resources import (
    BatchLimits,
    EngineResource,
    LakeResource,
    LedgerResource,
    PricesResource,
)
from obs_pipeline.defs.stories import markdown_table
from obs_pipeline.storage.locks import exclusive
from obs_pipeline.usage.currencies import RateBook
from obs_pipeline.usage.inbox import Inbox
from obs_pipeline.usage.landing import Landing


@dg.asset(
    group_name="landing",
    deps=source_assets.PULLED.keys,
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
    """Land every waiting file; those that cannot be read become incidents."""
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
            RateBook.load(Path(limits.policies) / "currencies.yaml"),
        )
        reports, refusals = inbox.take_in(landing, waiting, utc_now)
    for refusal in refusals:
        context.log.error(f"{refusal.name}: {refusal.reason}")
    now = utc_now()
    findings = Findings(
        [refused_file(refusal.name, refusal.reason, now) for refusal in refusals],
        over={file_subject(report.name) for report in reports},
    )
    if reports or refusals:
        tell(ledger.open(), Path(limits.policies), findings, now)
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
