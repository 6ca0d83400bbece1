/** What was found, the worst first; one of them can be open, with what it is made of. */

import { memo, useEffect, useRef, useState } from "react";

import { type Anomalies as Answer, type AnomalyShown, type Explained, type Severity, UNATTRIBUTED, type Verdict } from "../answers";
import type { Actions, PanelProps } from "../contract";
import { moved } from "../days";
import { count, percent, shortDay, when } from "../format";
import { Explanation, sentence } from "./Explanation";
import { Clipped, Empty, Panel, Switch } from "./Panel";
import { SeverityTag } from "./Severity";

const CHOICES: readonly { value: Severity | "all"; text: string }[] = [
  { value: "all", text: "All" }, { value: "critical", text: "Critical" }, { value: "warning", text: "Warning" },
  { value: "info", text: "Info" },
];

const VERDICTS: Record<Verdict, string> = { real: "Real", false_positive: "False alarm", planned: "Planned" };
const TIPS: Record<Verdict, string> = {
  real: "It was worth knowing.",
  false_positive: "Nothing was wrong: values like it are scored lower from now on.",
  planned: "It was meant to be: it does not count against the detection, nor as a fault.",
};

export function Anomalies({ view, board, act, allowed }: PanelProps) {
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
          earlier={() => act.change({ end: moved(anomalies.first_day, -1) })}
          explained={explained}
          failed={failed.explained}
          explain={act.explain}
          label={allowed.label ? act.label : undefined}
          more={act.moreAnomalies}
        />
      )}
    </Panel>
  );
}

const Found = memo(function Found({ anomalies, severity, open, earlier, explained, failed, explain, label, more }: {
  anomalies: Answer;
  severity?: Severity;
  open?: string;
  earlier: () => void;
  explained?: Explained;
  failed?: string;
  explain: Actions["explain"];
  label?: Actions["label"];
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
          {severity ? "Choose all severities to see the others." : "Cost, tokens, errors and latency were as usual, as far as enough was known to tell."}
          <button type="button" className="link" onClick={earlier}>Look at the days before</button>
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
              label={one.id === open ? label : undefined}
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

const Row = memo(function Row({ one, open, explained, failed, explain, label }: {
  one: AnomalyShown;
  open: boolean;
  explained?: Explained;
  failed?: string;
  explain: Actions["explain"];
  label?: Actions["label"];
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
        <span className="row-name row-named">
          <Clipped text={one.agent ?? UNATTRIBUTED} />
          {one.label && <span className={`status-tag ${one.label}`}>{VERDICTS[one.label]}</span>}
        </span>
        <Score one={one} />
        <span className="row-what">{one.metric} per {one.grain}, <When one={one} /></span>
        <span className="row-reason" title={open ? undefined : one.reason}>{sentence(one.reason)}</span>
      </button>
      {open && (
        <div id={details} className="row-body">
          {explained
            ? <Explanation explained={explained} />
            : failed
              ? <p className="failed" role="status">The explanation could not be loaded. {failed}</p>
              : <p className="muted waiting" role="status">Loading what it is made of…</p>}
          {label && <Say one={one} label={label} />}
        </div>
      )}
    </li>
  );
});

/** What it was, said by who knows: the buttons, of which one holds once it was said. */
function Say({ one, label }: { one: AnomalyShown; label: Actions["label"] }) {
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState<string>();
  // A server that does not tell sayings with its anomalies: one's own is kept as long as this is open.
  const [said, setSaid] = useState<Verdict>();
  const holds = one.label ?? said;
  const say = async (verdict: Verdict) => {
    setBusy(true);
    setFailed(undefined);
    try {
      await label(one.id, verdict);
      setSaid(verdict);
    } catch (error) {
      setFailed(error instanceof Error ? error.message : String(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="say" role="group" aria-label="What it was">
      <span className="muted">What was it?</span>
      {(["real", "false_positive", "planned"] as const).map((verdict) => (
        <button
          key={verdict}
          type="button"
          className="btn"
          aria-pressed={holds === verdict}
          disabled={busy}
          title={TIPS[verdict]}
          onClick={() => void say(verdict)}
        >
          {VERDICTS[verdict]}
        </button>
      ))}
      {failed && <span className="inline-failed" role="alert">Not kept: {failed}</span>}
    </div>
  );
}

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
      <span className="muted">score </span><strong>{Math.round(one.score)}</strong>
      <span className="muted"> · {percent(one.confidence)} sure</span>
    </span>
  );
}
