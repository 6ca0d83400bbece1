"""Claude Code: session files, and its OpenTelemetry logs."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline_tests.usage.sources.reading_whole import landed, rows_of

SESSIONS = load_mapping("claude_code")
LOGS = load_mapping("claude_code_otel")


def message(number: int, output: int, request: str | None = "req", **more: Any) -> dict[str, Any]:
    return {
        "type": "assistant",
        "uuid": f"u{number}-{output}",
        "sessionId": "s1",
        "cwd": "/home/me/atlas",
        "timestamp": "2026-05-01T10:00:00.000Z",
        "requestId": request and f"{request}_{number}",
        "isSidechain": False,
        "message": {
            "id": f"msg_{number}",
            "model": "claude-sonnet-4-5-20250929",
            "usage": {
                "input_tokens": 4,
                "cache_read_input_tokens": 18_000,
                "cache_creation_input_tokens": 2_000,
                "output_tokens": output,
            },
        },
    } | more


PROMPT = {"type": "user", "timestamp": "2026-05-01T10:00:00.000Z", "message": {"content": "my secret"}}


def text_of(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def read(tmp_path: Path, *lines: dict[str, Any]) -> list[dict[str, Any]]:
    return rows_of(text_of(*lines), tmp_path / "session.jsonl", SESSIONS)


def test_a_message_written_line_by_line_is_one_call_with_its_last_counts(tmp_path: Path):
    rows = read(tmp_path, PROMPT, message(1, 1), message(1, 8), PROMPT, message(2, 3), message(1, 250))
    assert [(row["event_id"], row["output_tokens"]) for row in rows] == [("msg_2:req_2", 3), ("msg_1:req_1", 250)]


def test_cache_reads_and_writes_are_added_to_the_input_once(tmp_path: Path):
    (row,) = read(tmp_path, message(1, 5))
    assert (row["input_tokens"], row["cache_read_tokens"], row["cache_write_tokens"]) == (20_004, 18_000, 2_000)


def test_what_people_wrote_is_neither_taken_in_nor_quarantined(tmp_path: Path):
    (row,) = read(tmp_path, PROMPT, {"type": "summary", "summary": "secret"}, message(1, 5))
    assert row["reason"] is None
    assert "secret" not in json.dumps(row, default=str)


def test_messages_without_ids_are_all_kept(tmp_path: Path):
    bare = [message(n, n + 1, None) for n in range(2)]
    for line in bare:
        del line["message"]["id"]
    assert [row["output_tokens"] for row in read(tmp_path, *bare)] == [1, 2]


def test_a_subagent_and_an_error_are_told(tmp_path: Path):
    rows = read(tmp_path, message(1, 5, agentId="explorer"), message(2, 0, isApiErrorMessage=True))
    assert [(row["agent"], row["error_type"]) for row in rows] == [("explorer", None), ("claude-code", "api_error")]


def test_a_packed_session_is_read_twice_as_well_as_a_plain_one(tmp_path: Path):
    path = tmp_path / "session.jsonl.gz"
    path.write_bytes(gzip.compress(text_of(message(1, 1), message(1, 9)).encode()))
    assert landed(path, SESSIONS).column("output_tokens").to_pylist() == [9]


@settings(max_examples=15)
@given(written=st.lists(st.integers(0, 6), min_size=1, max_size=40))
def test_each_message_is_counted_once_with_its_last_line_whatever_the_order(tmp_path_factory: Any, written: list[int]):
    folder = tmp_path_factory.mktemp("session")
    lines = [message(number, place) for place, number in enumerate(written)]
    got = {row["event_id"]: row["output_tokens"] for row in read(folder, *lines)}
    assert got == {f"msg_{number}:req_{number}": place for place, number in enumerate(written)}


def log_line(*records: dict[str, Any]) -> str:
    def attributes(of: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"key": key, "value": {"intValue": str(one)} if isinstance(one, int) else {"stringValue": str(one)}}
            for key, one in of.items()
        ]

    made = [
        {
            "timeUnixNano": "1777629602000000000",
            "body": {"stringValue": f"claude_code.{record['event.name']}"},
            "attributes": attributes(record),
        }
        for record in records
    ]
    resource = {"attributes": attributes({"service.name": "claude-code", "team.id": "care"})}
    scopes = [{"scope": {"name": "com.anthropic.claude_code.events"}, "logRecords": made}]
    return json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": scopes}]}) + "\n"


REQUEST: dict[str, Any] = {
    "event.name": "api_request",
    "event.sequence": 3,
    "session.id": "s1",
    "organization.id": "acme",
    "model": "claude-sonnet-4-5",
    "input_tokens": 4,
    "cache_read_tokens": 18_000,
    "cache_creation_tokens": 2_000,
    "output_tokens": 250,
    "duration_ms": 2_000,
    "cost_usd": "0.0123",
}


def test_a_request_logged_at_its_end_began_its_duration_earlier(tmp_path: Path):
    (row,) = rows_of(log_line(REQUEST), tmp_path / "logs.jsonl", LOGS)
    assert row["reason"] is None
    assert (row["event_time"], row["latency_ms"]) == (datetime(2026, 5, 1, 10), 2000.0)
    assert (row["input_tokens"], row["output_tokens"], row["team"], row["org"]) == (20_004, 250, "care", "acme")


def test_the_clients_own_estimate_is_kept_but_not_taken_for_a_bill(tmp_path: Path):
    (row,) = rows_of(log_line(REQUEST), tmp_path / "logs.jsonl", LOGS)
    assert row["reported_cost"] is None
    assert json.loads(row["attributes"])["estimated_cost_usd"] == "0.0123"


def test_other_events_are_no_calls_and_a_failed_request_is_one(tmp_path: Path):
    failed = {"event.name": "api_error", "session.id": "s1", "event.sequence": 4, "model": "m", "status_code": 529}
    prompt = {"event.name": "user_prompt", "session.id": "s1", "prompt": "my secret"}
    rows = rows_of(log_line(REQUEST, prompt, failed), tmp_path / "logs.jsonl", LOGS)
    assert [(row["event_id"], row["error_type"]) for row in rows] == [("s1:3", None), ("s1:4", "529")]
