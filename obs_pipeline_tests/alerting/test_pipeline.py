from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obs_pipeline.alerting.lanes import Past
from obs_pipeline.alerting.matching import Labelled
from obs_pipeline.alerting.models import Incident, Notification
from obs_pipeline.alerting.news import Memory, News, news_of
from obs_pipeline.alerting.pipeline import Decisions, decide
from obs_pipeline.alerting.routes import Routes, parse_routes, taken_routes
from obs_pipeline.alerting.silences import Silence
from obs_pipeline_tests.alerting.cases import HOUR, MINUTE, NOON, incident, many_incidents, many_routes, routes


class Told:
    """Passes one after the other, each knowing what the ones before decided."""

    def __init__(self, by: Routes) -> None:
        self.by = by
        self.memory: dict[tuple[str, str], Memory] = {}
        self.sent: dict[str, list[datetime]] = {}
        self.last: Decisions

    def at(self, now: datetime, incidents: Iterable[Incident], silences: Sequence[Silence] = ()) -> list[Notification]:
        self.last = decide(self.by, incidents, silences, Past(self.memory, self.sent), now)
        self.memory |= {(one.route, one.incident_id): one for one in self.last.memory}
        for route, state, _ in dict.fromkeys((m.route, m.state, m.thread) for m in self.last.notifications):
            if state != "digest":
                self.sent.setdefault(route, []).append(now)
        return list(self.last.notifications)

    def outcomes(self) -> list[str]:
        return [trace.outcome for trace in self.last.traces]


MEMORY = Memory("root", "inc-1", "firing", 1.0, 0, 0, NOON, NOON)


@pytest.mark.parametrize(
    ("one", "memory", "state", "reason"),
    [
        (incident(), Memory("root", "inc-1"), "firing", "new"),
        (incident(), MEMORY, None, "nothing new"),
        (incident(severity="critical"), MEMORY, "firing", "grew to critical"),
        (incident(severity="info"), MEMORY, None, "nothing new"),
        (incident(revision=1, correction="corrected: 3 is now 5"), MEMORY, "firing", "3 is now 5"),
        (incident(status="resolved", resolution="back"), MEMORY, "resolved", "back"),
        (incident(status="resolved"), Memory("root", "inc-1"), None, "over before anyone was told"),
        (incident(status="resolved", merged_into="inc-0"), MEMORY, None, "became part of inc-0"),
        (incident(episode=1), replace(MEMORY, state="resolved"), "firing", "came back"),
        (incident(status="resolved"), replace(MEMORY, state="resolved"), None, "its end was told"),
        (incident(status="resolved", revision=1), replace(MEMORY, state="resolved"), "resolved", "corrected"),
        (incident(), replace(MEMORY, told_at=NOON - 24 * HOUR), "firing", "still open"),
        (incident(status="acknowledged"), replace(MEMORY, told_at=NOON - 24 * HOUR), None, "nothing new"),
        (incident(), replace(MEMORY, held_since=NOON, held_by="a limit"), "firing", "held back by a limit"),
    ],
)
def test_only_what_was_not_told_is_news(one: Incident, memory: Memory, state: str | None, reason: str):
    found = news_of(one, memory, 24 * HOUR, NOON)
    assert (found.state if isinstance(found, News) else None) == state
    assert reason in (found.reason if isinstance(found, News) else found)


def test_an_incident_is_told_once_and_its_end_once():
    told = Told(routes())
    messages = [told.at(NOON + n * MINUTE, [incident()]) for n in range(360)]
    assert [len(some) for some in messages] == [1] + [0] * 359
    over = incident(status="resolved", resolution="back to the ordinary")
    ends = [told.at(NOON + (360 + n) * MINUTE, [over]) for n in range(10)]
    assert [message.state for some in ends for message in some] == ["resolved"]


def test_a_group_waits_for_its_members_and_is_told_in_one_message():
    told = Told(routes("  group_wait: 1m\n"))
    assert told.at(NOON, [incident()]) == []
    assert told.outcomes() == ["waiting"]
    assert told.last.traces[0].until == NOON + MINUTE
    assert len(told.at(NOON + MINUTE, [incident()])) == 1


