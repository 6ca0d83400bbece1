"""The map: everything Dagster knows of this project, in flow order."""

from __future__ import annotations

import dagster as dg

from obs_pipeline.defs import (
    alerting,
    automation,
    billing_assets,
    completion_asset,
    detection_assets,
    forecast_assets,
    incident_assets,
    landing_assets,
    mart_assets,
    policy_assets,
    source_assets,
    usage_assets,
)
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.settings import get_settings

ASSETS = [
    landing_assets.usage_files,
    usage_assets.usage_events,
    usage_assets.usage_twins,
    usage_assets.usage_hourly,
    usage_assets.usage_daily,
    detection_assets.detection,
    policy_assets.policies,
    policy_assets.effective_policies,
    policy_assets.budget_status,
    forecast_assets.forecasts,
    incident_assets.incidents,
    mart_assets.mart_spend,
    mart_assets.mart_leaderboard,
    mart_assets.mart_data_quality,
    completion_asset.computed_days,
    billing_assets.billed_buckets,
    billing_assets.reconciliation,
    alerting.alert_health,
    *source_assets.PULLED.assets,
]

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=source_assets.PULLED.checks,
    jobs=[
        automation.land_usage,
        automation.daily_batch,
        automation.maintain_lake,
        policy_assets.budgets,
        billing_assets.reconcile_bills,
        alerting.deliver_alerts,
        alerting.watch_alerts,
        *source_assets.PULLED.jobs,
    ],
    schedules=[
        automation.daily_schedule,
        automation.maintenance_schedule,
        billing_assets.reconcile_schedule,
        alerting.watch_alerts_schedule,
    ],
    sensors=[
        automation.landing_sensor,
        automation.touched_days_sensor,
        automation.failed_run_alert,
        automation.good_run_report,
        policy_assets.policies_sensor,
        alerting.due_alerts_sensor,
        *source_assets.PULLED.sensors,
    ],
    resources=resources_from(get_settings()),
    # One process a run: a step process costs some five seconds of imports, more than most days take.
    executor=dg.in_process_executor,
)
