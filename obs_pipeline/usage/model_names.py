"""Who sold a call and under which name, read from the many spellings that events carry.

Holds the spellings of sellers and the rule that splits a routed name such as ``fireworks_ai/accounts/...``.
No prices, no catalogue, no files: what a name costs is decided in ``pricing``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

SELLERS: Final[dict[str, str]] = {
    "anthropic": "anthropic",
    "aws": "aws",
    "aws.bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "azure": "azure",
    "azure_ai": "azure",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "cerebras": "cerebras",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "databricks": "databricks",
    "deepinfra": "deepinfra",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "google": "google",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
    "github": "github",
    "github_copilot": "github-copilot",
    "groq": "groq",
    "huggingface": "huggingface",
    "hyperbolic": "hyperbolic",
    "lm_studio": "lm_studio",
    "minimax": "minimax",
    "mistral": "mistral",
    "mistral_ai": "mistral",
    "moonshot": "moonshotai",
    "moonshotai": "moonshotai",
    "nebius": "nebius",
    "novita": "novita",
    "nvidia_nim": "nvidia_nim",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "openai": "openai",
    "text-completion-openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "replicate": "replicate",
    "sambanova": "sambanova",
    "together": "together",
    "together_ai": "together",
    "vllm": "vllm",
    "hosted_vllm": "vllm",
    "voyage": "voyageai",
    "voyageai": "voyageai",
    "watsonx": "watsonx",
    "x-ai": "x-ai",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "zai": "zai",
}
"""Spelling in LiteLLM prefixes and OpenTelemetry attributes -> seller, by the price catalogue's id where it has one."""

GATEWAYS: Final = frozenset({"litellm", "litellm_proxy"})
"""Route calls but do not sell them: the seller stands in the model name behind the gateway's own prefix."""


_SNAPSHOT: Final = re.compile(r"(-latest|[-@]\d{4}-?\d{2}-?\d{2})$")


class ModelRef(NamedTuple):
    """A model as its seller lists it; lower case. ``seller`` is null when the name does not tell."""

    seller: str | None
    name: str


def split_model(model: str) -> tuple[str | None, str]:
    """Split a routed model name into ``(seller, name)``; the seller is null when no known prefix is there.

    Only the first known prefix is taken off: in ``openrouter/anthropic/claude-3.7-sonnet`` the seller is
    OpenRouter and ``anthropic/claude-3.7-sonnet`` is its name for the model.
    """
    prefix, slash, rest = model.strip().partition("/")
    if not slash or not rest:
        return None, model.strip()
    if prefix.lower() in GATEWAYS:
        return split_model(rest)
    seller = SELLERS.get(prefix.lower())
    return (None, model.strip()) if seller is None else (seller, rest)


def model_ref(provider: str | None, model: str) -> ModelRef:
    """The seller and the seller's name of a model, from an event's provider (if it has one) and model.

    A provider that the event states beats a prefix in the name; the prefix is taken off if it says the same.
    """
    seller = _seller(provider)
    prefix, name = split_model(model)
    if seller is None:
        return ModelRef(prefix, name.lower())
    if prefix is None or prefix == seller:
        return ModelRef(seller, name.lower())
    return ModelRef(seller, model.strip().lower())


def without_snapshot(name: str) -> str:
    """A model's name without the date of its snapshot: bills name the snapshot that calls of the plain name were served by.

    ``gpt-4o-2024-08-06``, ``claude-sonnet-4-20250514``, ``claude-sonnet-4@20250514`` and ``-latest`` lose their ends.
    """
    return _SNAPSHOT.sub("", name)


def _seller(provider: str | None) -> str | None:
    spelling = (provider or "").strip().lower()
    if not spelling or spelling in GATEWAYS:
        return None
    return SELLERS.get(spelling, spelling)
