from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.alerting.matching import Labelled, all_hold, checked
from obs_pipeline.alerting.route_cases import LabelError, routes_of, run_cases, why_not
from obs_pipeline.alerting.routes import RoutesError, load_routes, parse_routes
from obs_pipeline.alerting.silences import SilenceError, hidden_by, new_silence
from obs_pipeline.alerting.spans import span
from obs_pipeline.settings import project_root
from obs_pipeline_tests.alerting.cases import HOUR, NOON, incident, routes

HEAD = "receivers:\n  - {name: d, channel: widget}\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("receivers:\n  - {name: d, channel: pager}\nroute: {}\n", 2, "'pager' is no channel; write one of widget"),
        (HEAD + "route:\n  receivers: [x]\n", 4, "there is no receiver 'x'; write one of d"),
        (HEAD + "route:\n  recievers: [d]\n", 4, "is not a field of the routes file"),
        (HEAD + "route:\n  mute_times: [nights]\n", 4, "there is no quiet time 'nights'"),
        (HEAD + "route:\n  routes:\n    - match: {severity: critical}\n", 5, "has no name"),
        (HEAD + "route:\n  routes:\n    - {name: a, match: {severty: critical}}\n", 5, "'severty' is no label"),
        (HEAD + "route:\n  routes:\n    - {name: a, match: {severity: grave}}\n", 5, "'grave' is no severity"),
        (
            HEAD + "route:\n  routes:\n    - {name: a}\n    - {name: b}\n",
            6,
            "is never reached: 'a' before it takes everything",
        ),
        (
            HEAD + "route:\n  routes:\n    - {name: a, match: {org: x}}\n    - {name: a}\n",
            5,
            "several routes are called 'a'",
        ),
        (HEAD + "route:\n  group_wait: 5 minutes\n", 4, "write it as 30m"),
        (HEAD + "route:\n  rate_limit: {per_hour: -1}\n", 4, "greater than or equal to 0"),
        (HEAD + "route:\n  create_task: {tracker: github}\n", 4, "repository and token"),
        (HEAD + "route:\n  match: {org: x}\n", 4, "the first route must mean everything"),
        (
            HEAD + "quiet_times:\n  - {name: n, zone: Mars/Base, from: '1:00', until: '02:00'}\nroute: {}\n",
            4,
            "no IANA",
        ),
        (HEAD + "route: {}\ninhibit:\n  - {name: i, source: {}, target: {}, equal: [colour]}\n", 5, "is no label"),
        (HEAD + "route:\n  escalation: {after: 1h, receivers: boss}\n", 4, "there is no receiver 'boss'"),
        (
            "receivers:\n  - {name: s, channel: slack, options: {webhook: 'https://hooks.example/x'}}\nroute: {}\n",
            2,
            "webhook must be the name of a variable",
        ),
        (HEAD + "route: {\n", 4, "is not YAML"),
        (HEAD, 1, "route: is missing"),
        ("", 1, "holds 0 documents"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_way_out(text: str, line: int, said: str):
    with pytest.raises(RoutesError) as refused:
        parse_routes(text.encode(), "routes.yaml")
    assert f"routes.yaml:{line}: " in str(refused.value)
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(RoutesError, match=r"routes\.yaml:1: cannot be read"):
        load_routes(tmp_path / "routes.yaml")


def test_a_child_states_what_differs_and_may_take_away():
    tree = parse_routes(
        (
            HEAD + "quiet_times: [{name: n, zone: UTC, from: '01:00', until: '02:00'}]\n"
            "route:\n  receivers: [d]\n  repeat_interval: 1h\n  mute_times: [n]\n  create_task: {priority: high}\n"
            "  routes:\n    - {name: a, repeat_interval: , mute_times: [], create_task: false, group_wait: 1h30m}\n"
        ).encode(),
        "routes.yaml",
    )
    [child] = tree.root.children
    assert [one.name for one in child.receivers] == ["d"]
    assert (child.repeat_interval, child.mute_times, child.create_task) == (None, (), None)
    assert child.group_wait == timedelta(minutes=90)
    assert (tree.root.mute_times, tree.root.create_task.priority) == (("n",), "high")


@pytest.mark.parametrize(
    ("matchers", "holds"),
    [
        ({}, True),
        ({"agent": "triage"}, True),
        ({"agent": "tri*"}, True),
        ({"agent": "tri?ge"}, True),
        ({"agent": "TRIAGE"}, False),
        ({"agent": "tr"}, False),
        ({"agent": "!tri*"}, False),
        ({"agent": ["!x*", "!y*"]}, True),
        ({"agent": ["x", "triage"]}, True),
        ({"agent": ["tri*", "!*age"]}, False),
        ({"team": ""}, True),
        ({"team": "!"}, False),
        ({"severity": ">=warning"}, True),
        ({"severity": ">=critical"}, False),
        ({"severity": "<critical"}, True),
        ({"agent": "tri*", "project": "x"}, False),
        ({"agent": "t.*"}, False),
    ],
)
def test_matchers_mean_what_is_written(matchers, holds: bool):
    meant = checked(matchers)
    one = incident()
    assert all_hold(meant, one.labels) is holds
    assert Labelled([one, incident("other", agent="zz")]).meant_by(meant)[0] == holds


patterns = st.lists(st.text("ab*?!", max_size=4), min_size=1, max_size=3)


@given(patterns, st.lists(st.text("ab", max_size=3), max_size=8))
def test_many_at_once_match_as_one_by_one(meant, names):
    found = [incident(f"i{n}", agent=name) for n, name in enumerate(names)]
    mask = Labelled(found).meant_by({"agent": tuple(meant)})
    assert mask.tolist() == [all_hold({"agent": tuple(meant)}, one.labels) for one in found]


def test_an_incident_goes_to_the_first_child_and_further_where_that_says_so():
    tree = routes(
        "  routes:\n"
        "    - {name: a, match: {agent: t*}, continue: true}\n"
        "    - {name: b, match: {severity: warning}, routes: [{name: b1, match: {org: other}}]}\n"
        "    - {name: c, match: {agent: triage}}\n"
    )
    assert [one.name for one in routes_of(tree, {"agent": "triage", "severity": "warning"})] == ["a", "b"]
    assert [one.name for one in routes_of(tree, {"agent": "x", "org": "other"})] == ["b1"]
    assert [one.name for one in routes_of(tree, {"agent": "x", "severity": "info"})] == ["root"]
    assert why_not(tree.root.children[0], incident(agent="x")) == "agent is x, not t*"


def test_labels_that_do_not_exist_are_refused():
    with pytest.raises(LabelError, match="'severty' is no label"):
        routes_of(routes(), {"severty": "critical"})
    with pytest.raises(LabelError, match="there is no such severity"):
        routes_of(routes(), {"severity": "grave"})


def test_the_shipped_routes_hold_their_cases():
    folder = project_root() / "policies"
    results = run_cases(load_routes(folder / "routes.yaml"), folder / "routes_tests.yaml")
    assert len(results) >= 5
    assert [result for result in results if result.differences] == []


def test_a_case_that_does_not_hold_says_what_came(tmp_path):
    path = tmp_path / "routes_tests.yaml"
    path.write_text("# first\n- {name: one, incident: {agent: x}, routes: [a], task: true}\n")
    [result] = run_cases(routes(), path)
    assert result.line == 2
    assert result.differences == ("routes: expected ['a'], came ['root']", "task: expected True, came False")
    path.write_text("- {name: one, incident: {agnt: x}}\n")
    with pytest.raises(RoutesError, match=r"routes_tests\.yaml:1: incident: 'agnt' is no label"):
        run_cases(routes(), path)


# -- quiet times, silences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "until"),
    [
        (datetime(2026, 1, 9, 18, 59), None),  # Friday, 19:59 in Zurich
        (datetime(2026, 1, 9, 19, 0), datetime(2026, 1, 10, 6)),
        (datetime(2026, 1, 10, 5, 59), datetime(2026, 1, 10, 6)),  # Saturday morning belongs to Friday's night
        (datetime(2026, 1, 10, 6, 0), None),
        (datetime(2026, 1, 10, 20, 0), None),  # no night begins on Saturday
        (datetime(2026, 3, 28, 20, 0), None),
        (datetime(2026, 10, 25, 2, 0), None),
        (datetime(2026, 7, 10, 18, 0), datetime(2026, 7, 11, 5)),  # summer time
    ],
)
def test_a_quiet_time_follows_the_clock_on_the_wall(now: datetime, until: datetime | None):
    tree = routes("quiet_times: [{name: n, zone: Europe/Zurich, days: [friday], from: '20:00', until: '07:00'}]\n")
    assert tree.quiet_times["n"].until(now) == until


