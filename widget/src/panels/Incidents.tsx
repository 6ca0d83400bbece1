/** What is open, who has it, and why somebody was told of it. */

import { memo, useMemo, useState } from "react";

import type { Answer as Days, Decision, Incidents as Answer, IncidentShown, Task, Why } from "../answers";
import { SEVERITIES } from "../charts/shapes";
import type { Actions, Allowed, PanelProps } from "../contract";
import { showing } from "../days";
import { count, day, exact } from "../format";
import type { Place } from "../state";
import { Ago, Clipped, Empty, Panel } from "./Panel";
import { SeverityTag } from "./Severity";

export function Incidents({ view, board, act, allowed }: PanelProps) {
  const { incidents, open, why, failed } = board;
  return (
    <Panel
      name="incidents"
      title="Incidents"
      note={incidents && count(incidents.total)}
      failed={failed.incidents}
      ready={incidents !== undefined}
    >
      {incidents && (
        <List
          incidents={incidents}
          unfinished={open}
          open={view.incident}
          why={why}
          failed={failed.why}
          end={view.end}
          days={board.metrics}
          allowed={allowed}
          act={act}
        />
      )}
    </Panel>
  );
}

const List = memo(function List({ incidents, unfinished, open, why, failed, end, days, allowed, act }: {
  incidents: Answer;
  unfinished?: Answer;
  open?: string;
  why?: Why;
  failed?: string;
  /** The last day looked at, and an answer about these days. */
  end?: string;
  days?: Days;
  allowed: Allowed;
  act: Actions;
}) {
  const answer = open !== undefined && why?.incident.id === open ? why : undefined;
  const listed = useMemo(
    () => unfinishedFirst(together(incidents.incidents, unfinished?.incidents ?? [])),
    [incidents, unfinished],
  );
  const rows = answer && !listed.some((one) => one.id === open) ? [answer.incident, ...listed] : listed;
  if (rows.length === 0) {
    return (
      <Empty title="No incidents.">
        Findings become incidents when a route takes them; routes stand in <code>policies/routes.yaml</code>.
      </Empty>
    );
  }
  return (
    <>
      <ul className="rows">
        {rows.map((one) => (
          <Row
            key={one.id}
            one={one}
            open={allowed.why && one.id === open}
            why={one.id === open ? answer : undefined}
            failed={one.id === open ? failed : undefined}
            end={showing(began(one), end, days)}
            allowed={allowed}
            act={act}
          />
        ))}
      </ul>
      {incidents.has_more && (
        <button type="button" className="btn quiet more" onClick={act.moreIncidents}>
          Show more <span className="muted">{count(listed.length)} of {count(incidents.total)} shown</span>
        </button>
      )}
    </>
  );
});

/** Those that changed last, and the open ones that did not change for long and are no longer among them. Pure. */
export function together(newest: readonly IncidentShown[], open: readonly IncidentShown[]): IncidentShown[] {
  const known = new Set(newest.map((one) => one.id));
  return [...newest, ...open.filter((one) => !known.has(one.id))];
}

/** Open ones before acknowledged before resolved ones; the open ones gravest first, all others as they came. Pure. */
export function unfinishedFirst(incidents: readonly IncidentShown[]): IncidentShown[] {
  const order = ["open", "acknowledged", "resolved"];
  const gravity = ({ status, severity }: IncidentShown) => (status === "open" ? SEVERITIES.indexOf(severity) : 0);
  return incidents.toSorted((a, b) => order.indexOf(a.status) - order.indexOf(b.status) || gravity(a) - gravity(b));
}

