"""How fast each kind of source is read, beside a bare read of the same file by the engine, and whether memory stays flat.

``python -m obs_pipeline_tests.performance.source_bench [--rows N] [--times 1 4 16] [--only NAME ...]``: for each adapter a file
of N rows and files of so many times as many, each read in a process of its own; for each kind of bill so many months of days,
pulled from a seller on the loopback. Nothing is asserted. ``bench`` takes the numbers of the first two sizes into its results.

Peaks alone do not show that memory is flat: the allocators of three libraries keep what they once had, each by habits of its own,
so that the peak of more blocks is a little higher. So what is held on average over the second and over the last quarter of the
largest file is told beside them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

START: Final = datetime(2026, 5, 1)
NOW: Final = datetime(2026, 6, 1)
TIMES: Final = (1, 4)
EVERY: Final = (1, 4, 16)
USUAL: Final = 50_000
"""Enough to fill the blocks that are held: below that, memory grows with the file."""
_SPANS_A_LINE: Final = 20
_LINES_A_DAY: Final = 500
"""Of a bill: so many projects, models and kinds of tokens on each day."""


@dataclass(frozen=True)
class Throughput:
    """Of one adapter, at its largest size: rows a second, and how many times the bare read it takes (processor seconds).

    ``peak_mb``: the memory at each size. ``held_mb``: what was held on average in the second and the last quarter of the largest.
    """

    adapter: str
    rows: int
    rows_per_second: float
    times_the_bare_read: float | None
    peak_mb: tuple[float, ...]
    held_mb: tuple[float, float]


def _when(number: int) -> datetime:
    return START + timedelta(milliseconds=number * 11)


def _litellm(number: int) -> dict[str, Any]:
    end = _when(number) + timedelta(milliseconds=900)
    return {
        "request_id": f"chatcmpl-{number}", "litellm_call_id": f"call-{number}", "call_type": "acompletion",
        "spend": 0.00123 + number % 100 / 1e6, "prompt_tokens": 1200 + number % 900, "completion_tokens": 80 + number % 50,
        "startTime": _when(number).isoformat(), "endTime": end.isoformat(), "completionStartTime": end.isoformat(),
        "model": "openai/gpt-4o", "model_group": "gpt-4o", "custom_llm_provider": "openai", "team_id": f"t{number % 7}",
        "organization_id": "acme", "status": "success", "cache_hit": "False", "request_tags": ["a", "b"],
        "metadata": {"user_api_key_alias": f"bot-{number % 200}", "additional_usage_values": {"cache_read_input_tokens": 512}},
    }  # fmt: skip


def _langfuse(number: int) -> dict[str, Any]:
    return {
        "id": f"o{number}", "projectId": "p", "traceId": f"t{number}", "type": "GENERATION", "name": f"bot-{number % 200}",
        "startTime": _when(number).isoformat() + "Z", "endTime": (_when(number) + timedelta(seconds=1)).isoformat() + "Z",
        "providedModelName": "gpt-4o", "totalCost": 0.0012, "level": "DEFAULT",
        "usageDetails": {"input": 1000 + number % 90, "input_cached_tokens": 200, "output": 60, "output_reasoning_tokens": 20},
    }  # fmt: skip


def _helicone(number: int) -> dict[str, Any]:
    return {
        "request_id": f"h{number}", "response_id": f"r{number}", "request_created_at": _when(number).isoformat(),
        "organization_id": "acme", "provider": "OPENAI", "model": "gpt-4o", "prompt_tokens": 1000 + number % 90,
        "prompt_cache_read_tokens": 200, "completion_tokens": 60, "latency": 900, "time_to_first_token": 0,
        "status": 200, "cost": 1_200_000, "properties": {"agent": f"bot-{number % 200}", "team": "care"},
    }  # fmt: skip


def _claude_code(number: int) -> dict[str, Any]:
    usage = {
        "input_tokens": 20,
        "cache_read_input_tokens": 9_000,
        "cache_creation_input_tokens": 300,
        "output_tokens": 90,
    }
    return {
        "type": "assistant", "timestamp": _when(number).isoformat() + "Z", "sessionId": f"s{number % 90}", "uuid": f"u{number}",
        "requestId": f"req_{number}", "cwd": "/home/ada/desk", "version": "2.1.0",
        "message": {"id": f"msg_{number}", "model": "claude-sonnet-4-5", "usage": usage},
    }  # fmt: skip


def _claude_code_otel(number: int) -> dict[str, Any]:
    def record(at: int) -> dict[str, Any]:
        said = {
            "event.name": "api_request", "session.id": f"s{at % 90}", "event.sequence": at, "model": "claude-sonnet-4-5",
            "input_tokens": 20, "cache_read_tokens": 9_000, "cache_creation_tokens": 300, "output_tokens": 90,
            "cost_usd": "0.0123", "duration_ms": 900, "user.id": "u1",
        }  # fmt: skip
        return {
            "timeUnixNano": str(_nanoseconds(at)),
            "body": {"stringValue": "claude_code.api_request"},
            "attributes": _attributes(said),
        }

    first = number * _SPANS_A_LINE
    records = [record(at) for at in range(first, first + _SPANS_A_LINE)]
    return {
        "resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"scope": {"name": "claude"}, "logRecords": records}]}]
    }


def _aider(number: int) -> dict[str, Any]:
    said = {
        "main_model": "gpt-4o", "edit_format": f"bot-{number % 200}", "prompt_tokens": 1_000 + number % 90,
        "completion_tokens": 60, "total_tokens": 1_060, "cost": 0.0012, "total_cost": 0.5 + number / 1e3,
    }  # fmt: skip
    return {
        "event": "message_send",
        "properties": said,
        "user_id": f"u{number % 90}",
        "time": int(_nanoseconds(number) / 1e9),
    }


def _canonical(number: int) -> dict[str, Any]:
    return {
        "event_id": f"e{number}", "event_time": _when(number).isoformat(), "org": "acme", "agent": f"bot-{number % 200}",
        "provider": "openai", "model": "gpt-4o", "input_tokens": 1000 + number % 90, "output_tokens": 60,
        "reported_cost": "0.0012", "latency_ms": 900.0,
    }  # fmt: skip


def _nanoseconds(number: int) -> int:
    return int((_when(number) - datetime(1970, 1, 1)).total_seconds() * 1_000) * 1_000_000


def _attributes(said: Mapping[str, object]) -> list[dict[str, Any]]:
    """As OTLP JSON has them: whole numbers are texts."""
    return [
        {"key": key, "value": {"intValue": str(one)} if isinstance(one, int) else {"stringValue": one}}
        for key, one in said.items()
    ]


_RESOURCE: Final = {"attributes": _attributes({"organization.id": "acme"})}


def _span_line(number: int) -> dict[str, Any]:
    def span(at: int) -> dict[str, Any]:
        start = _nanoseconds(at)
        said = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.id": f"chatcmpl-{at}", "gen_ai.agent.name": f"bot-{at % 200}",
            "gen_ai.usage.input_tokens": 1000 + at % 90, "gen_ai.usage.output_tokens": 60,
        }  # fmt: skip
        return {
            "traceId": f"{at + 1:032x}", "spanId": f"{at + 1:016x}", "name": "chat gpt-4o", "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + 900_000_000), "status": {"code": 1},
            "attributes": _attributes(said),
        }  # fmt: skip

    first = number * _SPANS_A_LINE
    spans = [span(at) for at in range(first, first + _SPANS_A_LINE)]
    return {"resourceSpans": [{"resource": _RESOURCE, "scopeSpans": [{"scope": {"name": "app"}, "spans": spans}]}]}


ADAPTERS: Final[Mapping[str, Callable[[int], dict[str, Any]]]] = {
    "canonical": _canonical,
    "litellm": _litellm,
    "otlp": _span_line,
    "langfuse": _langfuse,
    "helicone": _helicone,
    "claude_code": _claude_code,
    "claude_code_otel": _claude_code_otel,
    "aider": _aider,
}
_BY_EXPORT: Final = ("otlp", "claude_code_otel")
"""What writes many calls in one line."""

BILLS: Final = ("openai_costs", "anthropic_costs")


def write(adapter: str, rows: int, path: Path) -> None:
    """A file of so many calls as a source writes them."""
    lines = rows // _SPANS_A_LINE if adapter in _BY_EXPORT else rows
    with path.open("w") as file:
        file.writelines(json.dumps(ADAPTERS[adapter](number)) + "\n" for number in range(lines))


def read(adapter: str, path: Path) -> dict[str, Any]:
    """Read a file by its adapter: rows and seconds, and what was held after each part of it."""
    from obs_pipeline.usage.sources.mapping import load_mapping
    from obs_pipeline.usage.sources.translate import read_usage

    return _timed(batch.num_rows for batch in read_usage(path, load_mapping(adapter), now=NOW))


def pull_bill(kind: str, address: Path) -> dict[str, Any]:
    """Pull a bill, month by month, from the seller whose address and number of days a file names."""
    from obs_pipeline.storage import engine
    from obs_pipeline.storage.lake import Lake
    from obs_pipeline.usage.billing.admin_api import fetch_bill
    from obs_pipeline.usage.billing.configured import PulledBill
    from obs_pipeline.usage.billing.kept import keep_bill
    from obs_pipeline.usage.currencies import RateBook

    url, days = address.read_text().split()
    bill = PulledBill.model_validate({"kind": kind, "url": url, "key_file": address, "since": START.date()})
    lake = Lake(str(address.with_suffix(".lake")))

    def months() -> Iterator[int]:
        with engine.connect() as connection:
            for first in range(0, int(days), 31):
                start = START.date() + timedelta(days=first)
                yield keep_bill(connection, lake, kind, fetch_bill(bill, start, start + timedelta(days=31), RateBook()))

    return _timed(months())


def _timed(parts: Iterable[int]) -> dict[str, Any]:
    started, worked = time.monotonic(), time.process_time()
    rows, held = 0, []
    for part in parts:
        rows += part
        held.append((rows, _resident_mb()))
    return {
        "rows": rows,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - worked,
        "held": held,
    }


def _resident_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def bare(_adapter: str, path: Path) -> dict[str, Any]:
    """Read a file with the engine alone: parse every line into its columns and touch each of them."""
    import duckdb

    with duckdb.connect(config={"threads": 2}) as connection:
        started, worked = time.monotonic(), time.process_time()
        relation = f"read_json('{path}', format = 'newline_delimited', maximum_object_size = 33554432)"
        connection.execute(f"SELECT max(COLUMNS(*)::VARCHAR) FROM {relation}").fetchall()
        return {"rows": 0, "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - worked}


def throughput(rows: int, folder: Path, times: Sequence[int] = TIMES, only: Sequence[str] = ()) -> list[Throughput]:
    """Every adapter and every kind of bill, at ``rows`` rows and so many times as many; its speed is that at the largest size."""
    found = [_of_adapter(name, rows, folder, times) for name in ADAPTERS if not only or name in only]
    return [*found, *(_of_bill(name, rows, folder, times) for name in BILLS if not only or name in only)]


def _of_adapter(adapter: str, rows: int, folder: Path, times: Sequence[int]) -> Throughput:
    peaks: list[float] = []
    path = folder / f"{adapter}.jsonl"
    for many in times:
        write(adapter, rows * many, path)
        ours, peak = _apart("read", adapter, path)
        peaks.append(peak)
    alone, _ = _apart("bare", adapter, path)
    path.unlink()
    # Processor seconds: what else the machine does at the time would make a ratio of two clocks worthless.
    return _throughput(adapter, ours, peaks, ours["cpu_seconds"] / alone["cpu_seconds"])


def _of_bill(kind: str, rows: int, folder: Path, times: Sequence[int]) -> Throughput:
    from obs_pipeline_tests.usage.billing.seller import seller

    peaks: list[float] = []
    month = _LINES_A_DAY * 31
    address = folder / f"{kind}.address"
    with seller(partial(_bill_results, kind == "openai_costs")) as running:
        running.days_a_page = 31
        for many in times:
            address.write_text(f"{running.url} {31 * max(1, rows // month) * many}")
            ours, peak = _apart("bill", kind, address)
            peaks.append(peak)
    return _throughput(kind, ours, peaks, None)


def _bill_results(openai: bool, path: str, day: date) -> list[dict[str, Any]]:
    """The charges and the usage of a day, as the seller's tests have them, of many projects."""
    from obs_pipeline_tests.usage.billing.seller import anthropic_results, openai_results

    place = "project_id" if openai else "workspace_id"
    results = (openai_results if openai else anthropic_results)(path, day)
    return [{**one, place: f"p{number}"} for number in range(_LINES_A_DAY) for one in results]


