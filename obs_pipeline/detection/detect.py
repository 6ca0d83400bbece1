"""Detection over a range of days: usage tables in, baselines and anomalies out.

Holds the order of the steps and how their arrays become tables; each step itself lives in its own module. A day's
result depends only on the usage of that day and of the look-back before it, so computing days one by one or a whole
range at once gives identical tables. No files, no clock, no settings but those passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_pipeline.detection import metrics, scoring
from obs_pipeline.detection.config import GRAINS, METRICS, AnomalyDetectionConfig, Grain, Metric
from obs_pipeline.detection.explain import EXPLAINED_BY_CALLS, Call, Evidence, Finding, Kind, Moment, SeriesId, explain
from obs_pipeline.detection.incidents import gathered, may_continue
from obs_pipeline.detection.judging import (
    LENDERS,
    Judged,
    by_model,
    calls_before,
    days_used,
    judge,
    largest_before,
    ordinary_weeks,
)
from obs_pipeline.detection.known import NOTHING, Known, Planned, asked, not_learned, planned
from obs_pipeline.detection.models import (
    BASELINE_SCHEMA,
    SEVERITIES,
    STATES,
    TIME,
    Anomaly,
    Rule,
    Severity,
    anomalies_to_table,
    anomaly_id,
)
from obs_pipeline.detection.panel import HOUR_US, Panel, build_panel

if TYPE_CHECKING:
    from obs_pipeline.detection.usage_judging import HourVerdict, Ordinary

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOMENT_SCHEMA: Final = pa.schema(
    [("dt", pa.date32()), ("org", pa.string()), ("project", pa.string()), ("agent", pa.string())]
)
"""Days of series."""

ENCODED_BASELINES: Final = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string())) if pa.types.is_string(field.type) else field
        for field in BASELINE_SCHEMA
    ]
)
"""``BASELINE_SCHEMA`` with its texts as dictionaries, as millions of rows are held of a few words."""

_EPOCH: Final = datetime(1970, 1, 1)
_DAY_US: Final = 24 * HOUR_US
_BLOCK: Final = 1 << 40  # more rows than one day of one grain can have
_WARNING: Final = SEVERITIES.index("warning") + 1
SILENT_IN_A_ROW: Final[Mapping[Grain, int]] = {"day": 1, "hour": 3}
"""Days or hours of one day with nothing at all, where there always was something, before that is news."""
_BASELINES_AT_ONCE: Final = 250_000


@dataclass(frozen=True)
class Detection:
    """Tables of :data:`ENCODED_BASELINES` and ``ANOMALY_SCHEMA``, ordered by day, grain, series, metric and time; after one
    another for shares of the series."""

    baselines: pa.Table
    anomalies: pa.Table


@dataclass(frozen=True)
class Judgement:
    """Some series judged, and not told yet: their baselines, what is abnormal, and what was so on the day before, if it may
    go on."""

    baselines: pa.Table
    verdicts: Sequence[_Verdicts]
    before: Sequence[Anomaly]


_Judgeable = tuple[Grain, Panel, Mapping[Metric, "HourVerdict"]]
"""The usage of the look-back and the tested days, and what the usage model says of these, if it is the method."""


@dataclass(frozen=True)
class _Block:
    """One metric at one grain, judged. Arrays are (series, point, tested day).

    ``asked`` (series, tested day) is by how much more than usual a value must deviate, after what people said.
    """

    panel: Panel
    grain: Grain
    metric: Metric
    judged: Judged
    planned: Planned | None
    asked: Floats

    @property
    def lookback(self) -> int:
        return self.panel.days - int(self.judged.observed.shape[2])

    def rows(self, chosen: npt.NDArray[np.bool_]) -> _Rows:
        """The chosen values and where each of them belongs in the order of the tables."""
        flat = np.flatnonzero(chosen)
        series, point, tested = np.unravel_index(flat, chosen.shape)
        grain, metric = GRAINS.index(self.grain), METRICS.index(self.metric)
        within_day = (series * len(METRICS) + metric) * 24 + point
        return _Rows(
            flat=flat,
            series=series,
            day=self.panel.first_day + self.lookback + tested,
            point=point,
            cell=(series * self.panel.points + point) * self.panel.days + self.lookback + tested,
            order=(tested * len(GRAINS) + grain) * _BLOCK + within_day,
        )


@dataclass(frozen=True)
class _Rows:
    """Some values of a block: their place in its arrays, in the panel, in time and in the order of the tables."""

    flat: Ints
    series: Ints
    day: Ints
    point: Ints
    cell: Ints
    order: Ints

    def time_us(self) -> Ints:
        return self.day * _DAY_US + self.point * HOUR_US


def detect_anomalies(
    hourly: pa.Table,
    daily: pa.Table,
    days: tuple[date, date],
    config: AnomalyDetectionConfig,
    evidence: Callable[[pa.Table], pa.Table] | None = None,
    known: Known = NOTHING,
    heard: pa.Table | None = None,
    now: datetime | None = None,
) -> Detection:
    """Baselines and anomalies of the days ``days[0]`` … ``days[1]`` (inclusive, UTC): :func:`judge_usage`, then
    :func:`tell`."""
    return tell([judge_usage(hourly, daily, days, config, known, heard, now)], evidence)


def judge_usage(
    hourly: pa.Table,
    daily: pa.Table,
    days: tuple[date, date],
    config: AnomalyDetectionConfig,
    known: Known = NOTHING,
    heard: pa.Table | None = None,
    now: datetime | None = None,
    ordinary: Ordinary | None = None,
) -> Judgement:
    """Compare the usage of some series on the days ``days[0]`` … ``days[1]`` (inclusive, UTC) with that before.

    ``hourly`` and ``daily`` are usage by series, as ``sql/series_hourly.sql`` and ``sql/series_daily.sql`` sum it, from
    ``config.history_days`` before the first day on; earlier and later rows are ignored, missing ones are unknown.
    ``known`` is what people said, beforehand and of earlier anomalies. ``heard`` (source, dt, hour) says when each source
    sent anything, also for agents that are not in the tables; without it, only those are heard of. A day or hour that is
    not over at ``now`` (UTC; None: all are over) is no drop. ``ordinary`` is what :func:`ordinary_usage` found in the whole
    fleet; without it, these series are the fleet. Disabled detection judges nothing.
    """
    wholes = _wholes({"day": daily, "hour": hourly}, days, config, known, heard)
    del daily, hourly  # the largest things held, and the panels say it all
    tested = (days[1] - days[0]).days + 1
    if ordinary is None:
        ordinary = _ordinary(wholes, config, tested)
    judgeable = [_judgeable(whole, grain, config, tested, ordinary) for grain, whole in wholes.items()]
    blocks = _blocks(judgeable, config, known)
    verdicts = [_verdicts(block, config, now) for block in blocks]
    going_on = {one.series for some in verdicts for one in some.findings if may_continue(one.grain, one.time, days[0])}
    before = _day_before(wholes.get("hour"), going_on, config, known, now, ordinary)
    return Judgement(_baselines(blocks), verdicts, before)


def ordinary_usage(
    hourly: pa.Table,
    days: tuple[date, date],
    config: AnomalyDetectionConfig,
    known: Known = NOTHING,
    heard: pa.Table | None = None,
) -> Ordinary:
    """What the usage model is to take for ordinary on these days, from hours as for :func:`judge_usage` of the series that
    :func:`~obs_pipeline.detection.usage_judging.teaching_order` puts first; nothing where it is not the method."""
    hours: AnomalyDetectionConfig = config.model_copy(update={"grains": ("hour",)})
    return _ordinary(_wholes({"hour": hourly}, days, hours, known, heard), config, (days[1] - days[0]).days + 1)


def tell(judgements: Sequence[Judgement], evidence: Callable[[pa.Table], pa.Table] | None = None) -> Detection:
    """What was judged as tables, series by series as the judgements come.

    ``evidence`` answers for series and days (``MOMENT_SCHEMA``, each once) with their worst single calls, as
    ``sql/evidence.sql`` finds them; with it the reasons name calls.
    """
    findings = [finding for judgement in judgements for some in judgement.verdicts for finding in some.findings]
    moments = _moments(finding for finding in findings if finding.metric in EXPLAINED_BY_CALLS)
    worst = Evidence(evidence(moments) if evidence is not None and moments.num_rows else None)
    calls = worst.of((finding.series, finding.grain, finding.time) for finding in findings)
    told: list[Anomaly] = []
    for judgement in judgements:
        placed = [placed for some in judgement.verdicts for placed in _anomalies(some, calls)]
        ordered = [anomaly for _, anomaly in sorted(placed, key=lambda one: one[0])]
        told += gathered(ordered, judgement.before)
    baselines = [judgement.baselines for judgement in judgements] or [ENCODED_BASELINES.empty_table()]
    return Detection(pa.concat_tables(baselines), anomalies_to_table(told))


def _ordinary(wholes: Mapping[Grain, Panel], config: AnomalyDetectionConfig, tested: int) -> Ordinary:
    """What is ordinary on the tested days and on the day before them."""
    return ordinary_weeks(wholes["hour"], config, tested + 1) if "hour" in wholes else {}


def _day_before(
    whole: Panel | None,
    agents: Set[SeriesId],
    config: AnomalyDetectionConfig,
    known: Known,
    now: datetime | None,
    ordinary: Ordinary,
) -> list[Anomaly]:
    """The abnormal hours of these agents on the day before the first, by which it is told what goes on from there.

    They come out as that day's own detection finds them. Only these agents are judged, unless one of them is so new
    that it borrows from others.
    """
    if whole is None or not agents:
        return []
    before = config.lookback_of("hour")
    eve, _ = whole.between(0, before)
    near, there = eve.between(before - config.lookback_days, before)
    wanted = np.array([tuple(one.values()) in agents for one in near.series.to_pylist()], dtype=bool)
    new = days_used(near, config.lookback_days)[:, 0] < config.minimum_data_points
    chosen = there if (wanted & new).any() else there[wanted]
    blocks = _blocks([_judgeable(eve, "hour", config, 1, ordinary, chosen)], config, known)
    verdicts = [_verdicts(one, config, now) for one in blocks]
    found = [one for some in verdicts for _, one in _anomalies(some, {})]
    return [one for one in found if (one.org, one.project, one.agent) in agents]


def _blocks(panels: Sequence[_Judgeable], config: AnomalyDetectionConfig, known: Known) -> list[_Block]:
    """Every metric of every panel, judged."""
    return [
        _block(panel, grain, metric, said.get(metric), config, known)
        for grain, panel, said in panels
        for metric in METRICS
        if metric in config.metrics
    ]


def _block(
    panel: Panel,
    grain: Grain,
    metric: Metric,
    verdict: HourVerdict | None,
    config: AnomalyDetectionConfig,
    known: Known,
) -> _Block:
    expected = planned(known, panel, metric, grain, config.lookback_days)
    judged = judge(panel, metric, grain, config, expected, verdict)
    return _Block(panel, grain, metric, judged, expected, asked(known, panel, metric, grain, config.lookback_days))


def _wholes(
    tables: dict[Grain, pa.Table],
    days: tuple[date, date],
    config: AnomalyDetectionConfig,
    known: Known,
    heard: pa.Table | None,
) -> dict[Grain, Panel]:
    """The usage of the days, of the day before them, and of the longest look-back of that, at each grain."""
    first, last = days
    if not config.enabled or last < first:
        return {}
    wholes: dict[Grain, Panel] = {}
    for grain in (grain for grain in GRAINS if grain in config.grains):
        panel = build_panel(
            tables.pop(grain),
            grain,
            first - timedelta(days=1 + config.lookback_of(grain)),
            last,
            silence_hours=config.source_silence_hours,
            latency_calls=config.minimum_calls.latency,
            heard=heard,
        )
        wholes[grain] = replace(panel, masked=not_learned(known, panel, grain))
    return wholes


def _judgeable(
    whole: Panel,
    grain: Grain,
    config: AnomalyDetectionConfig,
    tested: int,
    ordinary: Ordinary,
    chosen: Ints | None = None,
) -> _Judgeable:
    """The look-back and the last ``tested`` days of a panel, and what the usage model says of these; of the chosen series
    alone, if some are given."""
    said = by_model(whole, grain, config, tested, ordinary, chosen)
    near, there = whole.between(whole.days - tested - config.lookback_days, whole.days - 1)
    if chosen is not None:
        kept = np.flatnonzero(np.isin(there, chosen))
        near, there = near.of(kept), there[kept]
    return grain, near, {metric: verdict.of(there) for metric, verdict in said.items()}


# ---- baselines ------------------------------------------------------------------------------------------------


def _baselines(blocks: Sequence[_Block]) -> pa.Table:
    """The baselines of all days, made of some days at a time, so that little but the table itself takes memory."""
    if not blocks:
        return ENCODED_BASELINES.empty_table()
    known = [~np.isnan(block.judged.observed) for block in blocks]
    days = known[0].shape[2]
    pieces = min(days, 1 + sum(int(some.sum()) for some in known) // _BASELINES_AT_ONCE)
    piece = np.arange(days) * pieces // days
    return pa.concat_tables([_baselines_of(blocks, [some & (piece == n) for some in known]) for n in range(pieces)])


def _baselines_of(blocks: Sequence[_Block], chosen: Sequence[npt.NDArray[np.bool_]]) -> pa.Table:
    rows = [block.rows(some) for block, some in zip(blocks, chosen, strict=True)]
    order = np.argsort(np.concatenate([some.order for some in rows]), kind="stable")

    def gather(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(parts)[order]

    def values(name: str) -> npt.NDArray[Any]:
        return gather([getattr(b.judged, name).reshape(-1)[r.flat] for b, r in zip(blocks, rows, strict=True)])

    def words(names: Sequence[str], of_block: Sequence[int]) -> Any:
        counts = [some.flat.size for some in rows]
        codes = np.repeat(np.array(of_block, dtype=np.int32), counts)[order]
        return pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))

    identities, series = _identities(blocks, rows)
    owners = pa.array(gather(series))
    expected = values("expected")
    learned = ~np.isnan(expected)
    columns: dict[str, Any] = {
        "dt": pa.array(gather([some.day for some in rows]).astype(np.int32), pa.date32()),
        "grain": words(GRAINS, [GRAINS.index(block.grain) for block in blocks]),
        "time": pa.array(gather([some.time_us() for some in rows])).cast(TIME),
        **{name: identities[name].dictionary_encode().take(owners) for name in ("org", "project", "agent")},
        "metric": words(METRICS, [METRICS.index(block.metric) for block in blocks]),
        "observed": values("observed"),
        "expected": pa.array(expected, mask=~learned),
        **{name: pa.array(values(name), mask=~learned) for name in ("lower", "upper", "deviation")},
        "points": values("points").astype(np.int32),
        "state": pa.DictionaryArray.from_arrays(_states(gather, blocks, rows, learned), STATES),
    }
    return pa.table(columns, schema=ENCODED_BASELINES)


def _states(
    gather: Callable[[Sequence[npt.NDArray[Any]]], npt.NDArray[Any]],
    blocks: Sequence[_Block],
    rows: Sequence[_Rows],
    learned: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int32]:
    """The place in :data:`STATES` of each baseline."""
    lent = gather(
        [
            np.zeros(some.flat.size, bool)
            if b.judged.borrowed is None
            else b.judged.borrowed.reshape(-1)[some.flat] >= 0
            for b, some in zip(blocks, rows, strict=True)
        ]
    )
    return np.where(lent, STATES.index("borrowed"), learned).astype(np.int32)


def _identities(blocks: Sequence[_Block], rows: Sequence[_Rows]) -> tuple[pa.Table, list[Ints]]:
    """The series of all panels in one table, and the row of it for each value of each block."""
    panels = list({id(block.panel): block.panel for block in blocks}.values())
    starts = np.cumsum([0, *(panel.series.num_rows for panel in panels)])
    start_of = {id(panel): int(start) for panel, start in zip(panels, starts[:-1], strict=True)}
    series = [some.series + start_of[id(block.panel)] for block, some in zip(blocks, rows, strict=True)]
    return pa.concat_tables([panel.series for panel in panels]).combine_chunks(), series


# ---- anomalies ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Verdicts:
    """The abnormal values of one block and what was decided about each of them."""

    order: Ints
    findings: list[Finding]
    ranks: Ints
    scores: Floats
    confidences: Floats
    methods: list[Rule]
    remarks: list[dict[str, Any]]


def _verdicts(block: _Block, config: AnomalyDetectionConfig, now: datetime | None) -> _Verdicts:
    judged, metric, grain = block.judged, block.metric, block.grain
    floor = config.materiality.floor(metric, grain)
    excess = metrics.excess(metric, judged.observed, judged.due, judged.exposure)
    usual = metrics.excess(metric, judged.expected, np.zeros(1), judged.exposure)
    over = _over(block, now)
    counts = (excess > 0) | (judged.drops & over)
    material = counts & (np.abs(excess) >= config.materiality.relative * np.abs(usual))
    stake = np.where(material, np.abs(excess) / floor, 0.0)
    silent = np.where(over, _silence(block, config), 0.0)
    weighed = judged.deviation / block.asked[:, None, :]
    marks = config.marks(grain)
    by_deviation = scoring.severity_ranks(weighed, stake, marks)
    if judged.by_windows is not None:
        simple = scoring.severity_ranks(weighed, stake, config.thresholds)
        by_deviation = np.where(judged.by_windows, simple, by_deviation)
    # Nothing at all, where there always was something, is news however widely the amounts scatter. It is not worth more
    # than a warning, as is what is known from others alone.
    by_deviation = np.maximum(by_deviation, np.where(silent >= 1, _WARNING, 0).astype(np.int8))
    weighed = np.where((silent >= 1) & (weighed > -marks.warning), -marks.warning, weighed)
    if judged.borrowed is not None:
        by_deviation = np.where(judged.borrowed >= 0, np.minimum(by_deviation, _WARNING), by_deviation)

    overcharge = _overcharge(block)
    by_price = scoring.price_ranks(overcharge, config.price_contradiction)
    moved = _moved(block, config)
    above, by_ceiling = _above_ceiling(block, config)
    ranks = np.maximum.reduce([by_deviation, by_price, by_ceiling, moved.astype(np.int8)])

    rows = block.rows((ranks > 0) & ~np.isnan(judged.observed))
    at = rows.flat

    def chosen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values.reshape(-1)[at]

    price_decides = (chosen(by_price) > 0) & (chosen(by_price) >= chosen(by_deviation))
    ceiling_decides = ~price_decides & (chosen(by_ceiling) > chosen(by_deviation))
    by_shift = chosen(moved) & (chosen(ranks) == 1) & (chosen(by_deviation) == 0)
    deviation, observed = chosen(weighed), chosen(judged.observed)
    # A contradicted price is no matter of sigmas: it weighs as much as the threshold of a critical deviation.
    sigmas = np.where(price_decides, np.fmax(np.abs(deviation), marks.critical), deviation)
    if judged.shift is not None:
        sigmas = deviation = np.where(by_shift, chosen(judged.shift.deviation), sigmas)
    sigmas = np.where(ceiling_decides, marks.warning, sigmas)
    stakes = np.maximum.reduce([chosen(stake), chosen(silent), chosen(overcharge) / floor, chosen(above)])
    scores = scoring.scores(sigmas, stakes, chosen(ranks))
    # An hour that an event kept from the model, and a new agent's, have no calibrated confidence.
    points = chosen(judged.points)
    if judged.borrowed is not None:
        points = np.where(chosen(judged.borrowed) >= 0, np.maximum(points, config.minimum_data_points), points)
    stated = np.full(deviation.shape, np.nan)
    if judged.confidence is not None:
        from obs_pipeline.detection import calibration

        asked_of = chosen(np.broadcast_to(block.asked[:, None, :], judged.observed.shape))
        stated = calibration.confidence_when_asked(chosen(judged.confidence), asked_of)
    confidences = np.where(
        price_decides,
        scoring.price_confidences(observed, chosen(overcharge)),
        np.where(
            np.isnan(stated),
            scoring.told(scoring.confidences(deviation, points, grain), "windows"),
            scoring.told(np.nan_to_num(stated), scoring.RULE_OF.get(config.method.of(grain), "model")),
        ),
    )
    confidences = np.where(ceiling_decides, scoring.CEILING_CONFIDENCE, np.nan_to_num(confidences))
    findings = _findings(block, rows, price_decides, chosen(overcharge), by_shift)
    findings = _told_why(findings, block, rows, ceiling_decides, config.new_agent_ceiling.warning)
    methods: list[Rule] = [config.method.of(grain)] * at.size
    if judged.by_windows is not None:
        methods = [
            "zscore" if windows else method for windows, method in zip(chosen(judged.by_windows), methods, strict=True)
        ]
    remarks = _remarks(block, rows)
    return _Verdicts(rows.order, findings, chosen(ranks), scores, confidences, methods, remarks)


def _remarks(block: _Block, rows: _Rows) -> list[dict[str, Any]]:
    """What people said that bears on each value, for the context of its anomaly."""
    tested = rows.day - block.panel.first_day - block.lookback
    factors = block.asked[rows.series, tested]
    return [
        {
            **({"planned_event": name} if block.planned and (name := block.planned.name(int(flat))) else {}),
            **({"thresholds_times": round(float(factor), 3)} if factor != 1 else {}),
        }
        for flat, factor in zip(rows.flat, factors, strict=True)
    ]


def _moments(findings: Iterable[Finding]) -> pa.Table:
    """The series and days of some findings, each once."""
    asked = {(finding.time.date(), *finding.series) for finding in findings}
    columns = zip(*asked, strict=True) if asked else [[]] * len(MOMENT_SCHEMA)
    return pa.table([list(column) for column in columns], schema=MOMENT_SCHEMA)


def _anomalies(verdicts: _Verdicts, calls: Mapping[Moment, Mapping[Kind, Call]]) -> list[tuple[int, Anomaly]]:
    """The anomalies of one block, each with its place in the order."""
    ranked = zip(
        verdicts.order,
        verdicts.findings,
        verdicts.ranks,
        verdicts.scores,
        verdicts.confidences,
        verdicts.methods,
        verdicts.remarks,
        strict=True,
    )
    return [
        (
            int(order),
            _anomaly(
                finding,
                _remarked(explain(finding, calls.get((finding.series, finding.grain, finding.time), {})), remarks),
                severity=SEVERITIES[rank - 1],
                score=round(float(score), 2),
                confidence=round(float(confidence), 3),
                method=_method(finding, method),
            ),
        )
        for order, finding, rank, score, confidence, method, remarks in ranked
    ]


def _method(finding: Finding, detector: Rule) -> Rule:
    if finding.by_price:
        return "list_price"
    if finding.ceiling is not None:
        return "new_agent_ceiling"
    return detector if finding.moved_to is None else "level_shift"


def _remarked(explanation: tuple[str, dict[str, Any]], remarks: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The explanation, with the planned event that does not explain it."""
    reason, context = explanation
    if event := remarks.get("planned_event"):
        reason = f"{reason} The planned event {event!r} explains only a part of it."
    return reason, {**context, **remarks}


