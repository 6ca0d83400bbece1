"""What the batch finds, before it becomes an incident."""

from __future__ import annotations

import pytest

from obs_pipeline.defs.incident_assets import is_known
from obs_pipeline_tests.alerting.cases import HOUR, NOON, signal


@pytest.mark.parametrize(
    ("direction", "heard", "known"),
    [("drop", 24, True), ("drop", 23, False), ("rise", 0, True)],
)
def test_too_little_in_a_day_that_was_not_heard_of_to_its_end_is_no_finding_yet(
    direction: str, heard: int, known: bool
):
    found = signal("a", 23, direction=direction)
    assert is_known(found, NOON + heard * HOUR) == known
