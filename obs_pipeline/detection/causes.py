"""What an anomaly most likely comes from: a small table that reads a split deviation from top to bottom.

Decides and words; it reads nothing and splits nothing. A likely cause is a guess with its evidence, not a proof.

The table
---------
1. ``mispriced call``: half of the deviation or more was reported above list price.
2. ``new agent``: it has no earlier usage at all, at any hour of the days compared with.
3. ``retry storm``: calls are at least 1.5 times the usual, and of them at least 15 %, and three times the usual share,
   failed. (A storm of an hour is diluted in its day: the marks are low enough to see it there.)
4. Otherwise the largest term in the direction of the deviation names it: volume → more calls (fewer calls), model mix →
   model swap, tokens per call → runaway context (shorter calls), cache share → cache miss (more from the cache),
   unit price → price change, error rate → failing calls, time per token → slower answers, errors → failing calls,
   credits → credit or correction.
5. ``unknown``: no term points there, or what the reference does not explain is the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from obs_pipeline.detection.decomposition import Split, Term, TermName
from obs_pipeline.detection.usage_sums import Model, Usage

CauseName = Literal[
    "mispriced call",
    "new agent",
    "retry storm",
    "more calls",
    "fewer calls",
    "model swap",
    "runaway context",
    "shorter calls",
    "cache miss",
    "more from the cache",
    "price change",
    "failing calls",
    "fewer failing calls",
    "slower answers",
    "quicker answers",
    "credit or correction",
    "unknown",
]

STORM_CALLS: Final = 1.5
"""A storm is at least so many times the usual calls."""
STORM_FAILED: Final = 0.15
"""At least this share of a storm's calls failed,"""
STORM_FAILED_TIMES: Final = 3.0
"""and at least so many times the usual share."""
HALF: Final = Decimal("0.5")

_BY_TERM: Final[Mapping[TermName, tuple[CauseName, CauseName]]] = {
    "volume": ("more calls", "fewer calls"),
    "model mix": ("model swap", "model swap"),
    "tokens per call": ("runaway context", "shorter calls"),
    "cache share": ("cache miss", "more from the cache"),
    "unit price": ("price change", "price change"),
    "errors": ("failing calls", "fewer failing calls"),
    "error rate": ("failing calls", "fewer failing calls"),
    "time per token": ("slower answers", "quicker answers"),
    "above list price": ("mispriced call", "mispriced call"),
    "credits": ("credit or correction", "credit or correction"),
    "reference": ("unknown", "unknown"),
}
"""What a term that weighs most says when the value rose, and when it fell."""


@dataclass(frozen=True, slots=True)
class Cause:
    """``name`` is one of the table; ``because`` a sentence with the evidence."""

    name: CauseName
    because: str

    def __str__(self) -> str:
        return f"{self.name}: {self.because}"


@dataclass(frozen=True, slots=True)
class _Facts:
    """Both sides summed up."""

    split: Split
    before: Usage
    after: Usage

    @property
    def usual_calls(self) -> float:
        return self.before.calls * float(self.split.scale)

    @property
    def failed_share(self) -> float:
        return self.after.failed_calls / self.after.calls if self.after.calls else 0.0

    @property
    def usual_failed_share(self) -> float:
        return self.before.failed_calls / self.before.calls if self.before.calls else 0.0


def likely_cause(split: Split, *, existed: bool = True) -> Cause:
    """The first row of the table that holds. ``existed``: it was used before, at whatever hour."""
    facts = _Facts(split, _total(split.before), _total(split.after))
    if _is_mispriced(split):
        return Cause("mispriced call", _mispriced(facts))
    if not existed and facts.after.calls > 0:
        return Cause(
            "new agent", f"none of its {facts.after.calls:,} calls has an earlier one in the time compared with"
        )
    if _is_storm(facts):
        return Cause("retry storm", f"{_failed(facts)}, {_calls(facts)}")
    term = _heaviest(split)
    name = _BY_TERM[term.name][0 if split.deviation > 0 else 1]
    return Cause(name, _EVIDENCE.get(term.name, _plainly)(facts, term))


def _is_mispriced(split: Split) -> bool:
    return split.deviation > 0 and split.amount("above list price") >= HALF * split.deviation