def _throughput(name: str, ours: Mapping[str, Any], peaks: Sequence[float], ratio: float | None) -> Throughput:
    rows, held = int(ours["rows"]), ours["held"]
    quarters = [
        statistics.mean(
            megabytes for at, megabytes in held if first * rows <= 4 * at <= (first + 1) * rows or at == rows
        )
        for first in (1, 3)
    ]
    return Throughput(name, rows, rows / ours["seconds"], ratio, tuple(peaks), (quarters[0], quarters[1]))


def _apart(what: str, adapter: str, path: Path) -> tuple[dict[str, Any], float]:
    from obs_pipeline_tests.performance.bench import environment_of, measured

    answer = path.with_suffix(".answer")
    name = f"{what} {adapter}, {path.stat().st_size / 1e6:,.0f} MB"
    command = [sys.executable, "-m", "obs_pipeline_tests.performance.source_bench", "--stage", what, adapter, str(path)]
    stage = measured(name, [*command, str(answer)], environment_of(path.parent))
    found: dict[str, Any] = json.loads(answer.read_text())
    return found, stage.peak_mb


def rows_of(found: list[Throughput]) -> list[dict[str, Any]]:
    """As the results file has them."""
    return [asdict(one) for one in found]


def table_of(found: list[Throughput], times: Sequence[int] = TIMES) -> Any:
    """As they are printed."""
    from rich.table import Table

    table = Table("", title="Reading sources, pulling bills", title_justify="left")
    for column in (
        "rows a second",
        "× the bare read",
        *(f"peak MB at {many}×" for many in times),
        "held MB, ¼ to ½ → last ¼",
    ):
        table.add_column(column, justify="right")
    for one in found:
        ratio = "" if one.times_the_bare_read is None else f"{one.times_the_bare_read:.1f}"
        held = " → ".join(f"{megabytes:,.0f}" for megabytes in one.held_mb)
        table.add_row(
            one.adapter, f"{one.rows_per_second:,.0f}", ratio, *(f"{peak:,.0f}" for peak in one.peak_mb), held
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=USUAL)
    parser.add_argument("--times", type=int, nargs="+", default=EVERY, help="how many times so many rows, ascending")
    parser.add_argument("--only", nargs="+", default=(), choices=[*ADAPTERS, *BILLS])
    parser.add_argument("--stage", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        what, adapter, path, answer = asked.stage
        stages = {"read": read, "bare": bare, "bill": pull_bill}
        Path(answer).write_text(json.dumps(stages[what](adapter, Path(path))))
        return
    from obs_pipeline_tests.performance.bench import console

    with tempfile.TemporaryDirectory(prefix="obs-sources-") as folder:
        console.print(table_of(throughput(asked.rows, Path(folder), asked.times, asked.only), asked.times))


if __name__ == "__main__":
    main()
