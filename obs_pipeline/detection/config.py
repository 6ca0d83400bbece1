"""What an operator may set about anomaly detection, and how the file is read.

Holds the settings, their limits and their defaults. No statistics, no reading of the environment: the path of the
file is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from obs_pipeline.errors import ObsError

Metric = Literal["cost", "tokens", "errors", "latency"]
Grain = Literal["day", "hour"]
Method = Literal["zscore", "iqr", "robust_zscore", "seasonal_profile", "forecast_residual", "ensemble"]
HourMethod = Method | Literal["usage_model"]

METRICS: tuple[Metric, ...] = get_args(Metric)
GRAINS: tuple[Grain, ...] = get_args(Grain)
CALIBRATED: frozenset[str] = frozenset({"usage_model", "ensemble"})
"""Methods whose marks are set by the false-alarm budget; those of the others are the thresholds."""
DAYS_SINCE_MONDAY: Final = 6
"""The most days of a week that can have passed before another day of it."""
GRAIN_LENGTH: Mapping[str, timedelta] = {"day": timedelta(days=1), "hour": timedelta(hours=1)}

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Allowance = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]


class DetectionConfigError(ObsError):
    """The detection settings cannot be used; the message names the file, the field and the rule."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_repeats(chosen: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(chosen)) != len(chosen):
        raise ValueError("each may be listed once")
    return chosen


class Thresholds(_Settings):
    """How many sigmas away from its baseline a value must be for each severity, for methods that are not calibrated."""

    info: Positive = 2.0
    warning: Positive = 3.0
    critical: Positive = 5.0

    @model_validator(mode="after")
    def _rise(self) -> Thresholds:
        if not self.info <= self.warning <= self.critical:
            raise ValueError("info, warning and critical must rise in this order")
        return self


class AlarmBudget(_Settings):
    """How many false alarms of each severity and above a calibrated method may raise about one agent in a week.

    Counted over all metrics that are looked at and before the materiality floor, so what is seen lies below it.
    """

    info: Allowance = 1.0
    warning: Allowance = 0.2
    critical: Allowance = 0.05

    @model_validator(mode="after")
    def _fall(self) -> AlarmBudget:
        if not self.info > self.warning > self.critical:
            raise ValueError("info, warning and critical must fall in this order: graver alarms are rarer")
        return self


class GrainMethods(_Settings):
    """The detector of each grain. Hours are compared with the same hour of the day, days with the days before.

    The usage model, for hours alone, learns the whole course of the look-back instead.
    """

    day: Method = "ensemble"
    hour: HourMethod = "usage_model"

    def of(self, grain: Grain) -> HourMethod:
        """The detector of one grain."""
        return self.day if grain == "day" else self.hour


class GrainFloors(_Settings):
    """The smallest difference from the baseline worth a person's time, for one day and for one hour."""

    day: Positive
    hour: Positive


class Materiality(_Settings):
    """What a deviation must amount to before it is reported, however many sigmas it is.

    ``cost`` in USD, ``tokens`` in tokens, ``errors`` in failed calls above the expected number, ``latency`` in
    milliseconds of p95; ``silence`` in calls that are missing, where an agent that never rests makes none; ``relative`` is
    a share of the baseline that must be exceeded as well.
    """

    cost: GrainFloors = GrainFloors(day=2.0, hour=1.0)
    tokens: GrainFloors = GrainFloors(day=600_000, hour=300_000)
    errors: GrainFloors = GrainFloors(day=5, hour=3)
    latency: GrainFloors = GrainFloors(day=250, hour=500)
    silence: GrainFloors = GrainFloors(day=20, hour=20)
    relative: NotNegative = 0.25

    def floor(self, metric: Metric | Literal["silence"], grain: Grain) -> float:
        """The floor of one metric at one grain, in the metric's own unit."""
        floors: GrainFloors = getattr(self, metric)
        return floors.day if grain == "day" else floors.hour


class MinimumCalls(_Settings):
    """How many calls a day or an hour needs before its error rate or its p95 latency means anything."""

    errors: Annotated[int, Field(ge=1)] = 20
    latency: Annotated[int, Field(ge=1)] = 20


