"""``obs-pipeline policies``: the commands that only read.

Is it in order (validate, lint, test), what holds and why (effective, status), what would a change do (diff, replay),
and what others need of it (schema, litellm). Commands that apply policies or tell their history are in ``policies``.
No rules here: each command reads, asks the policy room, and shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from rich.table import Table

from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.policies import app
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError
from obs_pipeline.settings import get_settings

if TYPE_CHECKING:
    from obs_pipeline.policy.diff import Direction, PolicyDiff
    from obs_pipeline.policy.effective import Decided, EffectivePolicy
    from obs_pipeline.policy.files import LoadedPolicies
    from obs_pipeline.policy.provenance import PolicyRef, SourcedPolicy
    from obs_pipeline.policy.replay import LimitKey, LimitOutcome, Replay
    from obs_pipeline.policy.resolution import PolicySet
    from obs_pipeline.policy.schema import Place
    from obs_pipeline.policy.status import BudgetStatus

Folder = Annotated[Path | None, typer.Option("--folder", help="The policy folder (default: OBS_POLICIES).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
At = Annotated[
    datetime | None,
    typer.Option("--at", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"], help="UTC; now if left out."),
]
Base = Annotated[str, typer.Argument(help="A folder, a git revision, or 'applied' for what was last synced.")]
Head = Annotated[Path | None, typer.Option("--head", help="The proposed policies (default: OBS_POLICIES).")]

_BAD: Final = 2
_SHOWN: Final = 40
_NAMED: Final = 6
_MARK: Final = {"decides": "[green]decides[/]", "yields": "[dim]yields[/]", "replaced": "[dim]replaced[/]"}
_TURN: Final = {"tighter": "[green]tighter[/]", "looser": "[yellow]looser[/]", "changed": "changed"}
_STATE: Final = {"exceeded": "bold red", "warning": "yellow", "ok": "green", "incomparable": "dim"}


@app.command()
def validate(folder: Folder = None, as_json: AsJson = False) -> None:
    """Can every policy file and test case be read? Every problem with its file and line; exits with 2 if there is one."""
    from obs_pipeline.policy.cases import load_cases
    from obs_pipeline.policy.files import load_policies

    root = folder or get_settings().policies
    loaded, cases = load_policies(root), load_cases(root)
    problems = (*loaded.problems, *cases.problems)
    if as_json:
        print_json({"policies": len(loaded.policies), "cases": len(cases.cases), "problems": _plain(problems)})
    else:
        _say(map(str, problems))
        if not problems:
            out.print(f"[green]In order:[/] {len(loaded.policies)} policies, {len(cases.cases)} test cases.")
    if problems:
        raise typer.Exit(_BAD)


@app.command()
def lint(
    folder: Folder = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 on warnings too.")] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """What is odd about policies that can be read: limits that never bind, refused overrides, twins, ended raises.

    Where there is usage, policies for places that no usage mentions are told too. Exits with 2 if there is an error.
    """
    from obs_pipeline.policy.lint import lint as lint_policies

    loaded = _loaded(folder)
    findings = lint_policies(loaded.policies, at or utc_now(), _used_places() or None)
    if as_json:
        print_json(_plain(findings))
    else:
        _say(map(str, findings))
        if not findings:
            out.print(f"[green]Nothing to say[/] about {len(loaded.policies)} policies.")
    if any(finding.severity == "error" or strict for finding in findings):
        raise typer.Exit(_BAD)


@app.command("test")
def run_tests(folder: Folder = None, as_json: AsJson = False) -> None:
    """Run the test cases beside the policies: for a place, the limits that should hold. Exits with 2 if one does not."""
    from obs_pipeline.policy.cases import load_cases, run_cases

    root = folder or get_settings().policies
    results = run_cases(load_cases(root, strict=True).cases, _loaded(folder).policies)
    failed = [result for result in results if not result.passed]
    if as_json:
        print_json(_plain(results))
    else:
        for result in failed:
            out.print(f"[red]failed[/] {text(f'{result.file}:{result.line}: {result.name}')}", soft_wrap=True)
            _say(f"  {difference}" for difference in result.differences)
        said = f"{len(failed)} of {len(results)} cases failed." if failed else f"All {len(results)} cases hold."
        out.print(f"[{'red' if failed else 'green'}]{said}[/]")
    if failed:
        raise typer.Exit(_BAD)


@app.command()
def schema(
    file: Annotated[Path | None, typer.Option("--out", "-o", help="Write it here instead of printing it.")] = None,
) -> None:
    """The JSON Schema of a policy file, for editors and other tools."""
    from obs_pipeline.policy.schema import policy_json_schema

    _write(policy_json_schema(), file)


@app.command()
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
    from obs_pipeline.policy.resolution import PolicySet, resolve

    policies = PolicySet(_held(at) if in_force else _loaded(folder).policies)
    place = _place(policies, org, project, agent or named)
    found = resolve(place, policies, at or utc_now())
    if as_json:
        print_json(_explained(found))
    else:
        _show_effective(found)


@app.command()
def diff(base: Base, head: Head = None, at: At = None, as_json: AsJson = False) -> None:
    """Whose limits a change of the policies changes, and whether they become tighter or looser.

    Compares BASE with the files: **obs-pipeline policies diff main**, or **diff applied**.
    """
    from obs_pipeline.cli.policy_versions import policies_of
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.policy.diff import diff as compare

    workspace, proposed = open_workspace(), _loaded(head).policies
    present = policies_of(base, workspace.settings.policies, workspace.ledger)
    found = compare(present, proposed, at or utc_now(), _used_places())
    if as_json:
        print_json(
            {
                "policies": [{"id": edit.id, "edit": edit.edit} for edit in found.policies],
                "changes": [
                    {
                        "place": str(change.place),
                        "field": str(change.field),
                        "direction": change.direction,
                        "before": change.before,
                        "after": change.after,
                        "before_by": _refs(change.before_by),
                        "after_by": _refs(change.after_by),
                    }
                    for change in found.fields
                ],
                "conflicts": [conflict.message for conflict in found.conflicts],
            }
        )
    else:
        _show_diff(found)


@app.command()
def replay(
    base: Base = "applied",
    head: Head = None,
    days: Annotated[int, typer.Option("--days", min=1, max=731, help="How many past days.")] = 90,
    last: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Last UTC day (default: the newest with usage)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What the files would have alerted and stopped on real past usage, against BASE.

    Usage is known by the hour: the hour in which a limit is passed is let through, the later ones are stopped.
    """
    from obs_pipeline.cli.policy_versions import policies_of
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.dashboard.queries import known_days
    from obs_pipeline.policy.replay import replay as play
    from obs_pipeline.policy.replay import usage_span
    from obs_pipeline.policy.spend import spend_between
    from obs_pipeline.policy.windows import Window

    workspace, proposed = open_workspace(), _loaded(head).policies
    present = policies_of(base, workspace.settings.policies, workspace.ledger)
    known = known_days(workspace.lake)
    if known is None:
        raise ObsError("There is no usage to replay. Take some in with obs-pipeline ingest, then compute it: batch.")
    end = datetime.combine(last.date() if last else known.last, datetime.min.time()) + timedelta(days=1)
    span = Window(end - timedelta(days=days), end)
    with workspace.engine() as connection:
        usage = spend_between(connection, workspace.lake, usage_span(present, proposed, span))
        found = play(present, proposed, usage, span, connection)
    if as_json:
        print_json(_replayed(found))
    else:
        _show_replay(found, base)


