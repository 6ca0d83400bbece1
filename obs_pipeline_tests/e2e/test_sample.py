"""Twenty months of real usage through the command line: what a person sees, and that nothing about it depends on luck."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import sqlite3
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from obs_pipeline.dashboard.tables import MART_DATA_QUALITY
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline_tests.command_line import SAMPLE, CommandLine, assert_same_content, lake_content
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl

POSITIONS = ("file_id", "row_number")


class Sample(NamedTuple):
    """The sample, landed and computed once, and what the batch said."""

    obs: CommandLine
    said: str


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    obs = CommandLine(tmp_path_factory.mktemp("sample") / "home")
    obs("ingest", "--mapping", "aider", SAMPLE)
    return Sample(obs, obs("batch", "--all").stdout)


def rows(sample: Sample, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for table in (ANOMALIES, BASELINES):
            sample.obs.lake.view(connection, table)
        return connection.execute(query).fetchall()


def anomalies(sample: Sample, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(sample.obs("anomalies", "--json", *words).stdout)
    return found


# -- what it finds ------------------------------------------------------------------------------------------------------


def test_the_mispriced_call_of_7_may_2025_is_the_worst_and_its_model_and_ratio_are_named(sample: Sample):
    (worst,) = anomalies(sample, "--limit", "1")
    assert worst["timestamp"].startswith("2025-05-07")
    assert (worst["severity"], worst["metric"]) == ("critical", "cost")
    assert "gemini/gemini-2.5-pro-preview-03-25" in worst["reason"]
    assert "list price" in worst["reason"]
    quality = sample.obs.lake
    with duckdb.connect() as connection:
        quality.view(connection, MART_DATA_QUALITY)
        ratio = connection.execute(
            "SELECT worst_ratio FROM mart_data_quality WHERE finding = 'mispriced' AND dt = DATE '2025-05-07'"
        ).fetchall()
    assert ratio[0][0] > 700_000


def test_13_december_2024_is_a_token_anomaly_of_the_agent_ask(sample: Sample):
    found = anomalies(sample, "--from", "2024-12-13", "--to", "2024-12-13", "--metric", "tokens", "--agent", "ask")
    assert found
    assert found[0]["severity"] == "critical"
    assert found[0]["observed"] > 900_000


def test_other_days_are_not_drowned_out(sample: Sample):
    days = {one["timestamp"][:10] for one in anomalies(sample, "--limit", "500")}
    assert len(days - {"2025-05-07", "2024-12-13"}) >= 5
    later = {day for day in days if day > "2025-05-07"}
    assert later


def test_the_outlier_does_not_blind_the_detector_to_the_days_after_it(sample: Sample):
    after = rows(
        sample,
        """
        SELECT state, upper, expected FROM baselines
        WHERE agent = 'diff-fenced' AND metric = 'cost' AND grain = 'day' AND dt > '2025-05-07' AND dt <= '2025-06-04'
        """,
    )
    tested = [(upper, expected) for state, upper, expected in after if state == "ok"]
    assert tested
    assert all(upper < 100 and expected < 20 for upper, expected in tested)


def test_most_days_are_quiet(sample: Sample):
    loud = rows(sample, "SELECT DISTINCT dt FROM anomalies WHERE severity = 'critical'")
    with_usage = rows(sample, "SELECT DISTINCT dt FROM baselines WHERE grain = 'day'")
    assert len(loud) <= 4
    assert len(with_usage) > 150


# -- what it says -------------------------------------------------------------------------------------------------------


def test_the_summary_tells_days_events_money_findings_and_what_to_type_next(sample: Sample):
    for told in (
        "2024-08-13 … 2026-04-25",
        "5,522",
        "quarantined",
        "unpriced",
        "mispriced",
        "critical",
        "2025-05-07",
        "gemini/gemini-2.5-pro-preview-03-25",
        "2024-12-13",
        "obs-pipeline explain an-",
    ):
        assert told in sample.said, told


def test_explaining_the_worst_adds_up_exactly(sample: Sample):
    (worst,) = anomalies(sample, "--limit", "1")
    told = json.loads(sample.obs("explain", worst["id"], "--json").stdout)
    report = told["report"]
    observed = Decimal(report["observed"])
    assert observed > 9990
    for dimension in ("models", "users", "operations"):
        assert sum(Decimal(one["observed"]) for one in report[dimension]) == observed
        assert sum(one["calls"] for one in report[dimension]) == report["calls"]
    shown = sample.obs("explain", worst["id"][:10]).stdout
    assert "gemini/gemini-2.5-pro-preview-03-25" in shown
    assert worst["id"].startswith("an-")


def test_both_known_incidents_are_explained_by_their_cause_and_the_terms_add_up_to_the_micro_dollar(sample: Sample):
    for day, metric, cause, evidence in (
        ("2025-05-07", "cost", "mispriced call", "gemini-2.5-pro-preview-03-25 reported 790,000 × the list price"),
        ("2024-12-13", "tokens", "runaway context", "the largest call sent 913,414 input tokens"),
    ):
        (worst,) = anomalies(sample, "--from", day, "--to", day, "--metric", metric, "--limit", "1")
        told = json.loads(sample.obs("explain", worst["id"], "--json").stdout)["explanation"]
        assert told["cause"] == cause
        assert evidence in told["because"]
        terms = sum(Decimal(term["amount"]) for term in told["terms"])
        assert terms == Decimal(told["observed"]) - Decimal(told["expected"]) == Decimal(told["deviation"])
        shown = sample.obs("explain", worst["id"]).stdout
        assert f"likely cause: {cause}" in shown


def test_forecasts_say_what_is_known_and_what_is_not(sample: Sample):
    told = json.loads(sample.obs("forecasts", "--day", "2025-05-08", "--json").stdout)
    month = next(one for one in told if one["scope"] == "org" and one["period"] == "month")
    assert Decimal(month["spent"]) > 10_000
    assert month["lower"] <= month["forecast"] <= month["upper"] < 10_500
    assert month["budget"] == "used up"
    early = json.loads(sample.obs("forecasts", "--day", "2024-08-20", "--scope", "org", "--json").stdout)
    assert {one["state"] for one in early} == {"not enough history"}


def test_doctor_points_at_the_checks_that_do_not_hold_and_is_content_with_the_rest(sample: Sample):
    found = {one["what"]: one for one in json.loads(sample.obs("doctor", "--json", exits_with=3).stdout)}
    assert "newest event 2026-04-25" in found["source aider"]["found"]
    assert found["incidents"]["found"].startswith("2 open")
    assert re.search("Check (unpriced_share|mispriced_calls) of usage_events", found["incidents"]["found"])
    assert {what for what, one in found.items() if one["state"] != "ok"} == {"incidents"}


def test_nothing_is_pending_after_all_days_were_computed(sample: Sample):
    assert json.loads(sample.obs("batch", "--json").stdout) == []


def test_the_same_file_again_is_left_alone(sample: Sample):
    told = json.loads(sample.obs("ingest", "-m", "aider", SAMPLE, "--json").stdout)
    assert [report["already_landed"] for report in told["landed"]] == [True]


def test_computing_two_weeks_again_changes_nothing_and_its_json_tells_the_counts(sample: Sample):
    before = lake_content(sample.obs.lake)
    (told,) = json.loads(sample.obs("batch", "--from", "2025-05-01", "--to", "2025-05-14", "--json").stdout)
    assert_same_content(before, lake_content(sample.obs.lake))
    assert len(told["days"]) == 14
    assert told["anomalies"]["critical"] >= 1
    assert told["events"] == sum(
        row[0].isoformat()[:7] == "2025-05" and row[0].day <= 14 for row in before["usage_events"]
    )


def test_strict_tells_a_warning_by_its_exit_code(sample: Sample):
    sample.obs("batch", "--from", "2025-05-07", "--to", "2025-05-07", "--strict", exits_with=3)


# -- that it does not depend on luck -------------------------------------------------------------------------------------


def runs_under_way(home: Path) -> int:
    with sqlite3.connect(home / "dagster" / "history" / "runs.db") as runs:
        (count,) = runs.execute("SELECT count(*) FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE')").fetchone()
    return int(count)


def versions(home: Path, table: str) -> int:
    return len(list((home / "lake" / table / "_delta_log").glob("*.json")))


def kill_batch(obs: CommandLine, *, when: Callable[[], bool]) -> bool:
    """Start the batch and kill it without warning as soon as ``when`` holds; False when it was done before."""
    batch = obs.start("batch", "--all")
    try:
        while batch.poll() is None and not when():
            time.sleep(0.01)
        killed = batch.poll() is None
    finally:
        batch.kill()
        batch.wait(10)
    return killed


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Six days of five files with an event in two of them and a conflict, landed and computed undisturbed."""
    folder = tmp_path_factory.mktemp("fleet")
    obs = CommandLine(folder / "home")
    obs("ingest", *five_files(folder / "files"))
    return Sample(obs, obs("batch", "--all").stdout)


