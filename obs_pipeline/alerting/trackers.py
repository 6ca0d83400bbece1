"""Task trackers: one task an incident, found again by its key before another is made.

Holds the port and its adapters: the ledger's own (default), GitHub Issues, Jira Cloud, Redmine. When a task is wanted
and what it says is decided elsewhere. Every adapter looks the key up first, so a crash or a lost answer between making
a task and noting it down leads back to the same task.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

from pydantic import SecretStr

from obs_pipeline.alerting.models import Refused, RetryAfter, Sent, TaskRef
from obs_pipeline.alerting.rendering import clipped, plain
from obs_pipeline.alerting.wire import Json, Service, Unanswered

Priority = Literal["low", "medium", "high", "critical"]
NoTask = RetryAfter | Refused

_TITLE: Final = 200
_BODY: Final = 20_000


@dataclass(frozen=True)
class Task:
    """What a task says. ``key`` is the same for the whole life of an incident."""

    key: str
    title: str
    body: str
    priority: Priority = "medium"
    labels: tuple[str, ...] = ()
    assignee: str | None = None

    @property
    def mark(self) -> str:
        """The key as a word that every tracker can store and search: ``obs-`` and 16 hexadecimal digits."""
        return mark_of(self.key)


def mark_of(key: str) -> str:
    return "obs-" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class TaskTracker(Protocol):
    """Where tasks live. ``now`` is UTC without a zone; no method raises for what the other side does."""

    name: str

    def ensure(self, task: Task, now: datetime) -> TaskRef | NoTask:
        """The task of this key: found, and opened again if it was closed, or else made."""

    def comment(self, task: TaskRef, text: str, now: datetime) -> Sent | NoTask:
        """Add to a task that the incident grew or changed."""

    def close(self, task: TaskRef, text: str, now: datetime) -> Sent | NoTask:
        """Close a task with a last remark. Closing one that is closed already is fine."""


class LedgerTracker:
    """The ledger's own tasks: the reference follows from the key, and the row that keeps it is the task."""

    name = "ledger"

    def ensure(self, task: Task, now: datetime) -> TaskRef | NoTask:
        return TaskRef(self.name, task.mark)

    def comment(self, task: TaskRef, text: str, now: datetime) -> Sent | NoTask:
        return Sent(remote_id=task.id)

    def close(self, task: TaskRef, text: str, now: datetime) -> Sent | NoTask:
        return Sent(remote_id=task.id)


@dataclass(frozen=True)
class _Found:
    ref: TaskRef
    closed: bool


class _RemoteTracker:
    """The order of work that every remote tracker shares; what they differ in is below."""

    name: str

    def ensure(self, task: Task, now: datetime) -> TaskRef | NoTask:
        try:
            found = self._find(task, now)
            if found is None:
                return self._create(task, now)
            if found.closed:
                self._reopen(found.ref, now)
            return found.ref
        except Unanswered as failure:
            return failure.outcome
        except (KeyError, TypeError, IndexError, AttributeError):
            return RetryAfter(reason=f"{self.name} gave an answer of another shape than it documents", seconds=None)

    def comment(self, task: TaskRef, text: str, now: datetime) -> Sent | NoTask:
        try:
            self._comment(task, clipped(text, _BODY), now)
        except Unanswered as failure:
            return failure.outcome
        return Sent(remote_id=task.id)

    def close(self, task: TaskRef, text: str, now: datetime) -> Sent | NoTask:
        try:
            self._close(task, clipped(text, _BODY), now)
        except Unanswered as failure:
            return failure.outcome
        except (KeyError, TypeError, IndexError, AttributeError):
            return RetryAfter(reason=f"{self.name} gave an answer of another shape than it documents", seconds=None)
        return Sent(remote_id=task.id)

    def _find(self, task: Task, now: datetime) -> _Found | None:
        raise NotImplementedError

    def _create(self, task: Task, now: datetime) -> TaskRef:
        raise NotImplementedError

    def _reopen(self, task: TaskRef, now: datetime) -> None:
        raise NotImplementedError

    def _comment(self, task: TaskRef, text: str, now: datetime) -> None:
        raise NotImplementedError

    def _close(self, task: TaskRef, text: str, now: datetime) -> None:
        raise NotImplementedError


# -- GitHub -----------------------------------------------------------------------------------------------------------