const Row = memo(function Row({ one, open, why, failed, end, allowed, act }: {
  one: IncidentShown;
  open: boolean;
  why?: Why;
  failed?: string;
  end?: string;
  allowed: Allowed;
  act: Actions;
}) {
  const kind = one.kind.replaceAll("_", " ");
  const whose = one.agent ?? one.project ?? one.org;
  const place = whose ?? kind;
  const sentence = one.title;
  const acknowledgeable = allowed.acknowledge && one.status === "open";
  const details = `why-${one.id}`;
  return (
    <li className={`row ${one.severity}${open ? " open" : ""}`}>
      <div className="row-head">
        <SeverityTag severity={one.severity} />
        {whose === null ? <Clipped text={place} className="row-name" /> : (
          <button
            type="button"
            className="link strong row-name"
            title={`Show ${place} in the days it happened`}
            onClick={() => act.change({ place: placeOf(one), end })}
          >
            <Clipped text={place} />
          </button>
        )}
        <span className={`status-tag ${one.status}`}>{one.status}</span>
        {sentence && <span className="row-reason" title={open ? undefined : sentence}>{sentence}</span>}
        <div className="row-line">
          <span className="row-what">
            {whose !== null && `${kind}, `}
            <time dateTime={began(one)} title={`Began ${exact(began(one))}, noticed ${exact(one.opened_at)}`}>
              {day(began(one), "UTC")}
            </time>
            {one.status === "acknowledged" && one.acknowledged_by && `, taken on by ${one.acknowledged_by}`}
          </span>
          <span className="row-actions">
            {acknowledgeable && <Acknowledge incident={one.id} place={place} acknowledge={act.acknowledge} />}
            {allowed.why && (
              <button
                type="button"
                className="link"
                aria-expanded={open}
                aria-controls={open ? details : undefined}
                aria-label={`Why was I told? ${place}`}
                data-incident={one.id}
                onClick={() => act.why(open ? null : one.id)}
              >
                Why was I told?
              </button>
            )}
          </span>
        </div>
      </div>
      {open && (
        <div id={details} className="row-body">
          {why
            ? (
                <>
                  {!!why.tasks?.length && <Tasks tasks={why.tasks} links={allowed.links} />}
                  <Decisions incident={one} decisions={why.decisions} />
                </>
              )
            : failed
              ? <p className="failed" role="status">The decisions could not be loaded. {failed}</p>
              : <p className="muted waiting" role="status">Loading the decisions…</p>}
        </div>
      )}
    </li>
  );
});

/** When usage began to be abnormal; where nobody says, when that was noticed. */
function began(one: IncidentShown): string {
  return one.began_at ?? one.opened_at;
}

export function placeOf({ org, project, agent }: IncidentShown): Place {
  return { org: org ?? undefined, project: project ?? undefined, agent: agent ?? undefined };
}

export function Acknowledge({ incident, place, acknowledge }: {
  incident: string;
  place: string;
  acknowledge: Actions["acknowledge"];
}) {
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState<string>();
  const send = async () => {
    setBusy(true);
    setFailed(undefined);
    try {
      await acknowledge(incident);
    } catch (error) {
      setFailed(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <button type="button" className="btn" disabled={busy} aria-label={`Acknowledge ${place}`} onClick={() => void send()}>
        {busy ? "Acknowledging…" : "Acknowledge"}
      </button>
      {failed && <span className="inline-failed" role="alert">Not acknowledged: {failed}</span>}
    </>
  );
}

function Tasks({ tasks, links }: { tasks: readonly Task[]; links: boolean }) {
  return (
    <ul className="tasks" aria-label="Tasks">
      {tasks.map((one) => (
        <li key={`${one.tracker} ${one.id}`}>
          {links && one.url !== null && isWeb(one.url)
            ? <a className="link" href={one.url} target="_blank" rel="noopener noreferrer">{one.tracker} {one.id}</a>
            : <span title={one.url ?? undefined}>{one.tracker} {one.id}</span>}
          <span className="muted">{one.state}</span>
        </li>
      ))}
    </ul>
  );
}

/** Whether an address is one to go to; what a tracker said is not trusted to be. Pure. */
export function isWeb(address: string): boolean {
  return /^https?:\/\//i.test(address);
}

function Decisions({ incident, decisions }: { incident: IncidentShown; decisions: readonly Decision[] }) {
  if (decisions.length === 0) return <p className="muted">No route has taken it, so nobody was told.</p>;
  return (
    <ol className="decisions" aria-label={`Decisions about ${incident.id}`}>
      {decisions.map((one, index) => (
        <li key={index}>
          <strong>{one.outcome.replaceAll("_", " ")}</strong>
          <span className="decision-route">route <Clipped text={one.route} /></span>
          <span className="muted"><Ago time={one.at} /></span>
          <span className="muted because">{because(one.detail)}</span>
        </li>
      ))}
    </ol>
  );
}

/** The reason of a decision with the stage that decided and what it names, as far as it is told. */
export function because(detail: Record<string, unknown>): string {
  const said = (name: string) => (typeof detail[name] === "string" && detail[name] !== "" ? String(detail[name]) : null);
  const [reason, stage, by] = [said("reason"), said("stage"), said("by")];
  return [reason, stage && `stage ${stage.replaceAll("_", " ")}`, by && `by ${by}`].filter(Boolean).join(" · ");
}
