"""Real producers: LiteLLM's proxy with its own table, OpenTelemetry's SDK with GenAI instrumentors, the Langfuse SDK.

They run in an environment of their own, which ``make test-producers`` makes; without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa
import yaml

from obs_pipeline.settings import project_root
from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import DayRange
from obs_pipeline.usage.billing import anthropic_bill
from obs_pipeline.usage.billing.admin_api import fetch_bill
from obs_pipeline.usage.billing.configured import PulledBill
from obs_pipeline.usage.currencies import RateBook
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline.usage.settling import settle
from obs_pipeline.usage.tables import USAGE_EVENTS
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.postgres import postgres_server, postgres_url  # noqa: F401
from obs_pipeline_tests.producers.upstream import Upstream, upstream
from obs_pipeline_tests.usage.billing.seller import anthropic_results, openai_results, seller

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENT = Path(os.environ.get("OBS_PRODUCERS", project_root() / ".venv-producers"))
PYTHON = ENVIRONMENT / "bin" / "python"
BILLION = Decimal("1e-9")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="make test-producers sets the producers up"),
]


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with upstream() as running:
        yield running


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(address: str, process: subprocess.Popen[bytes], seconds: int = 300) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, "the process ended before it answered"
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise AssertionError(f"nothing answers at {address}")


def producing(*words: object, **variables: str) -> subprocess.Popen[str]:
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **variables}
    return subprocess.Popen(
        [PYTHON, *map(str, words)], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def days_settled(obs: CommandLine, connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    today = datetime.now(UTC).date()
    settle(
        connection, obs.lake, DayRange(today - timedelta(days=1), today + timedelta(days=1)), PriceBook.load(None), 0.05
    )
    obs.lake.view(connection, USAGE_EVENTS)
    return connection.sql("SELECT * FROM usage_events ORDER BY event_time, event_id").to_arrow_table().to_pylist()


# -- LiteLLM -------------------------------------------------------------------------------------------------------------


@contextmanager
def gateway(folder: Path, provider: Upstream, database: str) -> Iterator[tuple[str, str]]:
    """LiteLLM's proxy, and its master key."""
    openai = {"api_base": f"{provider.url}/v1", "api_key": "none"}
    models = {
        "mocked": {"model": "openai/gpt-4o", "mock_response": "hello there", **openai},
        "chat": {"model": "openai/gpt-4o", **openai},
        "claude": {"model": "anthropic/claude-sonnet-4-5", "api_base": provider.url, "api_key": "none"},
        "broken": {"model": "openai/broken", **openai},
    }
    config = {
        "model_list": [{"model_name": name, "litellm_params": params} for name, params in models.items()],
        "litellm_settings": {"callbacks": ["litellm_spend_logger.spend_logger"], "num_retries": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "litellm_spend_logger.py").write_text((PROGRAMS / "litellm_spend_logger.py").read_text())
    port, key = free_port(), "sk-" + secrets.token_hex(24)
    environment = {
        **os.environ,
        "LITELLM_MASTER_KEY": key,
        "SPEND_DATABASE": database,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    command = [
        ENVIRONMENT / "bin" / "litellm",
        "--config",
        folder / "config.yaml",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (folder / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/health/liveliness", proxy)
            yield f"http://127.0.0.1:{port}", key
        finally:
            proxy.terminate()
            proxy.wait(60)


def asked(address: str, key: str, model: str, **more: Any) -> Decimal | None:
    """Ask for a completion; the cost that the proxy says it had, or None for a failure."""
    body = {"model": model, "messages": [{"role": "user", "content": "hush"}], **more}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "x-litellm-agent-id": "triage"}
    request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as answered:
            answered.read()
            return Decimal(answered.headers.get("x-litellm-response-cost") or 0)
    except urllib.error.HTTPError as error:
        error.close()
        return None


def test_litellms_proxy_and_its_own_table_come_to_the_proxys_own_total(
    tmp_path: Path,
    provider: Upstream,
    postgres_url: str,  # noqa: F811
):
    url = postgres_url.replace("postgresql+psycopg", "postgresql")
    made = subprocess.run(
        [PYTHON, PROGRAMS / "make_litellm_tables.py", url], check=True, capture_output=True, text=True, timeout=300
    )
    assert int(made.stdout) > 200
    with gateway(tmp_path, provider, url) as (address, key):
        said = [asked(address, key, model) for model in ("mocked", "chat", "claude", "chat", "broken")]
        asked(address, key, "chat", stream=True, stream_options={"include_usage": True})
        theirs = rows_of(postgres_url, 6)
    assert said[-1] is None
    policies = tmp_path / "policies"
    policies.mkdir()
    since = (datetime.now(UTC) - timedelta(days=1)).date()
    source = {"kind": "litellm_table", "url": url, "since": since}
    (policies / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": {"gateway": source}}))
    obs = CommandLine(tmp_path / "home", {"OBS_POLICIES": str(policies)})
    for _ in range(2):
        obs("sources", "pull")
    obs("ingest", obs.home / "landing" / "litellm", "--mapping", "litellm")
    with engine.connect() as connection:
        ours = days_settled(obs, connection)
    assert len(ours) == len(theirs) == 6
    spend = sum((Decimal(str(row["spend"])) for row in theirs), Decimal(0))
    assert abs(sum((row["cost"] or Decimal(0) for row in ours), Decimal(0)) - spend) < BILLION
    assert (
        abs(sum((cost for cost in said if cost is not None), Decimal(0)) - (spend - spend_of_stream(theirs))) < BILLION
    )
    by_model = {row["model"].rpartition("/")[2]: row for row in ours if not row["error_type"]}
    claude = by_model["claude-sonnet-4-5"]
    assert (claude["input_tokens"], claude["cache_read_tokens"], claude["cache_write_tokens"]) == (740, 700, 30)
    assert abs(claude["list_cost"] - claude["reported_cost"]) < BILLION
    assert [row["error_type"] for row in ours if row["error_type"]] == ["RateLimitError"]


def rows_of(url: str, count: int) -> list[Any]:
    """The table's rows, once so many are there: the proxy writes them after it has answered."""
    database = sa.create_engine(url, poolclass=sa.pool.NullPool)
    until = time.monotonic() + 60
    while True:
        with database.connect() as connection:
            rows = [dict(row) for row in connection.execute(sa.text('SELECT * FROM "LiteLLM_SpendLogs"')).mappings()]
        if len(rows) >= count or time.monotonic() > until:
            return rows
        time.sleep(0.3)


def spend_of_stream(rows: list[Any]) -> Decimal:
    """What the streamed call cost: its answer had no header for it. It is the last of the calls that went well."""
    good = sorted((row for row in rows if row["status"] != "failure"), key=lambda row: row["startTime"])
    return Decimal(str(good[-1]["spend"]))


# -- OpenTelemetry -------------------------------------------------------------------------------------------------------


def served(obs: CommandLine, port: int) -> subprocess.Popen[bytes]:
    server = obs.start("serve", "--port", port)
    wait_for(f"http://127.0.0.1:{port}/healthz", server)
    return server


def test_what_the_sdk_exported_is_counted_once_though_the_server_was_killed_in_between(
    tmp_path: Path, provider: Upstream
):
    obs, port = CommandLine(tmp_path / "home"), free_port()
    token = json.loads(obs("tokens", "create", "sdk", "--role", "collector", "--org", "acme", "--json").stdout)["token"]
    server = served(obs, port)
    program = producing(PROGRAMS / "call_with_otel.py", f"http://127.0.0.1:{port}", token, provider.url)
    assert program.stdin is not None
    assert program.stdout is not None
    told: list[Any] = []

    def one_run() -> bool:
        program.stdin.write("go\n")  # type: ignore[union-attr]
        program.stdin.flush()  # type: ignore[union-attr]
        answer = json.loads(program.stdout.readline())  # type: ignore[union-attr]
        told.extend(answer["told"])
        return bool(answer["exported"])

    try:
        assert one_run()
        server.send_signal(signal.SIGKILL)
        server.wait()
        assert not one_run()
        server = served(obs, port)
        assert one_run()
    finally:
        program.stdin.close()
        program.wait(60)
        program.stdout.close()
        server.terminate()
        server.wait(60)
    obs("ingest", obs.home / "landing" / "otlp", "--mapping", "otlp")
    with engine.connect() as connection:
        ours = days_settled(obs, connection)
    good = [row for row in ours if not row["error_type"]]
    counted = sorted(
        (json.loads(row["attributes"])["response_id"], row["input_tokens"], row["output_tokens"]) for row in good
    )
    assert counted == sorted(tuple(one) for one in told if one[0] != "error")
    assert len([row for row in ours if row["error_type"]]) == 3
    places = {(row["org"], row["team"], row["project"], row["agent"], row["session_id"]) for row in ours}
    assert places == {("acme", "care", "support-desk", "triage", "conv-7")}
    assert "hush" not in "".join(path.read_text() for path in (obs.home / "landing").rglob("*.jsonl"))


# -- Langfuse ------------------------------------------------------------------------------------------------------------


def test_what_the_langfuse_sdk_was_told_is_what_is_counted(tmp_path: Path):
    """There is no Langfuse server to install: a stand-in records what the SDK sends and gives it back as the API does."""
    with upstream() as langfuse:
        program = producing(PROGRAMS / "call_with_langfuse.py", langfuse.url)
        said, _ = program.communicate(timeout=120)
        told = json.loads(said.splitlines()[-1])
        policies = tmp_path / "policies"
        policies.mkdir()
        since: date = (datetime.now(UTC) - timedelta(hours=20)).date()
        source = {"kind": "langfuse_api", "url": langfuse.url, "user": "pk", "since": since, "window_hours": 744}
        (policies / "sources.yaml").write_text(yaml.safe_dump({"version": 1, "sources": {"desk": source}}))
        obs = CommandLine(tmp_path / "home", {"OBS_POLICIES": str(policies)})
        obs("sources", "pull")
    obs("ingest", obs.home / "landing" / "langfuse", "--mapping", "langfuse")
    with engine.connect() as connection:
        ours = days_settled(obs, connection)
    assert len(ours) == len(told) == 3
    assert abs(sum(row["cost"] for row in ours) - sum(Decimal(str(one["cost"])) for one in told)) < BILLION
    for row, one in zip(ours, told, strict=True):
        usage = one["usage"]
        assert row["input_tokens"] == usage["input"] + usage["input_cached_tokens"]
        assert row["output_tokens"] == usage["output"] + usage["output_reasoning_tokens"]


# -- Bills ---------------------------------------------------------------------------------------------------------------


def test_the_stand_ins_of_billing_apis_answer_as_the_sellers_own_clients_ask_and_read(tmp_path: Path):
    """Without an account, the sellers' own clients are the judges of the answers in tests, and of our requests."""
    first, until = date(2026, 3, 1), date(2026, 3, 8)
    with seller(openai_results) as openai, seller(anthropic_results) as anthropic:
        anthropic.days_a_page = 31
        program = producing(PROGRAMS / "know_bills.py", openai.url, anthropic.url, first, until)
        said, _ = program.communicate(timeout=120)
        assert program.returncode == 0
        told = json.loads(said.splitlines()[-1])
        theirs = [*openai.asked]
        openai.asked.clear()
        key = tmp_path / "key"
        key.write_text("sk-admin")
        asked = {"kind": "openai_costs", "url": openai.url, "key_file": key, "since": first}
        bill = fetch_bill(PulledBill.model_validate(asked), first, until, RateBook())
        ours = [*openai.asked]
        assert set(openai.keys) == {"Bearer sk-admin"}
    assert told["unknown"] == []
    assert ours == theirs
    assert abs(sum(line.cost or Decimal(0) for line in bill.lines) - Decimal(str(told["cost"]))) < BILLION
    assert sum(line.input_tokens or 0 for line in bill.lines) == told["tokens"]
    assert set(told["anthropic"]["token_types"]) == set(anthropic_bill._METERS)
    assert set(told["anthropic"]["cost_types"]) == {"tokens", "web_search", "code_execution"}
