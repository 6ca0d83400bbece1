"""Calendar windows: the days the clocks change, half-hour zones, odd midnights, month ends, leap days."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from obs_pipeline.policy.schema import PERIODS, WEEKDAYS
from obs_pipeline.policy.windows import Window, cut_hours, day_start, moment, utc, window

ZURICH = ZoneInfo("Europe/Zurich")
ZONES = (
    "UTC",
    "Europe/Zurich",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Beirut",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Pacific/Chatham",
)
instants = st.datetimes(datetime(1975, 1, 1), datetime(2037, 12, 1))
zones = st.sampled_from(ZONES).map(ZoneInfo)


def at(text: str) -> datetime:
    return utc(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("period", "instant", "zone", "week_start", "start", "end"),
    [
        ("hourly", "2025-05-07T15:29:32Z", "UTC", "monday", "2025-05-07T15:00", "2025-05-07T16:00"),
        ("hourly", "2025-05-07T15:29:32Z", "Asia/Kolkata", "monday", "2025-05-07T15:00", "2025-05-07T16:00"),
        ("daily", "2025-05-07T15:29:32Z", "UTC", "monday", "2025-05-07T00:00", "2025-05-08T00:00"),
        ("daily", "2025-05-07T23:59:59Z", "Europe/Zurich", "monday", "2025-05-07T22:00", "2025-05-08T22:00"),
        ("daily", "2025-05-07T18:29:59Z", "Asia/Kolkata", "monday", "2025-05-06T18:30", "2025-05-07T18:30"),
        ("daily", "2025-05-07T18:30:00Z", "Asia/Kolkata", "monday", "2025-05-07T18:30", "2025-05-08T18:30"),
        ("daily", "2025-05-07T20:00:00Z", "Asia/Kathmandu", "monday", "2025-05-07T18:15", "2025-05-08T18:15"),
        ("daily", "2025-03-30T12:00:00Z", "Europe/Zurich", "monday", "2025-03-29T23:00", "2025-03-30T22:00"),
        ("daily", "2025-10-26T12:00:00Z", "Europe/Zurich", "monday", "2025-10-25T22:00", "2025-10-26T23:00"),
        ("weekly", "2025-05-07T12:00:00Z", "UTC", "monday", "2025-05-05T00:00", "2025-05-12T00:00"),
        ("weekly", "2025-05-07T12:00:00Z", "UTC", "sunday", "2025-05-04T00:00", "2025-05-11T00:00"),
        ("weekly", "2025-05-07T12:00:00Z", "UTC", "wednesday", "2025-05-07T00:00", "2025-05-14T00:00"),
        ("weekly", "2025-05-07T12:00:00Z", "UTC", "thursday", "2025-05-01T00:00", "2025-05-08T00:00"),
        ("weekly", "2025-10-26T12:00:00Z", "Europe/Zurich", "monday", "2025-10-19T22:00", "2025-10-26T23:00"),
        ("monthly", "2025-01-31T23:59:59Z", "UTC", "monday", "2025-01-01T00:00", "2025-02-01T00:00"),
        ("monthly", "2025-02-15T00:00:00Z", "UTC", "monday", "2025-02-01T00:00", "2025-03-01T00:00"),
        ("monthly", "2024-02-29T12:00:00Z", "UTC", "monday", "2024-02-01T00:00", "2024-03-01T00:00"),
        ("monthly", "2024-12-31T23:30:00Z", "Europe/Zurich", "monday", "2024-12-31T23:00", "2025-01-31T23:00"),
        ("monthly", "2025-03-31T22:00:00Z", "Europe/Zurich", "monday", "2025-03-31T22:00", "2025-04-30T22:00"),
    ],
)
def test_the_window_of_an_instant(period, instant, zone, week_start, start, end):
    expected = Window(datetime.fromisoformat(start), datetime.fromisoformat(end))
    assert window(period, at(instant), ZoneInfo(zone), week_start) == expected


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2025-03-30", "Europe/Zurich", 23),
        ("2025-10-26", "Europe/Zurich", 25),
        ("2025-03-09", "America/New_York", 23),
        ("2025-11-02", "America/New_York", 25),
        ("2025-04-06", "Australia/Lord_Howe", 24.5),
        ("2025-10-05", "Australia/Lord_Howe", 23.5),
        ("2024-02-29", "Europe/Zurich", 24),
        ("2018-11-04", "America/Sao_Paulo", 23),  # midnight itself was skipped
        ("2018-02-17", "America/Sao_Paulo", 25),  # the evening came twice
        ("2025-11-02", "America/Havana", 25),  # midnight came twice
        ("2025-03-09", "America/Havana", 23),
        ("2011-12-30", "Pacific/Apia", 0),  # a date that never was
        ("2011-12-29", "Pacific/Apia", 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(day, zone, hours):
    day, zone = date.fromisoformat(day), ZoneInfo(zone)
    length = day_start(day + timedelta(days=1), zone) - day_start(day, zone)
    assert length == timedelta(hours=hours)


def test_a_day_whose_midnight_is_skipped_begins_at_the_change():
    assert day_start(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo")) == datetime(2018, 11, 4, 3)
    # Toronto once went from 23:30 to 00:30: the day begins at 00:30, not at a midnight that never was.
    assert day_start(date(1919, 3, 31), ZoneInfo("America/Toronto")) == datetime(1919, 3, 31, 4, 30)


def test_an_evening_that_comes_twice_stays_in_the_day_already_begun():
    # St. John's used to put its clocks back at 00:01, so that 23:01 of the day before came again.
    zone = ZoneInfo("America/St_Johns")
    begun = day_start(date(2006, 10, 29), zone)
    again = begun + timedelta(minutes=30)
    assert again.replace(tzinfo=UTC).astimezone(zone).date() == date(2006, 10, 28)
    assert window("daily", again, zone) == Window(begun, begun + timedelta(hours=25))


def test_the_hour_that_autumn_repeats_is_two_windows():
    first, second = at("2025-10-26T02:30:00+02:00"), at("2025-10-26T02:30:00+01:00")
    assert window("hourly", first, ZURICH).end == window("hourly", second, ZURICH).start


def test_an_instant_with_a_zone_and_the_same_in_utc_share_a_window():
    assert window("daily", datetime.fromisoformat("2025-05-08T00:30:00+02:00"), ZURICH) == window(
        "daily", datetime(2025, 5, 7, 22, 30), ZURICH
    )


@given(instants, zones, st.sampled_from(PERIODS), st.sampled_from(WEEKDAYS))
@example(datetime(2011, 12, 30, 9, 59, 59), ZoneInfo("Pacific/Apia"), "daily", "friday")
@example(datetime(2006, 10, 29, 3, 0), ZoneInfo("America/St_Johns"), "monthly", "sunday")
def test_windows_hold_their_instant_and_touch_their_neighbours(instant, zone, period, week_start):
    here = window(period, instant, zone, week_start)
    assert here.holds(instant)
    assert window(period, here.start, zone, week_start) == here
    assert window(period, here.end, zone, week_start).start == here.end
    assert window(period, here.end - timedelta(microseconds=1), zone, week_start) == here


@given(instants, zones, st.sampled_from(WEEKDAYS))
def test_days_fill_weeks_and_months_exactly(instant, zone, week_start):
    for period in ("weekly", "monthly"):
        whole = window(period, instant, zone, week_start)
        reached = whole.start
        while reached < whole.end:
            reached = window("daily", reached, zone).end
        assert reached == whole.end


@given(st.dates(date(1975, 1, 1), date(2037, 12, 1)), zones)
def test_a_day_begins_at_the_first_instant_of_its_date(day, zone):
    start = day_start(day, zone)
    local = [
        (start + step).replace(tzinfo=UTC).astimezone(zone).date() for step in (-timedelta(seconds=1), timedelta())
    ]
    assert local[0] < day <= local[1]


@pytest.mark.parametrize("zone", ["Europe/Zurich", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
def test_daily_windows_agree_with_the_event_sum_on_the_days_the_clocks_change(zone):
    # One event every half hour through a year; counting them by local date is the independent answer.
    zone = ZoneInfo(zone)
    first = day_start(date(2025, 1, 1), zone)
    events = [first + timedelta(minutes=30 * step) for step in range(365 * 48)]
    by_date = Counter(event.replace(tzinfo=UTC).astimezone(zone).date() for event in events)
    day, counted = date(2025, 1, 1), Counter()
    while day.year == 2025:
        here = window("daily", day_start(day, zone), zone)
        counted[day] = int(here.length / timedelta(minutes=30))
        day += timedelta(days=1)
    assert counted == by_date
    assert set(counted.values()) == {46, 48, 50} or zone.key in ("Asia/Kolkata", "Australia/Lord_Howe")


def test_a_date_is_the_start_of_that_day_and_a_date_time_is_itself():
    assert moment(date(2025, 5, 1), ZURICH) == datetime(2025, 4, 30, 22)
    assert moment(datetime(2025, 5, 1, 12, tzinfo=UTC), ZURICH) == datetime(2025, 5, 1, 12)


def test_only_half_hour_zones_cut_hours():
    kolkata = window("daily", datetime(2025, 5, 7), ZoneInfo("Asia/Kolkata"))
    assert cut_hours([kolkata]) == (datetime(2025, 5, 6, 18), datetime(2025, 5, 7, 18))
    assert cut_hours([window("daily", datetime(2025, 5, 7), ZURICH)]) == ()
