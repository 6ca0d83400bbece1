"""Turns planned calls into usage events: whole hours of a whole fleet at once, as Arrow tables.

What one call looks like, healthy or faulty, is here. How many calls there are, and files, are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obs_pipeline.usage.event import EVENT_SCHEMA, MONEY, TIME
from obs_pipeline.usage.simulation.catalogue import (
    CACHES,
    EMBEDDING,
    MODELS,
    ORGS,
    PROVIDER_OF,
    PROVIDERS,
    REASONS,
    REPORTS_CACHE_WRITES,
    WINDOW,
    RateCard,
)
from obs_pipeline.usage.simulation.config import Stream
from obs_pipeline.usage.simulation.fleet import Codes, Flags, Integers
from obs_pipeline.usage.simulation.incidents import (
    ERROR_STEP,
    ERROR_TYPES,
    LATENCY_STEP,
    MISPRICED_CALL,
    MODEL_SWAP,
    RETRY_STORM,
    RUNAWAY_CONTEXT,
    TIMEOUT,
)
from obs_pipeline.usage.simulation.world import DayPlan, World

Singles = npt.NDArray[np.float32]

HOUR_MS: Final = 3_600_000
OPERATIONS: Final = ("chat", "embeddings", "tool")
CHAT, EMBEDDINGS, TOOL = range(len(OPERATIONS))
ERROR_EDGES: Final = np.cumsum([0.35, 0.25, 0.2, 0.12], dtype=np.float32)
RELEASES: Final = tuple(f'{{"release":"r{number}"}}' for number in range(1, 100))
MOST_USERS: Final = 64
MOST_BUCKETS: Final = 1_000_000
"""Sessions of one user, at six an hour enough for the longest period; with the largest fleet, twelve digits."""

LONGEST_ANSWER: Final = 16_000
PREFILL_TOKENS_A_MS: Final = np.float32(15)
TIMEOUT_MS: Final = np.float32(60_000)
TRIPLETS: Final = np.array([list(f"{number:03d}".encode()) for number in range(1000)], dtype=np.uint8)


@dataclass(frozen=True)
class Calls:
    """Who calls when, sorted by time: one entry a call, ``time`` in milliseconds from the first midnight."""

    agent: Integers
    time: Integers
    fault: Codes
    tokens: Singles
    release: Codes


@dataclass(frozen=True)
class Struck:
    """The calls that fall into a fault: their positions, and for each the fault's index and kind."""

    at: Integers
    fault: Codes
    kind: Integers

    def by(self, kind: int) -> tuple[Integers, Codes]:
        chosen = self.kind == kind
        return self.at[chosen], self.fault[chosen]


def simulate_hours(world: World, plan: DayPlan, hours: range, first_id: int, rates: RateCard) -> pa.Table:
    """The events of some hours of a day in ``EVENT_SCHEMA`` columns (texts as dictionaries), sorted by time.

    ``first_id`` is the running number of the first event. The draw depends on the day and the first hour only.
    """
    rng = world.config.random(Stream.EVENTS, plan.number, hours.start)
    calls = _place(world, plan, hours, rng)
    at = np.flatnonzero(calls.fault >= 0)
    struck = Struck(at, calls.fault[at], world.faults.kind[calls.fault[at]])
    caller = _callers(world, calls, struck, rng)
    model, operation = _models(world, calls, struck, rng)
    failed, error_type = _errors(world, calls, struck, rng)
    tokens = _tokens(world, calls, struck, model, operation, failed, rng)
    latency, first_token = _latencies(world, calls, struck, tokens, operation, failed, error_type, rng)
    cost = _misprice(world, struck, list_costs(tokens, model, rates))
    columns = {
        "source": _same("simulator", len(calls.agent)),
        "event_id": numbered(f"sim-{world.config.seed}-", first_id + np.arange(len(calls.agent))),
        "event_time": _times(world, calls),
        "event_type": _same("usage", len(calls.agent)),
        **_places(world, calls),
        **caller,
        "provider": _coded(PROVIDER_OF[model], PROVIDERS),
        "model": _coded(model, [each.name for each in MODELS]),
        "operation": _coded(operation, OPERATIONS),
        **tokens.columns(),
        "reported_cost": _money(cost, ~world.fleet.reports_cost[calls.agent]),
        "latency_ms": pa.array(latency),
        "ttft_ms": pa.array(first_token, mask=np.isnan(first_token)),
        "error_type": _coded(error_type, ERROR_TYPES, missing=~failed),
        "attributes": _coded(calls.release.clip(max=len(RELEASES) - 1), RELEASES),
    }
    return pa.table([columns[name] for name in EVENT_SCHEMA.names], names=EVENT_SCHEMA.names)


