"""The simulated fleet: reproducible, well-formed, priced exactly, and truthful about its own incidents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from obs_pipeline.usage.event import EVENT_SCHEMA
from obs_pipeline.usage.simulation import SimulationConfig, SimulationError, SimulationSummary, simulate
from obs_pipeline.usage.simulation.catalogue import EMBEDDING, MODELS, rate_card
from obs_pipeline.usage.simulation.config import LIMITS
from obs_pipeline.usage.simulation.events import MOST_BUCKETS, MOST_USERS, Tokens, list_costs, numbered
from obs_pipeline.usage.simulation.fleet import KINDS, build_fleet
from obs_pipeline.usage.simulation.incidents import FAULT_KINDS

MONDAY = date(2025, 6, 16)
FLEET = SimulationConfig(start=MONDAY, agents=30, days=28, seed=11)
SMALL = SimulationConfig(start=MONDAY, agents=8, days=10, seed=3, events=4_000)


@dataclass(frozen=True)
class Simulated:
    config: SimulationConfig
    out: Path
    summary: SimulationSummary

    @property
    def files(self) -> list[Path]:
        return sorted((self.out / "usage").glob("*.parquet"))

    def table(self) -> pa.Table:
        return pa.concat_tables(pq.read_table(path) for path in self.files).sort_by("event_id")

    def truth(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.out / f"{name}.csv", keep_default_na=False)

    def labels(self, *kinds: str) -> pd.DataFrame:
        labels = self.truth("labels")
        for edge in ("start", "end"):
            labels[edge] = pd.to_datetime(labels[edge]).dt.tz_localize(None)
        return labels[labels.kind.isin(kinds)] if kinds else labels


def run(config: SimulationConfig, out: Path, **options) -> Simulated:
    return Simulated(config, out, simulate(config, out, **options))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Simulated:
    return run(FLEET, tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def events(fleet) -> pd.DataFrame:
    return fleet.table().to_pandas()


@pytest.fixture(scope="module")
def calm_events(tmp_path_factory) -> pd.DataFrame:
    """The same fleet without faults: what would have happened."""
    return run(replace(FLEET, faults=False), tmp_path_factory.mktemp("calm")).table().to_pandas()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Simulated:
    return run(SMALL, tmp_path_factory.mktemp("small"))


def during(events: pd.DataFrame, fault) -> pd.DataFrame:
    inside = (events.event_time >= fault.start) & (events.event_time < fault.end)
    return events[inside & (events.agent == fault.agent)]


def before(events: pd.DataFrame, fault) -> pd.DataFrame:
    return events[(events.event_time < fault.start) & (events.agent == fault.agent)]


def list_price(event) -> Decimal:
    def count(value: float) -> int | None:
        return None if pd.isna(value) else int(value)

    usage = Usage(
        input_tokens=count(event.input_tokens),
        output_tokens=count(event.output_tokens),
        cache_read_tokens=count(event.cache_read_tokens),
        cache_write_tokens=count(event.cache_write_tokens),
    )
    moment = event.event_time.to_pydatetime().replace(tzinfo=UTC)
    return calc_price(usage, event.model, provider_id=event.provider, genai_request_timestamp=moment).total_price


# Reproducible


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_config_writes_the_same_tables(small, tmp_path, workers):
    again = run(SMALL, tmp_path, workers=workers)
    assert again.table() == small.table()
    for name in ("labels.csv", "benign.csv", "fleet.csv"):
        assert (again.out / name).read_bytes() == (small.out / name).read_bytes()


def test_another_seed_gives_another_fleet(small, tmp_path):
    other = run(replace(SMALL, seed=4), tmp_path)
    assert set(other.table()["event_id"].to_pylist()).isdisjoint(small.table()["event_id"].to_pylist())
    assert not other.truth("fleet").calls_a_day.equals(small.truth("fleet").calls_a_day)


def test_smaller_files_hold_the_same_events(small, tmp_path):
    split = run(replace(SMALL, events_per_file=100), tmp_path)
    rows = [pq.read_metadata(path).num_rows for path in split.files]
    assert max(rows) == 100
    assert len(rows) == split.summary.files > small.summary.files
    assert split.table() == small.table()


# Well-formed


def test_every_file_has_the_canonical_schema(fleet):
    assert len(fleet.files) == FLEET.days
    for path in fleet.files:
        assert pq.read_schema(path).equals(EVENT_SCHEMA)


def test_event_ids_are_unique_and_count_up_in_time(fleet):
    table = fleet.table()
    assert pc.count_distinct(table["event_id"]).as_py() == table.num_rows == fleet.summary.events
    assert table["event_id"][0].as_py() == "sim-11-000000000000"
    assert (np.diff(table["event_time"].to_numpy().astype(np.int64)) >= 0).all()


def test_a_day_made_in_several_pieces_is_still_one_sorted_series_of_ids(tmp_path, monkeypatch):
    monkeypatch.setattr("obs_pipeline.usage.simulation.run.CHUNK_EVENTS", 100)
    table = run(SMALL, tmp_path).table()
    ids = table["event_id"].to_pylist()
    assert ids == [f"sim-3-{number:012d}" for number in range(table.num_rows)]
    assert (np.diff(table["event_time"].to_numpy().astype(np.int64)) >= 0).all()


def test_each_file_holds_its_own_day_and_nothing_else_is_left_behind(fleet):
    for path in fleet.files:
        days = pc.unique(pc.cast(pq.read_table(path, columns=["event_time"])["event_time"], pa.date32()))
        assert days.to_pylist() == [date.fromisoformat(path.stem)]
    assert {path.name for path in fleet.out.rglob("*") if path.is_file()} == {
        *(path.name for path in fleet.files),
        "labels.csv",
        "benign.csv",
        "fleet.csv",
    }


def test_the_summary_tells_what_was_written(fleet):
    assert fleet.summary == SimulationSummary(
        events=fleet.table().num_rows,
        files=len(fleet.files),
        days=FLEET.days,
        agents=FLEET.agents,
        faults=len(fleet.labels()),
        bytes=sum(path.stat().st_size for path in fleet.files),
    )


def test_progress_counts_the_days(tmp_path):
    seen = []
    simulate(replace(SMALL, days=3), tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_parts_of_tokens_never_exceed_the_whole(events):
    cached = events.cache_read_tokens.fillna(0) + events.cache_write_tokens.fillna(0)
    assert (cached <= events.input_tokens).all()
    assert (events.reasoning_tokens.fillna(0) <= events.output_tokens).all()
    assert (events.saved_tokens.fillna(0) <= events.input_tokens).all()
    assert (events.ttft_ms.dropna() <= events.latency_ms[events.ttft_ms.notna()]).all()


def test_failed_calls_answer_and_cost_nothing(events):
    failed = events[events.error_type.notna()]
    assert len(failed) > 0
    assert (failed.output_tokens == 0).all()
    assert (failed.reported_cost.dropna() == 0).all()
    assert failed.ttft_ms.isna().all()


def test_every_column_carries_something_and_optional_ones_have_gaps(events):
    assert events.notna().any().all()
    gaps = {"user_id", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "saved_tokens"}
    gaps |= {"reported_cost", "ttft_ms", "error_type"}
    assert {name for name in events if events[name].isna().any()} == gaps


# The amount


@pytest.mark.parametrize(
    ("agents", "days", "wanted"), [(3, 5, 500), (8, 10, 4_000), (20, 14, 20_000), (40, 7, 300_000)]
)
def test_the_number_of_events_asked_for_is_met_within_a_tenth(tmp_path, agents, days, wanted):
    config = SimulationConfig(start=MONDAY, agents=agents, days=days, seed=5, events=wanted)
    assert run(config, tmp_path).summary.events == pytest.approx(wanted, rel=0.1)


def test_a_busy_fleet_leaves_its_sparse_agents_sparse(tmp_path):
    busy = run(SimulationConfig(start=MONDAY, agents=20, days=7, events=300_000), tmp_path)
    agents = busy.truth("fleet").set_index("agent").kind
    calls = busy.table().to_pandas().agent.map(agents).value_counts()
    assert calls["sparse"] / (agents == "sparse").sum() < 20 * 7
    assert calls["steady"] / (agents == "steady").sum() > 200 * 7


# Prices


def test_reported_costs_are_list_prices_to_the_nano_dollar_but_for_mispriced_calls(fleet, events):
    reported = events[events.reported_cost.notna()]
    for fault in fleet.labels("mispriced_call").itertuples():
        reported = reported.drop(during(reported, fault).index)
    chosen = pd.concat([reported.sample(400, random_state=1), reported.nlargest(150, "input_tokens")])
    assert chosen.model.nunique() >= 10
    for event in chosen.itertuples():
        assert event.reported_cost == list_price(event)


@given(
    model=st.sampled_from(range(len(MODELS))),
    day=st.dates(date(2025, 1, 1), date(2026, 6, 1)),
    uncached=st.integers(0, 250_000),
    cached=st.integers(0, 250_000),
    output=st.integers(0, 16_000),
)
def test_list_costs_agree_with_the_price_list_in_every_tier_and_on_every_day(model, day, uncached, cached, output):
    def column(value: int) -> np.ndarray:
        return np.array([value])

    none = column(-1)
    tokens = Tokens(column(uncached + cached), column(cached), none, column(output), none, none)
    if model == EMBEDDING:
        tokens = replace(tokens, cache_read=none, output=column(0))
    usage = Usage(
        input_tokens=int(tokens.input[0]),
        cache_read_tokens=max(0, int(tokens.cache_read[0])),
        output_tokens=int(tokens.output[0]),
    )
    expected = calc_price(
        usage,
        MODELS[model].name,
        provider_id=MODELS[model].provider,
        genai_request_timestamp=datetime.combine(day, time(23, 59), UTC),
    ).total_price
    assert list_costs(tokens, column(model), rate_card(day))[0] == expected * 10**9


def test_some_agents_report_no_cost_at_all_and_the_rest_always(fleet, events):
    share = events.reported_cost.notna().groupby(events.agent).mean()
    reports = fleet.truth("fleet").set_index("agent").reports_cost
    assert set(reports) == {"yes", "no"}
    assert (share == (reports.loc[share.index] == "yes")).all()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_model_is_known_to_the_price_list(model):
    assert calc_price(Usage(input_tokens=1_000), model.name, provider_id=model.provider).total_price > 0


# The fleet


def test_every_kind_of_agent_takes_part(fleet, events):
    kinds = fleet.truth("fleet").set_index("agent").kind
    assert set(events.agent.map(kinds)) == set(KINDS)


def test_new_agents_are_silent_before_their_start(fleet, events):
    agents = fleet.truth("fleet")
    starts = pd.to_datetime(agents[agents.kind == "new"].set_index("agent").first_seen).dt.tz_localize(None)
    first = events.groupby("agent").event_time.min()
    assert len(starts) > 0
    assert (starts > pd.Timestamp(MONDAY)).all()
    assert (first[starts.index] >= starts).all()


def test_office_agents_rest_at_weekends_and_at_night(fleet, calm_events):
    agents = fleet.truth("fleet").set_index("agent").kind
    office = calm_events[calm_events.agent.map(agents) == "office_hours"]
    by_hour = office.groupby(["agent", office.event_time.dt.hour]).size().unstack(fill_value=0)
    by_weekday = office.groupby(["agent", office.event_time.dt.weekday]).size().unstack(fill_value=0)
    share_of_busiest_eleven = np.sort(by_hour.to_numpy(), axis=1)[:, -11:].sum(axis=1) / by_hour.sum(axis=1)
    # Time zones shift the weekend by hours, so the two quietest days stand for it.
    share_of_weekend = np.sort(by_weekday.to_numpy(), axis=1)[:, :2].sum(axis=1) / by_weekday.sum(axis=1)
    assert (share_of_busiest_eleven > 0.8).all()
    assert (share_of_weekend < 0.12).all()


def test_batch_agents_run_in_the_same_few_hours_every_day(fleet, calm_events):
    agents = fleet.truth("fleet").set_index("agent").kind
    batch = calm_events[calm_events.agent.map(agents) == "batch"]
    assert batch.groupby("agent").event_time.agg(lambda times: times.dt.hour.nunique()).max() <= 4
    assert batch.user_id.isna().all()


def test_calls_vary_more_than_chance_alone(fleet, calm_events):
    agents = fleet.truth("fleet").set_index("agent").kind
    bursty = calm_events[calm_events.agent.map(agents) == "bursty"]
    hours = bursty.groupby(["agent", bursty.event_time.dt.floor("h")]).size()
    assert (hours.groupby("agent").var() / hours.groupby("agent").mean()).min() > 1.5


def test_a_large_fleet_belongs_to_two_organisations_and_a_small_one_to_one(tmp_path):
    sizes = {200: {0, 1}, 199: {0}}
    for agents, orgs in sizes.items():
        fleet = build_fleet(SimulationConfig(start=MONDAY, agents=agents, days=1))
        assert set(fleet.org.tolist()) == orgs
        assert len(set(fleet.names)) == agents


# The truth about incidents


def test_every_kind_of_fault_happens_at_least_twice(fleet):
    counts = fleet.labels().kind.value_counts()
    assert set(counts.index) == set(FAULT_KINDS)
    assert counts.min() >= 2


def test_labels_lie_within_the_period_and_after_its_first_week(fleet):
    labels = fleet.labels()
    assert (labels.start >= pd.Timestamp(MONDAY) + timedelta(days=7)).all()
    assert (labels.end <= pd.Timestamp(MONDAY) + timedelta(days=FLEET.days)).all()
    assert (labels.end > labels.start).all()
    assert labels.fault_id.is_unique


def test_faults_of_one_agent_are_three_days_apart(fleet):
    for _, faults in fleet.labels().sort_values("start").groupby("agent"):
        gaps = faults.start.iloc[1:].to_numpy() - faults.end.iloc[:-1].to_numpy()
        assert (gaps >= np.timedelta64(3, "D")).all()


def test_metrics_are_named_from_the_known_four(fleet):
    named = {metric for metrics in fleet.labels().metrics for metric in metrics.split("+")}
    assert named == {"cost", "tokens", "errors", "latency"}


@pytest.mark.parametrize("kind", ["spike", "off_hours_spike", "retry_storm"])
def test_surges_multiply_calls_by_about_their_magnitude(fleet, events, calm_events, kind):
    for fault in fleet.labels(kind).itertuples():
        calls, usual = len(during(events, fault)), len(during(calm_events, fault))
        assert calls >= 10
        assert calls > 0.4 * fault.magnitude * usual


def test_a_drift_ends_far_above_where_it_began(fleet, events, calm_events):
    for fault in fleet.labels("drift").itertuples():
        last_day = fault._replace(start=fault.end - timedelta(days=1))
        assert len(during(events, last_day)) > 1.7 * len(during(calm_events, last_day))


def test_nothing_happens_while_an_agent_is_down_that_would_else_have_worked(fleet, events, calm_events):
    for fault in fleet.labels("drop_to_zero").itertuples():
        assert len(during(events, fault)) == 0
        assert len(during(calm_events, fault)) > 0


def test_a_retry_storm_fails_over_and_over_in_one_session(fleet, events):
    for fault in fleet.labels("retry_storm").itertuples():
        storm = during(events, fault)
        assert storm.error_type.notna().mean() > 0.35
        assert storm.session_id.value_counts(normalize=True).iloc[0] > 0.6
        assert set(storm.error_type.dropna()) == {fault.error_type}


def test_an_error_step_raises_the_share_of_failures(fleet, events):
    for fault in fleet.labels("error_step").itertuples():
        failures = during(events, fault).error_type.notna()
        assert failures.sum() >= 3
        assert failures.mean() > 3 * before(events, fault).error_type.notna().mean()


def test_a_latency_step_slows_calls_by_its_magnitude(fleet, events):
    for fault in fleet.labels("latency_step").itertuples():
        slow, usual = during(events, fault).latency_ms.median(), before(events, fault).latency_ms.median()
        assert slow / usual == pytest.approx(fault.magnitude, rel=0.4)


def test_a_runaway_context_grows_from_call_to_call_towards_the_window(fleet, events):
    windows = {model.name: model.window for model in MODELS}
    for fault in fleet.labels("runaway_context").itertuples():
        calls = during(events, fault)
        sizes = calls.input_tokens[calls.error_type.isna()]
        assert np.corrcoef(sizes.rank(), np.arange(len(sizes)))[0, 1] > 0.95
        assert 0.3 * windows[fault.model] < sizes.max() <= windows[fault.model]


def test_a_mispriced_call_is_one_call_at_a_thousand_times_its_list_price_or_more(fleet, events):
    for fault in fleet.labels("mispriced_call").itertuples():
        ratios = [e.reported_cost / list_price(e) for e in during(events, fault).itertuples() if list_price(e)]
        assert sorted(ratios)[:-1] == [1] * (len(ratios) - 1)
        assert max(ratios) == int(fault.magnitude) >= 1000


def test_a_model_swap_moves_every_chat_to_the_dearer_model(fleet, events):
    for fault in fleet.labels("model_swap").itertuples():
        chats = during(events, fault).query("operation != 'embeddings'")
        assert set(chats.model) == {fault.model}
        assert (before(events, fault).model != fault.model).any()


def test_deploys_are_recorded_as_harmless_and_visible_in_the_release(fleet, events):
    deploys = fleet.truth("benign").query("kind == 'deploy'")
    assert len(deploys) > 0
    for deploy in deploys.itertuples():
        calls = events[events.agent == deploy.agent]
        start = pd.Timestamp(deploy.start).tz_localize(None)
        earlier, later = calls[calls.event_time < start], calls[calls.event_time >= start]
        assert set(earlier.attributes).isdisjoint(later.attributes)


def test_a_change_of_list_price_is_recorded_as_harmless(tmp_path):
    config = SimulationConfig(start=date(2025, 6, 8), agents=20, days=4, events=2_000)
    benign = run(config, tmp_path).truth("benign")
    changes = benign[benign.kind == "price_change"]
    assert len(changes) > 0
    assert set(changes.start) == {"2025-06-10T00:00:00Z"}
    assert (changes.factor.astype(float) == 0.2).all()


def test_a_fleet_without_faults_has_labels_without_rows(tmp_path):
    calm = run(replace(SMALL, faults=False), tmp_path)
    assert calm.summary.faults == len(calm.labels()) == 0


def test_a_period_too_short_for_faults_has_none(tmp_path):
    assert run(replace(SMALL, days=7), tmp_path).summary.faults == 0


# Bad input


@pytest.mark.parametrize("field", ["agents", "days", "events", "events_per_file"])
def test_a_size_of_zero_is_refused_by_name(field):
    with pytest.raises(SimulationError, match=f"^{field} is 0"):
        replace(SMALL, **{field: 0})


def test_the_largest_fleet_over_the_longest_period_still_has_twelve_digit_sessions():
    agents, days = LIMITS["agents"][1], LIMITS["days"][1]
    assert days * 24 * 6 + 6 < MOST_BUCKETS
    assert agents * MOST_USERS * MOST_BUCKETS <= 10**12


def test_a_session_belongs_to_one_agent_and_one_user(events):
    assert (events.groupby("session_id").agent.nunique() == 1).all()
    assert (events.groupby("session_id").user_id.nunique(dropna=False) == 1).all()


def test_a_folder_that_already_holds_usage_is_not_mixed_with_new_usage(small):
    with pytest.raises(SimulationError, match="already holds Parquet files"):
        simulate(SMALL, small.out)


# Texts


@given(numbers=st.lists(st.integers(0, 10**12 - 1)), prefix=st.sampled_from(["s-", "sim-42-", "user-"]))
def test_numbered_texts_are_the_prefix_and_twelve_digits(numbers, prefix):
    texts = numbered(prefix, np.array(numbers, dtype=np.int64))
    texts.validate(full=True)
    assert texts.to_pylist() == [f"{prefix}{number:012d}" for number in numbers]


def test_times_are_utc_without_a_zone():
    assert SMALL.at(25) == datetime(2025, 6, 17, 1)
