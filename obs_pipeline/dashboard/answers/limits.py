"""Which limits hold, and where the budgets they set stand."""

from __future__ import annotations

import json

from obs_pipeline.dashboard import questions as q
from obs_pipeline.dashboard.answers.asking import (
    PLACE,
    Asking,
    only,
    page,
    page_start,
    rows_about,
)
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES


def effective_policy(asking: Asking, asked: q.PolicyAsked) -> q.EffectivePolicyShown:
    """Which limits hold for an organisation, project or agent, and which policies decided each."""
    scope = "agent" if asked.agent else "project" if asked.project else "org"
    newest = asking.reader.newest_day(EFFECTIVE_POLICIES)
    days = newest or asking.window("day", None)
    asking.reader.show(EFFECTIVE_POLICIES, days)
    about = rows_about(asked, PLACE)
    rows = asking.reader.rows(
        f"SELECT * FROM effective_policies WHERE scope = $scope AND {about.where} ORDER BY org, project, agent, field",
        {"scope": scope, **about.values},
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
        **asking.told(days, about),
        scope=scope,
        org=org,
        project=project,
        agent=agent,
        as_at=newest.last if newest else None,
        fields=[
            q.PolicyField(**{**only(row, *q.PolicyField.model_fields), "trail": json.loads(row["trail"])})
            for row in rows
        ],
        told=told,
    )


def budget_status(asking: Asking, asked: q.BudgetsAsked) -> q.Budgets:
    """Where budgets stand, the fullest first."""
    days = asking.reader.newest_day(BUDGET_STATUS) or asking.window("day", None)
    asking.reader.show(BUDGET_STATUS, days)
    where, values = rows_about(asked, ("scope", "state", *PLACE))
    found = f"FROM budget_status WHERE {where}"
    counts = asking.reader.rows(f"SELECT state, count(*) AS found {found} GROUP BY state", values)
    by_state = {row["state"]: row["found"] for row in counts}
    start, mark = page_start(asking, asked)
    rows = asking.reader.rows(
        f'SELECT *, limit_amount AS "limit" {found} ORDER BY ratio DESC NULLS LAST, window_key '
        f"LIMIT {asked.limit} OFFSET {start}",
        values,
    )
    return q.Budgets(
        **asking.told(days, rows_about(asked, PLACE)),
        **page(sum(by_state.values()), start, len(rows), mark),
        at=max((row["judged_at"] for row in rows), default=None),
        by_state=by_state,
        budgets=[q.BudgetShown(**only(row, *q.BudgetShown.model_fields)) for row in rows],
    )
