"""How fast each kind of source is read, beside a bare read of the same file by the engine, and whether memory stays flat.

``python -m obs_pipeline_tests.performance.source_bench [--rows N]``: a file of N rows and one of four times as many for each
adapter, each read in a process of its own. Nothing is asserted. ``bench`` takes the numbers into its results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

START: Final = datetime(2026, 5, 1)
NOW: Final = datetime(2026, 6, 1)
GROWTH: Final = 4
USUAL: Final = 50_000
"""Enough to fill the blocks that are held: below that, memory grows with the file."""
_SPANS_A_LINE: Final = 20


@dataclass(frozen=True)
class Throughput:
    """Of one adapter: rows a second, how many times the bare read it takes (processor seconds), memory at both sizes (MB)."""

    adapter: str
    rows: int
    rows_per_second: float
    times_the_bare_read: float
    peak_mb: float
    peak_mb_of_more: float


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


def _canonical(number: int) -> dict[str, Any]:
    return {
        "event_id": f"e{number}", "event_time": _when(number).isoformat(), "org": "acme", "agent": f"bot-{number % 200}",
        "provider": "openai", "model": "gpt-4o", "input_tokens": 1000 + number % 90, "output_tokens": 60,
        "reported_cost": "0.0012", "latency_ms": 900.0,
    }  # fmt: skip


def _span_line(number: int) -> dict[str, Any]:
    def value(of: object) -> dict[str, Any]:
        return {"intValue": str(of)} if isinstance(of, int) else {"stringValue": of}

    def span(at: int) -> dict[str, Any]:
        start = int((_when(at) - datetime(1970, 1, 1)).total_seconds() * 1_000) * 1_000_000
        said = {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.id": f"chatcmpl-{at}", "gen_ai.agent.name": f"bot-{at % 200}",
            "gen_ai.usage.input_tokens": 1000 + at % 90, "gen_ai.usage.output_tokens": 60,
        }  # fmt: skip
        return {
            "traceId": f"{at + 1:032x}", "spanId": f"{at + 1:016x}", "name": "chat gpt-4o", "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + 900_000_000), "status": {"code": 1},
            "attributes": [{"key": key, "value": value(one)} for key, one in said.items()],
        }  # fmt: skip

    first = number * _SPANS_A_LINE
    spans = [span(at) for at in range(first, first + _SPANS_A_LINE)]
    resource = {"attributes": [{"key": "organization.id", "value": {"stringValue": "acme"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "app"}, "spans": spans}]}]}


ADAPTERS: Final[Mapping[str, Callable[[int], dict[str, Any]]]] = {
    "canonical": _canonical,
    "litellm": _litellm,
    "otlp": _span_line,
    "langfuse": _langfuse,
    "helicone": _helicone,
    "claude_code": _claude_code,
}


def write(adapter: str, rows: int, path: Path) -> None:
    """A file of so many calls as a source writes them."""
    lines = rows // _SPANS_A_LINE if adapter == "otlp" else rows
    with path.open("w") as file:
        file.writelines(json.dumps(ADAPTERS[adapter](number)) + "\n" for number in range(lines))


def read(adapter: str, path: Path) -> dict[str, float]:
    """Read a file by its adapter: rows and seconds."""
    from obs_pipeline.usage.sources.mapping import load_mapping
    from obs_pipeline.usage.sources.translate import read_usage

    mapping, started, worked = load_mapping(adapter), time.monotonic(), time.process_time()
    rows = sum(batch.num_rows for batch in read_usage(path, mapping, now=NOW))
    return {"rows": rows, "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - worked}


def bare(_adapter: str, path: Path) -> dict[str, float]:
    """Read a file with the engine alone: parse every line into its columns and touch each of them."""
    import duckdb

    with duckdb.connect(config={"threads": 2}) as connection:
        started, worked = time.monotonic(), time.process_time()
        relation = f"read_json('{path}', format = 'newline_delimited', maximum_object_size = 33554432)"
        connection.execute(f"SELECT max(COLUMNS(*)::VARCHAR) FROM {relation}").fetchall()
        return {"rows": 0, "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - worked}


def throughput(rows: int, folder: Path) -> list[Throughput]:
    """Every adapter, at ``rows`` rows and at four times as many; its speed is that at the larger size."""
    return [_of_adapter(adapter, rows, folder) for adapter in ADAPTERS]


def _of_adapter(adapter: str, rows: int, folder: Path) -> Throughput:
    few, many = folder / f"{adapter}-few.jsonl", folder / f"{adapter}-many.jsonl"
    write(adapter, rows, few)
    write(adapter, rows * GROWTH, many)
    _, peak = _apart("read", adapter, few)
    ours, peak_of_more = _apart("read", adapter, many)
    alone, _ = _apart("bare", adapter, many)
    few.unlink()
    many.unlink()
    # Processor seconds: what else the machine does at the time would make a ratio of two clocks worthless.
    speed, ratio = ours["rows"] / ours["seconds"], ours["cpu_seconds"] / alone["cpu_seconds"]
    return Throughput(adapter, int(ours["rows"]), speed, ratio, peak, peak_of_more)


def _apart(what: str, adapter: str, path: Path) -> tuple[dict[str, float], float]:
    from obs_pipeline_tests.performance.bench import environment_of, measured

    answer = path.with_suffix(".answer")
    name = f"{what} {adapter}, {path.stat().st_size / 1e6:.0f} MB"
    command = [sys.executable, "-m", "obs_pipeline_tests.performance.source_bench", "--stage", what, adapter, str(path)]
    stage = measured(name, [*command, str(answer)], environment_of(path.parent))
    found: dict[str, float] = json.loads(answer.read_text())
    return found, stage.peak_mb


def rows_of(found: list[Throughput]) -> list[dict[str, Any]]:
    """As the results file has them."""
    return [asdict(one) for one in found]


def table_of(found: list[Throughput]) -> Any:
    """As they are printed."""
    from rich.table import Table

    table = Table("", title="Reading sources", title_justify="left")
    for column in ("rows a second", "× the bare read", "peak MB", f"peak MB of {GROWTH} times as much"):
        table.add_column(column, justify="right")
    for one in found:
        peaks = (f"{one.peak_mb:,.0f}", f"{one.peak_mb_of_more:,.0f}")
        table.add_row(one.adapter, f"{one.rows_per_second:,.0f}", f"{one.times_the_bare_read:.1f}", *peaks)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--stage", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stage:
        what, adapter, path, answer = asked.stage
        Path(answer).write_text(json.dumps({"read": read, "bare": bare}[what](adapter, Path(path))))
        return
    from obs_pipeline_tests.performance.bench import console

    with tempfile.TemporaryDirectory(prefix="obs-sources-") as folder:
        console.print(table_of(throughput(asked.rows, Path(folder))))


if __name__ == "__main__":
    main()