def _moved(block: _Block, config: AnomalyDetectionConfig) -> npt.NDArray[np.bool_]:
    """On which days a new level is told: the first on which it is learned, if it matters."""
    judged, metric = block.judged, block.metric
    if judged.shift is None or not config.settles_after:
        return np.zeros(judged.observed.shape, dtype=bool)
    shift = judged.shift
    step = np.abs(metrics.excess(metric, shift.since, shift.before, judged.exposure))
    usual = np.abs(metrics.excess(metric, shift.before, np.zeros(1), judged.exposure))
    least = np.maximum(config.materiality.floor(metric, block.grain), config.materiality.relative * usual)
    moved: npt.NDArray[np.bool_] = (shift.days == config.settles_after) & (step >= least)
    return moved


def _over(block: _Block, now: datetime | None) -> npt.NDArray[np.bool_]:
    """(point, tested day): which of them were over."""
    _, points, tested = block.judged.observed.shape
    first = block.panel.first_day + block.lookback
    ends = (first + np.arange(tested)) + (np.arange(points)[:, None] + 1) / points
    until = np.inf if now is None else (now - _EPOCH) / timedelta(days=1)
    over: npt.NDArray[np.bool_] = ends <= until + 1e-9
    return over


def _silence(block: _Block, config: AnomalyDetectionConfig) -> Floats:
    """How many times the least number of calls that matters are usual where there are none at all; told of one metric."""
    judged, told = block.judged, next((one for one in ("cost", "tokens") if one in config.metrics), None)
    silent = judged.never_idle & (judged.observed == 0)
    if block.metric != told or not silent.any():
        return np.zeros(judged.observed.shape)
    # A whole day counts with the fewest calls that any had: people rest. Hours must add up.
    mean, smallest = calls_before(block.panel, block.lookback)
    usual = np.where(silent, smallest if block.grain == "day" else mean, 0.0)
    long = _in_a_row(silent.astype(np.float64), silent) >= SILENT_IN_A_ROW[block.grain]
    missing = _in_a_row(usual, silent) / config.materiality.floor("silence", block.grain)
    return np.where(silent & long, missing, 0.0)


