"""How fast policies are put into force and looked up: a whole fleet of them, one edit, and one agent.

``python -m obs_pipeline_tests.performance.policy_bench [--projects P] [--agents A] [--home DIR]``

Called by ``bench``, which prints it; nothing is asserted. Every sync runs as a command in a process of its own, so that
its time includes the start of it and its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from obs_pipeline_tests.performance.bench import Stage, environment_of, measured, obs

USUAL: Final = (100, 50)
LARGE: Final = (10_000, 10)
LOOK_UPS: Final = 200


def write_policies(folder: Path, projects: int, agents: int) -> None:
    """One organisation; a file a project with its policy and those of its agents."""
    (folder / "projects").mkdir(parents=True)
    (folder / "org.yaml").write_text(
        "id: acme\nname: Acme\nscope: org\nscope_id: acme\npriority: 100\n"
        "budgets:\n  cost: {limit: 100_000, period: daily}\nalerts: {thresholds: [50, 80, 95], channels: [widget]}\n"
    )
    for number in range(projects):
        (folder / "projects" / f"p{number}.yaml").write_text(_project(number, agents, limit=100))


def _project(number: int, agents: int, limit: int) -> str:
    name = f"p{number}"
    own = (
        f"- id: {name}\n  name: Project {number}\n  scope: project\n  org: acme\n  scope_id: {name}\n"
        f"  budgets:\n    cost:\n      - {{limit: {limit}, period: daily}}\n      - {{limit: 2_000, period: monthly}}\n"
    )
    return own + "".join(
        f"- id: {name}.a{agent}\n  name: Agent {agent}\n  scope: agent\n  org: acme\n  project: {name}\n"
        f"  scope_id: a{agent}\n  budgets:\n    cost: {{limit: {5 + agent % 7}, period: daily}}\n"
        f"    calls: {{limit: 500, period: hourly}}\n  alerts: {{thresholds: [50, 80, 95], channels: [widget, slack]}}\n"
        for agent in range(agents)
    )


def policy_stages(home: Path, projects: int, agents: int) -> dict[str, Any]:
    """Sync a fleet, sync it unchanged, change one file, and look up one agent."""
    folder, environment = home / "policies", environment_of(home / "obs")
    write_policies(folder, projects, agents)
    size = f"{projects:,}×{agents}"
    sync = obs("policies", "sync", "--folder", str(folder))
    measured("warm up", obs("policies", "history", "--json"), environment)
    stages = [measured(f"sync {size}, first", sync, environment)]
    stages.append(measured(f"sync {size}, unchanged", sync, environment))
    (folder / "projects" / "p1.yaml").write_text(_project(1, agents, limit=90))
    stages.append(measured(f"sync {size}, one file changed", sync, environment))
    one = obs("policies", "effective", "--org", "acme", "--project", "p1", "--agent", "a1", "--applied", "--json")
    stages.append(measured("effective policy of one agent, command", one, environment))
    return {
        "projects": projects,
        "agents_per_project": agents,
        "stages": [asdict(stage) for stage in stages],
        "effective_one_agent_ms": look_up_milliseconds(home / "obs" / "ledger.db", projects, agents),
    }


def look_up_milliseconds(ledger_file: Path, projects: int, agents: int) -> dict[str, float]:
    """From the ledger to the resolved policy of one agent, each time another agent over a ledger opened anew."""
    from obs_pipeline.clock import utc_now
    from obs_pipeline.policy.applied import applied_to
    from obs_pipeline.policy.resolution import resolve
    from obs_pipeline.policy.schema import Place
    from obs_pipeline.storage.ledger import Ledger
    from obs_pipeline.storage.policy_store import PolicyStore

    took, worked, opened = [], [], []
    for number in range(LOOK_UPS):
        place = Place("acme", f"p{number * 37 % projects}", f"a{number % agents}")
        started = time.perf_counter()
        ledger = Ledger(f"sqlite:///{ledger_file}")
        store = PolicyStore(ledger)
        head = store.head()
        assert head is not None
        ready, idle = time.perf_counter(), time.process_time()
        found = resolve(place, applied_to(store, head.revision, place), utc_now())
        took.append((time.perf_counter() - ready) * 1000)
        worked.append((time.process_time() - idle) * 1000)
        opened.append((ready - started) * 1000)
        assert found.limits
        ledger.close()
    fastest_first = sorted(took)
    return {
        "median": statistics.median(took),
        "p95": fastest_first[int(0.95 * len(took))],
        "worst": fastest_first[-1],
        "median_of_the_processor": statistics.median(worked),
        "median_to_open_the_ledger": statistics.median(opened),
    }


def stages_of(result: dict[str, Any]) -> list[Stage]:
    """The measured commands of a result, to be printed."""
    return [Stage(**stage) for stage in result["stages"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--projects", type=int, default=USUAL[0])
    parser.add_argument("--agents", type=int, default=USUAL[1])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="obs-policy-bench-") as home:
        print(json.dumps(policy_stages(Path(home), asked.projects, asked.agents), indent=2))


if __name__ == "__main__":
    main()