def test_news_of_a_group_told_lately_wait_for_the_group_interval():
    told = Told(routes("  group_interval: 10m\n"))
    told.at(NOON, [incident("inc-1")])
    second = incident("inc-2", opened_at=NOON + MINUTE)
    assert told.at(NOON + MINUTE, [incident("inc-1"), second]) == []
    assert sorted(told.outcomes()) == ["nothing_new", "waiting"]
    [message] = told.at(NOON + 10 * MINUTE, [incident("inc-1"), second])
    assert [one.id for one in message.incidents] == ["inc-2"]


def test_a_silence_that_expires_over_an_open_incident_gives_one_message():
    told = Told(routes())
    silence = Silence("si-1", {"agent": ("tri*",)}, "ada", "deploying", NOON, NOON + HOUR)
    assert told.at(NOON, [incident()], [silence]) == []
    [trace] = told.last.traces
    assert (trace.outcome, trace.by, trace.until) == ("silenced", "si-1", NOON + HOUR)
    assert trace.reason == "ada: deploying"
    after = [told.at(NOON + HOUR + n * MINUTE, [incident()], [silence]) for n in range(60)]
    assert sum(map(len, after)) == 1


def test_a_silent_source_hides_a_drop_and_nothing_else():
    told = Told(
        parse_routes(
            b"""
receivers: [{name: dashboard, channel: widget}]
inhibit: [{name: stale, source: {kind: stale_source}, target: {direction: drop}}]
route: {receivers: [dashboard], group_wait: 0s, group_by: [incident]}
""",
            "routes.yaml",
        )
    )
    stale = incident("inc-s", kind="stale_source", agent="", source="gateway")
    drop, rise = incident("inc-d", direction="drop"), incident("inc-r", direction="rise")
    messages = told.at(NOON, [drop, rise, stale])
    assert sorted(one.incidents[0].id for one in messages) == ["inc-r", "inc-s"]
    [trace] = [one for one in told.last.traces if one.incident_id == "inc-d"]
    assert (trace.outcome, trace.by) == ("inhibited", "inc-s")
    gone = replace(stale, status="resolved", resolution="reported over")
    assert sorted(one.incidents[0].id for one in told.at(NOON + HOUR, [drop, rise, gone])) == ["inc-d", "inc-s"]


def test_inhibition_holds_only_where_the_named_labels_are_equal():
    by = parse_routes(
        b"""
receivers: [{name: dashboard, channel: widget}]
inhibit: [{name: same, source: {severity: critical}, target: {severity: warning}, equal: [org, agent]}]
route: {receivers: [dashboard], group_wait: 0s, group_by: [incident]}
""",
        "routes.yaml",
    )
    told = Told(by)
    told.at(NOON, [incident("a", "critical"), incident("b"), incident("c", agent="other"), incident("d", org="x")])
    assert {one.incident_id: one.outcome for one in told.last.traces} == {
        "a": "sent",
        "b": "inhibited",
        "c": "sent",
        "d": "sent",
    }


def test_an_incident_does_not_silence_its_like():
    by = parse_routes(
        b"""
receivers: [{name: dashboard, channel: widget}]
inhibit: [{name: wide, source: {severity: critical}, target: {}, equal: [org]}]
route: {receivers: [dashboard], group_wait: 0s, group_by: [incident]}
""",
        "routes.yaml",
    )
    told = Told(by)
    told.at(NOON, [incident("a", "critical"), incident("b", "critical"), incident("c")])
    assert told.outcomes() == ["sent", "sent", "inhibited"]


def test_five_hundred_agents_at_once_give_one_message_for_their_group():
    told = Told(routes("  repeat_interval: 1d\n"))
    fleet = [incident(f"inc-{n:03}", agent="") for n in range(500)]
    [message] = told.at(NOON, fleet)
    assert len(message.incidents) == 500
    assert told.at(NOON + MINUTE, fleet) == []


def test_what_is_over_the_limit_is_held_and_told_in_one_digest():
    told = Told(routes("  rate_limit: {per_hour: 1}\n  digest_interval: 30m\n"))
    fleet = [incident(f"inc-{n:03}", agent=f"agent-{n}") for n in range(500)]
    assert len(told.at(NOON, fleet)) == 1
    assert Counter(told.outcomes()) == {"sent": 1, "held": 499}
    assert told.at(NOON + 29 * MINUTE, fleet) == []
    [digest] = told.at(NOON + 30 * MINUTE, fleet)
    assert digest.state == "digest"
    assert len(digest.incidents) == 499
    assert told.at(NOON + 31 * MINUTE, fleet) == []
    assert Counter(told.outcomes()) == {"nothing_new": 500}


