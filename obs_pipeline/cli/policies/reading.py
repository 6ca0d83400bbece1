"""What the reading commands of ``obs-pipeline policies`` share: their options, what they read, and the words they use.

No command and no rule is here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.settings import get_settings

if TYPE_CHECKING:
    from obs_pipeline.policy.files import LoadedPolicies
    from obs_pipeline.policy.provenance import PolicyRef
    from obs_pipeline.policy.schema import Place

Folder = Annotated[Path | None, typer.Option("--folder", help="The policy folder (default: OBS_POLICIES).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
ToFile = Annotated[Path | None, typer.Option("--out", "-o", help="Write it here instead of printing it.")]
At = Annotated[
    datetime | None,
    typer.Option("--at", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M"], help="UTC; now if left out."),
]

TO_MEND: Final = 2
"""Exit code: there is something to mend."""
MOST_SHOWN: Final = 40


def loaded(folder: Path | None) -> LoadedPolicies:
    """The policies of a folder, or of the settings' folder; a problem is an error."""
    from obs_pipeline.policy.files import load_policies

    return load_policies(folder or get_settings().policies, strict=True)


def used_places() -> tuple[Place, ...]:
    """Every place that usage mentions; none while there is no lake."""
    settings = get_settings()
    if settings.lake_uri is None and not Path(settings.lake).is_dir():
        return ()
    from obs_pipeline.cli.workspace import open_workspace
    from obs_pipeline.policy.spend import used_places

    workspace = open_workspace()
    with workspace.engine() as connection:
        return used_places(connection, workspace.lake)


def write(value: Any, file: Path | None) -> None:
    """JSON into a file, or printed."""
    if file is None:
        print_json(value)
        return
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    out.print(f"Written to {text(file)}.")


def say(lines: Iterable[str]) -> None:
    """Plain lines, as they are."""
    for line in lines:
        out.print(text(line), highlight=False, soft_wrap=True)


def plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Dataclasses as dictionaries."""
    from dataclasses import asdict

    return [asdict(row) for row in rows]


def table(*columns: str, title: str | None = None) -> Table:
    """A table that breaks a long name rather than cutting it off: the end of a place is what tells it apart."""
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def refs(policies: Iterable[PolicyRef]) -> list[str]:
    """Policies with file and line."""
    return [str(ref) for ref in policies]


def shown(value: Any) -> str:
    """A value of any field as people read it."""
    if value is None:
        return "—"
    if isinstance(value, int | Decimal):
        from obs_pipeline.policy.effective import amount

        return amount(value)
    if isinstance(value, tuple):
        return ", ".join(f"{part:f}" if isinstance(part, Decimal) else str(part) for part in value)
    return str(value)
