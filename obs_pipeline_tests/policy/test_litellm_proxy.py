"""A proxy is brought to what is in force, whatever dies on the way, and no secret is ever told."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from obs_pipeline.policy.applied import applied_now
from obs_pipeline.policy.ledger_target import LedgerTarget, apply_plan
from obs_pipeline.policy.litellm_api import ATTEMPTS, ManagementApi, RefusedRequest, Unreachable
from obs_pipeline.policy.litellm_proxy import LITELLM, LiteLLMTarget
from obs_pipeline.policy.planning import Order, plan_sync
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.rollback import roll_back
from obs_pipeline.policy.sync import sync_folder
from obs_pipeline.policy.targets import Target, TargetOutcome, behind
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline.storage.locks import exclusive
from obs_pipeline.storage.policy_store import PolicyStore
from obs_pipeline.storage.target_store import TargetStore
from obs_pipeline_tests.alerting.loopback import Answer, Request
from obs_pipeline_tests.policy.litellm_server import MASTER_KEY, Proxy, litellm_proxy
from obs_pipeline_tests.policy.trees import AGENT, AT, ORG, PROJECT, cost, policy, trees
from obs_pipeline_tests.postgres import ledger_url, postgres_server  # noqa: F401

ANN = Order("ann", "launch")
TEAM, KEY = "acme/web", "acme/web/bot"
DAILY = [{"budget_duration": "1d", "max_budget": 5.0}]


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with litellm_proxy() as running:
        yield running


class Here:
    """A ledger, and a target that follows it."""

    def __init__(self, ledger: Ledger, url: str, key: str = MASTER_KEY) -> None:
        self.store, self.targets, self.waits = PolicyStore(ledger), TargetStore(ledger), list[float]()
        self.now = AT
        api = ManagementApi(url, SecretStr(key), timeout=0.3, wait=self.waits.append)
        self.target = LiteLLMTarget(api, self.store, self.targets, lambda: self.now)

    def put(self, *wanted: SourcedPolicy) -> TargetOutcome:
        """Bring these policies into force, in the ledger and then in the proxy."""
        plan = plan_sync(wanted, applied_now(self.store), AT, force=True)
        if plan.changes:
            apply_plan(self.store, plan, ANN, AT)
        return self.target.apply(plan)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture
def here(ledger: Ledger, proxy: Proxy) -> Here:
    return Here(ledger, proxy.server.url)


def project(limit=5, **more) -> SourcedPolicy:
    return policy(PROJECT, budgets={"cost": cost(limit)}, **more)


def agent(limit=2, **more) -> SourcedPolicy:
    return policy(AGENT, budgets={"cost": cost(limit)}, **more)


# -- what is sent --------------------------------------------------------------------------------------------------


def test_both_targets_are_the_same_to_a_sync(here: Here):
    both: list[Target] = [LedgerTarget(here.store, ANN, lambda: AT), here.target]
    plan = plan_sync([project()], applied_now(here.store), AT)
    assert [(done.target, done.revision, done.changed) for done in (each.apply(plan) for each in both)] == [
        ("ledger", 1, 1),
        ("litellm", 1, 1),
    ]


def test_a_project_becomes_a_team_and_an_agents_key_gets_its_limits(here: Here, proxy: Proxy):
    proxy.keys[KEY] = {"team_id": TEAM, "models": ["gpt"]}
    done = here.put(project(), agent(rate_limits={"calls_per_minute": 20}))
    assert (done.revision, done.changed, done.pending, done.waiting) == (1, 3, 0, ())
    assert proxy.teams[TEAM]["budget_limits"] == DAILY
    assert proxy.keys[KEY] == {
        "team_id": TEAM,
        "models": ["gpt"],
        "key_alias": KEY,
        "budget_limits": [{"budget_duration": "1d", "max_budget": 2.0}],
        "rpm_limit": 20,
    }


def test_what_was_sent_is_not_sent_again(here: Here, proxy: Proxy):
    proxy.keys[KEY] = {}
    here.put(project(), agent())
    assert sorted(proxy.asked) == ["/budget/new", "/key/update", "/team/new"]
    count = len(proxy.asked)
    assert here.put(project(), agent()).changed == 0
    assert len(proxy.asked) == count
    assert here.put(project(6), agent()).changed == 1
    assert proxy.asked[count:] == ["/team/update"]
    assert proxy.teams[TEAM]["budget_limits"][0]["max_budget"] == 6.0


def test_an_agent_without_a_key_waits_until_it_has_one(here: Here, proxy: Proxy):
    done = here.put(agent())
    assert (done.waiting, done.pending, done.failure) == (("key acme/web/bot",), 0, "")
    proxy.keys[KEY] = {}
    assert here.put(agent()).waiting == ()
    assert proxy.keys[KEY]["budget_limits"][0]["max_budget"] == 2.0


def test_an_agent_has_a_budget_of_its_name_before_it_has_a_key(here: Here, proxy: Proxy):
    several = {"cost": [cost(30, "monthly"), cost(2)]}
    here.put(policy(AGENT, budgets=several, rate_limits={"calls_per_minute": 20}))
    assert proxy.budgets == {KEY: {"budget_id": KEY, "max_budget": 2.0, "budget_duration": "1d", "rpm_limit": 20}}
    here.put(agent(3))
    assert proxy.budgets == {KEY: {"budget_id": KEY, "max_budget": 3.0, "budget_duration": "1d", "rpm_limit": None}}
    proxy.budgets.clear()
    here.put(agent(4))
    assert proxy.budgets[KEY]["max_budget"] == 4.0
    here.put(project())
    assert proxy.budgets == {}


def test_a_budget_that_was_there_is_taken_over_and_one_that_cannot_go_is_lifted(here: Here, proxy: Proxy):
    proxy.budgets[KEY] = {"budget_id": KEY, "max_budget": 99.0, "rpm_limit": 7}
    here.put(agent())
    assert proxy.budgets[KEY] == {"budget_id": KEY, "max_budget": 2.0, "budget_duration": "1d", "rpm_limit": None}
    proxy.before = lambda request: Answer(400, "in use") if request.path == "/budget/delete" else None
    assert here.put(project()).pending == 0
    assert proxy.budgets[KEY]["max_budget"] is None


def test_a_setting_that_the_proxy_fails_at_does_not_hold_up_the_others(here: Here, proxy: Proxy):
    proxy.before = lambda request: Answer(500, "bug") if request.path == "/budget/new" else None
    done = here.put(project(), agent())
    assert (done.changed, done.pending, list(proxy.teams)) == (1, 1, [TEAM])
    assert done.failure.startswith("budget acme/web/bot: the proxy at")


def test_limits_that_are_no_longer_stated_are_lifted_and_others_left_alone(here: Here, proxy: Proxy):
    proxy.keys[KEY] = {"tpm_limit": 7}
    here.put(agent(rate_limits={"calls_per_minute": 20}))
    here.put(policy(AGENT, budgets={"tokens": {"limit": 9, "period": "daily"}}))
    assert (proxy.keys[KEY]["budget_limits"], proxy.keys[KEY]["rpm_limit"], proxy.keys[KEY]["tpm_limit"]) == (
        [],
        None,
        7,
    )
    proxy.keys[KEY]["rpm_limit"] = 99
    here.put(policy(AGENT, budgets={"tokens": {"limit": 8, "period": "daily"}}))
    assert proxy.keys[KEY]["rpm_limit"] == 99


def test_a_key_whose_policy_is_gone_is_free_and_still_there(here: Here, proxy: Proxy):
    proxy.keys[KEY] = {"team_id": TEAM}
    here.put(project(), agent())
    here.put(project())
    assert proxy.keys[KEY]["budget_limits"] == []
    here.put()
    assert proxy.teams[TEAM]["budget_limits"] == []
    assert KEY in proxy.keys


def test_a_team_made_here_goes_with_its_policy_if_it_has_no_keys(here: Here, proxy: Proxy):
    here.put(project())
    assert here.put().pending == 0
    assert proxy.teams == {}
    assert proxy.asked[-1] == "/team/delete"


def test_a_team_that_was_there_is_taken_over_and_never_deleted_or_renamed(here: Here, proxy: Proxy):
    proxy.teams[TEAM] = {"team_id": TEAM, "team_alias": "The web", "metadata": {"cost_center": 7}}
    here.put(project())
    assert proxy.teams[TEAM]["budget_limits"] == DAILY
    here.put(project(6))
    here.put()
    assert proxy.teams[TEAM] == {
        "team_id": TEAM,
        "team_alias": "The web",
        "metadata": {"cost_center": 7},
        "budget_limits": [],
    }


def test_a_team_that_somebody_deleted_over_there_is_made_again(here: Here, proxy: Proxy):
    here.put(project())
    proxy.teams.clear()
    here.put(project(6))
    assert proxy.teams[TEAM]["budget_limits"][0]["max_budget"] == 6.0


def test_what_was_changed_over_there_is_set_right_by_sending_everything_again(here: Here, proxy: Proxy):
    proxy.keys[KEY] = {}
    here.put(project(), agent())
    there = (dict(proxy.teams[TEAM]), dict(proxy.keys[KEY]), dict(proxy.budgets[KEY]))
    proxy.teams[TEAM]["budget_limits"], proxy.keys[KEY] = [], {}
    proxy.budgets.clear()
    assert here.put(project(), agent()).changed == 0
    here.target._resend = True
    assert here.put(project(), agent()).changed == 3
    assert (proxy.teams[TEAM], proxy.keys[KEY], proxy.budgets[KEY]) == there


def test_a_dated_raise_is_sent_by_the_first_sync_within_its_time(here: Here, proxy: Proxy):
    day = AT + timedelta(days=1)
    raised = {"from": f"{day:%Y-%m-%d}", "until": f"{day + timedelta(days=1):%Y-%m-%d}", "limit": 9, "reason": "launch"}
    wanted = policy(PROJECT, budgets={"cost": cost(5, increases=[raised])})
    found = []
    for here.now in (AT, day, day + timedelta(days=2)):
        here.put(wanted)
        found.append(proxy.teams[TEAM]["budget_limits"][0]["max_budget"])
    assert found == [5.0, 9.0, 5.0]


def test_what_a_proxy_cannot_hold_to_is_not_sent(here: Here, proxy: Proxy):
    here.put(policy(ORG, budgets={"cost": cost(5)}), policy(PROJECT, budgets={"tokens": cost(9)}))
    assert list(proxy.teams) == [TEAM]
    assert proxy.teams[TEAM]["budget_limits"] == DAILY


@pytest.fixture(scope="module")
def empty_ledger(tmp_path_factory) -> Path:
    """A ledger with tables and nothing in them, to be copied: making one takes longer than an example."""
    path: Path = tmp_path_factory.mktemp("empty") / "ledger.db"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.migrate()
    ledger.close()
    return path


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.lists(trees, min_size=1, max_size=3), st.booleans())
def test_whatever_was_in_force_before_the_proxy_holds_what_is_now(tmp_path, empty_ledger, several, has_keys):
    def brought(*sets: list[SourcedPolicy]) -> tuple[object, ...]:
        for old in tmp_path.glob("ledger.db*"):
            old.unlink()
        ledger = Ledger(f"sqlite:///{shutil.copy(empty_ledger, tmp_path / 'ledger.db')}")
        with litellm_proxy() as proxy:
            proxy.keys = {name: {} for name in (KEY, "acme/-/bot")} if has_keys else {}
            there = Here(ledger, proxy.server.url)
            done = [there.put(*each) for each in sets]
            assert all(each.pending == 0 for each in done)
            ledger.close()
            return _limits(proxy.teams), _limits(proxy.keys), _limits(proxy.budgets)

    assert brought(*several) == brought(several[-1])


def _limits(things: dict) -> dict:
    """Limits alone; none and an empty list of them are the same."""
    fields = ("budget_limits", "rpm_limit", "max_budget", "budget_duration")
    told = {
        name: {field: each[field] for field in fields if each.get(field) not in (None, [])}
        for name, each in things.items()
    }
    return {name: limits for name, limits in told.items() if limits}


# -- what goes wrong -----------------------------------------------------------------------------------------------


def once(*answers: Answer) -> Callable[[Request], Answer | None]:
    left = list(answers)
    return lambda _: left.pop(0) if left else None


@pytest.mark.parametrize(
    "answer",
    [Answer(500, "boom"), Answer(503, ""), Answer(429, "", {"Retry-After": "7"}), Answer(drop=True), Answer(body="no")],
    ids=["500", "503", "429", "dropped", "no JSON"],
)
def test_a_fault_that_passes_is_waited_out(here: Here, proxy: Proxy, answer: Answer):
    proxy.before = once(answer, answer)
    done = here.put(project())
    assert (done.pending, done.failure) == (0, "")
    assert proxy.teams[TEAM]["budget_limits"] == DAILY
    assert here.waits == ([7.0, 7.0] if answer.status == 429 else [1.0, 2.0])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(500, "boom"), "it answered 500: boom"),
        (Answer(429, "slow down", {"Retry-After": "3600"}), "it answered 429: slow down"),
        (Answer(delay=1.0), "no answer (ReadTimeout)"),
        (Answer(drop=True), "no answer (RemoteProtocolError)"),
        (Answer(307, "", {"Location": "http://127.0.0.1:9/"}), "it answered 307"),
    ],
    ids=["500", "429", "hangs", "dropped", "redirect"],
)
def test_a_fault_that_stays_leaves_the_ledger_in_force_and_the_rest_pending(here: Here, proxy: Proxy, answer, said):
    proxy.before = lambda _: answer
    done = here.put(project(), agent())
    assert (done.revision, done.changed, done.pending) == (0, 0, 3)
    assert said in done.failure
    assert max(here.waits, default=0) <= 30
    assert len(proxy.asked) <= 2 * (ATTEMPTS + 1)
    assert [each.policy.id for each in applied_now(here.store).policies()] == ["agent", "project"]
    [late] = behind([LITELLM], here.targets.states(), 1)
    assert str(late).startswith("litellm holds revision 0 of 1: 3 settings wait because ")
    proxy.before = lambda _: None
    assert here.put(project(), agent()).pending == 0
    assert proxy.teams[TEAM]["budget_limits"] == DAILY
    assert list(behind([LITELLM], here.targets.states(), 1)) == []


def test_a_proxy_that_is_not_there_is_an_answer(ledger: Ledger):
    done = Here(ledger, "http://127.0.0.1:9").put(project())
    assert (done.pending, "http://127.0.0.1:9 cannot be used: no answer (ConnectError)" in done.failure) == (1, True)


def test_a_proxy_that_dies_in_the_middle_gets_the_rest_later(here: Here, proxy: Proxy):
    wanted = [policy(PROJECT._replace(project=f"p{n}"), id=f"p{n}", budgets={"cost": cost(n)}) for n in range(6)]
    proxy.before = lambda _: Answer(drop=True) if len(proxy.teams) == 3 else None
    done = here.put(*wanted)
    assert (done.changed, done.pending, len(proxy.teams)) == (3, 3, 3)
    count = len(proxy.asked)
    proxy.before = lambda _: None
    assert here.put(*wanted).pending == 0
    assert proxy.asked[count:] == ["/team/new"] * 3
    assert len(proxy.teams) == 6


def test_an_answer_that_is_lost_after_the_team_was_made_changes_nothing(here: Here, proxy: Proxy):
    def lost(request: Request) -> Answer | None:
        if request.path == "/team/new" and TEAM not in proxy.teams:
            proxy.team_new(request.json)
            return Answer(drop=True)
        return None

    proxy.before = lost
    assert here.put(project()).pending == 0
    assert here.put().pending == 0
    assert proxy.teams == {}, "it is known to have been made here"


def test_one_setting_that_is_refused_does_not_hold_up_the_others(here: Here, proxy: Proxy):
    def no_web(request: Request) -> Answer | None:
        web = request.method == "POST" and request.json.get("team_id") == TEAM
        return Answer(400, {"error": {"message": "the name is taken"}}) if web else None

    proxy.before = no_web
    other = policy(PROJECT._replace(project="app"), id="app", budgets={"cost": cost(1)})
    done = here.put(project(), other)
    assert (done.changed, done.pending, list(proxy.teams)) == (1, 1, ["acme/app"])
    assert done.failure.startswith("team acme/web: it answered 400")
    assert "the name is taken" in done.failure


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_said_plainly_asked_once_and_never_told(ledger: Ledger, proxy: Proxy, status: int):
    wrong = "sk-wrong-fedcba9876543210"
    proxy.before = lambda request: Answer(status, f"no: {request.headers['Authorization']}")
    there = Here(ledger, proxy.server.url, wrong)
    done = there.put(project())
    assert f"does not accept the master key ({status}); set OBS_LITELLM_MASTER_KEY" in done.failure
    assert len(proxy.asked) == 1
    assert wrong not in done.failure + repr(vars(there.target)) + str(there.targets.states())


def test_a_key_that_the_proxy_repeats_is_starred_out(proxy: Proxy):
    proxy.before = lambda request: Answer(400, {"error": f"bad {request.headers['Authorization']}"})
    api = ManagementApi(proxy.server.url, SecretStr(MASTER_KEY))
    with pytest.raises(RefusedRequest) as refused:
        api.post("/team/new", {})
    api.close()
    assert MASTER_KEY not in str(refused.value)
    assert "bad Bearer ***" in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "{} is taken", "type": "bad_request"}},
        {"error": {"message": {"error": "{} is taken"}}},
        {"detail": {"error": "{} is taken"}},
        {"detail": "{} is taken"},
        "{} is taken",
    ],
)
def test_a_reason_is_taken_out_of_what_is_wrapped_around_it(proxy: Proxy, body: object):
    proxy.before = lambda _: Answer(400, body)
    api = ManagementApi(proxy.server.url, SecretStr(MASTER_KEY))
    with pytest.raises(RefusedRequest, match=r"^it answered 400: \{\} is taken$"):
        api.post("/team/new", {})
    api.close()


@pytest.mark.parametrize("url", ["proxy:4000", "ftp://proxy", "http://", "https://admin:secret-word@proxy:4000"])
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str):
    with pytest.raises(Unreachable, match="OBS_LITELLM_URL") as refused:
        ManagementApi(url, SecretStr(MASTER_KEY))
    assert "secret-word" not in str(refused.value)


def test_two_syncs_do_not_send_at_the_same_time(here: Here, proxy: Proxy, tmp_path: Path):
    here.put(project())
    here.target._alone = lambda: exclusive(tmp_path, "litellm", wait_seconds=0.05)
    with exclusive(tmp_path, "litellm"):
        done = here.put(project(6))
    assert (done.revision, done.pending, "Another process" in done.failure) == (1, 1, True)
    assert here.put(project(6)).pending == 0


# -- a whole sync --------------------------------------------------------------------------------------------------


def write(folder: Path, limit: int, projects: int = 5) -> Path:
    (folder / "projects").mkdir(parents=True, exist_ok=True)
    for number in range(projects):
        (folder / "projects" / f"p{number}.yaml").write_text(
            f"id: p{number}\nname: P\nscope: project\nscope_id: p{number}\norg: acme\n"
            f"budgets:\n  cost: {{limit: {limit}, period: daily}}\n"
        )
    return folder


def test_a_sync_tells_of_every_target_and_the_next_one_resumes(here: Here, proxy: Proxy, tmp_path: Path):
    folder, clock = write(tmp_path / "policies", 5), lambda: AT
    proxy.before = lambda _: Answer(500) if len(proxy.teams) == 2 else None
    report = sync_folder(folder, here.store, ANN, clock, [here.target])
    assert (report.outcome, report.revision, report.pending) == ("applied", 1, 3)
    assert [(each.target, each.revision, each.changed) for each in report.targets] == [
        ("ledger", 1, 5),
        ("litellm", 0, 2),
    ]
    proxy.before = lambda _: None
    again = sync_folder(folder, here.store, ANN, clock, [here.target])
    assert (again.outcome, again.pending) == ("unchanged", 0)
    assert [(each.target, each.revision, each.changed) for each in again.targets] == [("litellm", 1, 3)]


def test_a_dry_run_and_a_refused_sync_send_nothing(here: Here, proxy: Proxy, tmp_path: Path):
    folder, clock = write(tmp_path / "policies", 5), lambda: AT
    sync_folder(folder, here.store, Order("ann", dry_run=True), clock, [here.target])
    (folder / "projects" / "bad.yaml").write_text("id: [")
    assert sync_folder(folder, here.store, ANN, clock, [here.target]).outcome == "refused"
    assert proxy.asked == []


def test_a_rollback_reaches_the_proxy_too(here: Here, proxy: Proxy):
    here.put(project(5))
    here.put(project(6))
    roll_back(here.store, 1, ANN, lambda: AT, [here.target])
    assert proxy.teams[TEAM]["budget_limits"] == DAILY


@pytest.mark.parametrize("point", [0, 1, 4, 5, 9])
def test_a_sync_killed_while_it_sends_is_seen_to_be_behind_and_finished_by_the_next(
    ledger_url: str,  # noqa: F811
    proxy: Proxy,
    tmp_path: Path,
    point: int,
):
    folder = write(tmp_path / "policies", 5)
    child = os.fork()
    if child == 0:
        try:
            ledger = Ledger(ledger_url)
            there = Here(ledger, proxy.server.url)
            send, steps = there.target._api.post, count()

            def dying(path: str, body):
                if next(steps) == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                answer = send(path, body)
                if next(steps) == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

            there.target._api.post = dying
            sync_folder(folder, there.store, ANN, lambda: AT, [there.target])
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    ledger = Ledger(ledger_url)
    there = Here(ledger, proxy.server.url)
    [late] = behind([LITELLM], there.targets.states(), 1)
    assert str(late) == "litellm holds revision 0 of 1: its settings wait"
    assert sync_folder(folder, there.store, ANN, lambda: AT, [there.target]).pending == 0
    assert len(proxy.teams) == 5
    assert list(behind([LITELLM], there.targets.states(), 1)) == []
    ledger.close()


def test_a_target_that_was_never_tried_is_behind_once_something_is_in_force():
    assert [each.holds for each in behind([LITELLM], [], 1)] == [0]
    assert list(behind([LITELLM], [], 0)) == []
