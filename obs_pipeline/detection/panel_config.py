"""What may be set about the scoring of series, and how the file is read.

Holds the settings, their limits and their defaults. No statistics, no reading of the environment: the path of the file
is passed in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from obs_pipeline.detection.config import DetectionConfigError, Positive

INCIDENT_RATE: Final = 1 / 644
"""One incident in 46 weeks of one series."""


class Marks(BaseModel):
    """The ``S`` from which a point is info, warning or critical."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    info: Positive = 1.5
    warning: Positive = 2.0
    critical: Positive = 2.75

    @model_validator(mode="after")
    def _rise(self) -> Marks:
        if not self.info <= self.warning <= self.critical:
            raise ValueError("info, warning and critical must rise in this order")
        return self


class PanelConfig(BaseModel):
    """What may be set about the scoring of series.

    ``band`` is the width of lower … upper in standard errors to either side. ``incident_rate`` is the share of half
    days in which an incident is to be expected; confidence rests on it. ``cycles`` looks for cycles other than day and
    week. ``counters`` scores series that only ever rise by their increments. ``usage_model`` lets it judge hours of
    what is never negative. ``workers`` are threads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    marks: Marks = Marks()
    band: Positive = 3.0
    incident_rate: Annotated[float, Field(gt=0, lt=1)] = INCIDENT_RATE
    cycles: bool = True
    counters: bool = True
    usage_model: bool = True
    workers: Annotated[int, Field(ge=1, le=64)] = 2


def load_panel_config(path: Path) -> PanelConfig:
    """Read the settings from a YAML file; an empty file means the defaults.

    Raises :class:`~obs_pipeline.detection.config.DetectionConfigError` naming the file and the line or field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return PanelConfig.model_validate({} if content is None else content)
    except (OSError, UnicodeDecodeError) as error:
        raise DetectionConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f":{mark.line + 1}"
        raise DetectionConfigError(f"{path}{where}: not valid YAML; write settings such as 'band: 3'") from error
    except ValidationError as error:
        raise DetectionConfigError(f"{path}: {'; '.join(_explain(dict(one)) for one in error.errors())}") from error


def _explain(one: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in one["loc"]) or "the file"
    if one["type"] == "extra_forbidden":
        return f"{field}: there is no such setting; there are {', '.join(PanelConfig.model_fields)}"
    return f"{field}: {str(one['msg']).removeprefix('Value error, ')}"
