"""Hours of the daily batch judged by the usage model: windows → model → calibrated surprise → the batch's own terms.

Holds the way between the panel's windows and the model's, and between surprises and sigmas. The model, its
calibration, severities and wording are not here.

A day must come out the same alone and in a range, and a range must not cost a model for each of its days. So all days of
a week, Monday to Sunday, are judged by one course of the model, which begins on the day that lies the look-back before
that Monday and sees nothing later than each hour it judges. Fleets of
:data:`~obs_pipeline.detection.calibration.SMALL_FLEET` agents and more are calibrated on what came before that Monday,
smaller ones by the shipped tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import md5
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from obs_pipeline.detection import calibration, usage_model
from obs_pipeline.detection.config import AlarmBudget, Metric, Thresholds
from obs_pipeline.detection.panel import Panel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

Ordinary = Mapping[int, Sequence[calibration.Tails]]
"""What is ordinary for each metric, by the Monday (days since 1970) of the week that is judged by it."""

KINDS: Final[dict[Metric, usage_model.Kind]] = {
    "cost": "amount",
    "tokens": "amount",
    "errors": "failures",
    "latency": "ratio",
}
SERIES_AT_ONCE: Final = 250
TEACHERS: Final = 600
"""Series a fleet is calibrated on, some 30,000 half days: more tell nothing new."""

_LARGEST_SIGMAS: Final = 12.0  # what the largest surprise is reported as

_WEEKDAY: Final = 3  # the weekday, counted from Monday, of the first of January 1970


class HourVerdict(NamedTuple):
    """Arrays of (series, 24, tested day), in the unit of the values; ``deviation`` in sigmas, signed."""

    expected: Floats
    lower: Floats
    upper: Floats
    deviation: Floats
    confidence: Floats

    def of(self, series: Ints) -> HourVerdict:
        """The verdicts on some series alone."""
        return HourVerdict(*(array[series] for array in self))


class Marks(NamedTuple):
    """The surprises of one metric from which an hour is worth an info, a warning, a critical alarm."""

    info: float
    warning: float
    critical: float


def marks(budget: AlarmBudget, metrics: int) -> Marks:
    """The marks that keep the budget of an agent of which so many metrics are looked at.

    Each metric gets an equal share: alarms of all of them together are then at most the budget, whatever they have in
    common (Bonferroni).
    """
    shares = (budget.info, budget.warning, budget.critical)
    return Marks(*(calibration.mark_for(share / metrics) for share in shares))


def sigmas(surprises: Floats, reached: Marks) -> Floats:
    """Surprises on the scale of sigmas, on which the marks are two, three and five; it rises strictly up to its end."""
    thresholds = Thresholds()
    end = max(calibration.LARGEST, reached.critical + 1)
    scale = (0.0, thresholds.info, thresholds.warning, thresholds.critical, _LARGEST_SIGMAS)
    return np.interp(surprises, (0.0, *reached, end), scale)


def learn_ordinary(panel: Panel, metrics: Sequence[Metric], lookback: int, tested: int) -> Ordinary:
    """What is ordinary in the weeks of the last ``tested`` days of a panel, each learned from the look-back before its Monday.

    The panel begins as early as for :func:`judge_hours`. Of many series only those of :func:`teaching_order` count that come
    first among those with usage then: a panel that lacks others gives the same.
    """
    found = {}
    for week in _weeks(panel.first_day, panel.days - tested, panel.days):
        teachers = _teachers(panel.between(week.monday - lookback, week.monday - 1)[0])
        found[panel.first_day + week.monday] = [_tails(teachers, metric) for metric in metrics]
    return found


def teaching_order(org: str | None, project: str | None, agent: str | None) -> str:
    """What series are sorted by when few are to teach for many: a digest, so that nothing in a name decides and a new series
    moves no other. The engine's ``md5`` of the same text is the same."""
    text = "\x1f".join("\x1e" if name is None else name for name in (org, project, agent))
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def judge_hours(
    panel: Panel,
    metrics: Sequence[Metric],
    lookback: int,
    width: float,
    budget: AlarmBudget,
    tested: int,
    ordinary: Ordinary,
    chosen: Ints | None = None,
) -> dict[Metric, HourVerdict]:
    """Judge the hours of the last ``tested`` days, all metrics of an agent together. Errors are shares of calls.

    The panel begins early enough for the look-back of the Monday before the first of them, as
    :attr:`~obs_pipeline.detection.config.AnomalyDetectionConfig.lookback_of` says. The metric that shows an hour best is
    given the joint surprise of them all, held against the whole budget; the others keep their own, held against their
    share of it. ``width`` is the half-width of the band in spreads; ``ordinary`` what :func:`learn_ordinary` found for the
    weeks of these days. Unknown hours are NaN, and so are those of a metric
    that has been known for less than a day. Only the ``chosen`` series are judged, if some are given: among all the others,
    but the others are NaN.
    """
    judging = _Judging(tuple(metrics), width, marks(budget, 1), marks(budget, len(metrics)))
    shape = (panel.shape[0], panel.points, tested)
    found = [HourVerdict(*(np.full(shape, np.nan) for _ in HourVerdict._fields)) for _ in metrics]
    before = panel.days - tested
    for week in _weeks(panel.first_day, before, panel.days):
        tails = ordinary[panel.first_day + week.monday]
        for days in _courses(panel.masked, week):
            course = _of_chosen(panel.between(week.monday - lookback, days.stop - 1), chosen)
            verdicts, there = _judge_days(course, judging, tails, len(days))
            for whole, verdict in zip(found, verdicts, strict=True):
                for into, values in zip(whole, verdict, strict=True):
                    into[there, :, days.start - before : days.stop - before] = values
    return dict(zip(metrics, found, strict=True))


