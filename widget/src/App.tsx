/** The widget drawn: the bar, the panels in their places, what is said aloud. */

import { useEffect, useMemo, useState, useSyncExternalStore, type ReactNode } from "react";

import type { Actions, Allowed, PanelProps } from "./contract";
import { clock } from "./format";
import { CoverageLine } from "./frame/CoverageLine";
import { Crumbs } from "./frame/Crumbs";
import { Guard } from "./frame/Guard";
import { Icon } from "./frame/icons";
import { SignIn } from "./frame/SignIn";
import { useTheme } from "./frame/theme";
import { TopBar } from "./frame/TopBar";
import {
  Anomalies, Attention, Breakdown, BudgetBars, CostSummary, Incidents, Optimisation, TokenUsage, Trend,
} from "./panels";
import type { Part } from "./protocol";
import { saidOnce, statusOf } from "./status";
import type { Notice, Widget } from "./widget";

type Place = readonly { area: string; part: Part; name: string; Shown: (props: PanelProps) => ReactNode }[];

const FIRST: Place = [{ area: "attention", part: "open", name: "What is wrong now", Shown: Attention }];
const SUMMARY: Place = [
  { area: "cost", part: "metrics", name: "Spend", Shown: CostSummary },
  { area: "tokens", part: "metrics", name: "Tokens", Shown: TokenUsage },
  { area: "optimisation", part: "metrics", name: "Optimisation", Shown: Optimisation },
];
const MAIN: Place = [
  { area: "trend", part: "trends", name: "The trend", Shown: Trend },
  { area: "breakdown", part: "entities", name: "The breakdown", Shown: Breakdown },
  { area: "anomalies", part: "anomalies", name: "Anomalies", Shown: Anomalies },
];
const SIDE: Place = [
  { area: "budgets", part: "budgets", name: "Budgets", Shown: BudgetBars },
  { area: "incidents", part: "incidents", name: "Incidents", Shown: Incidents },
];

export function App({ widget }: { widget: Widget }): ReactNode {
  const model = useSyncExternalStore(widget.subscribe, widget.model);
  const { theme, choice, turn } = useTheme(model.hostTheme);
  const now = useClock();
  const act = useMemo(() => actionsOf(widget), [widget]);
  const { session, view } = model;
  const { reason, board } = useMemo(() => saidOnce(model.board), [model.board]);
  const allowed = useMemo((): Allowed => {
    const may = (name: string) => session?.may.includes(name) ?? false;
    return {
      export: may("dashboard_export_data"),
      why: may("why_notified"),
      saveViews: may("save_view"),
      label: may("label_anomaly"),
      links: session?.links ?? false,
      acknowledge: may("acknowledge_incident"),
    };
  }, [session]);

  if (model.phase === "sign-in") {
    return (
      <SignIn why={model.needsToken ?? ""} onToken={(token) => widget.request({ action: "sign-in", params: { token } })} />
    );
  }
  if (model.phase === "closed") return <p className="closed">The dashboard was closed.</p>;
  if (!session) return <Waiting why={model.away} />;

  const props: PanelProps = { view, board, act, allowed, caller: session.caller, theme };
  return (
    <>
      <a className="skip" href="#content" onClick={skip}>Skip to the numbers</a>
      <div className="page">
        <TopBar widget={widget} model={model} status={statusOf(model, now)} choice={choice} onTheme={turn} />
        <Crumbs view={view} session={session} onClimb={(to) => widget.change({ type: "climb", to })} />
        {reason && <Banner reason={reason} refreshedAt={model.refreshedAt} />}
        <main id="content" className="board" tabIndex={-1}>
          <Panels place="first" panels={FIRST} props={props} outdated={model.outdated} />
          <Panels place="summary" panels={SUMMARY} props={props} outdated={model.outdated} />
          <Panels place="main" panels={MAIN} props={props} outdated={model.outdated} />
          <Panels place="side" panels={SIDE} props={props} outdated={model.outdated} />
        </main>
        {board.metrics && <CoverageLine answer={board.metrics} />}
      </div>
      <Toast notice={model.notice} />
    </>
  );
}

function Panels({ place, panels, props, outdated }: {
  place: string;
  panels: Place;
  props: PanelProps;
  outdated: ReadonlySet<Part>;
}): ReactNode {
  return (
    <div className={place}>
      {panels.map(({ area, part, name, Shown }) => (
        <div key={area} className="area" data-testid={`panel-${area}`} data-outdated={outdated.has(part)}>
          <Guard name={name}><Shown {...props} /></Guard>
        </div>
      ))}
    </div>
  );
}

function actionsOf(widget: Widget): Actions {
  return {
    change: (to, how) => widget.change({ type: "change", to }, how === "replace" ? "typing" : "step"),
    drill: (level, name) => widget.change({ type: "drill", level, name }),
    more: () => widget.more("entities"),
    moreAnomalies: () => widget.more("anomalies"),
    moreIncidents: () => widget.more("incidents"),
    explain: (anomaly) => widget.change({ type: "change", to: { anomaly: anomaly ?? undefined } }),
    why: (incident) => widget.change({ type: "change", to: { incident: incident ?? undefined } }),
    async acknowledge(incident) {
      const { done } = await widget.request({ action: "acknowledge", params: { incident } });
      widget.notify(done ?? "Acknowledged.");
      widget.refresh(false);
    },
    async label(anomaly, verdict) {
      const { done } = await widget.request({ action: "label", params: { anomaly, verdict } });
      widget.notify(done ?? "Kept.");
      widget.refresh(false);
    },
  };
}

function Waiting({ why }: { why: string | undefined }): ReactNode {
  if (why === undefined) return <p className="closed" role="status">Loading…</p>;
  return (
    <main className="sign-in">
      <div className="card away" role="alert" data-testid="away">
        <h1>There are no numbers yet</h1>
        <p>{why}</p>
        <p className="muted">It is tried again by itself every few seconds.</p>
      </div>
    </main>
  );
}

function Banner({ reason, refreshedAt }: { reason: string; refreshedAt: Date | undefined }): ReactNode {
  return (
    <div className="banner" role="alert" data-testid="banner">
      <Icon name="warning" />
      <p>
        {reason}
        {refreshedAt && <> What you see is of {clock(refreshedAt.getTime(), "UTC")} UTC.</>} It is tried again by itself.
      </p>
    </div>
  );
}

/** Says what became of something, to eyes for a while and to screen readers once. */
function Toast({ notice }: { notice: Notice | undefined }): ReactNode {
  const [gone, setGone] = useState(0);
  const number = notice?.number ?? 0;
  const stays = notice?.bad ? 9000 : 3500;
  useEffect(() => {
    if (!number) return;
    const timer = setTimeout(() => setGone(number), stays);
    return () => clearTimeout(timer);
  }, [number, stays]);
  return (
    <div className="toasts" role="status" aria-live="polite" data-testid="notice">
      {notice && gone !== number && (
        <p key={number} className={notice.bad ? "toast bad" : "toast"}>{notice.text}</p>
      )}
    </div>
  );
}

/** Now, looked at again every ten seconds. */
function useClock(): Date {
  const [now, setNow] = useState(() => new Date());
  useEffect(() => {
    const timer = setInterval(() => setNow(new Date()), 10_000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

// Not by the address: that belongs to the view.
function skip(event: { preventDefault(): void }): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}
