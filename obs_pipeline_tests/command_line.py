"""The command line as a person runs it, and what is in the lake afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from obs_pipeline.settings import project_root
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.tables import ALL_TABLES

SAMPLE = project_root() / "sample_data" / "aider-analytics.jsonl.gz"
PROGRAM = Path(sys.executable).with_name("obs-pipeline")


@dataclass(frozen=True)
class CommandLine:
    """Runs commands against one ``OBS_HOME``."""

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OBS_", "DAGSTER_"))}
        return {**kept, "OBS_HOME": str(self.home), "COLUMNS": "200", "NO_COLOR": "1", **self.variables}

    def __call__(self, *words: object, exits_with: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PROGRAM, *map(str, words)], env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert exits_with is None or done.returncode == exits_with, (
            f"obs-pipeline {' '.join(map(str, words))} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        """A command that is not waited for, with nobody reading what it says."""
        nobody = subprocess.DEVNULL
        return subprocess.Popen([PROGRAM, *map(str, words)], env=self.environment, stdout=nobody, stderr=nobody)

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home / "lake"))

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.home / 'ledger.db'}")


def lake_content(lake: Lake, without: Collection[str] = ()) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, sorted, less the columns named; equal for lakes that say the same."""
    found = {}
    with duckdb.connect() as connection:
        for table in ALL_TABLES:
            lake.view(connection, table)
            columns = ", ".join(name for name in table.schema.names if name not in without)
            found[table.name] = connection.execute(f"SELECT {columns} FROM {table.name} ORDER BY ALL").fetchall()
    return found


def assert_same_content(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Equal, or the first difference of the first table that differs: a whole dump would help nobody."""
    for table, rows in one.items():
        if rows != other[table]:
            differing = [pair for pair in zip(rows, other[table], strict=False) if pair[0] != pair[1]]
            raise AssertionError(f"{table}: {len(rows)} rows against {len(other[table])}; first: {differing[:1]}")
