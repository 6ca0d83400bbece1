"""Following the lake: what is copied is what is there, and nobody waits for it who need not."""

from __future__ import annotations

import shutil
import threading
from datetime import timedelta
from pathlib import Path

import anyio
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import FileSystem

from obs_pipeline.alerting.records import incident_row
from obs_pipeline.dashboard.access import LOCAL
from obs_pipeline.dashboard.actions import ACTIONS
from obs_pipeline.dashboard.catalogue import QUESTIONS
from obs_pipeline.dashboard.service import Kept, Service
from obs_pipeline.dashboard.snapshot import NotReady, Snapshot
from obs_pipeline.dashboard.tables import MART_SPEND
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.lake import Lake
from obs_pipeline.storage.ledger import Ledger
from obs_pipeline_tests.alerting.cases import incident
from obs_pipeline_tests.dashboard.served import DAYS, LATENESS, NOW, Served, serve
from obs_pipeline_tests.object_store import ObjectStore, object_store  # noqa: F401


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


@pytest.fixture
def lake(served: Served, tmp_path: Path) -> Lake:
    shutil.copytree(served.lake.root, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def calls(snapshot: Snapshot) -> int:
    with snapshot.reading(LOCAL) as reader:
        return int(reader.rows("SELECT sum(calls) AS calls FROM spend_day")[0]["calls"])


def halve(lake) -> None:
    """Only the first day's rows stay."""
    lake.delete(MART_SPEND, f"dt > '{DAYS.first}'")


def test_the_copies_hold_the_same_sums(lake):
    snapshot = Snapshot(lake)
    snapshot.follow()
    with snapshot.reading(LOCAL) as reader:
        for name in ("calls", "cost", "unattributed_cost", "unpriced_calls", "cost_bound"):
            (row,) = reader.rows(
                f"SELECT (SELECT sum({name}) FROM spend_day) AS one, (SELECT sum({name}) FROM spend_total) AS other"
            )
            assert row["one"] == row["other"], name
        (row,) = reader.rows(
            "SELECT (SELECT sum(cost) FROM spend_day) AS one, (SELECT sum(cost) FROM spend_hour) AS other"
        )
        assert row["one"] == row["other"]
        assert row["one"] > 0


def test_a_reader_keeps_the_version_it_began_with(lake):
    snapshot = Snapshot(lake)
    snapshot.follow()
    before = calls(snapshot)
    with snapshot.reading(LOCAL) as reader:
        halve(lake)
        snapshot.follow()
        for name in ("spend_day", "spend_total", "spend_hour"):
            assert reader.rows(f"SELECT sum(calls) AS calls FROM {name}")[0]["calls"] == before, name
    assert calls(snapshot) < before


def test_a_lake_that_was_deleted_is_gone_and_one_made_anew_is_another(served: Served, lake):
    snapshot = Snapshot(lake)
    mark = snapshot.follow().mark_of([MART_SPEND])
    root = Path(lake.root)
    shutil.rmtree(root)
    with pytest.raises(NotReady):
        snapshot.follow()
    assert not snapshot.readable
    # The same version of a table that was made by somebody else.
    root.with_name("other").mkdir()
    shutil.copytree(serve(root.with_name("other")).lake.root, root)
    again = snapshot.follow()
    assert snapshot.readable
    assert again.versions[MART_SPEND.name] == served.lake.version(MART_SPEND)
    assert again.mark_of([MART_SPEND]) != mark


def test_a_lake_swapped_between_two_looks_is_noticed_although_its_version_is_the_same(served: Served, lake):
    snapshot = Snapshot(lake)
    mark = snapshot.follow().mark_of([MART_SPEND])
    root = Path(lake.root)
    root.rename(root.with_name("old"))
    root.with_name("other").mkdir()
    shutil.copytree(serve(root.with_name("other")).lake.root, root)
    assert snapshot.follow().mark_of([MART_SPEND]) != mark


def test_a_table_that_was_made_anew_is_followed_whatever_its_version(served: Served, lake: Lake):
    """One of fewer versions than before, and one that has come to more since."""
    snapshot = Snapshot(lake)
    before, mark = snapshot.follow(), None
    rows = lake.open(MART_SPEND).to_pyarrow_table().filter(pc.field("dt") == DAYS.first)
    for writes in (1, before.versions[MART_SPEND.name] + 3):
        shutil.rmtree(Path(lake.root) / MART_SPEND.name)
        for _ in range(writes):
            lake.append(MART_SPEND, rows)
        pinned = snapshot.follow()
        assert pinned.mark_of([MART_SPEND]) not in (before.mark_of([MART_SPEND]), mark)
        assert calls(snapshot) == writes * pc.sum(rows.filter(pc.field("grain") == "day")["calls"]).as_py()
        mark = pinned.mark_of([MART_SPEND])


def test_a_lake_in_an_object_store_that_was_made_anew_is_another(
    served: Served,
    object_store: ObjectStore,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    lake = Lake(object_store.uri("made-anew"))
    store, path = FileSystem.from_uri(lake.root)
    rows = served.lake.open(MART_SPEND).to_pyarrow_table()
    lake.append(MART_SPEND, rows)
    snapshot = Snapshot(lake)
    mark, before = snapshot.follow().mark_of([MART_SPEND]), calls(snapshot)
    assert snapshot.follow().mark_of([MART_SPEND]) == mark
    # Within the second, and to the same version.
    store.delete_dir_contents(path)
    lake.append(MART_SPEND, rows.filter(pc.field("dt") == DAYS.first))
    assert snapshot.follow().mark_of([MART_SPEND]) != mark
    assert 0 < calls(snapshot) < before
    store.delete_dir_contents(path)
    with pytest.raises(NotReady):
        snapshot.follow()


def test_a_table_that_cannot_be_read_is_said_to_be_so_and_read_when_it_can(served: Served, lake: Lake):
    entry = Path(lake.root) / MART_SPEND.name / "_delta_log" / f"{0:020d}.json"
    whole = entry.read_text()
    entry.write_text("{")
    snapshot = Snapshot(lake)
    with pytest.raises(NotReady, match=MART_SPEND.name):
        snapshot.follow()
    entry.write_text(whole)
    assert calls(snapshot) > 0


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_while_a_version_is_copied_the_one_before_answers(served: Served, lake, anyio_backend: str):
    import anyio.to_thread

    snapshot = Snapshot(lake)
    service = Service(snapshot, served.ledger, lateness=LATENESS, patience=0.01)
    metrics = QUESTIONS["dashboard_get_metrics"]
    before = await service.ask(metrics, {"timeframe": "week"}, LOCAL)
    halve(lake)
    copying, go_on, copy = threading.Event(), threading.Event(), snapshot._copy

    def slowly(*of: object) -> None:
        copying.set()
        go_on.wait(20)
        copy(*of)  # type: ignore[arg-type]

    snapshot._copy = slowly  # type: ignore[method-assign]
    assert await service.ask(metrics, {"timeframe": "week"}, LOCAL) == before
    # The answer does not wait for the copy, and so may come before it has begun.
    assert await anyio.to_thread.run_sync(copying.wait, 20)
    assert (await service.ask(metrics, {"timeframe": "month"}, LOCAL)).versions == before.versions
    go_on.set()
    while (after := await service.ask(metrics, {"timeframe": "week"}, LOCAL)).versions == before.versions:
        pass
    assert after.calls < before.calls
    await service.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_those_who_ask_the_same_at_once_are_answered_once(served: Served, lake, anyio_backend: str):
    service = Service(Snapshot(lake), served.ledger, lateness=LATENESS)
    made: list[str] = []
    answer = service._answer_json
    service._answer_json = lambda *of: made.append("") or answer(*of)  # type: ignore[method-assign,func-returns-value]
    found: list[str] = []

    async def ask() -> None:
        found.append(await service.ask_json(QUESTIONS["list_entities"], {}, LOCAL))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert len(found) == 20
    assert len(set(found)) == len(made) == 1
    await service.close()


def test_a_version_of_a_table_that_a_question_does_not_read_leaves_its_answer(served: Served, lake):
    from obs_pipeline.policy.tables import EFFECTIVE_POLICIES

    snapshot = Snapshot(lake)
    pinned = snapshot.follow()
    lake.delete(EFFECTIVE_POLICIES, "true")
    after = snapshot.follow()
    for name, changes in (("dashboard_get_metrics", False), ("get_effective_policy", True)):
        reads = QUESTIONS[name].reads
        assert (pinned.mark_of(reads) != after.mark_of(reads)) == changes


class Slow:
    """Lets answers be made when told to."""

    def __init__(self, service: Service) -> None:
        self.go_on, self.asked = threading.Event(), threading.Event()
        self._answer = service._answer_json
        service._answer_json = self  # type: ignore[method-assign,assignment]

    def __call__(self, *of: object) -> object:
        self.asked.set()
        self.go_on.wait(20)
        return self._answer(*of)  # type: ignore[arg-type]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_while_an_answer_is_made_of_a_new_version_the_one_before_is_given(served: Served, lake, anyio_backend):
    service = Service(Snapshot(lake), served.ledger, lateness=LATENESS, patience=0.01)
    metrics, week = QUESTIONS["dashboard_get_metrics"], {"timeframe": "week"}
    before = await service.ask(metrics, week, LOCAL)
    slow = Slow(service)
    halve(lake)
    service.mark()
    for _ in range(3):
        assert await service.ask(metrics, week, LOCAL) == before
    slow.go_on.set()
    while (after := await service.ask(metrics, week, LOCAL)) == before:
        await anyio.sleep(0.01)
    assert after.versions["mart_spend"] > before.versions["mart_spend"]
    assert after.calls < before.calls
    await service.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_answer_older_than_half_a_minute_is_not_given_for_a_new_version(served, lake, anyio_backend):
    now = 0.0
    service = Service(Snapshot(lake), served.ledger, lateness=LATENESS, patience=0.01, ticks=lambda: now)
    # The cache has a clock of its own, so what it would have dropped is dropped here.
    metrics, week = QUESTIONS["dashboard_get_metrics"], {"timeframe": "week"}
    before = await service.ask(metrics, week, LOCAL)
    await service.cache._cache.clear()
    halve(lake)
    now = 31.0
    assert (await service.ask(metrics, week, LOCAL)).calls < before.calls
    await service.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_changed_something_waits_for_an_answer_that_shows_it(served, lake, tmp_path, anyio_backend):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with AlertStore(ledger).deciding(NOW) as deciding:
        deciding.keep_incidents([incident_row(incident("inc-1", org="acme", updated_at=NOW))])
    service = Service(
        Snapshot(lake), ledger, lateness=LATENESS, patience=0.0, look_again=60, writes=lambda: NOW + timedelta(hours=1)
    )
    shown, inputs = QUESTIONS["list_incidents"], {"orgId": "acme"}
    (one,) = (await service.ask(shown, inputs, LOCAL)).incidents
    assert one.status == "open"
    await service.act(ACTIONS["acknowledge_incident"], {"incidentId": "inc-1"}, LOCAL)
    (one,) = (await service.ask(shown, inputs, LOCAL)).incidents
    assert one.status == "acknowledged"
    await service.close()


@pytest.mark.parametrize("text", [None, "", "x", "[]", "7\n{}", '{"a": 1}\n{}', '["a"]\n{}', "\udcff"])
def test_what_is_no_kept_answer_is_not_taken_for_one(text: str | None):
    assert Kept.unpacked(text) is None


@given(mark=st.text(), told=st.text(), body=st.text())
def test_a_kept_answer_comes_back_as_it_was(mark: str, told: str, body: str):
    assert Kept.unpacked(Kept(mark, told, body).packed()) == Kept(mark, told, body)
