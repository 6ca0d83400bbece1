"""The price overlay ``prices.yaml``: its shape, its rules, and messages that name the line to mend.

Reading and checking only. How an entry is laid over the catalogue is decided in ``pricing``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from obs_pipeline.errors import ObsError
from obs_pipeline.usage.model_names import ModelRef, model_ref

SENTINEL_RATE: Final = Decimal(1_000_000)
"""A dollar a token. Nothing sells at that; price lists use such numbers to say "unknown"."""

RATE_PLACES: Final = 6
SHOWN_PROBLEMS: Final = 5


class PriceFileError(ObsError):
    """The price file cannot be used; the message names the file, the line, the field and what to do."""


def _checked_rate(rate: Decimal) -> Decimal:
    if not rate.is_finite():
        raise ValueError("must be a finite number of USD")
    if rate < 0:
        raise ValueError("must not be negative; book credits as events of type credit")
    if rate >= SENTINEL_RATE:
        raise ValueError(
            f"{rate} USD per million tokens is a placeholder, not a price; "
            "leave the entry out and the model stays unpriced"
        )
    if rate != round(rate, RATE_PLACES):
        raise ValueError(f"has more than {RATE_PLACES} decimals; round it")
    return rate


Rate = Annotated[Decimal, AfterValidator(_checked_rate)]
Name = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RateLine(_Strict):
    """USD per million tokens. A cache rate that is left out is the input rate of the same line."""

    input: Rate
    output: Rate
    cache_read: Rate | None = None
    cache_write: Rate | None = None


class SizeTier(RateLine):
    """The rates of the whole request once its input exceeds ``above`` tokens."""

    above: Annotated[int, Field(ge=0, lt=10**13)]


class PriceEntry(RateLine):
    """The price of one model, or of every model that fits a glob, from one UTC day until before another."""

    provider: Name | None = None
    model: Name | None = None
    pattern: Name | None = None
    from_day: date = Field(alias="from")
    until_day: date | None = Field(default=None, alias="until")
    call_fee: Rate = Decimal(0)
    tiers: tuple[SizeTier, ...] = ()
    note: str | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.model is None) == (self.pattern is None):
            raise ValueError("give either model (one exact name) or pattern (a glob), not both and not neither")
        if self.until_day is not None and self.until_day <= self.from_day:
            raise ValueError("until must be after from; until is the first day the price no longer holds")
        if any(lower.above >= upper.above for lower, upper in pairwise(self.tiers)):
            raise ValueError("tiers must rise: each above larger than the one before")
        return self

    @cached_property
    def ref(self) -> ModelRef:
        """The name, read by the same rule as the names in events."""
        return model_ref(self.provider, self.model or self.pattern or "")

    @property
    def specificity(self) -> tuple[bool, bool]:
        """Sorts the entry that says most about a model first: exact before glob, with seller before without."""
        return self.model is None, self.ref.seller is None

    def covers(self, ref: ModelRef) -> bool:
        if self.ref.seller not in (None, ref.seller):
            return False
        return self.ref.name == ref.name if self.pattern is None else fnmatchcase(ref.name, self.ref.name)

    def holds_on(self, day: date) -> bool:
        return self.from_day <= day and (self.until_day is None or day < self.until_day)


class Alias(_Strict):
    """Another name for a model: events called ``from`` are priced as ``to``."""

    from_name: Name = Field(alias="from")
    to: Name
    provider: Name | None = None

    @cached_property
    def ref(self) -> ModelRef:
        return model_ref(self.provider, self.from_name)

    def applies_to(self, ref: ModelRef) -> bool:
        return self.ref.name == ref.name and self.ref.seller in (None, ref.seller)

    def target(self, ref: ModelRef) -> ModelRef:
        """``ref`` under its other name; the seller stays unless ``to`` names one."""
        to = model_ref(None, self.to)
        return ModelRef(to.seller or ref.seller, to.name)


class PriceFile(_Strict):
    """What ``prices.yaml`` says."""

    version: Literal["1"]
    aliases: tuple[Alias, ...] = ()
    prices: tuple[PriceEntry, ...] = ()


NO_PRICES: Final = PriceFile(version="1")


class ReadPrices(NamedTuple):
    """A checked price file, the line of each entry of ``file.prices``, and the bytes it was read from."""

    file: PriceFile
    lines: tuple[int, ...]
    content: bytes


def read_price_file(path: Path) -> ReadPrices:
    """Read and check a price file.

    Raises:
        PriceFileError: unreadable, not YAML, of another shape, or entries that contradict each other.
    """
    content = _content(path)
    data, root = _parsed(path, content)
    try:
        file = PriceFile.model_validate(data)
    except ValidationError as error:
        raise PriceFileError(_validation_message(path, root, error)) from error
    lines = tuple(_line(root, ("prices", index)) for index in range(len(file.prices)))
    problems = [*_overlaps(path, file.prices, lines), *_repeated_aliases(path, file.aliases, root)]
    if problems:
        raise PriceFileError("; ".join(problems[:SHOWN_PROBLEMS]))
    return ReadPrices(file, lines, content)


class _TextLoader(yaml.SafeLoader):
    """YAML whose scalars stay text (so that 0.1 is exact) and whose mappings must not repeat a key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _as_written(loader: _TextLoader, node: Any) -> Any:
    return loader.construct_scalar(node)


