"""Typed settings, and the only place that reads the process environment.

Every value can be set by an environment variable with the prefix ``OBS_`` (``OBS_HOME``, ``OBS_DAILY_BATCH_HOUR`` …).
No behaviour here: rooms receive the values they need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnparsableSetting

from obs_pipeline.errors import ObsError

_PREFIX: Final = "OBS_"
_MISREAD: Final = re.compile(r"[?*\[\]%\\\x00-\x1f]")
"""What the lake, the engine or Dagster would take for a pattern, a query or an escape, and keep state somewhere else."""


_SIZE: Final = re.compile(r"\d+(\.\d+)?\s?[KMGT]i?B", re.IGNORECASE)
_MOST_HOURS: Final = 24 * 366
"""A year: longer is a mistake in the unit."""


class SettingsError(ObsError):
    """An ``OBS_…`` variable has a value that cannot be used."""


def project_root() -> Path:
    """The checkout this package runs from, or the current folder when it is installed as a wheel."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


class Settings(BaseSettings):
    """What an operator may set. Paths are made absolute; sizes and spans carry their unit in the name."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    home: Path = Field(default_factory=lambda: project_root() / ".obs", description="Where all state lives.")
    policies: Path = Field(default_factory=lambda: project_root() / "policies", description="What operators edit.")
    lake_uri: str | None = Field(default=None, description="Folder or object-store URI of the lake.")
    ledger_url: str | None = Field(default=None, description="SQLAlchemy URL of the ledger.")

    litellm_url: str | None = Field(default=None, description="A LiteLLM proxy that follows the applied policies.")
    litellm_master_key: SecretStr | None = Field(default=None, description="Its master key; shown nowhere.")

    first_day: date = Field(default=date(2020, 1, 1), description="First daily partition (UTC).")
    daily_batch_hour: int = Field(default=2, ge=0, le=23, description="UTC hour of the daily batch.")
    dashboard_url: str = Field(default="", description="Where the dashboard is; links in messages lead there.")
    dagster_url: str = Field(default="", description="Where Dagster's page is; links in messages lead there.")
    cache_url: str = Field(
        default="mem://",
        description="Where the dashboard keeps answers: mem:// or a Redis server, redis://host:port/0.",
    )
    jwt_issuer: str | None = Field(default=None, description="Whose OIDC tokens open the dashboard too.")
    jwt_audience: str = Field(default="obs-pipeline", description="The audience in them.")
    jwt_keys: str | None = Field(default=None, description="Address or file of the issuer's key set (JWKS).")
    jwt_org_claim: str = Field(default="obs_org", description="The claim that names the organisation.")
    jwt_role_claim: str = Field(default="obs_role", description="The claim that names the role or groups.")
    jwt_projects_claim: str = Field(default="obs_projects", description="The claim that lists projects.")
    jwt_roles: dict[str, str] = Field(
        default_factory=dict, description="What values of the role claim mean, as JSON: a group to a role."
    )
    dashboard_writes: bool = Field(
        default=False, description="Whether the dashboard may acknowledge, silence and label (editors and admins)."
    )

    allowed_lateness_hours: int = Field(
        default=24,
        ge=0,
        le=_MOST_HOURS,
        description="A day stays provisional until events this much later have been seen.",
    )
    identity_days: int = Field(
        default=1, ge=1, le=28, description="How many days back an event id is looked for when days are settled."
    )
    identity_window_days: int = Field(
        default=35,
        ge=0,
        le=3650,
        description="How many days the doctor looks through for ids that repeat further apart; 0: none.",
    )
    freshness_hours: int = Field(
        default=36,
        ge=1,
        le=_MOST_HOURS,
        description="A source whose rhythm is not known is stale when silent for longer.",
    )
    stale_after_hours: float = Field(
        default=4,
        gt=0,
        le=_MOST_HOURS,
        description="No source is stale before; one that is pulled or never pauses is stale after.",
    )
    alert_history_days: int = Field(
        default=90, ge=8, le=36500, description="Messages that were sent, and traces of what is over, are kept so long."
    )
    unpriced_share_limit: float = Field(
        default=0.05, ge=0, le=1, description="Share of a day's calls without a price that fails the check."
    )
    price_tolerance: float = Field(
        default=0.05,
        ge=0,
        allow_inf_nan=False,
        description="Relative difference of reported and list cost that is a finding.",
    )

    engine_memory: str = Field(default="700MB", description="Memory limit of one DuckDB connection: 700MB, 2GiB.")
    engine_threads: int = Field(default_factory=lambda: min(os.cpu_count() or 1, 8), ge=1)
    events_per_chunk: int = Field(
        default=2_500_000, ge=1, description="How many events a batch takes into one transaction."
    )

    @field_validator("home")
    @classmethod
    def _is_read_alike_by_all(cls, home: Path) -> Path:
        if found := _MISREAD.search(str(home.absolute())):
            raise ValueError(f"a path with the character {found[0]!r} cannot be used; choose another folder")
        return home

    @field_validator("engine_memory")
    @classmethod
    def _is_a_size(cls, memory: str) -> str:
        if not _SIZE.fullmatch(memory):
            raise ValueError("write a size with its unit, such as 700MB or 2GiB")
        return memory

    def model_post_init(self, _context: object) -> None:
        object.__setattr__(self, "home", self.home.expanduser().absolute())
        object.__setattr__(self, "policies", self.policies.expanduser().absolute())

    @property
    def landing(self) -> Path:
        """Files dropped here are taken in by the landing sensor."""
        return self.home / "landing"

    @property
    def spool(self) -> Path:
        """What was received over HTTP, on its way into the landing folder."""
        return self.home / "spool"

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


def secret(name: str) -> str | None:
    """The value of a variable that a policy names (``OBS_SLACK_WEBHOOK``); None when it is not set.

    Read when it is needed and kept nowhere: whoever asks for it must neither log nor store it.
    """
    return os.environ.get(name)


def misspelt_variables(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that set nothing but are nearly the name of one that does → that name.

    Others are left in peace: policies may name variables of their own for secrets.
    """
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    unknown = sorted(name for name in variables if name.upper().startswith(_PREFIX) and name.upper() not in known)
    meant = {name: get_close_matches(name.upper(), known, n=1, cutoff=0.85) for name in unknown}
    return {name: matches[0] for name, matches in meant.items() if matches}


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
        name = _PREFIX + ".".join(str(part) for part in first["loc"]).upper()
        said = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {said} (it is {str(first.get('input'))!r}).") from None
    except UnparsableSetting as error:
        field = re.search(r'"(\w+)"', str(error))
        name = _PREFIX + field[1].upper() if field else "A setting"
        raise SettingsError(f"{name} must be JSON, and is not.") from None
