"""``sources list | test | pull | backfill`` against a real table of spend logs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.postgres import postgres_server, postgres_url  # noqa: F401
from obs_pipeline_tests.usage.pulling.test_litellm_table import CREATE, INSERT

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()


@pytest.fixture
def gateway(tmp_path: Path, postgres_url: str) -> CommandLine:  # noqa: F811
    engine = sa.create_engine(postgres_url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(CREATE))
        connection.execute(sa.text(INSERT), {"first": 1, "last": 20})
        columns = ("startTime", "endTime", "completionStartTime")
        by = "(CAST(:day AS TIMESTAMP) - TIMESTAMP '2026-05-01')"
        moved = f"""UPDATE "LiteLLM_SpendLogs" SET {", ".join(f'"{one}" = "{one}" + {by}' for one in columns)}"""
        connection.execute(sa.text(moved), {"day": YESTERDAY})
    policies = tmp_path / "policies"
    policies.mkdir()
    url = postgres_url.replace("postgresql+psycopg", "postgresql")
    sources = {"gateway": {"kind": "litellm_table", "url": url, "since": YESTERDAY, "batch_rows": 15}}
    sources["gone"] = {**sources["gateway"], "url": "postgresql://127.0.0.1:1/x"}
    (policies / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": sources}))
    return CommandLine(tmp_path / "home", {"OBS_POLICIES": str(policies)})


def test_a_source_is_tried_before_anything_is_taken_in(gateway: CommandLine):
    told = json.loads(gateway("sources", "test", "gateway", "--json").stdout)
    fields = {field["field"]: field for field in told["fields"]}
    assert (told["rows"], fields["input_tokens"]["rows"], fields["org"]["rows"]) == (10, 10, 0)
    assert fields["agent"]["example"].startswith("bot-")
    assert not (gateway.home / "landing").exists()
    assert "organization_id" in gateway("sources", "test", "gateway").stdout


def test_one_source_that_fails_does_not_stop_the_others(gateway: CommandLine):
    said = gateway("sources", "pull", exits_with=3)
    assert "gateway: 20 rows in 2 files" in said.stdout
    assert "gone failed" in said.stderr
    health = {row["source"]: row["health"] for row in json.loads(gateway("sources", "list", "--json").stdout)}
    assert health == {"gateway": "alive", "gone": "failed"}
    assert len(list((gateway.home / "landing" / "litellm").glob("*.jsonl"))) == 2


def test_days_are_fetched_again(gateway: CommandLine):
    told = json.loads(
        gateway(
            *("sources", "backfill", "gateway", "--from", YESTERDAY, "--until", YESTERDAY + timedelta(days=1), "--json")
        ).stdout
    )
    assert told["rows"] == 20


def test_a_name_that_is_not_configured_is_told_with_those_that_are(gateway: CommandLine):
    assert "gateway, gone" in gateway("sources", "test", "gatway", exits_with=2).stderr
