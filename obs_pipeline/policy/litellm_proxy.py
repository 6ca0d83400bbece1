"""A LiteLLM proxy as a target: bringing its teams, budgets and keys to what is in force in the ledger.

Belongs here: which settings differ from what the proxy took last, in what order they are sent, and what is kept of it.
What a policy is called over there is ``litellm_target``'s business, HTTP is ``litellm_api``'s.

How it stays right
------------------
- What was accepted is kept in the ledger, setting by setting, right after the answer. What is pending is the difference
  between that and what the ledger has in force, so nothing is lost if this process, the proxy or the way there dies:
  the next sync sends what is left. A setting may be sent twice, never half.
- A team that is there already is taken over: only its limits are set, and it is never deleted.
- Keys are made by whoever hands them to an agent, as their secrets are none of this program's business. A key is found
  by its alias ``organisation/project/agent``; an agent that has none is told as waiting. A budget of the same name is
  there before, so that a key made with it is limited from its first call.
- When a policy is gone its limits are lifted. A team is deleted only if it was made here and has no keys, because the
  proxy deletes the keys of a team with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from obs_pipeline.policy.applied import Applied, applied_now
from obs_pipeline.policy.litellm_api import ManagementApi, RefusedRequest, Unreachable
from obs_pipeline.policy.litellm_target import ORIGIN, Setting, litellm_budgets, litellm_settings
from obs_pipeline.policy.planning import SyncPlan
from obs_pipeline.policy.resolution import PolicySet, resolve_all
from obs_pipeline.policy.targets import TargetOutcome
from obs_pipeline.storage.locks import Busy
from obs_pipeline.storage.policy_store import PolicyStore
from obs_pipeline.storage.target_store import AcceptedSetting, TargetState, TargetStore

LITELLM: Final = "litellm"
_LIFTED: Final[Mapping[str, Any]] = {"budget_limits": [], "rpm_limit": None}
"""What a limit is set to where no policy states it any more."""
_NO_BUDGET: Final[Mapping[str, Any]] = {"max_budget": None, "budget_duration": None, "rpm_limit": None}
_FAILURES_IN_A_ROW: Final = 2
"""After so many settings without an answer the proxy is taken to be down; one alone may be the setting's own fault."""

Body = Mapping[str, Any]


class _NoSuchKey(Exception):
    """The proxy has no key of that alias."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A setting that differs: ``body`` as it should be (``None``: it is gone), ``held`` as the proxy took it last."""

    setting: str
    body: Body | None
    held: AcceptedSetting | None

    @property
    def lifted(self) -> dict[str, Any]:
        """Limits set from here before, without a limit."""
        before = json.loads(self.held.body) if self.held is not None else {}
        return {name: nothing for name, nothing in _LIFTED.items() if _states(before.get(name))}

    @property
    def names(self) -> dict[str, Any]:
        body: dict[str, Any] = dict(self.body) if self.body is not None else json.loads((self.held or _NOTHING).body)
        return {name: body[name] for name in ("team_id", "key_alias", "budget_id") if name in body}

    @property
    def kind(self) -> str:
        return self.setting.partition(" ")[0]

    def limits(self, body: Body) -> dict[str, Any]:
        """What to set on something that others made: limits that are stated, and those stated before."""
        return {**self.lifted, **{name: value for name, value in body.items() if name in _LIFTED and _states(value)}}


def _states(value: object) -> bool:
    """Whether a value is a limit; zero is one, and a hard one."""
    return value not in (None, [])


_NOTHING: Final = AcceptedSetting("", "{}", made=False)


