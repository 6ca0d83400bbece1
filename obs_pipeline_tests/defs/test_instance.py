"""The Dagster instance: one configuration, whichever way Dagster is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from obs_pipeline.defs.event_log import BatchedSqliteEventLogStorage
from obs_pipeline.defs.instance import environment, instance_config, open_instance, prepare_home
from obs_pipeline.settings import Settings, project_root


def test_the_file_at_the_top_says_what_the_commands_write():
    assert yaml.safe_load((project_root() / "dagster.yaml").read_text()) == instance_config(".obs/dagster")


def test_the_home_is_under_the_projects_state_and_is_written_once(settings: Settings):
    home = prepare_home(settings)
    assert home == settings.home / "dagster"
    written = (home / "dagster.yaml").stat().st_mtime_ns
    prepare_home(settings)
    assert (home / "dagster.yaml").stat().st_mtime_ns == written
    assert yaml.safe_load((home / "dagster.yaml").read_text()) == instance_config(str(home))


def test_the_opened_instance_keeps_everything_under_the_home(settings: Settings):
    with open_instance(settings) as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
        assert instance.root_directory == str(settings.home / "dagster")
        assert instance.get_runs() == []
        assert not instance.telemetry_enabled
    assert os.environ["DAGSTER_HOME"] == str(settings.home / "dagster")


def test_the_workspace_file_loads_in_a_process_of_its_own(settings: Settings, tmp_path: Path):
    shutil.copy(project_root() / "workspace.yaml", tmp_path)
    done = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "definitions", "validate", "-w", "workspace.yaml"],
        cwd=tmp_path,
        env={**os.environ, **environment(settings)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
