"""The answers: one function a question, each from one pinned set of versions and one look at the ledger.

Here: the SQL over what the snapshot shows and the arithmetic of the answers. Whose rows they are was decided before: a reader
shows a caller's own rows only. No cache, no transport, no clock: a timeframe ends with the last computed day, so that the
same data gives the same answer whenever it is asked.

Slices add up: rows without a value for the dimension are the slice ``(unattributed)``, those beyond the largest are ``(rest)``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import Any, Final

from obs_pipeline.alerting import records
from obs_pipeline.alerting.wording import title_of
from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import Principal
from obs_pipeline.dashboard.snapshot import FOLLOWED, NotReady, Pinned, Reader
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.explanations import Explanation
from obs_pipeline.detection.models import Anomaly
from obs_pipeline.detection.tables import BASELINES
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import IncidentRow, TraceRow
from obs_pipeline.storage.anomaly_labels import AnomalyLabels
from obs_pipeline.storage.lake import DayRange, LakeTable
from obs_pipeline.storage.ledger_state import SourceDays
from obs_pipeline.usage.watermark import provisional_days

Explain = Callable[[Reader, Anomaly], Explanation]
"""Takes an anomaly apart by the events behind it that a reader shows."""

_LARGEST: Final = 50
_ANOMALY_COLUMNS: Final = tuple(name for name in q.AnomalyShown.model_fields if name != "label")
_LEADING: Final = 3
_MARKS: Final = 200
_TOLD: Final = 20_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_SLICE: Final = """
    CAST(coalesce(sum(cost), 0) AS DECIMAL(38, 9)) AS cost, CAST(coalesce(sum(calls), 0) AS BIGINT) AS calls,
    CAST(coalesce(sum(errors), 0) AS BIGINT) AS errors,
    CAST(coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)), 0) AS BIGINT) AS tokens,
    CAST(coalesce(sum(saved_tokens), 0) AS BIGINT) AS saved_tokens
"""


@dataclass(frozen=True, slots=True)
class Asking:
    """What an answer is made from: the caller, its reader, the ledger's word on sources, the alert store and a way to the
    events if there are."""

    principal: Principal
    reader: Reader
    sources: Mapping[str, SourceDays]
    lateness: timedelta
    alerts: AlertStore | None
    explain: Explain | None = None
    reads: Sequence[LakeTable] = FOLLOWED
    labels: AnomalyLabels | None = None

    @property
    def pinned(self) -> Pinned:
        return self.reader.pinned

    @property
    def versions(self) -> dict[str, int]:
        """Those of the tables that the question reads."""
        return self.pinned.versions_of(self.reads)

    def window(self, timeframe: q.Timeframe, end: date | None) -> DayRange:
        """The days of a timeframe, up to ``end`` or the last computed day."""
        held = self.pinned.days
        if held is None:
            raise NotReady("There is no usage in the lake yet. Run: obs-pipeline batch")
        last = end or held.last
        if not date(1970, 1, 31) <= last <= date(9000, 1, 1):
            raise q.BadQuestion("end: choose a day between 1970-01-31 and 9000-01-01.")
        return DayRange(last - timedelta(days=q.DAYS[timeframe] - 1), last)

    def told(self, days: DayRange, where: str = "true", values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What every answer tells of itself, over the rows that it is about."""
        (row,) = self.reader.rows(
            f"""
            SELECT CAST(coalesce(sum(calls), 0) AS BIGINT) AS calls,
                CAST(coalesce(sum(unpriced_calls), 0) AS BIGINT) AS unpriced_calls,
                CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS unpriced_bound,
                CAST(coalesce(sum(unattributed_cost), 0) AS DECIMAL(38, 9)) AS unattributed_cost
            FROM {_spend(where)} WHERE dt BETWEEN $first AND $last AND {where}
            """,
            {"first": days.first, "last": days.last, **(values or {})},
        )
        return self.told_of(days, row)

    def told_of(self, days: DayRange, row: Mapping[str, Any]) -> dict[str, Any]:
        seen = {source: [day for day in of.days if day in days] for source, of in self.sources.items()}
        newest = {source: of.newest_event for source, of in self.sources.items()}
        provisional = provisional_days(seen, newest, self.lateness)
        return {
            "as_of": max((moment for moment in newest.values() if moment is not None), default=None),
            "first_day": days.first,
            "last_day": days.last,
            "coverage": q.Coverage(**row, provisional_days=provisional),
            "versions": self.versions,
        }