def test_what_is_held_is_told_though_it_is_over_by_then():
    told = Told(routes("  rate_limit: {per_hour: 0}\n"))
    told.at(NOON, [incident()])
    over = incident(status="resolved", resolution="back")
    assert told.at(NOON + MINUTE, [over]) == []
    [digest] = told.at(NOON + HOUR, [over])
    assert digest.incidents == (over,)
    assert told.at(NOON + 2 * HOUR, [over]) == []


def test_a_critical_incident_passes_the_limit_but_is_told_once():
    told = Told(routes("  rate_limit: {per_hour: 0, per_day: 0}\n"))
    assert len(told.at(NOON, [incident(severity="critical")])) == 1
    assert told.at(NOON, [incident(severity="critical")]) == []
    assert told.outcomes() == ["nothing_new"]


def test_what_grows_critical_while_held_is_told_at_once_and_not_again_in_the_digest():
    told = Told(routes("  rate_limit: {per_hour: 0}\n"))
    assert told.at(NOON, [incident()]) == []
    [message] = told.at(NOON + MINUTE, [incident(severity="critical")])
    assert message.state == "firing"
    assert told.at(NOON + 2 * HOUR, [incident(severity="critical")]) == []


@pytest.mark.parametrize(("limit", "sent"), [("per_hour: 3", 3), ("per_day: 2", 2), ("per_hour: 5, per_day: 4", 4)])
def test_a_limit_counts_messages(limit: str, sent: int):
    told = Told(routes(f"  rate_limit: {{{limit}}}\n"))
    assert len(told.at(NOON, [incident(f"inc-{n}", agent=f"a{n}") for n in range(9)])) == sent


def test_a_limit_of_an_hour_is_free_again_after_an_hour():
    told = Told(routes("  rate_limit: {per_hour: 1}\n"))
    told.at(NOON, [incident()])
    other = incident("inc-2", agent="other", opened_at=NOON + 60 * MINUTE)
    assert [m.state for m in told.at(NOON + 60 * MINUTE, [incident(), other])] == ["firing"]


QUIET = """  mute_times: [nights]
quiet_times: [{name: nights, zone: Europe/Zurich, from: "20:00", until: "07:00"}]
"""


def test_what_happens_in_a_quiet_time_is_told_when_it_ends():
    told = Told(routes(QUIET))
    night = datetime(2026, 3, 2, 19, 30)  # 20:30 in Zurich
    assert told.at(night, [incident(opened_at=night)]) == []
    [trace] = told.last.traces
    assert (trace.outcome, trace.by, trace.until) == ("muted", "nights", datetime(2026, 3, 3, 6))
    assert told.at(datetime(2026, 3, 3, 5, 59), [incident(opened_at=night)]) == []
    [message] = told.at(datetime(2026, 3, 3, 6), [incident(opened_at=night)])
    assert message.state == "digest"


def test_nobody_acknowledging_tells_somebody_else_once():
    two = "[{name: dashboard, channel: widget}, {name: boss, channel: widget}]"
    text = "  escalation: {after: 30m, receivers: [boss]}\n"
    told = Told(routes(text, two))
    told.at(NOON, [incident()])
    assert told.at(NOON + 29 * MINUTE, [incident()]) == []
    [message] = told.at(NOON + 30 * MINUTE, [incident()])
    assert message.receiver.name == "boss"
    assert told.at(NOON + 40 * MINUTE, [incident()]) == []
    calm = Told(routes(text, two))
    calm.at(NOON, [incident()])
    assert calm.at(NOON + HOUR, [incident(status="acknowledged")]) == []


def test_an_incident_has_one_task_whatever_routes_want_it():
    by = parse_routes(
        b"""
receivers: [{name: dashboard, channel: widget}]
route:
  receivers: [dashboard]
  group_wait: 0s
  group_by: []
  rate_limit: {per_hour: 0}
  routes:
    - {name: first, continue: true, create_task: {priority: high}}
    - {name: second, create_task: true}
""",
        "routes.yaml",
    )
    told = Told(by)
    [task] = told.at(NOON, [incident()])
    assert (task.route, task.receiver.channel, task.receiver.options["priority"]) == ("task:ledger", "task", "high")
    assert told.at(NOON + MINUTE, [incident()]) == []
    merged = incident(status="resolved", resolution="became part of inc-0", merged_into="inc-0")
    assert [one.state for one in told.at(NOON + 2 * MINUTE, [merged])] == ["resolved"]