def _in_a_row(values: Floats, going_on: npt.NDArray[np.bool_]) -> Floats:
    """Sums along the points of a day, begun anew after each that is not going on."""
    running = np.cumsum(np.where(going_on, values, 0.0), axis=1)
    return running - np.maximum.accumulate(np.where(going_on, 0.0, running), axis=1)


def _above_ceiling(block: _Block, config: AnomalyDetectionConfig) -> tuple[Floats, npt.NDArray[np.int8]]:
    """By how many times the cost of a new agent exceeds its ceiling, and how grave that is."""
    if block.metric != "cost":
        return np.zeros(block.judged.observed.shape), np.zeros(block.judged.observed.shape, dtype=np.int8)
    new = days_used(block.panel, block.lookback) < config.minimum_data_points
    spent = np.where(new[:, None, :], np.nan_to_num(block.judged.observed), 0.0)
    spent = np.where(spent <= block.judged.upper, 0.0, spent)  # those around it spend as much
    before = np.nan_to_num(largest_before(block.panel, "cost", block.lookback))[:, None, :]
    ranks = scoring.price_ranks(spent, config.new_agent_ceiling)
    ranks = np.where(ranks > scoring.price_ranks(before, config.new_agent_ceiling), ranks, 0).astype(np.int8)
    return np.where(ranks > 0, spent / config.new_agent_ceiling.warning, 0.0), ranks


