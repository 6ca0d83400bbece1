"""One task an incident, in every tracker: found before it is made, extended, closed, opened again.

GitHub's requests are held against its published description (``github_api.json`` names its version); Jira's against
nothing but the fake below, because no package holds a description of it. A real Redmine is started in ``test_redmine``.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_schema_validator import OAS30Validator
from pydantic import SecretStr

from obs_pipeline.alerting.models import Refused, RetryAfter, Sent, TaskRef
from obs_pipeline.alerting.trackers import (
    GitHubTracker,
    JiraTracker,
    LedgerTracker,
    RedmineTracker,
    Task,
    document,
    fenced,
    preformatted,
)
from obs_pipeline_tests.alerting.loopback import Answer, Request, http_server
from obs_pipeline_tests.alerting.messages import HOSTILE

NOW = datetime(2026, 11, 24, 9, 30)
API = json.loads(Path(__file__).with_name("github_api.json").read_text())["operations"]
TASK = Task("incident:42", "Cost of acme/web/bot rose", "Observed  $31.00", "high", ("obs", "cost alert"), "ada")
TOKEN = SecretStr("ghp-very-secret")


class FakeGitHub:
    """Issues in memory; a request that GitHub's description does not allow is answered 422 and kept in ``wrong``."""

    def __init__(self, *, drops_labels: bool = False) -> None:
        self.issues: list[dict] = []
        self.comments: list[tuple[int, str]] = []
        self.wrong: list[str] = []
        self.next: list[Answer] = []
        self.drops_labels = drops_labels

    def __call__(self, request: Request) -> Answer:
        self._check(request)
        if self.wrong:
            return Answer(422, {"message": "Validation Failed"})
        lost = self.next.pop(0) if self.next else None
        if lost is not None and not lost.drop:
            return lost
        reply = self._reply(request)
        return lost or reply

    def _check(self, request: Request) -> None:
        path = re.sub(r"/issues/\d+", "/issues/{issue_number}", request.path)
        operation = API.get(f"{request.method} {path.replace('/repos/acme/ops', '/repos/{owner}/{repo}')}")
        if operation is None:
            self.wrong.append(f"no operation {request.method} {request.path}")
            return
        if request.body:
            unknown = set(request.json) - set(operation["body"]["properties"])
            self.wrong += [f"unknown {name}" for name in unknown]
            self.wrong += [error.message for error in OAS30Validator(operation["body"]).iter_errors(request.json)]
        declared = {one["name"]: one["schema"] for one in operation["parameters"] if one["in"] == "query"}
        for name, value in request.query.items():
            if name not in declared:
                self.wrong.append(f"unknown parameter {name}")
                continue
            typed = int(value) if declared[name]["type"] == "integer" else value
            self.wrong += [error.message for error in OAS30Validator(declared[name]).iter_errors(typed)]

    def _reply(self, request: Request) -> Answer:
        number = int(found[1]) if (found := re.search(r"/issues/(\d+)", request.path)) else 0
        if request.method == "GET":
            label = request.query.get("labels")
            found_issues = [one for one in self.issues[::-1] if label is None or label in one["labels"]]
            return Answer(body=found_issues[: int(request.query["per_page"])])
        if request.path.endswith("/comments"):
            self.comments.append((number, request.json["body"]))
            return Answer(201, {"id": len(self.comments)})
        if request.method == "PATCH":
            self.issues[number - 1].update(request.json)
            return Answer(body=self.issues[number - 1])
        issue = {
            **request.json,
            "number": len(self.issues) + 1,
            "state": "open",
            "html_url": "https://github.example/1",
        }
        issue["labels"] = [] if self.drops_labels else issue["labels"]
        self.issues.append(issue)
        return Answer(201, issue)


def github(url: str) -> GitHubTracker:
    return GitHubTracker("acme/ops", TOKEN, url)


def test_the_description_refuses_what_github_refuses():
    body = OAS30Validator(API["POST /repos/{owner}/{repo}/issues"]["body"])
    assert body.is_valid({"title": "x", "labels": ["a"], "assignees": ["b"]})
    for wrong in ({}, {"title": "x", "labels": "a"}, {"title": "x", "assignees": [1]}):
        assert not body.is_valid(wrong)


def test_github_gets_one_issue_that_is_extended_closed_and_opened_again():
    hub = FakeGitHub()
    with http_server(hub) as server:
        tracker = github(server.url)
        task = tracker.ensure(TASK, NOW)
        assert task == TaskRef("github", "1", "https://github.example/1")
        assert tracker.ensure(TASK, NOW) == task
        assert tracker.comment(task, "It grew.", NOW) == Sent("1")
        assert tracker.close(task, "It is over.", NOW) == Sent("1")
        assert hub.issues[0]["state"] == "closed"
        assert tracker.ensure(TASK, NOW) == task
    assert hub.wrong == []
    [issue] = hub.issues
    assert issue["state"] == "open"
    assert issue["title"] == "Cost of acme/web/bot rose"
    assert issue["assignees"] == ["ada"]
    assert issue["labels"] == ["obs", "cost alert", "priority: high", TASK.mark]
    assert [text.splitlines()[1] for _, text in hub.comments] == ["It grew.", "It is over."]
    assert server.requests[0].headers["Authorization"] == f"Bearer {TOKEN.get_secret_value()}"


def test_an_issue_whose_answer_was_lost_is_found_again():
    hub = FakeGitHub()
    with http_server(hub) as server:
        hub.next = [None, None, Answer(drop=True)]  # two look-ups, then the issue is made and the connection breaks
        assert isinstance(github(server.url).ensure(TASK, NOW), RetryAfter)
        assert github(server.url).ensure(TASK, NOW) == TaskRef("github", "1", "https://github.example/1")
    assert len(hub.issues) == 1


