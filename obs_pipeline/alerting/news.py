"""What a route has not told of an incident yet.

Holds ``Memory`` (what a route has told) and the one decision that compares it with the incident as it is. When and to whom
the news goes is decided in ``pipeline``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from obs_pipeline.alerting.models import Incident

TASKS: Final = "task:"
"""The lane of a tracker is called ``task:`` and the tracker, whichever route wants the task: one task an incident."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one route has told of one incident, and whether it holds something back.

    ``state`` is what was told last, empty if nothing was. ``level``, ``revision`` and ``episode`` are as they were
    told. ``first_told_at`` is when the current episode was first told. ``thread`` is the group it was told in.
    """

    route: str
    incident_id: str
    state: Literal["", "firing", "resolved"] = ""
    level: float = 0.0
    revision: int = 0
    episode: int = 0
    first_told_at: datetime | None = None
    told_at: datetime | None = None
    thread: str = ""
    escalated: bool = False
    held_since: datetime | None = None
    held_by: str = ""

    def is_up_to_date(self, incident: Incident) -> bool:
        """Whether the incident was told just as it is."""
        state = "firing" if incident.active else "resolved"
        told = (self.state, self.revision, self.episode) == (state, incident.revision, incident.episode)
        return told and (not incident.active or self.level >= incident.level)


@dataclass(frozen=True, slots=True)
class News:
    """Something about an incident that its route has not told. ``occasion`` tells apart what may be told repeatedly."""

    state: Literal["firing", "resolved"]
    reason: str
    occasion: str = ""


def news_of(incident: Incident, memory: Memory, repeat: timedelta | None, now: datetime) -> News | str:
    """What the route has not told yet, or why there is nothing."""
    if incident.merged_into and not memory.route.startswith(TASKS):
        return f"became part of {incident.merged_into}"
    if memory.held_since is not None:
        state: Literal["firing", "resolved"] = "firing" if incident.active else "resolved"
        return News(state, f"held back by {memory.held_by}", when(memory.held_since))
    if memory.state == "":
        return News("firing", "new") if incident.active else "over before anyone was told"
    if memory.state == "resolved":
        return _news_after_recovery(incident, memory)
    if not incident.active:
        return News("resolved", incident.resolution or "over")
    if incident.level > memory.level:
        return News("firing", f"grew to {_height(incident)}")
    if incident.revision > memory.revision:
        return News("firing", incident.correction or "corrected")
    if (
        incident.status == "open"
        and repeat is not None
        and memory.told_at is not None
        and memory.told_at + repeat <= now
    ):
        return News("firing", "still open and not acknowledged", when(memory.told_at))
    return f"told at {when(memory.told_at)}, nothing new since"


def _news_after_recovery(incident: Incident, memory: Memory) -> News | str:
    if incident.active:
        return News("firing", "came back", when(memory.told_at))
    if incident.revision > memory.revision:
        return News("resolved", incident.correction or "corrected")
    return f"its end was told at {when(memory.told_at)}"


def _height(incident: Incident) -> str:
    return f"{incident.level:g} %" if incident.kind == "budget" else incident.severity


def when(at: datetime | None) -> str:
    """A moment, readable and to the second; empty for none."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
