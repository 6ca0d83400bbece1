"""The progress bar of a batch: it must know how many steps there are."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from rich.progress import Progress

from obs_pipeline.cli import batch, console
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.settings import Settings, get_settings
from obs_pipeline.storage.lake import DayRange
from obs_pipeline_tests.usage_files import landed_lake, usage_rows


def test_the_bar_ends_full_however_many_chunks_a_step_takes(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OBS_EVENTS_PER_CHUNK", "24")
    get_settings.cache_clear()
    moves: list[tuple[str, float]] = []

    class Bar(Progress):
        def update(self, task: Any, **change: Any) -> None:
            super().update(task, **change)
            moves.append((self.tasks[0].description.split()[0], self.tasks[0].percentage))

    monkeypatch.setattr(console, "Progress", Bar)
    workspace = open_workspace()
    with workspace.engine() as connection:
        landed_lake(settings.home, connection, usage_rows(3, start=datetime(2026, 3, 2)))
    batch._run(workspace, DayRange(date(2026, 3, 2), date(2026, 3, 4)), show=False)
    assert [step for step, _ in moves].count("usage_hourly") == 3
    assert [done for _, done in moves].index(100) == len(moves) - 1
