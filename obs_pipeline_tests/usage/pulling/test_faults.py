"""Every kind of source that is pulled, against a real server that fails in every way it can: nothing lost or twice, and told.

The servers are a PostgreSQL and the stand-ins of Langfuse's and the sellers' APIs; between them and the pipeline is a line that
hangs, breaks off or refuses. What answers wrongly (500, a page again, another schema) is the server itself.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
import yaml

from obs_pipeline.cli import doctor, sources
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.settings import Settings, get_settings
from obs_pipeline.storage import engine
from obs_pipeline.storage.lake import Lake
from obs_pipeline.usage.billing import admin_api
from obs_pipeline.usage.pulling import http_answers, langfuse_api
from obs_pipeline.usage.pulling.configured import PulledSource
from obs_pipeline.usage.pulling.litellm_table import spend_logs
from obs_pipeline.usage.pulling.pages import PullFailed
from obs_pipeline.usage.tables import BILLED_BUCKETS
from obs_pipeline_tests.command_line import CommandLine
from obs_pipeline_tests.postgres import Server, postgres_server, postgres_url  # noqa: F401
from obs_pipeline_tests.stand_in import Answer, Query, StandIn, serving
from obs_pipeline_tests.usage.billing.seller import anthropic_results, openai_results, seller
from obs_pipeline_tests.usage.pulling.faulty_line import FaultyLine, faulty_line
from obs_pipeline_tests.usage.pulling.test_litellm_table import add, execute, with_a_table

TODAY = datetime.now(UTC).date()
SINCE = TODAY - timedelta(days=2)
CALLS = 60
NAME = "watched"
SECRET = "hush-0815"
KINDS = ("litellm_table", "langfuse_api", "openai_costs", "anthropic_costs")
BILLS = ("openai_costs", "anthropic_costs")


class Langfuse(StandIn):
    """Sixty observations of yesterday, twenty a page. ``wrong`` is what is answered instead of the second page."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: Answer | None = None
        self.repeats_pages = False

    def answer(self, path: str, query: Query, headers: Message) -> Answer:
        if self.wrong and "cursor" in query:
            return self.wrong
        first = 0 if self.repeats_pages and "cursor" in query else int(query.get("cursor", ["0"])[0])
        begins, ends = (datetime.fromisoformat(query[name][0]) for name in ("fromStartTime", "toStartTime"))
        found = [
            {
                "id": f"o{n}",
                "projectId": "p",
                "type": "GENERATION",
                "startTime": f"{at:%Y-%m-%dT%H:%M:%SZ}",
                "name": "triage",
            }
            for n in range(CALLS)
            if begins <= (at := datetime(SINCE.year, SINCE.month, SINCE.day, 12, 0, n, tzinfo=UTC)) < ends
        ]
        cursor = str(first + 20) if first + 20 < len(found) else None
        return 200, json.dumps({"data": found[first : first + 20], "meta": {"cursor": cursor}}).encode()


@dataclass
class Watched:
    """A source behind a line, configured in an installation of its own."""

    kind: str
    home: Path
    line: FaultyLine
    half: int
    """Bytes of answers after which some, but not all of it was said."""
    wrongly: dict[str, Callable[[], None]] = field(default_factory=dict)
    rightly: Callable[[], None] = lambda: None

    def fail(self, fault: str) -> None:
        self.rightly()
        self.line.fault = None
        if fault in self.wrongly:
            self.wrongly[fault]()
        else:
            self.line.fail(fault, self.half)  # type: ignore[arg-type]

    def recover(self) -> None:
        self.rightly()
        self.line.fault = None

    def calls(self) -> Counter[str]:
        """What arrived: ids of calls in the landing folder, or the days of charges in the lake."""
        if self.kind in BILLS:
            with engine.connect() as connection:
                Lake(str(self.home / "lake")).view(connection, BILLED_BUCKETS)
                query = "SELECT dt, cost FROM billed_buckets WHERE kind = 'cost'"
                return Counter(f"{day}: {cost.normalize()}" for day, cost in connection.execute(query).fetchall())
        files = (self.home / "landing").rglob("[!.]*.jsonl")
        rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
        return Counter(str(row.get("request_id") or row["id"]) for row in rows)

    @property
    def everything(self) -> Counter[str]:
        if self.kind in BILLS:
            days = (SINCE + timedelta(days=n) for n in range(2))
            return Counter(f"{day}: {(day.day / 100):g}" for day in days)
        return Counter(f"{'r' if self.kind == 'litellm_table' else 'o'}{n}" for n in range(CALLS))


