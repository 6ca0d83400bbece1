"""The asset graph as plain data, and the committed snapshot of it.

``python -m obs_pipeline_tests.defs.graph_snapshot`` (``make snapshot``) rewrites the snapshot; the difference is then
part of the change that is reviewed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import dagster as dg

SNAPSHOT: Final = Path(__file__).with_suffix(".json")


def graph(defs: dg.Definitions) -> dict[str, Any]:
    """Keys, dependencies, groups, kinds, owners, checks, partitions, jobs, schedules and sensors, sorted by name."""
    nodes = defs.resolve_asset_graph()
    repository = defs.get_repository_def()
    blocking = {
        (spec.asset_key, spec.name): spec.blocking
        for asset in defs.assets or ()
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.check_specs
    }
    assets = {}
    for key in sorted(nodes.get_all_asset_keys(), key=lambda one: one.to_user_string()):
        node = nodes.get(key)
        assets[key.to_user_string()] = {
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "owners": sorted(node.owners),
            "partitions": None if node.partitions_def is None else str(node.partitions_def),
            "backfill": None if node.backfill_policy is None else node.backfill_policy.policy_type.name.lower(),
            "checks": {
                check.name: "blocking" if blocking[check.asset_key, check.name] else "warning"
                for check in sorted(node.check_keys, key=lambda one: one.name)
            },
        }
    return {
        "assets": assets,
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
            for job in sorted(repository.get_all_jobs(), key=lambda one: one.name)
            if not job.name.startswith("__")
        },
        "schedules": {
            schedule.name: {
                "cron": schedule.cron_schedule,
                "zone": schedule.execution_timezone,
                "job": schedule.job_name,
                "status": schedule.default_status.value,
            }
            for schedule in sorted(repository.schedule_defs, key=lambda one: one.name)
        },
        "sensors": {
            sensor.name: {
                "kind": sensor.sensor_type.value,
                "jobs": sorted(target.job_name for target in sensor.targets),
                "status": sensor.default_status.value,
            }
            for sensor in sorted(repository.sensor_defs, key=lambda one: one.name)
        },
    }


def main() -> None:
    from obs_pipeline.definitions import defs

    SNAPSHOT.write_text(json.dumps(graph(defs), indent=2) + "\n")
    print(f"wrote {SNAPSHOT}")


if __name__ == "__main__":
    main()
