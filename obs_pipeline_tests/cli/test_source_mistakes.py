"""What a new user gets wrong about a source: every message says what to do, every source fails alone, no secret is ever shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from obs_pipeline.cli import doctor, sources
from obs_pipeline.cli.workspace import open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.storage.ledger import LandedDay, LandedFile
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline_tests.postgres import Server, postgres_server, postgres_url  # noqa: F401
from obs_pipeline_tests.stand_in import Answer, Query, StandIn, serving
from obs_pipeline_tests.usage.pulling.test_faults import (
    NAME,
    SECRET,
    SINCE,
    impatient,  # noqa: F401
    installation,  # noqa: F401
    pulled,
    told,
)
from obs_pipeline_tests.usage.pulling.test_litellm_table import add, execute, with_a_table

pytestmark = pytest.mark.usefixtures("installation", "impatient")
TABLE = '"LiteLLM_SpendLogs"'


class Configured:
    """A source named as a user would, and what is seen of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "policies").mkdir()
        (folder / "secret").write_text(SECRET)

    def source(self, **said: Any) -> None:
        whole = {"since": SINCE, "password_file": str(self.folder / "secret"), "timeout_seconds": 2, **said}
        self._write("sources.yaml", {"sources": {NAME: whole}})

    def bill(self, **said: Any) -> None:
        whole = {"since": SINCE, "key_file": str(self.folder / "secret"), "timeout_seconds": 2, **said}
        self._write("bills.yaml", {"bills": {NAME: whole}})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / "policies" / name).write_text(yaml.safe_dump({"version": 1, **content}))

    def assert_no_secret_is_kept(self) -> None:
        for path in (self.folder / "home").rglob("*"):
            assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Configured]:
    made = Configured(tmp_path)
    yield made
    made.assert_no_secret_is_kept()


@pytest.fixture
def table(postgres_server: Server, postgres_url: str) -> tuple[str, Callable[..., None]]:  # noqa: F811
    """The address of a table with rows, and a way to change it."""
    database = with_a_table(postgres_url)
    add(database, 1, 3)
    return f"postgresql://tests@/{database.url.database}?host={postgres_server.socket.parent}", partial(
        execute, database
    )


def assert_it_is_told(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """By the try, by the pull, by the list and by the doctor, and never with a secret."""
    with pytest.raises(ObsError) as tried:
        sources.try_source(NAME, as_json=False)
    assert pulled() == 3
    said = capsys.readouterr()
    row, examined = told(capsys)
    for text in (str(tried.value), said.err, row["failure"], examined.found):
        seen = " ".join(text.split())
        assert all(word in seen for word in words), seen
        assert SECRET not in text
        assert "Traceback" not in text


DATABASE = {
    "no such table": ([f"DROP TABLE {TABLE}"], ["does not exist", "is it the database of LiteLLM?"]),
    "another column": ([f'ALTER TABLE {TABLE} RENAME "startTime" TO "begun"'], ["startTime", "version of LiteLLM"]),
}


@pytest.mark.parametrize("mistake", DATABASE)
def test_a_database_that_is_not_as_it_should_be(
    configured: Configured, table: Any, capsys: pytest.CaptureFixture[str], mistake: str
):
    (url, run), (statements, words) = table, DATABASE[mistake]
    run(*statements)
    configured.source(kind="litellm_table", url=url)
    assert_it_is_told(capsys, *words)


def test_a_user_who_may_not_read_the_table(configured: Configured, table: Any, capsys: pytest.CaptureFixture[str]):
    url, run = table
    run("DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    configured.source(kind="litellm_table", url=url.replace("tests@", ""), user="stranger")
    assert_it_is_told(capsys, "permission denied", "GRANT SELECT")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://reader@127.0.0.1:1/litellm", ["Check url"]),
        ("postgresql://reader@no.such.host.invalid:5432/litellm", ["Check url"]),
        ("postgresql://reader@127.0.0.1:port/litellm", ["Check url"]),
    ],
    ids=["closed port", "unknown host", "no port"],
)
def test_an_address_where_no_database_is(
    configured: Configured, capsys: pytest.CaptureFixture[str], url: str, words: list[str]
):
    configured.source(kind="litellm_table", url=url)
    assert_it_is_told(capsys, *words)


