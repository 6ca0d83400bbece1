"""Dagster resources: thin wrappers that hand out the plain objects of the rooms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import PrivateAttr

from obs_pipeline.settings import Settings
from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.usage.pricing import PriceBook


class LakeResource(dg.ConfigurableResource[Lake]):
    """The lake under a folder or object-store URI."""

    uri: str
    _opened: Lake | None = PrivateAttr(default=None)

    def open(self) -> Lake:
        if self._opened is None:
            self._opened = Lake(self.uri)
        return self._opened


class LedgerResource(dg.ConfigurableResource[Ledger]):
    """The ledger behind a SQLAlchemy URL."""

    url: str
    _opened: Ledger | None = PrivateAttr(default=None)

    def open(self) -> Ledger:
        if self._opened is None:
            self._opened = Ledger(self.url)
        return self._opened


class EngineResource(DuckDBResource):
    """DuckDB in memory: bounded, spilling to a scratch folder, and closed even when the body raises."""

    database: str = ":memory:"
    memory_limit: str
    threads: int
    scratch: str

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with engine.connect(
            memory_limit=self.memory_limit, threads=self.threads, scratch=Path(self.scratch)
        ) as connection:
            yield connection


class PricesResource(dg.ConfigurableResource[PriceBook]):
    """The price catalogue with ``policies/prices.yaml`` laid over it."""

    path: str

    def load(self) -> PriceBook:
        path = Path(self.path)
        return PriceBook.load(path if path.exists() else None)


class BatchLimits(dg.ConfigurableResource[Any]):
    """How much a batch takes at once, and what its checks tolerate."""

    events_per_chunk: int
    price_tolerance: float
    unpriced_share_limit: float
    freshness_hours: int
    stale_after_hours: float
    alert_history_days: int
    allowed_lateness_hours: int
    identity_days: int
    policies: str
    landing: str
    scratch: str
    undated_day: str
    dashboard_url: str
    dagster_url: str

    @cached_property
    def undated(self) -> date:
        return date.fromisoformat(self.undated_day)


class Progress:
    """Hears how far a step is. The default writes to Dagster's log; the command line draws a bar."""

    def __init__(self, listener: Callable[[str, DayRange, DayRange], None] | None = None) -> None:
        self._listener = listener

    def report(self, context: dg.AssetExecutionContext, chunk: DayRange, days: DayRange) -> None:
        name = "+".join(sorted(key.to_user_string() for key in context.selected_asset_keys))
        if self._listener is not None:
            self._listener(name, chunk, days)
        if chunk != days:
            context.log.info(f"{name}: {chunk} of {days}")


def resources_from(settings: Settings) -> dict[str, Any]:
    """Every resource, configured from the settings."""
    return {
        "lake": LakeResource(uri=settings.lake),
        "ledger": LedgerResource(url=settings.ledger),
        "engine": EngineResource(
            memory_limit=settings.engine_memory, threads=settings.engine_threads, scratch=str(settings.scratch)
        ),
        "prices": PricesResource(path=str(settings.policies / "prices.yaml")),
        "limits": BatchLimits(
            events_per_chunk=settings.events_per_chunk,
            price_tolerance=settings.price_tolerance,
            unpriced_share_limit=settings.unpriced_share_limit,
            freshness_hours=settings.freshness_hours,
            stale_after_hours=settings.stale_after_hours,
            alert_history_days=settings.alert_history_days,
            allowed_lateness_hours=settings.allowed_lateness_hours,
            identity_days=settings.identity_days,
            policies=str(settings.policies),
            landing=str(settings.landing),
            scratch=str(settings.scratch),
            undated_day=settings.first_day.isoformat(),
            dashboard_url=settings.dashboard_url,
            dagster_url=settings.dagster_url,
        ),
        "progress": Progress(),
    }
