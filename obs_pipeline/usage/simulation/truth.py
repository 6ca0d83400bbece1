"""What is true about a simulation, as tables: its faults, its harmless changes, and its agents.

The answer sheet that a detector is measured against. Rows and CSV files only.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from obs_pipeline.usage.simulation.catalogue import MODELS, ORGS, rate_card
from obs_pipeline.usage.simulation.fleet import KINDS
from obs_pipeline.usage.simulation.incidents import ERROR_TYPES, FAULT_KINDS
from obs_pipeline.usage.simulation.world import World

Row = dict[str, str]

NOTABLE_GROWTH: Final = 0.04
"""Weekly growth of the log rate from which on a detector might take growth for a fault."""

LABEL_COLUMNS: Final = (
    "fault_id",
    "kind",
    "org",
    "project",
    "agent",
    "metrics",
    "start",
    "end",
    "magnitude",
    "agent_kind",
    "model",
    "error_type",
)
BENIGN_COLUMNS: Final = ("kind", "org", "project", "agent", "affects", "start", "end", "factor")
FLEET_COLUMNS: Final = (
    "agent",
    "kind",
    "org",
    "project",
    "team",
    "calls_a_day",
    "models",
    "reports_cost",
    "first_seen",
)


def write_truth(world: World, out: Path) -> None:
    """Write ``labels.csv``, ``benign.csv`` and ``fleet.csv`` into ``out``; times are UTC in ISO 8601, ends exclusive.

    ``metrics`` joins by ``+`` what a fault moves; ``magnitude`` is the factor (see ``Fault``). A benign ``factor`` is
    the lasting change of a deploy or price, or the growth a week; ``calls_a_day`` is an agent's usual rate.
    """
    _write_csv(out / "labels.csv", LABEL_COLUMNS, _labels(world))
    _write_csv(out / "benign.csv", BENIGN_COLUMNS, _benign(world))
    _write_csv(out / "fleet.csv", FLEET_COLUMNS, _fleet(world))


def _labels(world: World) -> Iterator[Row]:
    for number, fault in enumerate(world.incidents.faults, start=1):
        yield {
            "fault_id": f"fault-{number:04d}",
            "kind": FAULT_KINDS[fault.kind],
            **_whereabouts(world, fault.agent),
            "metrics": fault.metrics,
            **_window(world, fault.start, fault.end),
            "magnitude": f"{fault.magnitude:.6g}",
            "agent_kind": KINDS[world.fleet.kind[fault.agent]],
            "model": MODELS[fault.model].name,
            "error_type": ERROR_TYPES[fault.error_type] if fault.error_rate else "",
        }


def _benign(world: World) -> Iterator[Row]:
    end = world.config.hours
    for deploy in world.incidents.deploys:
        affects, factor = ("calls", deploy.calls) if deploy.tokens == 1 else ("input_tokens", deploy.tokens)
        yield _change(world, "deploy", deploy.agent, affects, deploy.hour, end, factor)
    fleet = world.fleet
    for agent in np.flatnonzero(fleet.growth_a_week > NOTABLE_GROWTH):
        weekly = float(np.exp(fleet.growth_a_week[agent]))
        yield _change(world, "growth", int(agent), "calls", int(fleet.first_hour[agent]), end, weekly)
    for agent in np.flatnonzero(fleet.first_hour > 0):
        yield _change(world, "launch", int(agent), "calls", int(fleet.first_hour[agent]), end, 1.0)
    yield from _price_changes(world)


def _price_changes(world: World) -> Iterator[Row]:
    """A new list price moves the cost of everyone on that model, and is nobody's fault."""
    cards = [rate_card(world.date_of(day)) for day in range(world.config.days)]
    for day, (before, after) in enumerate(pairwise(cards), start=1):
        for agent, model in _models_in_use(world):
            factor = after.typical(model) / before.typical(model)
            if factor != 1:
                yield _change(world, "price_change", agent, "cost", day * 24, world.config.hours, factor)


def _models_in_use(world: World) -> Iterator[tuple[int, int]]:
    fleet = world.fleet
    for agent in range(fleet.size):
        yield from ((agent, int(model)) for model in fleet.models[agent, : fleet.model_count[agent]])


def _change(world: World, kind: str, agent: int, affects: str, start: int, end: int, factor: float) -> Row:
    return {
        "kind": kind,
        **_whereabouts(world, agent),
        "affects": affects,
        **_window(world, start, end),
        "factor": f"{factor:.6g}",
    }


def _fleet(world: World) -> Iterator[Row]:
    fleet = world.fleet
    for agent, name in enumerate(fleet.names):
        used = fleet.models[agent, : fleet.model_count[agent]]
        yield {
            **_whereabouts(world, agent),
            "agent": name,
            "kind": KINDS[fleet.kind[agent]],
            "team": fleet.team_names[fleet.team[agent]],
            "calls_a_day": f"{fleet.calls_a_day[agent] * world.scale[agent]:.6g}",
            "models": "+".join(MODELS[code].name for code in used),
            "reports_cost": "yes" if fleet.reports_cost[agent] else "no",
            "first_seen": _instant(world, int(fleet.first_hour[agent])),
        }


def _whereabouts(world: World, agent: int) -> Row:
    fleet = world.fleet
    return {
        "org": ORGS[fleet.org[agent]],
        "project": fleet.project_names[fleet.project[agent]],
        "agent": fleet.names[agent],
    }


def _window(world: World, start: int, end: int) -> Row:
    return {"start": _instant(world, start), "end": _instant(world, end)}


def _instant(world: World, hour: int) -> str:
    return world.config.at(hour).isoformat() + "Z"


def _write_csv(path: Path, columns: Iterable[str], rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
