"""``obs-pipeline detect``: any table of measurements in, the same table with scores out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import out, print_json, progress, severity, text
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    import pyarrow as pa

_WORST: Final = 10
_LONG: Final = 300_000  # rows from which the work is long enough to watch


def detect(
    file: Annotated[Path, typer.Argument(help="CSV with timestamp,value and, if you like, series and exposure.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV to write.")],
    config: Annotated[
        Path | None,
        typer.Option(help="Settings (YAML): marks, band, incident_rate, cycles, counters, usage_model, workers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score every row of FILE by how odd it is to its own series' past.

    Any step from seconds to days, regular or not, any order of rows; no training. Each row gets **baseline**, **lower**,
    **upper**, **score** (0–100, comparable between series), **confidence** (the probability that an alarm here is right),
    **severity** (none, info, warning, critical) and **method**.
    """
    from obs_pipeline.detection.panel_config import PanelConfig, load_panel_config
    from obs_pipeline.detection.panel_score import LARGEST_VALUE
    from obs_pipeline.detection.series_file import answers, read_series, score_file, write_answers

    _check(file, output)
    started = time.perf_counter()
    settings = PanelConfig() if config is None else load_panel_config(config)
    series = read_series(file)
    rows = series.values.size
    with progress(show=rows >= _LONG) as bar:
        task = bar.add_task("scoring", total=rows)
        scores = score_file(series, settings, progress=lambda done: bar.advance(task, done))
    table = answers(series, scores)
    write_answers(table, output)
    summary = _summary(table, len(series.names), output, time.perf_counter() - started)
    summary["beyond_limit"] = int((abs(series.values) > LARGEST_VALUE).sum())
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _check(file: Path, output: Path) -> None:
    if not file.is_file():
        raise ObsError(f"{file}: there is no such file; name a CSV with the columns timestamp and value.")
    if not output.parent.is_dir():
        raise ObsError(f"{output}: there is no directory {output.parent}; create it first.")
    if output.is_dir():
        raise ObsError(f"{output}: is a directory; name a file to write.")
    if output.exists() and output.samefile(file):
        raise ObsError(f"{output}: is the file to read; choose another name for the result.")


def _summary(table: pa.Table, series: int, output: Path, seconds: float) -> dict[str, object]:
    """Counts, and the rows that score highest."""
    import pyarrow.compute as pc

    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["severity"]).to_pylist()}
    worst = table.take(pc.select_k_unstable(table, min(_WORST, table.num_rows), [("score", "descending")]))
    return {
        "rows": table.num_rows,
        "series": series,
        "unknown": pc.sum(pc.equal(table["method"], "missing"), min_count=0).as_py(),
        "severities": {name: counts.get(name, 0) for name in ("critical", "warning", "info", "none")},
        "worst": [row for row in worst.to_pylist() if row["score"] > 0],
        "output": str(output),
        "seconds": round(seconds, 3),
    }


def _show(summary: dict[str, object]) -> None:
    severities, worst = summary["severities"], summary["worst"]
    assert isinstance(severities, dict)
    assert isinstance(worst, list)
    found = ", ".join(f"{severities[name]} {severity(name)}" for name in ("critical", "warning", "info"))
    out.print(
        f"{summary['rows']:,} rows of {summary['series']:,} series in {summary['seconds']} s: {found}.", highlight=False
    )
    if summary["beyond_limit"]:
        out.print(f"{summary['beyond_limit']:,} values beyond 1e100 were taken for 1e100.", highlight=False)
    if worst:
        shown = Table("score", "", "series", "timestamp", "value", "usual", "method")
        for row in worst:
            names = {name.strip().lower(): value for name, value in row.items()}
            shown.add_row(
                f"{row['score']:.1f}",
                severity(row["severity"]),
                text(names.get("series")),
                text(names["timestamp"]),
                text(names["value"]),
                "—" if row["baseline"] is None else f"{row['baseline']:.6g}",
                text(row["method"]),
            )
        out.print(shown)
    out.print(f"Written to {text(summary['output'])}.", highlight=False)
