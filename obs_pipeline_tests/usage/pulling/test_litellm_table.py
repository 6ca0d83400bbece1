"""LiteLLM's table of spend logs in a real PostgreSQL: pulled, landed, and worth what the table says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.inbox import Inbox
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.pulling.litellm_table import spend_logs
from obs_pipeline.usage.pulling.pages import Page, PullFailed
from obs_pipeline.usage.pulling.pull import fetch_of, pull
from obs_pipeline.usage.settling import settle
from obs_pipeline.usage.tables import USAGE_EVENTS
from obs_pipeline_tests.postgres import postgres_server, postgres_url  # noqa: F401

FIRST = datetime(2026, 5, 1)
NOW = FIRST + timedelta(days=2)
CREATE = """
    CREATE TABLE "LiteLLM_SpendLogs" (
        request_id TEXT PRIMARY KEY, call_type TEXT NOT NULL, api_key TEXT NOT NULL DEFAULT '',
        spend DOUBLE PRECISION NOT NULL DEFAULT 0, total_tokens INT NOT NULL DEFAULT 0,
        prompt_tokens INT NOT NULL DEFAULT 0, completion_tokens INT NOT NULL DEFAULT 0,
        "startTime" TIMESTAMP(3) NOT NULL, "endTime" TIMESTAMP(3) NOT NULL, "completionStartTime" TIMESTAMP(3),
        model TEXT NOT NULL DEFAULT '', model_id TEXT, model_group TEXT, custom_llm_provider TEXT,
        "user" TEXT DEFAULT '', metadata JSONB DEFAULT '{}', cache_hit TEXT DEFAULT '', request_tags JSONB DEFAULT '[]',
        team_id TEXT, organization_id TEXT, end_user TEXT, session_id TEXT, status TEXT,
        messages JSONB DEFAULT '{}', response JSONB DEFAULT '{}', proxy_server_request JSONB DEFAULT '{}'
    )
"""
INSERT = """
    INSERT INTO "LiteLLM_SpendLogs" (request_id, call_type, spend, prompt_tokens, completion_tokens, "startTime", "endTime",
        "completionStartTime", model, custom_llm_provider, status, cache_hit, metadata, messages)
    SELECT 'r' || n, 'acompletion', 0.000123456 * n, 10 * n, n, t, t + INTERVAL '1 second', t + INTERVAL '1 second',
        'openai/gpt-4o', 'openai', 'success', 'False',
        jsonb_build_object('user_api_key_alias', 'bot-' || n % 3, 'additional_usage_values',
            jsonb_build_object('cache_read_input_tokens', n)),
        '{"secret": "what was asked"}'
    FROM (SELECT n, TIMESTAMP '2026-05-01' + n * INTERVAL '7 minutes 13.5 seconds' AS t
        FROM generate_series(CAST(:first AS INT), CAST(:last AS INT)) AS n) AS calls