def metrics(asking: Asking, asked: q.MetricsAsked) -> q.Metrics:
    """Spending against budget, tokens, and how both moved against as many days before."""
    days = asking.window(asked.timeframe, asked.end)
    before = DayRange(days.first - timedelta(days=len(days)), days.first - timedelta(days=1))
    where, values = _where(asked)
    rows = asking.reader.rows(
        f"""
        SELECT dt >= $first AS current, {_SLICE},
            CAST(coalesce(sum(input_tokens), 0) AS BIGINT) AS input, CAST(coalesce(sum(output_tokens), 0) AS BIGINT) AS output,
            CAST(coalesce(sum(cache_read_tokens), 0) AS BIGINT) AS cached,
            CAST(coalesce(sum(unpriced_calls), 0) AS BIGINT) AS unpriced_calls,
            CAST(sum(cost_bound) AS DECIMAL(38, 9)) AS unpriced_bound,
            CAST(coalesce(sum(unattributed_cost), 0) AS DECIMAL(38, 9)) AS unattributed_cost
        FROM {_spend(where)} WHERE dt BETWEEN $before AND $last AND {where}
        GROUP BY current
        """,
        {"first": days.first, "before": before.first, "last": days.last, **values},
    )
    totals = {row["current"]: row for row in rows}
    now, then = totals.get(True, _NOTHING), totals.get(False, _NOTHING)
    budget = _cost_budget(asking, asked)
    consumed, saved = now["tokens"], now["saved_tokens"]
    return q.Metrics(
        **asking.told_of(days, {name: now[name] for name in q.Coverage.model_fields if name != "provisional_days"}),
        timeframe=asked.timeframe,
        by=asked.by,
        spending=q.Spending(
            current=now["cost"],
            previous=then["cost"],
            budget=budget,
            percentage=float(now["cost"] / budget * 100) if budget else None,
        ),
        tokens=q.Tokens(
            consumed=consumed,
            input=now["input"],
            output=now["output"],
            cached=now["cached"],
            saved=saved,
            efficiency=saved / (consumed + saved) if consumed + saved > 0 else None,
            cached_share=now["cached"] / now["input"] if now["input"] > 0 else None,
        ),
        calls=now["calls"],
        errors=now["errors"],
        trends={name: _change(now[name], then[name]) for name in ("cost", "tokens", "calls", "errors")},
        slices=_slices(asking, asked.by, where, {"first": days.first, "last": days.last, **values}),
    )


def trends(asking: Asking, asked: q.TrendsAsked) -> q.Trends:
    """A series over time with the band of the ordinary and the anomalies in it."""
    days = asking.window(asked.timeframe, asked.end)
    where, values = _where(asked)
    spoken = {**values, "first": days.first, "last": days.last, "metric": asked.metric, "grain": asked.granularity}
    expected, band = _band(asking, asked, days, spoken)
    if asked.metric == "latency":
        found = {moment: row["observed"] for moment, row in expected.items()}
    else:
        found = _series(asking, asked, days, where, spoken)
    points = [
        q.Point(
            time=moment,
            value=value,
            **{name: expected[moment][name] if moment in expected else None for name in ("expected", "lower", "upper")},
        )
        for moment, value in sorted(found.items())
    ]
    marks = _marks(asking, asked, spoken)
    unit = {"cost": "USD", "tokens": "tokens", "calls": "calls", "errors": "share of calls", "latency": "ms"}[
        asked.metric
    ]
    return q.Trends(
        **asking.told(days, where, values),
        metric=asked.metric,
        granularity=asked.granularity,
        unit=unit,
        points=points,
        anomalies=[q.AnomalyMark(**_only(mark, *q.AnomalyMark.model_fields)) for mark in marks],
        marked=marks[0]["marked"] if marks else 0,
        band=band,
    )


