/** What was found, the worst first; one of them can be open, with what it is made of. */

import { memo, useEffect, useRef } from "react";

import { type Anomalies as Answer, type AnomalyShown, type Explained, type Severity, UNATTRIBUTED } from "../answers";
import type { Actions, PanelProps } from "../contract";
import { count, percent, shortDay, when } from "../format";
import { Explanation } from "./Explanation";
import { Clipped, Empty, Panel, Switch } from "./Panel";
import { SeverityTag } from "./Severity";

const CHOICES: readonly { value: Severity | "all"; text: string }[] = [
  { value: "all", text: "All" }, { value: "critical", text: "Critical" }, { value: "warning", text: "Warning" },
  { value: "info", text: "Info" },
];

export function Anomalies({ view, board, act }: PanelProps) {
  const { anomalies, explained, failed } = board;
  return (
    <Panel
      name="anomalies"
      title="Anomalies"
      note={anomalies && count(anomalies.total)}
      failed={failed.anomalies}
      ready={anomalies !== undefined}
      aside={(
        <Switch
          label="Severity"
          choices={CHOICES}
          value={view.severity ?? "all"}
          onChoose={(chosen) => act.change({ severity: chosen === "all" ? undefined : chosen })}
        />
      )}
    >
      {anomalies && (
        <Found
          anomalies={anomalies}
          severity={view.severity}
          open={view.anomaly}
          explained={explained}
          failed={failed.explained}
          explain={act.explain}
          more={act.moreAnomalies}
        />
      )}
    </Panel>
  );
}

const Found = memo(function Found({ anomalies, severity, open, explained, failed, explain, more }: {
  anomalies: Answer;
  severity?: Severity;
  open?: string;
  explained?: Explained;
  failed?: string;
  explain: Actions["explain"];
  more: Actions["moreAnomalies"];
}) {
  const answer = open !== undefined && explained?.anomaly.id === open ? explained : undefined;
  const listed = anomalies.anomalies;
  const apart = open !== undefined && !listed.some((one) => one.id === open);
  // One that was opened from the chart or by a link need not be on a loaded page: it stands before the others.
  const rows = apart && answer ? [answer.anomaly, ...listed] : listed;
  return (
    <>
      {apart && !answer && (
        failed ? <p className="failed" role="status">The anomaly that was asked for cannot be shown. {failed}</p>
          : <p className="muted waiting" role="status">Loading the anomaly…</p>
      )}
      {rows.length === 0 && (
        <Empty title={severity ? `No ${severity} anomalies in these days.` : "No anomalies in these days."}>
          {severity
            ? "Choose all severities to see the others."
            : "Cost, tokens, errors and latency were as usual. A longer timeframe may show earlier ones."}
        </Empty>
      )}
      {rows.length > 0 && (
        <ul className="rows">
          {rows.map((one) => (
            <Row
              key={one.id}
              one={one}
              open={one.id === open}
              explained={one.id === open ? answer : undefined}
              failed={one.id === open ? failed : undefined}
              explain={explain}
            />
          ))}
        </ul>
      )}
      {anomalies.has_more && (
        <button type="button" className="btn quiet more" onClick={more}>
          Show more <span className="muted">{count(listed.length)} of {count(anomalies.total)} shown</span>
        </button>
      )}
    </>
  );
});

const Row = memo(function Row({ one, open, explained, failed, explain }: {
  one: AnomalyShown;
  open: boolean;
  explained?: Explained;
  failed?: string;
  explain: Actions["explain"];
}) {
  const row = useRef<HTMLLIElement>(null);
  useEffect(() => {
    if (open) row.current?.scrollIntoView({ block: "nearest" });
  }, [open, explained]);
  const details = `explained-${one.id}`;
  return (
    <li ref={row} className={`row ${one.severity}${open ? " open" : ""}`}>
      <button
        type="button"
        className="row-head"
        aria-expanded={open}
        aria-controls={open ? details : undefined}
        data-anomaly={one.id}
        onClick={() => explain(open ? null : one.id)}
      >
        <SeverityTag severity={one.severity} />
        <Clipped text={one.agent ?? UNATTRIBUTED} className="row-name" />
        <Score one={one} />
        <span className="row-what">{one.metric} per {one.grain}, <When one={one} /></span>
        <span className="row-reason" title={open ? undefined : one.reason}>{one.reason}</span>
      </button>
      {open && (
        <div id={details} className="row-body">
          {explained
            ? <Explanation explained={explained} />
            : failed
              ? <p className="failed" role="status">The explanation could not be loaded. {failed}</p>
              : <p className="muted waiting" role="status">Loading what it is made of…</p>}
        </div>
      )}
    </li>
  );
});

function When({ one }: { one: AnomalyShown }) {
  return (
    <time dateTime={one.timestamp} title={`${when(one.timestamp, "UTC")} UTC`}>
      {one.grain === "day" ? shortDay(one.timestamp, "UTC") : `${shortDay(one.timestamp, "UTC")} ${one.timestamp.slice(11, 16)}`}
    </time>
  );
}

function Score({ one }: { one: AnomalyShown }) {
  return (
    <span className="row-score" title={`Score ${one.score.toFixed(1)} of 100, confidence ${percent(one.confidence)}`}>
      <span className="visually-hidden">score </span><strong>{Math.round(one.score)}</strong>
      <span className="muted"><span className="visually-hidden">, confidence</span> {percent(one.confidence)} sure</span>
    </span>
  );
}
