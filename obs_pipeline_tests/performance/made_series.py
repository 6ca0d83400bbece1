"""Labelled series that look like no fleet of agents: traffic, processors, sensors, counters, heartbeats, random walks.

Holds the families, the anomalies put into them and the harmless oddities. No scores, no detectors. All of it is invented
from a seed: it is none of the public sets, and resembles them in kind only.

Every series has one to four anomalies in its last three quarters. A size is in units of the scatter of the family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def made(seed: int, each: int = 6) -> Iterator[Series]:
    """``each`` series of every family."""
    for place, (name, family) in enumerate(FAMILIES.items()):
        for number in range(each):
            yield _one(np.random.default_rng((seed, place, number)), name, family)


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
}
