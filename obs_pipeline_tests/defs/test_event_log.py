"""The batched event log stores what Dagster's own would have stored."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from obs_pipeline.defs.event_log import BatchedSqliteEventLogStorage
from obs_pipeline.defs.instance import instance_config

DAYS = dg.DailyPartitionsDefinition("2026-03-01")
TAGS = {"dagster/asset_partition_range_start": "2026-03-02", "dagster/asset_partition_range_end": "2026-03-21"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
UNLIKE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{9,}\.?\d*(e[+-]?\d+)?|[\d.]+m?s\b|pid: \d+"
)


@dg.multi_asset(
    specs=[dg.AssetSpec("first", code_version="1"), dg.AssetSpec("second", deps=["first"], code_version="1")],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[dg.AssetCheckSpec("sound", asset="first")],
)
def both(context: dg.AssetExecutionContext):
    for day in context.partition_keys:
        context.add_asset_metadata({"rows": len(day)}, asset_key="first", partition_key=day)
    yield dg.MaterializeResult(asset_key="first", metadata={"all": 1}, data_version=dg.DataVersion("v1"))
    yield dg.MaterializeResult(asset_key="second")
    yield dg.AssetCheckResult(asset_key="first", check_name="sound", passed=True)


def stored(folder: Path, monkeypatch: pytest.MonkeyPatch, *, batched: bool) -> dict[str, Any]:
    """What a run of twenty days over two assets leaves in the event log, without ids, times and paths."""
    config = instance_config(str(folder))
    if not batched:
        own = {"module": "dagster._core.storage.event_log", "class": "SqliteEventLogStorage"}
        config["event_log_storage"] = {**config["event_log_storage"], **own}
    folder.mkdir()
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000" if batched else "0")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage) is batched
        job = dg.Definitions(assets=[both], jobs=[dg.define_asset_job("all", "*", executor_def=dg.in_process_executor)])
        result = job.resolve_job_def("all").execute_in_process(instance=instance, tags=TAGS, run_config=QUIET)
        assert result.success
        partitions = {key: instance.get_materialized_partitions(dg.AssetKey(key)) for key in ("first", "second")}
        latest = instance.get_latest_materialization_event(dg.AssetKey("first"))
        counts = instance.event_log_storage.get_materialized_partitions(dg.AssetKey("second"))
    return {
        "partitions": partitions,
        "latest": latest is not None
        and latest.asset_materialization is not None
        and latest.asset_materialization.partition,
        "counts": counts,
        "index": rows_of(folder / "history" / "runs" / "index.db"),
        "run": rows_of(folder / "history" / "runs" / f"{result.run_id}.db"),
    }


def rows_of(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    with sqlite3.connect(database) as connection:
        for table in ("event_logs", "asset_keys", "asset_event_tags"):
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(
                name
                for name in names
                if name
                not in (
                    "id",
                    "event_id",
                    "timestamp",
                    "event_timestamp",
                    "create_timestamp",
                    "last_materialization_timestamp",
                )
            )
            rows = connection.execute(f"SELECT {kept} FROM {table}").fetchall()
            found[table] = sorted((tuple(without_chance(value) for value in row) for row in rows), key=str)
    return found


def without_chance(value: object) -> object:
    """A stored value without run ids, times, process ids and folders."""
    if not isinstance(value, str):
        return value
    return UNLIKE.sub(
        "#",
        re.sub(
            r'(?<=")/[^"]*|(?<="duration_ms": )[\d.]+|(?<="log_key": ")\w+|(?<=input_event_pointer/first": ")\d+',
            "#",
            value,
        ),
    )


def test_a_run_of_many_days_leaves_the_same_rows_as_dagsters_own_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = stored(tmp_path / "own", monkeypatch, batched=False)
    batched = stored(tmp_path / "batched", monkeypatch, batched=True)
    assert batched["partitions"] == own["partitions"]
    assert len(batched["partitions"]["second"]) == 20
    assert batched["latest"] == own["latest"] == "2026-03-21"
    assert batched["counts"] == own["counts"]
    for database in ("index", "run"):
        for table, rows in own[database].items():
            assert batched[database][table] == rows, f"{database}: {table}"
    assert len(own["index"]["event_logs"]) >= 80