@app.command()
def status(
    at: At = None,
    everything: Annotated[bool, typer.Option("--all", help="Also the limits that come down from above.")] = False,
    as_json: AsJson = False,
) -> None:
    """Where every budget stands: spent, how fast, exhausted when. Sums the usage of the window; nothing is reset.

    Holds the applied policies, or the files while none were applied.
    """
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.dashboard.queries import budgets
    from obs_pipeline.policy.in_force import PoliciesOverTime
    from obs_pipeline.storage.policy_store import PolicyStore

    workspace = open_workspace()
    known = PoliciesOverTime(workspace.settings.policies, PolicyStore(workspace.ledger))
    held = known.now() if at is None else known.at(at)
    with workspace.engine() as connection:
        found = budgets(connection, workspace.lake, held.policies, at or utc_now())
    rows = [row for row in found if everything or row.set_at == row.scope]
    if as_json:
        print_json([_stood(row) for row in rows])
        return
    _say(f"policy file: {problem}" for problem in known.files.problems)
    _show_status(rows, held.origin)


@app.command()
def litellm(
    file: Annotated[Path | None, typer.Option("--out", "-o", help="Write it here instead of printing it.")] = None,
    at: At = None,
    folder: Folder = None,
) -> None:
    """The policies as requests to the management API of a LiteLLM proxy, and what it cannot hold to.

    A project is a team, an agent a virtual key. Nothing is sent.
    """
    from obs_pipeline.policy.litellm_target import litellm_settings
    from obs_pipeline.policy.resolution import PolicySet, resolve_all

    policies = PolicySet(_loaded(folder).policies)
    places = {place for stated in (*policies.places, *_used_places()) for place in stated.chain}
    found = litellm_settings(resolve_all(places, policies, at or utc_now()).values())
    settings = [{"method": "POST", "path": one.path, "body": one.body} for one in found.settings]
    lost = [{"place": str(one.place), "field": one.field, "reason": one.reason} for one in found.untranslated]
    _write({"requests": settings, "untranslated": lost}, file)