def test_a_quiet_night_is_an_hour_shorter_when_clocks_go_forward():
    tree = routes("quiet_times: [{name: n, zone: Europe/Zurich, days: [saturday], from: '20:00', until: '07:00'}]\n")
    assert tree.quiet_times["n"].until(datetime(2026, 3, 28, 19)) == datetime(2026, 3, 29, 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"matchers": {}}, "hide everything"),
        ({"reason": " "}, "an author and a reason"),
        ({"author": ""}, "an author and a reason"),
        ({"ends_at": NOON}, "before it began"),
        ({"ends_at": NOON + timedelta(days=91)}, "90 days at most"),
        ({"matchers": {"agnt": "x"}}, "'agnt' is no label"),
    ],
)
def test_a_silence_needs_matchers_an_author_a_reason_and_an_end(changes, said: str):
    given_ = {"matchers": {"agent": "x"}, "author": "ada", "reason": "why", "starts_at": NOON, "ends_at": NOON + HOUR}
    with pytest.raises(SilenceError, match=said):
        new_silence(**{**given_, **changes}, now=NOON)


def test_a_silence_shows_beforehand_what_it_would_hide():
    silence = new_silence({"agent": "tri*"}, author="a", reason="r", starts_at=NOON, ends_at=NOON + HOUR, now=NOON)
    over = incident("inc-3", status="resolved")
    assert [one.id for one in hidden_by(silence, [incident(), incident("inc-2", agent="x"), over])] == ["inc-1"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("1w", 604800), ("2d", 172800)])
def test_a_length_of_time_is_read(text: str, seconds: int):
    assert span(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1h 30m", "-5m", "1.5h"])
def test_what_is_no_length_of_time_is_refused(text: str):
    with pytest.raises(ValueError, match="is no length of time"):
        span(text)
