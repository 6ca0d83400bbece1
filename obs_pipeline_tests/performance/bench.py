"""How fast the pipeline is on this machine: files to marts through Dagster, beside what the bare engine does.

``python -m obs_pipeline_tests.performance.bench [--events N] [--agents A] [--days D] [--data DIR] [--keep]``

Every stage runs in a process of its own, so that its time includes its start and its peak memory is its own. Nothing
is asserted: the numbers are printed and written to ``bench-results/NAME.json``. State lives in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

RESULTS: Final = Path(__file__).resolve().parents[2] / "bench-results"
LARGE: Final = 1_000_000
"""From so many events on, the fleet is 2,000 agents over 30 days."""
HISTORY_EVENTS: Final = 200_000
HISTORY_DAYS: Final = 365
HISTORY_AGENTS: Final = 20
SHORT_DAYS: Final = 30
REPEATS: Final = 3
INCIDENTS: Final = 10_000
ROUTES: Final = 200
_COMMAND: Final = (sys.executable, "-c", "from obs_pipeline.cli.main import run; run()")
_KEYS: Final = "dt, date_trunc('hour', event_time), source, org, project, team, agent, provider, model, operation"
_SUMS: Final = ", ".join(
    f"sum({name})"
    for name in (
        "input_tokens",
        "cache_read_tokens",
        "cache_write_tokens",
        "output_tokens",
        "reasoning_tokens",
        "saved_tokens",
        "cost",
        "list_cost",
        "cost_bound",
    )
)

console = Console(highlight=False)


@dataclass(frozen=True)
class Stage:
    """What one process took: seconds on the clock and on the processors, and its largest resident memory in MB."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


def measured(name: str, command: Sequence[str], environment: Mapping[str, str]) -> Stage:
    """Run a command to its end in a process of its own.

    Raises ``SystemExit`` with the last lines of its output when it fails.
    """
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {name} …")
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{name} failed:\n{output.read().decode(errors='replace')[-2000:]}")
    stage = Stage(name, seconds, usage.ru_utime + usage.ru_stime, _megabytes(usage.ru_maxrss))
    console.print(f"         {stage.seconds:.1f} s, peak {stage.peak_mb:,.0f} MB")
    return stage


def _megabytes(peak: int) -> float:
    """``ru_maxrss`` is in kilobytes, on macOS in bytes."""
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a stage. Compiled modules are kept, as on any machine that starts a command twice."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OBS_")}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return inherited | {
        "OBS_HOME": str(home),
        "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "obs-pipeline-bench-modules"),
        "DAGSTER_DISABLE_TELEMETRY": "true",
    }


def obs(*arguments: str) -> list[str]:
    """The command ``obs-pipeline`` of this interpreter."""
    return [*_COMMAND, *arguments]


def simulate(out: Path, events: int, agents: int, days: int) -> Stage:
    """Write a fleet of about so many events."""
    command = obs("simulate", "--out", str(out), "--events", str(events), "--agents", str(agents), "--days", str(days))
    return measured(f"simulate {events:,} events", command, environment_of(out))


def end_to_end(home: Path, usage: Path) -> list[Stage]:
    """Files to marts through Dagster: landing, batch, and both together."""
    environment = environment_of(home)
    measured("warm up", [sys.executable, "-c", "import obs_pipeline.definitions, alembic.context, pandas"], environment)
    landing = measured("landing", obs("ingest", str(usage), "--json"), environment)
    batch = measured("batch, through Dagster", obs("batch", "--all", "--json"), environment)
    total = Stage(
        "total",
        landing.seconds + batch.seconds,
        landing.cpu_seconds + batch.cpu_seconds,
        max(landing.peak_mb, batch.peak_mb),
    )
    return [landing, batch, total]


