"""Blocking checks, on a lake that somebody tampered with: wrong numbers must not reach the marts."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import NamedTuple

import duckdb
import pytest

from obs_pipeline.alerting.records import incident_of
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.defs import checks
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.proofs import Proof
from obs_pipeline.usage.tables import USAGE_EVENTS
from obs_pipeline_tests.command_line import CommandLine, lake_content
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl

VICTIM = "call-260303-5"


class Tampered(NamedTuple):
    """Day one was computed; of day two a row vanished from the lake before its batch."""

    obs: CommandLine
    said: str
    before: dict[str, list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> Tampered:
    folder = tmp_path_factory.mktemp("tampered")
    obs = CommandLine(folder / "home")
    obs("ingest", write_jsonl(folder / "one.jsonl", usage_rows(1)))
    obs("batch")
    obs("ingest", write_jsonl(folder / "two.jsonl", usage_rows(1, start=datetime(2026, 3, 3))))
    obs.lake.delete(USAGE_EVENTS, f"event_id = '{VICTIM}'")
    before = lake_content(obs.lake)
    done = obs("batch", exits_with=1)
    return Tampered(obs, " ".join((done.stdout + done.stderr).split()), before)


def test_a_row_that_vanished_fails_the_batch_and_the_check_is_named(tampered: Tampered):
    assert "rows_in_equal_rows_out" in tampered.said
    assert "usage_events" in tampered.said
    assert "Traceback" not in tampered.said


def test_nothing_downstream_was_touched(tampered: Tampered):
    after = lake_content(tampered.obs.lake)
    for table in set(after) - {"usage_events", "usage_rejected", "usage_duplicates"}:
        assert after[table] == tampered.before[table], table
    assert set(tampered.obs.lake.rows_per_day(MART_SPEND)) == {date(2026, 3, 2)}


def test_an_incident_is_open_and_the_doctor_shows_it(tampered: Tampered):
    opened = [incident_of(row) for row in AlertStore(tampered.obs.ledger).incidents(("open",))]
    (failed,) = [one for one in opened if one.kind == "run_failure"]
    assert "rows_in_equal_rows_out" in failed.headline
    doctor = json.loads(tampered.obs("doctor", "--json", exits_with=3).stdout)
    (said,) = [one for one in doctor if one["what"] == "incidents"]
    assert "daily_batch failed" in said["found"]
    assert said["mend"] == f"obs-pipeline alerts show {failed.id}"


def test_the_day_still_waits_for_a_batch(tampered: Tampered):
    ledger = tampered.obs.ledger
    day = date(2026, 3, 3)
    assert ledger.settled_through().get(day, -1) < ledger.newest_landing_per_day()[day]


def test_a_check_that_was_never_proven_does_not_pass():
    evidence = checks.Evidence("usage_daily")
    evidence.add("unique_keys", Proof(0))
    results = {result.check_name: result for result in evidence.results()}
    assert results["unique_keys"].passed
    assert not results["schema"].passed
    assert "ended before" in (results["schema"].description or "")


def test_offences_of_several_chunks_are_added_and_shown():
    evidence = checks.Evidence("usage_daily")
    evidence.add("schema", Proof(2, [{"column": "cost"}, {"column": "calls"}]))
    evidence.add("schema", Proof(1, [{"column": "dt"}]))
    (schema,) = [result for result in evidence.results() if result.check_name == "schema"]
    assert not schema.passed
    assert schema.metadata["offences"].value == 3
    assert "cost" in str(schema.metadata["examples"].value)


def test_the_lake_is_read_as_the_tests_left_it(tampered: Tampered):
    with duckdb.connect() as connection:
        Lake(tampered.obs.lake.root).view(connection, USAGE_EVENTS)
        assert connection.execute("SELECT count(*) FROM usage_events").fetchall() == [(47,)]
