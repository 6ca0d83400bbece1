"""Names of time zones, as every settings file takes them. What a zone is used for is decided by the room whose file it is."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator


def known_zone(name: str) -> str:
    """The name itself, if it is that of an IANA zone.

    Raises:
        ValueError: it is none; the message says what to write.
    """
    # "localtime" is a file on some machines: a setting must mean the same on all of them.
    try:
        if name == "localtime":
            raise ValueError(name)
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        close = get_close_matches(name, available_timezones() - {"localtime"}, n=1)
        mend = f"did you mean {close[0]}?" if close else "write one such as Europe/Zurich"
        raise ValueError(f"{name!r} is no IANA time zone; {mend}") from None
    return name


TimeZone = Annotated[str, AfterValidator(known_zone)]