def anomalies(asking: Asking, asked: q.AnomaliesAsked) -> q.Anomalies:
    """Anomalies that begin in a timeframe, as grave as they became, the highest score first."""
    days = asking.window(asked.timeframe, asked.end)
    names = ("org", "project", "agent", "metric", "severity")
    where, values = _narrowed(asked, names), _given(asked, names)
    within = f"FROM onsets WHERE dt BETWEEN $first AND $last AND {where}"
    spoken = {"first": days.first, "last": days.last, **values}
    counts = asking.reader.rows(f"SELECT severity, count(*) AS found {within} GROUP BY severity", spoken)
    by_severity = {row["severity"]: row["found"] for row in counts}
    start, mark = _start(asking, asked)
    columns = ", ".join(_ANOMALY_COLUMNS)
    order = f"ORDER BY score DESC, timestamp, id LIMIT {asked.limit} OFFSET {start}"
    rows = asking.reader.rows(f"SELECT {columns} {within} {order}", spoken)
    return q.Anomalies(
        **asking.told(days, *_about(asked)),
        **_page(sum(by_severity.values()), start, len(rows), mark),
        anomalies=_anomalies_shown(asking, rows),
        by_severity=by_severity,
    )


def explain_anomaly(asking: Asking, asked: q.ExplainAsked) -> q.Explained:
    """Why an anomaly is one: what was expected, what was seen, and the days around it."""
    query = """
        SELECT * FROM onsets WHERE starts_with(id, $id)
        UNION ALL SELECT * FROM anomalies WHERE starts_with(id, $id) AND id NOT IN (SELECT id FROM onsets)
        LIMIT 2
    """
    found = asking.reader.rows(query, {"id": asked.anomaly})
    if len(found) != 1:
        what = "no anomaly" if not found else "more than one anomaly"
        raise q.BadQuestion(f"anomalyId: {what} with an id that begins with {asked.anomaly!r}.")
    (row,) = found
    span = timedelta(days=14) if row["grain"] == "day" else timedelta(hours=36)
    first, last = row["timestamp"] - span, row["timestamp"] + span
    bands, of_grain = _bands(asking, row["grain"], DayRange(first.date(), last.date()))
    around = asking.reader.rows(
        f"""
        SELECT time, observed AS value, expected, lower, upper FROM {bands}
        WHERE metric = $metric AND {of_grain} AND time BETWEEN $first AND $last AND org IS NOT DISTINCT FROM $org
            AND project IS NOT DISTINCT FROM $project AND agent IS NOT DISTINCT FROM $agent
        ORDER BY time
        """,
        {**_only(row, "metric", "org", "project", "agent"), "first": first, "last": last},
    )
    same = _only(row, "org", "project", "agent")
    alike = " AND ".join(f"{name} IS NOT DISTINCT FROM ${name}" for name in same)
    return q.Explained(
        **asking.told(DayRange(row["dt"], row["dt"]), alike, same),
        anomaly=_anomalies_shown(asking, [_only(row, *_ANOMALY_COLUMNS)])[0],
        lower=row["lower"],
        upper=row["upper"],
        method=row["method"],
        context=json.loads(row["context"]),
        around=[q.Point(**point) for point in around],
        split=_split_shown(asking.explain(asking.reader, _anomaly(row))) if asking.explain else None,
    )


def _anomalies_shown(asking: Asking, rows: Sequence[Mapping[str, Any]]) -> list[q.AnomalyShown]:
    """Rows of the anomalies' table with what was said of each."""
    said = asking.labels.verdicts([row["id"] for row in rows]) if asking.labels else {}
    return [q.AnomalyShown(**row, label=said.get(row["id"])) for row in rows]


def _anomaly(row: Mapping[str, Any]) -> Anomaly:
    own = _only(row, *(field.name for field in fields(Anomaly)))
    return Anomaly(**{**own, "context": json.loads(row["context"])})


