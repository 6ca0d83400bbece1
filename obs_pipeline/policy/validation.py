"""Turning what a model refused into problems a person can mend: the line, the field, the reason, the way out.

Serves every model written in policy files. Knows no policy rule itself; the models hold those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from obs_pipeline.policy.provenance import nearest_line
from obs_pipeline.yaml_positions import FieldPath, Problem

_SHOWN: Final = 20
_WANTED: Final[Mapping[str, str]] = {
    "string_type": "write text, in quotes if it looks like a number",
    "int_type": "write a whole number without quotes",
    "int_from_float": "write a whole number",
    "decimal_type": "write a number",
    "decimal_parsing": "write a number",
    "finite_number": "write a finite number",
    "decimal_max_places": "use at most nine decimals",
    "tuple_type": "write a list",
    "list_type": "write a list",
    "model_type": "write a mapping of fields",
    "dict_type": "write a mapping of fields",
    "missing": "add it",
}


def problems_of(
    error: ValidationError,
    model: type[BaseModel],
    file: str,
    line: int,
    lines: Mapping[FieldPath, int],
) -> Iterator[Problem]:
    """Every refusal as a problem, in the order of the file; at most twenty, with the rest counted.

    ``lines`` are distances from ``line``, the first line of the refused value.
    """
    # A default that depends on another field is only uncomputed because that field is already reported.
    details = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
    found = sorted((_problem(detail, model, file, line, lines) for detail in details), key=lambda problem: problem.line)
    yield from found[:_SHOWN]
    if len(found) > _SHOWN:
        more = len(found) - _SHOWN
        yield Problem(file, found[_SHOWN].line, "", f"has {more} more problems", "mend those above first")


def _problem(
    detail: ErrorDetails, model: type[BaseModel], file: str, line: int, lines: Mapping[FieldPath, int]
) -> Problem:
    path = detail["loc"]
    message, mend = _words(detail, model)
    return Problem(file, line + nearest_line(lines, path), ".".join(map(str, path)), message, mend)


def _words(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str]:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return "is not a field of this schema", _suggestion(model, detail["loc"])
    if kind == "missing":
        return "is missing", "add it"
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, "), "correct it"
    if kind == "literal_error":
        return f"is {_shown(detail['input'])}", f"write one of {detail['ctx']['expected']}"
    message = f"is {_shown(detail['input'])}: {_lowered(detail['msg'])}"
    return message, _WANTED.get(kind, "correct it")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "empty"
    text = str(value) if not isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _suggestion(model: type[BaseModel], path: FieldPath) -> str:
    allowed = _fields(model, path[:-1])
    # scopeId and scope-id are the same word in other notations.
    written = re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", str(path[-1])).lower()
    close = get_close_matches(written, allowed, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(allowed)}"


def _fields(model: type[BaseModel], path: FieldPath) -> list[str]:
    for part in path:
        if isinstance(part, str):
            model = _model_in(_field_type(model, part)) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _field_type(model: type[BaseModel], name: str) -> Any:
    for own_name, field in model.model_fields.items():
        if name in (own_name, field.alias):
            return field.annotation
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)
