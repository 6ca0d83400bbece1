from datetime import date, datetime
from pathlib import Path

import pytest

from obs_pipeline.detection.calendar import CalendarError, load_calendar, occurrences

WHOLE = """
version: 1
events:
  - name: Black Friday
    from: 2026-11-27
    until: 2026-12-01
    timezone: America/New_York
    scope: {org: acme, project: [atlas, beacon]}
    expect: {cost: [1, 4], errors: [0, 2]}
  - name: Christmas
    from: 2024-12-24T18:00
    until: 2024-12-27
    every: year
"""


def written(folder: Path, content: str) -> Path:
    path = folder / "calendar.yaml"
    path.write_text(content, encoding="utf-8")
    return path


def test_a_calendar_is_read_with_its_scopes_and_effects(tmp_path: Path):
    friday, christmas = load_calendar(written(tmp_path, WHOLE))
    assert friday.scope.project == ("atlas", "beacon")
    assert friday.scope.org == ("acme",)
    assert friday.multiples("cost") == (1, 4)
    assert friday.multiples("tokens") is None
    assert christmas.multiples("tokens") == (0, float("inf"))
    assert christmas.multiples("latency") is None


def test_no_file_and_an_empty_one_have_no_events(tmp_path: Path):
    assert load_calendar(tmp_path / "none.yaml") == ()
    assert load_calendar(written(tmp_path, "# nothing yet\n")) == ()


def test_an_event_takes_place_in_its_own_zone(tmp_path: Path):
    friday, _ = load_calendar(written(tmp_path, WHOLE))
    (once,) = occurrences([friday], date(2026, 1, 1), date(2026, 12, 31))
    assert (once.begins, once.ends) == (datetime(2026, 11, 27, 5), datetime(2026, 12, 1, 5))


def test_an_event_across_the_change_of_clocks_ends_at_its_local_time(tmp_path: Path):
    content = "events: [{name: n, from: 2026-03-28, until: 2026-03-30, timezone: Europe/Zurich}]"
    (event,) = load_calendar(written(tmp_path, content))
    (once,) = occurrences([event], date(2026, 3, 1), date(2026, 4, 1))
    assert (once.begins, once.ends) == (datetime(2026, 3, 27, 23), datetime(2026, 3, 29, 22))


@pytest.mark.parametrize(
    ("first", "last", "years"),
    [
        (date(2025, 12, 26), date(2025, 12, 26), [2025]),
        (date(2025, 12, 27), date(2025, 12, 30), []),
        (date(2024, 12, 25), date(2026, 12, 24), [2024, 2025, 2026]),
        (date(2023, 12, 25), date(2023, 12, 25), [2023]),
    ],
)
def test_a_yearly_event_comes_back(tmp_path: Path, first: date, last: date, years: list[int]):
    _, christmas = load_calendar(written(tmp_path, WHOLE))
    assert [one.begins.year for one in occurrences([christmas], first, last)] == years


def test_a_yearly_event_over_new_year_is_found_on_either_side(tmp_path: Path):
    content = "events: [{name: n, from: 2024-12-30, until: 2025-01-03, every: year}]"
    (event,) = load_calendar(written(tmp_path, content))
    for day in (date(2025, 12, 31), date(2026, 1, 2)):
        (once,) = occurrences([event], day, day)
        assert once.begins == datetime(2025, 12, 30)


def test_the_leap_day_is_the_first_of_march_in_other_years(tmp_path: Path):
    content = "events: [{name: n, from: 2024-02-29, until: 2024-03-01, every: year}]"
    (event,) = load_calendar(written(tmp_path, content))
    (once,) = occurrences([event], date(2025, 2, 20), date(2025, 3, 10))
    assert (once.begins, once.ends) == (datetime(2025, 3, 1), datetime(2025, 3, 2))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "events:\n  - {name: n, from: 2026-01-02, until: 2026-01-01}",
            "calendar.yaml:2: events.0: until must be after",
        ),
        (
            "events:\n  - name: n\n    from: soon\n    until: 2026-01-01",
            "calendar.yaml:3: events.0.from: 'soon' is no date",
        ),
        ("events:\n  - name: n\n    from: 2026-01-01", "calendar.yaml:2: events.0.until: is missing"),
        (
            "events:\n  - name: n\n    from: 2026-01-01\n    until: 2026-01-02\n    expects: {}",
            "calendar.yaml:5: events.0.expects: there is no such field",
        ),
        (
            "events:\n  - {name: n, from: 2026-01-01, until: 2026-01-02, expect: {cost: [4, 1]}}",
            "events.0.expect.cost: must rise",
        ),
        ("events:\n  - {name: n, from: 2026-01-01, until: 2026-01-02, expect: {money: [0, 1]}}", "expect.money"),
        ("events:\n  - {name: n, from: 2026-01-01, until: 2026-01-02, timezone: Mars}", "no IANA time zone"),
        ("events:\n  - {name: n, from: '2026-01-01T00:00+02:00', until: 2026-01-02}", "has an offset"),
        ("events: [", "calendar.yaml:2: is not YAML"),
        ("events: []\n---\nevents: []", "a second document"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, content: str, said: str):
    with pytest.raises(CalendarError) as refused:
        load_calendar(written(tmp_path, content))
    assert said in str(refused.value)