def _split_shown(found: Explanation) -> q.SplitShown:
    split = found.split
    return q.SplitShown(
        cause=found.cause.name,
        because=found.cause.because,
        unit=split.unit,
        observed=split.observed,
        expected=split.expected,
        terms=[
            q.TermShown(
                name=term.name,
                amount=term.amount,
                by_model=[q.ModelPart(model=model, amount=amount) for model, amount in term.by_model[:_LEADING]],
            )
            for term in split.terms
            if term.amount
        ],
        unpriced_calls=split.unpriced_calls,
        reference_start=found.reference_start,
    )


def export_data(asking: Asking, asked: q.ExportAsked) -> q.Export:
    """The rows behind the totals: one a day, project, team, agent, provider and model."""
    days = asking.window(asked.timeframe, asked.end)
    where, values = _where(asked)
    query, spoken = exported_rows(asking, asked)
    start, mark = _start(asking, asked)
    (whole,) = asking.reader.rows(
        f"""
        SELECT count(*) AS found, CAST(coalesce(sum(cost), 0) AS DECIMAL(38, 9)) AS cost
        FROM spend_day WHERE dt BETWEEN $first AND $last AND {where}
        """,
        spoken,
    )
    rows = asking.reader.rows(f"{query} LIMIT {asked.limit} OFFSET {start}", spoken)
    return q.Export(
        **asking.told(days, where, values),
        **_page(whole["found"], start, len(rows), mark),
        format=asked.format,
        media_type="text/csv" if asked.format == "csv" else "application/json",
        content=as_csv(rows) if asked.format == "csv" else json.dumps(rows, default=_plain, ensure_ascii=False),
        total_cost=whole["cost"],
    )


def exported_rows(asking: Asking, asked: q.ExportAsked) -> tuple[str, dict[str, Any]]:
    """The query of every row of an export, and its values."""
    days = asking.window(asked.timeframe, asked.end)
    where, values = _where(asked)
    return _exported(where), {"first": days.first, "last": days.last, **values}


def entities(asking: Asking, asked: q.EntitiesAsked) -> q.Entities:
    """Projects, teams, agents, providers or models, the dearest first: what a drill-down shows."""
    days = asking.window(asked.timeframe, asked.end)
    where, values = _where(asked)
    spoken: dict[str, Any] = {"first": days.first, "last": days.last, "none": q.UNATTRIBUTED, **values}
    searched = "true"
    if asked.search:
        searched, spoken["search"] = "contains(lower(name), lower($search))", asked.search
    grouped = f"""
        SELECT * FROM (
            SELECT coalesce({asked.level}, $none) AS name, {_SLICE}
            FROM {_spend(where, asked.level)} WHERE dt BETWEEN $first AND $last AND {where} GROUP BY {asked.level}
        ) WHERE {searched}
    """
    start, mark = _start(asking, asked)
    rows = asking.reader.rows(
        f"SELECT *, count(*) OVER () AS found FROM ({grouped}) ORDER BY cost DESC, name LIMIT {asked.limit} OFFSET {start}",
        spoken,
    )
    total = rows[0].pop("found") if rows else start
    before = _cost_before(asking, asked, days, [row["name"] for row in rows])
    return q.Entities(
        **asking.told(days, where, values),
        **_page(total, start, len(rows), mark),
        level=asked.level,
        entities=[
            q.Entity(**_only(row, *q.Slice.model_fields), previous_cost=before.get(row["name"], Decimal(0)))
            for row in rows
        ],
    )


def effective_policy(asking: Asking, asked: q.PolicyAsked) -> q.EffectivePolicyShown:
    """Which limits hold for an organisation, project or agent, and which policies decided each."""
    scope = "agent" if asked.agent else "project" if asked.project else "org"
    newest = asking.reader.newest_day(EFFECTIVE_POLICIES)
    days = newest or asking.window("day", None)
    asking.reader.show(EFFECTIVE_POLICIES, days)
    about, given = _about(asked)
    rows = asking.reader.rows(
        f"SELECT * FROM effective_policies WHERE scope = $scope AND {about} ORDER BY org, project, agent, field",
        {"scope": scope, **given},
    )
    places = {(row["org"], row["project"], row["agent"]) for row in rows}
    if len(places) > 1:
        raise q.BadQuestion(f"orgId, projectId: {len(places)} places fit; name the organisation and project too.")
    org, project, agent = places.pop() if places else (asked.org, asked.project, asked.agent)
    told = (
        "These limits held at the end of the day."
        if rows
        else "No policy holds here that you may see, or none was computed yet."
    )
    return q.EffectivePolicyShown(
        **asking.told(days, *_about(asked)),
        scope=scope,
        org=org,
        project=project,
        agent=agent,
        as_at=newest.last if newest else None,
        fields=[
            q.PolicyField(**{**_only(row, *q.PolicyField.model_fields), "trail": json.loads(row["trail"])})
            for row in rows
        ],
        told=told,
    )