for _kind in ("int", "float", "bool", "timestamp"):
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _as_written)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PriceFileError(f"{path}: cannot read the price file ({error.strerror}); check the path") from error


def _parsed(path: Path, content: bytes) -> tuple[Any, yaml.Node | None]:
    try:
        loader = _TextLoader(content.decode("utf-8"))
        root = loader.get_single_node()
        return (None if root is None else loader.construct_document(root)), root
    except UnicodeDecodeError as error:
        raise PriceFileError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else 1
        raise PriceFileError(f"{path}:{line}: not valid YAML: {error.problem}; mend that line") from error
    except yaml.YAMLError as error:
        raise PriceFileError(f"{path}: not valid YAML: {str(error).splitlines()[0]}; mend the file") from error


def _line(node: yaml.Node | None, loc: Sequence[int | str]) -> int:
    """The line where ``loc`` stands, or the nearest thing around it that does (a missing field has no line)."""
    line = 1 if node is None else node.start_mark.line + 1
    for step in loc:
        child = _child(node, step)
        if child is None:
            break
        key, node = child
        line = key.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, step: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(step)), None)
    return None


def _validation_message(path: Path, root: yaml.Node | None, error: ValidationError) -> str:
    problems = [
        f"{path}:{_line(root, problem['loc'])}: "
        f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {_wording(problem['type'], problem['msg'])}"
        for problem in error.errors()
    ]
    more = len(problems) - SHOWN_PROBLEMS
    return "; ".join(problems[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


_WORDING: Final = {
    "extra_forbidden": "unknown field; correct its spelling or remove it",
    "missing": "missing; add it",
    "model_type": "must be a mapping, lines of key: value",
    "tuple_type": "must be a list, lines that begin with a dash",
    "decimal_parsing": "must be a number of USD",
    "finite_number": "must be a finite number of USD",
    "date_from_datetime_parsing": "must be a day such as 2025-01-31",
    "date_from_datetime_inexact": "must be a day such as 2025-01-31, without a time",
}
"""What pydantic says in its own terms, in the reader's."""


def _wording(kind: str, message: str) -> str:
    return _WORDING.get(kind, message.removeprefix("Value error, "))


def _overlaps(path: Path, prices: Sequence[PriceEntry], lines: Sequence[int]) -> Iterator[str]:
    dated = sorted(zip(prices, lines, strict=True), key=lambda pair: (_identity(pair[0]), pair[0].from_day, pair[1]))
    for (earlier, earlier_line), (later, later_line) in pairwise(dated):
        if _identity(earlier) == _identity(later) and earlier.holds_on(later.from_day):
            yield (
                f"{path}:{later_line}: {later.model or later.pattern} from {later.from_day} overlaps line "
                f"{earlier_line}; let line {earlier_line} end earlier by its until, or remove one of them"
            )


def _identity(entry: PriceEntry) -> tuple[str, str, bool]:
    return entry.ref.seller or "", entry.ref.name, entry.pattern is None


def _repeated_aliases(path: Path, aliases: Sequence[Alias], root: yaml.Node | None) -> Iterator[str]:
    seen: set[ModelRef] = set()
    for index, alias in enumerate(aliases):
        if alias.ref in seen:
            line = _line(root, ("aliases", index))
            yield f"{path}:{line}: {alias.from_name} already has an alias above; keep one"
        seen.add(alias.ref)
