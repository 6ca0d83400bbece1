"""Typed settings, and the only place that reads the process environment.

Every value can be set by an environment variable with the prefix ``OBS_`` (``OBS_HOME``, ``OBS_DAILY_BATCH_HOUR`` …).
No behaviour here: rooms receive the values they need.
"""

from __future__ import annotations

import os
from datetime import date
from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from obs_pipeline.errors import ObsError


class SettingsError(ObsError):
    """An ``OBS_…`` variable has a value that cannot be used."""


def project_root() -> Path:
    """The checkout this package runs from, or the current folder when it is installed as a wheel."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


class Settings(BaseSettings):
    """What an operator may set. Paths are made absolute; sizes and spans carry their unit in the name."""

    model_config = SettingsConfigDict(env_prefix="OBS_", extra="ignore", frozen=True)

    home: Path = Field(default_factory=lambda: project_root() / ".obs", description="Where all state lives.")
    policies: Path = Field(default_factory=lambda: project_root() / "policies", description="What operators edit.")
    lake_uri: str | None = Field(default=None, description="Folder or object-store URI of the lake.")
    ledger_url: str | None = Field(default=None, description="SQLAlchemy URL of the ledger.")

    first_day: date = Field(default=date(2020, 1, 1), description="First daily partition (UTC).")
    daily_batch_hour: int = Field(default=2, ge=0, le=23, description="UTC hour of the daily batch.")
    allowed_lateness_hours: int = Field(
        default=24, ge=0, description="A day stays provisional until events this much later have been seen."
    )
    freshness_hours: int = Field(default=36, ge=1, description="A source silent for longer is stale.")
    unpriced_share_limit: float = Field(
        default=0.05, ge=0, le=1, description="Share of a day's calls without a price that fails the check."
    )
    price_tolerance: float = Field(
        default=0.05, ge=0, description="Relative difference of reported and list cost that is a finding."
    )

    engine_memory: str = Field(default="700MB", description="Memory limit of one DuckDB connection.")
    engine_threads: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 8), ge=1)
    events_per_chunk: int = Field(
        default=2_500_000, ge=1, description="How many events a batch takes into one transaction."
    )

    def model_post_init(self, _context: object) -> None:
        object.__setattr__(self, "home", self.home.expanduser().absolute())
        object.__setattr__(self, "policies", self.policies.expanduser().absolute())

    @property
    def landing(self) -> Path:
        """Files dropped here are taken in by the landing sensor."""
        return self.home / "landing"

    @property
    def lake(self) -> str:
        return self.lake_uri or str(self.home / "lake")

    @property
    def ledger(self) -> str:
        return self.ledger_url or f"sqlite:///{self.home / 'ledger.db'}"

    @property
    def scratch(self) -> Path:
        """Spill files of the engine; safe to delete whenever nothing runs."""
        return self.home / "scratch"

    @property
    def dagster_home(self) -> Path:
        return self.home / "dagster"


@cache
def get_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: a variable cannot be used; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "OBS_" + ".".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(f"{name}: {first['msg']} (it is {first.get('input')!r}).") from None
