"""The list of questions: which name asks which function, what is put in, what comes out, and which role it needs.

Everything that offers questions to somebody is made from this list: HTTP, MCP, the OpenAPI description. No transport, no SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.access import ReadingRole
from obs_pipeline.dashboard.actions import Action
from obs_pipeline.dashboard.answers import anomalies, export, incidents, limits, spending, trends
from obs_pipeline.dashboard.answers.asking import Asking
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.detection.tables import ANOMALIES, BASELINES
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES
from obs_pipeline.storage.lake import LakeTable
from obs_pipeline.usage.tables import USAGE_EVENTS


@dataclass(frozen=True, slots=True)
class Question:
    """A name under which to ask, who may, what is put in and what comes out. ``reads`` are the tables of the lake that it is
    answered from, ``told`` is the answer in a sentence."""

    name: str
    title: str
    description: str
    role: ReadingRole
    asked: type[q.Asked]
    answer: type[q.Answer]
    function: Callable[[Asking, Any], q.Answer]
    reads: tuple[LakeTable, ...]
    told: Callable[[Any], str]


def _of(found: q.Page, what: str) -> str:
    return f"{found.total:,} {what}" + (", more with next_cursor." if found.has_more else ".")


QUESTIONS: Final[Mapping[str, Question]] = {
    question.name: question
    for question in (
        Question(
            "dashboard_get_metrics",
            "Metrics",
            "Spending against budget, tokens consumed and saved, and how both moved against the period before.",
            "viewer",
            q.MetricsAsked,
            q.Metrics,
            spending.metrics,
            (MART_SPEND, BUDGET_STATUS),
            lambda a: (
                f"${a.spending.current:,.2f} for {a.calls:,} calls and {a.tokens.consumed:,} tokens, "
                f"{a.first_day} to {a.last_day} UTC; ${a.spending.previous:,.2f} in the period before."
            ),
        ),
        Question(
            "dashboard_get_trends",
            "Trends",
            "Cost, tokens, calls, errors or latency over time, with the expected band and the anomalies.",
            "viewer",
            q.TrendsAsked,
            q.Trends,
            trends.trends,
            (MART_SPEND, BASELINES, ANOMALIES),
            lambda a: f"{len(a.points)} points of {a.metric} by {a.granularity} with {a.marked} anomalies.",
        ),
        Question(
            "dashboard_get_anomalies",
            "Anomalies",
            "Detected anomalies of a timeframe, the worst first.",
            "viewer",
            q.AnomaliesAsked,
            q.Anomalies,
            anomalies.anomalies,
            (MART_SPEND, ANOMALIES),
            lambda a: _of(a, "anomalies"),
        ),
        Question(
            "dashboard_export_data",
            "Export",
            "The rows behind the totals as CSV or JSON: one a day, project, team, agent, provider and model.",
            "analyst",
            q.ExportAsked,
            q.Export,
            export.export_data,
            (MART_SPEND,),
            lambda a: _of(a, f"rows as {a.format}"),
        ),
        Question(
            "list_entities",
            "Drill-down",
            "Projects, teams, agents, providers or models with what they cost, the dearest first.",
            "viewer",
            q.EntitiesAsked,
            q.Entities,
            spending.entities,
            (MART_SPEND,),
            lambda a: _of(a, f"{a.level}s"),
        ),
        Question(
            "explain_anomaly",
            "Explain an anomaly",
            "Why one anomaly is one: expected, observed, the likely cause, the difference in parts, and the values around it.",
            "viewer",
            q.ExplainAsked,
            q.Explained,
            anomalies.explain_anomaly,
            (MART_SPEND, BASELINES, ANOMALIES, USAGE_EVENTS),
            lambda a: f"{a.anomaly.reason[:500]}{f' Likely cause: {a.split.cause}.' if a.split else ''}",
        ),
        Question(
            "get_effective_policy",
            "Effective policy",
            "Which limits hold for an organisation, project or agent, and which policies decided each.",
            "analyst",
            q.PolicyAsked,
            q.EffectivePolicyShown,
            limits.effective_policy,
            (MART_SPEND, EFFECTIVE_POLICIES),
            lambda a: a.told,
        ),
        Question(
            "get_budget_status",
            "Budgets",
            "Where budgets stand: spent, limit, burn and when they would be used up; the fullest first.",
            "viewer",
            q.BudgetsAsked,
            q.Budgets,
            limits.budget_status,
            (MART_SPEND, BUDGET_STATUS),
            lambda a: _of(a, "budgets"),
        ),
        Question(
            "list_incidents",
            "Incidents",
            "Incidents, the most recently changed or the worst first, and how many there are of each severity.",
            "viewer",
            q.IncidentsAsked,
            q.Incidents,
            incidents.list_incidents,
            (MART_SPEND,),
            lambda a: _of(a, "incidents"),
        ),
        Question(
            "why_notified",
            "Why notified",
            "Every decision about an incident: who was told, and what held a message back.",
            "analyst",
            q.WhyAsked,
            q.Why,
            incidents.why_notified,
            (MART_SPEND,),
            lambda a: f"{a.total} decisions about the incident {a.incident.id}.",
        ),
    )
}


def checked_inputs(question: Question | Action, values: Mapping[str, Any]) -> q.Asked:
    """The inputs of a question from what a caller sent.

    Raises:
        BadQuestion: an input cannot be used; the message names every one.
    """
    try:
        return question.asked.model_validate(dict(values))
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, one['loc'])) or 'inputs'}: {one['msg']}" for one in error.errors())
        raise q.BadQuestion("; ".join(faults)[:2000]) from None
