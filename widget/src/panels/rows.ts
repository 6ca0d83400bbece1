/** The rows of the drill-down: sorted, with `(unattributed)` apart, and adding up to the summary. Pure and exact. */

import { type Entities, type Entity, type Metrics, type Slice, UNATTRIBUTED } from "../answers";
import { fromNano, nano } from "../format";

export type Column = "name" | "cost" | "change" | "calls" | "errors" | "tokens" | "saved";

export interface Order {
  by: Column;
  rising: boolean;
}

/** What a row adds to the totals. */
export type Amounts = Omit<Slice, "name">;

export interface Shown {
  /** In the order asked for, without `(unattributed)`. */
  rows: Entity[];
  unattributed: Slice | null;
  total: Amounts;
  /** By how much of what it was before the total's cost moved. */
  moved: number | null;
  /** What the total has and no row does: pages not loaded, rows a search leaves out. Null where that is nothing. */
  rest: Amounts | null;
}

/**
 * The totals are the summary's where it is of the same data, so that both say the same; else what the rows come to.
 * A search leaves `(unattributed)` out of the answer; it is shown all the same, from the summary's slices if those have it.
 */
export function shown(entities: Entities, metrics: Metrics | undefined, order: Order): Shown {
  const summary = metrics && sameData(entities, metrics) ? metrics : undefined;
  const slices = summary?.by === entities.level ? summary.slices : [];
  const unattributed = [...entities.entities, ...slices].find((row) => row.name === UNATTRIBUTED) ?? null;
  const rows = ordered(entities.entities.filter((row) => row.name !== UNATTRIBUTED), order);
  const listed = added(unattributed ? [...rows, unattributed] : rows);
  if (!summary) return { rows, unattributed, total: listed, moved: null, rest: null };
  const total: Amounts = {
    cost: summary.spending.current, calls: summary.calls, errors: summary.errors, tokens: summary.tokens.consumed,
    saved_tokens: summary.tokens.saved,
  };
  const rest = less(total, listed);
  // A part larger than the whole: the two answers are not about the same rows.
  if (nano(rest.cost) < 0n || rest.calls < 0) return { rows, unattributed, total: listed, moved: null, rest: null };
  return { rows, unattributed, total, moved: summary.trends.cost.change, rest: isNothing(rest) ? null : rest };
}

export function ordered(rows: readonly Entity[], { by, rising }: Order): Entity[] {
  const sign = rising ? 1 : -1;
  if (by === "name") return rows.toSorted((a, b) => sign * a.name.localeCompare(b.name, "en"));
  const keyed = rows.map((row) => ({ row, key: keyOf(row, by) }));
  return keyed
    .sort((a, b) => (a.key === b.key ? compare(a.row.name, b.row.name) : sign * (a.key < b.key ? -1 : 1)))
    .map(({ row }) => row);
}

/** By how much of what it was before the cost moved; null where there was nothing before, or nobody says. */
export function costChange(row: Slice & { previous_cost?: string | null }): number | null {
  if (row.previous_cost == null) return null;
  const before = nano(row.previous_cost);
  return before === 0n ? null : Number(((nano(row.cost) - before) * 1_000_000n) / before) / 1_000_000;
}

/** Whether it cost something now and nothing before. */
export function isNew(row: Slice & { previous_cost?: string | null }): boolean {
  return row.previous_cost != null && nano(row.previous_cost) === 0n && nano(row.cost) !== 0n;
}

/** What the dearest of some rows costs. */
export function dearest(rows: readonly Pick<Slice, "cost">[]): string {
  let most = 0n;
  for (const row of rows) {
    const cost = nano(row.cost);
    if (cost > most) most = cost;
  }
  return fromNano(most);
}

export function errorRate({ errors, calls }: Amounts): number {
  return calls > 0 ? errors / calls : 0;
}

function keyOf(row: Entity, by: Exclude<Column, "name">): bigint | number {
  switch (by) {
    case "cost": return nano(row.cost);
    case "change": return costChange(row) ?? Number.NEGATIVE_INFINITY;
    case "errors": return errorRate(row);
    case "saved": return row.saved_tokens;
    default: return row[by];
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function sameData(entities: Entities, metrics: Metrics): boolean {
  return entities.first_day === metrics.first_day && entities.last_day === metrics.last_day
    && entities.versions.mart_spend === metrics.versions.mart_spend;
}

function added(rows: readonly Amounts[]): Amounts {
  let [cost, calls, errors, tokens, saved] = [0n, 0, 0, 0, 0];
  for (const row of rows) {
    cost += nano(row.cost);
    calls += row.calls;
    errors += row.errors;
    tokens += row.tokens;
    saved += row.saved_tokens;
  }
  return { cost: fromNano(cost), calls, errors, tokens, saved_tokens: saved };
}

function less(whole: Amounts, part: Amounts): Amounts {
  return {
    cost: fromNano(nano(whole.cost) - nano(part.cost)),
    calls: whole.calls - part.calls,
    errors: whole.errors - part.errors,
    tokens: whole.tokens - part.tokens,
    saved_tokens: whole.saved_tokens - part.saved_tokens,
  };
}

function isNothing(amounts: Amounts): boolean {
  return nano(amounts.cost) === 0n && amounts.calls === 0 && amounts.tokens === 0;
}
