"""A run whose machine lost its power is told from one that is executed, so that it blocks no sensor for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import grpc
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionResult
from dagster._serdes import serialize_value

from obs_pipeline.definitions import defs
from obs_pipeline.defs.instance import open_instance
from obs_pipeline.defs.run_launcher import WatchedRunLauncher
from obs_pipeline.settings import Settings


class Refused(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def unreachable(code: grpc.StatusCode) -> DagsterUserCodeUnreachableError:
    error = DagsterUserCodeUnreachableError("no answer")
    error.__cause__ = Refused(code)
    return error


class Server:
    """A code server that gives one answer."""

    def __init__(self, answer: bool | Exception) -> None:
        self.answer = answer

    def can_cancel_execution(self, _request: Any) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return serialize_value(CanCancelExecutionResult(can_cancel=self.answer))


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with open_instance(settings) as opened:
        yield opened


def started(instance: dg.DagsterInstance, **server: str) -> dg.DagsterRun:
    tags = {GRPC_INFO_TAG: json.dumps({"host": "localhost", **server})} if server else {}
    return instance.create_run_for_job(
        defs.resolve_job_def("land_usage"), status=dg.DagsterRunStatus.STARTED, tags=tags
    )


def test_the_instance_watches_its_runs(instance: dg.DagsterInstance):
    assert isinstance(instance.run_launcher, WatchedRunLauncher)
    assert instance.run_monitoring_enabled


def test_a_run_whose_server_is_gone_has_failed(instance: dg.DagsterInstance, tmp_path: Any):
    run = started(instance, socket=str(tmp_path / "gone"))
    assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.FAILED


@pytest.mark.parametrize(
    ("answer", "health"),
    [
        (True, WorkerStatus.RUNNING),
        (False, WorkerStatus.FAILED),
        (unreachable(grpc.StatusCode.UNAVAILABLE), WorkerStatus.FAILED),
        (unreachable(grpc.StatusCode.DEADLINE_EXCEEDED), WorkerStatus.RUNNING),
        (unreachable(grpc.StatusCode.RESOURCE_EXHAUSTED), WorkerStatus.RUNNING),
    ],
)
def test_only_a_server_that_is_gone_or_does_not_know_the_run_proves_it_dead(
    answer: bool | Exception, health: WorkerStatus, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    launcher = instance.run_launcher
    monkeypatch.setattr(launcher, "_get_grpc_client_for_termination", lambda _run_id: Server(answer))
    assert launcher.check_run_worker_health(started(instance)).status == health


def test_a_run_of_the_command_line_is_left_to_the_next_batch(instance: dg.DagsterInstance):
    assert instance.run_launcher.check_run_worker_health(started(instance)).status == WorkerStatus.RUNNING