class GitHubTracker(_RemoteTracker):
    """Issues of one repository. The key is a label and, hidden, in the text: GitHub drops labels without a word when
    the token may not set them.

    ``token`` needs read and write access to issues. Texts are code blocks, so that ``@name`` calls nobody.
    """

    name = "github"

    def __init__(self, repository: str, token: SecretStr, base_url: str = "https://api.github.com") -> None:
        owner, _, name = repository.partition("/")
        self._path = f"/repos/{quote(owner, safe='')}/{quote(name, safe='')}/issues"
        self._service = Service(
            base_url,
            {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"},
            {"Authorization": SecretStr(f"Bearer {token.get_secret_value()}")},
        )

    def _find(self, task: Task, now: datetime) -> _Found | None:
        labelled = self._service.exchange("GET", self._path, now, labels=task.mark, state="all", per_page=10)
        issues = [issue for issue in labelled or [] if "pull_request" not in issue]
        if not issues:
            newest = self._service.exchange(
                "GET", self._path, now, state="all", sort="created", direction="desc", per_page=100
            )
            issues = [issue for issue in newest or [] if f"<!-- {task.mark} -->" in (issue.get("body"))]
        if not issues:
            return None
        oldest = min(issues, key=lambda issue: int(issue["number"]))
        return _Found(self._ref(oldest), oldest["state"] == "closed")

    def _create(self, task: Task, now: datetime) -> TaskRef:
        body: Json = {
            "title": plain(task.title, _TITLE),
            "body": f"{fenced(task.body)}\n\n<!-- {task.mark} -->",
            "labels": [plain(label, 50) for label in (*task.labels, f"priority: {task.priority}", task.mark)],
        }
        if task.assignee:
            body["assignees"] = [task.assignee]
        return self._ref(self._service.exchange("POST", self._path, now, body))

    def _reopen(self, task: TaskRef, now: datetime) -> None:
        self._service.exchange("PATCH", f"{self._path}/{task.id}", now, {"state": "open", "state_reason": "reopened"})

    def _comment(self, task: TaskRef, text: str, now: datetime) -> None:
        self._service.exchange("POST", f"{self._path}/{task.id}/comments", now, {"body": fenced(text)})

    def _close(self, task: TaskRef, text: str, now: datetime) -> None:
        # State first: it may be repeated without harm, a comment may not.
        closed = {"state": "closed", "state_reason": "completed"}
        self._service.exchange("PATCH", f"{self._path}/{task.id}", now, closed)
        self._comment(task, text, now)

    def _ref(self, issue: Json) -> TaskRef:
        return TaskRef(tracker=self.name, id=str(issue["number"]), url=issue.get("html_url"))


def fenced(text: str) -> str:
    """Text as a Markdown code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{clipped(text, _BODY).rstrip()}\n{fence}"


# -- Jira Cloud -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JiraNames:
    """What a Jira project calls things; the defaults are those of a new project."""

    issue_type: str = "Task"
    priorities: Mapping[Priority, str] = field(
        default_factory=lambda: {"low": "Low", "medium": "Medium", "high": "High", "critical": "Highest"}
    )


class JiraTracker(_RemoteTracker):
    """Issues of one Jira Cloud project, found by label.

    Jira's search lags behind by seconds; the first retry comes later than that. ``assignee`` is an account id.
    """

    name = "jira"

    def __init__(
        self, base_url: str, project: str, email: str, token: SecretStr, names: JiraNames | None = None
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._project = project
        self._names = names or JiraNames()
        self._service = Service(base_url, {"Accept": "application/json"}, basic=(email, token))

    def _find(self, task: Task, now: datetime) -> _Found | None:
        # Both words are ours or the operator's; the quotes keep a project key that is a reserved word usable.
        project = self._project.replace('"', "")
        query = f'project = "{project}" AND labels = "{task.mark}" ORDER BY created ASC'
        found = self._service.exchange("GET", "/rest/api/3/search/jql", now, jql=query, fields="status", maxResults=1)
        if not found["issues"]:
            return None
        issue = found["issues"][0]
        return _Found(self._ref(issue["key"]), issue["fields"]["status"]["statusCategory"]["key"] == "done")

    def _create(self, task: Task, now: datetime) -> TaskRef:
        fields: Json = {
            "project": {"key": self._project},
            "issuetype": {"name": self._names.issue_type},
            "summary": plain(task.title, _TITLE),
            "description": document(task.body),
            # A label with a space is refused as a whole.
            "labels": [re.sub(r"\s+", "-", plain(label)) for label in (*task.labels, task.mark)],
            "priority": {"name": self._names.priorities[task.priority]},
        }
        if task.assignee:
            fields["assignee"] = {"id": task.assignee}
        return self._ref(self._service.exchange("POST", "/rest/api/3/issue", now, {"fields": fields})["key"])

    def _reopen(self, task: TaskRef, now: datetime) -> None:
        self._move(task, ("new", "indeterminate"), now)

    def _comment(self, task: TaskRef, text: str, now: datetime) -> None:
        self._service.exchange("POST", f"{self._issue(task)}/comment", now, {"body": document(text)})

    def _close(self, task: TaskRef, text: str, now: datetime) -> None:
        self._move(task, ("done",), now)
        self._comment(task, text, now)

    def _move(self, task: TaskRef, categories: tuple[str, ...], now: datetime) -> None:
        steps = self._service.exchange("GET", f"{self._issue(task)}/transitions", now)["transitions"]
        ways = [step for step in steps if step["to"]["statusCategory"]["key"] in categories]
        if not ways:
            state = self._service.exchange("GET", self._issue(task), now, fields="status")["fields"]["status"]
            if state["statusCategory"]["key"] in categories:
                return
            raise Unanswered(Refused(f"{task.id} has no transition to a status of {' or '.join(categories)}"))
        self._service.exchange("POST", f"{self._issue(task)}/transitions", now, {"transition": {"id": ways[0]["id"]}})

    def _issue(self, task: TaskRef) -> str:
        return f"/rest/api/3/issue/{quote(task.id, safe='')}"

    def _ref(self, key: str) -> TaskRef:
        return TaskRef(tracker=self.name, id=key, url=f"{self._base_url}/browse/{key}")


def document(text: str) -> Json:
    """Text as an Atlassian document: one code block, in which nothing is markup."""
    code = {"type": "codeBlock", "content": [{"type": "text", "text": clipped(text, _BODY).rstrip() or "-"}]}
    return {"type": "doc", "version": 1, "content": [code]}


# -- Redmine ----------------------------------------------------------------------------------------------------------


class RedmineTracker(_RemoteTracker):
    """Issues of one Redmine project, found by the mark at the end of the subject.

    Redmine has no labels: they are written into the text. ``assignee`` is a user id.
    """

    name = "redmine"
    _PRIORITIES: Final[dict[Priority, str]] = {"low": "Low", "medium": "Normal", "high": "High", "critical": "Urgent"}

    def __init__(self, base_url: str, project: str, key: SecretStr) -> None:
        self._base_url = base_url.rstrip("/")
        self._project = project
        self._service = Service(base_url, {"Accept": "application/json"}, {"X-Redmine-API-Key": key})

    def _find(self, task: Task, now: datetime) -> _Found | None:
        found = self._service.exchange(
            "GET", "/issues.json", now, project_id=self._project, status_id="*", subject=f"~{task.mark}", sort="id"
        )["issues"]
        if not found:
            return None
        return _Found(self._ref(found[0]["id"]), found[0]["status"]["id"] in self._statuses(now, closed=True))

    def _create(self, task: Task, now: datetime) -> TaskRef:
        labels = f"\nLabels: {', '.join(plain(label) for label in task.labels)}" if task.labels else ""
        issue: Json = {
            "project_id": self._project,
            "subject": f"{plain(task.title, _TITLE)} [{task.mark}]",
            "description": preformatted(task.body + labels),
        }
        if (priority := self._priority(task.priority, now)) is not None:
            issue["priority_id"] = priority
        if task.assignee:
            issue["assigned_to_id"] = task.assignee
        return self._ref(self._service.exchange("POST", "/issues.json", now, {"issue": issue})["issue"]["id"])

    def _reopen(self, task: TaskRef, now: datetime) -> None:
        self._change(task, {"status_id": self._statuses(now, closed=False)[0]}, now)

    def _comment(self, task: TaskRef, text: str, now: datetime) -> None:
        self._change(task, {"notes": preformatted(text)}, now)

    def _close(self, task: TaskRef, text: str, now: datetime) -> None:
        closed = self._statuses(now, closed=True)
        if not closed:
            raise Unanswered(Refused("this Redmine has no status that counts as closed"))
        self._change(task, {"status_id": closed[0], "notes": preformatted(text)}, now)

    def _change(self, task: TaskRef, issue: Json, now: datetime) -> None:
        self._service.exchange("PUT", f"/issues/{quote(task.id, safe='')}.json", now, {"issue": issue})

    def _statuses(self, now: datetime, *, closed: bool) -> list[int]:
        statuses: list[Json] = self._service.exchange("GET", "/issue_statuses.json", now)["issue_statuses"]
        return [status["id"] for status in statuses if bool(status.get("is_closed")) == closed]

    def _priority(self, wanted: Priority, now: datetime) -> Any:
        known = self._service.exchange("GET", "/enumerations/issue_priorities.json", now)["issue_priorities"]
        return next((one["id"] for one in known if one["name"] == self._PRIORITIES[wanted]), None)

    def _ref(self, number: int) -> TaskRef:
        return TaskRef(tracker=self.name, id=str(number), url=f"{self._base_url}/issues/{number}")


def preformatted(text: str) -> str:
    """Text as a Textile block in which nothing is markup; a closing tag in it is broken up."""
    return f"<pre>\n{re.sub('</(?=pre)', '< /', clipped(text, _BODY), flags=re.IGNORECASE).rstrip()}\n</pre>"