def budget_status(asking: Asking, asked: q.BudgetsAsked) -> q.Budgets:
    """Where budgets stand, the fullest first."""
    days = asking.reader.newest_day(BUDGET_STATUS) or asking.window("day", None)
    asking.reader.show(BUDGET_STATUS, days)
    names = ("scope", "state", "org", "project", "agent")
    within = f"FROM budget_status WHERE {_narrowed(asked, names)}"
    spoken = _given(asked, names)
    counts = asking.reader.rows(f"SELECT state, count(*) AS found {within} GROUP BY state", spoken)
    by_state = {row["state"]: row["found"] for row in counts}
    start, mark = _start(asking, asked)
    rows = asking.reader.rows(
        f'SELECT *, limit_amount AS "limit" {within} ORDER BY ratio DESC NULLS LAST, window_key '
        f"LIMIT {asked.limit} OFFSET {start}",
        spoken,
    )
    return q.Budgets(
        **asking.told(days, *_about(asked)),
        **_page(sum(by_state.values()), start, len(rows), mark),
        at=max((row["judged_at"] for row in rows), default=None),
        by_state=by_state,
        budgets=[q.BudgetShown(**_only(row, *q.BudgetShown.model_fields)) for row in rows],
    )


def list_incidents(asking: Asking, asked: q.IncidentsAsked) -> q.Incidents:
    """Incidents, the most recently changed or the worst first."""
    place = {
        name: _named(getattr(asked, name)) for name in ("org", "project", "agent") if getattr(asked, name) is not None
    }
    own = ((asked.status,) if asked.status else (), asking.principal.org, asking.principal.projects, place)
    by_severity, newest = asking.alerts.incident_counts(*own) if asking.alerts else ({}, None)
    start, mark = _start(asking, asked, str(newest))
    page = (*own, asked.limit, start)
    shown = asking.alerts.incident_page(*page, worst_first=asked.order == "worst") if asking.alerts else []
    return q.Incidents(
        **asking.told(asking.window("month", None), *_about(asked)),
        **_page(sum(by_severity.values()), start, len(shown), mark),
        by_severity=by_severity,
        incidents=[incident_shown(row) for row in shown],
    )


def why_notified(asking: Asking, asked: q.WhyAsked) -> q.Why:
    """Every decision about an incident: who was told, and what held a message back."""
    store = asking.alerts
    name = asked.incident
    found = store.incident(name) or store.incident(store.incident_of_signal(name) or "") if store else None
    # One that is another's is answered like one that is not there.
    if store is None or found is None or not _may_see(asking, found):
        raise q.BadQuestion(f"incidentId: there is no incident {name!r} that you may see.")
    every = store.traces(found.id)
    decisions = [
        q.Decision(at=trace.at, route=trace.route, outcome=trace.outcome, detail=json.loads(trace.content))
        for trace in every[-_newest(every) :]
    ]
    told = asking.told(asking.window("month", None), *_of_place(found))
    tasks = [
        q.TaskShown(tracker=one.tracker, id=one.task_id, url=one.url, state=one.state) for one in store.tasks(found.id)
    ]
    return q.Why(**told, total=len(every), incident=incident_shown(found), tasks=tasks, decisions=decisions)


def _newest(traces: Sequence[TraceRow]) -> int:
    """How many of the newest may be told: the last, and those before it that a reader can take in."""
    sizes = accumulate(len(trace.content) for trace in reversed(traces[-q.PAGE :]))
    return max(sum(size <= _TOLD for size in sizes), 1)


