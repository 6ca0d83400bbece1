"""``obs-pipeline alerts``: incidents, what became of them, silences and routes."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from obs_pipeline.cli.console import money, out, print_json, severity, text
from obs_pipeline.cli.workspace import Workspace, open_workspace
from obs_pipeline.clock import utc_now
from obs_pipeline.errors import ObsError

if TYPE_CHECKING:
    from obs_pipeline.alerting.models import Incident, Notification, Trace
    from obs_pipeline.alerting.routes import Routes
    from obs_pipeline.alerting.silences import Silence
    from obs_pipeline.storage.alert_store import AlertStore

app: Final = typer.Typer(name="alerts", help="Incidents: list, explain, acknowledge, silence.", no_args_is_help=True)
routes_app: Final = typer.Typer(name="routes", help="The routes file.", no_args_is_help=True)
app.add_typer(routes_app)

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
IncidentId = Annotated[str, typer.Argument(metavar="ID", help="An incident, or an anomaly that belongs to one.")]
Author = Annotated[str, typer.Option("--by", help="Who does it; your login if not stated.")]


class AlertsError(ObsError):
    """A command that cannot be done; the message says what to type instead."""


class RoutesDiffer(ObsError):
    """Routing cases whose expectation does not hold."""

    exit_code = 3


@app.command("list")
def list_incidents(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Incidents, the most recently changed first."""
    from obs_pipeline.alerting import records

    store = _store(open_workspace())
    rows = store.incidents(() if everything else ("open", "acknowledged"), limit)
    found = [records.incident_of(row) for row in rows]
    if as_json:
        print_json([asdict(one) for one in found])
    elif found:
        out.print(_incident_table(found))
    else:
        out.print("No incidents are open. [dim]--all lists those that are over.[/]")


@app.command()
def show(incident_id: IncidentId, as_json: AsJson = False) -> None:
    """One incident: what it is made of, its messages and its task."""
    from obs_pipeline.alerting import records

    store = _store(open_workspace())
    incident = _incident(store, incident_id)
    keys = {key for row in store.traces(incident.id) for key in records.trace_of(row).keys}
    messages = sorted(store.messages(keys), key=lambda row: row.decided_at)
    tasks = store.tasks(incident.id)
    if as_json:
        sent = [{name: getattr(row, name) for name in _MESSAGE} for row in messages]
        print_json({**asdict(incident), "messages": sent, "tasks": [asdict(task) for task in tasks]})
        return
    out.print(_incident_table([incident]))
    for line in incident.explanation:
        out.print(f"  · {text(line)}")
    for row in messages:
        state = f"{row.state} after {row.attempts} attempts" if row.attempts > 1 else row.state
        detail = f" ({row.detail})" if row.detail else ""
        out.print(
            f"  {row.decided_at:%Y-%m-%d %H:%M} {row.message_state} → {text(row.receiver)}: {text(state + detail)}"
        )
    for task in tasks:
        out.print(f"  task {text(task.tracker)} {text(task.task_id)}: {task.state} {text(task.url or '')}")


@app.command()
def why(incident_id: IncidentId, as_json: AsJson = False) -> None:
    """Who was told of an incident, who was not, and why: every route, every decision."""
    from obs_pipeline.alerting import records
    from obs_pipeline.alerting.route_cases import why_not

    workspace = open_workspace()
    store = _store(workspace)
    incident = _incident(store, incident_id)
    traces = [records.trace_of(row) for row in store.traces(incident.id)]
    routes = _routes(workspace, store)
    traced = {trace.route for trace in traces}
    missed = [(route.name, why_not(route, incident) or "an earlier route or a child took it") for route in routes]
    missed = [(name, reason) for name, reason in missed if name not in traced]
    if as_json:
        others = [{"route": name, "outcome": "not_matched", "reason": reason} for name, reason in missed]
        print_json({"incident": incident.id, "decisions": [asdict(trace) for trace in traces], "not_matched": others})
        return
    out.print(f"{text(incident.headline)} [dim]{incident.id}[/]")
    table = Table("since (UTC)", "route", "outcome", "why")
    for trace in traces:
        table.add_row(f"{trace.at:%Y-%m-%d %H:%M:%S}", text(trace.route), _OUTCOMES[trace.outcome], _reason(trace))
    for name, reason in missed:
        table.add_row("", text(name), "not matched", text(reason))
    out.print(table)


