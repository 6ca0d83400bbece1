"""Providers on the loopback address, shaped like OpenAI and Anthropic, and a place that records what Langfuse's SDK sends."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_numbers = itertools.count(1)


class Upstream(ThreadingHTTPServer):
    """Answers calls of models. ``spans`` are those that were sent to Langfuse."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def observations(self) -> list[dict[str, Any]]:
        """What was sent to Langfuse, named as its API names it. The server itself is not run: this is a stand-in's reading."""
        return [_observation(span) for span in self.spans]


class _Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/otel/v1/traces"):
            self._record(body)
            return
        asked = json.loads(body)
        if asked["model"] == "broken":
            self._answer(
                429, json.dumps({"error": {"message": "slow down", "type": "rate_limit", "code": "429"}}).encode()
            )
        elif self.path.endswith("/messages"):
            self._answer(200, json.dumps(_message(asked["model"])).encode())
        elif asked.get("stream"):
            self._stream(asked["model"])
        else:
            self._answer(200, json.dumps(_completion(asked["model"])).encode())

    def do_GET(self) -> None:
        rows = self.server.observations()
        self._answer(200, json.dumps({"data": rows, "meta": {"cursor": None}}).encode())

    def _record(self, body: bytes) -> None:
        import gzip

        packed = self.headers.get("Content-Encoding") == "gzip"
        request = ExportTraceServiceRequest.FromString(gzip.decompress(body) if packed else body)
        self.server.spans += [
            span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans
        ]
        self._answer(200, b"", "application/x-protobuf")

    def _stream(self, model: str) -> None:
        whole = _completion(model)
        head = {"id": whole["id"], "object": "chat.completion.chunk", "created": 1, "model": model}
        said = {
            **head,
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}],
        }
        end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        parts = [said, end, {**head, "choices": [], "usage": whole["usage"]}]
        body = "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"
        self._answer(200, body.encode(), "text/event-stream")

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _completion(model: str) -> dict[str, Any]:
    usage = {
        "prompt_tokens": 1200, "completion_tokens": 80, "total_tokens": 1280,
        "prompt_tokens_details": {"cached_tokens": 1024}, "completion_tokens_details": {"reasoning_tokens": 16},
    }  # fmt: skip
    message = {"role": "assistant", "content": "hi"}
    return {
        "id": f"chatcmpl-{next(_numbers)}", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage,
    }  # fmt: skip


def _message(model: str) -> dict[str, Any]:
    usage = {
        "input_tokens": 10, "cache_read_input_tokens": 700, "cache_creation_input_tokens": 30, "output_tokens": 25,
    }  # fmt: skip
    return {
        "id": f"msg_{next(_numbers)}", "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "hi"}], "usage": usage,
    }  # fmt: skip


def _observation(span: Any) -> dict[str, Any]:
    said = {one.key: one.value.string_value for one in span.attributes}

    def when(nanoseconds: int) -> str:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat()

    return {
        "id": span.span_id.hex(),
        "traceId": span.trace_id.hex(),
        "projectId": "p",
        "name": span.name,
        "type": said.get("langfuse.observation.type", "span").upper(),
        "startTime": when(span.start_time_unix_nano),
        "endTime": when(span.end_time_unix_nano),
        "providedModelName": said.get("langfuse.observation.model.name"),
        "usageDetails": json.loads(said.get("langfuse.observation.usage_details", "null")),
        "totalCost": (json.loads(said.get("langfuse.observation.cost_details", "null")) or {}).get("total"),
    }


@contextmanager
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
