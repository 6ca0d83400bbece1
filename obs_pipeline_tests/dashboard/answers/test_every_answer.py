"""What holds of every answer: it says what it is about, comes to the whole over its pages, and shows a caller's own rows only."""

from __future__ import annotations

import pytest

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import LOCAL, Principal
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline_tests.dashboard.served import ACME, FOUND, INPUTS, Served, ask


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_is_answered_and_says_what_it_is_about(served: Served, name: str):
    answer = ask(served, name, **INPUTS[name])
    assert answer.time_zone == "UTC"
    assert answer.as_of is not None
    assert answer.versions["mart_spend"] >= 0
    assert QUESTIONS[name].told(answer)


def test_pages_come_to_the_whole_once_each(served: Served):
    seen, cursor = [], None
    while True:
        page = ask(served, "dashboard_get_anomalies", limit=2, cursor=cursor)
        seen += [one.id for one in page.anomalies]
        assert page.has_more == (page.next_cursor is not None)
        if not page.has_more:
            break
        cursor = page.next_cursor
    assert seen == [one.id for one in sorted(FOUND, key=lambda one: -one.score) if one.org == "acme"]
    with pytest.raises(q.BadQuestion, match="cursor"):
        ask(served, "dashboard_get_anomalies", limit=2, cursor=q.write_cursor(2, "other"))
    with pytest.raises(q.BadQuestion, match="cursor"):
        ask(served, "dashboard_get_anomalies", cursor="junk")


@pytest.mark.parametrize("name", QUESTIONS)
def test_nothing_of_another_organisation_is_in_any_answer(served: Served, name: str):
    asked = {**INPUTS[name], "limit": 100} if "limit" in QUESTIONS[name].asked.model_fields else INPUTS[name]
    text = ask(served, name, **asked).model_dump_json()
    assert "globex" not in text
    assert "secret-agent" not in text
    assert "manhattan" not in text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("explain_anomaly", {"anomalyId": FOUND[-1].id}),
        ("why_notified", {"incidentId": "inc-globex"}),
    ],
)
def test_what_is_anothers_is_answered_like_what_is_not_there(served: Served, name: str, values: dict[str, str]):
    missing = dict.fromkeys(values, "an-none")
    with pytest.raises(q.BadQuestion) as not_mine:
        ask(served, name, **values)
    with pytest.raises(q.BadQuestion) as not_there:
        ask(served, name, **missing)
    assert str(not_mine.value).replace(*values.values(), "X") == str(not_there.value).replace("an-none", "X")


def test_a_caller_bound_to_a_project_sees_that_project_alone(served: Served):
    bound = Principal("bob", "analyst", "acme", ("atlas",))
    slices = ask(served, "dashboard_get_metrics", bound, timeframe="week", by="project").slices
    assert [one.name for one in slices] == ["atlas"]
    assert ask(served, "dashboard_get_metrics", Principal("x", "viewer", "o'; --"), timeframe="week").calls == 0


@pytest.mark.parametrize("name", [name for name in QUESTIONS if "org" in QUESTIONS[name].asked.model_fields])
def test_who_sees_every_organisation_can_ask_about_one_alone(served: Served, name: str):
    inputs = {key: value for key, value in INPUTS[name].items() if key != "orgId"}
    one = ask(served, name, LOCAL, **inputs, orgId="acme")
    own = ask(served, name, ACME, **inputs)
    about = {"next_cursor"}
    assert one.model_dump(exclude=about) == own.model_dump(exclude=about)
    text = ask(served, name, ACME, **inputs, orgId="globex").model_dump_json(exclude={"org"})
    assert "secret-agent" not in text
    assert "manhattan" not in text