TWICE = """
  group_wait: 0s
  repeat_interval: 24h
  routes:
    - {name: money, match: {metric: cost}, receivers: [dashboard], continue: true}
    - {name: agents, match: {agent: t*}, receivers: [dashboard, oncall], group_wait: 1m}
"""
BOTH = "[{name: dashboard, channel: widget}, {name: oncall, channel: widget}]"


def told_to(messages: Sequence[Notification]) -> list[tuple[str, str, str]]:
    return [(message.route, message.receiver.name, message.state) for message in messages]


def test_a_receiver_of_two_routes_hears_of_an_incident_once_and_of_its_end_once():
    told = Told(routes(TWICE, BOTH))
    assert told_to(told.at(NOON, [incident()])) == [("money", "dashboard", "firing")]
    assert told_to(told.at(NOON + MINUTE, [incident()])) == [("agents", "oncall", "firing")]
    day = [one for n in range(3) for one in told.at(NOON + 24 * HOUR + n * MINUTE, [incident()])]
    assert sorted(told_to(day)) == [("agents", "oncall", "firing"), ("money", "dashboard", "firing")]
    over = incident(status="resolved", resolution="back")
    end = told_to(told.at(NOON + 30 * HOUR, [over]))
    assert end == [("money", "dashboard", "resolved"), ("agents", "oncall", "resolved")]


def test_a_route_whose_receivers_all_know_says_who_told_them():
    told = Told(routes(TWICE.replace("[dashboard, oncall]", "[dashboard]"), BOTH))
    told.at(NOON, [incident()])
    trace = next(trace for trace in told.last.traces if trace.route == "agents")
    assert (trace.outcome, trace.reason, trace.by) == ("nothing_new", "already sent by route money", "money")
    reminders = [one for hour in range(1, 72) for one in told.at(NOON + hour * HOUR, [incident()])]
    assert told_to(reminders) == [("money", "dashboard", "firing")] * 2


def test_what_the_first_route_holds_back_the_second_tells():
    limited = TWICE.replace("{name: money,", "{name: money, rate_limit: {per_hour: 0},")
    told = Told(routes(limited, BOTH))
    told.at(NOON, [incident()])
    assert told_to(told.at(NOON + MINUTE, [incident()])) == [
        ("agents", "dashboard", "firing"),
        ("agents", "oncall", "firing"),
    ]
    assert told.at(NOON + 2 * HOUR, [incident()]) == []


def test_two_routes_escalate_to_one_receiver_once():
    text = TWICE.replace("continue: true", "continue: true, escalation: &up {after: 1h, receivers: oncall}")
    told = Told(routes(text.replace("group_wait: 1m}", "escalation: *up}"), BOTH))
    told.at(NOON, [incident()])
    messages = [one for n in range(1, 8) for one in told.at(NOON + n * 30 * MINUTE, [incident()])]
    assert told_to(messages) == [("money", "oncall", "firing")]


def test_an_incident_without_receivers_says_so():
    told = Told(parse_routes(b"{receivers: [], route: {}}", "routes.yaml"))
    assert told.at(NOON, [incident()]) == []
    assert told.outcomes() == ["no_receiver"]


# -- rules ------------------------------------------------------------------------------------------------------------