@contextmanager
def watched(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    makers = {"litellm_table": a_table, "langfuse_api": an_api}
    with makers.get(kind, a_seller)(kind, folder, request) as made:
        yield made


def configure(folder: Path, file: str, section: str, source: dict[str, Any]) -> None:
    policies = folder / "policies"
    policies.mkdir()
    secret = folder / "secret"
    secret.write_text(SECRET)
    key = "key_file" if section == "bills" else "password_file"
    whole = {**source, key: str(secret), "since": SINCE, "timeout_seconds": 1}
    (policies / file).write_text(yaml.safe_dump({"version": 1, section: {NAME: whole}}))


@contextmanager
def a_table(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    server: Server = request.getfixturevalue("postgres_server")
    url: str = request.getfixturevalue("postgres_url")
    database = with_a_table(url)
    run = partial(execute, database)
    add(database, 0, CALLS - 1)
    with database.begin() as connection:
        moved = "(CAST(:day AS TIMESTAMP) - TIMESTAMP '2026-05-01')"
        columns = ", ".join(f'"{one}" = "{one}" + {moved}' for one in ("startTime", "endTime", "completionStartTime"))
        connection.execute(sa.text(f'UPDATE "LiteLLM_SpendLogs" SET {columns}'), {"day": SINCE})

    def connect() -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        line.connect(str(server.socket))
        return line

    renamed = 'ALTER TABLE "LiteLLM_SpendLogs" RENAME COLUMN "startTime" TO "begunAt"'
    back = """DO $$ BEGIN ALTER TABLE "LiteLLM_SpendLogs" RENAME COLUMN "begunAt" TO "startTime";
        EXCEPTION WHEN undefined_column THEN NULL; END $$"""
    with faulty_line(connect) as line:
        at = f"postgresql://tests@127.0.0.1:{line.port}/{database.url.database}"
        configure(folder, "sources.yaml", "sources", {"kind": kind, "url": at, "batch_rows": 7})
        wrongly = {
            "answers 500": lambda: run('ALTER TABLE "LiteLLM_SpendLogs" RENAME TO "Elsewhere"'),
            "another schema": lambda: run(renamed),
        }
        rightly = lambda: run('ALTER TABLE IF EXISTS "Elsewhere" RENAME TO "LiteLLM_SpendLogs"', back)  # noqa: E731
        yield Watched(kind, folder / "home", line, 20_000, wrongly, rightly)


@contextmanager
def an_api(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    with serving(Langfuse()) as server, faulty_line(to(server)) as line:
        configure(
            folder, "sources.yaml", "sources", {"kind": kind, "url": f"http://127.0.0.1:{line.port}", "user": "pk"}
        )

        def answer(wrong: Answer | None, repeats: bool = False) -> None:
            server.wrong, server.repeats_pages = wrong, repeats

        wrongly: dict[str, Callable[[], None]] = {
            "answers 500": lambda: answer((500, b"{}")),
            "another schema": lambda: answer((200, b'{"observations": []}')),
            "a page again": lambda: answer(None, True),
        }
        yield Watched(kind, folder / "home", line, 4_000, wrongly, lambda: answer(None))


@contextmanager
def a_seller(kind: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Watched]:
    with (
        seller(openai_results if kind == "openai_costs" else anthropic_results) as server,
        faulty_line(to(server)) as line,
    ):
        server.days_a_page = 1
        configure(folder, "bills.yaml", "bills", {"kind": kind, "url": f"http://127.0.0.1:{line.port}"})

        def answer(*wrong: Answer | None, repeats: bool = False) -> None:
            server.faults, server.repeats_pages = list(wrong), repeats

        wrongly: dict[str, Callable[[], None]] = {
            "answers 500": lambda: answer(None, *[(500, b"{}")] * 4),
            "another schema": lambda: answer(None, (200, b'{"days": []}')),
            "a page again": lambda: answer(repeats=True),
        }
        yield Watched(kind, folder / "home", line, 900, wrongly, answer)


def to(server: StandIn) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(("127.0.0.1", server.server_port))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow at once, and are two."""
    monkeypatch.setattr(http_answers, "_ATTEMPTS", 2)
    for fetch in (langfuse_api.observations, admin_api.fetch_bill):
        monkeypatch.setattr(fetch, "__kwdefaults__", {"wait": lambda seconds: None})


@pytest.fixture
def installation(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OBS_POLICIES", str(tmp_path / "policies"))
    get_settings.cache_clear()


def pulled() -> int:
    """Pull as the command does; what it exits with."""
    try:
        sources.pull_sources(names=None, as_json=False)
    except typer.Exit as left:
        return int(left.exit_code)
    return 0


def told(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], doctor.Examination]:
    """What ``sources list`` and the doctor say of it."""
    capsys.readouterr()
    sources.list_sources(as_json=True)
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    (row,) = json.loads(said.out)
    workspace = open_workspace()
    (examined,) = (
        one for examine in (doctor._pulls, doctor._bills) for one in examine(workspace) if one.what.endswith(NAME)
    )
    return row, examined


FAULTS = {
    "hangs": ("Timeout", "timeout", "no answer within"),
    "breaks off": ("RemoteProtocolError", "closed", "lost", "broke off", "ReadError"),
    "refuses": ("Error", "closed", "reset", "refused"),
    "answers 500": ("answered 500", "does not exist"),
    "another schema": ("may have changed", "startTime"),
    "a page again": ("same page again", "twice"),
}


@pytest.mark.usefixtures("installation", "impatient")
@pytest.mark.parametrize(
    ("kind", "fault"),
    [(kind, fault) for kind in KINDS for fault in FAULTS if (kind, fault) != ("litellm_table", "a page again")],
)
def test_whatever_a_source_does_nothing_is_lost_nothing_comes_twice_and_how_it_is_is_told(
    kind: str, fault: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
):
    with watched(kind, tmp_path, request) as source:
        source.fail(fault)
        assert pulled() == 3
        said = capsys.readouterr()
        assert NAME in said.err
        assert SECRET not in said.out + said.err
        row, examined = told(capsys)
        assert any(word in row["failure"] for word in FAULTS[fault]), row["failure"]
        assert SECRET not in row["failure"]
        assert row.get("health", "failed") == "failed"
        assert (examined.state, row["failure"] in examined.found) == ("look", True)
        assert "obs-pipeline sources" in examined.mend
        assert source.calls() == Counter()
        source.recover()
        assert pulled() == 0
        assert source.calls() == source.everything
        row, examined = told(capsys)
        assert (row["failure"], row.get("health", "alive")) == (None, "alive")
        assert examined.state == "ok"
        assert pulled() == 0
        assert set(source.calls()) == set(source.everything)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_pull_that_is_killed_in_the_middle_leaves_nothing_behind_and_the_next_brings_everything(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
):
    with watched(kind, tmp_path, request) as source:
        text = (tmp_path / "policies").glob("*.yaml")
        for path in text:
            path.write_text(path.read_text().replace("timeout_seconds: 1", "timeout_seconds: 60"))
        obs = CommandLine(source.home, {"OBS_POLICIES": str(tmp_path / "policies")})
        source.fail("hangs")
        pulling = obs.start("sources", "pull")
        begun = source.home / ("scratch" if kind in BILLS else "landing")
        wait_until(lambda: any(begun.rglob(".*.jsonl" if kind not in BILLS else "pulling-*")))
        time.sleep(0.5)
        os.kill(pulling.pid, signal.SIGKILL)
        pulling.wait()
        assert source.calls() == Counter()
        source.recover()
        obs("sources", "pull")
        assert source.calls() == source.everything
        assert not list(source.home.rglob(".*.jsonl"))
        (row,) = json.loads(obs("sources", "list", "--json").stdout)
        assert (row.get("health", "alive"), row["failure"]) == ("alive", None)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.usefixtures("installation")
def test_a_database_that_is_restarted_in_the_middle_of_a_pull_is_read_again_from_where_it_was(
    tmp_path: Path, request: pytest.FixtureRequest
):
    with watched("litellm_table", tmp_path, request) as source:
        found = yaml.safe_load((tmp_path / "policies" / "sources.yaml").read_text())["sources"][NAME]
        pages = spend_logs(PulledSource.model_validate(found), _midnight(SINCE), _midnight(TODAY))
        assert len(next(pages)) == 7
        request.getfixturevalue("postgres_server").restart()
        with pytest.raises(PullFailed, match="cannot be read"):
            list(pages)
        assert pulled() == 0
        assert source.calls() == source.everything


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)
