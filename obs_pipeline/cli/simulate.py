"""``obs-pipeline simulate``: a labelled fleet to try things on."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from obs_pipeline.cli.console import out, print_json, progress
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.settings import get_settings

_DAYS_WORTH_A_PROCESS = 30


def simulate_fleet(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder to write usage files and labels to.")],
    agents: Annotated[int, typer.Option(min=1, help="How many agents.")] = 50,
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same fleet.")] = 0,
    start: Annotated[
        str | None, typer.Option(help="First day, YYYY-MM-DD; default: so that the last is yesterday.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Scale to about so many events.")] = None,
    faults: Annotated[bool, typer.Option(help="Inject labelled faults.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a labelled fleet: rhythms, growth, deploys, and faults whose time and kind are known.

    `usage/` holds the events as Parquet, `labels.csv` the injected faults, `benign.csv` the harmless changes.
    """
    from obs_pipeline.usage.simulation import SimulationConfig, simulate

    first = _day(start) if start else utc_now().date() - timedelta(days=days)
    config = SimulationConfig(agents=agents, days=days, seed=seed, start=first, events=events, faults=faults)
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("days"), TimeElapsedColumn())
    with progress(*columns, show=not as_json) as bar:
        task = bar.add_task("days", total=days)
        summary = simulate(
            config,
            out_dir,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            workers=get_settings().engine_threads if days > _DAYS_WORTH_A_PROCESS else 1,
        )
    if as_json:
        print_json(summary)
        return
    out.print(
        f"{summary.events:,} events of {summary.agents:,} agents over {summary.days} days, {summary.faults} faults, "
        f"{summary.bytes / 1e6:,.1f} MB in {summary.files} files."
    )
    out.print(f"Next: [bold]obs-pipeline ingest {out_dir / 'usage'}[/] and [bold]obs-pipeline batch[/].")


def _day(value: str) -> date:
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ObsError(f"'{value}' is not a day; write it as YYYY-MM-DD.") from None
