"""``obs-pipeline policies`` status, litellm: where budgets stand, and what others need to enforce them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from obs_pipeline.cli.console import money, out, print_json, text
from obs_pipeline.cli.policies.reading import (
    MOST_SHOWN,
    AsJson,
    At,
    Folder,
    ToFile,
    loaded,
    plain,
    say,
    table,
    used_places,
    write,
)
from obs_pipeline.clock import utc_now

if TYPE_CHECKING:
    from obs_pipeline.policy.status import BudgetStatus

_STATE: Final = {"exceeded": "bold red", "warning": "yellow", "ok": "green", "incomparable": "dim"}


def status(
    at: At = None,
    everything: Annotated[bool, typer.Option("--all", help="Also the limits that come down from above.")] = False,
    as_json: AsJson = False,
) -> None:
    """Where every budget stands: spent, how fast, exhausted when. Sums the usage of the window; nothing is reset.

    Holds the applied policies, or the files while none were applied. Tells of targets that do not hold them yet.
    """
    from obs_pipeline.cli.policies.targets import late_targets
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
    say(f"policy file: {problem}" for problem in known.files.problems)
    _show_status(rows, held.origin)
    for late in late_targets(workspace):
        out.print(f"[yellow]pending[/] {text(late)}; the next sync goes on.", soft_wrap=True)


def litellm(
    file: ToFile = None,
    at: At = None,
    folder: Folder = None,
) -> None:
    """The policies as requests to the management API of a LiteLLM proxy, and what it cannot hold to.

    A project is a team, an agent a virtual key. Nothing is sent.
    """
    from obs_pipeline.policy.litellm_target import litellm_settings
    from obs_pipeline.policy.resolution import PolicySet, resolve_all

    policies = PolicySet(loaded(folder).policies)
    places = {place for stated in (*policies.places, *used_places()) for place in stated.chain}
    found = litellm_settings(resolve_all(places, policies, at or utc_now()).values())
    settings = [{"method": "POST", "path": one.path, "body": one.body} for one in found.settings]
    lost = [{"place": str(one.place), "field": one.field, "reason": one.reason} for one in found.untranslated]
    write({"requests": settings, "untranslated": lost}, file)


def _stood(row: BudgetStatus) -> dict[str, Any]:
    return {**plain([row])[0], "place": str(row.place), "scope": row.scope}


def _show_status(rows: Sequence[BudgetStatus], origin: str) -> None:
    if not rows:
        out.print("No budget is set for what was used in the last 40 days.")
        return
    columns = ("budget of", "limit", "spent", "used", "pace", "exhausted", "")
    told = table(*columns, title=f"Budgets by {origin}, fullest first")
    for row in sorted(rows, key=lambda row: -(row.ratio or 0))[:MOST_SHOWN]:
        amount = money if row.kind == "cost" else "{:,.0f}".format
        bound = (
            "" if row.spent_upper == row.spent else f" … {'?' if row.spent_upper is None else amount(row.spent_upper)}"
        )
        told.add_row(
            text(row.place),
            f"{amount(row.limit)} {row.kind if row.kind != 'cost' else ''} {row.period}".replace("  ", " "),
            "—" if row.spent is None else f"{amount(row.spent)}{bound}",
            "—" if row.ratio is None else f"{row.ratio:.0%}",
            "—" if row.burn_long is None else f"{row.burn_long:.1f}×",
            "—" if row.projected_exhaustion is None else f"{row.projected_exhaustion:%Y-%m-%d %H:%M}",
            f"[{_STATE[row.state]}]{row.state}[/]",
        )
    out.print(told)
