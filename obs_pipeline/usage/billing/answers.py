"""The pages in which billing APIs answer: buckets of time, a mark where the next page begins.

Here: what such a page must look like, read strictly, so that a change of the API is a refusal and not a day without cost.
What a result means is for the module of its seller. No requests, no lake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from obs_pipeline.usage.billing.lines import BillLine, BillRefused, LineKind, utc_day

Result = TypeVar("Result", bound=BaseModel)
Count = Annotated[int, Field(ge=0, strict=True)]


class Shape(BaseModel):
    """Part of an answer: what is read must be there and of its type, what is not read may be anything."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _moment(value: object) -> object:
    """Unix seconds, or a text with its offset."""
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC)
    return value


Moment = Annotated[datetime, BeforeValidator(_moment)]


class _Bucket(Shape, Generic[Result]):
    start: Moment = Field(validation_alias=AliasChoices("start_time", "starting_at"))
    end: Moment = Field(validation_alias=AliasChoices("end_time", "ending_at"))
    results: list[Result]


class _Page(Shape, Generic[Result]):
    data: list[_Bucket[Result]]


@dataclass(frozen=True)
class Endpoint(Generic[Result]):
    """Where a seller says one thing of its bill, and how its results become lines.

    ``mark``: the ``object`` of its results, or a field that only they have; by it a saved answer is recognised.
    """

    kind: LineKind
    path: str
    group_by: tuple[str, ...]
    most_buckets: int
    mark: str
    shape: type[Result]
    line: Callable[[Result, date], BillLine]

    def recognises(self, page: Any) -> bool:
        """Whether the first result of a page is one of this endpoint's."""
        buckets = page.get("data") if isinstance(page, dict) else None
        results = [one for bucket in buckets or () if isinstance(bucket, dict) for one in bucket.get("results") or ()]
        first = results[0] if results and isinstance(results[0], dict) else {}
        return first.get("object") == self.mark or self.mark in first


@dataclass(frozen=True)
class Read:
    """The lines of some pages, and the days that they speak of."""

    lines: tuple[BillLine, ...]
    days: frozenset[date]


def read_pages(endpoint: Endpoint[Any], pages: Iterable[Any]) -> Read:
    """What the pages of one endpoint say.

    Raises:
        BillRefused: a page is not as this endpoint writes it, a bucket comes twice, or a line says what no bill says.
    """
    lines: list[BillLine] = []
    seen: set[tuple[datetime, datetime]] = set()
    days: set[date] = set()
    for bucket in _buckets(endpoint, pages):
        span = (bucket.start, bucket.end)
        if span in seen:
            raise BillRefused(f"{endpoint.path} gave the bucket from {bucket.start.isoformat()} twice; none is taken.")
        seen.add(span)
        day = utc_day(bucket.start, bucket.end)
        days.add(day)
        lines += [endpoint.line(result, day) for result in bucket.results]
    return Read(tuple(lines), frozenset(days))


def _buckets(endpoint: Endpoint[Any], pages: Iterable[Any]) -> Iterator[_Bucket[Any]]:
    shape = _Page[endpoint.shape]  # type: ignore[name-defined]
    for page in pages:
        try:
            found = shape.model_validate(page)
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
            raise BillRefused(f"{endpoint.path} answered in another shape than it is known for: {told}.") from None
        for bucket in found.data:
            if bucket.start.tzinfo is None or bucket.end.tzinfo is None:
                raise BillRefused(
                    f"{endpoint.path}: {bucket.start.isoformat()} has no offset; which day it is, is unknown."
                )
            yield bucket
