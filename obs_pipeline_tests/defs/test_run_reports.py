"""What a run says of its checks: one that does not hold is an incident, and the next evaluation that holds ends it."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from obs_pipeline.alerting.passes import tell
from obs_pipeline.alerting.records import incident_of
from obs_pipeline.clock import utc_now
from obs_pipeline.defs.run_reports import findings_of
from obs_pipeline.settings import Settings
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.ledger import Ledger

NAMES = ("unpriced_share", "sources_are_fresh", "unique_keys")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def batch(*failing: str) -> dg.JobDefinition:
    """A job whose asset fails these of its checks."""
    specs = [dg.AssetCheckSpec(name, asset="usage_events") for name in NAMES]

    @dg.asset(check_specs=specs)
    def usage_events() -> dg.MaterializeResult:
        results = [
            dg.AssetCheckResult(
                check_name=name,
                passed=name not in failing,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"offences": 3 * (name in failing)},
            )
            for name in NAMES
        ]
        return dg.MaterializeResult(check_results=results)

    return dg.define_asset_job("small_batch").resolve(
        asset_graph=dg.Definitions(assets=[usage_events]).resolve_asset_graph()
    )


def ran(settings: Settings, instance: dg.DagsterInstance, *failing: str) -> str:
    result = batch(*failing).execute_in_process(instance=instance)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    tell(Ledger(settings.ledger), settings.policies, findings_of(instance, run, utc_now()), utc_now())
    return result.run_id


def test_a_check_that_does_not_hold_is_an_incident_until_it_holds(settings: Settings, instance: dg.DagsterInstance):
    store = AlertStore(Ledger(settings.ledger))
    ran(settings, instance, "unpriced_share")
    again = ran(settings, instance, "unpriced_share")
    [incident] = [incident_of(row) for row in store.incidents()]
    assert (incident.kind, incident.severity, incident.status) == ("failed_check", "warning", "open")
    assert incident.headline == (
        "Check unpriced_share of usage_events: 3 findings. What should hold: Few calls are without a price"
    )
    assert incident.page == "assets/usage_events?view=checks&checkDetail=unpriced_share"
    assert len(incident.signal_ids) == 1
    assert again
    ran(settings, instance)
    [incident] = [incident_of(row) for row in store.incidents()]
    assert (incident.status, incident.resolution) == ("resolved", "the check holds again")
    ran(settings, instance, "unpriced_share")
    [incident] = [incident_of(row) for row in store.incidents()]
    assert (incident.status, incident.episode) == ("open", 1)


def test_a_silent_source_is_not_told_a_second_time_by_its_check(settings: Settings, instance: dg.DagsterInstance):
    ran(settings, instance, "sources_are_fresh")
    assert AlertStore(Ledger(settings.ledger)).incidents() == []


def test_a_check_is_as_it_was_evaluated_last_whichever_run_is_looked_at(
    settings: Settings, instance: dg.DagsterInstance
):
    failed = batch("unpriced_share").execute_in_process(instance=instance)
    batch().execute_in_process(instance=instance)
    run = instance.get_run_by_id(failed.run_id)
    assert run is not None
    assert findings_of(instance, run, utc_now()).signals == []