def numbered(prefix: str, numbers: Integers) -> pa.StringArray:
    """``prefix`` followed by each number, zero-padded to twelve digits, without a Python string per row."""
    head = np.frombuffer(prefix.encode(), dtype=np.uint8)
    width = len(head) + 12
    text = np.empty((len(numbers), width), dtype=np.uint8)
    text[:, : len(head)] = head
    for right in range(width, len(head), -3):
        numbers, last = np.divmod(numbers, 1000)
        text[:, right - 3 : right] = TRIPLETS[last]
    offsets = np.arange(len(text) + 1, dtype=np.int32) * np.int32(width)
    return pa.StringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(text))


@dataclass(frozen=True)
class Tokens:
    """Token counts of each call; -1 stands for not reported."""

    input: Integers
    cache_read: Integers
    cache_write: Integers
    output: Integers
    reasoning: Integers
    saved: Integers

    def columns(self) -> dict[str, Any]:
        return {
            "input_tokens": pa.array(self.input),
            "output_tokens": pa.array(self.output),
            **{
                f"{name}_tokens": pa.array(values, mask=values < 0)
                for name in ("cache_read", "cache_write", "reasoning", "saved")
                for values in (getattr(self, name),)
            },
        }


def _place(world: World, plan: DayPlan, hours: range, rng: np.random.Generator) -> Calls:
    hour_slice = slice(hours.start, hours.stop)
    agents = world.fleet.size
    # Hour-major, so that a cell's number gives its agent and hour, and sorting moves calls within an hour only.
    cell = np.repeat(np.arange(agents * len(hours)), plan.calls[:, hour_slice].T.ravel())
    within = rng.random(len(cell)) * world.fleet.pace[cell % agents] * HOUR_MS
    time = (plan.first_hour + hours.start + cell // agents) * HOUR_MS + within.astype(np.int64)
    order = np.argsort(time, kind="stable")
    cell = cell[order]

    def of_cell(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values[:, hour_slice].T.ravel()[cell]

    return Calls(
        agent=cell % agents,
        time=time[order],
        fault=of_cell(plan.fault),
        tokens=of_cell(plan.tokens).astype(np.float32),
        release=of_cell(plan.release),
    )


def _callers(world: World, calls: Calls, struck: Struck, rng: np.random.Generator) -> dict[str, Any]:
    fleet, agent = world.fleet, calls.agent
    users = fleet.users[agent]
    # Squaring favours the first users: a few people make most of the calls.
    user = (users * rng.random(len(agent), dtype=np.float32) ** 2).astype(np.int64)
    length = fleet.session_minutes[agent].astype(np.int64) * 60_000
    bucket = (calls.time + (agent * 7 + user * 13) % 60 * 60_000) // length
    # A storm is one session that tries again and again, beside the usual traffic.
    at, fault = struck.by(RETRY_STORM)
    again = rng.random(len(at)) < 1 - 1 / world.faults.magnitude[fault]
    at, fault = at[again], fault[again]
    user[at] = 0
    bucket[at] = world.faults.start[fault] * HOUR_MS // length[at]
    pool = max(MOST_USERS, world.fleet.size * 4)
    person = (agent * 11 + user) % pool
    return {
        "user_id": _coded(person, numbered("user-", np.arange(pool)), missing=users == 0),
        "session_id": numbered("s-", (agent * MOST_USERS + user) * MOST_BUCKETS + bucket),
    }


def _models(world: World, calls: Calls, struck: Struck, rng: np.random.Generator) -> tuple[Codes, Codes]:
    fleet, agent = world.fleet, calls.agent
    choice = rng.random(len(agent), dtype=np.float32)[:, None]
    slot = (choice > fleet.model_steps[agent]).sum(axis=1)
    model = fleet.models[agent, slot]
    draw = rng.random(len(agent), dtype=np.float32)
    embeds = draw < fleet.embedding_share[agent]
    operation = np.where(embeds, EMBEDDINGS, np.where(draw > 1 - fleet.tool_share[agent], TOOL, CHAT)).astype(np.int32)
    model[embeds] = EMBEDDING
    at, fault = struck.by(MODEL_SWAP)
    swapped = operation[at] != EMBEDDINGS
    model[at[swapped]] = world.faults.model[fault[swapped]]
    for kind in (RUNAWAY_CONTEXT, MISPRICED_CALL):
        at, fault = struck.by(kind)
        model[at] = world.faults.model[fault]
        operation[at] = CHAT
    return model, operation


def _errors(world: World, calls: Calls, struck: Struck, rng: np.random.Generator) -> tuple[Flags, Codes]:
    rate = world.fleet.error_rate[calls.agent]
    for kind in (ERROR_STEP, RETRY_STORM):
        at, fault = struck.by(kind)
        rate[at] = world.faults.error_rate[fault]
    at, _ = struck.by(MISPRICED_CALL)
    rate[at] = 0
    failed = rng.random(len(rate), dtype=np.float32) < rate
    error_type = np.zeros(len(rate), dtype=np.int32)
    error_type[failed] = np.searchsorted(ERROR_EDGES, rng.random(int(failed.sum()), dtype=np.float32))
    for kind in (ERROR_STEP, RETRY_STORM):
        at, fault = struck.by(kind)
        error_type[at] = world.faults.error_type[fault]
    return failed, error_type


def _tokens(
    world: World,
    calls: Calls,
    struck: Struck,
    model: Codes,
    operation: Codes,
    failed: Flags,
    rng: np.random.Generator,
) -> Tokens:
    fleet, agent, n = world.fleet, calls.agent, len(calls.agent)
    tool, embeds = operation == TOOL, operation == EMBEDDINGS
    noise = rng.standard_normal(n, dtype=np.float32)
    size = np.exp(fleet.log_input[agent] + fleet.input_spread[agent] * noise) * calls.tokens
    size[tool] *= 1.3
    size[embeds] *= 0.3
    at, fault = struck.by(RUNAWAY_CONTEXT)
    size[at] = _runaway_sizes(world, calls, at, fault, noise[at])
    whole = size.clip(1, WINDOW[model]).astype(np.int64)

    answer = np.exp(fleet.log_output[agent] + np.float32(0.6) * rng.standard_normal(n, dtype=np.float32))
    answer[tool] *= 0.4
    output = answer.clip(1, LONGEST_ANSWER).astype(np.int64)
    output[embeds] = 0

    chance = rng.random(n, dtype=np.float32)
    hit = chance < fleet.cache_hits[agent]
    cached = (whole * fleet.cache_depth[agent]).astype(np.int64)
    thinks = REASONS[model]
    thought = (output * fleet.reasoning_share[agent] * (np.float32(0.5) + chance / 2)).astype(np.int64)
    saves = fleet.saved_share[agent]
    writes = (fleet.cache_hits[agent] > 0) & ~hit
    return Tokens(
        input=np.where(failed, 0, whole),
        cache_read=np.where(failed | ~CACHES[model], -1, cached * hit),
        cache_write=np.where(failed | ~REPORTS_CACHE_WRITES[model], -1, cached * writes),
        output=np.where(failed, 0, output),
        reasoning=np.where(failed | ~thinks, -1, thought),
        saved=np.where(failed | (saves == 0), -1, (whole * saves).astype(np.int64)),
    )


def _runaway_sizes(world: World, calls: Calls, at: Integers, fault: Codes, noise: Singles) -> Singles:
    """Input tokens that grow from the agent's usual size to the fault's magnitude by its end."""
    faults = world.faults
    start, end = faults.start[fault] * HOUR_MS, faults.end[fault] * HOUR_MS
    gone = (calls.time[at] - start) / (end - start)
    size = world.fleet.log_input[calls.agent[at]] + gone * np.log(faults.magnitude[fault])
    grown: Singles = np.exp(size + 0.02 * noise).astype(np.float32)
    return grown


def _latencies(
    world: World,
    calls: Calls,
    struck: Struck,
    tokens: Tokens,
    operation: Codes,
    failed: Flags,
    error_type: Codes,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Milliseconds to the end and to the first token, the latter NaN where the call does not stream."""
    fleet, agent, n = world.fleet, calls.agent, len(calls.agent)
    noise = np.exp(np.float32(0.3) * rng.standard_normal(n, dtype=np.float32))
    first = (fleet.first_token_ms[agent] + tokens.input.astype(np.float32) / PREFILL_TOKENS_A_MS) * noise
    first[operation == EMBEDDINGS] *= 0.2
    writing = fleet.ms_a_token[agent] * tokens.output * np.sqrt(noise)
    total = first + writing.astype(np.float32)
    total[failed & (error_type == TIMEOUT)] = TIMEOUT_MS
    at, fault = struck.by(LATENCY_STEP)
    slower = world.faults.magnitude[fault].astype(np.float32)
    first[at] *= slower
    total[at] *= slower
    streams = rng.random(n, dtype=np.float32) < fleet.stream_share[agent]
    first[~streams | failed | (operation == EMBEDDINGS)] = np.nan
    return np.rint(total * 10.0) / 10.0, np.rint(first * 10.0) / 10.0


def list_costs(tokens: Tokens, model: Codes, rates: RateCard) -> Integers:
    """Nano-dollars each call costs at list price, exactly; a part that is not reported counts as none."""
    tier = (tokens.input > rates.tier_start[model]).astype(np.int64)
    read, write = tokens.cache_read.clip(0), tokens.cache_write.clip(0)
    cost: Integers = (
        (tokens.input - read - write) * rates.uncached[model, tier]
        + read * rates.cache_read[model, tier]
        + write * rates.cache_write[model, tier]
        + tokens.output * rates.output[model, tier]
    )
    return cost


def _misprice(world: World, struck: Struck, cost: Integers) -> Integers:
    """Multiply the first call of each mispricing by its magnitude."""
    at, fault = struck.by(MISPRICED_CALL)
    wrong, first = np.unique(fault, return_index=True)
    cost[at[first]] *= world.faults.magnitude[wrong].astype(np.int64)
    return cost


def _places(world: World, calls: Calls) -> dict[str, Any]:
    fleet, agent = world.fleet, calls.agent
    return {
        "org": _coded(fleet.org[agent], ORGS),
        "project": _coded(fleet.project[agent], fleet.project_names),
        "team": _coded(fleet.team[agent], fleet.team_names),
        "agent": _coded(agent, fleet.names),
    }


def _times(world: World, calls: Calls) -> Any:
    midnight = np.datetime64(world.config.midnight, "us")
    return pa.array(midnight + calls.time * np.timedelta64(1000, "us"), type=TIME)


def _same(text: str, count: int) -> Any:
    return _coded(np.zeros(count, dtype=np.int32), [text])


def _coded(codes: npt.NDArray[Any], texts: Any, missing: Flags | None = None) -> Any:
    indices = pa.array(codes.astype(np.int32, copy=False), mask=missing)
    words = texts if isinstance(texts, pa.Array) else pa.array(list(texts), type=pa.string())
    return pa.DictionaryArray.from_arrays(indices, words)


def _money(nano: Integers, missing: Flags) -> Any:
    """Exact decimals from whole nano-dollars: the low and high words of their 128 bits, no rounding on the way."""
    words = np.stack([nano, nano >> 63], axis=1)
    valid = np.packbits(~missing, bitorder="little")
    return pa.Array.from_buffers(MONEY, len(nano), [pa.py_buffer(valid), pa.py_buffer(words)])
