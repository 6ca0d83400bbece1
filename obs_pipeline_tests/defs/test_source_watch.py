"""A source that falls silent: said once as what it is, end to end through the batch, and over when it sends again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from obs_pipeline.alerting.passes import run_pass
from obs_pipeline.alerting.records import incident_of, notification_of, trace_of
from obs_pipeline.alerting.routes import load_routes
from obs_pipeline.clock import utc_now
from obs_pipeline.defs.alerting import deliver_alerts, due_alerts_sensor
from obs_pipeline.defs.batch import run_daily_batch
from obs_pipeline.defs.resources import resources_from
from obs_pipeline.defs.source_watch import all_silences, silent_sources
from obs_pipeline.detection.tables import ANOMALIES
from obs_pipeline.settings import Settings, get_settings, project_root
from obs_pipeline.storage import engine
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.lake import DayRange, Lake
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger
from obs_pipeline.storage.source_positions import SourcePositions
from obs_pipeline.usage.inbox import Inbox
from obs_pipeline.usage.landing import Landing
from obs_pipeline.usage.pricing import PriceBook
from obs_pipeline_tests.usage_files import usage_rows, write_jsonl

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
STEADY = {
    "project": "atlas",
    "provider": "openai",
    "model": "gpt-4o",
    "input_tokens": 500_000,
    "cache_read_tokens": None,
    "output_tokens": 50_000,
    "reported_cost": None,
    "error_type": None,
    "latency_ms": 900.0,
}


@pytest.fixture
def watched(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings with the shipped policies, of which ``sources.yaml`` may be changed."""
    shutil.copytree(project_root() / "policies", tmp_path / "policies")
    monkeypatch.setenv("OBS_POLICIES", str(tmp_path / "policies"))
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture
def ledger(watched: Settings) -> Iterator[Ledger]:
    opened = Ledger(watched.ledger)
    yield opened
    opened.close()


def state(settings: Settings, text: str) -> None:
    (settings.policies / "sources.yaml").write_text(f"version: 1\n{text}\n")


def take_in(settings: Settings, rows: list, name: str, at: datetime) -> None:
    """Land a file as if it had come at that time."""
    write_jsonl(settings.landing / name, rows)
    inbox = Inbox(settings.landing, settings.policies / "sources")
    ledger = Ledger(settings.ledger)
    with engine.connect(scratch=settings.scratch) as connection:
        book = PriceBook.load(settings.policies / "prices.yaml")
        landing = Landing(
            Lake(settings.lake),
            ledger,
            book,
            connection,
            settings.scratch,
            settings.first_day,
            settings.price_tolerance,
        )
        _, refused = inbox.take_in(landing, inbox.waiting(), lambda: at)
    ledger.close()
    assert refused == []


def heard(ledger: Ledger, source: str, *moments: datetime) -> None:
    for at in moments:
        name = f"{source}-{at:%Y%m%d%H%M%S}"
        ledger.start_landing(LandedFile(name, source, name, 1, 0, None), "m", at)
        ledger.finish_landing(name, 0, [LandedDay(at.date(), 0, 0, at, at)], at)


def limits(settings: Settings):
    return resources_from(settings)["limits"]


def told(store: AlertStore) -> list[tuple[str, str, str]]:
    """(kind, state, headline) of what is in the outbox for people, in the order it was decided."""
    rows = sorted((row for row in store.outbox() if row.channel != "task"), key=lambda row: row.decided_at)
    return [(one.kind, row.message_state, one.headline) for row in rows for one in notification_of(row).incidents]


def steady(first: datetime, last: datetime, agent: str) -> list[dict[str, Any]]:
    """Four calls an hour, all alike, from one time to another."""
    days = (last - first).days + 2
    rows = usage_rows(days, per_day=24 * 4, start=first, agents=1)
    ours = [{**row, **STEADY, "agent": agent, "event_id": f"{agent}-{row['event_id']}"} for row in rows]
    return [row for row in ours if datetime.fromisoformat(row["event_time"]) < last]


def decide_later(settings: Settings, store: AlertStore, ledger: Ledger, minutes: int) -> None:
    """A pass as the delivering job makes it, some minutes from now: the group has waited."""
    routes = load_routes(settings.policies / "routes.yaml")
    run_pass(store, routes, utc_now() + timedelta(minutes=minutes), silent_sources(ledger, limits(settings), utc_now()))


def drops(settings: Settings) -> set[str]:
    """The agents of which the lake says that they used too little."""
    with engine.connect() as connection:
        Lake(settings.lake).view(connection, ANOMALIES)
        found = connection.execute("SELECT DISTINCT agent FROM anomalies WHERE observed < baseline").fetchall()
    return {agent for (agent,) in found}


def midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def test_a_source_that_is_down_four_hours_says_stale_and_not_that_cost_dropped(watched: Settings, ledger: Ledger):
    now = utc_now()
    down_since, first = now - 5 * HOUR, midnight(now - 14 * DAY)
    state(watched, "stale_after_hours: {canonical: 4}")
    take_in(watched, steady(first, down_since, "triage"), "usage.jsonl", down_since)
    run_daily_batch(watched, DayRange(first.date(), now.date()))
    store = AlertStore(ledger)
    decide_later(watched, store, ledger, 2)
    assert drops(watched) == {"triage"}
    sources = [one for one in told(store) if one[0] not in ("failed_check",)]
    assert [(kind, state) for kind, state, _ in sources] == [("stale_source", "firing")]
    assert sources[0][2].startswith("The source canonical has sent nothing for 5 h; usage since")


@pytest.mark.slow
def test_a_source_that_was_down_a_day_explains_its_agents_drop_while_another_sends_and_ends_when_it_is_back(
    watched: Settings, ledger: Ledger
):
    now = utc_now()
    down_since, first = midnight(now) - 20 * HOUR, midnight(now - 14 * DAY)
    state(watched, "stale_after_hours: {canonical: 4, aider: 4}")
    take_in(watched, steady(first, down_since, "triage"), "usage.jsonl", down_since)
    heard(ledger, "aider", now - HOUR, now)
    run_daily_batch(watched, DayRange(first.date(), now.date()))
    store = AlertStore(ledger)
    decide_later(watched, store, ledger, 2)
    assert drops(watched) == {"triage"}
    assert [(kind, state) for kind, state, _ in told(store) if kind != "failed_check"] == [("stale_source", "firing")]
    anomalies = [incident_of(row) for row in store.incidents() if row.kind == "anomaly"]
    [drop] = [one for one in anomalies if one.direction == "drop"]  # a dear new agent was told of at its beginning
    assert {trace.outcome for trace in map(trace_of, store.traces(drop.id))} == {"inhibited"}

    take_in(watched, steady(down_since, now, "triage"), "later.jsonl", now)
    run_daily_batch(watched, DayRange((now - 2 * DAY).date(), now.date()))
    decide_later(watched, store, ledger, 15)
    outcome = [(kind, state) for kind, state, _ in told(store) if kind != "failed_check"]
    assert outcome == [("stale_source", "firing"), ("stale_source", "resolved")]
    over = next(incident_of(row) for row in store.incidents() if row.kind == "stale_source")
    assert over.resolution == "the source sends again"


def test_sources_are_watched_between_batches(watched: Settings, ledger: Ledger):
    store, now = AlertStore(ledger), utc_now()
    ten_minutes = timedelta(minutes=30)
    heard(ledger, "proxy", *(now - 5 * HOUR - n * ten_minutes for n in range(200)))
    resources = resources_from(watched)
    with dg.DagsterInstance.ephemeral() as instance:
        seen = {name: resources[name] for name in ("ledger", "limits")}

        def look() -> object:
            with dg.build_sensor_context(instance, resources=seen) as tick:
                return due_alerts_sensor(tick)

        def send() -> None:
            needed = {name: resources[name] for name in ("ledger", "limits", "lake", "engine")}
            assert deliver_alerts.execute_in_process(instance=instance, resources=needed).success

        assert isinstance(look(), dg.RunRequest)
        send()
        assert [incident_of(row).subject for row in store.incidents(("open",))] == ["proxy"]
        assert isinstance(look(), dg.SkipReason)
        heard(ledger, "proxy", now)
        assert isinstance(look(), dg.RunRequest)
        send()
        assert isinstance(look(), dg.SkipReason)
    assert store.incidents(("open",)) == []


def test_what_pulls_bring_is_judged_by_the_pulls(watched: Settings, ledger: Ledger):
    now = utc_now()
    url = "kind: litellm_table, url: 'postgresql://db.internal:5432/litellm', since: 2026-01-01"
    state(watched, f"sources:\n  gateway: {{{url}}}\n  spare: {{{url}}}\n  new: {{{url}}}")
    heard(ledger, "litellm", now - 9 * DAY)
    SourcePositions(ledger).advance("gateway", now.isoformat(), 0, now - HOUR)
    SourcePositions(ledger).advance("spare", now.isoformat(), 0, now - 5 * HOUR)
    found = all_silences(ledger, limits(watched), now)
    assert [(one.source, one.is_stale(now)) for one in found] == [("gateway", False), ("spare", True)]


def test_a_file_of_sources_that_cannot_be_read_leaves_the_others_watched(watched: Settings, ledger: Ledger):
    now = utc_now()
    state(watched, "sources: [wrong]")
    heard(ledger, "gateway", now - 40 * HOUR)
    assert [one.source for one in silent_sources(ledger, limits(watched), now).signals] == ["gateway"]
