"""One pass of alerting over the ledger: fold what was found, decide what is told, keep both.

Holds the order of reading and writing; the decisions are those of ``incidents`` and ``pipeline``. Sends nothing: what is
decided waits in the outbox. A pass is one transaction and passes take turns, so a pass that is killed has not happened,
and two at once do not tell the same twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from obs_pipeline.alerting import records
from obs_pipeline.alerting.incidents import Case, Rules, fold, no_longer_found
from obs_pipeline.alerting.lanes import Past
from obs_pipeline.alerting.models import Incident, Signal, Trace
from obs_pipeline.alerting.pipeline import Decisions, decide
from obs_pipeline.alerting.routes import Routes, RoutesError, load_routes, parse_routes
from obs_pipeline.storage.alert_pass import AlertPass
from obs_pipeline.storage.alert_store import AlertStore
from obs_pipeline.storage.alert_tables import SignalRow
from obs_pipeline.storage.ledger import Ledger

ROUTES_FILE: Final = "routes.yaml"
LATELY: Final = timedelta(days=7)
"""How long a resolved incident is still looked at: for its recovery notice, its correction and its coming back."""


@dataclass(frozen=True)
class Findings:
    """What a pass is told. ``through``: up to when usage was looked at; ``over``: subjects that are reported over;
    ``recomputed``: UTC days whose anomalies ``signals`` holds anew, all of them."""

    signals: Sequence[Signal] = ()
    through: datetime | None = None
    over: Collection[str] = ()
    recomputed: Collection[date] = ()


@dataclass(frozen=True)
class PassResult:
    """What a pass did: incidents that are new or changed, messages put into the outbox, outcomes by name."""

    changed: int
    queued: int
    outcomes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RoutesInForce:
    """The routes to decide by. ``problem`` says why they are not those of the file, empty if they are."""

    routes: Routes
    problem: str = ""


def routes_in_force(store: AlertStore, path: Path, now: datetime) -> RoutesInForce:
    """The routes of the file, which are in force from now on; if it cannot be used, the last that could.

    Raises:
        RoutesError: the file cannot be used and none ever could.
    """
    usable = usable_routes(store, path)
    if not usable.problem:
        store.keep_routes(usable.routes.digest, usable.routes.text, now)
    return usable


def usable_routes(store: AlertStore, path: Path) -> RoutesInForce:
    """As :func:`routes_in_force`, but keeps nothing."""
    try:
        return RoutesInForce(load_routes(path))
    except RoutesError as error:
        last = store.routes()
        if last is None:
            raise
        return RoutesInForce(parse_routes(last.content.encode("utf-8"), path.name), str(error))


def run_pass(
    store: AlertStore, routes: Routes, now: datetime, findings: Findings | None = None, rules: Rules | None = None
) -> PassResult:
    """Fold, decide and keep, at ``now`` (UTC without a zone). Without findings only time passes."""
    findings = findings or Findings()
    with store.deciding(now) as ledger:
        cases = _cases(ledger, now)
        folded = fold(
            cases.values(),
            findings.signals,
            now,
            through=findings.through,
            over=findings.over,
            withdrawn=no_longer_found(cases.values(), findings.signals, findings.recomputed),
            rules=rules,
        )
        _keep_cases(ledger, folded.cases, folded.dropped)
        cases.update({case.incident.id: case for case in folded.cases})
        incidents = [case.incident for case in cases.values()]
        silences = [records.silence_of(row) for row in ledger.silences(now)]
        decisions = decide(routes, incidents, silences, _past(ledger, incidents, now), now)
        queued = _keep_decisions(ledger, decisions)
    return PassResult(len(folded.cases), queued, Counter(trace.outcome for trace in decisions.traces))


def tell(ledger: Ledger, policies: Path, findings: Findings, now: datetime) -> dict[str, Any]:
    """A pass over the findings by the routes of the folder; what it did, ready to be shown. Findings that do not say
    through when usage was looked at are taken to know what has landed. Without any usable routes nothing can be decided,
    and that is said instead."""
    store = AlertStore(ledger)
    findings = replace(findings, through=findings.through or heard_through(ledger, now))
    try:
        in_force = routes_in_force(store, policies / ROUTES_FILE, now)
    except RoutesError as error:
        return {"routes": f"none can be used, nobody is told: {error}"}
    passed = run_pass(store, in_force.routes, now, findings)
    return {
        "routes": in_force.problem or f"policies/{ROUTES_FILE}",
        "incidents_changed": passed.changed,
        "messages_decided": passed.queued,
        "outcomes": dict(passed.outcomes),
    }


def heard_through(ledger: Ledger, now: datetime) -> datetime:
    """Up to when there is usage at all: what has not landed is not quiet. ``now`` where nothing ever landed."""
    newest = [source.last_event for source in ledger.freshness() if source.last_event is not None]
    return min(now, max(newest, default=now))


def preview(store: AlertStore, routes: Routes, now: datetime) -> Decisions:
    """What a pass at ``now`` would decide if nothing new were found; keeps nothing."""
    with store.looking() as ledger:
        incidents = [case.incident for case in _cases(ledger, now).values()]
        silences = [records.silence_of(row) for row in ledger.silences(now)]
        return decide(routes, incidents, silences, _past(ledger, incidents, now), now)


class Forgotten(NamedTuple):
    """How much was deleted."""

    traces: int
    messages: int


def forget(store: AlertStore, before: datetime) -> Forgotten:
    """Delete traces and sent messages from before then, except what belongs to an incident that is still open. What
    waits or is parked is never deleted."""
    needed = {key for row in store.traces_of_active() for key in records.trace_of(row).keys}
    return Forgotten(store.forget_traces(before), store.forget_messages(before, needed))


def change(store: AlertStore, incident: Incident, now: datetime) -> None:
    """Keep what a person did to an incident. The next pass tells of it what is to be told."""
    with store.deciding(now) as ledger:
        ledger.keep_incidents([records.incident_row(incident)])


def _cases(ledger: AlertPass, now: datetime) -> dict[str, Case]:
    incidents = [records.incident_of(row) for row in ledger.incidents(now - LATELY)]
    signals: dict[str, list[Signal]] = defaultdict(list)
    for row in ledger.signals(one.id for one in incidents):
        signals[row.incident_id].append(records.signal_of(row))
    return {one.id: Case(one, _in_order(signals[one.id])) for one in incidents}


def _in_order(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    return tuple(sorted(signals, key=lambda one: (one.begins_at, one.id)))


def _past(ledger: AlertPass, incidents: Iterable[Incident], now: datetime) -> Past:
    memory = {
        (row.route, row.incident_id): records.memory_of(row) for row in ledger.memory(one.id for one in incidents)
    }
    sent: dict[str, list[datetime]] = defaultdict(list)
    for route, state, at in ledger.decided_since(now - timedelta(days=1)):
        if state != "digest":
            sent[route].append(at)
    return Past(memory, sent)


def _keep_cases(ledger: AlertPass, cases: Sequence[Case], dropped: Collection[str]) -> None:
    ledger.keep_incidents(records.incident_row(case.incident) for case in cases)
    kept: list[SignalRow] = [records.signal_row(signal, case.incident.id) for case in cases for signal in case.signals]
    ledger.keep_signals(kept)
    ledger.drop_signals(dropped)


def _keep_decisions(ledger: AlertPass, decisions: Decisions) -> int:
    ledger.keep_memory(records.memory_row(one) for one in decisions.memory)
    ids = {trace.incident_id for trace in decisions.traces}
    last = {(row.incident_id, row.route): records.trace_of(row) for row in ledger.last_traces(ids)}
    new = [one for one in decisions.traces if _says_more(one, last.get((one.incident_id, one.route)))]
    ledger.add_traces(records.trace_row(one) for one in new)
    return ledger.enqueue(records.outbox_row(one) for one in decisions.notifications)


def _says_more(trace: Trace, last: Trace | None) -> bool:
    """Whether a trace is worth a row: the same decision every minute is one decision."""
    if last is None or trace.outcome == "sent":
        return True
    return (trace.outcome, trace.stage, trace.reason, trace.by) != (last.outcome, last.stage, last.reason, last.by)
