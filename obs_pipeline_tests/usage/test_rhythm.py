"""What a source's own rhythm allows: what never pauses is missed after hours, what lands daily after a day and a half."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.usage.rhythm import Heard, Patience, silences_of_landing, silences_of_pulling, usual_silence

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime(2026, 3, 20, 12)
PATIENCE = Patience(4 * HOUR, 36 * HOUR, {"stated": 2 * HOUR})


def landings(*ago: timedelta, source: str = "gateway") -> list[Heard]:
    """Landings so long before NOW, each with events up to the moment it landed."""
    return [Heard(source, NOW - one, NOW - one) for one in ago]


def every(step: timedelta, since: timedelta, until: timedelta = timedelta()) -> list[Heard]:
    """Landings each ``step``, the last so long before NOW as ``until`` says."""
    return landings(*(until + n * step for n in range(int((since - until) / step) + 1)))


@pytest.mark.parametrize(
    ("heard", "stale"),
    [
        (every(10 * HOUR / 60, 10 * DAY, 3.9 * HOUR), False),
        (every(10 * HOUR / 60, 10 * DAY, 4.2 * HOUR), True),
        (every(DAY, 10 * DAY, DAY), False),
        (every(DAY, 10 * DAY, 1.4 * DAY), False),
        (every(DAY, 10 * DAY, 1.6 * DAY), True),
        (landings(30 * HOUR), False),
        (landings(40 * HOUR), True),
        (every(HOUR, 12 * HOUR, 5 * HOUR), False),
        ([Heard("stated", NOW - 3 * HOUR, NOW - 3 * HOUR)], True),
    ],
    ids=[
        "never pauses 3.9",
        "never pauses 4.2",
        "daily 1",
        "daily 1.4",
        "daily 1.6",
        "once 30",
        "once 40",
        "new",
        "stated",
    ],
)
def test_a_source_is_missed_by_its_own_rhythm(heard: list[Heard], stale: bool):
    [silence] = silences_of_landing(heard, PATIENCE, NOW)
    assert silence.is_stale(NOW) == stale


def test_a_source_that_sleeps_at_night_is_not_missed_in_the_morning():
    by_day = [one for one in every(HOUR / 2, 10 * DAY, -2 * DAY) if 8 <= one.landed_at.hour < 20]
    for hour in range(24):
        now = NOW + DAY + hour * HOUR
        [silence] = silences_of_landing([one for one in by_day if one.landed_at <= now], PATIENCE, now)
        assert not silence.is_stale(now), now


def test_one_outage_does_not_make_a_source_patient():
    before, after = every(HOUR / 6, 10 * DAY, 5 * DAY), every(HOUR / 6, 4 * DAY, 5 * HOUR)
    [silence] = silences_of_landing([*before, *after], PATIENCE, NOW)
    assert (silence.allowed, silence.is_stale(NOW)) == (4 * HOUR, True)


def test_old_events_that_land_are_no_sign_of_life():
    alive = every(HOUR / 6, 10 * DAY, 5 * HOUR)
    backfill = [Heard("gateway", NOW - n * HOUR, NOW - 300 * DAY) for n in range(4)]
    [silence] = silences_of_landing([*alive, *backfill], PATIENCE, NOW)
    assert silence.is_stale(NOW)
    assert silence.last_event == NOW - 5 * HOUR


def test_a_pull_that_brought_nothing_is_a_sign_of_life():
    fine, late = silences_of_pulling({"fine": NOW - 3 * HOUR, "late": NOW - 5 * HOUR}, PATIENCE)
    assert (fine.is_stale(NOW), late.is_stale(NOW)) == (False, True)


@given(st.lists(st.integers(0, 14 * 24 * 60), unique=True, max_size=60))
def test_what_is_usual_is_a_silence_that_occurred_and_not_the_longest_of_all(minutes: list[int]):
    visits = [NOW - 14 * DAY + timedelta(minutes=one) for one in sorted(minutes)]
    gaps = sorted(b - a for a, b in pairwise(visits))
    usual = usual_silence(visits)
    assert usual is None or (usual in gaps and gaps.count(usual) + sum(gap > usual for gap in gaps) >= 2)
