"""What people know of usage, beforehand from the calendar and afterwards from their verdicts, laid over a panel.

Holds the rules by which that changes what is learned and what is asked of a deviation:

- **Not learned.** What took place during a planned event, or was called real or planned, is left out of every later
  baseline of the series: the day or hour itself, at both grains, for all metrics. A day is left out whole if any part
  of it is.
- **Expected.** During a planned event a value is compared with the event's multiples of its baseline: between them it
  is no deviation at all, outside it deviates by what is left when divided by the nearer multiple.
- **Adaptive thresholds.** Each anomaly of a series, metric and grain that was called a false positive in the 90 days
  before multiplies the sigmas asked of it by 1.25, each that was called real by 0.9; never below 0.9 or above 2.5. Of hours,
  those less than twelve hours apart are one anomaly.

A verdict changes only days after the anomaly it is about, so a day's result depends on the usage of its look-back and
on what was said of it, never on when it is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obs_pipeline.detection.calendar import SCOPES, Occurrence, PlannedEvent, Scope, occurrences
from obs_pipeline.detection.config import GRAIN_LENGTH, Grain, Metric
from obs_pipeline.detection.panel import EPOCH, Panel
from obs_pipeline.storage.anomaly_labels import AnomalyLabel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FALSE_RAISES: Final = 1.25
REAL_LOWERS: Final = 0.9
ASKED: Final = (0.9, 2.5)
REMEMBERED: Final = timedelta(days=90)
GOES_ON: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Known:
    """The events of the calendar and the standing verdicts on anomalies."""

    events: tuple[PlannedEvent, ...] = ()
    labels: tuple[AnomalyLabel, ...] = ()


NOTHING: Final = Known()


@dataclass(frozen=True)
class Planned:
    """What events expect of one metric: arrays (series, point, tested day), NaN where none says anything.

    ``least`` and ``most`` are multiples of the baseline, ``most`` infinite where anything goes; ``event`` is the place
    of the deciding event in ``names``. Where several events meet, the widest span of all is expected.
    """

    least: Floats
    most: Floats
    event: npt.NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def cells(self) -> Bools:
        """Where an event is on."""
        return ~np.isnan(self.least)

    def judged(self, observed: Floats, expected: Floats) -> tuple[Floats, Floats]:
        """The observed values less what the events explain, and the planned values nearest to the observed ones.

        All in the metric's own unit. Where no event is on, these are ``observed`` and ``expected``.
        """
        with np.errstate(invalid="ignore"):
            most, least = self.most * expected, self.least * expected
            above, below = observed > most, observed < least
        # Nothing is below zero times the usual, so the division is by a positive multiple wherever it counts.
        excused = np.where(above, observed / self.most, np.where(below, observed / np.fmax(self.least, 1e-9), expected))
        nearest = np.where(above, most, np.where(below, least, observed))
        on = self.cells & ~np.isnan(observed) & ~np.isnan(expected)
        return np.where(on, excused, observed), np.where(on, nearest, expected)

    def of(self, series: npt.NDArray[np.int64], days: slice) -> Planned:
        """The same for some of the series and of the tested days."""
        some = (series, slice(None), days)
        return Planned(self.least[some], self.most[some], self.event[some], self.names)

    def name(self, position: int) -> str | None:
        """The event at a flat position of the arrays."""
        place = int(self.event.reshape(-1)[position])
        return self.names[place] if place >= 0 else None


def not_learned(known: Known, panel: Panel, grain: Grain) -> Bools | None:
    """(series, point, day) of the panel: what no baseline may learn from; None for nothing."""
    masked = np.zeros(panel.shape, dtype=bool)
    for one in _taking_place(known, panel):
        masked[_meant(one.event.scope, panel.series)] |= _cells(one.begins, one.ends, panel, grain)
    for label in known.labels:
        if label.verdict == "false_positive":
            continue
        cells = _cells(label.timestamp, judged_until(label), panel, grain)
        if cells.any():
            masked[_same(label, panel.series)] |= cells
    return masked if masked.any() else None


def judged_until(label: AnomalyLabel) -> datetime:
    """When that which somebody judged was over."""
    return label.ends or label.timestamp + GRAIN_LENGTH[label.grain]


def planned(known: Known, panel: Panel, metric: Metric, grain: Grain, lookback: int) -> Planned | None:
    """What the calendar expects of the tested days; None where it says nothing of them."""
    count, points, days = panel.shape
    shape = (count, points, days - lookback)
    least, most, event = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1)
    for place, occurrence in enumerate(happening := _taking_place(known, panel)):
        multiples = occurrence.event.multiples(metric)
        cells = _cells(occurrence.begins, occurrence.ends, panel, grain)[:, lookback:]
        if multiples is None or not cells.any():
            continue
        where = _meant(occurrence.event.scope, panel.series)[:, None, None] & cells
        least = np.where(where, np.fmin(least, multiples[0]), least)
        most = np.where(where, np.fmax(most, multiples[1]), most)
        event = np.where(where, place, event)
    if (event < 0).all():
        return None
    return Planned(least, most, event, tuple(one.event.name for one in happening))


def asked(known: Known, panel: Panel, metric: Metric, grain: Grain, lookback: int) -> Floats:
    """(series, tested day): by what the sigmas of every threshold are multiplied; one without verdicts."""
    tested = panel.first_day + lookback + np.arange(panel.days - lookback)
    powers = np.zeros((panel.shape[0], tested.size))
    for label in _each_once(known.labels, metric, grain):
        about = (label.timestamp.date() - EPOCH).days
        later = (tested > about) & (tested <= about + REMEMBERED.days)
        if later.any():
            factor = FALSE_RAISES if label.verdict == "false_positive" else REAL_LOWERS
            powers[np.ix_(_same(label, panel.series), later)] += np.log(factor)
    return np.clip(np.exp(powers), *ASKED)


def _each_once(labels: Sequence[AnomalyLabel], metric: Metric, grain: Grain) -> Iterator[AnomalyLabel]:
    """The verdicts real and false of one metric and grain. An incident of several days has a label for each of them, and is
    one experience: what is said of hours that go on counts with the first."""
    chosen = [one for one in labels if (one.metric, one.grain) == (metric, grain) and one.verdict != "planned"]
    ends: dict[tuple[Any, ...], datetime] = {}
    for label in sorted(chosen, key=lambda one: (one.timestamp, one.anomaly_id)):
        series = (label.org, label.project, label.agent, label.verdict)
        goes_on = grain == "hour" and series in ends and label.timestamp - ends[series] < GOES_ON
        ends[series] = max(judged_until(label), ends.get(series, datetime.min))
        if not goes_on:
            yield label


def _taking_place(known: Known, panel: Panel) -> list[Occurrence]:
    first = EPOCH + timedelta(days=panel.first_day)
    return occurrences(known.events, first, first + timedelta(days=panel.days - 1))


def _cells(begins: datetime, ends: datetime, panel: Panel, grain: Grain) -> Bools:
    """(point, day): the days or hours that any part of [begins, ends) falls into."""
    points = panel.points
    step = timedelta(days=1) / points
    start = datetime.combine(EPOCH + timedelta(days=panel.first_day), datetime.min.time())
    first = max((begins - start) // step, 0)
    last = min(-((start - ends) // step), panel.days * points)
    cells = np.zeros(panel.days * points, dtype=bool)
    cells[first : max(last, first)] = True
    return cells.reshape(panel.days, points).T


def _meant(scope: Scope, series: pa.Table) -> Bools:
    """Which series a scope is about."""
    meant = np.ones(series.num_rows, dtype=bool)
    for level in SCOPES:
        names: Sequence[str] | None = getattr(scope, level)
        if names is not None:
            meant &= _bools(pc.is_in(series[level], value_set=pa.array(names, pa.string())))
    return meant


def _same(label: AnomalyLabel, series: pa.Table) -> Bools:
    """Which series a label is about: one, or none that is in the panel."""
    found = np.ones(series.num_rows, dtype=bool)
    for level, name in zip(SCOPES, (label.org, label.project, label.agent), strict=True):
        column = series[level]
        found &= _bools(pc.is_null(column) if name is None else pc.fill_null(pc.equal(column, name), False))
    return found


def _bools(values: Any) -> Bools:
    flags: Bools = values.to_numpy(zero_copy_only=False).astype(bool)
    return flags