def five_files(folder: Path) -> list[Path]:
    day_rows = usage_rows(6, per_day=20)
    repeated, conflicting = day_rows[3], {**day_rows[50], "input_tokens": 7}
    parts = [day_rows[n::5] for n in range(5)]
    parts[4] = [*parts[4], repeated, conflicting, {**day_rows[1], "event_id": "bad", "output_tokens": -1}]
    return [write_jsonl(folder / f"part-{n}.jsonl", part) for n, part in enumerate(parts)]


def test_the_same_files_in_another_order_with_a_batch_in_between_give_the_same_tables(fleet: Sample, tmp_path: Path):
    obs = CommandLine(tmp_path / "home")
    files = five_files(tmp_path / "files")
    obs("ingest", files[4], files[2])
    obs("batch")
    obs("ingest", files[3], files[0], files[1])
    obs("batch")
    assert_same_content(lake_content(fleet.obs.lake), lake_content(obs.lake))
    assert len(lake_content(obs.lake)["usage_duplicates"]) == 1


def test_a_batch_killed_half_way_and_run_again_gives_the_same_tables(fleet: Sample, tmp_path: Path):
    obs = CommandLine(tmp_path / "home")
    obs("ingest", *five_files(tmp_path / "files"))
    assert kill_batch(obs, when=lambda: versions(obs.home, "usage_daily") > 1)
    assert runs_under_way(obs.home) == 1
    obs("batch")
    assert_same_content(lake_content(fleet.obs.lake), lake_content(obs.lake))
    assert runs_under_way(obs.home) == 0