def _of_place(row: IncidentRow) -> tuple[str, dict[str, Any]]:
    """What an incident is about, as far as it names a place."""
    named = {name: value for name in ("org", "project", "agent") if (value := getattr(row, name))}
    return " AND ".join(["true", *(f"{name} = ${name}" for name in named)]), named


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV in which no text can be taken for a formula by a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(rows[0] if rows else [])
    writer.writerows([neutral(value) for value in row.values()] for row in rows)
    return file.getvalue()


def neutral(value: object) -> object:
    """Text that a spreadsheet would compute gets an apostrophe before it; numbers stay numbers."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return f"'{value}"
    return value


_NOTHING: Final[Mapping[str, Any]] = {
    "cost": Decimal(0),
    "unattributed_cost": Decimal(0),
    "unpriced_bound": None,
    **dict.fromkeys(("calls", "errors", "tokens", "saved_tokens", "input", "output", "cached", "unpriced_calls"), 0),
}


def _change(now: Decimal | int, then: Decimal | int) -> q.Change:
    change = float((Decimal(now) - Decimal(then)) / Decimal(then)) if then else None
    return q.Change(current=Decimal(now), previous=Decimal(then), change=change)


def _slices(asking: Asking, by: q.Dimension, where: str, values: Mapping[str, Any]) -> list[q.Slice]:
    """The dearest slices and, so that they add up, what the others come to."""
    rows = asking.reader.rows(
        f"""
        WITH grouped AS (
            SELECT {by} AS name, {_SLICE} FROM {_spend(where, by)} WHERE dt BETWEEN $first AND $last AND {where} GROUP BY {by}
        ), placed AS (
            SELECT *, least(row_number() OVER (ORDER BY cost DESC, name NULLS LAST), {_LARGEST + 1}) AS place FROM grouped
        )
        SELECT CASE WHEN place > {_LARGEST} THEN $rest ELSE coalesce(any_value(name), $none) END AS name,
            CAST(sum(cost) AS DECIMAL(38, 9)) AS cost, CAST(sum(calls) AS BIGINT) AS calls,
            CAST(sum(errors) AS BIGINT) AS errors, CAST(sum(tokens) AS BIGINT) AS tokens,
            CAST(sum(saved_tokens) AS BIGINT) AS saved_tokens
        FROM placed GROUP BY place ORDER BY place
        """,
        {**values, "rest": q.REST, "none": q.UNATTRIBUTED},
    )
    return [q.Slice(**row) for row in rows]


def _cost_before(asking: Asking, asked: q.EntitiesAsked, days: DayRange, names: Sequence[str]) -> Mapping[str, Decimal]:
    """What each name cost in as many days before."""
    where, values = _where(asked)
    named = f"coalesce({asked.level}, $none)"
    rows = asking.reader.rows(
        f"""
        SELECT {named} AS name, CAST(sum(cost) AS DECIMAL(38, 9)) AS cost FROM {_spend(where, asked.level)}
        WHERE dt BETWEEN $before AND $until AND {where} AND {named} IN (SELECT unnest($names)) GROUP BY 1
        """,
        {
            **values,
            "before": days.first - timedelta(days=len(days)),
            "until": days.first - timedelta(days=1),
            "none": q.UNATTRIBUTED,
            "names": list(names),
        },
    )
    return {row["name"]: row["cost"] for row in rows}


def _cost_budget(asking: Asking, asked: q.MetricsAsked) -> Decimal | None:
    """The cost limit of the timeframe's own period for the one place that was asked about, if there is just one."""
    newest = asking.reader.newest_day(BUDGET_STATUS)
    if newest is None or asked.team or asked.model:
        return None
    asking.reader.show(BUDGET_STATUS, newest)
    scope = "agent" if asked.agent else "project" if asked.project else "org"
    period = {"day": "daily", "week": "weekly", "month": "monthly"}[asked.timeframe]
    rows = asking.reader.rows(
        f"""
        SELECT CAST(sum(limit_amount) AS DECIMAL(38, 9)) AS budget, count(*) AS places FROM budget_status
        WHERE scope = $scope AND kind = 'cost' AND period = $period AND currency = 'USD'
            AND {_narrowed(asked, ("org", "project", "agent"))}
        """,
        {"scope": scope, "period": period, **_given(asked, ("org", "project", "agent"))},
    )
    budget: Decimal | None = rows[0]["budget"] if rows[0]["places"] == 1 else None
    return budget