@app.command()
def ack(incident_id: IncidentId, by: Author = "", as_json: AsJson = False) -> None:
    """Say that you look after an incident: no reminders and no escalation any more."""
    from obs_pipeline.alerting.incidents import acknowledged

    store = _store(open_workspace())
    incident = _incident(store, incident_id)
    if not incident.active:
        raise AlertsError(f"{incident.id} is over: {incident.resolution}. 'alerts reopen' opens it again.")
    _keep(store, acknowledged(incident, by or getpass.getuser(), utc_now()), as_json)


@app.command()
def resolve(
    incident_id: IncidentId,
    reason: Annotated[str, typer.Option(help="Why it is over.")] = "",
    verdict: Annotated[str, typer.Option(help="real, false_positive or planned: it teaches the detection.")] = "",
    by: Author = "",
    as_json: AsJson = False,
) -> None:
    """Say that an incident is over."""
    from obs_pipeline.alerting.feedback import Said, give_feedback
    from obs_pipeline.alerting.incidents import resolved
    from obs_pipeline.storage.anomaly_labels import VERDICTS, AnomalyLabels

    if verdict and verdict not in VERDICTS:
        raise AlertsError(f"--verdict {verdict}: it is one of {', '.join(VERDICTS)}.")
    workspace, now, who = open_workspace(), utc_now(), by or getpass.getuser()
    store = _store(workspace)
    incident = _incident(store, incident_id)
    if verdict in VERDICTS:
        give_feedback(store, AnomalyLabels(workspace.ledger), incident.id, Said(verdict, who, reason, now))
    _keep(store, resolved(incident, who, now, reason), as_json)


@app.command()
def reopen(incident_id: IncidentId, as_json: AsJson = False) -> None:
    """Say that an incident goes on."""
    from obs_pipeline.alerting.incidents import reopened

    store = _store(open_workspace())
    incident = _incident(store, incident_id)
    if incident.merged_into:
        raise AlertsError(f"{incident.id} became part of {incident.merged_into}; reopen that one.")
    _keep(store, reopened(incident, utc_now()), as_json)


@app.command()
def silence(
    matchers: Annotated[list[str] | None, typer.Argument(metavar="LABEL=VALUE…", help="agent='support-*' …")] = None,
    last: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 3d.")] = "",
    reason: Annotated[str, typer.Option(help="Why nobody needs to hear of it.")] = "",
    by: Author = "",
    preview: Annotated[bool, typer.Option(help="Only show what it would hide.")] = False,
    end: Annotated[str, typer.Option(metavar="ID", help="End this silence now.")] = "",
    as_json: AsJson = False,
) -> None:
    """Do not tell of some incidents for a while. They are found, listed and explained as ever."""
    from obs_pipeline.alerting import records
    from obs_pipeline.alerting.silences import hidden_by, new_silence

    store, now = _store(open_workspace()), utc_now()
    if end:
        if not store.end_silence(end, now):
            raise AlertsError(f"There is no silence {end} in force; 'alerts silences' lists them.")
        out.print(f"The silence {text(end)} has ended.")
        return
    made = new_silence(
        _labels(matchers or []),
        author=by or getpass.getuser(),
        reason=reason or ("preview" if preview else ""),
        starts_at=now,
        ends_at=now + _span(last or ("1h" if preview else "")),
        now=now,
    )
    active = [records.incident_of(row) for row in store.incidents(("open", "acknowledged"))]
    hidden = hidden_by(made, active)
    if not preview:
        store.add_silence(records.silence_row(made, now))
    if as_json:
        print_json({**asdict(made), "kept": not preview, "hides": [one.id for one in hidden]})
        return
    would = "would hide" if preview else f"[bold]{made.id}[/] until {made.ends_at:%Y-%m-%d %H:%M} UTC hides"
    out.print(f"{would} {len(hidden)} of {len(active)} open incidents.")
    if hidden:
        out.print(_incident_table(hidden))


