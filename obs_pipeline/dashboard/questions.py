"""What may be asked and what is answered: the inputs and the shapes of the answers, for MCP and HTTP alike.

Only shapes and their limits. Money is USD as an exact decimal, written as text; times are UTC without a zone.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from obs_pipeline.errors import ObsError

Timeframe = Literal["day", "week", "month"]
Dimension = Literal["org", "project", "team", "agent", "provider", "model"]
DAYS: Final[dict[Timeframe, int]] = {"day": 1, "week": 7, "month": 30}
UNATTRIBUTED: Final = "(unattributed)"
REST: Final = "(rest)"
PAGE: Final = 200
_FURTHEST: Final = 2**53


class BadQuestion(ObsError):
    """A question that cannot be answered as it is put; the message names the input."""


def _without_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


Moment = Annotated[
    datetime,
    AfterValidator(_without_zone),
    PlainSerializer(lambda moment: f"{moment.isoformat()}Z", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in UTC: without a zone inside, and written with its Z, as date-times in JSON are."""


class Asked(BaseModel):
    """Inputs of a question. Their public names are camel case."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Filtered(Asked):
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="Only this organisation.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Only this agent.")
    team: str | None = Field(default=None, alias="teamId", max_length=500, description="Only this team.")
    project: str | None = Field(default=None, alias="projectId", max_length=500, description="Only this project.")
    model: str | None = Field(default=None, max_length=500, description="Only this model.")


class MetricsAsked(Filtered):
    timeframe: Timeframe = Field(default="day", description="1, 7 or 30 days, up to and with the last computed day.")
    by: Dimension = Field(default="project", description="What the total is sliced by.")
    end: date | None = Field(default=None, description="Last day (UTC) instead of the last computed one.")


class TrendsAsked(Asked):
    metric: Literal["cost", "tokens", "calls", "errors", "latency"] = Field(
        default="cost", description="errors is a share of calls; latency the p95 in ms, of one agent."
    )
    granularity: Literal["hour", "day"] = "day"
    timeframe: Timeframe = "month"
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="Only this organisation.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Only this agent.")
    team: str | None = Field(default=None, alias="teamId", max_length=500, description="Only this team.")
    project: str | None = Field(default=None, alias="projectId", max_length=500, description="Only this project.")
    model: str | None = Field(default=None, max_length=500, description="Only this model.")
    end: date | None = Field(default=None, description="Last day (UTC) instead of the last computed one.")


class Paged(Asked):
    limit: int = Field(default=50, ge=1, le=PAGE, description="Rows in one answer.")
    cursor: str | None = Field(default=None, max_length=500, description="next_cursor of the answer before.")


class AnomaliesAsked(Paged):
    severity: Literal["info", "warning", "critical"] | None = None
    timeframe: Timeframe = "week"
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="Only this organisation.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Only this agent.")
    project: str | None = Field(default=None, alias="projectId", max_length=500, description="Only this project.")
    metric: Literal["cost", "tokens", "errors", "latency"] | None = None
    end: date | None = Field(default=None, description="Last day (UTC) instead of the last computed one.")


class ExportAsked(Paged):
    format: Literal["csv", "json"] = "csv"
    timeframe: Timeframe = "day"
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="Only this organisation.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Only this agent.")
    team: str | None = Field(default=None, alias="teamId", max_length=500, description="Only this team.")
    project: str | None = Field(default=None, alias="projectId", max_length=500, description="Only this project.")
    model: str | None = Field(default=None, max_length=500, description="Only this model.")
    end: date | None = Field(default=None, description="Last day (UTC) instead of the last computed one.")
    limit: int = Field(default=100, ge=1, le=PAGE, description="Rows in one answer.")


class EntitiesAsked(Paged):
    level: Dimension = Field(default="agent", description="What to list.")
    timeframe: Timeframe = "month"
    search: str | None = Field(default=None, max_length=200, description="Part of the name, any case.")
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="Only within this organisation.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Only within this agent.")
    team: str | None = Field(default=None, alias="teamId", max_length=500, description="Only within this team.")
    project: str | None = Field(
        default=None, alias="projectId", max_length=500, description="Only within this project."
    )
    model: str | None = Field(default=None, max_length=500, description="Only within this model.")
    end: date | None = Field(default=None, description="Last day (UTC) instead of the last computed one.")


class ExplainAsked(Asked):
    anomaly: str = Field(
        alias="anomalyId", min_length=4, max_length=40, description="The id, such as an-0123456789abcdef."
    )


class PolicyAsked(Asked):
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="The organisation.")
    project: str | None = Field(default=None, alias="projectId", max_length=500, description="Its project.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Its agent.")


class BudgetsAsked(Paged):
    scope: Literal["org", "project", "agent"] | None = None
    state: Literal["ok", "warning", "exceeded", "incomparable"] | None = None
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="Only this organisation.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Only this agent.")
    project: str | None = Field(default=None, alias="projectId", max_length=500, description="Only this project.")


class IncidentsAsked(Paged):
    status: Literal["open", "acknowledged", "resolved"] | None = None
    order: Literal["changed", "worst"] = Field(
        default="changed",
        description="The most recently changed first, or the worst first, and within them the newest.",
    )
    org: str | None = Field(default=None, alias="orgId", max_length=500, description="Only this organisation.")
    project: str | None = Field(default=None, alias="projectId", max_length=500, description="Only this project.")
    agent: str | None = Field(default=None, alias="agentId", max_length=500, description="Only this agent.")


class WhyAsked(Asked):
    incident: str = Field(
        alias="incidentId", min_length=1, max_length=80, description="An incident's or an anomaly's id."
    )


class Shown(BaseModel):
    model_config = ConfigDict(frozen=True)


class Coverage(Shown):
    """How far the numbers can be trusted. ``unpriced_bound`` is the most the unpriced calls can have cost, where known."""

    calls: int
    unpriced_calls: int
    unpriced_bound: Decimal | None
    unattributed_cost: Decimal
    provisional_days: list[date]


class Answer(Shown):
    """What every answer tells of itself. ``as_of`` is the newest event taken in, ``versions`` the lake's, all at once."""

    time_zone: Literal["UTC"] = "UTC"
    as_of: Moment | None
    first_day: date
    last_day: date
    coverage: Coverage
    versions: dict[str, int]