def _told_why(
    findings: list[Finding], block: _Block, rows: _Rows, by_ceiling: npt.NDArray[np.bool_], ceiling: float
) -> list[Finding]:
    """The findings with the ceiling that they exceed, or with whom their baseline was borrowed from."""
    lent = (
        np.full(rows.flat.size, -1) if block.judged.borrowed is None else block.judged.borrowed.reshape(-1)[rows.flat]
    )
    lenders = tuple(LENDERS)
    return [
        replace(one, ceiling=ceiling if told else None, lender=lenders[place] if place >= 0 else None)
        for one, told, place in zip(findings, by_ceiling, lent, strict=True)
    ]


def _overcharge(block: _Block) -> Floats:
    """USD reported above list price in calls that contradict it; zero where there are none, and but for cost."""
    tested = block.judged.observed
    if block.metric != "cost":
        return np.zeros(tested.shape)
    above = block.panel.spread(block.panel.sums["overcharge"])
    return np.maximum(np.nan_to_num(above[..., block.lookback :]), 0.0)


def _findings(
    block: _Block,
    rows: _Rows,
    by_price: npt.NDArray[np.bool_],
    overcharge: Floats,
    by_shift: npt.NDArray[np.bool_],
) -> list[Finding]:
    def sums(name: str) -> list[float]:
        return [float(value) for value in np.nan_to_num(block.panel.at(name, rows.cell))]

    def judged(name: str) -> list[float | None]:
        values = getattr(block.judged, name).reshape(-1)[rows.flat]
        return [None if np.isnan(value) else float(value) for value in values]

    identities = block.panel.series.take(pa.array(rows.series)).to_pylist()
    shift = block.judged.shift
    columns: dict[str, list[Any]] = {
        "series": [(one["org"], one["project"], one["agent"]) for one in identities],
        "time": [_EPOCH + timedelta(microseconds=moment) for moment in rows.time_us().tolist()],
        **{name: judged(name) for name in ("observed", "expected", "lower", "upper", "deviation")},
        "points": block.judged.points.reshape(-1)[rows.flat].tolist(),
        "calls": sums("calls"),
        "errors": sums("errors"),
        "overcharge": overcharge.tolist(),
        "list_cost": sums("overcharged_list_cost"),
        "mispriced_calls": sums("mispriced_calls"),
        "by_price": by_price.tolist(),
        "moved_from": _where(by_shift, None if shift is None else shift.before, rows),
        "moved_to": _where(by_shift, None if shift is None else shift.since, rows),
    }
    findings = [
        Finding(metric=block.metric, grain=block.grain, **dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]
    return findings if shift is None else _told_from_before(findings, _where(by_shift, shift.deviation, rows))


def _told_from_before(findings: list[Finding], deviations: list[float | None]) -> list[Finding]:
    """A new level is compared with the old one, not with itself."""
    return [
        replace(one, expected=one.moved_from, lower=None, upper=None, deviation=deviation)
        if one.moved_to is not None
        else one
        for one, deviation in zip(findings, deviations, strict=True)
    ]


def _where(chosen: npt.NDArray[np.bool_], values: Floats | None, rows: _Rows) -> list[float | None]:
    """The values of the rows that are chosen, None for the others."""
    if values is None:
        return [None] * chosen.size
    return [float(value) if told else None for told, value in zip(chosen, values.reshape(-1)[rows.flat], strict=True)]


def _anomaly(
    finding: Finding,
    explanation: tuple[str, dict[str, Any]],
    *,
    severity: Severity,
    score: float,
    confidence: float,
    method: Rule,
) -> Anomaly:
    org, project, agent = finding.series
    reason, context = explanation
    return Anomaly(
        id=anomaly_id(org, project, agent, finding.metric, finding.grain, finding.time),
        timestamp=finding.time,
        org=org,
        project=project,
        agent=agent,
        metric=finding.metric,
        grain=finding.grain,
        severity=severity,
        score=score,
        confidence=confidence,
        baseline=finding.expected if finding.expected is not None else finding.list_cost,
        observed=finding.observed,
        deviation=finding.deviation,
        lower=finding.lower,
        upper=finding.upper,
        method=method,
        reason=reason,
        context=context,
    )
