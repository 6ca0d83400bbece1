/** What the numbers of a period suggest: plain findings from an answer's own slices, the most money first. Pure. */

import { type Metrics, REST, type Slice, UNATTRIBUTED } from "../answers";
import { counted, fromNano, money, nano, percent, share, short } from "../format";

export interface Hint {
  id: string;
  /** The slice to look at; undefined where it is about everything. */
  name?: string;
  title: string;
  detail: string;
}

const MILLION = 1_000_000;
const MOST = 4;

interface Found extends Hint {
  weight: bigint;
}

/** A share of the period's cost below which a slice is not worth a word. */
const WORTH = 0.05;

export function hints(metrics: Metrics): Hint[] {
  const named = metrics.slices.filter(
    (slice) => slice.name !== REST && slice.name !== UNATTRIBUTED && share(slice.cost, metrics.spending.current) >= WORTH,
  );
  const found = [
    ...lowCache(metrics),
    ...named.flatMap((slice) => [...failing(slice), ...dear(slice, metrics), ...unsaved(slice, metrics)]),
  ];
  return found
    .sort((a, b) => (a.weight < b.weight ? 1 : a.weight > b.weight ? -1 : a.id.localeCompare(b.id)))
    .slice(0, MOST)
    .map(({ weight: _, ...hint }) => hint);
}

/** Much input for every token of output, and next to none of it from a cache. */
function lowCache({ tokens, spending }: Metrics): Found[] {
  const low = tokens.cached_share !== null && tokens.cached_share < 0.2;
  if (!low || tokens.input < MILLION || tokens.input < 10 * tokens.output) return [];
  return [{
    id: "cache",
    title: "Little of the input comes from caches",
    detail: `${percent(tokens.cached_share)} of ${short(tokens.input)} input tokens, and only ${short(tokens.output)} of output. `
      + "Keep the fixed part of prompts first and unchanged, so that providers can cache it.",
    weight: nano(spending.current),
  }];
}

function failing(slice: Slice): Found[] {
  const rate = slice.errors / Math.max(slice.calls, 1);
  if (slice.calls < 20 || rate < 0.1) return [];
  return [{
    id: `errors:${slice.name}`,
    name: slice.name,
    title: `${percent(rate)} of the calls fail`,
    detail: `${counted(slice.errors, "failed call")} of ${counted(slice.calls, "call")}, ${money(slice.cost)} in all.`,
    weight: nano(slice.cost),
  }];
}

/** At least three times the price of everything's million tokens. */
function dear(slice: Slice, { spending, tokens }: Metrics): Found[] {
  const own = perMillion(slice.cost, slice.tokens);
  const all = perMillion(spending.current, tokens.consumed);
  if (own === null || all === null || all === 0n || own < 3n * all) return [];
  return [{
    id: `price:${slice.name}`,
    name: slice.name,
    title: `A million tokens cost ${money(fromNano(own))}`,
    detail: `${money(fromNano(all))} is the price of everything together. A smaller model may do, or a reported price is wrong.`,
    weight: nano(slice.cost),
  }];
}

/** Others save tokens, this one does not. */
function unsaved(slice: Slice, { tokens }: Metrics): Found[] {
  const efficiency = tokens.efficiency ?? 0;
  if (efficiency < 0.05 || slice.saved_tokens > 0 || slice.tokens < MILLION) return [];
  return [{
    id: `saved:${slice.name}`,
    name: slice.name,
    title: "Saves no tokens",
    detail: `${percent(efficiency)} are saved overall; here none of ${short(slice.tokens)}, ${money(slice.cost)}.`,
    weight: nano(slice.cost) / 2n,
  }];
}

/** Nano-dollars for a million tokens. */
export function perMillion(cost: string, tokens: number): bigint | null {
  return tokens > 0 ? (nano(cost) * BigInt(MILLION)) / BigInt(Math.round(tokens)) : null;
}