class Page(Answer):
    total: int
    has_more: bool
    next_cursor: str | None = None


class Spending(Shown):
    """``budget`` and ``percentage`` are None where no cost limit of that period holds for what was asked."""

    current: Decimal
    previous: Decimal
    budget: Decimal | None = None
    percentage: float | None = None


class Tokens(Shown):
    """``efficiency`` is saved / (consumed + saved); ``cached_share`` the part of the input read from caches."""

    consumed: int
    input: int
    output: int
    cached: int
    saved: int
    efficiency: float | None
    cached_share: float | None


class Change(Shown):
    """``change`` is None where there was nothing before to compare with."""

    current: Decimal
    previous: Decimal
    change: float | None


class Slice(Shown):
    name: str
    cost: Decimal
    calls: int
    errors: int
    tokens: int
    saved_tokens: int


class Metrics(Answer):
    timeframe: Timeframe
    by: Dimension
    spending: Spending
    tokens: Tokens
    calls: int
    errors: int
    trends: dict[str, Change]
    slices: list[Slice]


class Point(Shown):
    time: Moment
    value: float
    expected: float | None = None
    lower: float | None = None
    upper: float | None = None


class AnomalyMark(Shown):
    id: str
    time: Moment
    severity: str
    observed: float


class Trends(Answer):
    """``band`` says where the expected band comes from, or why there is none. ``anomalies`` are the worst of ``marked``."""

    metric: str
    granularity: str
    unit: str
    points: list[Point]
    anomalies: list[AnomalyMark]
    marked: int
    band: str


class AnomalyShown(Shown):
    """``label`` is what somebody said of it last."""

    id: str
    timestamp: Moment
    org: str | None
    project: str | None
    agent: str | None
    metric: str
    grain: str
    severity: str
    score: float
    confidence: float
    baseline: float | None
    observed: float
    deviation: float | None
    reason: str
    label: Literal["real", "false_positive", "planned"] | None = None