def _is_storm(facts: _Facts) -> bool:
    return (
        facts.after.calls >= STORM_CALLS * facts.usual_calls
        and facts.failed_share >= STORM_FAILED
        and facts.failed_share >= STORM_FAILED_TIMES * facts.usual_failed_share
    )


def _heaviest(split: Split) -> Term:
    sign = 1 if split.deviation >= 0 else -1
    return max(split.terms, key=lambda term: sign * term.amount)


# ---- words --------------------------------------------------------------------------------------------------------


def _mispriced(facts: _Facts) -> str:
    over = {model: usage for model, usage in facts.split.after.items() if usage.overcharge > 0}
    model, worst = max(over.items(), key=lambda one: one[1].overcharge)
    calls = f"{worst.overcharged_calls:,} call{'s' if worst.overcharged_calls != 1 else ''} to {_named(model)}"
    if worst.overcharged_list <= 0:
        return f"{calls} reported ${worst.overcharge:,.2f} although the list price is zero"
    ratio = (worst.overcharge + worst.overcharged_list) / worst.overcharged_list
    return f"{calls} reported {_rounded(float(ratio))} × the list price"


def _volume(facts: _Facts, _term: Term) -> str:
    return _calls(facts)


def _mix(facts: _Facts, term: Term) -> str:
    model = term.by_model[0][0] if term.by_model else None
    share, usual = (_share_of(usages, model) for usages in (facts.split.after, facts.split.before))
    return f"{share:.0%} of the calls went to {model or 'an unnamed model'}, usually {usual:.0%}"


def _tokens(facts: _Facts, _term: Term) -> str:
    model, usage = max(facts.split.after.items(), key=lambda one: one[1].largest_input)
    mean = _mean(facts.after.tokens, facts.after.calls)
    usual = _mean(facts.before.tokens, facts.before.calls)
    return (
        f"{_rounded(mean)} tokens a call, usually {_rounded(usual)}; "
        f"the largest call sent {usage.largest_input:,} input tokens to {_named(model)}"
    )


def _cache(facts: _Facts, _term: Term) -> str:
    now, usual = (_mean(usage.priced_cache_read, usage.priced_input) for usage in (facts.after, facts.before))
    return f"{now:.0%} of the input came from the cache, usually {usual:.0%}"


def _price(facts: _Facts, term: Term) -> str:
    model = term.by_model[0][0] if term.by_model else None
    return f"a token of {model or 'an unnamed model'} costs something else than it did, whatever its kind"


def _failures(facts: _Facts, _term: Term) -> str:
    return f"{_failed(facts)}, {_calls(facts)}"


def _speed(facts: _Facts, _term: Term) -> str:
    now, usual = (_mean(usage.waited_us / 1000, usage.timed_calls) for usage in (facts.after, facts.before))
    return f"{now:,.0f} ms a call on average, usually {usual:,.0f} ms, for no more tokens"


def _plainly(facts: _Facts, term: Term) -> str:
    if term.name == "reference":
        return "the calls before do not explain the expected value"
    return f"{term.name} weighs most"


_EVIDENCE: Final[Mapping[TermName, Callable[[_Facts, Term], str]]] = {
    "volume": _volume,
    "model mix": _mix,
    "tokens per call": _tokens,
    "cache share": _cache,
    "unit price": _price,
    "errors": _failures,
    "error rate": _failures,
    "time per token": _speed,
}


def _calls(facts: _Facts) -> str:
    return f"{facts.after.calls:,} calls, usually {_rounded(facts.usual_calls)}"


def _failed(facts: _Facts) -> str:
    return f"{facts.failed_share:.0%} of the calls failed, usually {facts.usual_failed_share:.1%}"


def _total(usages: Mapping[Model, Usage]) -> Usage:
    return sum(usages.values(), Usage())


def _share_of(usages: Mapping[Model, Usage], model: str | None) -> float:
    of_model = sum(usage.calls for (_, name), usage in usages.items() if name == model)
    return _mean(of_model, _total(usages).calls)


def _mean(total: float, count: float) -> float:
    return total / count if count else 0.0


def _named(model: Model) -> str:
    return model[1] or "an unnamed model"


def _rounded(value: float) -> str:
    """Two significant digits, written out."""
    return f"{float(f'{value:.2g}'):,.0f}" if abs(value) >= 10 else f"{value:.2g}"
