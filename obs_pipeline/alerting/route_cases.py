"""Routing, asked without an incident: which routes a set of labels takes, and the test cases beside the routes file.

Holds the answers' shapes and their comparison with what a case expects. How routing works belongs to ``routes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from obs_pipeline.alerting.matching import Labelled, all_hold
from obs_pipeline.alerting.models import KINDS, LABELS, SEVERITIES, Incident, Route
from obs_pipeline.alerting.routes import Routes, RoutesError, taken_routes
from obs_pipeline.errors import ObsError
from obs_pipeline.yaml_positions import Document, Problem, documents_in

_FIELDS: Final = ("name", "incident", "routes", "receivers", "task")
_BLANK: Final = Incident(
    id="",
    kind="anomaly",
    severity="warning",
    status="open",
    opened_at=datetime.min,
    updated_at=datetime.min,
    began_at=datetime.min,
    last_seen_at=datetime.min,
    headline="",
)


class LabelError(ObsError):
    """Labels that no incident can have; the message says what to write."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case; ``differences`` say what was expected and what came, and are empty where it holds."""

    name: str
    line: int
    differences: tuple[str, ...]


def routes_of(routes: Routes, labels: Mapping[str, str]) -> list[Route]:
    """The routes that an incident of these labels takes. Labels not stated are empty, the kind is anomaly and the
    severity warning."""
    labelled = Labelled([incident_of(labels)])
    return [route for route, mask in taken_routes(routes, labelled) if mask[0]]


def incident_of(labels: Mapping[str, str]) -> Incident:
    """An incident of these labels and nothing else.

    Raises:
        LabelError: a label, kind or severity that does not exist.
    """
    for label, value in labels.items():
        known = {"kind": KINDS, "severity": SEVERITIES}.get(label)
        if label not in LABELS:
            raise LabelError(f"{label!r} is no label; it is one of {', '.join(LABELS)}.")
        if known is not None and value not in known:
            raise LabelError(f"{label}={value}: there is no such {label}; it is one of {', '.join(known)}.")
    values: dict[str, Any] = dict(labels)
    return replace(_BLANK, **values)


def why_not(route: Route, incident: Incident) -> str:
    """The first matcher of a route that an incident does not meet; empty where it meets all."""
    for label, patterns in route.matchers.items():
        if not all_hold({label: patterns}, incident.labels):
            return f"{label} is {incident.labels[label] or 'empty'}, not {' or '.join(patterns)}"
    return ""


def run_cases(routes: Routes, path: Path) -> list[CaseResult]:
    """Every case of a file, in its order.

    Raises:
        RoutesError: the file cannot be read or a case says what it may not.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RoutesError([Problem(path.name, 1, "", f"cannot be read: {error.strerror}", "write cases")]) from None
    documents, problem = documents_in(content, path.name)
    if problem is not None:
        raise RoutesError([problem])
    return [
        _result(routes, case, document.lines.get((place,), document.line), path.name)
        for document in documents
        for place, case in enumerate(_list(document, path.name))
    ]


def _list(document: Document, file: str) -> list[Any]:
    if not isinstance(document.value, list):
        raise RoutesError([Problem(file, document.line, "", "is no list of cases", "begin each case with a dash")])
    return document.value


def _result(routes: Routes, case: Any, line: int, file: str) -> CaseResult:
    if not isinstance(case, dict) or not {"name", "incident"} <= set(case) <= set(_FIELDS):
        mend = f"write name and incident, and of {', '.join(_FIELDS[2:])} what is expected"
        raise RoutesError([Problem(file, line, "", "is no routing case", mend)])
    try:
        taken = routes_of(routes, case["incident"])
    except LabelError as error:
        raise RoutesError([Problem(file, line, "incident", str(error).rstrip("."), "correct it")]) from None
    came: dict[str, object] = {
        "routes": [route.name for route in taken],
        "receivers": sorted({receiver.name for route in taken for receiver in route.receivers}),
        "task": any(route.create_task is not None for route in taken),
    }
    differences = tuple(
        f"{field}: expected {case[field]}, came {came[field]}"
        for field in came
        if field in case and (sorted(case[field]) if field == "receivers" else case[field]) != came[field]
    )
    return CaseResult(case["name"], line, differences)