TREE = parse_routes(
    b"""
receivers: [{name: dashboard, channel: widget}, {name: oncall, channel: widget}]
quiet_times: [{name: noon, zone: UTC, from: "12:00", until: "12:30"}]
inhibit: [{name: stale, source: {kind: stale_source}, target: {direction: drop}, equal: [org]}]
route:
  receivers: [dashboard]
  group_by: [project]
  group_wait: 5m
  rate_limit: {per_hour: 1}
  digest_interval: 20m
  repeat_interval: 2h
  routes:
    - name: grave
      match: {severity: critical}
      receivers: [dashboard, oncall]
      continue: true
      create_task: true
      group_wait: 0s
    - name: a
      match: {project: a*}
      mute_times: [noon]
      routes: [{name: a-agents, match: {agent: "!a1"}, group_by: [agent], group_wait: 0s}]
    - {name: nobody, match: {project: b}, receivers: []}
""",
    "routes.yaml",
)
incidents_of_any_kind = st.lists(
    st.builds(
        incident,
        name=st.integers(0, 40).map("inc-{:02}".format),
        severity=st.sampled_from(["info", "warning", "critical"]),
        status=st.sampled_from(["open", "acknowledged", "resolved"]),
        kind=st.sampled_from(["anomaly", "stale_source"]),
        direction=st.sampled_from(["", "rise", "drop"]),
        org=st.sampled_from(["acme", "other"]),
        project=st.sampled_from(["a", "aa", "b", "c"]),
        agent=st.sampled_from(["a1", "a2", ""]),
        opened_at=st.integers(-60, 0).map(lambda n: NOON + n * MINUTE),
    ),
    unique_by=lambda one: one.id,
    max_size=25,
)
silences_of_any_kind = st.lists(
    st.builds(
        Silence,
        id=st.integers(0, 9).map("si-{}".format),
        matchers=st.sampled_from([{"agent": ("a1",)}, {"project": ("a*",)}, {"severity": ("<critical",)}]),
        author=st.just("ada"),
        reason=st.just("because"),
        starts_at=st.just(NOON - HOUR),
        ends_at=st.integers(-1, 3).map(lambda n: NOON + n * 10 * MINUTE),
    ),
    unique_by=lambda one: one.id,
    max_size=2,
)
steps = st.lists(st.tuples(st.integers(0, 90), incidents_of_any_kind), min_size=1, max_size=4)


@settings(max_examples=60)
@given(steps, silences_of_any_kind, st.randoms(use_true_random=False))
def test_the_order_of_incidents_changes_nothing(moments, silences, chance: random.Random):
    one, other = Told(TREE), Told(TREE)
    now = NOON
    for minutes, found in moments:
        now += minutes * MINUTE
        shuffled, turned = list(found), list(silences)
        chance.shuffle(shuffled)
        chance.shuffle(turned)
        assert one.at(now, found, silences) == other.at(now, shuffled, turned)
        assert one.last == other.last


@settings(max_examples=60)
@given(steps, silences_of_any_kind)
def test_a_second_pass_at_the_same_time_sends_nothing(moments, silences):
    told, now, keys = Told(TREE), NOON, Counter()
    for minutes, found in moments:
        now += minutes * MINUTE
        keys.update(message.key for message in told.at(now, found, silences))
        assert told.at(now, found, silences) == []
    assert set(keys.values()) <= {1}


@settings(max_examples=60)
@given(steps, silences_of_any_kind)
def test_every_incident_and_route_ends_in_exactly_one_outcome(moments, silences):
    told, now = Told(TREE), NOON
    for minutes, found in moments:
        now += minutes * MINUTE
        messages = told.at(now, found, silences)
        labelled = Labelled(found)
        taken = {(found[i].id, route.name) for route, mask in taken_routes(TREE, labelled) for i in mask.nonzero()[0]}
        tasks = {(one.id, "task:ledger") for one in found if one.severity == "critical"}
        pairs = [(trace.incident_id, trace.route) for trace in told.last.traces]
        assert Counter(pairs) == dict.fromkeys(taken | tasks, 1)
        assert {one.id for one in found} == {name for name, _ in taken}
        said = {(one.id, message.route) for message in messages for one in message.incidents}
        assert said == {(trace.incident_id, trace.route) for trace in told.last.traces if trace.outcome == "sent"}
        kept = {(one.incident_id, one.route) for one in told.memory.values() if one.held_since is not None}
        assert not said & kept
        held = {pair for pair, trace in zip(pairs, told.last.traces, strict=True) if trace.outcome in ("held", "muted")}
        assert held <= kept


@settings(max_examples=40)
@given(incidents_of_any_kind)
def test_nothing_that_was_open_long_enough_is_lost(found):
    told = Told(TREE)
    told.at(NOON, found)
    for n in range(1, 30):
        told.at(NOON + n * 10 * MINUTE, found)
    for trace in told.last.traces:
        one = next(one for one in found if one.id == trace.incident_id)
        if one.active and trace.outcome not in ("inhibited", "no_receiver"):
            assert told.memory[trace.route, trace.incident_id].state == "firing", trace


def test_ten_thousand_incidents_over_two_hundred_routes_all_end_in_an_outcome():
    decided = decide(many_routes(), many_incidents(10_000), [], Past(), NOON + HOUR)
    assert len({trace.incident_id for trace in decided.traces}) == 10_000