class PriceContradiction(_Settings):
    """From how many USD reported above list price a contradiction between the two is an anomaly of its own.

    Only costs above the list price count: below it are discounts, free tiers and subscriptions.
    """

    warning: Positive = 1.0
    critical: Positive = 10.0

    @model_validator(mode="after")
    def _rise(self) -> PriceContradiction:
        if self.warning > self.critical:
            raise ValueError("warning must not be above critical")
        return self


class NewAgentCeiling(_Settings):
    """From how many USD in one day or hour an agent that is still too new to be compared with its past is told anyway.

    Each of the two is told the first time it is reached.
    """

    warning: Positive = 100.0
    critical: Positive = 1_000.0

    @model_validator(mode="after")
    def _rise(self) -> NewAgentCeiling:
        if self.warning > self.critical:
            raise ValueError("warning must not be above critical")
        return self


class AnomalyDetectionConfig(_Settings):
    """Everything that decides what is reported as an anomaly."""

    enabled: bool = True
    metrics: Annotated[tuple[Metric, ...], AfterValidator(_without_repeats)] = METRICS
    grains: Annotated[tuple[Grain, ...], AfterValidator(_without_repeats)] = GRAINS
    method: GrainMethods = GrainMethods()
    thresholds: Thresholds = Thresholds()
    false_alarms_per_agent_week: AlarmBudget = AlarmBudget()
    lookback_days: Annotated[int, Field(ge=2, le=366)] = 28
    minimum_data_points: Annotated[int, Field(ge=2)] = 7
    level_shift_days: Annotated[int, Field(ge=0)] = 7
    minimum_calls: MinimumCalls = MinimumCalls()
    source_silence_hours: Annotated[int, Field(ge=0, le=168)] = 6
    regular_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    materiality: Materiality = Materiality()
    price_contradiction: PriceContradiction = PriceContradiction()
    new_agent_ceiling: NewAgentCeiling = NewAgentCeiling()

    @model_validator(mode="after")
    def _learnable(self) -> AnomalyDetectionConfig:
        if self.minimum_data_points > self.lookback_days:
            raise ValueError(
                f"minimum_data_points ({self.minimum_data_points}) can never be reached "
                f"within lookback_days ({self.lookback_days})"
            )
        return self

    def marks(self, grain: Grain) -> Thresholds:
        """The sigmas that severities ask for at this grain.

        A calibrated method reports on a scale of its own, on which its budget is spent at the usual two, three and five.
        """
        return Thresholds() if self.method.of(grain) in CALIBRATED else self.thresholds

    @property
    def settles_after(self) -> int:
        """How many days a new level must last before it is the normal one; zero for never. It is learned from these."""
        return max(self.level_shift_days, self.minimum_data_points) if self.level_shift_days else 0

    def lookback_of(self, grain: Grain) -> int:
        """How many days before a tested day its baseline may learn from.

        The usage model's begins :attr:`lookback_days` before the Monday of its week, so that all days of a week share one.
        """
        return self.lookback_days + (DAYS_SINCE_MONDAY if self.method.of(grain) == "usage_model" else 0)

    @property
    def history_days(self) -> int:
        """How many days before the first tested day the usage tables must hold.

        The longest look-back of the day before, by which it is told whether an incident began there; and the day before that
        when the silence of a source is measured across midnight.
        """
        return max(self.lookback_of(grain) for grain in GRAINS) + 1 + -(-self.source_silence_hours // 24)


def load_detection_config(path: Path) -> AnomalyDetectionConfig:
    """Read the settings from a YAML file; an empty file means the defaults.

    Raises :class:`DetectionConfigError` naming the file and the line or field when it cannot be read or is invalid.
    """
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DetectionConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise DetectionConfigError(f"{path}{_line(error)}: not valid YAML: {_problem(error)}") from error
    if content is not None and not isinstance(content, dict):
        raise DetectionConfigError(f"{path}: must be a mapping of settings, for example 'lookback_days: 28'")
    try:
        return AnomalyDetectionConfig.model_validate(content or {})
    except ValidationError as error:
        raise DetectionConfigError(f"{path}: {_explain(error)}") from error


def _line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or "unreadable")


def _explain(error: ValidationError) -> str:
    return "; ".join(_explain_field(dict(one)) for one in error.errors())


def _explain_field(one: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in one["loc"])
    if one["type"] == "extra_forbidden":
        return f"{field}: there is no such setting; remove it or mend its spelling"
    message = str(one["msg"]).removeprefix("Value error, ")
    return f"{field}: {message} (found {one['input']!r})" if field else message
