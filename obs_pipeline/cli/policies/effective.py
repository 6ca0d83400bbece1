"""``obs-pipeline policies effective``: which limits hold for somebody, and which policies decided each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.cli.policies.reading import AsJson, At, Folder, loaded, refs, shown, table, used_places
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.policy.effective import Decided, EffectivePolicy
    from obs_pipeline.policy.provenance import SourcedPolicy
    from obs_pipeline.policy.schema import Place
    from obs_pipeline.storage.policy_store import PolicyStore

_MARK: Final = {"decides": "[green]decides[/]", "yields": "[dim]yields[/]", "replaced": "[dim]replaced[/]"}


def effective(
    agent: Annotated[
        str | None, typer.Argument(help="The agent, if its name is enough to tell which is meant.")
    ] = None,
    org: Annotated[str | None, typer.Option("--org", help="The organisation.")] = None,
    project: Annotated[str | None, typer.Option("--project", help="The project.")] = None,
    named: Annotated[str | None, typer.Option("--agent", help="The agent; the same as the argument.")] = None,
    at: At = None,
    folder: Folder = None,
    in_force: Annotated[
        bool, typer.Option("--applied", help="What is in force instead of what the files say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Which limits hold for an agent, a project or an organisation, and which policies decided each of them.

    A limit shows everything the chain of policies said about it. Resolves the files, unless told **--applied**.
    """
    from obs_pipeline.policy.resolution import resolve

    asked = (org, project, agent or named)
    held = _in_force(at, *asked) if in_force else None
    place, policies = held or _of(loaded(folder).policies, *asked)
    found = resolve(place, policies, at or utc_now())
    if as_json:
        print_json(_explained(found))
    else:
        _show_effective(found)


def _of(
    policies: tuple[SourcedPolicy, ...], org: str | None, project: str | None, agent: str | None
) -> tuple[Place, tuple[SourcedPolicy, ...]]:
    places = dict.fromkeys(source.policy.place for source in policies)
    return _place(lambda name: (place for place in places if place.agent == name), org, project, agent), policies


def _in_force(
    at: datetime | None, org: str | None, project: str | None, agent: str | None
) -> tuple[Place, tuple[SourcedPolicy, ...]] | None:
    """The place, and the policies of it and above it; ``None`` before the first sync, when the files hold."""
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.policy.applied import agents_named, applied_to
    from obs_pipeline.policy.in_force import revision_holding
    from obs_pipeline.storage.policy_store import PolicyStore

    store: PolicyStore = PolicyStore(open_workspace().ledger)
    revision = revision_holding(store, at)
    if revision is None:
        return None
    place = _place(lambda name: agents_named(store, revision.revision, name), org, project, agent)
    return place, applied_to(store, revision.revision, place)


def _place(known: Callable[[str], Iterable[Place]], org: str | None, project: str | None, agent: str | None) -> Place:
    from obs_pipeline.policy.schema import Place

    if org is not None and (project is not None or agent is None):
        return Place(org, project, agent)
    if agent is None:
        raise ObsError("Name an agent, or the place with --org, --project and --agent.")
    # Policies know most agents; only one that they do not name is looked up in the usage.
    for look_up in (known, lambda _name: used_places()):
        same = [place for place in look_up(agent) if place.agent == agent and org in (None, place.org)]
        same = [place for place in same if project in (None, place.project)]
        if len(same) > 1:
            listed = ", ".join(sorted(map(str, same)))
            raise ObsError(f"Several agents are named {agent}: {listed}. Add --org and --project.")
        if same:
            return same[0]
    if org is not None:
        return Place(org, None, agent)
    raise ObsError(f"No policy and no usage mentions an agent named {agent}. Add --org and --project.")


def _explained(found: EffectivePolicy) -> dict[str, Any]:
    from obs_pipeline.policy.diff import fields_of

    return {
        "place": dict(zip(("org", "project", "agent"), found.place, strict=True)),
        "at": found.at,
        "fields": [
            {
                "field": str(key),
                "value": decided.value,
                "decided_by": refs(decided.decided_by),
                "trail": [
                    {
                        "policy": step.by.id,
                        "file": step.by.file,
                        "line": step.by.line,
                        "scope": step.by.scope,
                        "priority": step.by.priority,
                        "value": step.value,
                        "outcome": step.outcome,
                        "replaced_by": None if step.replaced_by is None else str(step.replaced_by),
                        "raise": None if step.increase is None else step.increase.reason,
                    }
                    for step in decided.trail
                ],
            }
            for key, decided in fields_of(found).items()
        ],
        "conflicts": [
            {
                "kind": one.kind,
                "field": one.field,
                "message": one.message,
                "mend": one.mend,
                "policies": refs(one.policies),
            }
            for one in found.conflicts
        ],
        "ignored": [{"policy": str(one.by), "field": one.field, "reason": one.reason} for one in found.ignored],
    }


def _show_effective(found: EffectivePolicy) -> None:
    from obs_pipeline.policy.diff import fields_of

    title = f"{found.place.scope} {found.place} at {found.at:%Y-%m-%d %H:%M} UTC"
    told = table("what", "holds", "said by", "", "", title=text(title))
    for key, decided in fields_of(found).items():
        for position, (said, by, outcome) in enumerate(_trail(decided)):
            first = position == 0
            told.add_row(str(key) if first else "", shown(decided.value) if first else "", by, said, outcome)
    out.print(told)
    for conflict in found.conflicts:
        out.print(f"[red]conflict[/] {text(conflict.message)}; {text(conflict.mend)}", soft_wrap=True)
    for ignored in found.ignored:
        named = f"{ignored.by}: {ignored.field}" if ignored.field else str(ignored.by)
        out.print(f"[yellow]ignored[/] {text(named)}: {text(ignored.reason)}", soft_wrap=True)


def _trail(decided: Decided[Any]) -> Iterator[tuple[str, str, str]]:
    if not decided.trail:
        yield "", "[dim]nobody: the default[/]", ""
    for step in decided.trail:
        outcome = _MARK[step.outcome]
        if step.replaced_by is not None:
            outcome += f" by {text(step.replaced_by.id)}"
        if step.increase is not None:
            outcome += f" until {step.increase.until.isoformat()}: {text(step.increase.reason)}"
        yield shown(step.value), f"{text(step.by)} [dim]{step.by.scope} {step.by.priority}[/]", outcome
