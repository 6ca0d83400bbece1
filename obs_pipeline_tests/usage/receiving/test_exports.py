"""Export requests of both encodings: what is kept of them, whose it is, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.usage.receiving.exports import BadExport, Owner, taken
from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline_tests.usage.receiving.requests import (
    START,
    TRACE,
    api_request,
    as_json,
    as_protobuf,
    of_logs,
    of_spans,
    span,
)
from obs_pipeline_tests.usage.sources.reading_whole import landed

ANYONE = Owner()
OTLP, CLAUDE = load_mapping("otlp"), load_mapping("claude_code_otel")
ENCODINGS = pytest.mark.parametrize("encode", [as_json, as_protobuf], ids=["json", "protobuf"])


def kept(encode: Any, request: dict[str, Any], owner: Owner = ANYONE, mapping: Any = OTLP) -> Any:
    signal = "traces" if "resourceSpans" in request else "logs"
    return taken(encode(request), signal, mapping, owner, is_json=encode is as_json)


def rows(found: Any, folder: Path, mapping: Any = OTLP) -> list[dict[str, Any]]:
    path = folder / "received.jsonl"
    path.write_bytes(b"".join(found.lines))
    return landed(path, mapping).to_pylist()


@ENCODINGS
def test_what_is_received_reads_as_the_call_it_was(tmp_path: Path, encode: Any):
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage"}
    request = of_spans(span(2, 1), span(1, **agent), **{"organization.id": "acme", "service.name": "desk"})
    (row,) = rows(kept(encode, request), tmp_path)
    assert (row["event_id"], row["agent"], row["org"], row["project"]) == (
        f"{TRACE}:{2:016x}",
        "triage",
        "acme",
        "desk",
    )
    assert (row["input_tokens"], row["output_tokens"], row["latency_ms"]) == (1200, 80, 250.0)


@ENCODINGS
@pytest.mark.parametrize(
    ("written", "field"),
    [
        ("gen_ai.usage.prompt_tokens", "input_tokens"),
        ("gen_ai.usage.cache_creation.input_tokens", "cache_write_tokens"),
    ],
)
def test_older_names_of_attributes_are_kept_too(tmp_path: Path, encode: Any, written: str, field: str):
    request = of_spans({**span(1), "attributes": []})
    older = [{"key": "gen_ai.system", "value": {"stringValue": "openai"}}, {"key": written, "value": {"intValue": "7"}}]
    older.append({"key": "llm.request.type", "value": {"stringValue": "chat"}})
    request["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"] = older
    (row,) = rows(kept(encode, request), tmp_path)
    assert (row[field], row["provider"]) == (7, "openai")


@ENCODINGS
def test_prompts_and_answers_are_not_kept(encode: Any):
    request = of_spans(span(1, **{"gen_ai.input.messages": "hush", "gen_ai.output.messages": "hush"}), secret="hush")
    assert b"hush" not in b"".join(kept(encode, request).lines)


@ENCODINGS
def test_only_log_records_that_are_calls_are_kept(tmp_path: Path, encode: Any):
    prompt = {"timeUnixNano": str(START), "body": {"stringValue": "user said hush"}, "attributes": []}
    found = kept(encode, of_logs(api_request(1), prompt, api_request(2)), mapping=CLAUDE)
    assert b"hush" not in b"".join(found.lines)
    assert [row["event_id"] for row in rows(found, tmp_path, CLAUDE)] == ["s:1:c1", "s:2:c2"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"traceId": "00" * 16}, "trace id"),
        ({"traceId": "abc"}, "trace id"),
        ({"spanId": ""}, "id of 8 bytes"),
        ({"startTimeUnixNano": "0"}, "start"),
        ({"endTimeUnixNano": "soon"}, "start"),
    ],
)
def test_a_span_that_cannot_be_told_from_others_is_refused_and_its_neighbours_are_not(
    changed: dict[str, str], why: str
):
    found = kept(as_json, of_spans({**span(1), **changed}, span(2)))
    assert (found.rejected, len(found.lines)) == (1, 1)
    assert why in found.why


def test_an_id_in_capitals_is_the_same_id():
    capitals = kept(as_json, of_spans({**span(10), "traceId": TRACE.upper(), "spanId": f"{10:016X}"}))
    assert capitals.lines == kept(as_json, of_spans(span(10))).lines


@ENCODINGS
def test_a_sender_of_one_organisation_sends_for_it_whatever_it_says(tmp_path: Path, encode: Any):
    request = of_spans(span(1), **{"organization.id": "globex", "project.id": "atlas"})
    (row,) = rows(kept(encode, request, Owner("acme", ("atlas", "beacon"))), tmp_path)
    assert (row["org"], row["project"]) == ("acme", "atlas")
    logs = of_logs(api_request(1, **{"organization.id": "a-uuid"}))
    (row,) = rows(kept(encode, logs, Owner("acme"), CLAUDE), tmp_path, CLAUDE)
    assert row["org"] == "acme"


def test_a_sender_of_some_projects_cannot_send_for_others(tmp_path: Path):
    found = kept(as_json, of_spans(span(1), **{"project.id": "crown"}), Owner("acme", ("atlas", "beacon")))
    assert (found.rejected, found.lines) == (1, [])
    (row,) = rows(kept(as_json, of_spans(span(1), **{"project.id": "crown"}), Owner("acme", ("atlas",))), tmp_path)
    assert row["project"] == "atlas"


def test_each_line_holds_one_trace():
    other = TRACE[::-1]
    found = kept(as_json, of_spans(span(1), span(2, trace=other), span(3), span(4, trace=other)))
    held = [json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"] for line in found.lines]
    assert sorted([one["spanId"][-1] for one in spans] for spans in held) == [["1", "3"], ["2", "4"]]


def test_numbers_that_json_cannot_write_do_not_spoil_a_line(tmp_path: Path):
    odd = {"gen_ai.response.time_to_first_chunk": float("nan")}
    (row,) = rows(kept(as_protobuf, of_spans(span(1), **{"team.id": "a\u0000b"}) | {}), tmp_path)
    assert row["reason"] is None
    body = as_json(of_spans(span(1, **odd)))
    (row,) = rows(taken(body, "traces", OTLP, Owner(), is_json=True), tmp_path)
    assert row["event_id"] == f"{TRACE}:{1:016x}"
    (row,) = rows(
        taken(as_json(of_spans(span(1), **{"team.id": "\ud800"})), "traces", OTLP, Owner(), is_json=True), tmp_path
    )
    assert row["reason"] is None


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"{", b"null", b'{"resourceSpans": 1}', b'{"resourceSpans": [1]}', b"[" * 100_000),
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": []}]}]}]}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_told_from_an_empty_one(body: bytes):
    with pytest.raises(BadExport):
        taken(body, "traces", OTLP, Owner(), is_json=True)
    assert taken(b"{}", "traces", OTLP, Owner(), is_json=True).lines == []


@given(st.binary(max_size=200))
def test_no_bytes_at_all_break_the_reading_of_protobuf(body: bytes):
    for signal in ("traces", "logs"):
        with contextlib.suppress(BadExport):
            taken(body, signal, OTLP, Owner(), is_json=False)
