/** What is wrong now, before all numbers: how grave, whose, how much and since when; and who may, takes it on. */

import { memo } from "react";

import type { Answer, Budgets, IncidentShown, Incidents } from "../answers";
import { SEVERITIES } from "../charts/shapes";
import type { Actions, Allowed, PanelProps } from "../contract";
import { showing } from "../days";
import { count, counted, percent, when } from "../format";
import { Acknowledge, placeOf } from "./Incidents";
import { Ago, Clipped } from "./Panel";
import { byRisk } from "./risk";
import { SeverityTag } from "./Severity";

const SHOWN = 3;

export function Attention({ view, board, act, allowed }: PanelProps) {
  const narrowed = Object.values(view.place).some(Boolean);
  const { open, budgets, failed } = board;
  if (open) return <Now open={open} budgets={budgets} narrowed={narrowed} end={view.end} shown={board.metrics} act={act} allowed={allowed} />;
  return (
    <section className="attention" aria-label="What is wrong now">
      {failed.open ? <p className="failed" role="status">Whether anything is wrong now could not be asked. {failed.open}</p>
        : <p className="attention-line muted">Looking for what is wrong now…</p>}
    </section>
  );
}

const Now = memo(function Now({ open, budgets, narrowed, end, shown: days, act, allowed }: {
  open: Incidents;
  budgets?: Budgets;
  /** Whether only a part of the fleet is looked at. */
  narrowed: boolean;
  /** The last day looked at, and an answer about these days. */
  end?: string;
  shown?: Answer;
  act: Actions;
  allowed: Allowed;
}) {
  const listed = gravestFirst(open.incidents);
  const shown = listed.slice(0, SHOWN);
  const over = overLimit(budgets);
  const [worst] = shown;
  return (
    <section className={`attention ${worst?.severity ?? (over ? "warning" : "calm")}`} aria-label="What is wrong now">
      {shown.length > 0 && (
        <ul>
          {shown.map((one) => <Wrong key={one.id} one={one} end={showing(one.began_at ?? one.opened_at, end, days)} act={act} allowed={allowed} />)}
        </ul>
      )}
      {!worst && !over && (
        <p className="attention-line">No incident is open{narrowed && " here"}, and no budget is over its limit.</p>
      )}
      {(open.total > shown.length || over) && (
        <p className="attention-line">
          {open.total > shown.length && (
            <button type="button" className="link" onClick={() => show("incidents")}>
              {count(open.total - shown.length)} more open{counts(open)}
            </button>
          )}
          {over && <button type="button" className="link" onClick={() => show("budgets")}>{over}</button>}
        </p>
      )}
    </section>
  );
});

function Wrong({ one, end, act, allowed }: { one: IncidentShown; end?: string; act: Actions; allowed: Allowed }) {
  const whose = one.agent ?? one.project ?? one.org;
  const began = one.began_at ?? one.opened_at;
  return (
    <li className="attention-row">
      <SeverityTag severity={one.severity} />
      <button
        type="button"
        className="link strong"
        onClick={() => act.change({ place: placeOf(one), end, incident: allowed.why ? one.id : undefined })}
      >
        <Clipped text={one.title ?? whose ?? one.kind.replaceAll("_", " ")} />
      </button>
      <span className="attention-since muted">
        {whose !== one.project && one.project && `${one.project}, `}
        since <time dateTime={began}>{when(began, "UTC")}</time> UTC (<Ago time={began} />)
      </span>
      {allowed.acknowledge && (
        <span className="row-actions">
          <Acknowledge incident={one.id} place={whose ?? one.id} acknowledge={act.acknowledge} />
        </span>
      )}
    </li>
  );
}

/** The gravest first; among equals as they came: the one that changed last. Pure. */
export function gravestFirst(incidents: readonly IncidentShown[]): IncidentShown[] {
  return incidents.toSorted((a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity));
}

/** How many of each severity are open, where that says more than the lines above; else empty. Pure. */
export function counts({ by_severity: found }: Incidents): string {
  if (!found) return "";
  const told = SEVERITIES.flatMap((severity) => (found[severity] ? [`${count(found[severity])} ${severity}`] : []));
  return told.length > 1 ? `; ${told.join(", ")} in all` : "";
}

/** How many budgets are used up, and the fullest of them; null where none is. Pure. */
export function overLimit(budgets: Budgets | undefined): string | null {
  const many = budgets?.by_state.exceeded ?? 0;
  if (!budgets || many === 0) return null;
  const [worst] = byRisk(budgets.budgets.filter((one) => one.state === "exceeded"));
  const are = `${counted(many, "budget")} ${many === 1 ? "is" : "are"} over the limit`;
  if (!worst) return are;
  const whose = worst.agent ?? worst.project ?? worst.org ?? "everything";
  const used = worst.ratio === null ? "" : ` at ${percent(worst.ratio)}`;
  return `${are}: ${whose}, ${worst.period} ${worst.kind}${used}`;
}

/** Brings a panel into sight, its heading under the bar. */
function show(name: string): void {
  document.getElementById(`panel-${name}`)?.scrollIntoView({ block: "start" });
}