class LiteLLMTarget:
    """The proxy behind ``api``, brought to what ``store`` has in force.

    ``clock`` tells UTC: a dated raise is sent by the first sync within its time. ``alone`` is held while settings are
    sent, so that no older state follows a newer one. With ``resend`` everything is sent, whatever was accepted before:
    for a proxy that was changed by hand or lost its data.
    """

    name: Final = LITELLM

    def __init__(
        self,
        api: ManagementApi,
        store: PolicyStore,
        targets: TargetStore,
        clock: Callable[[], datetime],
        alone: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        resend: bool = False,
    ) -> None:
        self._api = api
        self._store = store
        self._targets = targets
        self._clock = clock
        self._alone = alone
        self._resend = resend

    def apply(self, plan: SyncPlan) -> TargetOutcome:
        """Send what differs. A failure is an answer: what could not be sent is pending and kept in the ledger."""
        del plan  # The ledger has it already, and perhaps a newer one.
        try:
            with self._alone():
                return self._bring(applied_now(self._store))
        except Busy as busy:
            state = self._targets.state(self.name)
            return TargetOutcome(self.name, 0 if state is None else state.revision, 0, 1, str(busy))
        finally:
            self._api.close()

    def _bring(self, applied: Applied) -> TargetOutcome:
        wanted, held = _wanted(applied, self._clock()), self._targets.accepted(self.name)
        left = list(_changes(wanted, held, everything=self._resend))
        sent, in_a_row, waiting, failure = 0, 0, list[str](), ""
        for change in left:
            try:
                self._send(change)
                sent, in_a_row = sent + 1, 0
            except _NoSuchKey:
                waiting.append(change.setting)
                in_a_row = 0
            except (RefusedRequest, Unreachable) as error:
                # The others may well go through, unless nobody is there.
                in_a_row = in_a_row + 1 if isinstance(error, Unreachable) else 0
                failure = failure or f"{change.setting}: {error}"
                if in_a_row == _FAILURES_IN_A_ROW or (isinstance(error, Unreachable) and error.for_all):
                    break
        pending = len(left) - sent - len(waiting)
        return self._noted(applied.revision, sent, pending, failure, waiting)

    def _noted(self, revision: int, sent: int, pending: int, failure: str, waiting: list[str]) -> TargetOutcome:
        before = self._targets.state(self.name)
        holds = revision if not pending else (0 if before is None else before.revision)
        self._targets.note(TargetState(self.name, holds, pending, len(waiting), failure, self._clock()))
        return TargetOutcome(self.name, holds, sent, pending, failure, tuple(waiting))

    def _send(self, change: _Change) -> None:
        put, drop = {
            "team": (self._set_team, self._drop_team),
            "budget": (self._set_budget, self._drop_budget),
            "key": (self._set_key, self._lift_key),
        }[change.kind]
        if change.body is None:
            drop(change)
            self._targets.forget(self.name, change.setting)
            return
        made = put(change, change.body)
        self._targets.accept(self.name, AcceptedSetting(change.setting, _written(change.body), made), self._clock())

    def _set_team(self, change: _Change, body: Body) -> bool:
        """Make or change a team; whether it is one that was made here."""
        if change.held is not None:
            try:
                return self._update_team(change, body, made=change.held.made)
            except RefusedRequest as error:
                if error.status != 404:
                    raise
        try:
            self._api.post("/team/new", body)
            return True
        except RefusedRequest:
            there = self._team(change)
            if there is None:
                raise
        # Made by a sync that died before it could say so, or by somebody else.
        return self._update_team(change, body, made=ORIGIN in (there.get("team_info", {}).get("metadata") or {}))

    def _update_team(self, change: _Change, body: Body, *, made: bool) -> bool:
        # The name and the notes of a team that somebody else made are left alone.
        told = {**change.lifted, **body} if made else change.limits(body)
        self._api.post("/team/update", {**told, **change.names})
        return made

    def _drop_team(self, change: _Change) -> None:
        there = self._team(change)
        if there is None or change.held is None:
            return
        if change.held.made and not there.get("keys"):
            self._api.post("/team/delete", {"team_ids": [change.names["team_id"]]})
        else:
            self._api.post("/team/update", {**change.names, **change.lifted})

    def _team(self, change: _Change) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._api.get("/team/info", team_id=change.names["team_id"])
            return found
        except RefusedRequest as error:
            if error.status == 404:
                return None
            raise

    def _set_budget(self, change: _Change, body: Body) -> bool:
        """Make or change the budget of an agent; its name is ours, so it is taken over where it is there."""
        whole = {**_NO_BUDGET, **body}
        # The proxy answers an update of what is not there with nothing.
        if change.held is not None and self._api.post("/budget/update", whole) is not None:
            return True
        try:
            self._api.post("/budget/new", body)
        except RefusedRequest as error:
            if error.status != 400 or self._api.post("/budget/update", whole) is None:
                raise
        return True

    def _drop_budget(self, change: _Change) -> None:
        try:
            self._api.post("/budget/delete", {"id": change.names["budget_id"]})
        except RefusedRequest as error:
            if error.status != 404:
                self._api.post("/budget/update", {**_NO_BUDGET, **change.names})

    def _set_key(self, change: _Change, body: Body) -> bool:
        """Limit the key of an agent; it was never made here."""
        limits = change.limits(body)
        if limits:
            self._update_key({**limits, "key_alias": body["key_alias"]})
        return False

    def _lift_key(self, change: _Change) -> None:
        try:
            self._update_key({**change.lifted, "key_alias": change.names["key_alias"]})
        except _NoSuchKey:
            return

    def _update_key(self, body: Body) -> None:
        try:
            self._api.post("/key/update", body)
        except RefusedRequest as error:
            if error.status == 404:
                raise _NoSuchKey from None
            raise


def _wanted(applied: Applied, at: datetime) -> dict[str, Body]:
    """Every setting for the places that a policy in force is written for; teams and budgets before keys."""
    policies = PolicySet(applied.policies())
    places = {step for place in policies.places for step in place.chain}
    effective = resolve_all(sorted(places, key=str), policies, at).values()
    settings = (*litellm_budgets(effective), *litellm_settings(effective).settings)
    return {_called(setting): setting.body for setting in settings}


def _called(setting: Setting) -> str:
    return f"{setting.path.split('/')[1]} {setting.place}"


def _changes(wanted: Mapping[str, Body], held: Mapping[str, AcceptedSetting], *, everything: bool) -> Iterator[_Change]:
    for setting, body in wanted.items():
        before = held.get(setting)
        if everything or before is None or before.body != _written(body):
            yield _Change(setting, body, before)
    # Keys before the teams they are in, as their names happen to sort.
    for setting in sorted(held.keys() - wanted.keys()):
        yield _Change(setting, None, held[setting])


def _written(body: Body) -> str:
    return json.dumps(body, sort_keys=True)