def _loaded(folder: Path | None) -> LoadedPolicies:
    from obs_pipeline.policy.files import load_policies

    return load_policies(folder or get_settings().policies, strict=True)


def _held(at: datetime | None) -> tuple[SourcedPolicy, ...]:
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.policy.in_force import PoliciesOverTime
    from obs_pipeline.storage.policy_store import PolicyStore

    workspace = open_workspace()
    known = PoliciesOverTime(workspace.settings.policies, PolicyStore(workspace.ledger))
    return (known.now() if at is None else known.at(at)).policies


def _used_places() -> tuple[Place, ...]:
    """Every place that usage mentions; none while there is no lake."""
    settings = get_settings()
    if settings.lake_uri is None and not Path(settings.lake).is_dir():
        return ()
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.policy.spend import used_places

    workspace = open_workspace()
    with workspace.engine() as connection:
        return used_places(connection, workspace.lake)


def _place(policies: PolicySet, org: str | None, project: str | None, agent: str | None) -> Place:
    from obs_pipeline.policy.schema import Place

    if org is not None and (project is not None or agent is None):
        return Place(org, project, agent)
    if agent is None:
        raise ObsError("Name an agent, or the place with --org, --project and --agent.")
    # The files know most agents; only one that they do not name is looked up in the usage.
    for known in (policies.places, _used_places()):
        same = [place for place in known if place.agent == agent and org in (None, place.org)]
        same = [place for place in same if project in (None, place.project)]
        if len(same) > 1:
            listed = ", ".join(sorted(map(str, same)))
            raise ObsError(f"Several agents are named {agent}: {listed}. Add --org and --project.")
        if same:
            return same[0]
    if org is not None:
        return Place(org, None, agent)
    raise ObsError(f"No policy and no usage mentions an agent named {agent}. Add --org and --project.")


def _write(value: Any, file: Path | None) -> None:
    if file is None:
        print_json(value)
        return
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    out.print(f"Written to {text(file)}.")


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(text(line), highlight=False, soft_wrap=True)


def _plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(row) for row in rows]