@app.command()
def silences(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    as_json: AsJson = False,
) -> None:
    """The silences in force and to come."""
    from obs_pipeline.alerting import records

    store = _store(open_workspace())
    found = [records.silence_of(row) for row in store.silences(None if everything else utc_now())]
    if as_json:
        print_json([asdict(one) for one in found])
    elif found:
        out.print(_silence_table(found))
    else:
        out.print("There are no silences.")


@app.command()
def digest(as_json: AsJson = False) -> None:
    """What rate limits and quiet times hold back now, and when it will be told."""
    from obs_pipeline.alerting.passes import preview

    workspace = open_workspace()
    store = _store(workspace)
    decided = preview(store, _routes(workspace, store), utc_now())
    held = [trace for trace in decided.traces if trace.outcome in ("held", "muted")]
    due = [one for one in decided.notifications if one.state == "digest"]
    if as_json:
        print_json({"held": [asdict(trace) for trace in held], "due": [_digest_of(one) for one in due]})
        return
    for notification in due:
        count = len(notification.incidents)
        out.print(
            f"{text(notification.route)} → {text(notification.receiver.name)}: {count} incidents with the next pass"
        )
    for trace in held:
        out.print(f"{trace.incident_id} on {text(trace.route)}: {_reason(trace)}")
    if not held and not due:
        out.print("Nothing is held back.")


@app.command()
def parked(as_json: AsJson = False) -> None:
    """Messages that were given up, and why: a person has to change something, and then **alerts retry**."""
    rows = _store(open_workspace()).outbox("parked")
    if as_json:
        print_json([{name: getattr(row, name) for name in _MESSAGE} for row in rows])
        return
    if not rows:
        out.print("No message was given up.")
        return
    table = Table("id", "since (UTC)", "to", "what", "why")
    for row in rows:
        table.add_row(
            row.key,
            f"{row.decided_at:%Y-%m-%d %H:%M}",
            text(f"{row.receiver} ({row.channel})"),
            row.message_state,
            text(row.detail),
        )
    out.print(table)


@app.command()
def retry(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="A message, as 'alerts parked' lists it.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every message that was given up.")] = False,
    by: Author = "",
    as_json: AsJson = False,
) -> None:
    """Send again what was given up. Who asked for it is kept in the delivery log."""
    if bool(message_id) == everything:
        raise AlertsError("Name one message, or say --all; 'alerts parked' lists them.")
    store, now, who = _store(open_workspace()), utc_now(), by or getpass.getuser()
    keys = [row.key for row in store.outbox("parked")] if everything else [message_id]
    released = [key for key in keys if store.release_parked(key, who, now)]
    if message_id and not released:
        raise AlertsError(f"There is no message {message_id} that was given up; 'alerts parked' lists them.")
    if as_json:
        print_json({"released": released, "by": who})
    else:
        out.print(f"{len(released)} message{'' if len(released) == 1 else 's'} will be sent with the next delivery.")


