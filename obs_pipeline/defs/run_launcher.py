"""Which runs of the daemon are dead although they are on record as started.

A code server closes the runs whose process it sees ending. Nobody closes them when it ended too: the machine lost its power,
or everything was killed at once. Such a run would count as under way for ever, and sensors that wait for it would never ask
for another. Dagster's run monitoring asks the launcher, which asks the server that started the run.

No decision about what is run again: that is the sensors'.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value


class WatchedRunLauncher(DefaultRunLauncher):
    """Named in ``dagster.yaml`` as the run launcher: Dagster's own, which can tell whether a run is still executed."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Of a started run. A server that is only slow to answer proves nothing, nor does a run of the command line."""
        server: DagsterGrpcClient | None = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        if server is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "No server started it.")
        try:
            answer = server.can_cancel_execution(CanCancelExecutionRequest(run_id=run.run_id))
        except DagsterUserCodeUnreachableError as error:
            if _is_gone(error):
                return CheckRunHealthResult(WorkerStatus.FAILED, "The server that executed it is gone.")
            return CheckRunHealthResult(WorkerStatus.RUNNING, "Its server does not answer in time.")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "Its process ended without a word.")


def _is_gone(error: DagsterUserCodeUnreachableError) -> bool:
    code = getattr(error.__cause__, "code", None)
    return code is not None and code().name == "UNAVAILABLE"
