/** Which budget needs a look first. Pure. */

import type { BudgetShown, BudgetState } from "../answers";

const STATES: readonly BudgetState[] = ["exceeded", "warning", "ok", "incomparable"];

/** Exceeded ones first, then those that will be gone the soonest, then by state and by how full they are. */
export function byRisk(budgets: readonly BudgetShown[]): BudgetShown[] {
  return budgets.toSorted((a, b) =>
    Number(b.state === "exceeded") - Number(a.state === "exceeded")
    || gone(a) - gone(b)
    || STATES.indexOf(a.state) - STATES.indexOf(b.state)
    || (b.ratio ?? -1) - (a.ratio ?? -1));
}

function gone({ state, projected_exhaustion: at }: BudgetShown): number {
  // Infinity minus itself is no number: a date that never comes stands for "never".
  return at === null || state === "exceeded" ? Number.MAX_SAFE_INTEGER : Date.parse(at);
}
