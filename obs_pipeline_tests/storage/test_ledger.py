from __future__ import annotations

import threading
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from obs_pipeline.storage import ledger as module
from obs_pipeline.storage.ledger import LandedDay, LandedFile, Ledger, LedgerError
from obs_pipeline.usage.due_days import pending_days

NOON = datetime(2026, 3, 2, 12)
MONDAY = date(2026, 3, 2)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'state' / 'ledger.db'}")


def land(ledger: Ledger, file_id: str, *days: date) -> None:
    ledger.start_landing(LandedFile(file_id, "gateway", f"{file_id}.csv", 10, 0, None), "m", NOON)
    ledger.finish_landing(file_id, len(days), [LandedDay(day, 1, 0, NOON, NOON) for day in days], NOON)


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_the_schema_in_the_code_is_the_schema_the_migrations_make(ledger: Ledger):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    import obs_pipeline.storage.access_log
    import obs_pipeline.storage.access_store
    import obs_pipeline.storage.alert_store
    import obs_pipeline.storage.anomaly_labels
    import obs_pipeline.storage.policy_store
    import obs_pipeline.storage.source_positions
    import obs_pipeline.storage.target_store  # noqa: F401

    with ledger.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, module.metadata) == []


def test_the_newest_migration_is_the_one_the_code_expects(ledger: Ledger):
    assert ledger.revision() == module.HEAD


def test_a_landing_counts_only_when_it_is_finished(ledger: Ledger):
    ledger.start_landing(LandedFile("f", "gateway", "f.csv", 10, 0, None), "m", NOON)
    assert ledger.landing_of("f") == ("landing", "m")
    assert ledger.newest_landing_per_day() == {}
    ledger.finish_landing("f", 1, [LandedDay(MONDAY, 1, 0, NOON, NOON)], NOON)
    assert ledger.landing_of("f") == ("landed", "m")
    assert list(ledger.newest_landing_per_day()) == [MONDAY]


def test_an_interrupted_landing_can_be_started_again(ledger: Ledger):
    ledger.start_landing(LandedFile("f", "gateway", "f.csv", 10, 0, None), "m", NOON)
    land(ledger, "f", MONDAY)
    assert ledger.landing_of("f") == ("landed", "m")


def test_a_settled_day_is_pending_again_when_more_lands(ledger: Ledger):
    land(ledger, "first", MONDAY)
    ledger.note_seen(ledger.newest_landing_per_day())
    assert pending_days(ledger.newest_landing_per_day(), ledger.settled_through()) == [MONDAY]
    assert ledger.mark_settled((MONDAY, MONDAY), NOON) == 1
    assert pending_days(ledger.newest_landing_per_day(), ledger.settled_through()) == []
    land(ledger, "second", MONDAY)
    assert pending_days(ledger.newest_landing_per_day(), ledger.settled_through()) == [MONDAY]


def test_what_landed_while_the_batch_ran_is_still_pending(ledger: Ledger):
    land(ledger, "first", MONDAY)
    ledger.note_seen(ledger.newest_landing_per_day())
    land(ledger, "second", MONDAY)
    ledger.mark_settled((MONDAY, MONDAY), NOON)
    assert pending_days(ledger.newest_landing_per_day(), ledger.settled_through()) == [MONDAY]


def test_a_file_landed_anew_makes_the_days_it_left_pending_too(ledger: Ledger):
    land(ledger, "first", MONDAY)
    ledger.note_seen(ledger.newest_landing_per_day())
    ledger.mark_settled((MONDAY, MONDAY), NOON)
    land(ledger, "first", MONDAY + timedelta(days=5))
    pending = pending_days(ledger.newest_landing_per_day(), ledger.settled_through())
    assert pending == [MONDAY, MONDAY + timedelta(days=5)]


def test_freshness_is_the_newest_event_of_each_source(ledger: Ledger):
    land(ledger, "first", MONDAY)
    land(ledger, "second", MONDAY)
    (source,) = ledger.freshness()
    assert (source.source, source.files, source.rows, source.last_event) == ("gateway", 2, 2, NOON)


def test_landings_are_told_one_by_one_after_a_time_and_as_one_before_it(ledger: Ledger):
    for number in range(3):
        name, at = f"file-{number}", NOON + timedelta(hours=number)
        ledger.start_landing(LandedFile(name, "gateway", name, 1, 0, None), "m", at)
        ledger.finish_landing(name, 1, [LandedDay(MONDAY, 1, 0, at, at - timedelta(minutes=5))], at)
    told = [("gateway", at, at - timedelta(minutes=5)) for at in (NOON + timedelta(hours=n) for n in range(3))]
    assert ledger.landings(NOON - timedelta(days=1)) == told
    assert ledger.landings(NOON + timedelta(hours=1)) == told[1:]


def test_an_unusable_path_says_where_and_what_to_do(tmp_path: Path):
    (tmp_path / "ledger.db").write_text("this is no database, and long enough to be sure of it" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.db.*OBS_HOME"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}").revision()


def test_a_password_in_the_url_is_never_shown():
    with pytest.raises(LedgerError) as caught:
        Ledger("postgresql+nodriver://me:s3cret@nowhere/db").revision()
    assert "s3cret" not in str(caught.value)


def test_writers_of_several_threads_wait_for_each_other(ledger: Ledger):
    ledger.migrate()
    threads = [threading.Thread(target=land, args=(ledger, f"f{n}", MONDAY + timedelta(days=n))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.newest_landing_per_day()) == 8


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    written = Ledger(url)
    with written.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    written.close()
    with pytest.raises(LedgerError, match=rf"newer version: this one knows revisions up to {module.HEAD} .*9999"):
        Ledger(url).revision()
