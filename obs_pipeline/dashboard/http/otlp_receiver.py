"""OTLP/HTTP: ``POST /v1/traces`` and ``/v1/logs``, as OpenTelemetry's exporters send them.

Here: encodings, limits and the answers the protocol asks for. What is kept of a request is for ``usage.receiving``. An answer
has the encoding of its request: 200 when everything that counts is on the disk, naming in ``partial_success`` what was refused;
400 for what is no request, 413 and 415 for what is not taken; 429 and 503 with ``Retry-After``, after which exporters try again.
"""

from __future__ import annotations

import json
import zlib
from typing import Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from obs_pipeline.dashboard.http.gate import principal_of
from obs_pipeline.errors import ObsError
from obs_pipeline.usage.receiving.exports import BadExport, Owner, Signal, Taken
from obs_pipeline.usage.receiving.receiver import Receiver
from obs_pipeline.usage.receiving.spool import SpoolFull

LONGEST_BODY: Final = 16 << 20
"""Bytes of a request, packed or not."""

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_INVALID_ARGUMENT: Final = 3
_UNAVAILABLE: Final = 14


class _NotTaken(ObsError):
    """A request that is answered with ``status`` and never worth sending again."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def receiving_routes(receiver: Receiver, longest_body: int = LONGEST_BODY) -> list[Route]:
    """The routes of the receiver."""

    def route(signal: Signal) -> Route:
        async def export(request: Request) -> Response:
            return await _export(request, receiver, signal, longest_body)

        return Route(f"/v1/{signal}", export, methods=["POST"])

    return [route("traces"), route("logs")]


async def _export(request: Request, receiver: Receiver, signal: Signal, longest_body: int) -> Response:
    principal = principal_of(request)
    principal.require_sending()
    owner = Owner(principal.org, principal.projects)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind not in (_PROTOBUF, _JSON):
            raise _NotTaken(415, f"Send {_PROTOBUF} or {_JSON}.")
        body = await _unpacked(request, longest_body)
        taken = await anyio.to_thread.run_sync(
            lambda: receiver.receive(signal, body, owner, is_json=kind == _JSON), abandon_on_cancel=False
        )
    except _NotTaken as error:
        return _failed(kind, error.status, _INVALID_ARGUMENT, str(error))
    except BadExport as error:
        return _failed(kind, 400, _INVALID_ARGUMENT, str(error))
    except SpoolFull as error:
        return _failed(kind, 503, _UNAVAILABLE, str(error), error.retry_after)
    return _accepted(kind, signal, taken)


async def _unpacked(request: Request, longest: int) -> bytes:
    """The body, never holding more than ``longest`` bytes of it."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise _NotTaken(415, f"The encoding {encoding} is not taken; send gzip or none.")
    too_long = _NotTaken(413, f"A request may have {longest:,} bytes, unpacked; send smaller batches.")
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS) if encoding == "gzip" else None
    body, received = bytearray(), 0
    async for part in request.stream():
        received += len(part)
        if received > longest:
            raise too_long
        try:
            body += part if unpacker is None else unpacker.decompress(part, longest + 1 - len(body))
        except zlib.error:
            raise BadExport("The body is not what gzip packs.") from None
        if len(body) > longest:
            raise too_long
    if unpacker is not None and not unpacker.eof:
        raise BadExport("The body ends in the middle of what gzip packed.")
    return bytes(body)


def _accepted(kind: str, signal: Signal, taken: Taken) -> Response:
    if kind == _JSON:
        name = "rejectedSpans" if signal == "traces" else "rejectedLogRecords"
        partial = {name: str(taken.rejected), "errorMessage": taken.why} if taken.rejected else None
        return Response(json.dumps({"partialSuccess": partial} if partial else {}), media_type=_JSON)
    return Response(_partial_success(signal, taken), media_type=_PROTOBUF)


def _partial_success(signal: Signal, taken: Taken) -> bytes:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    if not taken.rejected:
        return b""
    if signal == "traces":
        traces = ExportTraceServiceResponse()
        traces.partial_success.rejected_spans = taken.rejected
        traces.partial_success.error_message = taken.why
        return bytes(traces.SerializeToString())
    logs = ExportLogsServiceResponse()
    logs.partial_success.rejected_log_records = taken.rejected
    logs.partial_success.error_message = taken.why
    return bytes(logs.SerializeToString())


def _failed(kind: str, status: int, code: int, why: str, retry_after: int | None = None) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if kind == _PROTOBUF:
        return Response(_status_message(code, why), status, headers=headers, media_type=_PROTOBUF)
    return Response(json.dumps({"code": code, "message": why}), status, headers=headers, media_type=_JSON)


def _status_message(code: int, why: str) -> bytes:
    """A ``google.rpc.Status`` in protobuf: field 1 the code, field 2 the message (shorter than 128 bytes)."""
    text = why.encode()[:127]
    return bytes([0x08, code, 0x12, len(text)]) + text
