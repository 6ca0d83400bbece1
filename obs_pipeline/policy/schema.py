"""What a budget policy may say: its fields, their types and the rules one policy can break on its own.

Holds the models and their JSON Schema. Nothing here reads a file, compares two policies or knows the time.

Conventions
-----------
- A cost limit is exact money (``Decimal``, up to nine decimals) in its ``currency``; token and call limits are whole.
- A limit of zero is a limit: nothing may be spent.
- A date means the first instant of that day in the organisation's time zone; a date-time must carry its zone.
- ``until`` is the first moment that no longer counts, as the end of every interval here.
- Budgets may be written as one limit or as a list; they are always read as a tuple.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from obs_pipeline.time_zones import TimeZone

Scope = Literal["org", "project", "agent"]
Kind = Literal["cost", "tokens", "calls"]
Period = Literal["hourly", "daily", "weekly", "monthly"]
Channel = Literal["widget", "email", "slack"]
Inheritance = Literal["inherit", "override", "merge"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

SCOPES: Final[tuple[Scope, ...]] = ("org", "project", "agent")
KINDS: Final[tuple[Kind, ...]] = ("cost", "tokens", "calls")
PERIODS: Final[tuple[Period, ...]] = ("hourly", "daily", "weekly", "monthly")
WEEKDAYS: Final[tuple[Weekday, ...]] = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
USUAL_PRIORITY: Final[dict[Scope, int]] = {"org": 100, "project": 80, "agent": 60}
"""The priority of a policy that states none: an organisation's limits hold against everything below."""


class Place(NamedTuple):
    """A position in the organisation, as usage names it. ``(org, None, agent)`` is an agent outside any project."""

    org: str
    project: str | None = None
    agent: str | None = None

    @property
    def scope(self) -> Scope:
        if self.agent is not None:
            return "agent"
        return "org" if self.project is None else "project"

    @property
    def scope_id(self) -> str:
        return self.agent or self.project or self.org

    @property
    def parent(self) -> Place | None:
        if self.agent is not None:
            return Place(self.org, self.project)
        return None if self.project is None else Place(self.org)

    @property
    def chain(self) -> tuple[Place, ...]:
        """From the organisation down to this place."""
        return (self,) if self.parent is None else (*self.parent.chain, self)

    def __str__(self) -> str:
        return "/".join(part if part is not None else "-" for part in self if part or self.agent)


def place_of(scope: Scope, scope_id: str, org: str | None, project: str | None) -> Place:
    """The place that a policy with these fields is for."""
    if scope == "org":
        return Place(scope_id)
    return Place(org or "", scope_id) if scope == "project" else Place(org or "", project, scope_id)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict | BaseModel) else value


def _not_a_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not true or false")
    return value


def _moment(value: object) -> date | datetime:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("not a date (2026-05-01) or a date-time (2026-05-01T18:00:00+02:00)") from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a date-time must carry its zone, such as Z or +02:00")
        return value
    if isinstance(value, date):
        return value
    raise ValueError("not a date (2026-05-01) or a date-time (2026-05-01T18:00:00+02:00)")