def step_seconds(home: Path) -> dict[str, float]:
    """Seconds on the clock of each step of the newest batch, in the order they began, as Dagster recorded them."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(home / "dagster")) as instance:
        (run,) = instance.get_runs(limit=1)
        found = instance.get_run_step_stats(run.run_id)
    times = sorted((step.start_time or 0.0, step.end_time or 0.0, step.step_key) for step in found)
    return {name: end - start for start, end, name in times}


def against_the_engine(home: Path) -> list[Stage]:
    """The hourly aggregation beside the bare engine, over the files of the same lake, each in a process of its own."""
    return [
        measured(
            name,
            [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--stage", name, "--home", str(home)],
            environment_of(home),
        )
        for name in ENGINE_STAGES
    ]


def _engine_stage(home: Path, name: str) -> float:
    """Seconds of one of ``ENGINE_STAGES``, without the start of the process."""
    from obs_pipeline.storage import engine
    from obs_pipeline.storage.lake import DayRange, Lake, chunk_days
    from obs_pipeline.usage.tables import USAGE_EVENTS

    lake = Lake(str(home / "lake"))
    rows = lake.rows_per_day(USAGE_EVENTS)
    days = DayRange(min(rows), max(rows))
    chunks = chunk_days(days, rows, 2_500_000)
    with engine.connect(scratch=home / "scratch") as connection:
        started = time.monotonic()
        ENGINE_STAGES[name](connection, lake, days, chunks)
        return time.monotonic() - started


def _scan(connection: Any, lake: Any, days: Any, chunks: Any) -> None:
    """Touch what the aggregation needs, and nothing else."""
    from obs_pipeline.usage.tables import USAGE_EVENTS

    lake.view(connection, USAGE_EVENTS, days)
    texts = ("source", "org", "project", "team", "agent", "provider", "model", "operation")
    touched = ", ".join(f"max({name})" for name in texts)
    connection.execute(f"SELECT max(event_time), {touched}, {_SUMS} FROM usage_events").fetchall()


def _bare_hourly(connection: Any, lake: Any, days: Any, chunks: Any) -> None:
    """Plain sums by the same keys in one query over every file."""
    from obs_pipeline.usage.tables import USAGE_EVENTS

    lake.view(connection, USAGE_EVENTS, days)
    connection.execute(
        f"CREATE TEMP TABLE bare AS SELECT {_KEYS}, count(*), {_SUMS} FROM usage_events GROUP BY {_KEYS}"
    )


def _our_hourly(connection: Any, lake: Any, days: Any, chunks: Any) -> None:
    """The project's query with histograms, chunk by chunk as a batch does it, into memory."""
    from obs_pipeline.usage.aggregates import hourly_rows
    from obs_pipeline.usage.tables import USAGE_EVENTS

    for chunk in chunks:
        lake.view(connection, USAGE_EVENTS, chunk)
        hourly_rows(connection).read_all()


def _build_hourly(connection: Any, lake: Any, days: Any, chunks: Any) -> None:
    """The same, written to the lake."""
    from obs_pipeline.usage.aggregates import build_hourly

    for chunk in chunks:
        build_hourly(connection, lake, chunk)


ENGINE_STAGES: Final[Mapping[str, Callable[[Any, Any, Any, Any], None]]] = {
    "bare scan": _scan,
    "bare hourly group-by": _bare_hourly,
    "hourly.sql": _our_hourly,
    "build_hourly, written": _build_hourly,
}


def one_day_against_history(folder: Path) -> dict[str, float]:
    """Seconds of a one-day batch at the end of 30 days and at the end of 365: the fastest of a few runs each.

    The same last days in both lakes, so that only the history differs.
    """
    simulate(folder / "fleet", HISTORY_EVENTS, HISTORY_AGENTS, HISTORY_DAYS)
    files = sorted((folder / "fleet" / "usage").glob("*.parquet"))
    day = max(date.fromisoformat(file.stem[:10]) for file in files)
    found = {}
    for length in (SHORT_DAYS, HISTORY_DAYS):
        first = day - timedelta(days=length - 1)
        usage = folder / f"{length}-days.parquet"
        _join([file for file in files if date.fromisoformat(file.stem[:10]) >= first], usage)
        environment = environment_of(folder / f"days-{length}")
        measured(f"land {length} days", obs("ingest", str(usage), "--json"), environment)
        measured(f"batch of {length} days", obs("batch", "--all", "--json"), environment)
        one_day = obs("batch", "--from", str(day), "--to", str(day), "--json")
        runs = [measured(f"one day, {length} days in the lake", one_day, environment) for _ in range(REPEATS)]
        found[f"wall_s_with_{length}_days"] = min(run.seconds for run in runs)
        found[f"cpu_s_with_{length}_days"] = statistics.median(run.cpu_seconds for run in runs)
    return found


def routing() -> dict[str, float]:
    """Seconds of one pass that decides 10,000 incidents over 200 routes: the fastest of a few, and incidents a second."""
    from obs_pipeline.alerting.lanes import Past
    from obs_pipeline.alerting.pipeline import decide
    from obs_pipeline_tests.alerting.cases import HOUR, NOON, many_incidents, many_routes

    routes, incidents = many_routes(ROUTES), many_incidents(INCIDENTS)
    seconds = []
    for _ in range(REPEATS):
        started = time.monotonic()
        decided = decide(routes, incidents, [], Past(), NOON + HOUR)
        seconds.append(time.monotonic() - started)
    return {
        "incidents": INCIDENTS,
        "routes": ROUTES,
        "decisions": len(decided.traces),
        "seconds": min(seconds),
        "incidents_per_second": INCIDENTS / min(seconds),
    }


