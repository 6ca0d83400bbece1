"""A LiteLLM proxy on loopback: it keeps teams and keys, and refuses every request that the real API does not declare.

What is declared comes from ``litellm_api.json``. The real proxy ignores fields it does not know without a word, so they
are refused here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS31Validator

from obs_pipeline_tests.alerting.loopback import Answer, HttpServer, Request, http_server

API: dict[str, Any] = json.loads(Path(__file__).with_name("litellm_api.json").read_text())
MASTER_KEY = "sk-master-0123456789abcdef"


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _strict(each) for name, each in schema.items()}
    return {**found, "additionalProperties": False} if "properties" in found else found


SCHEMAS = _strict(API["components"]["schemas"])


def mistakes(path: str, body: Any) -> list[str]:
    """What the API declares otherwise about a body posted to ``path``."""
    declared = API["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = {**declared, "components": {"schemas": SCHEMAS}}
    return [error.message for error in OAS31Validator(schema).iter_errors(body)]


class Proxy:
    """What the proxy has. ``before`` may answer instead of it, and sees every request first."""

    def __init__(self) -> None:
        self.teams: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.budgets: dict[str, dict[str, Any]] = {}
        self.before: Callable[[Request], Answer | None] = lambda _: None
        self.invalid: list[tuple[str, Any, list[str]]] = []
        self.server: HttpServer

    @property
    def asked(self) -> list[str]:
        return [request.path for request in self.server.requests]

    def answer(self, request: Request) -> Answer:
        instead = self.before(request)
        if instead is not None:
            return instead
        if request.headers.get("Authorization") != f"Bearer {MASTER_KEY}":
            return _error(401, f"Authentication Error, received {request.headers.get('Authorization')}")
        if request.path not in API["paths"] or request.method.lower() not in API["paths"][request.path]:
            return _error(405, f"{request.method} {request.path} is not declared")
        if request.method == "GET":
            declared = {each["name"] for each in API["paths"][request.path]["get"]["parameters"]}
            assert request.query.keys() <= declared
            return self._team_info(request.query["team_id"])
        found = mistakes(request.path, request.json)
        if found:
            self.invalid.append((request.path, request.json, found))
            return _error(422, str(found))
        act: Callable[[dict[str, Any]], Answer] = getattr(self, request.path.strip("/").replace("/", "_"))
        return act(request.json)

    def _team_info(self, team: str) -> Answer:
        if team not in self.teams:
            return _error(404, f"Team not found, passed team id: {team}.")
        keys = [each for each in self.keys.values() if each.get("team_id") == team]
        return Answer(body={"team_id": team, "team_info": self.teams[team], "keys": keys})

    def team_new(self, body: dict[str, Any]) -> Answer:
        if body["team_id"] in self.teams:
            return _error(400, f"Team id = {body['team_id']} already exists. Please use a different team id.")
        self.teams[body["team_id"]] = body
        return Answer(body=body)

    def team_update(self, body: dict[str, Any]) -> Answer:
        if body["team_id"] not in self.teams:
            return _error(404, f"Team not found, passed team_id={body['team_id']}")
        self.teams[body["team_id"]] |= body
        return Answer(body={"team_id": body["team_id"]})

    def team_delete(self, body: dict[str, Any]) -> Answer:
        for team in body["team_ids"]:
            if team not in self.teams:
                return _error(404, f"Team not found, passed team_id={team}")
            del self.teams[team]
            self.keys = {alias: each for alias, each in self.keys.items() if each.get("team_id") != team}
        return Answer(body={})

    def budget_new(self, body: dict[str, Any]) -> Answer:
        if body["budget_id"] in self.budgets:
            return _error(400, f"Budget with id '{body['budget_id']}' already exists.")
        self.budgets[body["budget_id"]] = body
        return Answer(body=body)

    def budget_update(self, body: dict[str, Any]) -> Answer:
        if body["budget_id"] not in self.budgets:
            return Answer(body="null")
        self.budgets[body["budget_id"]] |= body
        return Answer(body=self.budgets[body["budget_id"]])

    def budget_delete(self, body: dict[str, Any]) -> Answer:
        return Answer(body=self.budgets.pop(body["id"], None) or "null")

    def key_update(self, body: dict[str, Any]) -> Answer:
        if body["key_alias"] not in self.keys:
            return _error(404, f"Key not found. No key with key_alias='{body['key_alias']}'.")
        self.keys[body["key_alias"]] |= body
        return Answer(body={})


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"error": {"message": message, "type": "internal_server_error", "code": str(status)}})


@contextmanager
def litellm_proxy() -> Iterator[Proxy]:
    """A running proxy without teams and keys; every request must have been a declared one."""
    proxy = Proxy()
    with http_server(proxy.answer) as server:
        proxy.server = server
        yield proxy
    assert proxy.invalid == []
