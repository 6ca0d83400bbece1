"""One task an incident in a real Redmine, also when its answers are lost: Debian's, started by the test with a database of
its own. Slow, and skipped where it is not installed; ``make test-trackers`` runs it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from obs_pipeline.alerting.models import Refused, RetryAfter, Sent, TaskRef
from obs_pipeline.alerting.trackers import RedmineTracker, Task
from obs_pipeline_tests.alerting.loopback import Answer, Request, http_server

INSTALLED = Path("/usr/share/redmine")
NOW = datetime(2026, 11, 24, 9, 30)
TASK = Task("incident:42", "Cost of </pre> <b>bot</b> rose", "Observed  $31.00\n</pre> *bold*", "high", ("obs",))
SETUP = (
    "Setting.rest_api_enabled = '1'; Setting.login_required = '1'; "
    "p = Project.create!(name: 'Ops', identifier: 'ops'); p.trackers = Tracker.all; p.save!; "
    "puts User.find_by(login: 'admin').api_key"
)


class Redmine:
    """A running Redmine and a line to it that may lose answers: ``lose`` names methods, each lost once, after the request
    was carried out."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        self.lose: list[str] = []

    def __call__(self, request: Request) -> Answer:
        query = urllib.parse.urlencode(request.query)
        headers = {name: request.headers[name] for name in request.headers if name not in ("Host", "Connection")}
        status, body = self._asked(request.method, f"{request.path}?{query}", request.body or None, headers)
        if request.method in self.lose:
            self.lose.remove(request.method)
            return Answer(drop=True)
        return Answer(status, body)

    def issues(self) -> list[dict[str, Any]]:
        """Every issue, with its notes."""
        headers = {"X-Redmine-API-Key": self.key}
        _, listed = self._asked("GET", "/issues.json?status_id=*", None, headers)
        return [
            json.loads(self._asked("GET", f"/issues/{one['id']}.json?include=journals", None, headers)[1])["issue"]
            for one in json.loads(listed)["issues"]
        ]

    def _asked(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        asked = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@contextmanager
def running(folder: Path) -> Iterator[Redmine]:
    root, database = folder / "redmine", folder / "redmine.sqlite3"
    shutil.copytree(INSTALLED, root, symlinks=False, ignore_dangling_symlinks=True)
    (root / "Gemfile.local").write_text('gem "puma"\n')
    # Debian keeps a folder an instance; this one must not be the machine's.
    instance = root / "instances/default/config"
    instance.mkdir(parents=True, exist_ok=True)
    (instance / "database.yml").write_text(f"production:\n  adapter: sqlite3\n  database: {database}\n")
    environment = {
        **os.environ,
        "RAILS_ENV": "production",
        "SECRET_KEY_BASE": "x" * 64,
        "REDMINE_LANG": "en",
        "REDMINE_INSTANCE": "default",
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            words, cwd=root, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("bundle", "install", "--local")
    run("bundle", "exec", "rake", "db:migrate")
    run("bundle", "exec", "rake", "redmine:load_default_data")
    key = run("bundle", "exec", "rails", "runner", SETUP).split()[-1]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["bundle", "exec", "rails", "server", "-u", "puma", "-b", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, cwd=root, env=environment, stdout=quiet, stderr=quiet) as server:
        try:
            redmine = Redmine(f"http://127.0.0.1:{port}", key)
            wait_until_up(redmine)
            yield redmine
        finally:
            server.terminate()


def wait_until_up(redmine: Redmine) -> None:
    for _ in range(240):
        try:
            redmine.issues()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError("Redmine did not come up within two minutes")


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED.exists(), reason="Redmine is missing: apt-get install redmine redmine-sqlite puma")
def test_a_real_redmine_gets_one_issue_that_is_extended_closed_and_opened_again_though_answers_are_lost(tmp_path: Path):
    with running(tmp_path) as redmine, http_server(redmine) as line:
        tracker = RedmineTracker(line.url, "ops", SecretStr(redmine.key))

        redmine.lose = ["POST"]
        assert isinstance(tracker.ensure(TASK, NOW), RetryAfter)
        task = tracker.ensure(TASK, NOW)
        assert isinstance(task, TaskRef), task
        assert tracker.ensure(TASK, NOW) == task
        [issue] = redmine.issues()
        assert issue["subject"] == f"{TASK.title} [{TASK.mark}]"
        assert (issue["priority"]["name"], issue["status"]["is_closed"]) == ("High", False)
        assert "</pre> *bold*" not in issue["description"].partition("<pre>")[2].rpartition("</pre>")[0]

        assert isinstance(tracker.comment(task, "It grew.", NOW), Sent)
        redmine.lose = ["PUT"]
        assert isinstance(tracker.close(task, "Over.", NOW), RetryAfter)
        assert isinstance(tracker.close(task, "Over.", NOW), Sent)
        [issue] = redmine.issues()
        assert issue["status"]["is_closed"]
        assert [note["notes"] for note in issue["journals"] if "It grew." in note["notes"]] != []

        redmine.lose = ["PUT"]
        assert isinstance(tracker.ensure(TASK, NOW), RetryAfter)
        assert tracker.ensure(TASK, NOW) == task
        [issue] = redmine.issues()
        assert not issue["status"]["is_closed"]

        assert isinstance(RedmineTracker(line.url, "ops", SecretStr("bad")).ensure(TASK, NOW), Refused)
        elsewhere = Task("incident:43", "another", "body")
        assert isinstance(RedmineTracker(line.url, "nowhere", SecretStr(redmine.key)).ensure(elsewhere, NOW), Refused)
        assert len(redmine.issues()) == 1
