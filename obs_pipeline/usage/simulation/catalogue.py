"""The models the simulated agents call, with their list prices, and the names of agents, projects and people.

Prices come from ``genai_prices``; only context windows and the upgrade of each provider are stated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt

from obs_pipeline.usage.simulation.config import SimulationError

NANO_PER_TOKEN: Final = 1000
"""One dollar a million tokens is a thousand nano-dollars a token."""

NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Model:
    """A model in the catalogue; ``window`` is the most input tokens it takes."""

    provider: str
    name: str
    window: int
    reasons: bool = False


MODELS: Final = (
    Model("openai", "gpt-4o", 128_000),
    Model("openai", "gpt-4o-mini", 128_000),
    Model("openai", "gpt-4.1", 1_000_000),
    Model("openai", "gpt-5", 400_000, reasons=True),
    Model("openai", "gpt-5-mini", 400_000, reasons=True),
    Model("openai", "o3", 200_000, reasons=True),
    Model("anthropic", "claude-sonnet-4-20250514", 200_000),
    Model("anthropic", "claude-3-5-haiku-20241022", 200_000),
    Model("google", "gemini-2.5-pro", 1_000_000, reasons=True),
    Model("google", "gemini-2.5-flash", 1_000_000, reasons=True),
    Model("openai", "o1", 200_000, reasons=True),
    Model("anthropic", "claude-opus-4-20250514", 200_000),
    Model("openai", "text-embedding-3-small", 8_000),
)
CHOSEN: Final = 10
"""The first so many models are what agents choose from; the rest appear only by an upgrade or for embeddings."""

CODE: Final = {model.name: code for code, model in enumerate(MODELS)}
EMBEDDING: Final = CODE["text-embedding-3-small"]
DEAREST: Final = {
    "openai": CODE["o1"],
    "anthropic": CODE["claude-opus-4-20250514"],
    "google": CODE["gemini-2.5-pro"],
}
"""What someone reaches for who wants the best model of a provider."""

PROVIDERS: Final = tuple(dict.fromkeys(model.provider for model in MODELS))
PROVIDER_OF: Final = np.array([PROVIDERS.index(model.provider) for model in MODELS], dtype=np.int32)
WINDOW: Final = np.array([model.window for model in MODELS], dtype=np.float32)
REASONS: Final = np.array([model.reasons for model in MODELS])
CACHES: Final = np.arange(len(MODELS)) != EMBEDDING
REPORTS_CACHE_WRITES: Final = np.array([model.provider == "anthropic" for model in MODELS])

ROLES: Final = (
    "support-triage",
    "invoice-reader",
    "code-review",
    "sales-research",
    "contract-summary",
    "log-analyst",
    "ticket-router",
    "report-builder",
    "meeting-notes",
    "doc-translator",
    "fraud-screen",
    "release-notes",
    "data-catalog",
    "travel-desk",
    "onboarding-guide",
    "search-ranker",
    "test-writer",
    "mail-drafter",
    "price-watch",
    "policy-helper",
)
PROJECTS: Final = ("atlas", "beacon", "cobalt", "delta", "ember", "fjord", "garnet", "harbor", "iris", "juniper")
TEAMS: Final = ("platform", "support", "finance", "growth", "research", "risk", "people", "field")
ORGS: Final = ("acme", "globex")


@dataclass(frozen=True)
class RateCard:
    """List prices of every model in whole nano-dollars a token.

    The rate arrays are int64 of shape ``(models, 2)``: the plain rate, and the rate of the whole request once its
    input exceeds ``tier_start[model]`` tokens.
    """

    uncached: npt.NDArray[np.int64]
    cache_read: npt.NDArray[np.int64]
    cache_write: npt.NDArray[np.int64]
    output: npt.NDArray[np.int64]
    tier_start: npt.NDArray[np.int64]

    def typical(self, model: int) -> float:
        """Nano-dollars a token for a call with three input tokens to each output token."""
        return float(3 * self.uncached[model, 0] + self.output[model, 0]) / 4


def rate_card(day: date) -> RateCard:
    """The list prices in force at midnight UTC of ``day``."""
    from genai_prices import Usage, calc_price

    moment = datetime.combine(day, time.min, tzinfo=UTC)
    rates = np.zeros((4, len(MODELS), 2), dtype=np.int64)
    starts = np.full(len(MODELS), NEVER, dtype=np.int64)
    for code, model in enumerate(MODELS):
        price = calc_price(
            Usage(input_tokens=1), model.name, provider_id=model.provider, genai_request_timestamp=moment
        ).model_price
        plain = price.input_mtok
        parts = (plain, price.cache_read_mtok or plain, price.cache_write_mtok or plain, price.output_mtok)
        for row, part in enumerate(parts):
            rates[row, code] = _plain_and_tier(model.name, part)
        starts[code] = min((tier.start for tier in getattr(plain, "tiers", ())), default=NEVER)
    return RateCard(rates[0], rates[1], rates[2], rates[3], starts)


def numbered_names(stems: tuple[str, ...], count: int) -> list[str]:
    """``count`` distinct names that go round the stems: a, b, a-2, b-2 ..."""
    rounds = [divmod(position, len(stems)) for position in range(count)]
    return [stems[stem] if lap == 0 else f"{stems[stem]}-{lap + 1}" for lap, stem in rounds]


def _plain_and_tier(name: str, price: object) -> tuple[int, int]:
    if price is None:
        return 0, 0
    tiers = getattr(price, "tiers", ())
    if len(tiers) > 1:
        raise SimulationError(f"The price of {name} has {len(tiers)} tiers; the simulator knows one at most.")
    plain = getattr(price, "base", price)
    return _nano(name, plain), _nano(name, tiers[0].price if tiers else plain)


def _nano(name: str, dollars_a_million: object) -> int:
    nano = Decimal(str(dollars_a_million)) * NANO_PER_TOKEN
    if nano != int(nano):
        raise SimulationError(f"The price of {name} is finer than a nano-dollar a token; choose another model.")
    return int(nano)