class Anomalies(Page):
    anomalies: list[AnomalyShown]
    by_severity: dict[str, int]


class ModelPart(Shown):
    """What one model gave to a term. ``model`` is None for calls that name none."""

    model: str | None
    amount: Decimal


class TermShown(Shown):
    """One reason of a deviation, and the models that most of it comes from."""

    name: str
    amount: Decimal
    by_model: list[ModelPart]


class SplitShown(Shown):
    """A deviation in parts: the terms add up to observed minus expected exactly, all in ``unit``.

    ``cause`` is a guess and ``because`` its evidence. Compared with are the days from ``reference_start`` to the anomaly.
    """

    cause: str
    because: str
    unit: str
    observed: Decimal
    expected: Decimal
    terms: list[TermShown]
    unpriced_calls: int
    reference_start: Moment


class Explained(Answer):
    """``split`` is None where the server was started without a way to the events."""

    anomaly: AnomalyShown
    lower: float | None
    upper: float | None
    method: str
    context: dict[str, Any]
    around: list[Point]
    split: SplitShown | None = None


class Export(Page):
    """A page of rows. Their ``cost`` comes to ``total_cost`` over all pages. A page of CSV begins with its header."""

    format: str
    media_type: str
    content: str
    total_cost: Decimal


class Entity(Slice):
    """``previous_cost`` is what it cost in as many days before."""

    previous_cost: Decimal


class Entities(Page):
    level: Dimension
    entities: list[Entity]


class PolicyField(Shown):
    field: str
    value: str
    period: str | None
    currency: str | None
    set_at: str | None
    decided_by: str
    files: str
    trail: list[dict[str, Any]]


class EffectivePolicyShown(Answer):
    scope: str
    org: str | None
    project: str | None
    agent: str | None
    as_at: date | None
    fields: list[PolicyField]
    told: str


class BudgetShown(Shown):
    scope: str
    org: str | None
    project: str | None
    agent: str | None
    kind: str
    period: str
    currency: str
    window_start: Moment
    window_end: Moment
    limit: Decimal
    spent: Decimal | None
    spent_upper: Decimal | None
    ratio: float | None
    state: str
    burn_short: float | None
    burn_long: float | None
    projected_exhaustion: Moment | None


class Budgets(Page):
    at: Moment | None
    by_state: dict[str, int]
    budgets: list[BudgetShown]


class IncidentShown(Shown):
    """``began_at`` is when usage began to be abnormal, ``opened_at`` when that was noticed."""

    id: str
    title: str
    kind: str
    severity: str
    status: str
    org: str | None
    project: str | None
    agent: str | None
    acknowledged_by: str | None
    began_at: Moment
    opened_at: Moment
    updated_at: Moment


class Incidents(Page):
    """``by_severity`` counts all that were asked for, on whatever page."""

    by_severity: dict[str, int]
    incidents: list[IncidentShown]


class Decision(Shown):
    at: Moment
    route: str
    outcome: str
    detail: dict[str, Any]


class TaskShown(Shown):
    """A task that was made of an incident. ``id`` is its name in the tracker, ``state`` open or closed."""

    tracker: str
    id: str
    url: str | None
    state: str


class Why(Answer):
    """The newest of its decisions, of ``total``."""

    total: int
    incident: IncidentShown
    tasks: list[TaskShown]
    decisions: list[Decision]


def read_cursor(cursor: str | None, mark: str) -> int:
    """Where a page begins.

    Raises:
        BadQuestion: it is no cursor, or the data changed since it was given out.
    """
    if cursor is None:
        return 0
    try:
        at, of = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (binascii.Error, UnicodeError, ValueError, TypeError):
        raise BadQuestion("cursor: it is not one of ours; leave it out to begin at the first page.") from None
    if type(at) is not int or not 0 <= at < _FURTHEST:
        raise BadQuestion("cursor: it is not one of ours; leave it out to begin at the first page.")
    if of != mark:
        raise BadQuestion("cursor: the question or the data changed since it was given out; begin at the first page.")
    return at


def write_cursor(at: int, mark: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([at, mark]).encode()).decode()
