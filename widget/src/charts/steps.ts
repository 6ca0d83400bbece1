/** The steps of a waterfall from a split deviation. Pure. Floats only place the bars; what is shown is formatted from exact text. */

import type { Metric, Split, Term } from "../answers";
import { fromNano, measured, money, nano } from "../format";

export interface Step {
  name: string;
  /** Which models it mostly comes from. */
  note?: string;
  kind: "whole" | "more" | "less";
  /** Where the bar begins and ends, as parts of the whole width. */
  from: number;
  to: number;
  shown: string;
}

/** Below this part of the longest way a step cannot be seen; all such are one. */
const SEEN = 0.002;

const NAMES: Record<string, string> = {
  reference: "usual mean against expected",
};

export function stepsOf(metric: Metric, split: Split): Step[] {
  const [expected, observed] = [nano(split.expected), nano(split.observed)];
  const seen = visible(split.terms, expected, observed);
  let reached = expected;
  const ways = seen.map((term) => {
    const from = reached;
    reached += nano(term.amount);
    return { term, from, to: reached };
  });
  const ends = [0n, expected, observed, ...ways.map((way) => way.to)];
  const [low, high] = [ends.reduce(least), ends.reduce(most)];
  const at = (value: bigint) => (high === low ? 0 : Number(value - low) / Number(high - low));
  const whole = (name: string, value: bigint): Step => ({
    name, kind: "whole", from: at(least(0n, value)), to: at(most(0n, value)), shown: amount(metric, value),
  });
  return [
    whole("expected", expected),
    ...ways.map(({ term, from, to }): Step => ({
      name: NAMES[term.name] ?? term.name,
      note: leading(metric, term),
      kind: to >= from ? "more" : "less",
      from: at(least(from, to)),
      to: at(most(from, to)),
      shown: signed(metric, to - from),
    })),
    whole("observed", observed),
  ];
}

/** The terms worth a step of their own, and the rest as one, so that the steps still meet. */
function visible(terms: readonly Term[], expected: bigint, observed: bigint): Term[] {
  const longest = [expected, observed, ...terms.map((term) => nano(term.amount))].map(size).reduce(most);
  const seen = terms.filter((term) => Number(size(nano(term.amount))) >= SEEN * Number(longest));
  const rest = terms.filter((term) => !seen.includes(term)).reduce((all, term) => all + nano(term.amount), 0n);
  return rest === 0n ? seen : [...seen, { name: "too small to see", amount: fromNano(rest), by_model: [] }];
}

/** The models behind a term, where it is not the one model there is. */
function leading(metric: Metric, { by_model: models }: Term): string | undefined {
  if (models.length === 0) return undefined;
  if (models.length === 1) return models[0]?.model ?? "no model";
  return models.slice(0, 2).map((one) => `${one.model ?? "no model"} ${signed(metric, nano(one.amount))}`).join(", ");
}

function signed(metric: Metric, value: bigint): string {
  return value > 0n ? `+${amount(metric, value)}` : amount(metric, value);
}

function amount(metric: Metric, value: bigint): string {
  if (metric === "cost") return money(fromNano(value));
  const told = measured(metric, Number(size(value)) / 1e9);
  return value < 0n ? `−${told}` : told;
}

function size(value: bigint): bigint {
  return value < 0n ? -value : value;
}

function least(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function most(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
