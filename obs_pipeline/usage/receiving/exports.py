"""What an OTLP export request holds, as the lines of OTLP JSON that the mappings read.

Here: reading a request of either encoding, leaving out whatever no mapping asks for, and whose the records are. What is kept
of a span is its place in the trace, its times, its outcome and the attributes the mapping names: prompts and answers stay with
the sender. No HTTP, no files.

A line holds records of one resource, one scope and, for spans, one trace. Ids are lower case, numbers are texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, Literal

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.sources.mapping import SourceMapping

Signal = Literal["traces", "logs"]
Record = dict[str, Any]

_LINE_RECORDS: Final = 2_000
_RESOURCE: Final = "resource."
_VALUES: Final = ("stringValue", "intValue", "doubleValue", "boolValue")
_ALWAYS: Final = ("error.type", "event.name", "duration_ms", "status_code", "error")
"""Attributes that the reader of OTLP looks at whatever the mapping says."""
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")
_TIME: Final = re.compile(r"[1-9]\d{0,18}")
_NAMES: Final = {
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
}


class BadExport(ObsError):
    """A body that is no export request; the message says why. Sending it again does not help."""


@dataclass(frozen=True)
class Owner:
    """Whose the records of a sender are. ``org`` None: as they say; ``projects`` empty: any."""

    org: str | None = None
    projects: tuple[str, ...] = ()


@dataclass
class Taken:
    """The lines to keep, and the records that cannot be: how many, and why."""

    lines: list[bytes] = field(default_factory=list)
    rejected: int = 0
    why: str = ""

    def refuse(self, why: str) -> None:
        self.rejected += 1
        self.why = self.why or why


@dataclass(frozen=True)
class _Group:
    """Records of one resource and scope."""

    resource: list[Record]
    scope: str
    records: list[Record]


def taken(body: bytes, signal: Signal, mapping: SourceMapping, owner: Owner, *, is_json: bool) -> Taken:
    """The lines of a request.

    Raises:
        BadExport: the body is no request of this signal.
    """
    keep = _Kept(mapping)
    groups = _from_json(body, signal, keep) if is_json else _from_protobuf(body, signal, keep)
    found = Taken()
    for group in groups:
        _take(group, signal, mapping, owner, found)
    return found


class _Kept:
    """The names of attributes a mapping asks for, of resources and of records."""

    def __init__(self, mapping: SourceMapping) -> None:
        unfold = mapping.unfold
        more = (*unfold.only.paths, *unfold.inherit, *filter(None, [unfold.same_call])) if unfold else ()
        paths = {*mapping.paths(), *more, *_ALWAYS}
        self.resource = frozenset(path.removeprefix(_RESOURCE) for path in paths if path.startswith(_RESOURCE))
        self.own = frozenset(path for path in paths if not path.startswith(_RESOURCE))


def _take(group: _Group, signal: Signal, mapping: SourceMapping, owner: Owner, found: Taken) -> None:
    records = []
    for record in group.records:
        why = _fault(record) if signal == "traces" else None
        if signal == "logs" and not _is_call(record, mapping):
            continue
        if why is None and owner != Owner():
            why = _owned(group.resource, record, mapping, owner)
        if why is None:
            records.append(record)
        else:
            found.refuse(why)
    if signal == "traces":
        records.sort(key=lambda record: str(record["traceId"]))
    for _, same_trace in groupby(records, key=lambda record: record.get("traceId")):
        of_trace = list(same_trace)
        for start in range(0, len(of_trace), _LINE_RECORDS):
            found.lines.append(_line(group, signal, of_trace[start : start + _LINE_RECORDS]))


def _line(group: _Group, signal: Signal, records: Sequence[Record]) -> bytes:
    outer, inner, name = _NAMES[signal]
    scope = {"scope": {"name": group.scope}, name: records}
    content = {outer: [{"resource": {"attributes": group.resource}, inner: [scope]}]}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _fault(span: Record) -> str | None:
    """Why a span cannot be told from others or placed in time."""
    if not _TRACE_ID.fullmatch(span["traceId"]):
        return "a span without a trace id of 16 bytes"
    if not _SPAN_ID.fullmatch(span["spanId"]):
        return "a span without an id of 8 bytes"
    if not (_TIME.fullmatch(span["startTimeUnixNano"]) and _TIME.fullmatch(span["endTimeUnixNano"])):
        return "a span without a start or an end"
    return None


def _is_call(record: Record, mapping: SourceMapping) -> bool:
    """Whether the mapping takes a log record for a call, by its name."""
    if mapping.unfold is None or mapping.unfold.only.paths != ("record.name",):
        return True
    body = record.get("body", {}).get("stringValue")
    name = _text(record["attributes"], "event.name") or record.get("eventName") or body
    return name in mapping.unfold.only.values


def _owned(resource: list[Record], record: Record, mapping: SourceMapping, owner: Owner) -> str | None:
    """Make a record its sender's; why it cannot be, if so."""
    if owner.org is not None:
        _set(resource, record, _paths(mapping, "org"), owner.org)
    if not owner.projects:
        return None
    if len(owner.projects) == 1:
        _set(resource, record, _paths(mapping, "project"), owner.projects[0])
        return None
    named = (_stated(resource, record, path) for path in _paths(mapping, "project"))
    project = next((name for name in named if name), None)
    return None if project in owner.projects else f"a record of the project {project}, which is not the sender's"


def _paths(mapping: SourceMapping, name: str) -> tuple[str, ...]:
    return mapping.columns[name].paths if name in mapping.columns else ()


