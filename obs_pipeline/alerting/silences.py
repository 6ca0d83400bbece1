"""Silences: what somebody asked not to hear of, until when and why.

Holds the value and the rules of making one. A silence stops messages, never the record: what is silenced is found,
listed and traced as everything else. Times are UTC without a zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from obs_pipeline.alerting.matching import Labelled, Matchers, PatternError, checked
from obs_pipeline.alerting.models import Incident, digest
from obs_pipeline.errors import ObsError

LONGEST: Final = timedelta(days=90)
"""A silence that outlives whoever made it hides what nobody remembers."""


class SilenceError(ObsError):
    """A silence that cannot be made; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Incidents that all ``matchers`` mean are not told while ``starts_at <= now < ends_at``."""

    id: str
    matchers: Matchers
    author: str
    reason: str
    starts_at: datetime
    ends_at: datetime

    def in_force(self, now: datetime) -> bool:
        return self.starts_at <= now < self.ends_at


def new_silence(
    matchers: Mapping[str, str | Sequence[str]],
    *,
    author: str,
    reason: str,
    starts_at: datetime,
    ends_at: datetime,
    now: datetime,
) -> Silence:
    """A silence, if it is one that may be made.

    Raises:
        SilenceError: it would hide everything, says not why or by whom, or ends never, too late or in the past.
    """
    if not matchers:
        raise SilenceError("A silence without matchers would hide everything; name at least one, such as agent=NAME.")
    if not author.strip() or not reason.strip():
        raise SilenceError("A silence needs an author and a reason, so that others know whether it may go.")
    if ends_at <= max(starts_at, now):
        raise SilenceError(f"The silence would end at {ends_at:%Y-%m-%d %H:%M} UTC, before it began; name a later end.")
    if ends_at - starts_at > LONGEST:
        raise SilenceError(f"A silence may last {LONGEST.days} days at most; name an earlier end and renew it then.")
    try:
        meant = checked(matchers)
    except PatternError as error:
        raise SilenceError(f"The silence cannot be made: {error}.") from None
    name = digest(sorted(meant.items()), author, reason, starts_at, ends_at, now)
    return Silence(f"si-{name}", meant, author.strip(), reason.strip(), starts_at, ends_at)


def hidden_by(silence: Silence, incidents: Iterable[Incident]) -> list[Incident]:
    """What the silence would keep from being told: of these, those that are active and meant."""
    active = [one for one in incidents if one.active]
    mask = Labelled(active).meant_by(silence.matchers)
    return [one for one, meant in zip(active, mask, strict=True) if meant]