def _of_chosen(course: tuple[Panel, Ints], chosen: Ints | None) -> tuple[Panel, Ints]:
    panel, there = course
    if chosen is None:
        return course
    at = np.flatnonzero(np.isin(there, chosen))
    return panel.of(at), there[at]


class _Week(NamedTuple):
    """Tested days of one week, as positions in a panel, and that of its Monday."""

    monday: int
    days: range


def _weeks(first_day: int, first: int, end: int) -> list[_Week]:
    """The weeks of the days from position ``first`` up to ``end`` of a panel that begins on ``first_day`` since 1970."""
    weeks = []
    while first < end:
        monday = first - (first_day + first + _WEEKDAY) % 7
        weeks.append(_Week(monday, range(first, min(monday + 7, end))))
        first = monday + 7
    return weeks


def _courses(masked: Bools | None, week: _Week) -> list[range]:
    """The days of a week, one range for each course of the model.

    What is not to be learned of a day is judged even so: then the course ends with that day, and one that leaves it out
    goes on for the others.
    """
    lasts = {week.days.stop - 1}
    if masked is not None:
        lasts |= {day for day in week.days if masked[:, :, day].any()}
    ends = [day + 1 for day in sorted(lasts)]
    return [range(a, b) for a, b in zip([week.days.start, *ends], ends, strict=False)]


class _Judging(NamedTuple):
    """What is judged, and how: the marks are for an agent's joint surprise, and for that of one metric."""

    metrics: tuple[Metric, ...]
    width: float
    of_agent: Marks
    of_metric: Marks


def _judge_days(
    course: tuple[Panel, Ints], judging: _Judging, tails: Sequence[calibration.Tails], tested: int
) -> tuple[list[HourVerdict], Ints]:
    """The verdicts of each metric on the last ``tested`` days of a course, and on which series."""
    panel, there = course
    pieces = [slice(start, start + SERIES_AT_ONCE) for start in range(0, max(there.size, 1), SERIES_AT_ONCE)]
    parts = [_judge_series(panel, judging, tails, tested, piece) for piece in pieces]
    of_metrics = [[part[place] for part in parts] for place in range(len(judging.metrics))]
    return [HourVerdict(*map(np.concatenate, zip(*some, strict=True))) for some in of_metrics], there


def _teachers(before: Panel) -> Panel:
    if before.shape[0] <= TEACHERS:
        return before
    order = [teaching_order(**one) for one in before.series.to_pylist()]
    return before.of(np.sort(np.argsort(order, kind="stable")[:TEACHERS]))


def _tails(before: Panel, metric: Metric) -> calibration.Tails:
    shipped = calibration.shipped()[metric]
    if before.shape[0] < calibration.SMALL_FLEET:
        return shipped
    scored, _ = _scored(before, metric, slice(None), tested=0)
    return calibration.fit(scored, shipped) or shipped


