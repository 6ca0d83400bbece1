"""What the commands of ``obs-pipeline policies`` that write or tell history share: options, the store, how edits look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from obs_pipeline.cli.console import out, text
from obs_pipeline.cli.workspace import open_workspace

if TYPE_CHECKING:
    from obs_pipeline.policy.applied import FieldEdit
    from obs_pipeline.storage.policy_store import PolicyStore

MOST_SHOWN: Final = 40
NEEDS_ATTENTION: Final = 3
_FORMATS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many, the newest first.")]


def moment(name: str, says: str) -> Any:
    """An option that is a moment in UTC."""
    return typer.Option(name, formats=_FORMATS, help=f"{says} (UTC).")


@contextmanager
def open_store() -> Iterator[PolicyStore]:
    """The applied policies; the ledger is closed afterwards."""
    from obs_pipeline.storage.policy_store import PolicyStore

    ledger = open_workspace().ledger
    try:
        yield PolicyStore(ledger)
    finally:
        ledger.close()


def show_edits(edits: Iterable[FieldEdit]) -> None:
    """Each field, before and after."""
    for edit in edits:
        before, after = (said(value) for value in (edit.before, edit.after))
        out.print(f"    {text(edit.field)}: {text(before)} → {text(after)}", highlight=False, soft_wrap=True)


def said(value: object) -> str:
    """A value as it is written in a file."""
    if value is None:
        return "—"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def more(count: int) -> None:
    """Say so where not all of ``count`` were shown."""
    if count > MOST_SHOWN:
        out.print(f"[dim]{MOST_SHOWN} of {count:,} shown; --json has them all.[/]")
