"""The column mapping of a source: which column or JSON path of a file holds which field of the usage event.

Here: the YAML model, the shipped mappings, and errors that name file, line, field and the likely intention. No reading of
usage files, no SQL.

A mapping file::

    source: gateway                # who reports; with event_id it identifies an event
    format: jsonl                  # auto (default), parquet, csv, jsonl
    tokens: exclusive              # input counts leave out the cache parts (default: inclusive)
    zone: Asia/Kolkata             # what a time without an offset is written in (default: UTC)
    filter: {field: type, equals: [completion, embedding], others: skip}   # default: quarantine the others
    once: {by: [id, attempt], keep: last}            # lines of one call: only the last of the file counts
    columns:
      event_id: {join: [project, id]}                # texts with a colon between
      event_time: {from: [ended_at, created], unit: ms}   # the first that has a value
      model: 'attributes."gen_ai.request.model"'     # quotes keep a dot inside a name
      cache_write_tokens: {sum: [write_5m, write_1h]}     # of those that are there
      latency_ms: {between: [started, ended]}        # from one time to another
      ttft_ms: {between: [started, first], before: ended}   # nothing, unless the second time is before ``ended``
      reported_cost: {from: cost, unit: cents, currency: EUR, zero: unknown, free: {field: cached, equals: hit}}
      error_type: {from: error.class, default: error, when: {field: status, at_least: 400}}
      org: {const: acme}
    attributes:                                      # what else to keep, by the name to keep it under
      region: meta.region
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from obs_pipeline.errors import ObsError
from obs_pipeline.time_zones import TimeZone
from obs_pipeline.usage.event import EVENT_SCHEMA, MONEY, TIME, TOKEN_COLUMNS

Format = Literal["parquet", "csv", "jsonl"]
Kind = Literal["text", "time", "count", "money", "duration", "attributes"]
Unit = Literal["iso", "s", "ms", "us", "ns", "usd", "cents", "micro_usd", "nano_usd"]

UNITS: Final[Mapping[Kind, tuple[Unit, ...]]] = {
    "time": ("iso", "s", "ms", "us", "ns"),
    "duration": ("s", "ms"),
    "money": ("usd", "cents", "micro_usd", "nano_usd"),
}
BUILTIN: Final = (
    *("aider", "canonical", "claude_code", "claude_code_otel", "helicone", "langfuse", "litellm", "otlp"),
)

_PATH_STEP: Final = re.compile(r'(?:"([^"]+)"|([^."\[\]]+))((?:\[\d+\])*)')


class MappingInvalid(ObsError):
    """A mapping that cannot be used; the message lists every fault with its line."""


def kind_of(field: str) -> Kind:
    """How values of a canonical field are read."""
    if field == "attributes":
        return "attributes"
    if field in TOKEN_COLUMNS:
        return "count"
    by_type: Mapping[Any, Kind] = {TIME: "time", MONEY: "money"}
    found = EVENT_SCHEMA.field(field).type
    return by_type.get(found, "duration" if field.endswith("_ms") else "text")


def path_steps(path: str) -> tuple[tuple[str, str], ...]:
    """A dotted path as (name, list positions) steps: ``a."b.c"[0]`` is ``(("a", ""), ("b.c", "[0]"))``.

    Raises ``ValueError`` for a path that is not one.
    """
    steps: list[tuple[str, str]] = []
    position = 0
    while found := _PATH_STEP.match(path, position):
        steps.append((found[1] or found[2], found[3]))
        position = found.end()
        if position == len(path):
            return tuple(steps)
        if path[position] != ".":
            break
        position += 1
    raise ValueError(f'{path!r} is not a column or path; write a.b.c, and quote a name that holds a dot: a."b.c"')


def _checked_path(path: str) -> str:
    path_steps(path)
    return path


def _canonical_field(name: str) -> str:
    if name not in EVENT_SCHEMA.names:
        raise ValueError(f"{name} is not a field of the usage event{_did_you_mean(name, EVENT_SCHEMA.names)}")
    return name


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_column(value: object) -> object:
    return {"from": value} if isinstance(value, str | list) else value


def _as_texts(value: object) -> object:
    values = value if isinstance(value, list) else [value]
    return ["true" if one is True else "false" if one is False else str(one) for one in values]


FieldPath = Annotated[str, AfterValidator(_checked_path)]
Paths = Annotated[tuple[FieldPath, ...], BeforeValidator(_as_list)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Condition(_Strict):
    """Holds where the first of ``paths`` with a value equals one of these texts, or is a number that large."""

    paths: Paths = Field(alias="field", min_length=1)
    values: Annotated[tuple[str, ...], BeforeValidator(_as_texts)] = Field(default=(), alias="equals")
    at_least: float | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Condition:
        if bool(self.values) == (self.at_least is not None):
            raise PydanticCustomError("question", "give either equals (texts) or at_least (a number)")
        return self


class Currency(_Strict):
    """What an amount is in: one currency for all rows, or the first of ``paths`` that names one."""

    const: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    paths: Paths = Field(default=(), alias="from")

    @model_validator(mode="after")
    def _one_origin(self) -> Currency:
        if bool(self.paths) == (self.const is not None):
            raise PydanticCustomError("origin", "give a code such as EUR, or from (a column or path)")
        return self


def _as_currency(value: object) -> object:
    return {"const": value} if isinstance(value, str) else value


class Column(_Strict):
    """Where one field comes from: the first of ``paths``, ``join``, ``sum`` and ``between`` that has a value, or a constant.

    ``zero: unknown`` is for sources that write 0 where they do not know; ``free`` says when a call cost nothing all the
    same. ``currency`` is what an amount is in, where that is not USD. ``default`` stands for a value that is not there. The
    field is null where ``when`` does not hold.
    """

    paths: Paths = Field(default=(), alias="from")
    join: Paths = ()
    sum: Paths = ()
    between: tuple[Paths, Paths] | None = None
    before: Paths = ()
    const: str | int | float | None = None
    unit: Unit | None = None
    currency: Annotated[Currency, BeforeValidator(_as_currency)] | None = None
    zero: Literal["value", "unknown"] = "value"
    free: Condition | None = None
    default: str | None = None
    when: Condition | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Column:
        if self.is_found == (self.const is not None):
            raise PydanticCustomError("origin", "give either from (a column or path) or const (a value)")
        return self

    @property
    def is_found(self) -> bool:
        """Whether the value is looked for in the row at all."""
        return bool(self.paths or self.join or self.sum or self.between)

    @property
    def is_plain(self) -> bool:
        """Whether the value is taken as it stands."""
        return not (self.free or self.when or self.currency or self.default is not None or self.zero == "unknown")

    def all_paths(self) -> tuple[str, ...]:
        conditions = [one for one in (self.free, self.when) if one]
        times = self.between or ((), ())
        return (
            *(*self.paths, *self.join, *self.sum, *times[0], *times[1], *self.before),
            *(path for one in conditions for path in one.paths),
            *(self.currency.paths if self.currency else ()),
        )


class Filter(Condition):
    """Only rows for which this holds are usage. The others go to quarantine, or are passed over without a trace."""

    others: Literal["quarantine", "skip"] = "quarantine"


class Once(_Strict):
    """Rows that agree in these values are one call, written several times; the last (or first) of the file counts."""

    paths: Paths = Field(alias="by", min_length=1)
    keep: Literal["first", "last"] = "last"


class Unfold(_Strict):
    """A record of the file holds many calls, as OpenTelemetry writes them.

    ``only`` says which spans or log records are calls, ``inherit`` which attributes a call takes from the nearest span
    above it, ``same_call`` which attribute two spans of one trace share when they stand for one call.
    """

    shape: Literal["otlp_spans", "otlp_logs"]
    only: Condition
    inherit: Paths = ()
    same_call: FieldPath | None = None


class Tokens(_Strict):
    """Whether a whole token count includes its parts: input its cache reads and writes, output its reasoning."""

    input: Literal["inclusive", "exclusive"] = "inclusive"
    output: Literal["inclusive", "exclusive"] = "inclusive"


def _as_tokens(value: object) -> object:
    return {"input": value} if isinstance(value, str) else value


ColumnSpec = Annotated[Column, BeforeValidator(_as_column)]
FieldName = Annotated[str, AfterValidator(_canonical_field)]


class SourceMapping(_Strict):
    """How the files of one source become usage events."""

    source: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    format: Literal["auto"] | Format = "auto"
    tokens: Annotated[Tokens, BeforeValidator(_as_tokens)] = Tokens()
    zone: TimeZone = "UTC"
    delimiter: Annotated[str, StringConstraints(pattern=r"^[,;|\t:~^]$")] = ","
    filter: Filter | None = None
    once: Once | None = None
    unfold: Unfold | None = None
    columns: dict[FieldName, ColumnSpec]
    attributes: dict[str, FieldPath] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _makes_sense(self) -> SourceMapping:
        if "event_time" not in self.columns:
            raise _fault("columns", "event_time must be mapped; an event without a time cannot be placed")
        if self.attributes and "attributes" in self.columns:
            raise _fault("attributes", "map attributes either as one column or by name, not both")
        for field, column in self.columns.items():
            if column.currency is not None and kind_of(field) != "money":
                raise _fault(f"columns.{field}.currency", f"{field} is no amount of money")
            allowed = UNITS.get(kind_of(field), ())
            if column.unit is not None and column.unit not in allowed:
                takes = f"takes one of {', '.join(allowed)}" if allowed else "takes no unit"
                raise _fault(f"columns.{field}.unit", f"{column.unit} does not fit: {field} {takes}")
        return self

    def paths(self) -> tuple[str, ...]:
        """Every column or path the mapping looks at, each once, in the order of the file."""
        read = [path for column in self.columns.values() for path in column.all_paths()]
        read += self.attributes.values()
        read += self.filter.paths if self.filter else ()
        read += self.once.paths if self.once else ()
        return tuple(dict.fromkeys(read))


def load_mapping(name: str | Path) -> SourceMapping:
    """A shipped mapping by its name, or one from a YAML file.

    Raises ``MappingInvalid`` naming the file, the line, the field and, for a misspelt name, the likely one.
    """
    if isinstance(name, str) and name in BUILTIN:
        text = resources.files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        return _parsed(text, f"{name}.yaml")
    path = Path(name)
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise MappingInvalid(
            f"there is no mapping {str(name)!r}{_did_you_mean(str(name), BUILTIN)}; "
            f"give a YAML file or one of: {', '.join(BUILTIN)}"
        ) from None
    except OSError as error:
        raise MappingInvalid(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MappingInvalid(f"{path} is not UTF-8 text; save it as UTF-8") from error


def _parsed(text: str, name: str) -> SourceMapping:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MappingInvalid(f"{name}, line {line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise MappingInvalid(f"{name}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise MappingInvalid(f"{name}: a mapping file holds source, columns and so on; this one does not")
    keys = list(_lines(root, ()))
    lines = dict(keys)
    if len(lines) < len(keys):
        twice = next(where for where, count in Counter(where for where, _ in keys).items() if count > 1)
        raise MappingInvalid(f"{name}, line {lines[twice]}: {'.'.join(twice)} is given twice")
    try:
        return SourceMapping.model_validate(content)
    except ValidationError as error:
        raise MappingInvalid("\n".join(_told(error, name, lines))) from error


def _lines(node: yaml.Node | None, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every key of the document with its line."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        here = (*where, str(key.value))
        yield here, key.start_mark.line + 1
        yield from _lines(value, here)


def _told(error: ValidationError, name: str, lines: Mapping[tuple[str, ...], int]) -> Iterator[str]:
    for fault in error.errors():
        where = tuple(str(step) for step in fault["loc"] if step != "[key]")
        message = fault["msg"].removeprefix("Value error, ")
        at = fault.get("ctx", {}).get("at")
        if at:
            where = tuple(at.split("."))
        if fault["type"] == "extra_forbidden":
            message = f"there is no such setting{_did_you_mean(where[-1], _settings_beside(where))}"
        if fault["type"] == "missing":
            message = "this is needed"
        line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), 1)
        yield f"{name}, line {line}: {'.'.join(where) or 'mapping'}: {message}"


def _settings_beside(where: tuple[str, ...]) -> list[str]:
    """The settings that can stand at a place of the file."""
    inner: Mapping[str, type[BaseModel]] = {
        "columns": Column,
        "filter": Filter,
        "once": Once,
        "unfold": Unfold,
        "tokens": Tokens,
    }
    model = inner.get(where[0], SourceMapping) if len(where) > 1 else SourceMapping
    return [info.alias or name for name, info in model.model_fields.items()]


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _fault(at: str, message: str) -> PydanticCustomError:
    return PydanticCustomError("mapping", "{told}", {"told": message, "at": at})
