"""Effective policies at many instants, each resolved once for as long as nothing about it changes.

What holds changes when a revision comes into force and when a dated raise begins or ends, and at no other moment.
Pure: which policies were in force when is asked of a function passed in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from zoneinfo import ZoneInfo

from obs_pipeline.policy.effective import EffectivePolicy
from obs_pipeline.policy.provenance import SourcedPolicy
from obs_pipeline.policy.resolution import PolicySet, resolve, resolve_all
from obs_pipeline.policy.schema import Place
from obs_pipeline.policy.windows import moment


@dataclass(frozen=True, slots=True)
class Era:
    """Instants (UTC, in order) between which nothing changed, and what held at all of them."""

    moments: tuple[datetime, ...]
    policies: Sequence[SourcedPolicy]
    effective: Mapping[Place, EffectivePolicy]


def eras(
    moments: Iterable[datetime], held: Callable[[datetime], Sequence[SourcedPolicy]], used: Collection[Place]
) -> Iterator[Era]:
    """What held at each of the moments for the places used and for those that a policy is written for.

    ``held`` must answer with the same object for as long as the same policies are in force.
    """
    for _, same in groupby(sorted(moments), key=lambda at: id(held(at))):
        stretch = tuple(same)
        policies = held(stretch[0])
        indexed, edges = PolicySet(policies), turns(policies)
        places = sorted({step for place in (*indexed.places, *used) for step in place.chain}, key=_reading_order)
        for _, still in groupby(stretch, key=lambda at: bisect_right(edges, at)):
            instants = tuple(still)
            yield Era(instants, policies, resolve_all(places, indexed, instants[0]))


def turns(policies: Iterable[SourcedPolicy]) -> list[datetime]:
    """The moments (UTC) at which a dated raise begins or ends, in order."""
    sources = tuple(policies)
    indexed, found = PolicySet(sources), set[datetime]()
    for source in sources:
        dated = [increase for _, _, limit in source.policy.stated_limits() for increase in limit.increases]
        if dated:
            # The calendar does not depend on the time, so any instant does.
            zone = ZoneInfo(resolve(Place(source.policy.place.org), indexed, datetime(1970, 1, 1)).time_zone.value)
            found.update(moment(edge, zone) for increase in dated for edge in (increase.starts, increase.until))
    return sorted(found)


def _reading_order(place: Place) -> tuple[str, ...]:
    return tuple(part or "" for part in place)