def _stated(resource: list[Record], record: Record, path: str) -> str | None:
    if path.startswith(_RESOURCE):
        return _text(resource, path.removeprefix(_RESOURCE))
    return _text(record["attributes"], path)


def _text(attributes: Sequence[Record], name: str) -> str | None:
    for one in attributes:
        if one["key"] == name:
            return next((str(value) for value in one["value"].values()), None)
    return None


def _set(resource: list[Record], record: Record, paths: Sequence[str], text: str) -> None:
    """Let the first of some paths say ``text``, in place."""
    if not paths:
        return
    path = paths[0]
    where = resource if path.startswith(_RESOURCE) else record["attributes"]
    name = path.removeprefix(_RESOURCE)
    where[:] = [one for one in where if one["key"] != name]
    where.append({"key": name, "value": {"stringValue": text}})


def _from_protobuf(body: bytes, signal: Signal, keep: _Kept) -> Iterator[_Group]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        if signal == "traces":
            for spans in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _attributes(spans.resource.attributes, keep.resource)
                for scope in spans.scope_spans:
                    yield _Group(list(resource), scope.scope.name, [_span(one, keep) for one in scope.spans])
            return
        for logs in ExportLogsServiceRequest.FromString(body).resource_logs:
            resource = _attributes(logs.resource.attributes, keep.resource)
            for scope_logs in logs.scope_logs:
                records = [_log_record(one, keep) for one in scope_logs.log_records]
                yield _Group(list(resource), scope_logs.scope.name, records)
    except DecodeError as error:
        raise BadExport(f"The body is no OTLP request in protobuf: {error}.") from None


def _span(span: Any, keep: _Kept) -> Record:
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "name": span.name,
        "startTimeUnixNano": str(span.start_time_unix_nano),
        "endTimeUnixNano": str(span.end_time_unix_nano),
        "status": {"code": str(span.status.code)},
        "attributes": _attributes(span.attributes, keep.own),
    }


def _log_record(record: Any, keep: _Kept) -> Record:
    return {
        "timeUnixNano": str(record.time_unix_nano or record.observed_time_unix_nano),
        "eventName": record.event_name,
        "body": {"stringValue": record.body.string_value},
        "traceId": record.trace_id.hex(),
        "spanId": record.span_id.hex(),
        "attributes": _attributes(record.attributes, keep.own),
    }


def _attributes(attributes: Any, names: frozenset[str]) -> list[Record]:
    kept = []
    for one in attributes:
        if one.key not in names:
            continue
        kind = one.value.WhichOneof("value")
        if kind == "string_value":
            kept.append({"key": one.key, "value": {"stringValue": one.value.string_value}})
        elif kind == "int_value":
            kept.append({"key": one.key, "value": {"intValue": str(one.value.int_value)}})
        elif kind == "double_value":
            kept.append({"key": one.key, "value": {"doubleValue": repr(one.value.double_value)}})
        elif kind == "bool_value":
            kept.append({"key": one.key, "value": {"boolValue": one.value.bool_value}})
    return kept


def _from_json(body: bytes, signal: Signal, keep: _Kept) -> Iterator[_Group]:
    outer, inner, name = _NAMES[signal]
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise BadExport("The body is not JSON.") from None
    if not isinstance(content, dict):
        raise BadExport("The body is no JSON object.")
    read = _json_span if signal == "traces" else _json_log_record
    for one in _objects(content, outer):
        resource = _json_attributes(_object(one, "resource"), keep.resource)
        for scope in _objects(one, inner):
            records = [read(record, keep) for record in _objects(scope, name)]
            yield _Group(list(resource), str(_object(scope, "scope").get("name", "")), records)


def _json_span(span: Mapping[str, Any], keep: _Kept) -> Record:
    return {
        "traceId": _written(span, "traceId").lower(),
        "spanId": _written(span, "spanId").lower(),
        "parentSpanId": _written(span, "parentSpanId").lower(),
        "name": _written(span, "name"),
        "startTimeUnixNano": _written(span, "startTimeUnixNano"),
        "endTimeUnixNano": _written(span, "endTimeUnixNano"),
        "status": {"code": _written(_object(span, "status"), "code")},
        "attributes": _json_attributes(span, keep.own),
    }


def _json_log_record(record: Mapping[str, Any], keep: _Kept) -> Record:
    when = _written(record, "timeUnixNano")
    return {
        "timeUnixNano": when if when not in ("", "0") else _written(record, "observedTimeUnixNano"),
        "eventName": _written(record, "eventName"),
        "body": {"stringValue": _written(_object(record, "body"), "stringValue")},
        "traceId": _written(record, "traceId").lower(),
        "spanId": _written(record, "spanId").lower(),
        "attributes": _json_attributes(record, keep.own),
    }


def _json_attributes(holder: Mapping[str, Any], names: frozenset[str]) -> list[Record]:
    kept: list[Record] = []
    for one in _objects(holder, "attributes"):
        key, value = one.get("key"), _object(one, "value")
        if key not in names:
            continue
        kind = next((kind for kind in _VALUES if value.get(kind) is not None), None)
        if kind is not None:
            held = value[kind]
            kept.append({"key": key, "value": {kind: held if isinstance(held, bool) else str(held)}})
    return kept


def _objects(holder: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = holder.get(name)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadExport(f"{name} is no list of objects.")
    return found


def _object(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = holder.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadExport(f"{name} is no object.")
    return found


def _written(holder: Mapping[str, Any], name: str) -> str:
    """A text, or a number as one; nothing as the empty text."""
    found = holder.get(name)
    if found is None:
        return ""
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise BadExport(f"{name} is neither text nor number.")
    return str(found)