def _marks(asking: Asking, asked: q.TrendsAsked, spoken: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The anomalies of the series; those of an agent are not those of its teams and models."""
    if asked.team is not None or asked.model is not None:
        return []
    about, given = _about(asked)
    return asking.reader.rows(
        f"""
        SELECT id, timestamp AS time, severity, observed, count(*) OVER () AS marked FROM onsets
        WHERE dt BETWEEN $first AND $last AND metric = $metric AND grain = $grain AND {about}
        ORDER BY score DESC, id LIMIT {_MARKS}
        """,
        {**_only(spoken, "first", "last", "metric", "grain"), **given},
    )


def _series(
    asking: Asking, asked: q.TrendsAsked, days: DayRange, where: str, spoken: Mapping[str, Any]
) -> dict[datetime, float]:
    value = {
        "cost": "CAST(sum(cost) AS DOUBLE)",
        "tokens": "CAST(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) AS DOUBLE)",
        "calls": "CAST(sum(calls) AS DOUBLE)",
        "errors": "CAST(sum(errors) AS DOUBLE) / nullif(sum(calls), 0)",
    }[asked.metric]
    source, moment = _spend(where), "CAST(dt AS TIMESTAMP)"
    if asked.granularity == "hour":
        source, moment = "spend_hour", "time"
        if asked.agent is not None or asked.model is not None:
            asking.reader.show(MART_SPEND, days)
            source, where = "mart_spend", f"grain = 'hour' AND {where}"
    rows = asking.reader.rows(
        f"SELECT {moment} AS moment, {value} AS value FROM {source} WHERE dt BETWEEN $first AND $last AND {where} GROUP BY 1",
        {name: told for name, told in spoken.items() if name not in ("metric", "grain")},
    )
    return {row["moment"]: row["value"] for row in rows if row["value"] is not None}


def _band(
    asking: Asking, asked: q.TrendsAsked, days: DayRange, spoken: Mapping[str, Any]
) -> tuple[dict[datetime, dict[str, Any]], str]:
    """What was expected at each time, of the one series that was asked about."""
    if asked.agent is None or asked.team is not None or asked.model is not None or asked.metric == "calls":
        if asked.metric == "latency":
            raise q.BadQuestion(
                "agentId: the percentiles of several agents cannot be added; for latency name one agent, no team or model."
            )
        return {}, "none: a band belongs to one agent's cost, tokens, errors or latency"
    about, given = _about(asked)
    bands, of_grain = _bands(asking, asked.granularity, days)
    where, places = _lying(asking, days, about, given) if bands == "baselines" else ("true", {})
    rows = asking.reader.rows(
        f"""
        SELECT time, any_value(observed) AS observed, any_value(expected) AS expected, any_value(lower) AS lower,
            any_value(upper) AS upper, count(*) AS series
        FROM {bands} WHERE dt BETWEEN $first AND $last AND metric = $metric AND {of_grain} AND {about} AND {where} GROUP BY time
        """,
        {**_only(spoken, "first", "last", "metric"), **given, **places},
    )
    if any(row["series"] > 1 for row in rows):
        if asked.metric == "latency":
            raise q.BadQuestion("projectId: this agent works in several projects; name one of them.")
        return {}, "none: this agent works in several projects; name one of them"
    return {
        row["time"]: row for row in rows
    }, "from the 28 days before each point" if rows else "none: nothing was learnt yet"


def _bands(asking: Asking, grain: str, days: DayRange) -> tuple[str, str]:
    """Where the bands of these days are read, and which of the rows there are of the grain."""
    if grain == "day" and asking.reader.has_bands_of(days):
        return "band_day", "true"
    asking.reader.show(BASELINES, days)
    return "baselines", f"grain = '{grain}'"


def _lying(asking: Asking, days: DayRange, about: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The projects that what is asked about worked in: baselines lie by project, so most of each file can be passed over."""
    found = asking.reader.rows(
        f"SELECT DISTINCT project FROM spend_day WHERE dt BETWEEN $first AND $last AND {about}",
        {"first": days.first, "last": days.last, **given},
    )
    named = {f"place{number}": row["project"] for number, row in enumerate(found) if row["project"] is not None}
    conditions = [f"project IN ({', '.join(f'${name}' for name in named)})"] if named else []
    if len(named) < len(found):
        conditions.append("project IS NULL")
    return f"({' OR '.join(conditions)})" if conditions else "true", named


def _spend(where: str, by: str = "") -> str:
    """The smallest copy that can answer: only a question about agents needs the rows of agents."""
    return "spend_day" if "agent" in f"{by} {where}" else "spend_total"


_PLACE: Final = "org, project, team, agent, provider, model"


def _exported(where: str) -> str:
    """The mart's rows of a day are one a place, so nothing needs to be summed."""
    return f"""
        SELECT dt AS day, {_PLACE}, cost, calls, errors,
            CAST(coalesce(input_tokens, 0) + coalesce(output_tokens, 0) AS BIGINT) AS tokens,
            CAST(coalesce(saved_tokens, 0) AS BIGINT) AS saved_tokens, unpriced_calls
        FROM spend_day WHERE dt BETWEEN $first AND $last AND {where} ORDER BY dt, {_PLACE}
    """


def _about(asked: q.Asked) -> tuple[str, dict[str, Any]]:
    """The place in the fleet that is asked about."""
    names = ("org", "project", "agent")
    return _narrowed(asked, names), _given(asked, names)


def _where(asked: q.Asked) -> tuple[str, dict[str, Any]]:
    names = ("org", "agent", "team", "project", "model")
    return _narrowed(asked, names), _given(asked, names)


def _given(asked: q.Asked, names: Sequence[str]) -> dict[str, Any]:
    """The filters that are named with a value that a column can have."""
    spoken = {name: getattr(asked, name, None) for name in names}
    return {name: value for name, value in spoken.items() if value is not None and value != q.UNATTRIBUTED}


def _narrowed(asked: q.Asked, names: Sequence[str]) -> str:
    conditions = ["true"]
    for name in names:
        value = getattr(asked, name, None)
        if value == q.UNATTRIBUTED:
            conditions.append(f"{name} IS NULL")
        elif value is not None:
            conditions.append(f"{name} = ${name}")
    return " AND ".join(conditions)


def _only(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _start(asking: Asking, asked: q.Paged, also: str = "") -> tuple[int, str]:
    """Where the page begins, and what its cursors are bound to: the question and the data."""
    put = asked.model_dump_json(exclude={"cursor", "limit"})
    mark = hashlib.sha256(
        f"{asking.pinned.mark_of(asking.reads)}|{put}|{also}".encode("utf-8", "surrogatepass")
    ).hexdigest()[:16]
    return q.read_cursor(asked.cursor, mark), mark


def _page(total: int, start: int, shown: int, mark: str) -> dict[str, Any]:
    more = start + shown < total
    return {"total": total, "has_more": more, "next_cursor": q.write_cursor(start + shown, mark) if more else None}


def _may_see(asking: Asking, row: IncidentRow) -> bool:
    return asking.principal.sees(row.org or None, row.project or None)


def _named(name: str) -> str:
    """As the ledger writes it: what has no name is empty there."""
    return "" if name == q.UNATTRIBUTED else name


def incident_shown(row: IncidentRow) -> q.IncidentShown:
    whole = records.incident_of(row)
    found = {name: getattr(whole, name) for name in q.IncidentShown.model_fields if name != "title"}
    named = {name: found[name] or None for name in ("org", "project", "agent", "acknowledged_by")}
    return q.IncidentShown(**{**found, **named, "title": title_of(whole)})


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if isinstance(value, date | datetime | time) else str(value)
