"""The sources that are pulled, as ``sources.yaml`` configures them. No connections, no positions.

version: 1
sources:
  gateway:
    kind: litellm_table                  # or langfuse_api
    url: postgresql://reader@db.internal:5432/litellm
    password_file: /run/secrets/litellm  # what the file holds, less white space at its ends
    since: 2026-01-01                    # where the first pull begins (UTC)
    overlap_minutes: 60                  # fetched again each time: longer than the longest call
    every_minutes: 15                    # how often Dagster pulls it
stale_after_hours: {gateway: 4}          # of any source, pulled or not: so long it may be silent
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from obs_pipeline.errors import ObsError
from obs_pipeline.yaml_settings import read_settings

Kind = Literal["litellm_table", "langfuse_api"]
MAPPING_OF: Final[dict[Kind, str]] = {"litellm_table": "litellm", "langfuse_api": "langfuse"}
"""The mapping that reads what a kind of source gives, unless the source names another."""


class SourcesInvalid(ObsError):
    """A ``sources.yaml`` that cannot be used; the message names the file and the field."""


def without_password(url: str) -> str:
    """An address as it may stand in a configuration, and in messages.

    Raises ``ValueError`` where it holds a password.
    """
    try:
        holds_one = urlsplit(url).password is not None
    except ValueError:
        holds_one = True
    if holds_one or "password=" in url:
        raise ValueError("leave the password out of it: put it into a file, and name that as password_file or key_file")
    return url


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PulledSource(_Strict):
    """One source that is pulled. Times are UTC."""

    kind: Kind
    url: Annotated[str, StringConstraints(pattern=r"^(postgresql|https?)://"), AfterValidator(without_password)]
    user: str | None = None
    password_file: Path | None = None
    mapping: str | None = None
    since: date
    overlap_minutes: Annotated[int, Field(ge=0, le=7 * 24 * 60)] = 60
    window_hours: Annotated[int, Field(ge=1, le=24 * 31)] = 24
    batch_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    timeout_seconds: Annotated[int, Field(ge=1, le=3_600)] = 60
    every_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = 15
    windows_per_pull: Annotated[int, Field(ge=1, le=1_000)] = 31
    late_after_minutes: Annotated[int, Field(ge=1)] = 120
    silent_after_minutes: Annotated[int, Field(ge=1)] = 24 * 60

    @property
    def mapping_name(self) -> str:
        return self.mapping or MAPPING_OF[self.kind]

    @property
    def overlap(self) -> timedelta:
        return timedelta(minutes=self.overlap_minutes)

    @property
    def every(self) -> timedelta:
        return timedelta(minutes=self.every_minutes)

    @property
    def begins(self) -> datetime:
        return datetime(self.since.year, self.since.month, self.since.day)

    def password(self) -> str | None:
        """What the password file holds; None without one.

        Raises:
            SourcesInvalid: the file cannot be read.
        """
        if self.password_file is None:
            return None
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SourcesInvalid(f"{self.password_file}: {error.strerror}. It should hold a password.") from None


class _Sources(_Strict):
    version: Literal[1] = 1
    sources: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)], PulledSource] = {}
    stale_after_hours: dict[str, Annotated[float, Field(gt=0)]] = {}


def pulled_sources(path: Path) -> dict[str, PulledSource]:
    """The sources of a file, by name; a file that is not there names none.

    Raises:
        SourcesInvalid: the file cannot be read, or not used.
    """
    return dict(_read(path).sources)


def stated_patience(path: Path) -> dict[str, timedelta]:
    """How long sources may be silent, by name, as far as the file says so. Raises as ``pulled_sources`` does."""
    return {name: timedelta(hours=hours) for name, hours in _read(path).stale_after_hours.items()}


def _read(path: Path) -> _Sources:
    return read_settings(path, _Sources, SourcesInvalid)
