"""One lake for all the answers: none of these tests changes it."""

from __future__ import annotations

import pytest

from obs_pipeline_tests.dashboard.served import Served, serve


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))
