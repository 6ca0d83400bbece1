"""How the command line looks: consoles, progress, money, severities, JSON. No domain logic."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn

out: Final = Console()
errors: Final = Console(stderr=True)

SEVERITY_STYLE: Final[Mapping[str, str]] = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def progress(*columns: ProgressColumn, show: bool = True) -> Progress:
    """A bar beside standard error's text, for a terminal alone: a log or a file would keep blank lines of it."""
    return Progress(*columns, console=errors, transient=True, disable=not (show and errors.is_terminal))


def money(value: Decimal | float | None) -> str:
    """USD with as many decimals as its size deserves; an em dash for what is unknown."""
    if value is None:
        return "—"
    amount = Decimal(value)
    if amount == 0:
        return "$0.00"
    return f"${amount:,.2f}" if abs(amount) >= Decimal("0.1") else f"${amount:,.6f}".rstrip("0")


def severity(name: str) -> str:
    """A severity in its colour."""
    return f"[{SEVERITY_STYLE.get(name, 'white')}]{name}[/]"


def text(value: object) -> str:
    """Anything from data, with markup escaped."""
    return "—" if value is None else escape(str(value))


def print_json(value: Any) -> None:
    """One JSON document on standard output, and nothing else. Money is a string, so that it stays exact."""
    only_ascii = codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8"
    print(json.dumps(value, default=_plain, indent=2, ensure_ascii=only_ascii))  # noqa: T201


def _plain(value: object) -> object:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return round(value.total_seconds(), 3)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if hasattr(value, "__dict__"):
        return vars(value)
    return str(value)