@routes_app.command("test")
def routes_test(
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="LABEL=VALUE…", help="agent=… severity=…; none runs the cases.")
    ] = None,
    cases: Annotated[Path | None, typer.Option(help="The cases to run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who would be told of an incident with these labels, or run the cases of **routes_tests.yaml**."""
    from obs_pipeline.alerting.route_cases import routes_of, run_cases
    from obs_pipeline.alerting.routes import load_routes

    folder = open_workspace().settings.policies
    routes = load_routes(folder / ROUTES)
    if labels:
        taken = routes_of(routes, _labels(labels))
        if as_json:
            print_json([_route(route) for route in taken])
        for route in () if as_json else taken:
            names = ", ".join(receiver.name for receiver in route.receivers) or "nobody"
            task = f" and a task in {route.create_task.tracker}" if route.create_task else ""
            out.print(f"{text(route.name)} (line {route.line}) → {text(names)}{text(task)}")
        return
    path = cases or folder / CASES
    results = run_cases(routes, path)
    if as_json:
        print_json([asdict(result) for result in results])
    failed = [result for result in results if result.differences]
    for result in () if as_json else failed:
        out.print(f"{text(path.name)}:{result.line}: {text(result.name)}: {text('; '.join(result.differences))}")
    if failed:
        raise RoutesDiffer(f"{len(failed)} of {len(results)} routing cases do not hold.")
    if not as_json:
        out.print(f"{len(results)} routing cases hold.")


ROUTES: Final = "routes.yaml"
CASES: Final = "routes_tests.yaml"
_MESSAGE: Final = ("key", "route", "receiver", "message_state", "decided_at", "state", "attempts", "sent_at", "detail")
_OUTCOMES: Final = {
    "sent": "[green]sent[/]",
    "waiting": "waiting",
    "inhibited": "inhibited",
    "silenced": "silenced",
    "muted": "muted",
    "held": "held",
    "nothing_new": "nothing new",
    "no_receiver": "no receiver",
    "not_matched": "not matched",
}


def _store(workspace: Workspace) -> AlertStore:
    from obs_pipeline.storage.alert_store import AlertStore

    return AlertStore(workspace.ledger)


def _routes(workspace: Workspace, store: AlertStore) -> Routes:
    from obs_pipeline.alerting.passes import usable_routes

    return usable_routes(store, workspace.settings.policies / ROUTES).routes


def _incident(store: AlertStore, name: str) -> Incident:
    from obs_pipeline.alerting import records

    row = store.incident(name) or store.incident(store.incident_of_signal(name) or "")
    if row is None:
        raise AlertsError(f"There is no incident {name}; 'alerts list --all' lists them.")
    return records.incident_of(row)


def _keep(store: AlertStore, incident: Incident, as_json: bool) -> None:
    from obs_pipeline.alerting.passes import change

    change(store, incident, utc_now())
    if as_json:
        print_json(asdict(incident))
    else:
        out.print(f"{incident.id} is {incident.status}.")


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for one in given:
        label, sign, value = one.partition("=")
        if not sign:
            raise AlertsError(f"{one!r} is no label; write it as agent=NAME.")
        labels[label] = value
    return labels


def _span(written: str) -> Any:
    from obs_pipeline.alerting.spans import span

    try:
        return span(written)
    except ValueError as error:
        raise AlertsError(f"--for {written}: {error}." if written else "A silence must end: state --for 2h.") from None


def _incident_table(found: list[Incident]) -> Table:
    table = Table("", "status", "what", show_lines=True)
    for one in found:
        effect = f"  {money(one.cost_effect)}" if one.cost_effect is not None else ""
        table.add_row(
            severity(one.severity),
            f"{one.status}\n[dim]{text(one.acknowledged_by or one.resolution)}[/]",
            f"[bold]{text(one.headline)}[/]{effect}\n{text(one.scope)}  since {one.began_at:%Y-%m-%d %H:%M} UTC\n"
            f"[dim]{one.id}[/]",
        )
    return table


def _silence_table(found: list[Silence]) -> Table:
    table = Table("id", "until (UTC)", "hides", "by", "why")
    for one in found:
        meant = " ".join(f"{label}={','.join(values)}" for label, values in one.matchers.items())
        table.add_row(one.id, f"{one.ends_at:%Y-%m-%d %H:%M}", text(meant), text(one.author), text(one.reason))
    return table


def _reason(trace: Trace) -> str:
    until = f" [dim]until {trace.until:%Y-%m-%d %H:%M} UTC[/]" if trace.until else ""
    return f"{text(trace.reason)}{until}"


def _digest_of(notification: Notification) -> dict[str, object]:
    return {
        "route": notification.route,
        "receiver": notification.receiver.name,
        "incidents": [one.id for one in notification.incidents],
    }


def _route(route: Any) -> dict[str, object]:
    return {
        "route": route.name,
        "line": route.line,
        "receivers": [receiver.name for receiver in route.receivers],
        "task": asdict(route.create_task) if route.create_task else None,
    }
