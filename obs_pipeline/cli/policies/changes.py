"""``obs-pipeline policies`` diff, replay: what would a change of the files do, to limits and to past usage?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.policies.reading import (
    MOST_SHOWN,
    AsJson,
    At,
    loaded,
    plain,
    refs,
    say,
    shown,
    table,
    used_places,
)
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.policy.diff import Direction, PolicyDiff
    from obs_pipeline.policy.replay import LimitKey, LimitOutcome, Replay
    from obs_pipeline.policy.schema import Place

Base = Annotated[str, typer.Argument(help="A folder, a git revision, or 'applied' for what was last synced.")]
Head = Annotated[Path | None, typer.Option("--head", help="The proposed policies (default: OBS_POLICIES).")]

_NAMED: Final = 6
_TURN: Final = {"tighter": "[green]tighter[/]", "looser": "[yellow]looser[/]", "changed": "changed"}


def diff(base: Base, head: Head = None, at: At = None, as_json: AsJson = False) -> None:
    """Whose limits a change of the policies changes, and whether they become tighter or looser.

    Compares BASE with the files: **obs-pipeline policies diff main**, or **diff applied**.
    """
    from obs_pipeline.cli.policies.versions import policies_of
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.policy.diff import diff as compare

    workspace, proposed = open_workspace(), loaded(head).policies
    present = policies_of(base, workspace.settings.policies, workspace.ledger)
    found = compare(present, proposed, at or utc_now(), used_places())
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
                        "before_by": refs(change.before_by),
                        "after_by": refs(change.after_by),
                    }
                    for change in found.fields
                ],
                "conflicts": [conflict.message for conflict in found.conflicts],
            }
        )
    else:
        _show_diff(found)


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
    from obs_pipeline.cli.policies.versions import policies_of
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.dashboard.queries import known_days
    from obs_pipeline.policy.replay import replay as play
    from obs_pipeline.policy.replay import usage_span
    from obs_pipeline.policy.spend import spend_between
    from obs_pipeline.policy.windows import Window

    workspace, proposed = open_workspace(), loaded(head).policies
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


def _show_diff(found: PolicyDiff) -> None:
    from obs_pipeline.policy.diff import DIRECTIONS

    for edit in found.policies:
        ref = edit.after or edit.before
        out.print(f"{edit.edit:<8} {text(ref)}", highlight=False, soft_wrap=True)
    if not found.fields:
        out.print("What holds is the same for everyone.")
    for group, places in list(_alike(found).items())[:MOST_SHOWN]:
        out.print(f"{_TURN[group.direction]} {text(group.said)}", highlight=False, soft_wrap=True)
        say([f"        for {_few(places)}"])
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
        by = ", ".join(refs(change.after_by or change.before_by))
        said = f"{change.field}: {shown(change.before)} → {shown(change.after)} by {by or 'default'}"
        groups.setdefault(_Alike(change.direction, said), []).append(change.place)
    return groups


def _few(places: Sequence[Place]) -> str:
    more = len(places) - _NAMED
    return ", ".join(map(str, places[:_NAMED])) + (f" and {more} more" if more > 0 else "")


def _replayed(found: Replay) -> dict[str, Any]:
    def outcome(one: LimitOutcome | None) -> dict[str, Any] | None:
        return None if one is None else plain([one])[0]

    def limit(key: LimitKey) -> dict[str, str]:
        return {"place": str(key.place), "kind": key.kind, "period": key.period, "currency": key.currency}

    return {
        "from": found.span.start,
        "to": found.span.end,
        "totals": {side: plain([totals])[0] for side, totals in found.totals.items()},
        "changes": [
            {**limit(key), "present": outcome(before), "proposed": outcome(after)}
            for key, before, after in found.changes()
        ],
    }


def _show_replay(found: Replay, base: str) -> None:
    last: date = (found.span.end - timedelta(days=1)).date()
    out.print(f"Usage from {found.span.start.date()} to {last}, under {text(base)} and under the files:")
    totals = table("", "windows exceeded", "alerts", "calls stopped", "worth")
    for side, one in found.totals.items():
        totals.add_row(side, f"{one.exceeded:,}", f"{one.alerts:,}", f"{one.calls_blocked:,}", money(one.cost_blocked))
    out.print(totals)
    changes = list(found.changes())
    if not changes:
        out.print("No limit would have done anything else.")
        return
    told = table("limit", "value", "exceeded", "alerts", "calls stopped", "worth", "first exceeded")
    for key, before, after in changes[:MOST_SHOWN]:
        sides = [one for one in (before, after) if one is not None]
        whole = after or before
        first = None if whole is None else whole.first_exceeded
        told.add_row(
            text(f"{key.place} {key.period} {key.kind}"),
            " → ".join(shown(one.values[-1]) if one else "none" for one in (before, after)),
            *(_both(sides, before, after, name) for name in ("exceeded", "alerts", "calls_blocked", "cost_blocked")),
            "—" if first is None else f"{first:%Y-%m-%d %H:00}",
        )
    out.print(told)
    if len(changes) > MOST_SHOWN:
        out.print(f"[dim]{MOST_SHOWN} of {len(changes)} shown; --json has them all.[/]")


def _both(sides: Sequence[LimitOutcome], before: LimitOutcome | None, after: LimitOutcome | None, name: str) -> str:
    values = [getattr(one, name) if one else 0 for one in (before, after)]
    read = money if name == "cost_blocked" else "{:,}".format
    return read(values[0]) if values[0] == values[1] else f"{read(values[0])} → {read(values[1])}"