@pytest.mark.parametrize("kind", ["litellm_table", "langfuse_api"])
def test_a_secret_that_is_not_there_names_its_file_and_stops_no_other_source(
    configured: Configured, table: Any, capsys: pytest.CaptureFixture[str], kind: str
):
    url = table[0] if kind == "litellm_table" else "http://127.0.0.1:1"
    configured.source(kind=kind, url=url, password_file="/run/secrets/nobody")
    assert_it_is_told(capsys, "/run/secrets/nobody", "should hold a password")
    policies = configured.folder / "policies" / "sources.yaml"
    content = yaml.safe_load(policies.read_text())
    content["sources"]["well"] = {"kind": "litellm_table", "url": table[0], "since": SINCE}
    policies.write_text(yaml.safe_dump(content))
    assert pulled() == 3
    assert "well: 0 rows" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["openai_costs", "anthropic_costs"])
def test_a_key_that_is_not_there_names_its_file(configured: Configured, capsys: pytest.CaptureFixture[str], kind: str):
    configured.bill(kind=kind, url="http://127.0.0.1:1", key_file="/run/secrets/nobody")
    assert_it_is_told(capsys, "/run/secrets/nobody", "should hold an admin key")


class Refusing(StandIn):
    """Answers everything with one status, and says the secret it was given, as some servers do."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def answer(self, path: str, query: Query, headers: Message) -> Answer:
        return self.status, f"key {SECRET} is no good".encode()


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("langfuse_api", 401, ["answered 401", "password_file"]),
        ("langfuse_api", 404, ["answered 404", "Check url"]),
        ("openai_costs", 401, ["answered 401", "admin key"]),
        ("anthropic_costs", 403, ["answered 403", "admin key"]),
    ],
)
def test_a_key_that_is_refused_says_which_field_to_look_at(
    configured: Configured, capsys: pytest.CaptureFixture[str], kind: str, status: int, words: list[str]
):
    with serving(Refusing(status)) as server:
        write = configured.source if kind == "langfuse_api" else configured.bill
        write(kind=kind, url=server.url)
        assert_it_is_told(capsys, *words)


def test_a_table_without_rows_is_no_failure(configured: Configured, table: Any, capsys: pytest.CaptureFixture[str]):
    url, run = table
    run(f"DELETE FROM {TABLE}")
    configured.source(kind="litellm_table", url=url)
    sources.try_source(NAME, as_json=False)
    assert "has no rows of the last week" in capsys.readouterr().out
    assert pulled() == 0
    row, _ = told(capsys)
    assert (row["failure"], row["rows_pulled"]) == (None, 0)


@pytest.mark.parametrize(
    "url",
    [f"postgresql://reader:{SECRET}@db/litellm", f"postgresql://db/x?password={SECRET}", f"http://pk:{SECRET}@api"],
)
def test_a_password_in_an_address_is_refused_without_being_shown(configured: Configured, url: str):
    configured.source(kind="litellm_table", url=url)
    with pytest.raises(ObsError, match="password_file") as refused:
        sources.list_sources(as_json=False)
    assert SECRET not in str(refused.value)


def test_without_any_source_the_file_to_name_one_in_is_told(configured: Configured, capsys: pytest.CaptureFixture[str]):
    assert pulled() == 0
    assert "policies/sources.yaml" in capsys.readouterr().out
    with pytest.raises(ObsError, match=r"name none yet\. Add it"):
        sources.try_source("gateway", as_json=False)


@pytest.mark.parametrize(
    ("minutes_read", "minutes_quiet", "health", "mend"),
    [
        (None, None, "never pulled", f"obs-pipeline sources pull {NAME}"),
        (5, 10, "alive", ""),
        (300, 310, "late", "Start the daemon"),
        (5, 3_000, "silent", "Check that calls still go through it"),
    ],
)
def test_the_doctor_tells_each_health_with_what_to_do(
    configured: Configured, minutes_read: int | None, minutes_quiet: int | None, health: str, mend: str
):
    configured.source(kind="litellm_table", url="postgresql://db/x")
    workspace, now = open_workspace(), utc_now()
    if minutes_read is not None and minutes_quiet is not None:
        read, newest = (now - timedelta(minutes=minutes) for minutes in (minutes_read, minutes_quiet))
        SourcePositions(workspace.ledger).advance(NAME, read.isoformat(), 7, now)
        file = LandedFile("file", "litellm", f"{NAME}-{newest:%Y%m%dT%H%M%S}-x.jsonl", 1, 0, None)
        workspace.ledger.start_landing(file, "mapping", now)
        workspace.ledger.finish_landing("file", 7, [LandedDay(newest.date(), 7, 0, newest, newest)], now)
    (examined,) = doctor._pulls(workspace)
    assert examined.found.startswith(health)
    assert (examined.state, mend in examined.mend) == ("ok" if health == "alive" else "look", True)
