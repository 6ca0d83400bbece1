/** What was spent, against the period before and the budget, and how far that can be trusted. */

import { memo } from "react";

import type { Budgets, Change, Metrics } from "../answers";
import type { PanelProps } from "../contract";
import { change, count, counted, days, fromNano, money, nano, percent, shortDay, sum } from "../format";
import type { Place } from "../state";
import { Empty, Panel } from "./Panel";
import { BEFORE, openQuestions, PERIOD, projection } from "./period";

export function CostSummary({ view, board }: PanelProps) {
  const { metrics, budgets, failed } = board;
  return (
    <Panel
      name="cost"
      title="Spend"
      note={metrics && days(metrics.first_day, metrics.last_day)}
      failed={failed.metrics}
      ready={metrics !== undefined}
    >
      {metrics && <Spend metrics={metrics} budgets={view.end ? undefined : budgets} place={view.place} />}
    </Panel>
  );
}

/** `budgets` stand as they are now: of days that are over they say nothing. */
const Spend = memo(function Spend({ metrics, budgets, place }: { metrics: Metrics; budgets?: Budgets; place: Place }) {
  const { spending, coverage, trends, timeframe } = metrics;
  if (metrics.calls === 0) {
    return (
      <Empty title="No usage in these days.">
        Choose other days or a longer timeframe, remove a filter, or take usage in with <code>obs-pipeline ingest</code>.
      </Empty>
    );
  }
  const unpriced = coverage.unpriced_calls > 0;
  const upper = coverage.unpriced_bound === null ? null : sum([spending.current, coverage.unpriced_bound]);
  const ahead = budgets ? projection(budgets.budgets, place, timeframe, budgets.at) : null;
  return (
    <>
      <p className="figure">
        {money(spending.current)}
        {unpriced && <small>{upTo(spending.current, upper)}</small>}
      </p>
      <p className="beside">
        <Trend of={trends.cost} rising="bad" />
        <span className="muted">{nano(spending.previous) === 0n ? "nothing" : money(spending.previous)} in {BEFORE[timeframe]}</span>
      </p>
      <BudgetUsed metrics={metrics} upper={unpriced ? upper : spending.current} />
      {ahead && (
        <p className={ahead.over ? "told over" : "told"}>
          {`At this pace about ${money(ahead.amount.toFixed(2))} in the ${timeframe} to `}
          {shortDay(Date.parse(ahead.by) - 1, "UTC")}
          {ahead.over && ", over the budget"}.
        </p>
      )}
      <dl className="stats">
        <Stat name="Calls" value={count(metrics.calls)} of={trends.calls} rising="neutral" />
        <Stat
          name="Errors"
          value={`${count(metrics.errors)} (${percent(metrics.errors / metrics.calls)})`}
          of={trends.errors}
          rising="bad"
        />
      </dl>
      <Trust sentences={openQuestions(coverage)} calls={coverage.calls} />
    </>
  );
});

/** The other end of what it can have cost; empty where both read the same. */
function upTo(low: string, high: string | null): string {
  if (high === null) return " or more";
  return money(low) === money(high) ? "" : ` – ${money(high)}`;
}

function BudgetUsed({ metrics, upper }: { metrics: Metrics; upper: string | null }) {
  const { spending, timeframe } = metrics;
  if (spending.budget === null || spending.percentage === null) {
    return <p className="told muted">No {PERIOD[timeframe]} cost budget covers just this.</p>;
  }
  const used = spending.percentage;
  const most = upper === null ? null : Number(upper) / (Number(spending.budget) || 1) * 100;
  const left = nano(spending.budget) - nano(spending.current);
  const tone = used >= 100 ? "bad" : used >= 80 ? "warn" : "accent";
  return (
    <div className="budget-used">
      <div className={`meter ${tone}`} aria-hidden="true">
        {most !== null && most > used && <span className="maybe" style={{ width: `${Math.min(most, 100)}%` }} />}
        <span className="sure" style={{ width: `${Math.min(used, 100)}%` }} />
      </div>
      <p className="told">
        <strong>{percent(used / 100)}{most !== null && most > used + 0.5 ? ` to ${percent(most / 100)}` : ""}</strong>
        {` of the ${PERIOD[timeframe]} budget of ${money(spending.budget)}, `}
        {left >= 0n ? `${money(fromNano(left))} left` : `${money(fromNano(-left))} over`}
      </p>
    </div>
  );
}

function Trust({ sentences, calls }: { sentences: readonly string[]; calls: number }) {
  if (sentences.length === 0) {
    return <p className="trust muted">All {counted(calls, "call")} are priced and attributed, and no day is provisional.</p>;
  }
  return (
    <ul className="trust" aria-label="How far these numbers can be trusted">
      {sentences.map((sentence) => <li key={sentence}>{sentence}</li>)}
    </ul>
  );
}

function Stat({ name, value, of, rising }: { name: string; value: string; of: Change; rising: Rising }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value} <Trend of={of} rising={rising} /></dd>
    </div>
  );
}

/** Whether more of it is bad news. */
type Rising = "bad" | "good" | "neutral";

/** An arrow, the sign and the size of a change; its colour only repeats them. */
export function Trend({ of, rising }: { of: Change; rising: Rising }) {
  if (of.change === null) {
    return <span className="trend">{nano(of.current) === nano(of.previous) ? "Unchanged" : "New"}</span>;
  }
  const [up, down] = [of.change >= 0.0005, of.change <= -0.0005];
  const tone = rising === "neutral" || (!up && !down) ? "" : up === (rising === "bad") ? "worse" : "better";
  return (
    <span className={`trend ${tone}`}>
      <span aria-hidden="true">{up ? "▲ " : down ? "▼ " : ""}</span>
      {change(of.change)}
    </span>
  );
}
