"""Export requests in both encodings, for the tests of the receiver."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, START = "0af7651916cd43dd8448eb211c80319c", 1_770_000_000_000_000_000
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
USAGE = {"gen_ai.usage.input_tokens": 1200, "gen_ai.usage.output_tokens": 80}


def value(of: object) -> dict[str, Any]:
    if isinstance(of, bool):
        return {"boolValue": of}
    if isinstance(of, int):
        return {"intValue": str(of)}
    return {"doubleValue": of} if isinstance(of, float) else {"stringValue": of}


def attributes(of: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(one)} for key, one in of.items()]


def span(number: int, parent: int = 0, trace: str = TRACE, start: int = START, **more: Any) -> dict[str, Any]:
    """A call of a model that took 250 ms; ``more`` are attributes."""
    return {
        "traceId": trace,
        "spanId": f"{number:016x}",
        **({"parentSpanId": f"{parent:016x}"} if parent else {}),
        "name": "chat",
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + 250_000_000),
        "status": {"code": 1},
        "attributes": attributes({**CHAT, **USAGE, **more}),
    }


def of_spans(*spans: dict[str, Any], **resource: str) -> dict[str, Any]:
    scope = {"scope": {"name": "app"}, "spans": list(spans)}
    return {"resourceSpans": [{"resource": {"attributes": attributes(resource)}, "scopeSpans": [scope]}]}


def of_logs(*records: dict[str, Any], **resource: str) -> dict[str, Any]:
    scope = {"scope": {"name": "com.anthropic.claude_code"}, "logRecords": list(records)}
    return {"resourceLogs": [{"resource": {"attributes": attributes(resource)}, "scopeLogs": [scope]}]}


def api_request(sequence: int, **more: Any) -> dict[str, Any]:
    said = {
        "event.name": "api_request", "session.id": "s", "event.sequence": sequence, "client_request_id": f"c{sequence}",
        "model": "claude-sonnet-4-5", "input_tokens": 10, "output_tokens": 5, "duration_ms": 1000,
    }  # fmt: skip
    return {
        "timeUnixNano": str(START),
        "body": {"stringValue": "claude_code.api_request"},
        "attributes": attributes({**said, **more}),
    }


def as_json(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()


def as_protobuf(request: dict[str, Any]) -> bytes:
    """The JSON of protobuf has its bytes in base 64, the JSON of OTLP has its ids in hex."""
    made = ExportTraceServiceRequest() if "resourceSpans" in request else ExportLogsServiceRequest()
    content = json.loads(json.dumps(request))
    ids = {}
    for one in content.get("resourceSpans", []):
        for scope in one["scopeSpans"]:
            for record in scope["spans"]:
                ids[id(record)] = [record.pop(name, "") for name in ("traceId", "spanId", "parentSpanId")]
    Parse(json.dumps(content), made)
    for one, parsed in zip(content.get("resourceSpans", []), getattr(made, "resource_spans", []), strict=False):
        for scope, parsed_scope in zip(one["scopeSpans"], parsed.scope_spans, strict=True):
            for record, target in zip(scope["spans"], parsed_scope.spans, strict=True):
                trace, own, parent = map(bytes.fromhex, ids[id(record)])
                target.trace_id, target.span_id, target.parent_span_id = trace, own, parent
    return made.SerializeToString()