@pytest.mark.slow
@pytest.mark.parametrize("table", ["usage_duplicates", "usage_events", "usage_hourly", "baselines", "mart_spend"])
def test_a_batch_killed_after_the_first_write_of_a_table_ends_the_same(fleet: Sample, tmp_path: Path, table: str):
    obs = CommandLine(tmp_path / "home")
    obs("ingest", *five_files(tmp_path / "files"))
    begun = versions(obs.home, table)
    kill_batch(obs, when=lambda: versions(obs.home, table) > begun)
    obs("batch", "--all")
    assert_same_content(lake_content(fleet.obs.lake), lake_content(obs.lake))


@pytest.mark.slow
def test_the_sample_killed_three_times_at_random_ends_the_same(sample: Sample, tmp_path: Path):
    obs = CommandLine(tmp_path / "home")
    obs("ingest", "-m", "aider", SAMPLE)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    for _ in range(3):
        kill_batch(obs, when=after(chance.uniform(4, 24)))
    obs("batch", "--all")
    try:
        assert_same_content(lake_content(sample.obs.lake), lake_content(obs.lake))
    except AssertionError as error:
        raise AssertionError(f"seed {seed}") from error


@pytest.mark.slow
def test_the_whole_batch_again_gives_the_same_tables(sample: Sample, tmp_path: Path):
    home = tmp_path / "home"
    shutil.copytree(sample.obs.home, home)
    obs = CommandLine(home)
    obs("batch", "--all")
    assert_same_content(lake_content(sample.obs.lake), lake_content(obs.lake))


@pytest.mark.slow
def test_the_sample_cut_into_five_files_in_another_order_gives_the_same_numbers(sample: Sample, tmp_path: Path):
    lines = gzip.decompress(SAMPLE.read_bytes()).splitlines(keepends=True)
    parts = []
    for n in range(5):
        parts.append(tmp_path / f"part-{n}.jsonl")
        parts[-1].write_bytes(b"".join(lines[n * len(lines) // 5 : (n + 1) * len(lines) // 5]))
    obs = CommandLine(tmp_path / "home")
    for n in (3, 0, 4, 1, 2):
        obs("ingest", "-m", "aider", parts[n])
    obs("batch", "--all")
    # The log has no ids: they come from the content and the place in the file, and so do the examples that name them.
    derived = (*POSITIONS, "event_id", "example", "context")
    assert_same_content(lake_content(sample.obs.lake, derived), lake_content(obs.lake, derived))
