"""The policy assets: policies → effective_policies → budget_status, and the sensor that watches the policy folder.

``policies`` are the files, which Dagster observes and never makes: each observation carries their digest as data
version. The assets read, call ``obs_pipeline.policy``, write, and tell their story; a file that cannot be read fails a
check and changes nothing of what is applied.
"""

import json
from hashlib import sha256
from pathlib import Path

import dagster as dg
import duckdb

from obs_pipeline.clock import utc_now
from obs_pipeline.defs import checks
from obs_pipeline.defs.partitions import DAILY, ONE_RUN, days_of, range_tags
from obs_pipeline.defs.resources import BatchLimits, EngineResource, LakeResource, LedgerResource, Progress
from obs_pipeline.defs.stories import markdown_table, tell_days
from obs_pipeline.defs.usage_assets import FINOPS, lake_asset
from obs_pipeline.policy.applied import set_digest
from obs_pipeline.policy.batch import Standing, build_effective, build_status, standing
from obs_pipeline.policy.cases import load_cases, run_cases
from obs_pipeline.policy.files import LoadedPolicies, files_below, load_policies
from obs_pipeline.policy.in_force import PoliciesOverTime
from obs_pipeline.policy.lint import lint
from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.spend import used_places
from obs_pipeline.policy.spend_proof import spend_is_the_sum_of_usage
from obs_pipeline.policy.tables import BUDGET_STATUS, EFFECTIVE_POLICIES
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.policy_store import PolicyStore
from obs_pipeline.storage.proofs import Proof, keys_are_unique, schema_is_declared
from obs_pipeline.yaml_positions import Problem

GROUP = "policies"
CHUNK_DAYS = 31
"""How many days of budgets are judged at once: a month's windows overlap, so that many share what is read."""

_LIMITS = """
    SELECT dt, coalesce(agent, project, org) AS whose, field, value, decided_by, files FROM effective_policies
    WHERE field_group IN ('budgets', 'rate_limits') AND set_at = scope ORDER BY scope DESC, whose, field
"""
_FULLEST = """
    SELECT dt, coalesce(agent, project, org) AS whose, kind, period, spent, limit_amount, ratio, state, files
    FROM budget_status ORDER BY ratio DESC NULLS LAST, whose, kind, period
"""

policies = dg.AssetsDefinition(
    specs=[
        dg.AssetSpec(
            "policies",
            group_name=GROUP,
            owners=FINOPS,
            kinds={"yaml"},
            description="The budget policies as files: organisations, projects and agents, with test cases beside them. "
            "Each observation carries the digest of the files as its version.",
        )
    ]
)


