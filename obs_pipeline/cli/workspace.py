"""What a command works with, opened from the settings: lake, ledger, engine, prices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from obs_pipeline.settings import Settings, SettingsError, get_settings
from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger

if TYPE_CHECKING:
    from obs_pipeline.usage.pricing import PriceBook


@dataclass(frozen=True)
class Workspace:
    """The state under ``OBS_HOME``."""

    settings: Settings
    lake: Lake
    ledger: Ledger

    @contextmanager
    def engine(self) -> Iterator[duckdb.DuckDBPyConnection]:
        settings = self.settings
        with engine.connect(
            memory_limit=settings.engine_memory, threads=settings.engine_threads, scratch=settings.scratch
        ) as connection:
            yield connection

    def prices(self) -> PriceBook:
        """The price catalogue with the operator's prices laid over it."""
        from obs_pipeline.usage.pricing import PriceBook

        path = self.settings.policies / "prices.yaml"
        return PriceBook.load(path if path.exists() else None)


def open_workspace() -> Workspace:
    """Everything from the settings of this process.

    Raises:
        SettingsError: state cannot be kept under ``OBS_HOME``.
    """
    settings = get_settings()
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{settings.home}: {error.strerror}. Set OBS_HOME to a folder that can be written."
        raise SettingsError(message) from None
    return Workspace(settings, Lake(settings.lake), Ledger(settings.ledger))