def _join(files: Sequence[Path], into: Path) -> None:
    """One file of many: the history is to be long, not its landing."""
    import duckdb

    listing = ", ".join(f"'{file}'" for file in files)
    duckdb.sql(f"COPY (SELECT * FROM read_parquet([{listing}])) TO '{into}' (FORMAT parquet)")


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    packages = ("dagster", "duckdb", "deltalake", "pyarrow", "numpy")
    return {
        "cores": os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def _table(title: str, stages: Sequence[Stage]) -> Table:
    table = Table("", title=title, title_justify="left")
    for column in ("seconds", "processor seconds", "peak MB"):
        table.add_column(column, justify="right")
    for stage in stages:
        table.add_row(stage.name, f"{stage.seconds:.2f}", f"{stage.cpu_seconds:.2f}", f"{stage.peak_mb:,.0f}")
    return table


def run(
    events: int, agents: int, days: int, data: Path | None, home: Path, *, history: bool, large: bool
) -> dict[str, Any]:
    """Measure everything and print it as it comes."""
    from obs_pipeline_tests.performance import policy_bench

    facts = machine()
    if data is None:
        data = home / "fleet"
        simulate(data, events, agents, days)
    stages = end_to_end(home / "obs", data / "usage")
    steps = step_seconds(home / "obs")
    bare = against_the_engine(home / "obs")
    bare_seconds = {stage.name: _engine_seconds(home / "obs", stage.name) for stage in bare}
    base = bare_seconds["bare hourly group-by"]
    ratios = {name: seconds / base for name, seconds in bare_seconds.items()}
    one_day = one_day_against_history(home / "history") if history else {}
    policies = policy_bench.policy_stages(home / "policies", *(policy_bench.LARGE if large else policy_bench.USUAL))
    console.print()
    console.print(_table(f"Files to marts, {events:,} events", stages))
    console.print("steps of the batch, seconds: " + ", ".join(f"{name} {took:.1f}" for name, took in steps.items()))
    compared = Table("", title="Hourly aggregation", title_justify="left")
    for column in ("seconds", "× the bare group-by", "peak MB of the process"):
        compared.add_column(column, justify="right")
    for stage in bare:
        row = (bare_seconds[stage.name], ratios[stage.name], stage.peak_mb)
        compared.add_row(stage.name, f"{row[0]:.2f}", f"{row[1]:.2f}", f"{row[2]:,.0f}")
    console.print(compared)
    for name, seconds in one_day.items():
        console.print(f"one day: {name} {seconds:.2f}")
    console.print(_table("Policies: projects × agents", policy_bench.stages_of(policies)))
    looked_up = ", ".join(f"{name} {took:.1f}" for name, took in policies["effective_one_agent_ms"].items())
    console.print(f"effective policy of one agent from the ledger, milliseconds: {looked_up}")
    from obs_pipeline_tests.performance import detection_day, detector_speed, finance_bench, source_bench

    judged = detection_day.detection_of_one_day(home / "detection")
    pace = detector_speed.values_per_second()
    console.print(detector_speed.table_of(pace))
    (home / "sources").mkdir()
    sources = source_bench.throughput(source_bench.USUAL, home / "sources")
    console.print(source_bench.table_of(sources))
    finance = finance_bench.finance_speed(finance_bench.USUAL, home / "finance")
    console.print(str(finance))
    routed = routing()
    console.print(
        f"routing: {routed['incidents']:,.0f} incidents over {routed['routes']:.0f} routes in {routed['seconds']:.2f} s, "
        f"{routed['incidents_per_second']:,.0f} a second"
    )
    return {
        "events": events,
        "agents": agents,
        "days": days,
        "machine": facts,
        "end_to_end": [asdict(stage) for stage in stages],
        "step_seconds": steps,
        "engine_seconds": bare_seconds,
        "ratio_to_bare_group_by": ratios,
        "engine_peak_mb": {stage.name: stage.peak_mb for stage in bare},
        "one_day": one_day,
        "policies": policies,
        "sources": source_bench.rows_of(sources),
        "finance": asdict(finance),
        "routing": routed,
        "detection_of_one_day": judged,
        "values_judged_a_second": pace,
    }


def _engine_seconds(home: Path, name: str) -> float:
    return float((home / f"bench-{name}.txt".replace(" ", "-")).read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--agents", type=int)
    parser.add_argument("--days", type=int)
    parser.add_argument("--data", type=Path, help="a simulated fleet to use instead of a new one")
    parser.add_argument("--home", type=Path, help="where state goes; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the state for a look at it")
    parser.add_argument("--no-history", action="store_true", help="leave out one day against 30 and 365 days")
    parser.add_argument("--stage", choices=list(ENGINE_STAGES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        seconds = _engine_stage(asked.home, asked.stage)
        (asked.home / f"bench-{asked.stage}.txt".replace(" ", "-")).write_text(str(seconds))
        return
    large = asked.events >= LARGE
    agents = asked.agents or (2000 if large else 30)
    days = asked.days or (30 if large else 7)
    home = Path(tempfile.mkdtemp(prefix="obs-bench-", dir=asked.home))
    try:
        result = run(asked.events, agents, days, asked.data, home, history=not asked.no_history, large=large)
    finally:
        if asked.keep:
            console.print(f"State is in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{asked.events}-events.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"Written to {path.relative_to(RESULTS.parent)}")


if __name__ == "__main__":
    main()
