/** Where every budget stands: used, how fast, and when it would be gone. Those at most risk first. */

import { memo, useMemo, useState } from "react";

import type { Budgets, BudgetShown, Money } from "../answers";
import type { Actions, PanelProps } from "../contract";
import { clock, count, exact, money, moneyIn, nano, percent, share, short, shortDay, when } from "../format";
import { byRisk } from "./risk";
import { Ago, Clipped, Empty, Panel } from "./Panel";

const SHOWN = 6;
/** The bar ends beyond the limit, so that an exceeded budget shows by how much. */
const END = 1.2;
const MARKS = [0.5, 0.8, 0.95] as const;
const BURN = "How fast it is used, lately and over a longer span: at 1× it is used up exactly at its end";

export function BudgetBars({ board, act }: PanelProps) {
  const { budgets, failed } = board;
  return (
    <Panel
      name="budgets"
      title="Budgets"
      note={budgets?.at && <>as of <time dateTime={budgets.at}>{when(budgets.at, "UTC")}</time> UTC</>}
      failed={failed.budgets}
      ready={budgets !== undefined}
    >
      {budgets && <Bars budgets={budgets} change={act.change} />}
    </Panel>
  );
}

const Bars = memo(function Bars({ budgets, change }: { budgets: Budgets; change: Actions["change"] }) {
  const [all, setAll] = useState(false);
  const sorted = useMemo(() => byRisk(budgets.budgets), [budgets]);
  if (sorted.length === 0) {
    return (
      <Empty title="No budget is set for this choice.">
        Write one into <code>policies/</code> and run <code>obs-pipeline policies sync</code>.
      </Empty>
    );
  }
  const shown = all ? sorted : sorted.slice(0, SHOWN);
  return (
    <>
      <p className="visually-hidden">The ticks on each bar are at 50, 80 and 95 percent, the strong one at the limit.</p>
      <ul className="budgets">
        {shown.map((one) => <Bar key={keyOf(one)} one={one} change={change} />)}
      </ul>
      {sorted.length > SHOWN && (
        <button type="button" className="btn quiet more" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? "Show the riskiest only" : `Show all ${count(sorted.length)}`}
          {budgets.has_more && <span className="muted"> of {count(budgets.total)}</span>}
        </button>
      )}
    </>
  );
});

const Bar = memo(function Bar({ one, change }: { one: BudgetShown; change: Actions["change"] }) {
  const name = one.agent ?? one.project ?? one.org ?? "everything";
  const [sure, most] = [filled(one.spent, one.limit), filled(one.spent_upper, one.limit)];
  const place = { org: one.org ?? undefined, project: one.project ?? undefined, agent: one.agent ?? undefined };
  return (
    <li className="budget">
      <p className="budget-head">
        <button type="button" className="link strong" title={`${one.scope} ${name}`} onClick={() => change({ place })}>
          <Clipped text={name} />
        </button>
        <span className="muted">{one.scope} · {one.period} {one.kind}</span>
        <span className={`state ${one.state}`}>{one.state === "incomparable" ? "other currency" : one.state}</span>
        <strong className="budget-share">{usedText(one, sure, most)}</strong>
      </p>
      <svg className={`budget-bar ${one.state}`} width="100%" height="14" aria-hidden="true">
        <rect className="track" y="3" width="100%" height="8" rx="2" />
        {most !== null && <rect className="maybe" y="3" width={along(most)} height="8" rx="2" />}
        {sure !== null && <rect className="sure" y="3" width={along(sure)} height="8" rx="2" />}
        {MARKS.map((mark) => <rect key={mark} className="tick" x={along(mark)} y="3" width="1" height="8" />)}
        <rect className="limit" x={along(1)} width="1.5" height="14" />
      </svg>
      <p className="budget-foot muted">
        <span>{spentText(one)}<span title={BURN}>{burnText(one)}</span></span>
        {one.projected_exhaustion
          ? <span className="exhausted">gone <Ago time={one.projected_exhaustion} /> at this pace</span>
          : <span title={`until ${exact(one.window_end)}`}>{untilText(one)}</span>}
      </p>
    </li>
  );
});

function keyOf(one: BudgetShown): string {
  return JSON.stringify([one.scope, one.org, one.project, one.agent, one.kind, one.period, one.currency, one.window_start]);
}

/** Used, over the limit; null where it is unknown. A limit of nothing is full as soon as anything is spent. */
function filled(spent: Money | null, limit: Money): number | null {
  if (spent === null) return null;
  return nano(limit) === 0n ? (nano(spent) > 0n ? END : 0) : share(spent, limit);
}

function along(part: number): string {
  return `${(Math.min(Math.max(part, 0), END) / END) * 100}%`;
}

function usedText(one: BudgetShown, sure: number | null, most: number | null): string {
  if (sure === null) return "—";
  // Of nothing there are no shares.
  if (nano(one.limit) === 0n) return sure > 0 ? "over" : "unused";
  if (one.spent_upper === null) return `${percent(sure)} or more`;
  const [low, high] = [percent(sure), percent(most)];
  return low === high ? low : `${low} – ${high}`;
}

function spentText(one: BudgetShown): string {
  if (one.spent === null) return `Limit ${limitText(one)}, not comparable with USD`;
  const low = amount(one, one.spent);
  const high = one.spent_upper === null ? null : amount(one, one.spent_upper);
  return `${high === null ? `${low} or more` : low === high ? low : `${low} – ${high}`} of ${limitText(one)}`;
}

function amount({ kind, currency }: BudgetShown, value: Money): string {
  if (kind !== "cost") return short(Number(value));
  return currency === "USD" ? money(value) : moneyIn(currency, value);
}

/** Limits are mostly whole: their zeros say nothing. */
function limitText(one: BudgetShown): string {
  return amount(one, one.limit).replace(/\.00$/, "");
}

/** How fast it is used, in times an even pace: over the short span, then over the long one. */
function burnText({ burn_short: now, burn_long: longer }: BudgetShown): string {
  if (now === null || longer === null || Math.max(now, longer) < 0.005) return "";
  const times = (burn: number) => `${burn >= 10 ? Math.round(burn) : Number(burn.toFixed(burn < 1 ? 2 : 1))}×`;
  return ` · pace ${times(now)} lately, ${times(longer)} overall`;
}

function untilText({ window_end: end, window_start: start }: BudgetShown): string {
  const hours = (Date.parse(end) - Date.parse(start)) / 3_600_000;
  return hours < 20 ? `until ${clock(end, "UTC")} UTC` : `until ${shortDay(Date.parse(end) - 1, "UTC")}`;
}
