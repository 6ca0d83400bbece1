/** Words and sums about the period that is looked at. Pure. */

import type { BudgetShown, Coverage, Timeframe } from "../answers";
import { count, counted, money, shortDay } from "../format";
import type { Place } from "../state";

export const BEFORE: Record<Timeframe, string> = {
  day: "the day before", week: "the 7 days before", month: "the 30 days before",
};

export const PERIOD: Record<Timeframe, string> = { day: "daily", week: "weekly", month: "monthly" };

/** What the numbers leave open, a sentence each; empty where nothing is. */
export function openQuestions(coverage: Coverage): string[] {
  const told: string[] = [];
  if (coverage.unpriced_calls > 0) {
    const bound = coverage.unpriced_bound;
    const most = bound === null ? "how much on top is unknown" : `at most ${money(bound)} on top`;
    told.push(`No price is known for ${count(coverage.unpriced_calls)} of ${counted(coverage.calls, "call")}: ${most}.`);
  }
  if (Number(coverage.unattributed_cost) !== 0) {
    told.push(`${money(coverage.unattributed_cost)} cannot be assigned to an agent and a team.`);
  }
  const open = coverage.provisional_days;
  if (open.length > 0) {
    const named = open.length > 3 ? counted(open.length, "day") : listed(open.map((day) => shortDay(day, "UTC")));
    told.push(`${named} ${open.length > 1 ? "are" : "is"} provisional: late usage may still arrive.`);
  }
  return told;
}

/** Where spending ends if it goes on at the pace of the budget's long span. An estimate: floats are good enough. */
export interface Projection {
  amount: number;
  by: string;
  over: boolean;
}

/** The projection of the one cost budget of this period and place; null where there is none or more than one. */
export function projection(
  budgets: readonly BudgetShown[], place: Place, timeframe: Timeframe, at: string | null,
): Projection | null {
  if (place.team !== undefined || place.model !== undefined || at === null) return null;
  const scope = place.agent !== undefined ? "agent" : place.project !== undefined ? "project" : "org";
  const fitting = budgets.filter((budget) =>
    budget.kind === "cost" && budget.currency === "USD" && budget.period === PERIOD[timeframe] && budget.scope === scope
    && (["org", "project", "agent"] as const).every((name) => place[name] === undefined || place[name] === budget[name]));
  const [budget] = fitting;
  if (fitting.length !== 1 || !budget || budget.burn_long === null || budget.spent === null) return null;
  const [start, end, now] = [Date.parse(budget.window_start), Date.parse(budget.window_end), Date.parse(at)];
  if (now >= end - 60_000 || end <= start) return null;
  const limit = Number(budget.limit);
  const amount = Number(budget.spent) + budget.burn_long * limit * ((end - now) / (end - start));
  return { amount, by: budget.window_end, over: amount > limit };
}

export function listed(names: readonly string[]): string {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