def _part(scored: usage_model.Scored, hours: slice) -> usage_model.Scored:
    return scored._replace(**{name: getattr(scored, name)[..., hours] for name in scored._fields if name != "state"})


def _scored(panel: Panel, metric: Metric, series: slice, tested: int) -> tuple[usage_model.Scored, Floats | None]:
    kind = KINDS[metric]
    values = panel.course(metric, series, tested=tested, idle_is_zero=kind == "amount")
    exposure = {"errors": "calls", "latency": "latency_calls"}.get(metric)
    trials = None if exposure is None else panel.course(exposure, series, tested=tested, idle_is_zero=False)
    first_hour = (panel.first_day + _WEEKDAY) % 7 * 24
    return usage_model.score(kind, values, trials, first_hour=first_hour), trials


class _Seen(NamedTuple):
    """One metric of some series over the tested days and the half day before them, by which an onset is told; and before
    that, until they are judged together, the hours by which it is told whether something lasts."""

    scored: usage_model.Scored
    surprise: Floats
    more: Bools
    share: Floats

    def since(self, hour: int) -> _Seen:
        later = slice(hour, None)
        return _Seen(_part(self.scored, later), self.surprise[:, later], self.more[:, later], self.share[:, later])


def _judge_series(
    panel: Panel, judging: _Judging, tails: Sequence[calibration.Tails], tested: int, series: slice
) -> list[HourVerdict]:
    seen = [_seen(panel, metric, series, tested, some) for metric, some in zip(judging.metrics, tails, strict=True)]
    borrowed = any(some is calibration.shipped()[metric] for metric, some in zip(judging.metrics, tails, strict=True))
    table = calibration.shipped_joint(judging.metrics, borrowed=borrowed)
    joint = calibration.joint_surprise(np.stack([one.surprise for one in seen]), table)
    lasting = calibration.LASTING_HOURS
    seen, surprise, leading = (
        [one.since(lasting) for one in seen],
        joint.surprise[:, lasting:],
        joint.leading[:, lasting:],
    )
    age = np.max([np.nan_to_num(one.scored.age) for one in seen], axis=0)
    together = _settled(surprise, age)
    verdicts = [_verdict(judging, place, one, leading == place, together) for place, one in enumerate(seen)]
    return [HourVerdict(*(_by_day(array, tested) for array in one)) for one in verdicts]


def _by_day(values: Floats, tested: int) -> Floats:
    """The hours of the tested days, (series, hour of the day, day)."""
    latest = values[:, values.shape[1] - tested * 24 :]
    return latest.reshape(len(latest), tested, 24).transpose(0, 2, 1)


def _seen(panel: Panel, metric: Metric, series: slice, tested: int, tails: calibration.Tails) -> _Seen:
    whole, trials = _scored(panel, metric, series, tested)
    latest = slice(-tested * 24 - calibration.BLOCK - calibration.LASTING_HOURS, None)
    scored = _part(whole, latest)
    share: Floats = np.ones_like(scored.age)
    if metric == "errors" and trials is not None:
        calls = trials[:, latest]
        share = np.where(calls > 0, calls, np.nan)
    return _Seen(scored, *calibration.surprise(tails, scored), share)


def _settled(surprises: Floats, age: Floats) -> Floats:
    """What a surprise is worth: echoes and young series count for less."""
    raised = calibration.raised_mark(age)
    onset = np.nan_to_num(calibration.onsets(surprises))
    return np.where(np.isinf(raised), 0.0, np.maximum(onset - np.where(np.isinf(raised), 0.0, raised), 0.0))


def _verdict(judging: _Judging, place: int, seen: _Seen, leads: Bools, together: Floats) -> HourVerdict:
    lower, upper = usage_model.band(KINDS[judging.metrics[place]], seen.scored, judging.width)
    age = np.nan_to_num(seen.scored.age)
    alone = _settled(seen.surprise, age)
    reached = np.where(leads, sigmas(together, judging.of_agent), sigmas(alone, judging.of_metric))
    found = HourVerdict(
        expected=seen.scored.expected / seen.share,
        lower=lower / seen.share,
        upper=upper / seen.share,
        deviation=np.where(seen.more, 1.0, -1.0) * reached,
        confidence=calibration.confidence(np.where(leads, together, alone), age),
    )
    learning = np.isinf(calibration.raised_mark(age)) | np.isnan(seen.surprise)
    return HourVerdict(*(np.where(learning, np.nan, array) for array in found))
