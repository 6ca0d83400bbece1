"""Which incidents a set of matchers means: the one way in which routes, silences and inhibitions select.

Holds the language of patterns and its evaluation over many incidents at once. What is done with those that match is
decided elsewhere.

A matcher names a label and what its value must be: one pattern or a list of which one must hold. A pattern is

- text, with ``*`` and ``?`` standing for any characters and any one character: ``support-*``;
- ``!`` before a pattern: anything else (in a list with others, all ``!`` patterns must hold);
- ``>=`` or ``<`` before a severity, for the label ``severity`` alone: ``>=warning``;
- the empty text: the incident has no such label.

Case counts. Several matchers must all hold; none at all match everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obs_pipeline.alerting.models import LABELS, SEVERITIES, Incident

Matchers = Mapping[str, tuple[str, ...]]
Mask = NDArray[np.bool_]

_SEVERITY: Final = re.compile(r"(>=|<)\s*(\w+)")


class PatternError(ValueError):
    """A matcher that can mean nothing; the message says what to write."""


def checked(matchers: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Matchers with every value as a tuple of patterns.

    Raises:
        PatternError: a label or a severity that does not exist.
    """
    return {label: _patterns(label, value) for label, value in matchers.items()}


def _patterns(label: str, value: str | Sequence[str]) -> tuple[str, ...]:
    if label not in LABELS:
        raise PatternError(f"{label!r} is no label; it is one of {', '.join(LABELS)}")
    patterns = (value,) if isinstance(value, str) else tuple(value)
    if not patterns:
        raise PatternError(f"{label} lists nothing that it may be; write at least one value")
    for pattern in patterns:
        if label == "severity":
            _check_severity(pattern)
    return patterns


def _check_severity(pattern: str) -> None:
    found = _SEVERITY.fullmatch(pattern)
    named = found[2] if found else pattern.removeprefix("!")
    if named not in SEVERITIES and not set(named) & set("*?"):
        raise PatternError(f"{named!r} is no severity; it is one of {', '.join(SEVERITIES)}")


def means(label: str, patterns: Sequence[str], value: str) -> bool:
    """Whether a label's value is one that the patterns mean."""
    refusing = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
    if any(_is(label, pattern, value) for pattern in refusing):
        return False
    return not wanted or any(_is(label, pattern, value) for pattern in wanted)


def _is(label: str, pattern: str, value: str) -> bool:
    found = _SEVERITY.fullmatch(pattern) if label == "severity" else None
    if found is None:
        return _expression(pattern).fullmatch(value) is not None
    reached = value in SEVERITIES and SEVERITIES.index(value) >= SEVERITIES.index(found[2])
    return reached if found[1] == ">=" else not reached


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    translated = "".join({"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern)
    return re.compile(translated, re.DOTALL)


def all_hold(matchers: Matchers, labels: Mapping[str, str]) -> bool:
    """Whether one set of labels is meant."""
    return all(means(label, patterns, labels.get(label, "")) for label, patterns in matchers.items())


class Labelled:
    """Incidents with their labels as codes, so that a pattern is tried once a distinct value, not once an incident."""

    def __init__(self, incidents: Sequence[Incident]) -> None:
        self.incidents = tuple(incidents)
        self._columns = {label: _coded(getattr(one, label) for one in self.incidents) for label in LABELS}
        self._masks: dict[tuple[str, tuple[str, ...]], Mask] = {}

    def __len__(self) -> int:
        return len(self.incidents)

    def everything(self) -> Mask:
        return np.ones(len(self), dtype=np.bool_)

    def meant_by(self, matchers: Matchers) -> Mask:
        """One truth value an incident, in their order."""
        mask = self.everything()
        for label, patterns in matchers.items():
            mask &= self._one(label, tuple(patterns))
        return mask

    def keys(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """A number an incident, equal where all ``labels`` are equal."""
        keys = np.zeros(len(self), dtype=np.int64)
        for label in labels:
            values, codes = self._columns[label]
            _, keys = np.unique(keys * len(values) + codes, return_inverse=True)
        return keys

    def _one(self, label: str, patterns: tuple[str, ...]) -> Mask:
        known = self._masks.get((label, patterns))
        if known is None:
            known = self._masks[label, patterns] = self._held(label, patterns)[self._columns[label][1]]
        return known

    def _held(self, label: str, patterns: tuple[str, ...]) -> Mask:
        """As :func:`means`, for every distinct value of the label."""
        places = self._columns[label][0]
        refusing = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
        wanted = [pattern for pattern in patterns if not pattern.startswith("!")]
        holds = np.full(len(places), not wanted)
        for pattern in wanted:
            holds |= self._tried(label, pattern)
        for pattern in refusing:
            holds &= ~self._tried(label, pattern)
        return holds

    def _tried(self, label: str, pattern: str) -> Mask:
        places = self._columns[label][0]
        if label == "severity":
            return np.fromiter((_is(label, pattern, value) for value in places), np.bool_, len(places))
        if pattern.endswith("*") and not set(pattern[:-1]) & set("*?"):
            begins = pattern[:-1]
            return np.fromiter((value.startswith(begins) for value in places), np.bool_, len(places))
        if "*" in pattern or "?" in pattern:
            match = _expression(pattern).fullmatch
            return np.fromiter((match(value) is not None for value in places), np.bool_, len(places))
        found = np.zeros(len(places), dtype=np.bool_)
        if pattern in places:
            found[places[pattern]] = True
        return found


def _coded(values: Iterable[str]) -> tuple[dict[str, int], NDArray[np.int64]]:
    places: dict[str, int] = {}
    codes = np.array([places.setdefault(value, len(places)) for value in values], dtype=np.int64)
    return places, codes