def test_an_issue_is_found_where_github_dropped_its_labels():
    hub = FakeGitHub(drops_labels=True)
    with http_server(hub) as server:
        assert github(server.url).ensure(TASK, NOW) == github(server.url).ensure(TASK, NOW)
        assert github(server.url).ensure(Task("incident:43", "x", "y"), NOW).id == "2"
    assert len(hub.issues) == 2


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(500, "oops"), RetryAfter(None, "HTTP 500: oops")),
        (Answer(403, "limit", {"Retry-After": "60"}), RetryAfter(60.0, "HTTP 403: limit")),
        (Answer(401, "bad ghp-very-secret"), Refused("HTTP 401: bad ***")),
        (Answer(200, "<html>"), RetryAfter(None, "the answer is not JSON")),
        (Answer(200, {"unexpected": 1}), None),
        (Answer(301, "", {"Location": "http://elsewhere.example/"}), Refused("HTTP 301")),
    ],
)
@pytest.mark.parametrize("kind", ["github", "jira", "redmine"])
def test_a_tracker_never_raises_for_what_the_other_side_does(kind: str, answer: Answer, outcome):
    with http_server(answer) as server:
        trackers = {
            "github": github(server.url),
            "jira": JiraTracker(server.url, "OPS", "a@b.c", TOKEN),
            "redmine": RedmineTracker(server.url, "ops", TOKEN),
        }
        found = trackers[kind].ensure(TASK, NOW)
        assert isinstance(trackers[kind].close(TaskRef(kind, "1"), "over", NOW), RetryAfter | Refused | Sent)
    assert found == outcome if outcome else isinstance(found, RetryAfter | Refused)


@pytest.mark.parametrize("name", HOSTILE)
def test_github_takes_no_text_for_markdown(name: str):
    hub = FakeGitHub()
    with http_server(hub) as server:
        github(server.url).ensure(Task(name, name, f"{name}\n````\n@everyone"), NOW)
    assert hub.wrong == []
    lines = hub.issues[0]["body"].splitlines()
    fence = lines[0].removesuffix("text")
    assert len(fence) > 4
    assert [line for line in lines if line == fence] == [fence]
    assert "\n" not in hub.issues[0]["title"]


@given(st.text(max_size=300))
def test_no_text_ends_its_own_block(text: str):
    lines = fenced(text).split("\n")
    assert lines[-1] == lines[0].removesuffix("text")
    assert lines[-1] not in "\n".join(lines[1:-1])
    assert preformatted(text).lower().count("</pre") == 1
    assert document(text)["content"][0]["content"][0]["text"]


def test_jira_gets_one_issue_that_is_extended_closed_and_opened_again():
    issues: dict[str, dict] = {}
    comments: list[dict] = []

    def jira(request: Request) -> Answer:
        status = {"new": "10", "done": "31"}
        if request.path == "/rest/api/3/search/jql":
            mark = re.search(r'labels = "([^"]+)"', request.query["jql"])[1]
            return Answer(body={"issues": [one for one in issues.values() if mark in one["fields"]["labels"]]})
        if request.path == "/rest/api/3/issue":
            fields = {**request.json["fields"], "status": {"statusCategory": {"key": "new"}}}
            issues["OPS-1"] = {"key": "OPS-1", "fields": fields}
            return Answer(201, {"key": "OPS-1"})
        if request.path.endswith("/comment"):
            comments.append(request.json)
            return Answer(201, {})
        if request.method == "GET":
            ways = [{"id": way, "to": {"statusCategory": {"key": key}}} for key, way in status.items()]
            return Answer(body={"transitions": ways})
        way = request.json["transition"]["id"]
        key = next(name for name, number in status.items() if number == way)
        issues["OPS-1"]["fields"]["status"] = {"statusCategory": {"key": key}}
        return Answer(204, "")

    with http_server(jira) as server:
        tracker = JiraTracker(server.url, "OPS", "a@b.c", TOKEN)
        task = tracker.ensure(TASK, NOW)
        assert task == TaskRef("jira", "OPS-1", f"{server.url}/browse/OPS-1")
        assert tracker.ensure(TASK, NOW) == task
        assert tracker.comment(task, "It grew.", NOW) == Sent("OPS-1")
        assert tracker.close(task, "Over.", NOW) == Sent("OPS-1")
        assert issues["OPS-1"]["fields"]["status"]["statusCategory"]["key"] == "done"
        assert tracker.ensure(TASK, NOW) == task
    fields = issues["OPS-1"]["fields"]
    assert fields["status"]["statusCategory"]["key"] == "new"
    assert fields["labels"] == ["obs", "cost-alert", TASK.mark]
    assert fields["priority"] == {"name": "High"}
    assert len(comments) == 2


def test_a_jira_workflow_without_a_way_to_close_is_said():
    open_state = {"fields": {"status": {"statusCategory": {"key": "new"}}}, "transitions": []}
    with http_server(Answer(body=open_state)) as server:
        outcome = JiraTracker(server.url, "OPS", "a@b.c", TOKEN).close(TaskRef("jira", "OPS-1"), "over", NOW)
    assert outcome == Refused("OPS-1 has no transition to a status of done")


def test_the_ledgers_own_task_is_the_same_whenever_it_is_asked_for():
    tracker = LedgerTracker()
    task = tracker.ensure(TASK, NOW)
    assert task == tracker.ensure(TASK, NOW)
    assert task.id == TASK.mark
    assert tracker.close(task, "over", NOW) == Sent(task.id)
