"""OpenTelemetry spans: a file written by the SDK with two instrumentors, and lines made for what it does not show."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from obs_pipeline.usage.sources import otlp
from obs_pipeline.usage.sources.mapping import load_mapping
from obs_pipeline.usage.sources.translate import read_usage

NOW = datetime(2026, 11, 25)
OTLP = load_mapping("otlp")
RECORDED = Path(__file__).parent / "payloads" / "otlp_spans.jsonl"
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}


def rows_of(path: Path, **how: int) -> list[dict[str, Any]]:
    return [row for batch in read_usage(path, OTLP, now=NOW, **how) for row in batch.to_pylist()]


def value(of: object) -> dict[str, Any]:
    if isinstance(of, bool):
        return {"boolValue": of}
    if isinstance(of, int):
        return {"intValue": str(of)}
    return {"doubleValue": of} if isinstance(of, float) else {"stringValue": of}


def span(trace: str, name: str, parent: str = "", start: int = 1_790_000_000_000, **attributes: Any) -> dict[str, Any]:
    """``start`` in milliseconds; the span takes 250 of them."""
    return {
        "traceId": trace,
        "spanId": name,
        "parentSpanId": parent,
        "name": name,
        "startTimeUnixNano": str(start * 1_000_000),
        "endTimeUnixNano": str((start + 250) * 1_000_000),
        "status": {"code": 1},
        "attributes": [{"key": key, "value": value(one)} for key, one in attributes.items()],
    }


def line(*spans: dict[str, Any], **resource: str) -> str:
    attributes = [{"key": key, "value": value(one)} for key, one in resource.items()]
    scope = {"scope": {"name": "app"}, "spans": list(spans)}
    return json.dumps({"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [scope]}]}) + "\n"


def of_lines(tmp_path: Path, *lines: str) -> list[dict[str, Any]]:
    path = tmp_path / "spans.jsonl"
    path.write_text("".join(lines))
    return rows_of(path)


def test_the_recorded_file_gives_each_call_of_a_model_once():
    counted = {row["model"]: row for row in rows_of(RECORDED) if row["reason"] is None}
    tokens = {
        model: (row["input_tokens"], row["cache_read_tokens"], row["cache_write_tokens"], row["output_tokens"])
        for model, row in counted.items()
    }
    assert tokens == {
        "gpt-4o-2024-08-06": (1200, 1024, None, 80),
        "claude-sonnet-4-5-20250929": (740, 700, 30, 25),
        "gpt-4o-mini-2024-07-18": (40, None, None, 9),
        "gpt-4o-broken": (None, None, None, None),
    }
    assert counted["gpt-4o-2024-08-06"]["reasoning_tokens"] == 16


def test_the_recorded_calls_have_the_agent_and_session_of_the_span_above_and_the_team_of_their_process():
    rows = [row for row in rows_of(RECORDED) if row["reason"] is None]
    places = {(row["org"], row["project"], row["team"], row["agent"], row["session_id"]) for row in rows}
    assert places == {("acme", "support-desk", "care", "triage", "conv-7")}


def test_the_recorded_double_span_of_client_and_instrumentor_is_counted_once_and_the_other_is_told():
    (double,) = [row for row in rows_of(RECORDED) if row["reason"]]
    assert double["reason"] == "counted_already"
    kept = next(row for row in rows_of(RECORDED) if row["model"] == "claude-sonnet-4-5-20250929" and not row["reason"])
    assert double["event_id"] == kept["event_id"]
    assert json.loads(kept["attributes"])["span_id"] in double["detail"]


def test_the_time_to_the_first_chunk_is_not_taken_for_the_latency_of_a_stream():
    stream = next(row for row in rows_of(RECORDED) if row["model"] == "gpt-4o-mini-2024-07-18")
    assert stream["latency_ms"] > 240
    assert stream["ttft_ms"] is None or stream["ttft_ms"] < stream["latency_ms"]


def test_a_failed_call_has_the_class_of_its_error_and_no_tokens():
    failed = next(row for row in rows_of(RECORDED) if row["model"] == "gpt-4o-broken")
    assert "RateLimit" in failed["error_type"] or failed["error_type"] == "429"
    assert failed["input_tokens"] is None


@pytest.mark.parametrize("order", range(6))
def test_the_agent_is_found_across_lines_in_whatever_order_the_spans_were_written(tmp_path: Path, order: int):
    lines = [
        line(span("t1", "c1", "s1", **CHAT)),
        line(span("t1", "s1", "root")),
        line(span("t1", "root", **{"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage"})),
        line(span("t2", "c1", "root", **CHAT)),
    ]
    random.Random(order).shuffle(lines)
    rows = of_lines(tmp_path, *lines)
    assert {row["event_id"]: row["agent"] for row in rows} == {"t1:c1": "triage", "t2:c1": None}


def test_the_nearest_agent_above_wins_and_each_attribute_is_sought_on_its_own(tmp_path: Path):
    outer = {"gen_ai.agent.name": "boss", "gen_ai.conversation.id": "conv"}
    spans = [
        span("t", "a", **outer),
        span("t", "b", "a", **{"gen_ai.agent.name": "helper"}),
        span("t", "c", "b", **CHAT),
    ]
    (row,) = of_lines(tmp_path, line(*spans))
    assert (row["agent"], row["session_id"]) == ("helper", "conv")


def test_spans_that_name_each_other_as_parents_do_not_hang_the_reading(tmp_path: Path):
    (row,) = of_lines(tmp_path, line(span("t", "a", "b", **CHAT), span("t", "b", "a")))
    assert row["agent"] is None


@pytest.mark.parametrize(
    ("written", "field"),
    [
        ("gen_ai.usage.prompt_tokens", "input_tokens"),
        ("gen_ai.usage.completion_tokens", "output_tokens"),
        ("gen_ai.usage.cache_creation.input_tokens", "cache_write_tokens"),
        ("gen_ai.usage.cache_write.input_tokens", "cache_write_tokens"),
        ("gen_ai.usage.cache_read.input_tokens", "cache_read_tokens"),
    ],
)
def test_older_and_newer_names_of_an_attribute_mean_the_same(tmp_path: Path, written: str, field: str):
    (row,) = of_lines(tmp_path, line(span("t", "c", **CHAT, **{written: 5})))
    assert row[field] == 5


def test_what_contains_calls_is_no_call_even_if_it_repeats_their_tokens(tmp_path: Path):
    repeats = {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 900}
    rows = of_lines(
        tmp_path, line(span("t", "a", **repeats), span("t", "c", "a", **CHAT, **{"gen_ai.usage.input_tokens": 900}))
    )
    assert [row["input_tokens"] for row in rows] == [900]


def test_of_two_spans_for_one_answer_the_one_that_counts_tokens_stays(tmp_path: Path):
    answer = {"gen_ai.response.id": "resp"}
    bare = span("t", "outer", **CHAT, **answer)
    counting = span(
        "t", "inner", "outer", start=1_790_000_000_010, **CHAT, **answer, **{"gen_ai.usage.input_tokens": 7}
    )
    rows = of_lines(tmp_path, line(bare, counting))
    assert {row["reason"]: row["input_tokens"] for row in rows} == {None: 7, "counted_already": None}


def test_the_same_response_id_in_two_traces_is_two_calls(tmp_path: Path):
    answer = {"gen_ai.response.id": "resp"}
    rows = of_lines(tmp_path, line(span("t1", "c", **CHAT, **answer), span("t2", "c", **CHAT, **answer)))
    assert [row["reason"] for row in rows] == [None, None]


def test_two_calls_without_a_response_id_are_two_calls(tmp_path: Path):
    rows = of_lines(tmp_path, line(span("t", "c1", **CHAT), span("t", "c2", **CHAT)))
    assert [row["reason"] for row in rows] == [None, None]


def test_lines_that_are_no_export_are_refused_and_their_neighbours_are_not(tmp_path: Path):
    metrics = json.dumps({"resourceMetrics": []}) + "\n"
    rows = of_lines(
        tmp_path, line(span("t", "c", **CHAT)), "{oops\n", '{"a": 1}\n', metrics, line(span("u", "d", **CHAT))
    )
    told = [(row["event_id"], row["reason"], row["row_number"]) for row in rows]
    assert told == [("t:c", None, 1), ("u:d", None, 2), (None, "bad_json", 3), (None, "not_usage", 4)]
    assert rows[2]["detail"].endswith("(line 2)")


def test_an_attribute_given_twice_or_of_another_type_does_no_harm(tmp_path: Path):
    odd = span("t", "c", **CHAT, **{"gen_ai.usage.input_tokens": "many"})
    odd["attributes"] += [odd["attributes"][0], {"key": "x", "value": {"arrayValue": {"values": []}}}, {"key": "y"}]
    (row,) = of_lines(tmp_path, line(odd))
    assert row["reason"] == "bad_type"


def test_a_resource_without_scopes_and_an_empty_file_hold_no_calls(tmp_path: Path):
    assert of_lines(tmp_path, '{"resourceSpans": [{"resource": {}}]}\n') == []
    assert of_lines(tmp_path) == []


def test_batches_are_as_small_as_asked_and_lose_nothing(tmp_path: Path):
    path = tmp_path / "many.jsonl"
    path.write_text("".join(line(*(span(f"t{at}", f"c{n}", **CHAT) for n in range(5))) for at in range(40)))
    batches = list(read_usage(path, OTLP, now=NOW, batch_rows=30))
    assert max(batch.num_rows for batch in batches) <= 30
    assert sum(batch.num_rows for batch in batches) == 200


def test_traces_taken_a_few_at_a_time_give_the_same_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = []
    for at in range(30):
        double = {"gen_ai.response.id": f"r{at}", "gen_ai.usage.input_tokens": at}
        root = span(f"t{at}", "root", **{"gen_ai.agent.name": f"agent {at}"})
        calls = [span(f"t{at}", name, "root", **CHAT, **double) for name in ("c1", "c2")]
        lines.append(line(root, *calls, span(f"t{at}", "c3", "c1", **CHAT)))
    whole = of_lines(tmp_path, *lines)
    monkeypatch.setattr(otlp, "_RECORDS_AT_ONCE", 7)
    in_groups = of_lines(tmp_path, *lines)
    assert [row["row_number"] for row in in_groups] == list(range(1, 91))

    def told(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted((row["event_id"], row["agent"], row["input_tokens"], str(row["reason"])) for row in rows)

    assert told(in_groups) == told(whole)
    assert {row["agent"] for row in whole} == {f"agent {at}" for at in range(30)}
