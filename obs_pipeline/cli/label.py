"""``obs-pipeline label``: what a person says of an anomaly, for the detection to heed."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated

import typer

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError


def label(
    anomaly_id: Annotated[str, typer.Argument(help="The anomaly's id, or the beginning of it.")],
    verdict: Annotated[str, typer.Argument(help="real, false_positive or planned.")],
    note: Annotated[str, typer.Option(help="Why.")] = "",
    by: Annotated[str, typer.Option("--by", help="Who says so; you, if not named.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say whether an anomaly was **real**, a **false_positive** or **planned**.

    A real or planned one is not learned from; false positives raise the thresholds of their series for 90 days, real ones
    lower them a little. It holds for days computed from now on; 'obs-pipeline batch --from … --to …' computes earlier ones anew.
    """
    from obs_pipeline.dashboard.queries import anomaly_by_id
    from obs_pipeline.detection.incidents import ends_of
    from obs_pipeline.storage.anomaly_labels import VERDICTS, AnomalyLabel, AnomalyLabels

    if verdict not in VERDICTS:
        raise ObsError(f"{verdict!r} is no verdict; it is one of {', '.join(VERDICTS)}.")
    workspace = open_workspace()
    with workspace.engine() as connection:
        found = anomaly_by_id(connection, workspace.lake, anomaly_id)
    if len(found) != 1:
        many = f"the beginning of several ids: {', '.join(one.id for one in found)}" if found else "no anomaly's id"
        raise ObsError(f"{anomaly_id} is {many}. 'obs-pipeline anomalies' lists them.")
    (one,) = found
    said = AnomalyLabel(
        anomaly_id=one.id,
        verdict=verdict,
        org=one.org,
        project=one.project,
        agent=one.agent,
        metric=one.metric,
        grain=one.grain,
        timestamp=one.timestamp,
        author=by or getpass.getuser(),
        note=note,
        at=utc_now(),
        ends=ends_of(one),
    )
    AnomalyLabels(workspace.ledger).add([said])
    if as_json:
        print_json(asdict(said))
    else:
        out.print(f"{one.id} of {text(one.agent)} is {verdict.replace('_', ' ')}, says {text(said.author)}.")
