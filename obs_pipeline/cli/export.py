"""``obs-pipeline export``: what leaves the pipeline for other tools."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    import pyarrow as pa

app = typer.Typer(name="export", help="Write what other tools read.", no_args_is_help=True)


class ExportError(ObsError):
    """An export that cannot be written."""


@app.callback()
def export() -> None:
    """Write what other tools read."""


@app.command("focus")
def focus(
    month: Annotated[str, typer.Option("--month", help="The month, as YYYY-MM (UTC).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write; .parquet or .csv says the format.")],
    org: Annotated[str | None, typer.Option("--org", help="Only this organisation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a month's cost as **FOCUS 1.2** (Parquet or CSV), one row an hour, agent, model and operation.

    The rows come to exactly the cost of the month. Calls without a price cost 0 there and are counted in x_UnpricedCalls.
    """
    from obs_pipeline.dashboard.focus import focus_rows, month_of

    asked = month_of(month)
    if output.suffix not in (".parquet", ".csv"):
        raise ExportError(f"{output}: the name must end in .parquet or .csv.")
    if not output.absolute().parent.is_dir():
        raise ExportError(f"{output.parent}: no such folder. Make it first.")
    workspace = open_workspace()
    with workspace.engine() as connection:
        rows, cost, unpriced = _write(focus_rows(connection, workspace.lake, asked, org=org), output)
    told = {"file": str(output), "month": str(asked), "rows": rows, "billed_cost": cost, "unpriced_calls": unpriced}
    if as_json:
        print_json(told)
        return
    out.print(f"{text(output)}: {rows:,} charges of {asked}, {money(cost)}")
    if not rows:
        whose = f" of {text(org)}" if org else ""
        out.print(f"[yellow]No usage{whose} is known in {asked}[/]: the file has its columns, and no charge.")
    if unpriced:
        out.print(
            f"[yellow]{unpriced:,} calls have no price[/]; they cost 0 in the file. Add prices and compute again."
        )


def _write(rows: pa.RecordBatchReader, output: Path) -> tuple[int, Decimal, int]:
    """Write to a file beside the target, then move it there; returns rows, billed cost and calls without a price."""
    import pyarrow.compute as pc

    partial = output.with_name(f".{output.name}.part")
    count, cost, unpriced = 0, Decimal(0), 0
    try:
        with _writer(partial, output.suffix, rows.schema) as writer:
            for batch in rows:
                writer.write_batch(_as_written(batch, output.suffix))
                count += batch.num_rows
                cost += pc.sum(batch["BilledCost"]).as_py() or Decimal(0)
                unpriced += pc.sum(batch["x_UnpricedCalls"]).as_py() or 0
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return count, cost, unpriced


def _writer(path: Path, suffix: str, schema: pa.Schema) -> Any:
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    if suffix == ".parquet":
        return pq.ParquetWriter(path, schema)
    return pa_csv.CSVWriter(path, _as_written(schema.empty_table(), suffix).schema)


def _as_written(rows: Any, suffix: str) -> Any:
    """For CSV, times as ISO 8601 with a Z; Parquet keeps its types."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if suffix == ".parquet":
        return rows
    columns = [
        pc.strftime(column.cast(pa.timestamp("s", "UTC")), "%Y-%m-%dT%H:%M:%SZ")
        if pa.types.is_timestamp(column.type)
        else column
        for column in rows.columns
    ]
    made = pa.table if isinstance(rows, pa.Table) else pa.record_batch
    return made(columns, names=rows.schema.names)