"""


@pytest.fixture
def database(postgres_url: str) -> sa.Engine:  # noqa: F811
    return with_a_table(postgres_url)


def with_a_table(url: str) -> sa.Engine:
    """A database with an empty table as LiteLLM makes it."""
    database = sa.create_engine(url, poolclass=sa.pool.NullPool)
    execute(database, CREATE)
    return database


def execute(database: sa.Engine, *statements: str) -> None:
    with database.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def add(database: sa.Engine, first: int, last: int) -> None:
    with database.begin() as connection:
        connection.execute(sa.text(INSERT), {"first": first, "last": last})


def source_of(database: sa.Engine, **changed: Any) -> PulledSource:
    url = database.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql")
    return PulledSource.model_validate(
        {"kind": "litellm_table", "url": url, "since": "2026-05-01", "batch_rows": 7} | changed
    )


def test_every_row_comes_once_in_pages_without_what_was_asked(database: sa.Engine):
    add(database, 1, 50)
    pages = list(spend_logs(source_of(database), FIRST, NOW))
    rows = [json.loads(record) for page in pages for record in page]
    assert [len(page) for page in pages] == [7] * 7 + [1]
    assert [row["request_id"] for row in rows] == [f"r{n}" for n in range(1, 51)]
    assert "secret" not in "".join(record for page in pages for record in page)


def test_rows_of_one_moment_are_not_skipped_between_pages(database: sa.Engine):
    add(database, 1, 20)
    with database.begin() as connection:
        connection.execute(sa.text("""UPDATE "LiteLLM_SpendLogs" SET "startTime" = '2026-05-01 10:00'"""))
    rows = [record for page in spend_logs(source_of(database), FIRST, NOW) for record in page]
    assert len(set(rows)) == 20


def test_the_cost_that_lands_is_the_spend_of_the_table(
    database: sa.Engine, tmp_path: Path, connection: duckdb.DuckDBPyConnection
):
    lake, ledger = Lake(str(tmp_path / "lake")), Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    prices = PriceBook.load(None)
    landing = Landing(lake, ledger, prices, connection, tmp_path / "scratch", date(2020, 1, 1))
    inbox = Inbox(tmp_path / "landing", tmp_path / "mappings")
    source, positions = source_of(database, batch_rows=150), SourcePositions(ledger)
    for first, last, now in ((1, 100, FIRST + timedelta(hours=13)), (101, 300, NOW)):
        add(database, first, last)
        pull("gateway", source, fetch_of(source), positions, inbox.landing, now)
        _, refusals = inbox.take_in(landing, inbox.waiting(), lambda: NOW)
        assert refusals == []
    settled = settle(connection, lake, DayRange(date(2026, 5, 1), date(2026, 5, 3)), prices, 0.05)
    lake.view(connection, USAGE_EVENTS)
    landed = connection.execute("SELECT sum(cost), count(*), sum(cache_read_tokens) FROM usage_events").fetchall()[0]
    with database.connect() as opened:
        spend = opened.scalar(sa.text('SELECT sum(spend::numeric) FROM "LiteLLM_SpendLogs"'))
    assert abs(landed[0] - spend) < Decimal("1e-9")
    assert landed[1:] == (300, 300 * 301 / 2)
    assert settled.duplicates > 0
    assert settled.conflicts == 0
    ledger.close()


def test_a_table_that_is_not_there_and_a_server_that_is_not_there_are_told(database: sa.Engine):
    with database.begin() as connection:
        connection.execute(sa.text('DROP TABLE "LiteLLM_SpendLogs"'))
    with pytest.raises(PullFailed, match="does not exist"):
        list(spend_logs(source_of(database), FIRST, NOW))
    nowhere = source_of(database).model_copy(update={"url": "postgresql://u:hush@127.0.0.1:1/x"})
    with pytest.raises(PullFailed) as told:
        list(spend_logs(nowhere, FIRST, NOW))
    assert "hush" not in str(told.value)


def test_a_database_that_hangs_is_given_up(database: sa.Engine):
    add(database, 1, 5)
    with database.begin() as locking:
        locking.execute(sa.text('LOCK TABLE "LiteLLM_SpendLogs" IN ACCESS EXCLUSIVE MODE'))
        with pytest.raises(PullFailed, match="timeout"):
            list(spend_logs(source_of(database, timeout_seconds=1), FIRST, NOW))


def test_a_database_that_goes_away_between_two_pages_is_a_failure_and_nothing_of_it_lands(
    database: sa.Engine, tmp_path: Path
):
    add(database, 1, 20)
    source = source_of(database)

    def cut(start: datetime, end: datetime) -> Iterator[Page]:
        for number, page in enumerate(spend_logs(source, start, end)):
            yield page
            if number == 0:
                with database.connect() as other:
                    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    other.execute(sa.text(others + "AND datname = current_database()"))

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    positions = SourcePositions(ledger)
    with pytest.raises(PullFailed, match="cannot be read"):
        pull("gateway", source, cut, positions, tmp_path / "landing", NOW)
    assert not list((tmp_path / "landing").rglob("*.jsonl"))
    assert pull("gateway", source, fetch_of(source), positions, tmp_path / "landing", NOW).rows == 20
    ledger.close()


def test_a_table_without_the_column_it_is_read_by_is_a_failure_that_names_it(database: sa.Engine):
    with database.begin() as connection:
        connection.execute(sa.text('ALTER TABLE "LiteLLM_SpendLogs" RENAME COLUMN "startTime" TO "started"'))
    with pytest.raises(PullFailed, match="startTime"):
        list(spend_logs(source_of(database), FIRST, NOW))


def test_columns_that_come_or_go_do_not_stop_a_pull(database: sa.Engine):
    add(database, 1, 3)
    with database.begin() as connection:
        connection.execute(sa.text('ALTER TABLE "LiteLLM_SpendLogs" DROP COLUMN messages, ADD COLUMN brand_new INT'))
    assert sum(len(page) for page in spend_logs(source_of(database), FIRST, NOW)) == 3
