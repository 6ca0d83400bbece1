"""Labelled series that look like no fleet of agents: traffic, processors, sensors, counters, heartbeats, random walks.

Holds the families, the anomalies put into them and the harmless oddities. No scores, no detectors. All of it is invented
from a seed: it is none of the public sets, and resembles them in kind only. ``FAMILIES`` are those that the detector was
chosen by; ``HELD_OUT`` are looked at only to see whether that choice holds elsewhere.

Every series has one to four anomalies in its last three quarters. A size is in units of the scatter of the family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Random = np.random.Generator

MONDAY: Final = 1_767_571_200.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
WINDOW_SHARE: Final = 0.1
"""All windows of a series together cover this share of it, each around the beginning of an anomaly."""

_SIZES: Final = (5.0, 10.0)
_BLIP: Final = 3.5
_BEAT: Final = 40


class Series(NamedTuple):
    """``anomalous`` are the points that are odd, (time,); ``windows`` (anomaly, 2) the first point and the one after the
    last within which a detection counts; ``period`` is the usual distance of the times, in seconds."""

    family: str
    times: Floats
    values: Floats
    anomalous: Bools
    windows: npt.NDArray[np.int64]
    period: float


class Family(NamedTuple):
    """``usual`` makes ``n`` ordinary values; ``scatter`` is their noise. ``finished`` is what is done to the values once
    the anomalies are in. ``blips`` are harmless single points a bit off, ``gaps`` short stretches without a value."""

    period: float
    scatter: float
    kinds: tuple[str, ...]
    usual: Callable[[Random, int], Floats]
    finished: Callable[[Random, Floats], Floats] = lambda random, values: values
    blips: int = 3
    gaps: int = 0
    irregular: bool = False


def made(seed: int, each: int = 6, families: Mapping[str, Family] | None = None) -> Iterator[Series]:
    """``each`` series of every family, of :data:`FAMILIES` unless told otherwise."""
    for place, (name, family) in enumerate((families or FAMILIES).items()):
        for number in range(each):
            yield _one(np.random.default_rng((seed, place, number)), name, family)


def as_hours(series: Series) -> Series:
    """The same values an hour apart, as those do who have to put some time beside a number."""
    times = MONDAY + HOUR * np.arange(series.values.size, dtype=np.float64)
    return series._replace(times=times, period=HOUR)


def _one(random: Random, name: str, family: Family) -> Series:
    size, count = int(random.integers(2000, 4001)), int(random.integers(1, 5))
    values = family.usual(random, size)
    windows = _windows(random, size, count)
    quiet = np.ones(size, dtype=bool)
    for first, end in windows:
        quiet[first:end] = False
    blips = random.choice(np.flatnonzero(quiet), family.blips, replace=False)
    values[blips] += _BLIP * family.scatter * random.choice([-1.0, 1.0], family.blips)
    anomalous = np.zeros(size, dtype=bool)
    for first, end in windows:
        start = (first + end) // 2
        length = ANOMALIES[str(random.choice(family.kinds))](random, values, start, end - start, family.scatter)
        anomalous[start : start + length] = True
    values = family.finished(random, values)
    for start in random.choice(np.flatnonzero(quiet), family.gaps, replace=False):
        values[start : start + int(random.integers(1, 9))] = np.nan
    gaps = np.full(size, family.period)
    if family.irregular:
        gaps = np.rint(family.period * random.gamma(3.0, 1 / 3.0, size)) + 1.0
    return Series(name, MONDAY + np.cumsum(gaps) - gaps[0], values, anomalous, windows, family.period)


def _windows(random: Random, size: int, count: int) -> npt.NDArray[np.int64]:
    half = int(WINDOW_SHARE * size / count / 2)
    share = 0.72 * size / count
    starts = 0.25 * size + share * (np.arange(count) + random.uniform(0.1, 0.8, count))
    return np.stack([starts.astype(np.int64) - half, starts.astype(np.int64) + half], axis=1)


def _off(random: Random, scatter: float) -> float:
    return float(random.uniform(*_SIZES) * scatter)


def _spike(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    length = int(random.integers(1, 5))
    values[start : start + length] += _off(random, scatter)
    return length


def _dip(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    length = int(random.integers(1, 5))
    values[start : start + length] -= _off(random, scatter)
    return length


def _level(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    values[start:] += 0.6 * _off(random, scatter)
    return room


def _stuck(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    values[start : start + room] = values[start - 1]
    return room


def _burst(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    values[start : start + room] += random.normal(0.0, 0.5 * _off(random, scatter), room)
    return room


def _break(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    values[start:] += _off(random, scatter) * np.minimum(np.arange(values.size - start) / room, 1.0)
    return room


def _no_beat(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    length = min(_BEAT, room)
    values[start : start + length] = random.normal(0.0, scatter, length)
    return length


def _other_beat(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    length = min(_BEAT, room)
    values[start : start + length] *= -0.6
    return length


ANOMALIES: Final = {
    "spike": _spike,
    "dip": _dip,
    "level shift": _level,
    "stuck": _stuck,
    "variance burst": _burst,
    "trend break": _break,
    "missing beat": _no_beat,
    "deformed beat": _other_beat,
}
"""Each changes the values from a position on, in place, and says how many points of it are odd: at most ``room``."""


def _wave(size: int, length: float, phase: float = 0.0) -> Floats:
    wave: Floats = np.sin(2 * np.pi * (np.arange(size) / length + phase))
    return wave


def _drift(random: Random, size: int, memory: float) -> Floats:
    """An autoregression of the first order."""
    from scipy.signal import lfilter

    drift: Floats = lfilter([1.0], [1.0, -memory], random.normal(0.0, 1.0, size))
    return drift


def _traffic(random: Random, size: int) -> Floats:
    weekend = np.where(np.arange(size) // 288 % 7 >= 5, 0.7, 1.0)
    course = weekend * (300 + 150 * _wave(size, 288, -0.3) + 40 * _wave(size, 144, random.uniform()))
    return course + random.normal(0.0, 12.0, size)


def _processor(random: Random, size: int) -> Floats:
    """Jobs of an hour or more at fixed times of the day."""
    place = np.arange(size) % 288
    values = 15.0 + random.normal(0.0, 1.5, size)
    for start in random.choice(264, 3, replace=False):
        values += random.uniform(15, 30) * ((place >= start) & (place < start + random.integers(12, 25)))
    return values


def _states(random: Random, size: int) -> Floats:
    """On and off, for times of no rule."""
    switches = np.cumsum(random.random(size) < 1 / 60) % 2
    return 60.0 * switches + random.normal(0.0, 1.0, size)


def _spikes(random: Random, size: int) -> Floats:
    """A flat line with a small excursion now and then."""
    return np.where(random.random(size) < 0.008, random.uniform(4, 12, size), 0.0) + 5.0


def _beats(random: Random, size: int) -> Floats:
    length = _BEAT + np.cumsum(random.normal(0.0, 0.02, size))
    place = np.cumsum(1.0 / length) % 1.0
    peak = 10.0 * np.exp(-(((place - 0.3) / 0.03) ** 2)) - 2.0 * np.exp(-(((place - 0.37) / 0.03) ** 2))
    return peak + 2.0 * np.exp(-(((place - 0.65) / 0.08) ** 2)) + random.normal(0.0, 0.2, size)


def _counted(random: Random, values: Floats) -> Floats:
    """The running sum, back to zero some ten times."""
    total = np.cumsum(np.maximum(np.rint(values), 0.0))
    restarts = np.sort(random.choice(np.arange(100, total.size), 10, replace=False))
    since = np.searchsorted(restarts, np.arange(total.size), side="right")
    counted: Floats = total - np.concatenate([[0.0], total[restarts - 1]])[since]
    return counted


def _positive(random: Random, values: Floats) -> Floats:
    return np.maximum(values, 0.0)


def _rounded(random: Random, values: Floats) -> Floats:
    return np.round(values, 1)


def _steps(random: Random, size: int) -> Floats:
    """Four levels, each for some time, in an order of chance."""
    changes = random.random(size) < 1 / 45
    levels = random.choice([10.0, 18.0, 30.0, 55.0], size)
    last = np.maximum.accumulate(np.where(changes, np.arange(size), 0))
    return levels[last] + random.normal(0.0, 0.5, size)


def _queue(random: Random, size: int) -> Floats:
    """What is waiting: comes and goes by chance, never below nothing."""
    moves = np.cumsum(random.poisson(3.0, size) - random.poisson(3.2, size))
    return (moves - np.minimum.accumulate(np.minimum(moves, 0))).astype(np.float64)


def _machine(random: Random, size: int) -> Floats:
    """Up, hold, work, down: a cycle of 150 points."""
    phase = np.arange(size) / 150.0 % 1.0
    course = np.interp(phase, [0.0, 0.1, 0.4, 0.45, 0.7, 0.8, 1.0], [0.0, 8.0, 8.0, 12.0, 11.0, 0.0, 0.0])
    return course + random.normal(0.0, 0.3, size)


def _odd_cycle(random: Random, values: Floats, start: int, room: int, scatter: float) -> int:
    """A stretch backwards."""
    length = min(60, room)
    values[start : start + length] = values[start : start + length][::-1]
    return length


ANOMALIES["stretch backwards"] = _odd_cycle


def _latency(random: Random, size: int) -> Floats:
    return np.exp(3.0 + 0.3 * _wave(size, 288, -0.25) + 0.08 * _drift(random, size, 0.8)) * random.gamma(
        60.0, 1 / 60, size
    )


def _disk(random: Random, size: int) -> Floats:
    """Fills slowly and is cleared when somebody thinks of it."""
    cleared = np.cumsum(random.random(size) < 1 / 400)
    filled = np.cumsum(random.gamma(2.0, 0.05, size))
    first = np.searchsorted(cleared, cleared)
    return 20.0 + filled - filled[first]


def _wind(random: Random, size: int) -> Floats:
    return 4.0 + 0.9 * np.abs(_drift(random, size, 0.95)) + random.normal(0.0, 0.3, size)


def _breaths(random: Random, size: int) -> Floats:
    strength = 1.0 + 0.03 * _drift(random, size, 0.97)
    place = np.cumsum(1.0 / (70.0 + 1.0 * _drift(random, size, 0.9)))
    breath: Floats = 5.0 * strength * np.sin(2 * np.pi * place) ** 3
    return breath + random.normal(0.0, 0.2, size)


def _connections(random: Random, size: int) -> Floats:
    """Whole numbers that come and go around fifty."""
    held = np.empty(size)
    now = 50
    for place, (came, left) in enumerate(zip(random.poisson(2.5, size), random.random(size), strict=True)):
        now = now + int(came) - round(0.1 * now * left)
        held[place] = now
    return held


def _thermostat(random: Random, size: int) -> Floats:
    """Heats up to one mark and cools to another, quicker and slower."""
    course = np.empty(size)
    now, heating = 20.0, True
    for place, pace in enumerate(random.gamma(8.0, 1 / 8, size)):
        now += 0.35 * pace if heating else -0.15 * pace
        heating = now < 22.0 if heating else now < 19.0
        course[place] = now
    return course + random.normal(0.0, 0.05, size)


def _price(random: Random, size: int) -> Floats:
    calm = np.exp(0.15 * _drift(random, size, 0.97))
    return 100.0 * np.exp(np.cumsum(0.004 * calm * random.normal(0.0, 1.0, size)))


def _office(random: Random, size: int) -> Floats:
    """Nothing by night, much by day, in steps of 15 minutes."""
    place = np.arange(size) % 96
    busy = (place >= 32) & (place < 72) & (np.arange(size) // 96 % 7 < 5)
    return np.where(busy, 80.0 + random.normal(0.0, 6.0, size), 0.0)


FAMILIES: Final = {
    "web traffic, 5 min": Family(5 * MINUTE, 12.0, ("spike", "dip", "level shift"), _traffic, _positive, gaps=3),
    "CPU with plateaus, 5 min": Family(
        5 * MINUTE, 1.5, ("spike", "level shift", "variance burst"), _processor, lambda r, v: np.clip(v, 0.0, 100.0)
    ),
    "random walk, hourly": Family(
        HOUR, 1.0, ("spike", "dip", "level shift"), lambda r, n: 1000.0 + np.cumsum(r.normal(0.0, 1.0, n))
    ),
    "AR(1), 15 min": Family(
        15 * MINUTE, 2.3, ("spike", "level shift", "variance burst"), lambda r, n: _drift(r, n, 0.9)
    ),
    "heavy tails (t3), hourly": Family(
        HOUR, 3.0, ("level shift", "variance burst"), lambda r, n: 200.0 + 2.0 * r.standard_t(3, n), blips=0
    ),
    "on and off, 1 min": Family(MINUTE, 1.0, ("spike", "stuck", "level shift"), _states),
    "counter with resets, 5 min": Family(
        5 * MINUTE, 10.0, ("spike", "dip"), lambda r, n: r.poisson(100.0, n) + 20.0 * _wave(n, 288), _counted
    ),
    "flat, rare spikes, hourly": Family(HOUR, 6.0, ("spike",), _spikes, blips=0),
    "trend, hourly": Family(
        HOUR,
        3.0,
        ("spike", "level shift", "trend break"),
        lambda r, n: 80.0 + 0.05 * np.arange(n) + 10.0 * _wave(n, 24) + r.normal(0.0, 3.0, n),
    ),
    "day and week, hourly": Family(
        HOUR,
        6.0,
        ("spike", "dip", "level shift"),
        lambda r, n: 150.0 + 60.0 * _wave(n, 24) + 25.0 * _wave(n, 168) + r.normal(0.0, 6.0, n),
        gaps=3,
    ),
    "cycle of 30 hours, hourly": Family(
        HOUR,
        6.0,
        ("spike", "dip", "level shift"),
        lambda r, n: 150.0 + 60.0 * _wave(n, 30, r.uniform()) + r.normal(0.0, 6.0, n),
    ),
    "sawtooth, 10 min": Family(
        10 * MINUTE,
        2.0,
        ("spike", "dip", "stuck"),
        lambda r, n: 100.0 * (np.arange(n) / 37.0 % 1.0) + r.normal(0.0, 2.0, n),
    ),
    "heartbeats, 1 s": Family(1.0, 0.2, ("missing beat", "deformed beat"), _beats, blips=0),
    "sensor that sticks, 10 min": Family(
        10 * MINUTE, 0.3, ("stuck",), lambda r, n: 20.0 + 4.0 * _wave(n, 144) + 0.3 * _drift(r, n, 0.7), _rounded
    ),
    "noise level, hourly": Family(HOUR, 1.0, ("variance burst",), lambda r, n: r.normal(0.0, 1.0, n)),
    "irregular steps, some 7 min": Family(
        7 * MINUTE,
        2.0,
        ("spike", "level shift", "variance burst"),
        lambda r, n: 40.0 + 8.0 * _wave(n, 206) + r.normal(0.0, 2.0, n),
        irregular=True,
    ),
    "lone sensor, hourly": Family(
        HOUR,
        0.8,
        ("spike", "dip", "stuck", "level shift"),
        lambda r, n: 20.0 + 5.0 * _wave(n, 24) + 0.5 * _drift(r, n, 0.8),
        _rounded,
        gaps=3,
    ),
    "four levels, 5 min": Family(5 * MINUTE, 0.5, ("spike", "dip", "variance burst"), _steps),
    "queue, 1 min": Family(MINUTE, 4.0, ("spike", "level shift"), _queue, _positive),
    "machine, 1 s": Family(1.0, 0.3, ("stuck", "stretch backwards", "spike"), _machine),
    "days with a week": Family(
        DAY,
        8.0,
        ("spike", "dip", "level shift"),
        lambda r, n: 200.0 + 60.0 * (np.arange(n) % 7 < 5) + 30.0 * _wave(n, 365) + r.normal(0.0, 8.0, n),
    ),
    "errors, hourly": Family(
        HOUR, 2.0, ("spike", "level shift"), lambda r, n: r.poisson(1.5 + 1.4 * _wave(n, 24)).astype(float), _positive
    ),
}

HELD_OUT: Final = {
    "latency, 5 min": Family(5 * MINUTE, 3.5, ("spike", "level shift", "variance burst"), _latency, _positive, gaps=3),
    "disk, 10 min": Family(10 * MINUTE, 0.5, ("spike", "stuck", "level shift"), _disk),
    "tide, hourly": Family(
        HOUR,
        0.15,
        ("spike", "dip", "stuck", "level shift"),
        lambda r, n: 6.0 + 2.0 * _wave(n, 12.42) + 0.6 * _wave(n, 25.82, r.uniform()) + r.normal(0.0, 0.15, n),
    ),
    "wind, 10 min": Family(10 * MINUTE, 1.5, ("spike", "stuck", "variance burst"), _wind, _positive),
    "breaths, 0.1 s": Family(0.1, 0.2, ("missing beat", "deformed beat", "stuck"), _breaths, blips=0),
    "connections, 1 min": Family(MINUTE, 6.0, ("spike", "dip", "level shift"), _connections),
    "thermostat, 5 min": Family(5 * MINUTE, 0.5, ("spike", "stuck", "level shift"), _thermostat),
    "price, days": Family(DAY, 1.0, ("spike", "variance burst"), _price, blips=0),
    "office, 15 min": Family(15 * MINUTE, 6.0, ("spike", "dip", "level shift"), _office, _positive),
    "share, hourly": Family(
        HOUR,
        1.5,
        ("dip", "level shift"),
        lambda r, n: 99.0 - np.abs(r.normal(0.0, 1.0, n)),
        lambda r, v: np.clip(v, 0, 100),
    ),
    "rain, hourly": Family(
        HOUR, 3.0, ("spike", "level shift"), lambda r, n: np.where(_drift(r, n, 0.9) > 2.5, r.gamma(1.0, 2.0, n), 0.0)
    ),
    "sensor without a rule, 1 s": Family(1.0, 1.0, ("spike", "level shift", "stuck"), lambda r, n: _drift(r, n, 0.3)),
}