@dg.asset(
    **lake_asset(EFFECTIVE_POLICIES, GROUP, FINOPS, {"duckdb", "deltalake"}),
    deps=["policies", "usage_hourly"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("effective_policies"),
)
def effective_policies(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """What held at the end of each day, and which policies decided it."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("effective_policies")
    known = PoliciesOverTime(Path(limits.policies), PolicyStore(ledger.open()))
    context.log_event(observation(known.files))
    with engine.get_connection() as connection:
        found = _standing(connection, tables, days, known)
        build_effective(connection, tables, found)
        evidence.add("unique_keys", keys_are_unique(connection, tables, EFFECTIVE_POLICIES, days))
        evidence.add("schema", schema_is_declared(tables, EFFECTIVE_POLICIES))
        _prove_policies(evidence, found, known, Path(limits.policies), used_places(connection, tables))
        told = tell_days(context, connection, tables, EFFECTIVE_POLICIES, days, _LIMITS)
    progress.report(context, days, days)
    return dg.MaterializeResult(
        metadata={**told, "in_force": known.now().origin, "eras": len(found.eras), **_policies_told(known)},
        check_results=evidence.results(),
    )


@dg.asset(
    **lake_asset(BUDGET_STATUS, GROUP, FINOPS, {"duckdb", "deltalake"}),
    deps=["effective_policies", "usage_hourly", "usage_events"],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    check_specs=checks.specs("budget_status"),
)
def budget_status(
    context: dg.AssetExecutionContext,
    lake: LakeResource,
    ledger: LedgerResource,
    engine: EngineResource,
    limits: BatchLimits,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    """What was spent of every budget by the end of each day."""
    days, tables, evidence = days_of(context), lake.open(), checks.Evidence("budget_status")
    known = PoliciesOverTime(Path(limits.policies), PolicyStore(ledger.open()))
    with engine.get_connection() as connection:
        for chunk in _chunks(days):
            build_status(connection, tables, _standing(connection, tables, chunk, known))
            evidence.add("unique_keys", keys_are_unique(connection, tables, BUDGET_STATUS, chunk))
            evidence.add("spend_is_the_sum_of_usage", spend_is_the_sum_of_usage(connection, tables, chunk))
            progress.report(context, chunk, days)
        evidence.add("schema", schema_is_declared(tables, BUDGET_STATUS))
        told = tell_days(context, connection, tables, BUDGET_STATUS, days, _FULLEST)
    return dg.MaterializeResult(metadata=told, check_results=evidence.results())


budgets = dg.define_asset_job(
    "budgets",
    dg.AssetSelection.assets("effective_policies", "budget_status"),
    description="What the policies allow, and where the budgets stand, for whole days.",
)


@dg.sensor(
    job=budgets,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Edited policy files are observed; where what is in force has changed, today's budgets are judged again.",
)
def policies_sensor(
    context: dg.SensorEvaluationContext, ledger: LedgerResource, limits: BatchLimits
) -> dg.SensorResult | dg.SkipReason:
    """Look at names, sizes and times of the files first; they are read only when one of those has changed."""
    seen: dict[str, str] = json.loads(context.cursor or "{}")
    head = PolicyStore(ledger.open()).head()
    revision = "" if head is None else f"revision {head.revision}"
    looks = _fingerprint(Path(limits.policies))
    if (looks, revision) == (seen.get("looks"), seen.get("revision")):
        return dg.SkipReason("The policies are as they were.")
    files = load_policies(Path(limits.policies))
    digest = set_digest(files.digests)
    # Before the first revision the files are in force themselves.
    now = {"looks": looks, "revision": revision, "digest": digest, "held": revision or digest}
    today = utc_now().date()
    request = dg.RunRequest(run_key=f"budgets:{now['held']}", tags=range_tags(DayRange(today, today)))
    return dg.SensorResult(
        cursor=json.dumps(now),
        asset_events=[observation(files)] if seen.get("digest") != digest else [],
        run_requests=[request] if seen.get("held") != now["held"] else [],
    )


def _fingerprint(folder: Path) -> str:
    paths = [path for path in files_below(folder, lambda _error: None) if path.exists()]
    stats = [(str(path), (found := path.stat()).st_size, found.st_mtime_ns) for path in paths]
    return sha256(repr(stats).encode()).hexdigest()


def observation(files: LoadedPolicies) -> dg.AssetObservation:
    """The files as they are, with their digest as version."""
    rows = [
        (one.ref.id, one.ref.scope, str(one.policy.place), one.ref.priority, one.ref.file) for one in files.policies
    ]
    return dg.AssetObservation(
        "policies",
        tags={"dagster/data_version": set_digest(files.digests)},
        metadata={
            "policies": len(files.policies),
            "files": len(files.digests),
            "problems": len(files.problems),
            "stated": dg.MetadataValue.md(markdown_table(["policy", "scope", "for", "priority", "file"], rows[:50])),
            **({"to_mend": dg.MetadataValue.md(_problem_table(files.problems))} if files.problems else {}),
        },
    )


def _standing(connection: duckdb.DuckDBPyConnection, lake: Lake, days: DayRange, known: PoliciesOverTime) -> Standing:
    return standing(connection, lake, days, lambda at: known.at(at).policies, utc_now())


def _chunks(days: DayRange) -> list[DayRange]:
    whole = days.days()
    starts = whole[::CHUNK_DAYS]
    return [DayRange(first, whole[min(n * CHUNK_DAYS + CHUNK_DAYS, len(whole)) - 1]) for n, first in enumerate(starts)]


def _prove_policies(
    evidence: checks.Evidence, found: Standing, known: PoliciesOverTime, folder: Path, ever_used: tuple[Place, ...]
) -> None:
    held = known.now().policies
    cases = load_cases(folder)
    failed = [result for result in run_cases(cases.cases, held) if not result.passed]
    # An organisation whose usage does not come here at all is no misspelt name.
    here = {place.org for place in ever_used}
    lints = lint([one for one in held if one.policy.place.org in here], utc_now(), ever_used)
    evidence.add("files_are_in_order", _problems((*known.files.problems, *cases.problems)))
    evidence.add(
        "cases_hold", _rows([(f"{one.file}:{one.line}", one.name, "; ".join(one.differences)) for one in failed])
    )
    evidence.add(
        "every_agent_has_a_limit", _rows([(str(place), "no policy limits it", "") for place in found.unlimited])
    )
    evidence.add("no_conflicts", _rows([(one.field, one.message, one.mend) for one in found.conflicts]))
    unknown = [one for one in lints if one.rule == "unknown-scope"]
    evidence.add("no_unknown_scopes", _rows([(f"{one.file}:{one.line}", one.message, one.mend) for one in unknown]))


def _rows(offences: list[tuple[str, str, str]]) -> Proof:
    return checks.as_proof(dict(zip(("where", "what", "mend"), row, strict=True)) for row in offences)


def _problems(problems: tuple[Problem, ...]) -> Proof:
    return _rows([(f"{one.file}:{one.line}", f"{one.field} {one.message}".strip(), one.mend) for one in problems])


def _problem_table(problems: tuple[Problem, ...]) -> str:
    return markdown_table(["problem"], [[str(problem)] for problem in problems[:20]])


def _policies_told(known: PoliciesOverTime) -> dict[str, dg.MetadataValue]:
    rows = [(one.ref.id, one.ref.scope, str(one.policy.place), one.ref.file) for one in known.now().policies]
    return {"held": dg.MetadataValue.md(markdown_table(["policy", "scope", "for", "file"], rows[:50]))}