def _table(*columns: str, title: str | None = None) -> Table:
    """A table that breaks a long name rather than cutting it off: the end of a place is what tells it apart."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _refs(refs: Iterable[PolicyRef]) -> list[str]:
    return [str(ref) for ref in refs]


def _shown(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, int | Decimal):
        from obs_pipeline.policy.effective import amount

        return amount(value)
    if isinstance(value, tuple):
        return ", ".join(f"{part:f}" if isinstance(part, Decimal) else str(part) for part in value)
    return str(value)


def _explained(found: EffectivePolicy) -> dict[str, Any]:
    from obs_pipeline.policy.diff import fields_of

    return {
        "place": dict(zip(("org", "project", "agent"), found.place, strict=True)),
        "at": found.at,
        "fields": [
            {
                "field": str(key),
                "value": decided.value,
                "decided_by": _refs(decided.decided_by),
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
                "policies": _refs(one.policies),
            }
            for one in found.conflicts
        ],
        "ignored": [{"policy": str(one.by), "field": one.field, "reason": one.reason} for one in found.ignored],
    }


def _show_effective(found: EffectivePolicy) -> None:
    from obs_pipeline.policy.diff import fields_of

    title = f"{found.place.scope} {found.place} at {found.at:%Y-%m-%d %H:%M} UTC"
    table = _table("what", "holds", "said by", "", "", title=text(title))
    for key, decided in fields_of(found).items():
        for position, (said, by, outcome) in enumerate(_trail(decided)):
            first = position == 0
            table.add_row(str(key) if first else "", _shown(decided.value) if first else "", by, said, outcome)
    out.print(table)
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
        yield _shown(step.value), f"{text(step.by)} [dim]{step.by.scope} {step.by.priority}[/]", outcome


def _show_diff(found: PolicyDiff) -> None:
    from obs_pipeline.policy.diff import DIRECTIONS

    for edit in found.policies:
        ref = edit.after or edit.before
        out.print(f"{edit.edit:<8} {text(ref)}", highlight=False, soft_wrap=True)
    if not found.fields:
        out.print("What holds is the same for everyone.")
    for group, places in list(_alike(found).items())[:_SHOWN]:
        out.print(f"{_TURN[group.direction]} {text(group.said)}", highlight=False, soft_wrap=True)
        _say([f"        for {_few(places)}"])
    if found.fields:
        counts = ", ".join(f"{found.count(turn)} {turn}" for turn in DIRECTIONS)
        out.print(f"{len(found.places)} places: {counts}.")
    for conflict in found.conflicts:
        out.print(f"[red]new conflict[/] {text(conflict.message)}; {text(conflict.mend)}", soft_wrap=True)


class _Alike(NamedTuple):
    direction: Direction
    said: str


def _alike(found: PolicyDiff) -> dict[_Alike, list[Place]]:
    """The places to which the same thing happens: one edit far up reaches everyone below."""
    groups: dict[_Alike, list[Place]] = {}
    for change in found.fields:
        by = ", ".join(_refs(change.after_by or change.before_by))
        said = f"{change.field}: {_shown(change.before)} → {_shown(change.after)} by {by or 'default'}"
        groups.setdefault(_Alike(change.direction, said), []).append(change.place)
    return groups


def _few(places: Sequence[Place]) -> str:
    more = len(places) - _NAMED
    return ", ".join(map(str, places[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def _replayed(found: Replay) -> dict[str, Any]:
    def outcome(one: LimitOutcome | None) -> dict[str, Any] | None:
        return None if one is None else _plain([one])[0]

    def limit(key: LimitKey) -> dict[str, str]:
        return {"place": str(key.place), "kind": key.kind, "period": key.period, "currency": key.currency}

    return {
        "from": found.span.start,
        "to": found.span.end,
        "totals": {side: _plain([totals])[0] for side, totals in found.totals.items()},
        "changes": [
            {**limit(key), "present": outcome(before), "proposed": outcome(after)}
            for key, before, after in found.changes()
        ],
    }


def _show_replay(found: Replay, base: str) -> None:
    last: date = (found.span.end - timedelta(days=1)).date()
    out.print(f"Usage from {found.span.start.date()} to {last}, under {text(base)} and under the files:")
    totals = _table("", "windows exceeded", "alerts", "calls stopped", "worth")
    for side, one in found.totals.items():
        totals.add_row(side, f"{one.exceeded:,}", f"{one.alerts:,}", f"{one.calls_blocked:,}", money(one.cost_blocked))
    out.print(totals)
    changes = list(found.changes())
    if not changes:
        out.print("No limit would have done anything else.")
        return
    table = _table("limit", "value", "exceeded", "alerts", "calls stopped", "worth", "first exceeded")
    for key, before, after in changes[:_SHOWN]:
        sides = [one for one in (before, after) if one is not None]
        whole = after or before
        first = None if whole is None else whole.first_exceeded
        table.add_row(
            text(f"{key.place} {key.period} {key.kind}"),
            " → ".join(_shown(one.values[-1]) if one else "none" for one in (before, after)),
            *(_both(sides, before, after, name) for name in ("exceeded", "alerts", "calls_blocked", "cost_blocked")),
            "—" if first is None else f"{first:%Y-%m-%d %H:00}",
        )
    out.print(table)
    if len(changes) > _SHOWN:
        out.print(f"[dim]{_SHOWN} of {len(changes)} shown; --json has them all.[/]")


def _both(sides: Sequence[LimitOutcome], before: LimitOutcome | None, after: LimitOutcome | None, name: str) -> str:
    values = [getattr(one, name) if one else 0 for one in (before, after)]
    shown = money if name == "cost_blocked" else "{:,}".format
    return shown(values[0]) if values[0] == values[1] else f"{shown(values[0])} → {shown(values[1])}"


def _stood(row: BudgetStatus) -> dict[str, Any]:
    return {**_plain([row])[0], "place": str(row.place), "scope": row.scope}


def _show_status(rows: Sequence[BudgetStatus], origin: str) -> None:
    if not rows:
        out.print("No budget is set for what was used in the last 40 days.")
        return
    columns = ("budget of", "limit", "spent", "used", "pace", "exhausted", "")
    table = _table(*columns, title=f"Budgets by {origin}, fullest first")
    for row in sorted(rows, key=lambda row: -(row.ratio or 0))[:_SHOWN]:
        amount = money if row.kind == "cost" else "{:,.0f}".format
        bound = (
            "" if row.spent_upper == row.spent else f" … {'?' if row.spent_upper is None else amount(row.spent_upper)}"
        )
        table.add_row(
            text(row.place),
            f"{amount(row.limit)} {row.kind if row.kind != 'cost' else ''} {row.period}".replace("  ", " "),
            "—" if row.spent is None else f"{amount(row.spent)}{bound}",
            "—" if row.ratio is None else f"{row.ratio:.0%}",
            "—" if row.burn_long is None else f"{row.burn_long:.1f}×",
            "—" if row.projected_exhaustion is None else f"{row.projected_exhaustion:%Y-%m-%d %H:%M}",
            f"[{_STATE[row.state]}]{row.state}[/]",
        )
    out.print(table)


__all__: Final[Sequence[str]] = ("app",)