Text = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
Money = Annotated[
    Decimal,
    BeforeValidator(_not_a_truth_value),
    Field(ge=0, max_digits=29, decimal_places=9),
    WithJsonSchema({"type": "number", "minimum": 0}),
]
Count = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Percent = Annotated[
    Decimal,
    BeforeValidator(_not_a_truth_value),
    Field(gt=0, le=1000, max_digits=9, decimal_places=6),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1000}),
]
Moment = Annotated[
    date | datetime,
    PlainValidator(_moment),
    PlainSerializer(lambda moment: moment.isoformat(), return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class _Increase(_Part):
    starts: Moment = Field(alias="from", description="first moment at which the raised limit holds")
    until: Moment = Field(description="first moment at which it no longer holds")
    reason: Text

    @field_validator("until", mode="after")
    @classmethod
    def _ends_after_it_starts(cls, until: Moment, info: ValidationInfo) -> Moment:
        starts = info.data.get("starts")
        if type(starts) is type(until) and until <= starts:
            raise ValueError("an increase must end after it starts: until is the first moment without it")
        return until


class CostIncrease(_Increase):
    """A dated raise of a cost limit, which ends by itself."""

    limit: Money


class CountIncrease(_Increase):
    """A dated raise of a token or call limit, which ends by itself."""

    limit: Count


Increases = TypeVar("Increases", tuple[CostIncrease, ...], tuple[CountIncrease, ...])


def _must_raise(increases: Increases, info: ValidationInfo) -> Increases:
    base = info.data.get("limit")
    if base is not None and any(increase.limit <= base for increase in increases):
        raise ValueError(f"an increase must be above the limit it raises, {base}")
    return increases


class CostLimit(_Part):
    """Money that may be spent in one calendar period."""

    limit: Money
    period: Period
    currency: Currency = "USD"
    increases: Annotated[tuple[CostIncrease, ...], AfterValidator(_must_raise)] = ()


class CountLimit(_Part):
    """Tokens or calls that may be used in one calendar period."""

    limit: Count
    period: Period
    increases: Annotated[tuple[CountIncrease, ...], AfterValidator(_must_raise)] = ()


Increase = CostIncrease | CountIncrease
Limit = CostLimit | CountLimit
Limits = TypeVar("Limits", tuple[CostLimit, ...], tuple[CountLimit, ...])


def _one_per_period(limits: Limits) -> Limits:
    periods = [limit.period for limit in limits]
    for period in PERIODS:
        if periods.count(period) > 1:
            raise ValueError(f"a policy states one {period} limit of a kind, not {periods.count(period)}")
    return limits


CostLimits = Annotated[
    tuple[CostLimit, ...],
    BeforeValidator(_as_list, json_schema_input_type=CostLimit | list[CostLimit]),
    AfterValidator(_one_per_period),
]
CountLimits = Annotated[
    tuple[CountLimit, ...],
    BeforeValidator(_as_list, json_schema_input_type=CountLimit | list[CountLimit]),
    AfterValidator(_one_per_period),
]


class Budgets(_Part):
    """Limits by kind; of one kind at most one limit per period."""

    cost: CostLimits = ()
    tokens: CountLimits = ()
    calls: CountLimits = ()


class RateLimits(_Part):
    """How fast calls may come; a field left out is not limited."""

    calls_per_minute: Count | None = None
    calls_per_hour: Count | None = None
    burst_allowance: Count | None = None


RATE_FIELDS: Final = tuple(RateLimits.model_fields)


class Alerts(_Part):
    """At which percentages of a limit to speak up, and where."""

    thresholds: tuple[Percent, ...] = ()
    channels: tuple[Channel, ...] = ()


class Calendar(_Part):
    """When an organisation's days and weeks begin."""

    time_zone: TimeZone = "UTC"
    week_start: Weekday = "monday"


class Metadata(_Part):
    """Who wrote the policy and when. Kept, never used in a decision."""

    created: Moment
    updated: Moment
    created_by: Text
    version: Annotated[int, Field(strict=True, ge=1)]


def _usual_priority(stated: dict[str, Any]) -> int:
    return USUAL_PRIORITY.get(stated.get("scope", "org"), 0)


class BudgetPolicy(_Part):
    """One budget policy, of an organisation, a project or an agent.

    ``org`` and ``project`` say whose project or agent it is, in the words of the usage. An agent policy without
    ``project`` is for the agent outside any project. A policy of an organisation has no parent, so its
    ``inheritance`` changes nothing.
    """

    id: Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]
    name: Text
    scope: Scope
    scope_id: Text
    org: Annotated[Text | None, Field(validate_default=True)] = None
    project: Text | None = None
    budgets: Budgets = Budgets()
    rate_limits: RateLimits | None = None
    alerts: Alerts | None = None
    inheritance: Inheritance = "merge"
    priority: Annotated[int, Field(strict=True, ge=0, le=1_000_000, default_factory=_usual_priority)]
    calendar: Calendar | None = None
    metadata: Metadata | None = None

    @field_validator("org", mode="after")
    @classmethod
    def _org_is_the_parent(cls, org: str | None, info: ValidationInfo) -> str | None:
        scope = info.data.get("scope")
        if scope == "org" and org is not None:
            raise ValueError("an organisation names itself in scope_id only")
        if scope in ("project", "agent") and org is None:
            raise ValueError(f"a policy of scope {scope} must name its organisation")
        return org

    @field_validator("project", mode="after")
    @classmethod
    def _only_agents_have_a_project(cls, project: str | None, info: ValidationInfo) -> str | None:
        if project is not None and info.data.get("scope") in ("org", "project"):
            raise ValueError(f"a policy of scope {info.data['scope']} belongs to no project")
        return project

    @field_validator("calendar", mode="after")
    @classmethod
    def _only_orgs_have_a_calendar(cls, calendar: Calendar | None, info: ValidationInfo) -> Calendar | None:
        if calendar is not None and info.data.get("scope") in ("project", "agent"):
            raise ValueError("the calendar is the organisation's: state it in its policy")
        return calendar

    @property
    def place(self) -> Place:
        return place_of(self.scope, self.scope_id, self.org, self.project)

    def stated_limits(self) -> Iterator[tuple[Kind, int, Limit]]:
        """Every limit with its kind and its position in the list of that kind."""
        for kind in KINDS:
            for position, limit in enumerate(getattr(self.budgets, kind)):
                yield kind, position, limit


def policy_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a policy file, for editors: one policy or a list of them."""
    schema = TypeAdapter(BudgetPolicy | list[BudgetPolicy]).json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "obs-pipeline budget policies",
        **schema,
    }
